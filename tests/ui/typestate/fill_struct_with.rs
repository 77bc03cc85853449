use plasma_typed::{Create, PlasmaObject, Uninit};

#[derive(PlasmaObject, Clone, Copy)]
#[repr(C)]
struct Tick {
    price: f64,
}

fn fill(tick: Create<Tick, Uninit>) -> Create<Tick> {
    tick.fill_with(|_| 1.0)
}

fn main() {}
