use plasma_typed::PlasmaObject;

use tests_rewrite::f64_is_address;

#[derive(PlasmaObject, Clone, Copy)]
#[f64_is_address]
#[repr(C)]
struct Tick {
    ts_ns: u64,
    price: f64,
}

type Address = &'static u64;

fn main() {}
