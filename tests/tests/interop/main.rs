//! Together with Arrow's own programs: every client with every store.
//!
//! One set of scenarios runs for {this project's client, Arrow's Python client, Arrow's C++ client}
//! with {this project's store, Arrow's store}. Where Arrow's store has a fault, or Arrow's Python
//! client lacks a call, the scenario says so: nothing is left out silently.
//!
//! Only the pair of ours and ours needs nothing installed and always runs. For the others
//! `tests/interop/peers.sh` is to be run before, and `--include-ignored` to be given.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod arrow;
mod differential;
mod faults;
mod peer;
mod scenarios;
mod suite;
mod typed;

use std::path::PathBuf;
use std::time::Duration;

use plasma_core::ObjectId;
use tests::StoreProcess;

use peer::{Foreign, Ours, Peer};

/// How long a test may take.
const LIMIT: Duration = Duration::from_secs(120);

/// Whose store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StoreKind {
    Ours,
    Arrows,
}

/// Whose client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ClientKind {
    Ours,
    Python,
    Cpp,
}

/// Who meets whom in a test.
#[derive(Clone, Copy, Debug)]
struct Pair {
    client: ClientKind,
    store: StoreKind,
}

impl Pair {
    /// A store with room for ten million bytes, and nobody connected to it.
    fn start(self) -> Meeting {
        self.start_with(&[])
    }

    /// The same with further arguments for the store.
    fn start_with(self, args: &[&str]) -> Meeting {
        Meeting {
            pair: self,
            store: StoreProcess::start_program(&self.store.program(), CAPACITY, args),
        }
    }
}

impl StoreKind {
    fn program(self) -> PathBuf {
        match self {
            Self::Ours => tests::server_program().to_owned(),
            Self::Arrows => arrow::store_program(),
        }
    }
}

/// Bytes that the stores of the scenarios hold.
const CAPACITY: u64 = 10_000_000;

/// A store, and the kind of client to meet it.
struct Meeting {
    pair: Pair,
    store: StoreProcess,
}

impl Meeting {
    /// A new client of the kind that is tested.
    fn client(&self) -> Box<dyn Peer> {
        self.client_of(self.pair.client)
    }

    /// A new client of some kind.
    fn client_of(&self, kind: ClientKind) -> Box<dyn Peer> {
        match kind {
            ClientKind::Ours => Box::new(self.watcher()),
            ClientKind::Python => Box::new(Foreign::python(self.store.socket())),
            ClientKind::Cpp => Box::new(Foreign::cpp(self.store.socket())),
        }
    }

    /// This project's client, to see what the store looks like from outside.
    fn watcher(&self) -> Ours {
        Ours::connect(self.store.socket())
    }

    fn client_kind(&self) -> ClientKind {
        self.pair.client
    }

    /// Whether this is the pair of ours and ours.
    fn needs_nothing_installed(&self) -> bool {
        self.pair.client == ClientKind::Ours && self.pair.store == StoreKind::Ours
    }

    /// Whether the store is Arrow's, in which case it has the fault that `_what` describes.
    fn has_arrows_fault(&self, _what: &str) -> bool {
        self.pair.store == StoreKind::Arrows
    }
}

/// A different id for each name.
fn id(name: impl std::fmt::Display) -> ObjectId {
    ObjectId::from_name(&name.to_string())
}
