use plasma_typed::PlasmaObject;

#[derive(PlasmaObject, Clone, Copy)]
#[repr(align(8))]
struct Page {
    bytes: [u8; 8],
}

fn main() {}
