use plasma_typed::{Create, PlasmaObject};

#[derive(PlasmaObject, Clone, Copy)]
#[repr(C)]
struct Tick {
    price: f64,
}

fn swap_with_itself(mut tick: Create<Tick>) {
    let first = &mut *tick;
    let second = &mut *tick;
    std::mem::swap(first, second);
}

fn main() {}
