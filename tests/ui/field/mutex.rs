use std::sync::Mutex;

use plasma_typed::PlasmaObject;

#[derive(PlasmaObject)]
#[repr(C)]
struct Tick {
    price: Mutex<f64>,
}

fn main() {}
