//! A type as it is written, and as it is once it is known to be right.

use proc_macro2::{Ident, Span};
use syn::ext::IdentExt as _;
use syn::{Data, DeriveInput, Generics, Member, Type};

use crate::attr::{self, Attrs};
use crate::errors::Errors;
use crate::repr::{Primitive, Repr};

/// What is written.
pub(crate) struct Item<'a> {
    pub(crate) original: &'a DeriveInput,
    pub(crate) attrs: Attrs,
    pub(crate) repr: Repr,
    pub(crate) body: Body<'a>,
}

pub(crate) enum Body<'a> {
    Struct(Vec<Field<'a>>),
    Enum(Vec<Variant<'a>>),
    Union,
}

pub(crate) struct Field<'a> {
    pub(crate) original: &'a syn::Field,
    pub(crate) member: Member,
    /// Its name, or its number, as schemas and messages have it.
    pub(crate) name: String,
}

pub(crate) struct Variant<'a> {
    pub(crate) original: &'a syn::Variant,
    pub(crate) name: String,
}

/// What is right, and can be expanded.
pub(crate) struct Object<'a> {
    pub(crate) ident: &'a Ident,
    pub(crate) generics: &'a Generics,
    pub(crate) attrs: &'a Attrs,
    pub(crate) kind: Kind<'a>,
}

pub(crate) enum Kind<'a> {
    Sized {
        fields: &'a [Field<'a>],
        /// By `repr(transparent)`, so that there is nowhere for padding to be.
        transparent: bool,
    },
    Tailed {
        head: &'a [Field<'a>],
        tail: &'a Field<'a>,
    },
    Enum {
        repr: Primitive,
        variants: &'a [Variant<'a>],
    },
}

impl<'a> Item<'a> {
    pub(crate) fn new(input: &'a DeriveInput, errors: &mut Errors) -> Self {
        let body = match &input.data {
            Data::Struct(data) => {
                let fields = data.fields.iter().zip(data.fields.members());
                Body::Struct(
                    fields
                        .map(|(field, member)| Field::new(field, member))
                        .collect(),
                )
            }
            Data::Enum(data) => Body::Enum(data.variants.iter().map(Variant::new).collect()),
            Data::Union(_) => Body::Union,
        };
        match &body {
            Body::Struct(fields) => {
                for field in fields {
                    attr::refuse(&field.original.attrs, "a field", errors);
                }
            }
            Body::Enum(variants) => {
                for variant in variants {
                    attr::refuse(&variant.original.attrs, "a variant", errors);
                }
            }
            Body::Union => {}
        }
        Self {
            original: input,
            attrs: Attrs::parse(&input.attrs, errors),
            repr: Repr::parse(&input.attrs, errors),
            body,
        }
    }

    pub(crate) fn ident(&self) -> &'a Ident {
        &self.original.ident
    }

    /// The names of its type parameters.
    pub(crate) fn parameters(&self) -> Vec<&'a Ident> {
        self.original
            .generics
            .type_params()
            .map(|it| &it.ident)
            .collect()
    }

    /// The fields, if it is a struct.
    pub(crate) fn fields(&self) -> &[Field<'a>] {
        match &self.body {
            Body::Struct(fields) => fields,
            Body::Enum(_) | Body::Union => &[],
        }
    }
}

impl<'a> Field<'a> {
    fn new(original: &'a syn::Field, member: Member) -> Self {
        let name = match &member {
            Member::Named(ident) => ident.unraw().to_string(),
            Member::Unnamed(index) => index.index.to_string(),
        };
        Self {
            original,
            member,
            name,
        }
    }

    pub(crate) fn ty(&self) -> &'a Type {
        &self.original.ty
    }

    /// Where messages of the compiler point that are about the field, not about its type.
    pub(crate) fn span(&self) -> Span {
        match &self.member {
            Member::Named(ident) => ident.span(),
            Member::Unnamed(index) => index.span,
        }
    }
}

impl<'a> Variant<'a> {
    fn new(original: &'a syn::Variant) -> Self {
        Self {
            original,
            name: original.ident.unraw().to_string(),
        }
    }
}

/// A type without the parentheses around it, also those that nobody sees since a macro made them.
pub(crate) fn peel(mut ty: &Type) -> &Type {
    loop {
        ty = match ty {
            Type::Paren(paren) => &paren.elem,
            Type::Group(group) => &group.elem,
            _ => return ty,
        };
    }
}
