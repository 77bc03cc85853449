//! The rules, as far as they can be seen in what is written. Every mistake is reported.

use proc_macro2::Ident;
use quote::ToTokens;
use syn::{Error, GenericParam, Type, TypeParamBound, WherePredicate};

use crate::ast::{Body, Field, Item, Kind, Object, Variant, peel};
use crate::errors::Errors;
use crate::field_type;
use crate::repr::StructRepr;

/// What can be expanded. Where it is `None`, there are errors.
pub(crate) fn check<'a>(item: &'a Item<'a>, errors: &mut Errors) -> Option<Object<'a>> {
    let kind = match &item.body {
        Body::Struct(fields) => check_struct(item, fields, errors),
        Body::Enum(variants) => check_enum(item, variants, errors),
        Body::Union => {
            errors.at(
                item.ident(),
                "nobody can tell what a union holds: derive `PlasmaObject` for a struct with one \
                 of its fields, or with `[u8; N]`",
            );
            None
        }
    };
    Some(Object {
        ident: item.ident(),
        generics: &item.original.generics,
        attrs: &item.attrs,
        kind: kind?,
    })
}

fn check_struct<'a>(
    item: &'a Item<'a>,
    fields: &'a [Field<'a>],
    errors: &mut Errors,
) -> Option<Kind<'a>> {
    let repr = item.repr.of_struct(item.ident(), errors);
    let parameters = item.parameters();
    let mut lifetime_is_explained = false;
    for (index, field) in fields.iter().enumerate() {
        let is_last = index + 1 == fields.len();
        let name = &field.name;
        if is_itself(item.ident(), field.ty(), &parameters) {
            errors.at(
                field.ty(),
                format_args!(
                    "field `{name}`: a value does not fit into itself: hold the name of the other \
                     object, a `Key<{}>`",
                    item.ident()
                ),
            );
        } else if let Some(error) = field_type::problem(name, field.ty(), &parameters) {
            lifetime_is_explained |= contains_lifetime(field.ty());
            errors.push(error);
        } else if is_tail(field.ty(), &parameters) && !is_last {
            errors.at(
                field.ty(),
                format_args!(
                    "field `{name}`: only the last field may have no fixed size: move it to the \
                     end, or use an array `[T; N]`"
                ),
            );
        } else if let Some(parameter) = unsized_parameter(item, field.ty()) {
            errors.at(
                field.ty(),
                format_args!(
                    "field `{name}`: `{parameter}` has to be `Sized` here: leave `?Sized` out, or \
                     write what the struct ends with as `[{parameter}]` or `str`"
                ),
            );
        }
    }
    if !lifetime_is_explained {
        for parameter in item.original.generics.lifetimes() {
            errors.at(
                &parameter.lifetime,
                "an object outlives the process that wrote it, so nothing in it is borrowed: \
                 leave the lifetime out",
            );
        }
    }
    let tail = fields
        .split_last()
        .filter(|(last, _)| is_tail(last.ty(), &parameters));
    match (repr?, tail) {
        (StructRepr::C, Some((tail, head))) => Some(Kind::Tailed { head, tail }),
        (StructRepr::Transparent, Some((tail, _))) => {
            errors.at(
                tail.ty(),
                format_args!(
                    "field `{}`: a struct that ends with a slice or a `str` needs `#[repr(C)]`",
                    tail.name
                ),
            );
            None
        }
        (repr, None) => Some(Kind::Sized {
            fields,
            transparent: repr == StructRepr::Transparent,
        }),
    }
}

fn check_enum<'a>(
    item: &'a Item<'a>,
    variants: &'a [Variant<'a>],
    errors: &mut Errors,
) -> Option<Kind<'a>> {
    for parameter in &item.original.generics.params {
        let parameter = match parameter {
            GenericParam::Lifetime(it) => it.lifetime.to_token_stream(),
            GenericParam::Type(it) => it.ident.to_token_stream(),
            GenericParam::Const(it) => it.ident.to_token_stream(),
        };
        errors.at(
            parameter,
            "an enum without fields has no use for parameters: leave it out",
        );
    }
    if variants.is_empty() {
        errors.at(
            item.ident(),
            format_args!(
                "`{}` has no variants, so nothing can be stored as one",
                item.ident()
            ),
        );
        // What it lacks besides does not matter.
        return None;
    }
    let repr = item.repr.of_enum(item.ident(), errors);
    for variant in variants {
        if !variant.original.fields.is_empty() {
            errors.push(Error::new_spanned(
                &variant.original.fields,
                format_args!(
                    "variant `{}`: an enum that is stored has no fields, as they would leave \
                     padding: use a struct with the enum beside what belongs to it",
                    variant.name
                ),
            ));
        }
    }
    Some(Kind::Enum {
        repr: repr?,
        variants,
    })
}

/// Whether the type is, or holds in a row, the one that is declared there.
fn is_itself(declared: &Ident, ty: &Type, parameters: &[&Ident]) -> bool {
    match peel(ty) {
        Type::Array(array) => is_itself(declared, &array.elem, parameters),
        Type::Slice(slice) => is_itself(declared, &slice.elem, parameters),
        Type::Path(path) if path.qself.is_none() && path.path.leading_colon.is_none() => {
            let mut segments = path.path.segments.iter();
            match (segments.next(), segments.next()) {
                (Some(only), None) => {
                    let is_declared = only.ident == *declared && !parameters.contains(&declared);
                    is_declared || only.ident == "Self"
                }
                _ => false,
            }
        }
        _ => false,
    }
}

/// Whether it has no fixed size, as is written.
pub(crate) fn is_tail(ty: &Type, parameters: &[&Ident]) -> bool {
    matches!(peel(ty), Type::Slice(_)) || field_type::is_str(ty, parameters)
}

/// The type parameter which the type is, if that may be unsized.
fn unsized_parameter<'a>(item: &'a Item<'_>, ty: &Type) -> Option<&'a Ident> {
    let Type::Path(path) = peel(ty) else {
        return None;
    };
    let generics = &item.original.generics;
    let parameter = generics
        .type_params()
        .find(|it| path.path.is_ident(&it.ident))?;
    let is_maybe =
        |bound: &TypeParamBound| matches!(bound, TypeParamBound::Trait(it) if it.maybe.is_some());
    let in_where = generics.where_clause.iter().flat_map(|it| &it.predicates).any(|predicate| {
        let WherePredicate::Type(predicate) = predicate else {
            return false;
        };
        let is_it = matches!(&predicate.bounded_ty, Type::Path(it) if it.path.is_ident(&parameter.ident));
        is_it && predicate.bounds.iter().any(is_maybe)
    });
    (in_where || parameter.bounds.iter().any(is_maybe)).then_some(&parameter.ident)
}

fn contains_lifetime(ty: &Type) -> bool {
    ty.to_token_stream().to_string().contains('\'')
}
