#![deny(unused_must_use)]

use plasma_typed::{ObjectId, PlasmaObject, TypedClient};

#[derive(PlasmaObject, Clone, Copy)]
#[repr(C)]
struct Tick {
    price: f64,
}

fn nothing(client: &TypedClient) -> Result<(), Box<dyn std::error::Error>> {
    client.create::<Tick>(ObjectId::rand())?;
    Ok(())
}

fn main() {}
