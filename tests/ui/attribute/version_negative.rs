use plasma_typed::PlasmaObject;

#[derive(PlasmaObject, Clone, Copy)]
#[plasma(version = -1)]
#[repr(C)]
struct Tick {
    price: f64,
}

fn main() {}
