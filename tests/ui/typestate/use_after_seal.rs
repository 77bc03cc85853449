use plasma_typed::{Create, PlasmaObject};

#[derive(PlasmaObject, Clone, Copy)]
#[repr(C)]
struct Tick {
    price: f64,
}

fn seal_then_write(mut tick: Create<Tick>) {
    let sealed = tick.seal();
    tick.price = 101.5;
    drop(sealed);
}

fn main() {}
