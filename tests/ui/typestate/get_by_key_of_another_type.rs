use plasma_typed::{Key, PlasmaObject, TypedClient};

#[derive(PlasmaObject, Clone, Copy)]
#[repr(C)]
struct Tick {
    price: f64,
}

fn tick(client: &TypedClient, key: Key<u64>) {
    let _ = client.get::<Tick>(key);
}

fn main() {}
