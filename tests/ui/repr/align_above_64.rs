use plasma_typed::PlasmaObject;

#[derive(PlasmaObject, Clone, Copy)]
#[repr(C, align(128))]
struct Page {
    bytes: [u8; 128],
}

fn main() {}
