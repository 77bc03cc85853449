//! The types that are objects as they are.

use std::marker::PhantomData;
use std::mem::{align_of, size_of};
use std::num::NonZero;
use std::ptr;

use plasma_core::ObjectId;

use crate::Key;
use crate::error::InvalidBytes;
use crate::object::{PlasmaObject, VariableLen, ZeroValid};
use crate::schema::{Field, Scalar, Schema, Shape};

/// A scalar's value out of bytes that are as many as it takes.
macro_rules! read {
    ($type:ty, $bytes:expr) => {
        match $bytes.try_into() {
            Ok(bytes) => <$type>::from_ne_bytes(bytes),
            Err(_) => return Err(InvalidBytes::new("bytes are missing")),
        }
    };
}

macro_rules! scalar {
    ($type:ty, $scalar:ident) => {
        scalar!($type, $scalar, true, |_bytes| Ok(()));
    };
    ($type:ty, $scalar:ident, $all_bits_valid:expr, $check:expr) => {
        // SAFETY: a scalar has no padding, points nowhere and needs no drop; size and alignment are
        // the compiler's own, and `check` accepts its values and nothing else.
        #[diagnostic::do_not_recommend]
        unsafe impl PlasmaObject for $type {
            const SCHEMA: &'static Schema = &Schema::new(
                size_of::<Self>(),
                align_of::<Self>(),
                Shape::Scalar(Scalar::$scalar),
            );
            const ALL_BITS_VALID: bool = $all_bits_valid;

            fn check(bytes: &[u8]) -> Result<(), InvalidBytes> {
                let check: fn(&[u8]) -> Result<(), InvalidBytes> = $check;
                check(bytes)
            }

            fn from_parts(start: *const u8, _len: usize) -> *const Self {
                start.cast()
            }

            fn tail_len(_value: &Self) -> usize {
                0
            }
        }
    };
}

macro_rules! numbers {
    ($($type:ty => $scalar:ident,)*) => {
        $(
            scalar!($type, $scalar);
            // SAFETY: 0 is a number.
            #[diagnostic::do_not_recommend]
            unsafe impl ZeroValid for $type {}
        )*
    };
}

numbers! {
    u8 => U8, u16 => U16, u32 => U32, u64 => U64, u128 => U128,
    i8 => I8, i16 => I16, i32 => I32, i64 => I64, i128 => I128,
    f32 => F32, f64 => F64,
}

macro_rules! non_zero {
    ($($type:ty => $scalar:ident,)*) => {
        $(scalar!(NonZero<$type>, $scalar, false, |bytes| match read!($type, bytes) {
            0 => Err(InvalidBytes::new("0 where no 0 may be")),
            _ => Ok(()),
        });)*
    };
}

non_zero! {
    u8 => NonZeroU8, u16 => NonZeroU16, u32 => NonZeroU32, u64 => NonZeroU64, u128 => NonZeroU128,
    i8 => NonZeroI8, i16 => NonZeroI16, i32 => NonZeroI32, i64 => NonZeroI64, i128 => NonZeroI128,
}

scalar!(bool, Bool, false, |bytes| match read!(u8, bytes) {
    0 | 1 => Ok(()),
    byte => Err(InvalidBytes::new(format!("{byte} is no bool (0 or 1)"))),
});
// SAFETY: 0 is `false`.
#[diagnostic::do_not_recommend]
unsafe impl ZeroValid for bool {}

scalar!(char, Char, false, |bytes| {
    let code = read!(u32, bytes);
    match char::from_u32(code) {
        Some(_) => Ok(()),
        None => Err(InvalidBytes::new(format!("{code:#x} is no char"))),
    }
});
// SAFETY: 0 is the first character.
#[diagnostic::do_not_recommend]
unsafe impl ZeroValid for char {}

macro_rules! id {
    ([$($parameter:tt)*], $type:ty) => {
        // SAFETY: it is 20 bytes, any of them, and nothing else.
        #[diagnostic::do_not_recommend]
        unsafe impl<$($parameter)*> PlasmaObject for $type {
            const SCHEMA: &'static Schema = &Schema::new(
                size_of::<Self>(),
                align_of::<Self>(),
                Shape::Struct {
                    name: "ObjectId",
                    version: 1,
                    fields: &[Field {
                        name: "0",
                        offset: 0,
                        schema: <[u8; ObjectId::LEN]>::SCHEMA,
                    }],
                },
            );
            const ALL_BITS_VALID: bool = true;

            fn check(_bytes: &[u8]) -> Result<(), InvalidBytes> {
                Ok(())
            }

            fn from_parts(start: *const u8, _len: usize) -> *const Self {
                start.cast()
            }

            fn tail_len(_value: &Self) -> usize {
                0
            }
        }
        // SAFETY: any bytes are an id.
        #[diagnostic::do_not_recommend]
        unsafe impl<$($parameter)*> ZeroValid for $type {}
    };
}

id!([], ObjectId);
id!([T: ?Sized + 'static], Key<T>);

/// Checks elements that lie one after the other.
fn check_elements<E: PlasmaObject>(bytes: &[u8]) -> Result<(), InvalidBytes> {
    if E::ALL_BITS_VALID {
        return Ok(());
    }
    // What takes no space is always valid, so the size is not 0.
    let size = size_of::<E>();
    for (index, element) in bytes.chunks_exact(size).enumerate() {
        E::check(element).map_err(|invalid| invalid.in_element(index, size))?;
    }
    Ok(())
}

// SAFETY: an array is its elements one after the other, with nothing between or behind them.
unsafe impl<E: PlasmaObject, const N: usize> PlasmaObject for [E; N] {
    const SCHEMA: &'static Schema = &Schema::new(
        size_of::<Self>(),
        align_of::<Self>(),
        Shape::Array {
            element: E::SCHEMA,
            len: N,
        },
    );
    const ALL_BITS_VALID: bool = N == 0 || E::ALL_BITS_VALID;

    fn check(bytes: &[u8]) -> Result<(), InvalidBytes> {
        match N {
            0 => Ok(()),
            _ => check_elements::<E>(bytes),
        }
    }

    fn from_parts(start: *const u8, _len: usize) -> *const Self {
        start.cast()
    }

    fn tail_len(_value: &Self) -> usize {
        0
    }
}
// SAFETY: zeros are a value of each element.
unsafe impl<E: ZeroValid, const N: usize> ZeroValid for [E; N] {}

// SAFETY: a slice is its elements one after the other, with nothing between or behind them.
unsafe impl<E: PlasmaObject> PlasmaObject for [E] {
    const SCHEMA: &'static Schema =
        &Schema::new(0, align_of::<E>(), Shape::Slice { element: E::SCHEMA });
    const ALL_BITS_VALID: bool = E::ALL_BITS_VALID;

    fn check(bytes: &[u8]) -> Result<(), InvalidBytes> {
        check_elements::<E>(bytes)
    }

    fn from_parts(start: *const u8, len: usize) -> *const Self {
        ptr::slice_from_raw_parts(start.cast(), len)
    }

    fn tail_len(value: &Self) -> usize {
        value.len()
    }
}
// SAFETY: zeros are a value of each element.
unsafe impl<E: ZeroValid> ZeroValid for [E] {}
impl<E: PlasmaObject> VariableLen for [E] {}

// SAFETY: a string is its bytes, which `check` knows to be UTF-8.
#[diagnostic::do_not_recommend]
unsafe impl PlasmaObject for str {
    const SCHEMA: &'static Schema = &Schema::new(0, 1, Shape::Str);
    const ALL_BITS_VALID: bool = false;

    fn check(bytes: &[u8]) -> Result<(), InvalidBytes> {
        match str::from_utf8(bytes) {
            Ok(_) => Ok(()),
            Err(error) => Err(InvalidBytes::new("no UTF-8").at(error.valid_up_to())),
        }
    }

    fn from_parts(start: *const u8, len: usize) -> *const Self {
        ptr::slice_from_raw_parts(start, len) as *const Self
    }

    fn tail_len(value: &Self) -> usize {
        value.len()
    }
}
// SAFETY: zeros are UTF-8.
#[diagnostic::do_not_recommend]
unsafe impl ZeroValid for str {}
#[diagnostic::do_not_recommend]
impl VariableLen for str {}

// SAFETY: it takes no space.
#[diagnostic::do_not_recommend]
unsafe impl<M: ?Sized + 'static> PlasmaObject for PhantomData<M> {
    const SCHEMA: &'static Schema = &Schema::new(
        0,
        1,
        Shape::Struct {
            name: "PhantomData",
            version: 1,
            fields: &[],
        },
    );
    const ALL_BITS_VALID: bool = true;

    fn check(_bytes: &[u8]) -> Result<(), InvalidBytes> {
        Ok(())
    }

    fn from_parts(start: *const u8, _len: usize) -> *const Self {
        start.cast()
    }

    fn tail_len(_value: &Self) -> usize {
        0
    }
}
// SAFETY: it has no bytes.
#[diagnostic::do_not_recommend]
unsafe impl<M: ?Sized + 'static> ZeroValid for PhantomData<M> {}
