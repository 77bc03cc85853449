use std::sync::Arc;

use plasma_typed::PlasmaObject;

#[derive(PlasmaObject)]
#[repr(C)]
struct Tick {
    price: Arc<f64>,
}

fn main() {}
