//! The shared control plane: what a client of this project and a store of this project say to each
//! other without a system call.
//!
//! The socket is complete on its own; this is agreed on when a client connects
//! ([`CAPABILITY`]), and whatever is unusual is left to the socket. The store makes all the memory,
//! and every word of it has one writer:
//!
//! | memory | written by | read by |
//! |---|---|---|
//! | [`index`]: what is sealed, and where it lies | the store | every client |
//! | the client's page: its [`pins`], its requests ([`ring`]) with their content, what it used | that client | the store |
//! | the store's page: answers | the store | that client |
//!
//! There is no lock in it and no counter that two processes change, so there is nothing to mend when
//! a client dies: the store drops the client's page, and with it everything that it held. That it has
//! died, the store learns from the end of its socket. Every number that a peer wrote is checked
//! before it is used, and read once.
//!
//! This is no interface to build on: it is the same version on both sides, or it is not used.

pub mod bell;
pub mod crash;
mod id_words;
pub mod index;
pub mod memory;
#[cfg(all(plasma_loom, test))]
mod models;
pub mod page;
pub mod pins;
pub mod ring;
mod sync;
mod twins;

pub use sync::{AtomicU64 as Word, Ordering, fence};

/// The bit in a connect request's `capabilities`, and in its reply's `features`, that stands for all
/// of this. Another layout of any part is another bit.
pub const CAPABILITY: u64 = 1;

/// What a store offers a client, as its connect reply tells. The descriptors follow: the index, the
/// client's page, the store's page, what wakes the store, and what wakes the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Bytes of the index.
    pub index_len: u64,
    /// How the client's pages are laid out.
    pub shape: page::Shape,
}

impl Offer {
    /// Descriptors that belong to an offer.
    pub const DESCRIPTORS: usize = 5;
}
