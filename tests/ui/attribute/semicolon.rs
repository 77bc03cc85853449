use plasma_typed::PlasmaObject;

#[derive(PlasmaObject, Clone, Copy)]
#[plasma(name = "market.Tick"; version = 2)]
#[repr(C)]
struct Tick {
    price: f64,
}

fn main() {}
