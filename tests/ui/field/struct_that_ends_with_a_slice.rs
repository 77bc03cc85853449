use plasma_typed::PlasmaObject;

#[derive(PlasmaObject)]
#[repr(C)]
struct Image {
    width: u64,
    pixels: [u8],
}

#[derive(PlasmaObject)]
#[repr(C)]
struct Frame {
    taken_ns: u64,
    image: Image,
}

fn main() {}
