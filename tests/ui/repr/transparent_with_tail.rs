use plasma_typed::PlasmaObject;

#[derive(PlasmaObject)]
#[repr(transparent)]
struct Bytes {
    bytes: [u8],
}

fn main() {}
