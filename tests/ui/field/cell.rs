use std::cell::Cell;

use plasma_typed::PlasmaObject;

#[derive(PlasmaObject)]
#[repr(C)]
struct Tick {
    price: Cell<f64>,
}

fn main() {}
