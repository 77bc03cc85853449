use plasma_typed::{PlasmaObject, Sealed};

#[derive(PlasmaObject, Clone, Copy)]
#[repr(C)]
struct Tick {
    price: f64,
}

fn read_released(tick: Sealed<Tick>) -> f64 {
    let price = &tick.price;
    drop(tick);
    *price
}

fn main() {}
