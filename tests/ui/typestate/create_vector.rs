use plasma_typed::{ObjectId, TypedClient};

fn prices(client: &TypedClient) {
    let _ = client.create::<Vec<f64>>(ObjectId::rand());
}

fn main() {}
