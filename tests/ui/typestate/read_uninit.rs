use plasma_typed::{Create, PlasmaObject, Uninit};

#[derive(PlasmaObject, Clone, Copy)]
#[repr(C)]
struct Tick {
    price: f64,
}

fn price(tick: Create<Tick, Uninit>) -> f64 {
    tick.price
}

fn main() {}
