use std::marker::PhantomData;

use plasma_typed::PlasmaObject;

#[derive(PlasmaObject, Clone, Copy)]
#[repr(C)]
struct Tick<'a> {
    price: f64,
    book: PhantomData<&'a f64>,
}

fn main() {}
