//! An attribute that changes what a derive above it has seen.

use proc_macro::{Group, Ident, TokenStream, TokenTree};

/// Turns each `f64` of the item into an `Address`.
#[proc_macro_attribute]
pub fn f64_is_address(_arguments: TokenStream, item: TokenStream) -> TokenStream {
    let changed = item.into_iter().map(|token| match token {
        TokenTree::Group(group) => {
            let inner = f64_is_address(TokenStream::new(), group.stream());
            TokenTree::Group(Group::new(group.delimiter(), inner))
        }
        TokenTree::Ident(ident) if ident.to_string() == "f64" => {
            TokenTree::Ident(Ident::new("Address", ident.span()))
        }
        token => token,
    });
    changed.collect()
}
