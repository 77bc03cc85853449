use plasma_typed::PlasmaObject;

#[derive(PlasmaObject)]
#[repr(C)]
struct Tick {
    prices: Vec<f64>,
}

fn main() {}
