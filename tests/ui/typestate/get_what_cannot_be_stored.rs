use plasma_typed::{ObjectId, TypedClient};

fn name(client: &TypedClient) {
    let _ = client.get::<String>(ObjectId::rand());
}

fn main() {}
