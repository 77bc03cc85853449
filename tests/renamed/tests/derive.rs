//! The derived types of a crate that knows `plasma-typed` under another name.

use std::num::NonZeroU8;

use tests_renamed::{Grid, Image, Level, Message, Names, Nothing, Price, Public, Series, Wrapped};
use typed::{PlasmaObject, VariableLen, ZeroValid};

fn zero_valid<T: ZeroValid + ?Sized>() {}
fn variable_len<T: VariableLen + ?Sized>() {}

#[test]
fn they_are_objects() {
    assert_eq!(
        Names::SCHEMA.to_string(),
        "names.Fields v3, 24 bytes, aligned to 8\n\
         \x20      0  schema: u64\n\
         \x20      8  type: f64\n\
         \x20     16  bytes: u32\n\
         \x20     20  len: Side (u8: None = 0, Ok = 4, Err = 5)\n\
         \x20     21  pad: [u8; 3]"
    );
    assert_eq!(Level::SCHEMA.size(), 2);
    assert_eq!(Grid::<u16, String, 5>::SCHEMA.size(), 10);
    assert_eq!(Price::SCHEMA.align(), 8);
    assert_eq!(Wrapped::<NonZeroU8>::SCHEMA.size(), 1);
    assert_eq!(Nothing::SCHEMA.size(), 0);
    assert_eq!(Image::SCHEMA.align(), 16);
    assert_eq!(Series::<u32>::SCHEMA.element_size(), Some(4));
    assert_eq!(Message::SCHEMA.size(), 8);
    assert_eq!(Public::<u8>::SCHEMA.size(), 4);
}

#[test]
fn they_have_the_marker_traits() {
    zero_valid::<Names>();
    zero_valid::<Grid<u16, String, 5>>();
    zero_valid::<Wrapped<Price>>();
    zero_valid::<Nothing>();
    zero_valid::<Image>();
    zero_valid::<Series<bool>>();
    variable_len::<Message>();
    variable_len::<Series<Level>>();
}
