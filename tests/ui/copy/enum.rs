use plasma_typed::PlasmaObject;

#[derive(PlasmaObject)]
#[repr(u8)]
enum Side {
    Buy,
    Sell,
}

fn main() {}
