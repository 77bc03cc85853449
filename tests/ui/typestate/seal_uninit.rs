use plasma_typed::{Create, PlasmaObject, Uninit};

#[derive(PlasmaObject, Clone, Copy)]
#[repr(C)]
struct Tick {
    price: f64,
}

fn seal(tick: Create<Tick, Uninit>) {
    let _ = tick.seal();
}

fn main() {}
