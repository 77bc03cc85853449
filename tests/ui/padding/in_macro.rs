use plasma_typed::PlasmaObject;

mod prices {
    use plasma_typed::PlasmaObject;

    #[derive(PlasmaObject, Clone, Copy)]
    #[repr(transparent)]
    pub struct Price(u32);
}

macro_rules! tick {
    ($name:ident, $side:ty) => {
        #[derive(PlasmaObject, Clone, Copy)]
        #[repr(C)]
        struct $name {
            side: $side,
            price: $crate::prices::Price,
        }
    };
}

tick!(Aligned, u32);
tick!(Padded, u16);

fn main() {}
