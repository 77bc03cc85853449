//! What can be an object: the trait, and what it says about a type.

use std::mem::size_of;

use crate::error::InvalidBytes;
use crate::schema::Schema;

/// A type whose values live in shared memory: plain data, the same for every process that reads it.
///
/// `#[derive(PlasmaObject)]` implements it, after checking with the compiler that it may; the
/// trait's hidden items belong to the derive, and change with it.
///
/// | type | |
/// |---|---|
/// | `u8` … `u128`, `i8` … `i128`, `f32`, `f64` | every bit pattern is a value: nothing is checked on get |
/// | `bool`, `char`, [`NonZero`](std::num::NonZero), derived enums | checked on get |
/// | `[T; N]`, derived structs (`#[repr(C)]` or `#[repr(transparent)]`) | checked where something in them is |
/// | [`ObjectId`](crate::ObjectId), [`Key`](crate::Key) | how objects refer to others |
/// | [`PhantomData`](std::marker::PhantomData) | takes no space; its parameter is not compared |
/// | `[T]`, `str`, derived structs whose last field is one of these | have a length of their own |
///
/// What a type's own functions promise is not checked: any bytes that are values of its fields are
/// a value of it, private fields or not. A type whose `unsafe` code relies on more than that must
/// not derive it.
///
/// `usize` and `isize` are not among them, as they differ between machines, nor is anything that
/// points, owns, borrows, locks or changes behind a shared reference.
///
/// ```
/// use plasma_typed::PlasmaObject;
///
/// #[derive(PlasmaObject, Clone, Copy)]
/// #[repr(C)]
/// struct Point {
///     x: f64,
///     y: f64,
/// }
///
/// assert_eq!(Point::SCHEMA.size(), 16);
/// ```
///
/// # Safety
/// Whoever implements it promises that a value
///
/// - has no padding and no other byte that may be uninitialised,
/// - holds no pointer, no reference and nothing that needs to be dropped,
/// - does not change behind a shared reference (no `UnsafeCell`),
/// - is at every place in memory the same value, and if it takes no space, always valid,
/// - and is described by [`SCHEMA`](Self::SCHEMA) exactly: size, alignment and tail, and that the
///   hidden items keep what they say here.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot live in shared memory",
    label = "this is not a `PlasmaObject`",
    note = "objects hold integers, floats, `bool`, `char`, `NonZero`, arrays, and types that derive it: `#[derive(PlasmaObject, Clone, Copy)]` with `#[repr(C)]`, or with `#[repr(u8)]` on an enum",
    note = "a `Vec<T>` is stored as its slice (`put(&values[..])`), a `String` as its `str` (`put(text.as_str())`), a time as a number"
)]
pub unsafe trait PlasmaObject: 'static {
    /// The type's name, version and layout. What is stored carries it, and
    /// [`get`](crate::TypedClient::get) compares it.
    const SCHEMA: &'static Schema;

    /// Whether bytes of the right number are a value whatever they are.
    #[doc(hidden)]
    const ALL_BITS_VALID: bool;

    /// Whether these bytes are a value. They are as many as the type takes: for a type with a tail,
    /// its head and some number of elements.
    #[doc(hidden)]
    fn check(bytes: &[u8]) -> Result<(), InvalidBytes>;

    /// Checks a field of this type, on behalf of the struct of which these are the bytes.
    #[doc(hidden)]
    #[inline]
    fn check_field(bytes: &[u8], offset: usize, name: &'static str) -> Result<(), InvalidBytes>
    where
        Self: Sized,
    {
        if Self::ALL_BITS_VALID {
            return Ok(());
        }
        check_at::<Self>(bytes, offset..offset + size_of::<Self>(), name)
    }

    /// Checks a tail of this type, likewise.
    #[doc(hidden)]
    #[inline]
    fn check_tail(bytes: &[u8], offset: usize, name: &'static str) -> Result<(), InvalidBytes> {
        if Self::ALL_BITS_VALID {
            return Ok(());
        }
        check_at::<Self>(bytes, offset..bytes.len(), name)
    }

    /// The pointer to a value that starts there, its tail having `len` elements.
    #[doc(hidden)]
    fn from_parts(start: *const u8, len: usize) -> *const Self;

    /// The number of elements in a value's tail; 0 where it has none.
    #[doc(hidden)]
    fn tail_len(value: &Self) -> usize;
}

/// Types of which memory full of zeros is a value, so that [`create`](crate::TypedClient::create)
/// can hand it out: all but enums without a variant of value 0 and
/// [`NonZero`](std::num::NonZero), and what contains these. The derive implements it.
///
/// # Safety
/// Whoever implements it promises that bytes which are all zero are a value of the type.
#[diagnostic::on_unimplemented(
    message = "memory full of zeros is no valid `{Self}`, so it cannot be created zeroed",
    label = "0 is not a value of it",
    note = "`put` stores a value that is there; `create_uninit` hands out memory to be written first; or give the enum a variant of value 0",
    note = "a `Vec<T>` is no object, its slice is: `create_with_len::<[T]>(id, len)`; nor is a `String`, but a `str`"
)]
pub unsafe trait ZeroValid: PlasmaObject {}

/// Types whose values differ in length: `[T]`, `str`, and derived structs that end with one. The
/// derive implements it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` has a fixed size, so there is no length to choose",
    label = "always as long",
    note = "create it without one: `create::<{Self}>(id)` or `create_uninit::<{Self}>(id)`"
)]
pub trait VariableLen: PlasmaObject {}

/// Types whose values are all as long: those that are not [`VariableLen`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no fixed size, so it needs a length",
    label = "ends with a slice or a `str`",
    note = "create it with one: `create_with_len::<{Self}>(id, len)` or `create_uninit_with_len::<{Self}>(id, len)`"
)]
pub trait FixedLen: PlasmaObject {}
#[diagnostic::do_not_recommend]
impl<T: PlasmaObject> FixedLen for T {}

/// How `T` lies in memory, out of its schema.
pub(crate) struct Layout<T: ?Sized>(std::marker::PhantomData<T>);

impl<T: ?Sized + PlasmaObject> Layout<T> {
    /// Bytes before the tail: all of them for a type that has none.
    pub(crate) const HEAD: usize = T::SCHEMA.size();
    pub(crate) const ALIGN: usize = T::SCHEMA.align();
    /// Bytes of one element of the tail.
    pub(crate) const ELEMENT: Option<usize> = T::SCHEMA.element_size();

    /// Bytes of an object that holds a value with so many elements, if memory can be so large. That
    /// is rounded up to the alignment, as Rust's references to the value reach that far.
    pub(crate) fn size(tail_len: usize) -> Option<usize> {
        let used = match Self::ELEMENT {
            Some(element) => tail_len.checked_mul(element)?.checked_add(Self::HEAD)?,
            None => Self::HEAD,
        };
        let size = used.checked_next_multiple_of(Self::ALIGN)?;
        (size <= isize::MAX as usize).then_some(size)
    }

    /// Bytes of a value with so many elements, of which memory can be, before that is rounded up.
    pub(crate) fn used(tail_len: usize) -> usize {
        Self::HEAD + tail_len * Self::ELEMENT.unwrap_or(0)
    }
}

fn check_at<F: PlasmaObject + ?Sized>(
    bytes: &[u8],
    range: std::ops::Range<usize>,
    name: &'static str,
) -> Result<(), InvalidBytes> {
    let offset = range.start;
    match bytes.get(range) {
        Some(bytes) => F::check(bytes).map_err(|invalid| invalid.in_field(name, offset)),
        None => Err(InvalidBytes::new("bytes are missing").in_field(name, offset)),
    }
}
