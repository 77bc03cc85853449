use plasma_typed::{Create, PlasmaObject};

#[derive(PlasmaObject, Clone, Copy)]
#[repr(C)]
struct Tick {
    price: f64,
}

fn abort_then_seal(tick: Create<Tick>) {
    let _ = tick.abort();
    let _ = tick.seal();
}

fn main() {}
