//! Typed objects over [`plasma_core`].
//!
//! This version reserves the crate's place and leads to the untyped client, which is complete.

#[doc(no_inline)]
pub use plasma_core;
