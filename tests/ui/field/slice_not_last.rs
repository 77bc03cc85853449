use plasma_typed::PlasmaObject;

#[derive(PlasmaObject)]
#[repr(C)]
struct Image {
    pixels: [u8],
    width: u32,
}

fn main() {}
