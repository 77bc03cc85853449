use plasma_typed::{Create, PlasmaObject};

#[derive(PlasmaObject, Clone, Copy)]
#[repr(C)]
struct Tick {
    price: f64,
}

fn keep_writing(mut tick: Create<Tick>) {
    let price = &mut tick.price;
    let sealed = tick.seal();
    *price = 101.5;
    drop(sealed);
}

fn main() {}
