use plasma_typed::{ObjectId, PlasmaObject, TypedClient};

#[derive(PlasmaObject, Clone, Copy)]
#[repr(u8)]
enum Side {
    Buy = 1,
    Sell = 2,
}

#[derive(PlasmaObject, Clone, Copy)]
#[repr(C)]
struct Order {
    side: Side,
}

fn zero(client: &TypedClient) {
    let _ = client.create::<Order>(ObjectId::rand());
}

fn main() {}
