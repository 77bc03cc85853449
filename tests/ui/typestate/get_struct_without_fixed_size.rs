use plasma_typed::{ObjectId, PlasmaObject, TypedClient};

#[derive(PlasmaObject)]
#[repr(C)]
struct Image {
    width: u64,
    pixels: [u8],
}

#[derive(PlasmaObject)]
#[repr(C)]
struct Frame {
    image: Image,
}

fn frame(client: &TypedClient) {
    let _ = client.get::<Frame>(ObjectId::rand());
}

fn main() {}
