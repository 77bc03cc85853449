//! What the derive's expansions use. Not for anybody else: it changes with the derive.

pub use bytemuck;

pub use crate::error::InvalidBytes;
pub use crate::schema::{Field, Scalar, Shape, Variant};

use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ptr;

use bytemuck::{AnyBitPattern, Zeroable};

use crate::object::{PlasmaObject, ZeroValid};
use crate::schema::{MAX_ALIGN, Schema};

/// `T: ZeroValid`, as a bound that the compiler does not look at before somebody relies on it:
/// where a field's type is known not to have it, that is no mistake of the type.
pub trait ZeroField<'a>: ZeroValid {}
impl<T: ZeroValid + ?Sized> ZeroField<'_> for T {}

/// `T: Copy`, likewise: where a type is not, one message says so, not one for each impl.
pub trait CopyObject<'a>: Copy {}
impl<T: Copy> CopyObject<'_> for T {}

/// What a checked object is before it is checked: bytes of its size and alignment.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Bits<T: Copy>(MaybeUninit<T>);

// SAFETY: any bytes are a `MaybeUninit`, zeros among them.
unsafe impl<T: Copy> Zeroable for Bits<T> {}
// SAFETY: any bytes are a `MaybeUninit`; it is `Copy`, holds no references that somebody could
// follow, and does not change behind a shared reference since `PlasmaObject`s do not.
unsafe impl<T: Copy + PlasmaObject> AnyBitPattern for Bits<T> {}

impl<T: Copy + PlasmaObject> Bits<T> {
    /// Whether the bytes are a value.
    pub fn are_valid(&self) -> bool {
        // Where the layout does not hold, this does not compile.
        const { assert!(T::SCHEMA.size() == size_of::<T>()) };
        let start = ptr::from_ref(self).cast::<u8>();
        // SAFETY: `self` is as many bytes, and all are initialised: `Bits` come from nowhere but
        // casts of bytes, and a `PlasmaObject` has no padding that copying would not copy.
        let bytes = unsafe { std::slice::from_raw_parts(start, size_of::<T>()) };
        T::ALL_BITS_VALID || T::check(bytes).is_ok()
    }
}

/// The integers of enums.
pub trait Integer: Copy + Into<i128> {
    /// Its name in schemas.
    const SCALAR: Scalar;

    /// Its value; `None` if these are not as many bytes as it takes.
    fn read(bytes: &[u8]) -> Option<Self>;
}

macro_rules! integers {
    ($($type:ident => $scalar:ident,)*) => {
        $(impl Integer for $type {
            const SCALAR: Scalar = Scalar::$scalar;

            #[inline]
            fn read(bytes: &[u8]) -> Option<Self> {
                Some(Self::from_ne_bytes(bytes.try_into().ok()?))
            }
        })*
    };
}

integers! {
    u8 => U8, u16 => U16, u32 => U32, u64 => U64, i8 => I8, i16 => I16, i32 => I32, i64 => I64,
}

/// The schema of a struct of fixed size.
pub const fn struct_schema<T>(
    name: &'static str,
    version: u32,
    fields: &'static [Field],
) -> Schema {
    let shape = Shape::Struct {
        name,
        version,
        fields,
    };
    Schema::new(size_of::<T>(), align_of::<T>(), shape)
}

/// The schema of a struct whose last field is a slice, a `str` or ends with one.
#[track_caller]
#[expect(clippy::panic, reason = "the compiler's")]
pub const fn tailed_schema(
    name: &'static str,
    version: u32,
    layout: TailLayout,
    fields: &'static [Field],
) -> Schema {
    let [.., tail] = fields else {
        panic!("it has a tail");
    };
    assert!(
        tail.schema.element_size().is_some(),
        "the last field is a slice or a `str` by its name only: give its type another one"
    );
    let shape = Shape::Struct {
        name,
        version,
        fields,
    };
    Schema::new(layout.offset + tail.schema.size(), layout.align, shape)
}

/// Memory for a struct with fields of the types `Head`, a tuple, before a tail of no elements: what
/// lies where is seen from pointers into it.
#[repr(C)]
pub struct Room<Head> {
    /// Twice, since before a field there is less padding than it is large.
    head: [MaybeUninit<Head>; 2],
    /// For what alignment adds before the tail, and before the whole in a [`Probe`].
    spare: [MaybeUninit<u8>; 2 * MAX_ALIGN],
}

/// Its second field starts where the alignment of `T` lets it.
#[repr(C)]
struct Probe<T: ?Sized>(u8, T);

/// How a struct with a tail lies in memory.
#[derive(Clone, Copy)]
pub struct TailLayout {
    offset: usize,
    align: usize,
}

impl<Head> Room<Head> {
    /// Nothing in it is initialised.
    #[expect(clippy::new_without_default, reason = "it is for constants")]
    pub const fn new() -> Self {
        Self {
            head: [const { MaybeUninit::uninit() }; 2],
            spare: [const { MaybeUninit::uninit() }; 2 * MAX_ALIGN],
        }
    }

    /// Where it starts.
    pub const fn start(&self) -> *const u8 {
        ptr::from_ref(self).cast()
    }

    /// The layout of a struct which starts there, out of pointers to it and to its tail.
    ///
    /// # Safety
    /// That they are, and the struct and its head those for which the room is. (Where it is too
    /// small, the compiler, which evaluates this, says so.)
    pub const unsafe fn layout<T: ?Sized, Tail: ?Sized>(
        &self,
        value: *const T,
        tail: *const Tail,
    ) -> TailLayout {
        let probe = value as *const Probe<T>;
        // SAFETY: it starts where the room does, which has space for an alignment and the struct.
        let aligned = unsafe { &raw const (*probe).1 };
        // SAFETY: both point into the room.
        let offset = unsafe { tail.cast::<u8>().offset_from_unsigned(self.start()) };
        // SAFETY: likewise.
        let align = unsafe { aligned.cast::<u8>().offset_from_unsigned(self.start()) };
        TailLayout { offset, align }
    }
}

impl TailLayout {
    /// Where the tail starts.
    pub const fn tail_offset(self) -> usize {
        self.offset
    }
}

/// The type of what lies there.
#[inline]
pub fn type_at<T: ?Sized>(_place: *const T) -> TypeAt<T> {
    TypeAt(PhantomData)
}

/// A type, to be compared.
pub struct TypeAt<T: ?Sized>(PhantomData<T>);

impl<T: ?Sized> TypeAt<T> {
    /// Does not compile for another type.
    #[inline]
    pub fn is<Other: ?Sized>(self)
    where
        T: SameAs<Other>,
    {
    }
}

/// That two types are one.
#[diagnostic::on_unimplemented(
    message = "this field is a `{Self}`, and was a `{Other}` when `PlasmaObject` was derived",
    label = "its type was changed by an attribute",
    note = "derive `PlasmaObject` below that attribute, so that it sees what the attribute makes"
)]
pub trait SameAs<Other: ?Sized> {}
#[diagnostic::do_not_recommend]
impl<T: ?Sized> SameAs<T> for T {}

/// The schema of an enum.
pub const fn enum_schema<E, I: Integer>(
    name: &'static str,
    version: u32,
    variants: &'static [Variant],
) -> Schema {
    assert!(
        size_of::<E>() == size_of::<I>() && align_of::<E>() == align_of::<I>(),
        "the enum is not stored as the integer that its `repr` names"
    );
    let shape = Shape::Enum {
        name,
        version,
        repr: I::SCALAR,
        variants,
    };
    Schema::new(size_of::<I>(), align_of::<I>(), shape)
}

/// The numbers of an enum's variants; no two are the same.
const fn variants(schema: &Schema) -> &'static [Variant] {
    match schema.shape() {
        Shape::Enum { variants, .. } => variants,
        _ => &[],
    }
}

/// Whether an enum has a variant for every number that there is.
pub const fn all_bits_valid(schema: &Schema) -> bool {
    variants(schema).len() as u128 == 1 << (8 * schema.size())
}

/// Whether an enum has a variant of value 0.
pub const fn has_zero(schema: &Schema) -> bool {
    let mut variants = variants(schema);
    while let [variant, rest @ ..] = variants {
        if variant.value == 0 {
            return true;
        }
        variants = rest;
    }
    false
}

/// An enum of which it is `true` that it has a variant of value 0. The lifetime is for the same as
/// in [`ZeroField`].
#[diagnostic::on_unimplemented(
    message = "memory full of zeros is no valid `{Self}`, so it cannot be created zeroed",
    label = "none of its variants is 0",
    note = "`put` stores a value that is there; `create_uninit` hands out memory to be written first; or give the enum a variant of value 0"
)]
///
/// # Safety
/// It is `true` only.
pub unsafe trait HasZero<'a, const IT_HAS: bool> {}
#[diagnostic::do_not_recommend]
// SAFETY: it is.
unsafe impl<T> HasZero<'_, true> for T {}

/// Checks an enum on its behalf.
#[inline]
pub fn check_enum<E: PlasmaObject, I: Integer>(
    bytes: &[u8],
    is_variant: impl Fn(I) -> bool,
) -> Result<(), InvalidBytes> {
    if E::ALL_BITS_VALID {
        return Ok(());
    }
    match I::read(bytes) {
        Some(number) if is_variant(number) => Ok(()),
        number => Err(no_variant(E::SCHEMA, number.map(Into::into))),
    }
}

/// How many variants a message names.
const MAX_VARIANTS: usize = 8;

#[cold]
fn no_variant(schema: &Schema, number: Option<i128>) -> InvalidBytes {
    let Some(number) = number else {
        return InvalidBytes::new("bytes are missing");
    };
    let name = schema.name().unwrap_or_default();
    let variants = variants(schema);
    let named = variants.iter().take(MAX_VARIANTS);
    let mut list: Vec<String> = named
        .map(|it| format!("{} = {}", it.name, it.value))
        .collect();
    if variants.len() > MAX_VARIANTS {
        list.push(format!("and {} more", variants.len() - MAX_VARIANTS));
    }
    InvalidBytes::new(format!("{number} is no {name} ({})", list.join(", ")))
}

/// Does not evaluate for a type with a destructor. The message is about the type, at the caller. It
/// takes the schema so as to say nothing if a field is no object, as that may be the reason.
#[track_caller]
pub const fn assert_no_drop<T: ?Sized>(_schema: &Schema) {
    assert!(
        !std::mem::needs_drop::<T>(),
        "a stored value is never dropped, so its destructor would never run: leave `Drop` out"
    );
}

/// Does not evaluate if there is padding between a field's end and what comes next. The message is
/// about the field, at the caller.
#[track_caller]
#[expect(clippy::panic, reason = "the compiler's")]
pub const fn assert_no_padding(end: usize, next: usize) {
    if next != end {
        panic!("{}", padding_after_field(next.wrapping_sub(end)));
    }
}

/// Where padding may be: the end of each field, and what comes next.
pub type Gaps = &'static [(usize, usize)];

/// The same for one of many; there may be none.
#[track_caller]
pub const fn assert_no_padding_in(gaps: Gaps, index: usize) {
    if let Some((_, [(end, next), ..])) = gaps.split_at_checked(index) {
        assert_no_padding(*end, *next);
    }
}

/// `T: Copy`, with the mend in the message; nothing is asked of a type that is not `SIZED`, as that
/// has a message of its own.
#[diagnostic::on_unimplemented(
    message = "`{Self}` has a fixed size, so as an object it has to be `Copy`: add `#[derive(Clone, Copy)]`",
    label = "not `Copy`"
)]
pub trait IsCopy<const SIZED: bool> {
    /// Does not compile for a type that is not.
    const YES: () = ();
}
#[diagnostic::do_not_recommend]
impl<T: Copy> IsCopy<true> for T {}
#[diagnostic::do_not_recommend]
impl<T: ?Sized> IsCopy<false> for T {}

/// `T: Sized`, with the mend in the message.
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no fixed size",
    label = "ends with a slice or a `str`",
    note = "an object ends with a `[T]` or a `str` that is written so in the struct itself, not as another struct that ends with one or under the name of an alias"
)]
pub trait IsSized {
    /// Does not compile for a type that is not.
    const YES: () = ();
}
#[diagnostic::do_not_recommend]
impl<T> IsSized for T {}

/// `T: Sized`, as a bound that the compiler does not look at before somebody relies on it, so that
/// an impl can take it for granted, and [`IsSized`] alone say where it is not so.
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no fixed size",
    label = "holds one that ends with a slice or a `str`",
    note = "an object ends with a `[T]` or a `str` that is written so in the struct itself, not as another struct that ends with one or under the name of an alias"
)]
pub trait SizedField<'a>: Sized {}
#[diagnostic::do_not_recommend]
impl<T> SizedField<'_> for T {}

/// What is to be checked of a struct whose last field turns out to have no fixed size: nothing. The
/// constants of the struct's own go before these where it has one.
pub trait NotSized {
    /// Whether the last field has a fixed size.
    const IS_SIZED: bool = false;
    /// The struct's schema.
    const SCHEMA: &'static Schema = NO_SCHEMA;
    /// Where padding may be.
    const GAPS: Gaps = &[];
}
impl<T> NotSized for T {}

/// What a type with mistakes has for a schema.
pub const NO_SCHEMA: &Schema = &Schema::new(
    0,
    1,
    Shape::Struct {
        name: "",
        version: 1,
        fields: &[],
    },
);

/// What is said of padding; a function of the number, as the compiler cannot format one.
const fn padding_after_field(bytes: usize) -> &'static str {
    macro_rules! messages {
        ($($bytes:literal)*) => {
            match bytes {
                1 => "1 byte of padding after this field: add `_pad: [u8; 1]`",
                $($bytes => concat!(
                    stringify!($bytes), " bytes of padding after this field: add `_pad: [u8; ",
                    stringify!($bytes), "]`",
                ),)*
                _ => "padding after this field: fill it with a field `_pad: [u8; N]`",
            }
        };
    }
    messages! {
        2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32
        33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63
    }
}
