use plasma_typed::PlasmaObject;

#[derive(PlasmaObject, Clone, Copy)]
#[repr(u8)]
enum Side {
    #[plasma(name = "bid")]
    Buy,
    Sell,
}

fn main() {}
