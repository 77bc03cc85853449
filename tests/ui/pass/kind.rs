//! The mistakes of `kind/`, mended.

use std::marker::PhantomData;

use plasma_typed::PlasmaObject;

#[derive(PlasmaObject, Clone, Copy)]
#[repr(C)]
struct Event {
    kind: Kind,
    _pad: [u8; 7],
    price: f64,
}

#[derive(PlasmaObject, Clone, Copy)]
#[repr(u8)]
enum Kind {
    Quiet,
    Trade,
}

#[derive(PlasmaObject, Clone, Copy)]
#[repr(u8)]
enum Only {
    One,
}

#[derive(PlasmaObject, Clone, Copy)]
#[repr(C)]
struct Tick {
    price: f64,
    book: PhantomData<&'static f64>,
}

fn main() {
    assert_eq!(Event::SCHEMA.size(), 16);
    assert_eq!(Only::SCHEMA.size(), 1);
    assert_eq!(Tick::SCHEMA.size(), 8);
}
