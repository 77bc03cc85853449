use plasma_typed::{Create, PlasmaObject, Uninit};

#[derive(PlasmaObject, Clone, Copy)]
#[repr(C)]
struct Tick {
    price: f64,
}

fn claim(tick: Create<Tick, Uninit>) -> Create<Tick> {
    tick.assume_init()
}

fn main() {}
