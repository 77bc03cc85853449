#![allow(conflicting_repr_hints)]

use plasma_typed::PlasmaObject;

#[derive(PlasmaObject, Clone, Copy)]
#[repr(u8, u16)]
enum Side {
    Buy,
    Sell,
}

fn main() {}
