use plasma_typed::PlasmaObject;

#[derive(PlasmaObject, Clone, Copy)]
#[repr(C, align(64))]
struct Line {
    bytes: [u8; 60],
}

fn main() {}
