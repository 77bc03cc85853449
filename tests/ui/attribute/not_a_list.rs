use plasma_typed::PlasmaObject;

#[derive(PlasmaObject, Clone, Copy)]
#[plasma = "market.Tick"]
#[repr(C)]
struct Tick {
    price: f64,
}

fn main() {}
