//! The mistakes of `attribute/`, mended.

use plasma_typed::PlasmaObject;

#[derive(PlasmaObject, Clone, Copy)]
#[plasma(name = "market.Tick", version = 2)]
#[repr(C)]
struct Tick {
    price: f64,
}

#[derive(PlasmaObject, Clone, Copy)]
#[plasma(name = "market.Side")]
#[plasma(version = 3, crate = "plasma_typed")]
#[repr(u8)]
enum Side {
    Buy,
    Sell,
}

macro_rules! named {
    ($ident:ident, $name:expr, $version:literal) => {
        #[derive(PlasmaObject, Clone, Copy)]
        #[plasma(name = $name, version = $version,)]
        #[repr(transparent)]
        struct $ident(u32);
    };
}
named!(Size, "market.Size", 4);

fn main() {
    assert_eq!(Tick::SCHEMA.name(), Some("market.Tick"));
    assert_eq!(Tick::SCHEMA.version(), 2);
    assert_eq!(Side::SCHEMA.name(), Some("market.Side"));
    assert_eq!(Side::SCHEMA.version(), 3);
    assert_eq!(Size::SCHEMA.name(), Some("market.Size"));
    assert_eq!(Size::SCHEMA.version(), 4);
}
