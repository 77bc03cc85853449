use plasma_typed::PlasmaObject;

#[derive(PlasmaObject, Clone, Copy)]
#[repr(C, packed)]
struct Tick {
    side: u8,
    price: f64,
}

fn main() {}
