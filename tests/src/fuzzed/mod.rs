//! What the fuzz targets do with bytes; the same is done to what they found, as a test.
//!
//! Each driver takes any bytes at all. It panics, hangs or faults if something is wrong with the
//! code it drives, and only then.

mod client;
mod messages;
mod store;

pub use client::client;
pub use messages::{replies, requests};
pub use store::store;
