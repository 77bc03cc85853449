//! Client of the Plasma shared-memory object store.
//!
//! A process *creates* an object in shared memory, writes it and *seals* it; from then on it never
//! changes, and every process on the machine reads it without a copy. This crate is the client: it
//! speaks the wire protocol of Apache Arrow's Plasma, so it works with the `plasma-store` crate's
//! store and with Arrow's own.
//!
//! ```no_run
//! use plasma_core::{ObjectId, PlasmaClient};
//!
//! let client = PlasmaClient::new("/tmp/plasma", 0)?;
//! let id = ObjectId::rand();
//!
//! let mut object = client.create(id, 1024, b"a kilobyte of ones")?;
//! object.data_mut().fill(1);
//! object.seal()?;
//!
//! // In this process or in any other:
//! let object = client.get(id, -1)?.expect("it is sealed");
//! assert_eq!(object.data(), [1; 1024]);
//! # Ok::<(), plasma_core::PlasmaError>(())
//! ```
//!
//! | room | what is in it |
//! |---|---|
//! | `client`: [`PlasmaClient`] | what users call |
//! | `object`: [`ObjectBuffer`] | one object, being written or being read |
//! | `notify`: [`Notifications`] | what is sealed and deleted, as it happens |
//! | `id`: [`ObjectId`] | the name of an object |
//! | `error`: [`PlasmaError`] | what can go wrong |
//! | `digest`: [`DigestPolicy`] | digests as Arrow's client computes them |
//! | `session` | a client's time with one store, and how it gets to the next |
//! | `connection` | one connection, shared by threads |
//! | `shortcut` | calls that need no socket |
//! | `plane` | memory shared with the store, as a client uses it |
//! | `hand` | what a thread remembers from one get to the next |
//! | `birth` | which process this is, as after a fork it may be another |
//! | `segment` | the store's memory as this process maps it |
//! | `span` | one object's bytes in it |
//! | [`protocol`] | the wire protocol: framing and messages |
//! | [`transport`] | bytes and descriptors over a Unix socket |
//! | [`shm`] | what this client and this project's store say without the socket |
//! | [`spin`] | how long either looks again before it sleeps |
//!
//! `shm` and `spin` are public for this project's store, and no interface to build on.

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

mod birth;
mod client;
mod connection;
mod digest;
mod error;
mod hand;
mod id;
mod notify;
mod object;
mod plane;
pub mod protocol;
mod segment;
mod session;
pub mod shm;
mod shortcut;
mod span;
pub mod spin;
pub mod transport;

pub use client::{ClientBuilder, PlasmaClient};
pub use digest::DigestPolicy;
pub use error::PlasmaError;
pub use id::{ObjectId, ParseObjectIdError};
pub use notify::Notifications;
pub use object::ObjectBuffer;
pub use protocol::message::{Digest, Notification, ObjectInfo};
