use plasma_typed::PlasmaObject;

#[derive(PlasmaObject, Clone, Copy)]
#[repr(C)]
struct Outer {
    first: u8,
    inner: Line,
}

#[derive(PlasmaObject, Clone, Copy)]
#[repr(C, align(64))]
struct Line {
    bytes: [u8; 64],
}

fn main() {}
