//! For the project's own fuzz targets, and no part of what this crate promises.

pub use crate::state::world::history;
