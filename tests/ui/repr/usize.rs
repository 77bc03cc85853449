use plasma_typed::PlasmaObject;

#[derive(PlasmaObject, Clone, Copy)]
#[repr(usize)]
enum Side {
    Buy,
    Sell,
}

fn main() {}
