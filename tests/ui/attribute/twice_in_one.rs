use plasma_typed::PlasmaObject;

#[derive(PlasmaObject, Clone, Copy)]
#[plasma(name = "market.Tick", name = "Tick")]
#[repr(C)]
struct Tick {
    price: f64,
}

fn main() {}
