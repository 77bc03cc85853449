//! `#[plasma(…)]`.

use proc_macro2::{TokenStream, TokenTree};
use quote::quote;
use syn::ext::IdentExt as _;
use syn::parse::{Parse, ParseStream, Parser as _};
use syn::punctuated::Punctuated;
use syn::{Attribute, Error, Ident, LitInt, LitStr, Meta, Path, Token};

use crate::errors::Errors;

const KNOWN: &str = "`name = \"…\"`, `version = …` and `crate = \"…\"`";

/// What a type's attributes say.
#[derive(Default)]
pub(crate) struct Attrs {
    pub(crate) name: Option<String>,
    pub(crate) version: Option<u32>,
    pub(crate) krate: Option<Path>,
}

impl Attrs {
    pub(crate) fn parse(attributes: &[Attribute], errors: &mut Errors) -> Self {
        let mut attrs = Self::default();
        let mut seen = Vec::new();
        for attribute in attributes.iter().filter(|it| is(it, "plasma")) {
            match arguments(attribute) {
                Ok(arguments) => {
                    for argument in arguments {
                        attrs.take(argument, &mut seen, errors);
                    }
                }
                Err(error) => errors.push(error),
            }
        }
        attrs
    }

    fn take(&mut self, argument: Argument, seen: &mut Vec<Ident>, errors: &mut Errors) {
        let key = &argument.key;
        if seen.contains(key) {
            errors.at(key, format_args!("`{key}` is given twice: keep one"));
            return;
        }
        let taken = if key == "name" {
            argument.name().map(|name| self.name = Some(name))
        } else if key == "version" {
            argument
                .version()
                .map(|version| self.version = Some(version))
        } else if key == "crate" {
            argument.path().map(|path| self.krate = Some(path))
        } else {
            Err(Error::new_spanned(
                key,
                format_args!("`plasma` knows no `{key}`: there are {KNOWN}"),
            ))
        };
        match taken {
            Ok(()) => {}
            Err(error) => errors.push(error),
        }
        seen.push(argument.key);
    }
}

/// Whether that is the attribute's name; `r#` before it means nothing to the compiler either.
pub(crate) fn is(attribute: &Attribute, name: &str) -> bool {
    let ident = attribute.path().get_ident();
    ident.is_some_and(|it| it.unraw() == name)
}

/// Reports what is written where nothing of it has a meaning.
pub(crate) fn refuse(attributes: &[Attribute], on: &str, errors: &mut Errors) {
    for attribute in attributes.iter().filter(|it| is(it, "plasma")) {
        errors.at(
            attribute,
            format_args!(
                "`#[plasma(…)]` says something of the whole type, not of {on}: move it there"
            ),
        );
    }
}

/// `key = value`, the value not yet looked at.
struct Argument {
    key: Ident,
    value: TokenStream,
}

fn arguments(attribute: &Attribute) -> syn::Result<Punctuated<Argument, Token![,]>> {
    match &attribute.meta {
        Meta::List(list) => list.parse_args_with(Punctuated::parse_terminated),
        Meta::Path(_) | Meta::NameValue(_) => Err(Error::new_spanned(
            &attribute.meta,
            format_args!("expected `#[plasma(…)]`, with one or more of {KNOWN}"),
        )),
    }
}

impl Parse for Argument {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let Ok(key) = input.call(Ident::parse_any) else {
            return Err(input.error(format_args!("expected one of {KNOWN}")));
        };
        let mut value = TokenStream::new();
        if input.parse::<Option<Token![=]>>()?.is_some() {
            while !input.is_empty() && !input.peek(Token![,]) {
                value.extend([input.parse::<TokenTree>()?]);
            }
        } else {
            // What stands there instead is left to the message about the key.
            while !input.is_empty() && !input.peek(Token![,]) {
                input.parse::<TokenTree>()?;
            }
        }
        Ok(Self { key, value })
    }
}

impl Argument {
    fn name(&self) -> syn::Result<String> {
        let literal: LitStr = self.literal("name = \"market.Tick\"")?;
        let name = literal.value();
        let problem = if name.is_empty() {
            "a name has at least one character"
        } else if name.chars().any(char::is_control) {
            "a name has no control characters"
        } else {
            return Ok(name);
        };
        Err(Error::new(literal.span(), problem))
    }

    fn version(&self) -> syn::Result<u32> {
        let literal: LitInt = self.literal("version = 2")?;
        match literal.base10_parse() {
            Ok(version @ 1..) if matches!(literal.suffix(), "" | "u32") => Ok(version),
            _ => Err(Error::new_spanned(
                &self.value,
                "a version is a whole number from 1 to 4294967295",
            )),
        }
    }

    fn path(&self) -> syn::Result<Path> {
        let example = "crate = \"my_crate::plasma_typed\"";
        let literal: LitStr = self.literal(example)?;
        let path = literal.parse_with(Path::parse_mod_style);
        path.map_err(|_| Error::new(literal.span(), format_args!("expected a path: `{example}`")))
    }

    fn literal<L: Parse>(&self, example: &str) -> syn::Result<L> {
        let Self { key, value } = self;
        let alone = |input: ParseStream<'_>| {
            let Ok(literal) = input.parse() else {
                return Err(Error::new_spanned(
                    if value.is_empty() {
                        quote!(#key)
                    } else {
                        quote!(#value)
                    },
                    format_args!("`{key}` is given as `{example}`"),
                ));
            };
            match input.is_empty() {
                true => Ok(literal),
                false => Err(input.error("expected `,` or the end of the attribute")),
            }
        };
        alone.parse2(value.clone())
    }
}
