use plasma_typed::PlasmaObject;

#[derive(PlasmaObject, Clone, Copy)]
#[repr(C, align(eight))]
struct Tick {
    price: f64,
}

fn main() {}
