use plasma_typed::PlasmaObject;

#[derive(PlasmaObject, Clone, Copy)]
enum Side {
    Buy,
    Sell,
}

fn main() {}
