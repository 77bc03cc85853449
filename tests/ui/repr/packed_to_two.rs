use plasma_typed::PlasmaObject;

#[derive(PlasmaObject, Clone, Copy)]
#[repr(C, packed(2))]
struct Tick {
    side: u8,
    price: f64,
}

fn main() {}
