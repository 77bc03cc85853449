use std::num::NonZero;

use plasma_typed::{ObjectId, TypedClient};

fn zeros(client: &TypedClient) {
    let _ = client.create_with_len::<[NonZero<u64>]>(ObjectId::rand(), 10);
}

fn main() {}
