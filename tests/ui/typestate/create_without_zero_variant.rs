use plasma_typed::{ObjectId, PlasmaObject, TypedClient};

#[derive(PlasmaObject, Clone, Copy)]
#[repr(u8)]
enum Side {
    Buy = 1,
    Sell = 2,
}

fn zero(client: &TypedClient) {
    let _ = client.create::<Side>(ObjectId::rand());
}

fn main() {}
