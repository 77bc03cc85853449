//! The mistakes of `repr/`, mended.

use plasma_typed::PlasmaObject;

#[derive(PlasmaObject, Clone, Copy)]
#[repr(C)]
struct Tick {
    price: f64,
    side: Side,
    _pad: [u8; 7],
}

#[derive(PlasmaObject, Clone, Copy)]
#[repr(u8)]
enum Side {
    Buy,
    Sell,
}

#[derive(PlasmaObject, Clone, Copy)]
#[repr(C, align(64))]
struct Line {
    bytes: [u8; 128],
}

#[derive(PlasmaObject, Clone, Copy)]
#[repr(C)]
#[repr(align(8))]
struct Page {
    bytes: [u8; 8],
}

#[derive(PlasmaObject)]
#[repr(C)]
struct Bytes {
    bytes: [u8],
}

fn main() {
    assert_eq!(Line::SCHEMA.align(), 64);
    assert_eq!(Page::SCHEMA.align(), 8);
    assert_eq!(Bytes::SCHEMA.size(), 0);
}
