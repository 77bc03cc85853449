use plasma_typed::PlasmaObject;

#[derive(PlasmaObject, Clone, Copy)]
#[plasma(crate = "plasma typed")]
#[repr(C)]
struct Tick {
    price: f64,
}

fn main() {}
