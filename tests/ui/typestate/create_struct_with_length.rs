use plasma_typed::{ObjectId, PlasmaObject, TypedClient};

#[derive(PlasmaObject, Clone, Copy)]
#[repr(C)]
struct Tick {
    price: f64,
}

fn ticks(client: &TypedClient) {
    let _ = client.create_with_len::<Tick>(ObjectId::rand(), 10);
}

fn main() {}
