use std::mem::MaybeUninit;

use plasma_typed::PlasmaObject;

#[derive(PlasmaObject, Clone, Copy)]
#[repr(C)]
struct Tick {
    price: MaybeUninit<f64>,
}

fn main() {}
