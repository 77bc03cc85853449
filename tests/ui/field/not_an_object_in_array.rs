use plasma_typed::PlasmaObject;

#[derive(PlasmaObject, Clone, Copy)]
#[repr(C)]
struct Tick {
    prices: [Price; 4],
}

#[derive(Clone, Copy)]
#[repr(C)]
struct Price(f64);

fn main() {}
