//! The mistakes of `field/`, mended.

use std::marker::PhantomData;

use plasma_typed::PlasmaObject;

#[derive(PlasmaObject, Clone, Copy)]
#[repr(C)]
struct Tick {
    symbol: [u8; 8],
    prices: [f64; 4],
    size: u64,
    age_ns: u64,
    spread: Spread,
    traded: bool,
    side: self::Option,
    _pad: [u8; 6],
}

#[derive(PlasmaObject, Clone, Copy)]
#[repr(C)]
struct Spread {
    bid: f64,
    ask: f64,
}

// One's own type, whatever its name.
#[derive(PlasmaObject, Clone, Copy)]
#[repr(u8)]
enum Option {
    Put,
    Call,
}

// A parameter, whatever its name.
#[derive(PlasmaObject, Clone, Copy)]
#[repr(transparent)]
struct Wrapper<Cell>(Cell);

// Stored nowhere, so it may be anything.
#[derive(PlasmaObject, Clone, Copy)]
#[repr(C)]
struct Tagged<T: ?Sized> {
    number: u64,
    tag: PhantomData<T>,
}

#[derive(PlasmaObject)]
#[repr(C)]
struct Image {
    width: u32,
    pixels: [u8],
}

#[derive(PlasmaObject)]
#[repr(C)]
struct Note {
    written_ns: u64,
    text: str,
}

fn is_object<T: PlasmaObject + ?Sized>() {}

fn main() {
    is_object::<Tick>();
    is_object::<Wrapper<f64>>();
    is_object::<Tagged<str>>();
    is_object::<Image>();
    is_object::<Note>();
}
