use plasma_typed::PlasmaObject;

#[derive(PlasmaObject, Clone, Copy)]
#[repr(C)]
struct Tick {
    price: Price,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct Price(f64);

const SIZE: usize = Tick::SCHEMA.size();

fn main() {}
