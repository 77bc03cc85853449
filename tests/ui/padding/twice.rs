use plasma_typed::PlasmaObject;

#[derive(PlasmaObject, Clone, Copy)]
#[repr(C)]
struct Tick {
    side: u8,
    size: u32,
    level: u16,
    price: f64,
}

fn main() {}
