//! `#[repr(…)]`: read once, and asked for what a struct or an enum needs.

use proc_macro2::{Ident, Span};
use syn::ext::IdentExt as _;
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{Attribute, LitInt, Token, parenthesized};

use crate::attr;
use crate::errors::Errors;

/// The greatest alignment: objects start at multiples of it.
const MAX_ALIGN: u32 = 64;

/// What is written, whatever it means. What the compiler itself refuses is left to it.
pub(crate) struct Repr {
    hints: Vec<Hint>,
    /// All of it could be read, so that what is not there is missing.
    is_complete: bool,
}

struct Hint {
    name: Ident,
    number: Option<u32>,
}

/// A struct's layout.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum StructRepr {
    C,
    Transparent,
}

/// An enum's integer.
#[derive(Clone)]
pub(crate) struct Primitive(Ident);

impl Repr {
    pub(crate) fn parse(attributes: &[Attribute], errors: &mut Errors) -> Self {
        let mut hints = Vec::new();
        let mut is_complete = true;
        for attribute in attributes.iter().filter(|it| attr::is(it, "repr")) {
            let parser = Punctuated::<Hint, Token![,]>::parse_terminated;
            match attribute.parse_args_with(parser) {
                Ok(more) => hints.extend(more),
                Err(error) => {
                    errors.push(error);
                    is_complete = false;
                }
            }
        }
        Self { hints, is_complete }
    }

    /// That of the struct `ident`, if objects may have it.
    pub(crate) fn of_struct(&self, ident: &Ident, errors: &mut Errors) -> Option<StructRepr> {
        let mut repr = None;
        for Hint { name, number } in &self.hints {
            let name = &name.unraw();
            if name == "C" {
                repr = Some(StructRepr::C);
            } else if name == "transparent" {
                repr = Some(StructRepr::Transparent);
            } else if name == "packed" {
                errors.at(
                    name,
                    "a packed struct's fields cannot be borrowed: leave `packed` out, order the \
                     fields from the largest to the smallest, and fill what is left at the end \
                     with a field `_pad: [u8; N]`",
                );
            } else if name == "align" && number.is_some_and(|it| it > MAX_ALIGN) {
                errors.at(
                    name,
                    format_args!(
                        "objects start at multiples of {MAX_ALIGN} bytes: an alignment is \
                         {MAX_ALIGN} at most"
                    ),
                );
            }
        }
        if repr.is_none() && self.is_complete {
            errors.at(
                ident,
                format_args!(
                    "`{ident}` needs `#[repr(C)]`: without it the compiler orders the fields as \
                     it likes, in another program perhaps otherwise"
                ),
            );
        }
        repr
    }

    /// That of the enum `ident`, if objects may have it.
    pub(crate) fn of_enum(&self, ident: &Ident, errors: &mut Errors) -> Option<Primitive> {
        let mut primitive = None;
        let mut refused = false;
        for Hint { name, .. } in &self.hints {
            let name = name.unraw();
            let problem = match name.to_string().as_str() {
                "u8" | "u16" | "u32" | "u64" | "i8" | "i16" | "i32" | "i64" => {
                    if primitive.is_none() {
                        primitive = Some(Primitive(name));
                        continue;
                    }
                    "an enum is stored as one integer: leave the other out"
                }
                "usize" => "`usize` differs between machines: use `#[repr(u64)]`, or a smaller one",
                "isize" => "`isize` differs between machines: use `#[repr(i64)]`, or a smaller one",
                "u128" | "i128" => "an enum's integer has 64 bits at most: use `#[repr(u64)]`",
                "C" => {
                    "how large a C enum is differs between compilers: use `#[repr(u8)]`, or \
                     another integer from `u8` to `i64`"
                }
                "align" => {
                    "an enum with `align` has padding behind its integer: leave it out, or wrap \
                     the enum in a struct"
                }
                _ => continue,
            };
            errors.at(name, problem);
            refused = true;
        }
        if primitive.is_none() && !refused && self.is_complete {
            errors.at(
                ident,
                format_args!(
                    "`{ident}` needs `#[repr(u8)]`, or another integer from `u8` to `i64`: without \
                     it the compiler chooses how its variants are stored"
                ),
            );
        }
        primitive
    }
}

impl Parse for Hint {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let name = input.call(Ident::parse_any)?;
        let mut number = None;
        if input.peek(syn::token::Paren) {
            let argument;
            parenthesized!(argument in input);
            number = Some(argument.parse::<LitInt>()?.base10_parse()?);
            argument.parse::<Option<Token![,]>>()?;
        }
        Ok(Self { name, number })
    }
}

impl Primitive {
    /// Its name, to be found in `::core::primitive`.
    pub(crate) fn ident(&self) -> Ident {
        let mut ident = self.0.clone();
        ident.set_span(Span::mixed_site());
        ident
    }
}
