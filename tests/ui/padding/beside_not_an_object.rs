use plasma_typed::PlasmaObject;

#[derive(PlasmaObject, Clone, Copy)]
#[repr(C)]
struct Tick {
    side: u8,
    price: Price,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct Price(u32);

fn main() {}
