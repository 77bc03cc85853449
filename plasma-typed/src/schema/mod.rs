//! What a type is called and how it lies in memory, as a value.

mod describe;
mod json;
mod numpy;

pub(crate) use describe::Stored;
pub(crate) use json::Writer;

use std::fmt;

/// The greatest alignment: objects start at multiples of it.
pub(crate) const MAX_ALIGN: usize = 64;

/// What a [`PlasmaObject`](crate::PlasmaObject) is called and how it lies in memory; computed by
/// the compiler, at [`SCHEMA`](crate::PlasmaObject::SCHEMA).
///
/// Every object carries its schema as JSON, so that programs in other languages can read it, and
/// its [`fingerprint`](Self::fingerprint), so that readers need only compare two numbers.
///
/// ```
/// use plasma_typed::PlasmaObject;
///
/// #[derive(PlasmaObject, Clone, Copy)]
/// #[plasma(name = "geo.Point", version = 2)]
/// #[repr(C)]
/// struct Point {
///     x: f64,
///     y: f64,
/// }
///
/// assert_eq!(
///     Point::SCHEMA.to_string(),
///     "geo.Point v2, 16 bytes, aligned to 8\n\
///      \x20      0  x: f64\n\
///      \x20      8  y: f64"
/// );
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schema {
    size: usize,
    align: usize,
    shape: Shape,
}

/// What kind of type a [`Schema`] describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Shape {
    /// A number, `bool` or `char`.
    Scalar(Scalar),
    /// `[T; N]`.
    Array {
        /// What it is an array of.
        element: &'static Schema,
        /// How many of them.
        len: usize,
    },
    /// A struct. If its last field is a slice or a `str`, that is its tail.
    Struct {
        /// Its name: as given by `#[plasma(name = "…")]`, or that in the source, without its module.
        name: &'static str,
        /// Its version, as given by `#[plasma(version = …)]`, or 1.
        version: u32,
        /// Its fields, by offset.
        fields: &'static [Field],
    },
    /// An enum without fields.
    Enum {
        /// Its name, as for a struct.
        name: &'static str,
        /// Its version, as for a struct.
        version: u32,
        /// The integer that stands for it.
        repr: Scalar,
        /// Its variants, in the order of the source.
        variants: &'static [Variant],
    },
    /// `[T]`: as many elements as the object's header says.
    Slice {
        /// What it is a slice of.
        element: &'static Schema,
    },
    /// `str`: as many bytes of UTF-8 as the object's header says.
    Str,
}

/// One field of a struct.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name; its number in a tuple struct.
    pub name: &'static str,
    /// Where it starts, in bytes from the start of the struct.
    pub offset: usize,
    /// Its type.
    pub schema: &'static Schema,
}

/// One variant of an enum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variant {
    /// Its name.
    pub name: &'static str,
    /// The number that stands for it.
    pub value: i128,
}

macro_rules! scalars {
    ($($variant:ident $name:literal $numpy:literal,)*) => {
        /// A type that is not made of others.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        #[expect(missing_docs, reason = "each is the Rust type of that name")]
        pub enum Scalar {
            $($variant,)*
        }

        impl Scalar {
            /// The Rust type's name, as in the JSON form: `"f64"`, `"NonZeroU8"`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// numpy's code for it, less the byte order.
            const fn numpy_code(self) -> &'static str {
                match self {
                    $(Self::$variant => $numpy,)*
                }
            }
        }
    };
}

scalars! {
    U8 "u8" "u1",
    U16 "u16" "u2",
    U32 "u32" "u4",
    U64 "u64" "u8",
    U128 "u128" "V16",
    I8 "i8" "i1",
    I16 "i16" "i2",
    I32 "i32" "i4",
    I64 "i64" "i8",
    I128 "i128" "V16",
    F32 "f32" "f4",
    F64 "f64" "f8",
    Bool "bool" "b1",
    Char "char" "u4",
    NonZeroU8 "NonZeroU8" "u1",
    NonZeroU16 "NonZeroU16" "u2",
    NonZeroU32 "NonZeroU32" "u4",
    NonZeroU64 "NonZeroU64" "u8",
    NonZeroU128 "NonZeroU128" "V16",
    NonZeroI8 "NonZeroI8" "i1",
    NonZeroI16 "NonZeroI16" "i2",
    NonZeroI32 "NonZeroI32" "i4",
    NonZeroI64 "NonZeroI64" "i8",
    NonZeroI128 "NonZeroI128" "V16",
}

impl Schema {
    /// A type of `size` bytes, not counting a tail of variable length.
    #[doc(hidden)]
    pub const fn new(size: usize, align: usize, shape: Shape) -> Self {
        assert!(
            align <= MAX_ALIGN,
            "objects start at multiples of 64 bytes: an alignment is 64 at most"
        );
        Self { size, align, shape }
    }

    /// Its name as given by `#[plasma(name = "…")]` or in the source; none for scalars, arrays,
    /// slices and `str`.
    pub const fn name(&self) -> Option<&'static str> {
        match self.shape {
            Shape::Struct { name, .. } | Shape::Enum { name, .. } => Some(name),
            _ => None,
        }
    }

    /// Its version as given by `#[plasma(version = …)]`; 1 if none was given.
    pub const fn version(&self) -> u32 {
        match self.shape {
            Shape::Struct { version, .. } | Shape::Enum { version, .. } => version,
            _ => 1,
        }
    }

    /// Bytes of a value; of a type that ends with a slice or a `str`, those before it.
    pub const fn size(&self) -> usize {
        self.size
    }

    /// Its values start at a multiple of this, in bytes.
    pub const fn align(&self) -> usize {
        self.align
    }

    /// What it is made of.
    pub const fn shape(&self) -> Shape {
        self.shape
    }

    /// Bytes of an element of the slice or `str` that it ends with, if it does.
    pub const fn element_size(&self) -> Option<usize> {
        match self.shape {
            Shape::Slice { element } => Some(element.size),
            Shape::Str => Some(1),
            Shape::Struct { fields, .. } => match fields {
                [.., last] => last.schema.element_size(),
                [] => None,
            },
            Shape::Scalar(_) | Shape::Array { .. } | Shape::Enum { .. } => None,
        }
    }

    /// 128 bits that stand for all of it: two types have the same fingerprint if names, versions,
    /// layouts and byte order are the same, wherever they are declared. It is the FNV-1a hash of
    /// [`to_json`](Self::to_json).
    pub const fn fingerprint(&self) -> u128 {
        let mut counted = Writer::new(&mut []);
        counted.schema(self);
        counted.hash()
    }

    /// The form in which objects carry it:
    /// `{"endian":"little","size":16,"align":8,"type":{"struct":"Point",…}}`. The crate's
    /// documentation describes it.
    pub fn to_json(&self) -> String {
        let mut counted = Writer::new(&mut []);
        counted.schema(self);
        let mut json = vec![0; counted.len()];
        Writer::new(&mut json).schema(self);
        String::from_utf8_lossy(&json).into_owned()
    }

    /// The Python literal of which [numpy's `dtype`] is made: `numpy.dtype(ast.literal_eval(…))`.
    ///
    /// For a type that ends with a slice or a `str` it describes what comes before that; for a
    /// slice, one element; for `str`, one byte. 128-bit integers are 16 opaque bytes (`V16`), a
    /// `char` is its code, an enum its number. numpy takes arrays of up to 2³¹ elements and 32
    /// dimensions.
    ///
    /// ```
    /// use plasma_typed::PlasmaObject;
    ///
    /// # if cfg!(target_endian = "little") {
    /// assert_eq!(<[f64]>::SCHEMA.numpy_dtype(), "'<f8'");
    /// # }
    /// ```
    ///
    /// [numpy's `dtype`]: https://numpy.org/doc/stable/reference/arrays.dtypes.html
    pub fn numpy_dtype(&self) -> String {
        numpy::dtype(self)
    }
}

/// The type with its fields, a line for each.
impl fmt::Display for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Stored::from(self), f)
    }
}
