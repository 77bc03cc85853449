//! The mistakes of a type, all of which are reported at once.

use std::fmt::Display;

use proc_macro2::Span;
use quote::ToTokens;
use syn::Error;

/// Mistakes found so far.
#[derive(Default)]
pub(crate) struct Errors(Option<Error>);

impl Errors {
    /// A mistake, and what is underlined.
    pub(crate) fn at(&mut self, tokens: impl ToTokens, message: impl Display) {
        self.push(Error::new_spanned(tokens, message));
    }

    pub(crate) fn push(&mut self, error: Error) {
        match &mut self.0 {
            Some(errors) => errors.combine(error),
            None => self.0 = Some(error),
        }
    }

    /// What was made of the type, unless there were mistakes.
    pub(crate) fn finish<T>(self, made: Option<T>) -> Result<T, Error> {
        match (self.0, made) {
            (None, Some(made)) => Ok(made),
            (Some(errors), _) => Err(errors),
            (None, None) => Err(Error::new(
                Span::call_site(),
                "this type cannot be an object",
            )),
        }
    }
}
