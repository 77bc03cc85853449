//! What stands beside the messages, so that a type with mistakes counts as an object elsewhere, and
//! one mistake is one message.

use proc_macro2::TokenStream;
use quote::quote;
use syn::Error;

use crate::ast::Item;
use crate::expand;
use crate::valid;

pub(crate) fn impls(item: &Item<'_>, errors: &Error) -> TokenStream {
    let errors = errors.to_compile_error();
    let krate = expand::krate(&item.attrs);
    let ident = item.ident();
    let (impl_generics, type_generics, where_clause) = item.original.generics.split_for_impl();
    let predicates = where_clause.iter().flat_map(|it| &it.predicates);
    // Borrowed types among them: the trait asks for it.
    let bounds = quote!(where Self: 'static, #(#predicates,)*);
    let variable_len = item
        .fields()
        .last()
        .is_some_and(|it| valid::is_tail(it.ty(), &item.parameters()))
        .then(|| {
            quote! {
                #[automatically_derived]
                impl #impl_generics #krate::VariableLen for #ident #type_generics #bounds {}
            }
        });
    quote! {
        #errors
        #[allow(deprecated)]
        const _: () = {
            #[automatically_derived]
            unsafe impl #impl_generics #krate::PlasmaObject for #ident #type_generics #bounds {
                const SCHEMA: &'static #krate::Schema = #krate::__private::NO_SCHEMA;
                const ALL_BITS_VALID: ::core::primitive::bool = true;
                fn check(
                    _bytes: &[::core::primitive::u8],
                ) -> ::core::result::Result<(), #krate::__private::InvalidBytes> {
                    ::core::unreachable!()
                }
                fn from_parts(
                    _start: *const ::core::primitive::u8,
                    _len: ::core::primitive::usize,
                ) -> *const Self {
                    ::core::unreachable!()
                }
                fn tail_len(_value: &Self) -> ::core::primitive::usize {
                    ::core::unreachable!()
                }
            }
            #[automatically_derived]
            unsafe impl #impl_generics #krate::ZeroValid for #ident #type_generics #bounds {}
            #variable_len
        };
    }
}
