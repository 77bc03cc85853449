//! What the derive makes of types, as far as it takes no store: their schemas, and what bytemuck's
//! functions do with them.

use std::marker::PhantomData;

use bytemuck::checked::{self, CheckedCastError};
use bytemuck::{CheckedBitPattern, NoUninit, Zeroable};
use plasma_typed::schema::Shape;
use plasma_typed::{PlasmaObject, VariableLen, ZeroValid};

#[derive(PlasmaObject, Clone, Copy, Debug, PartialEq)]
#[plasma(name = "market.Tick", version = 2)]
#[repr(C)]
struct Tick {
    ts_ns: u64,
    price: f64,
    size: u32,
    side: Side,
    last: bool,
    _pad: [u8; 2],
}

#[derive(PlasmaObject, Clone, Copy, Debug, PartialEq)]
#[repr(u8)]
enum Side {
    Buy,
    Sell,
}

#[derive(PlasmaObject, Clone, Copy, Debug, PartialEq)]
#[repr(C)]
struct Point<T> {
    x: T,
    y: T,
}

#[derive(PlasmaObject, Clone, Copy, Debug, PartialEq)]
#[repr(transparent)]
struct Metres<M>(f64, PhantomData<M>);

#[derive(PlasmaObject, Clone, Copy, Debug, PartialEq)]
#[repr(C)]
struct Path<T, const N: usize> {
    points: [Point<T>; N],
}

#[derive(PlasmaObject)]
#[repr(C)]
struct Image {
    width: u32,
    height: u32,
    pixels: [u8],
}

#[derive(PlasmaObject)]
#[repr(C, align(16))]
struct Route<T> {
    start: Point<T>,
    sides: [Side],
}

#[derive(PlasmaObject)]
#[repr(C)]
struct Text(str);

const BASE: i32 = 10;

#[derive(PlasmaObject, Clone, Copy, Debug, PartialEq)]
#[repr(i32)]
enum Computed {
    First = BASE,
    Second,
    Negative = -BASE,
    Shifted = 1 << 20,
    Zero = BASE - 10,
}

#[derive(PlasmaObject, Clone, Copy, Debug, PartialEq)]
#[repr(u16)]
enum WithoutZero {
    One = const { BASE as u16 - 9 },
    Most = u16::MAX,
}

macro_rules! byte {
    ($($variant:ident)*) => {
        #[derive(PlasmaObject, Clone, Copy, Debug, PartialEq)]
        #[repr(u8)]
        enum Byte {
            $($variant,)*
        }
    };
}

byte! {
    B00 B01 B02 B03 B04 B05 B06 B07 B08 B09 B0a B0b B0c B0d B0e B0f
    B10 B11 B12 B13 B14 B15 B16 B17 B18 B19 B1a B1b B1c B1d B1e B1f
    B20 B21 B22 B23 B24 B25 B26 B27 B28 B29 B2a B2b B2c B2d B2e B2f
    B30 B31 B32 B33 B34 B35 B36 B37 B38 B39 B3a B3b B3c B3d B3e B3f
    B40 B41 B42 B43 B44 B45 B46 B47 B48 B49 B4a B4b B4c B4d B4e B4f
    B50 B51 B52 B53 B54 B55 B56 B57 B58 B59 B5a B5b B5c B5d B5e B5f
    B60 B61 B62 B63 B64 B65 B66 B67 B68 B69 B6a B6b B6c B6d B6e B6f
    B70 B71 B72 B73 B74 B75 B76 B77 B78 B79 B7a B7b B7c B7d B7e B7f
    B80 B81 B82 B83 B84 B85 B86 B87 B88 B89 B8a B8b B8c B8d B8e B8f
    B90 B91 B92 B93 B94 B95 B96 B97 B98 B99 B9a B9b B9c B9d B9e B9f
    Ba0 Ba1 Ba2 Ba3 Ba4 Ba5 Ba6 Ba7 Ba8 Ba9 Baa Bab Bac Bad Bae Baf
    Bb0 Bb1 Bb2 Bb3 Bb4 Bb5 Bb6 Bb7 Bb8 Bb9 Bba Bbb Bbc Bbd Bbe Bbf
    Bc0 Bc1 Bc2 Bc3 Bc4 Bc5 Bc6 Bc7 Bc8 Bc9 Bca Bcb Bcc Bcd Bce Bcf
    Bd0 Bd1 Bd2 Bd3 Bd4 Bd5 Bd6 Bd7 Bd8 Bd9 Bda Bdb Bdc Bdd Bde Bdf
    Be0 Be1 Be2 Be3 Be4 Be5 Be6 Be7 Be8 Be9 Bea Beb Bec Bed Bee Bef
    Bf0 Bf1 Bf2 Bf3 Bf4 Bf5 Bf6 Bf7 Bf8 Bf9 Bfa Bfb Bfc Bfd Bfe Bff
}

/// What is said of bytes that are no `T`.
fn problem<T: PlasmaObject + ?Sized>(bytes: &[u8]) -> String {
    T::check(bytes).map_or_else(|invalid| invalid.to_string(), |()| String::new())
}

/// Whether zeros are a value, as the type's `ZeroValid` says.
fn zeros_are_valid<T: ZeroValid + ?Sized>() -> bool {
    T::check(&vec![0; T::SCHEMA.size()]).is_ok()
}

fn variable_len<T: VariableLen + ?Sized>() {}

fn no_uninit<T: NoUninit>() {}

#[test]
fn schemas_say_how_types_lie_in_memory() {
    assert_eq!(
        Tick::SCHEMA.to_string(),
        "market.Tick v2, 24 bytes, aligned to 8\n\
         \x20      0  ts_ns: u64\n\
         \x20      8  price: f64\n\
         \x20     16  size: u32\n\
         \x20     20  side: Side (u8: Buy = 0, Sell = 1)\n\
         \x20     21  last: bool\n\
         \x20     22  _pad: [u8; 2]"
    );
    assert_eq!(Point::<u16>::SCHEMA.size(), 4);
    assert_eq!(Path::<f32, 5>::SCHEMA.size(), 40);
    assert_eq!(Metres::<String>::SCHEMA.align(), 8);
    assert_eq!(Computed::SCHEMA.size(), 4);

    let Shape::Struct { name, fields, .. } = Metres::<Side>::SCHEMA.shape() else {
        panic!("it is a struct");
    };
    assert_eq!(name, "Metres");
    let fields: Vec<_> = fields.iter().map(|it| (it.name, it.offset)).collect();
    assert_eq!(fields[0], ("0", 0));
    assert_eq!(fields[1].0, "1");
}

#[test]
fn schemas_end_where_the_tail_starts() {
    assert_eq!(Image::SCHEMA.size(), 8);
    assert_eq!(Image::SCHEMA.align(), 4);
    assert_eq!(Image::SCHEMA.element_size(), Some(1));
    // 2 × 4 bytes, although it is aligned to 16.
    assert_eq!(Route::<u32>::SCHEMA.size(), 8);
    assert_eq!(Route::<u32>::SCHEMA.align(), 16);
    assert_eq!(Text::SCHEMA.size(), 0);
    variable_len::<Image>();
    variable_len::<Route<f64>>();
    variable_len::<Text>();
}

#[test]
#[allow(non_camel_case_types, clippy::builtin_type_shadow)]
fn layouts_are_those_of_the_compiler_however_they_are_written() {
    #[derive(PlasmaObject)]
    #[r#repr(r#C, r#align(64,))]
    struct Aligned {
        count: u32,
        values: [u16],
    }

    #[derive(PlasmaObject, Clone, Copy)]
    #[r#repr(r#i8)]
    enum Sign {
        Minus = -1,
        Zero,
        Plus,
    }

    #[derive(PlasmaObject, Clone, Copy)]
    #[repr(C)]
    struct Named<str> {
        value: u64,
        last: str,
    }

    #[derive(PlasmaObject, Clone, Copy)]
    #[repr(C)]
    struct Computed {
        array: [u32; if size_of::<usize>() == 8 { 3 } else { 5 }],
        other: [u8; {
            let words = 2;
            words * 4
        }],
    }

    assert_eq!(Aligned::SCHEMA.align(), 64);
    assert_eq!(Aligned::SCHEMA.size(), 4);
    assert_eq!(Sign::SCHEMA.size(), 1);
    assert_eq!(Named::<i64>::SCHEMA.size(), 16);
    assert_eq!(Named::<i64>::SCHEMA.element_size(), None);
    assert_eq!(Computed::SCHEMA.size(), 20);
}

#[test]
fn values_of_fixed_size_have_no_tail() {
    assert_eq!(Tick::tail_len(&Tick::zeroed()), 0);
}

#[test]
fn invalid_values_are_found_and_named() {
    let tick = Tick {
        ts_ns: 1,
        price: 2.5,
        size: 3,
        side: Side::Sell,
        last: true,
        _pad: [0; 2],
    };
    let mut bytes = bytemuck::bytes_of(&tick).to_owned();
    Tick::check(&bytes).unwrap();
    assert_eq!(checked::pod_read_unaligned::<Tick>(&bytes), tick);

    bytes[21] = 3;
    assert_eq!(
        problem::<Tick>(&bytes),
        "field `last`, byte 21: 3 is no bool (0 or 1)"
    );
    bytes[20] = 7;
    assert_eq!(
        problem::<Tick>(&bytes),
        "field `side`, byte 20: 7 is no Side (Buy = 0, Sell = 1)"
    );
    assert_eq!(
        checked::try_pod_read_unaligned::<Tick>(&bytes),
        Err(CheckedCastError::InvalidBitPattern)
    );
    assert_eq!(
        problem::<Side>(&[]),
        "byte 0: bytes are missing",
        "too few bytes are an error, not a panic"
    );
    assert!(Tick::check(&bytes[..20]).is_err());
}

#[test]
fn invalid_values_are_found_in_arrays_and_tails() {
    let mut bytes = [0; 24];
    bytes[13] = 9;
    assert_eq!(
        problem::<Route<u32>>(&bytes),
        "field `sides[5]`, byte 13: 9 is no Side (Buy = 0, Sell = 1)"
    );
    assert_eq!(
        problem::<Path<bool, 4>>(&[0, 1, 0, 1, 1, 2, 0, 0]),
        "field `points[2].y`, byte 5: 2 is no bool (0 or 1)"
    );
    assert_eq!(
        problem::<Text>(&[b'a', 0xff]),
        "field `0`, byte 1: no UTF-8"
    );
    Image::check(&bytes).unwrap();
}

#[test]
fn bytemuck_takes_derived_types() {
    let points = [Point { x: 1_u32, y: 2 }, Point { x: 3, y: 4 }];
    let words: [u32; 4] = [1, 2, 3, 4];
    let bytes = bytemuck::bytes_of(&words);
    assert_eq!(
        checked::try_cast_slice::<u8, Point<u32>>(bytes),
        Ok(&points[..])
    );
    assert_eq!(
        checked::try_from_bytes::<Side>(&[1]).copied(),
        Ok(Side::Sell)
    );
    assert!(checked::try_from_bytes::<Side>(&[2]).is_err());
    assert_eq!(Point::<[u8; 3]>::zeroed().y, [0; 3]);
    assert_eq!(bytemuck::cast_slice::<Side, u8>(&[Side::Sell; 2]), [1, 1]);
    no_uninit::<Tick>();
    no_uninit::<Metres<Side>>();
    assert!(Point::<bool>::is_valid_bit_pattern(checked::from_bytes(&[
        1, 1
    ])));
}

#[test]
fn an_enum_of_all_bytes_is_not_looked_at() {
    assert_eq!(Byte::SCHEMA.size(), 1);
    const { assert!(Byte::ALL_BITS_VALID) };
    const { assert!(Point::<Byte>::ALL_BITS_VALID) };
    for byte in 0..=u8::MAX {
        let value = *checked::from_bytes::<Byte>(&[byte]);
        assert_eq!(value as u8, byte);
    }
}

#[test]
fn discriminants_may_be_expressions() {
    const { assert!(!Computed::ALL_BITS_VALID) };
    for value in [10, 11, -10, 1 << 20, 0_i32] {
        Computed::check(&value.to_ne_bytes()).unwrap();
    }
    assert_eq!(
        problem::<Computed>(&12_i32.to_ne_bytes()),
        "byte 0: 12 is no Computed (First = 10, Second = 11, Negative = -10, Shifted = 1048576, \
         Zero = 0)"
    );
    assert_eq!(checked::cast::<i32, Computed>(11), Computed::Second);
    assert_eq!(Computed::zeroed(), Computed::Zero);
    assert_eq!(checked::cast::<u16, WithoutZero>(1), WithoutZero::One);
    assert!(WithoutZero::check(&[0, 0]).is_err());
}

#[test]
fn zeros_are_a_value_where_they_are_one_of_every_field() {
    assert!(zeros_are_valid::<Tick>());
    assert!(zeros_are_valid::<Path<Computed, 3>>());
    assert!(zeros_are_valid::<Image>());
}
