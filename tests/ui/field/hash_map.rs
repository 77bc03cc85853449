use std::collections::HashMap;

use plasma_typed::PlasmaObject;

#[derive(PlasmaObject)]
#[repr(C)]
struct Tick {
    prices: HashMap<u32, f64>,
}

fn main() {}
