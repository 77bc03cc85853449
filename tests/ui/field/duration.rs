use std::time::Duration;

use plasma_typed::PlasmaObject;

#[derive(PlasmaObject, Clone, Copy)]
#[repr(C)]
struct Tick {
    age: Duration,
}

fn main() {}
