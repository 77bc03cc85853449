use plasma_typed::{TypedClient};

fn prices(client: &TypedClient, prices: Vec<f64>) {
    let _ = client.put(&prices);
}

fn main() {}
