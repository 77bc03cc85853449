use std::sync::atomic::AtomicU64;

use plasma_typed::PlasmaObject;

#[derive(PlasmaObject)]
#[repr(C)]
struct Tick {
    count: AtomicU64,
}

fn main() {}
