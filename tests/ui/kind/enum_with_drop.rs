use plasma_typed::PlasmaObject;

#[derive(PlasmaObject)]
#[repr(u8)]
enum Side {
    Buy,
    Sell,
}

impl Drop for Side {
    fn drop(&mut self) {}
}

fn main() {}
