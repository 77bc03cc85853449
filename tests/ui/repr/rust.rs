use plasma_typed::PlasmaObject;

#[derive(PlasmaObject, Clone, Copy)]
#[repr(Rust)]
struct Tick {
    price: f64,
}

fn main() {}
