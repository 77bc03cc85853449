//! `#[derive(PlasmaObject)]`, to be used through `plasma-typed`, which re-exports it beside the
//! trait of that name.
//!
//! A type goes through it in this order: what is written (`ast`, with `attr` and `repr`), whether it
//! may be (`valid`), the impls (`expand`) or, beside the mistakes, what keeps them from causing
//! others (`fallback`). How types lie in memory is for the compiler to say: the impls hold constants
//! that do not evaluate where there is padding.

#![forbid(unsafe_code)]

mod ast;
mod attr;
mod errors;
mod expand;
mod fallback;
mod field_type;
mod repr;
mod valid;

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

/// Makes a struct or an enum an object that a Plasma store can hold.
///
/// It implements `PlasmaObject`; `ZeroValid` where memory full of zeros is a value; `VariableLen`
/// for structs that end with a slice or a `str`; and for the others bytemuck's traits (`Zeroable`,
/// `CheckedBitPattern`, and `NoUninit` where the type is not generic), so that bytemuck's functions
/// work with them.
///
/// ```ignore
/// use plasma_typed::PlasmaObject;
///
/// #[derive(PlasmaObject, Clone, Copy)]
/// #[plasma(name = "market.Tick", version = 2)]
/// #[repr(C)]
/// struct Tick {
///     ts_ns: u64,
///     price: f64,
///     size: u32,
///     side: Side,
///     _pad: [u8; 3],
/// }
///
/// #[derive(PlasmaObject, Clone, Copy)]
/// #[repr(u8)]
/// enum Side {
///     Buy,
///     Sell,
/// }
///
/// #[derive(PlasmaObject)]
/// #[repr(C)]
/// struct Image {
///     width: u32,
///     height: u32,
///     pixels: [u8],
/// }
/// ```
///
/// # What it takes
/// - Structs with `#[repr(C)]` or `#[repr(transparent)]`, of fields that are objects themselves,
///   without padding. They may have type and const parameters: how such a type lies in memory is
///   checked for every set of arguments it is used with.
/// - Structs with `#[repr(C)]` whose last field is a `[T]` or a `str`.
/// - Enums without fields, with `#[repr(u8)]` or another integer up to `i64`.
///
/// All but those that end with a slice have to be `Copy`. Alignment is 64 at most.
///
/// # Attributes
/// On the type, separated by commas or in attributes of their own:
/// - `#[plasma(name = "market.Tick")]`: the name under which it is stored; without it that in the
///   source, without its module.
/// - `#[plasma(version = 2)]`: its version, from 1, which is also what it is without one. Objects of
///   another name or version are of another type.
/// - `#[plasma(crate = "path")]`: where `plasma-typed` is, if not at `::plasma_typed`.
#[proc_macro_derive(PlasmaObject, attributes(plasma))]
pub fn derive_plasma_object(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    let mut errors = errors::Errors::default();
    let item = ast::Item::new(&input, &mut errors);
    let object = valid::check(&item, &mut errors);
    match errors.finish(object) {
        Ok(object) => expand::impls(&object),
        Err(errors) => fallback::impls(&item, &errors),
    }
    .into()
}
