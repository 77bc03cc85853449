use plasma_typed::PlasmaObject;

#[derive(PlasmaObject, Clone, Copy)]
#[repr(u8)]
enum Side<const N: usize> {
    Buy,
    Sell,
}

fn main() {}
