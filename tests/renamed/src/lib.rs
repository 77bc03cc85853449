//! Types of a crate that knows `plasma-typed` under another name, takes nothing from any prelude,
//! and lets no lint pass: what the derive makes of them has to stand all of it.

#![no_implicit_prelude]
#![forbid(unsafe_code)]
#![deny(
    absolute_paths_not_starting_with_crate,
    ambiguous_negative_literals,
    clippy::all,
    clippy::pedantic,
    clippy::nursery,
    clippy::multiple_unsafe_ops_per_block,
    clippy::panic,
    clippy::undocumented_unsafe_blocks,
    clippy::unwrap_used,
    deprecated,
    deprecated_safe,
    explicit_outlives_requirements,
    future_incompatible,
    keyword_idents,
    let_underscore,
    missing_copy_implementations,
    missing_debug_implementations,
    missing_docs,
    non_ascii_idents,
    nonstandard_style,
    redundant_imports,
    redundant_lifetimes,
    refining_impl_trait,
    rust_2018_idioms,
    rust_2021_compatibility,
    rust_2024_compatibility,
    single_use_lifetimes,
    trivial_bounds,
    trivial_casts,
    trivial_numeric_casts,
    unit_bindings,
    unnameable_types,
    unreachable_pub,
    unused,
    unused_import_braces,
    unused_lifetimes,
    unused_qualifications,
    unused_results,
    variant_size_differences,
    warnings
)]

use ::core::clone::Clone;
use ::core::fmt::Debug;
use ::core::marker::{Copy, PhantomData};
use ::typed::PlasmaObject;

/// A struct with names of the standard library for its fields.
#[derive(PlasmaObject, Clone, Copy, Debug)]
#[plasma(crate = "::typed", name = "names.Fields", version = 3)]
#[repr(C)]
pub struct Names {
    /// Not the trait.
    pub schema: u64,
    /// A keyword.
    pub r#type: f64,
    /// Not the bytes that are checked.
    pub bytes: u32,
    /// Not the number of elements.
    pub len: Side,
    /// Fills it up.
    pub pad: [u8; 3],
}

/// Its variants look like those of `Option` and `Result`.
#[derive(PlasmaObject, Clone, Copy, Debug)]
#[plasma(crate = "::typed")]
#[repr(u8)]
pub enum Side {
    /// Not that of `Option`.
    None,
    /// Not that of `Result`.
    Ok = 4,
    /// One that is not to be used any more.
    #[deprecated]
    Err,
}

/// No variant is 0, and some are not literals.
#[derive(PlasmaObject, Clone, Copy, Debug)]
#[plasma(crate = "::typed")]
#[repr(i16)]
pub enum Level {
    /// The least.
    Low = -(1 << 8),
    /// The greatest.
    High = i16::MAX,
}

/// Generic, with bounds of both kinds and a parameter that is stored nowhere.
#[derive(PlasmaObject, Clone, Copy, Debug)]
#[plasma(crate = "::typed")]
#[repr(C)]
pub struct Grid<T: Debug, M, const N: usize>
where
    M: Debug,
{
    /// What it holds.
    pub cells: [T; N],
    /// What it is for.
    pub marker: PhantomData<M>,
}

/// A newtype.
#[derive(PlasmaObject, Clone, Copy, Debug)]
#[plasma(crate = "::typed")]
#[repr(transparent)]
pub struct Price(pub f64);

/// A generic newtype.
#[derive(PlasmaObject, Clone, Copy, Debug)]
#[plasma(crate = "::typed")]
#[repr(transparent)]
pub struct Wrapped<T>(pub T);

/// Holds nothing.
#[derive(PlasmaObject, Clone, Copy, Debug)]
#[plasma(crate = "::typed")]
#[repr(C)]
pub struct Nothing;

/// Ends with a slice.
#[derive(PlasmaObject, Debug)]
#[plasma(crate = "::typed")]
#[repr(C, align(16))]
pub struct Image {
    /// In pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
    /// Row by row.
    pub pixels: [u8],
}

/// Ends with a slice of whatever it is.
#[derive(PlasmaObject, Debug)]
#[plasma(crate = "::typed")]
#[repr(C)]
pub struct Series<T> {
    /// When the first was taken.
    pub start: u64,
    /// One after the other.
    pub values: [T],
}

/// Ends with text.
#[derive(PlasmaObject, Debug)]
#[plasma(crate = "::typed")]
#[repr(C)]
pub struct Message(pub u64, pub str);

/// Nobody else sees it.
#[derive(PlasmaObject, Clone, Copy, Debug)]
#[plasma(crate = "::typed")]
#[repr(transparent)]
struct Private(u8);

/// Has a field of a type that nobody else sees, and one that is not to be used any more.
#[derive(PlasmaObject, Clone, Copy, Debug)]
#[plasma(crate = "::typed")]
#[repr(C)]
pub struct Public<T> {
    private: Private,
    #[deprecated]
    old: u8,
    shared: [T; 2],
}
