//! Code that `regenerate.sh` wrote from `plasma.fbs`; not edited by hand.

#[allow(
    missing_docs,
    unsafe_op_in_unsafe_fn,
    unused_imports,
    unused_lifetimes,
    unused_qualifications,
    clippy::all,
    clippy::doc_markdown,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::missing_safety_doc,
    clippy::multiple_unsafe_ops_per_block,
    clippy::semicolon_if_nothing_returned,
    clippy::undocumented_unsafe_blocks,
    clippy::unwrap_used
)]
#[rustfmt::skip]
mod plasma_generated;

pub(super) use plasma_generated::plasma::wire;
