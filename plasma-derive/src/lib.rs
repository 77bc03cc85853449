//! `#[derive(PlasmaObject)]`, to be used through `plasma-typed`.
//!
//! This version reserves the crate's place: the derive comes with the typed layer.
