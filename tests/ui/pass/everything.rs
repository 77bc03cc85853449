//! All that is accepted, where every name means something else.

#![no_implicit_prelude]
#![allow(dead_code, non_camel_case_types, unused_macros, unused_parens)]

use ::core::clone::Clone;
use ::core::marker::{Copy, PhantomData};
use ::core::num::NonZero;
use ::plasma_typed::PlasmaObject as Object;

macro_rules! assert {
    ($($anything:tt)*) => {};
}
macro_rules! panic {
    ($($anything:tt)*) => {};
}
macro_rules! unreachable {
    ($($anything:tt)*) => {};
}

#[derive(Object, Clone, Copy)]
#[repr(transparent)]
struct u8(::core::primitive::u8);
type bool = u8;
type usize = u8;
type i128 = u8;
struct Option;
struct Some;
struct None;
struct Result;
struct Ok;
struct Err;
struct PlasmaObject;
struct Schema;
struct Field;
const bytes: () = ();
const value: () = ();
const start: () = ();
mod core {}
mod std {}
mod plasma_typed {}
mod bytemuck {}

#[derive(Object, Clone, Copy)]
#[repr(C)]
struct Scalars {
    a: u128,
    b: ::core::primitive::i128,
    c: u64,
    d: i64,
    e: f64,
    f: NonZero<u64>,
    g: u32,
    h: i32,
    i: f32,
    j: char,
    k: u16,
    l: i16,
    m: u8,
    n: i8,
    o: ::core::primitive::bool,
    p: [::core::primitive::u8; 9],
}

#[derive(Object, Clone, Copy)]
#[repr(i16)]
enum r#enum {
    Some = -1,
    None,
    r#Self_ = 1 << 3,
    r#type,
}

#[derive(Object, Clone, Copy)]
#[repr(C)]
struct r#struct {
    r#type: u32,
    r#fn: [r#enum; 2],
    bytes: (u32),
    SCHEMA: [[u16; 2]; 3],
}

#[derive(Object, Clone, Copy)]
#[repr(C)]
struct Tuple(u64, r#struct, [u32; 2]);

#[derive(Object, Clone, Copy)]
#[repr(C, align(32))]
struct Generic<T, const N: ::core::primitive::usize, SCHEMA = u64>
where
    T: Copy,
{
    array: [T; N],
    nested: Inner<T>,
    marker: PhantomData<SCHEMA>,
    itself: PhantomData<Self>,
}

#[derive(Object, Clone, Copy)]
#[repr(transparent)]
struct Inner<T>(T, PhantomData<T>);

#[derive(Object, Clone, Copy)]
#[repr(C)]
struct Itself(PhantomData<Self>, u32, PhantomData<fn(Self) -> Self>);

#[derive(Object, Clone, Copy)]
#[repr(C)]
struct Unit;

#[derive(Object, Clone, Copy)]
#[repr(C)]
struct Empty {}

#[derive(Object)]
#[repr(C, align(16))]
struct Slice {
    len: (u32),
    start: u32,
    tail: ([Tuple]),
}

#[derive(Object)]
#[repr(C)]
struct Text(u8, str);

#[derive(Object)]
#[repr(C)]
struct Tail<T>(T, [T])
where
    T: Object;

fn is_object<T: Object + ?::core::marker::Sized>() {}

fn main() {
    is_object::<Scalars>();
    is_object::<Tuple>();
    is_object::<Generic<u64, 3>>();
    is_object::<Itself>();
    is_object::<Slice>();
    is_object::<Text>();
    is_object::<Tail<u8>>();
    ::core::assert_eq!(<r#struct as Object>::SCHEMA.size(), 24);
    ::core::assert_eq!(<Generic<u64, 3> as Object>::SCHEMA.size(), 32);
    ::core::assert_eq!(<Tail<u16> as Object>::SCHEMA.size(), 2);

    // In a function, with its parameters around it.
    #[derive(Object, Clone, Copy)]
    #[repr(C)]
    struct Local(u8);
    is_object::<Local>();
}
