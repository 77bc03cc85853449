use plasma_typed::PlasmaObject;

#[derive(PlasmaObject, Clone, Copy)]
struct Tick {
    price: f64,
}

fn main() {}
