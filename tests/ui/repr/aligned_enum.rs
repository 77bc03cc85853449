use plasma_typed::PlasmaObject;

#[derive(PlasmaObject, Clone, Copy)]
#[repr(u8, align(4))]
enum Side {
    Buy,
    Sell,
}

fn main() {}
