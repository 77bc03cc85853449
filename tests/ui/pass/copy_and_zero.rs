//! The mistakes of `copy/` and `zero/`, mended.

use std::num::NonZeroU64;

use plasma_typed::{PlasmaObject, VariableLen, ZeroValid};

#[derive(PlasmaObject, Clone, Copy)]
#[repr(C)]
struct Order {
    sides: [Side; 8],
}

#[derive(PlasmaObject, Clone, Copy)]
#[repr(u8)]
enum Side {
    None,
    Buy,
    Sell,
}

#[derive(PlasmaObject, Clone, Copy)]
#[repr(i32)]
enum Level {
    Low = -(1 << 4),
    Middle = 1 - 1,
    High = 1 << 4,
}

// An object without `ZeroValid`.
#[derive(PlasmaObject)]
#[repr(C)]
struct Orders {
    ids: [NonZeroU64],
}

fn create<T: ZeroValid + ?Sized>() {}
fn put_with_len<T: VariableLen + ?Sized>() {}

fn main() {
    create::<Order>();
    create::<Level>();
    put_with_len::<Orders>();
}
