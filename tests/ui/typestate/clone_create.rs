use plasma_typed::{Create, PlasmaObject};

#[derive(PlasmaObject, Clone, Copy)]
#[repr(C)]
struct Tick {
    price: f64,
}

fn two_writers(tick: &Create<Tick>) -> Create<Tick> {
    tick.clone()
}

fn main() {}
