use plasma_typed::{PlasmaObject, Sealed};

#[derive(PlasmaObject, Clone, Copy)]
#[repr(C)]
struct Tick {
    price: f64,
}

fn tick_mut(tick: &mut Sealed<Tick>) -> &mut Tick {
    tick
}

fn main() {}
