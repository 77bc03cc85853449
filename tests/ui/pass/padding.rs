//! The mistakes of `padding/`, mended.

use plasma_typed::PlasmaObject;

#[derive(PlasmaObject, Clone, Copy)]
#[repr(C)]
struct Between {
    side: u8,
    _pad: [u8; 3],
    size: u32,
}

#[derive(PlasmaObject, Clone, Copy)]
#[repr(C)]
struct AtTheEnd {
    price: f64,
    side: u8,
    _pad: [u8; 7],
}

#[derive(PlasmaObject, Clone, Copy)]
#[repr(C, align(64))]
struct ByAlign {
    bytes: [u8; 60],
    _pad: [u8; 4],
}

#[derive(PlasmaObject)]
#[repr(C)]
struct BeforeTail {
    kind: u8,
    _pad: [u8; 7],
    values: [u64],
}

#[derive(PlasmaObject, Clone, Copy)]
#[repr(C)]
struct Tuple(u8, [u8; 3], u32);

#[derive(PlasmaObject, Clone, Copy)]
#[repr(C)]
struct Pair<A, B> {
    a: A,
    b: B,
}

// This one has padding, but nobody asks for its schema.
type NeverUsed = Pair<u8, u32>;

fn main() {
    assert_eq!(Pair::<u32, f32>::SCHEMA.size(), 8);
    assert_eq!(BeforeTail::SCHEMA.size(), 8);
    assert_eq!(size_of::<NeverUsed>(), 8);
}
