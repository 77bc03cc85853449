//! The Plasma object store: objects in shared memory that every process reads without a copy.
//!
//! The store is a program, `plasma-store-server`, with the command line of Arrow's; and this
//! library, which runs one inside a process:
//!
//! ```
//! use plasma_core::{ObjectId, PlasmaClient};
//! use plasma_store::Store;
//!
//! let store = Store::builder().capacity(16 << 20).spawn()?;
//! let client = PlasmaClient::builder().connect(store.socket())?;
//!
//! let id = ObjectId::from_name("greeting");
//! client.create_and_seal(id, b"hello", b"")?;
//! assert_eq!(client.get(id, 0)?.expect("it is sealed").data(), b"hello");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Inside, the rules are a pure state machine that knows no socket, no clock and no mapping; an
//! event loop on one thread carries requests to it and its answers back, and never waits for any
//! one client.
//!
//! # Features
//! On unless left out: `metrics`, metrics over HTTP, for Prometheus; and `program`, what the program
//! needs.

// What a peer sends must never end this process: nothing here panics on what it has not made.
#![deny(
    clippy::expect_used,
    clippy::get_unwrap,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    clippy::todo,
    clippy::unimplemented,
    clippy::unreachable,
    clippy::unwrap_used
)]

mod arena;
mod backer;
mod builder;
mod error;
mod external;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod keeper;
mod limits;
mod memory;
mod metrics;
mod readers;
mod server;
mod sharing;
mod socket;
mod state;

pub use builder::{Prefault, Store, StoreBuilder, StoreHandle};
pub use error::StoreError;
