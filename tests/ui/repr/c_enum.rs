use plasma_typed::PlasmaObject;

#[derive(PlasmaObject, Clone, Copy)]
#[repr(C)]
enum Side {
    Buy,
    Sell,
}

fn main() {}
