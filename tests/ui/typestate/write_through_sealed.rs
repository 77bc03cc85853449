use plasma_typed::{PlasmaObject, Sealed};

#[derive(PlasmaObject, Clone, Copy)]
#[repr(C)]
struct Tick {
    price: f64,
}

fn raise(mut tick: Sealed<Tick>) {
    tick.price = 101.5;
}

fn main() {}
