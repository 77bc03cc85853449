use plasma_typed::{ObjectId, TypedClient};

fn prices(client: &TypedClient) {
    let _ = client.create::<[f64]>(ObjectId::rand());
}

fn main() {}
