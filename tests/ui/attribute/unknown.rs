use plasma_typed::PlasmaObject;

#[derive(PlasmaObject, Clone, Copy)]
#[plasma(nam = "market.Tick")]
#[repr(C)]
struct Tick {
    price: f64,
}

fn main() {}
