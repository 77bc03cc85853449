//! What can go wrong between a client and its store.

use std::io;
use std::path::PathBuf;

use crate::protocol::message::MalformedMessage;

/// Why a call to the store failed.
///
/// ```
/// use plasma_core::{PlasmaClient, PlasmaError};
///
/// let error = PlasmaClient::new("/nowhere/plasma.sock", 0).unwrap_err();
/// assert!(matches!(error, PlasmaError::Connect { .. }));
/// assert!(error.to_string().contains("/nowhere/plasma.sock"));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlasmaError {
    /// No connection to a store could be made.
    #[error("no Plasma store at {}: {source}; {}", path.display(), connect_hint(source))]
    Connect {
        /// The socket that was tried.
        path: PathBuf,
        /// What the last attempt met.
        source: io::Error,
    },
    /// Another store has taken the path of this client's, which is still there. This client goes on with
    /// its own, but for what takes one more connection: a get that waits, and a subscription. A new
    /// client comes to the other store.
    #[error(
        "another store has taken the path {}: this client cannot wait or subscribe at its own any \
         more; a new client comes to the other",
        path.display()
    )]
    PathTaken {
        /// The socket of both.
        path: PathBuf,
    },
    /// A socket path that the kernel cannot take.
    #[error(
        "the socket path {} is {len} bytes long, the kernel takes {max_len}: choose a shorter one",
        path.display()
    )]
    SocketPathTooLong {
        /// The path that was given.
        path: PathBuf,
        /// Its length in bytes.
        len: usize,
        /// The longest the kernel takes, in bytes.
        max_len: usize,
    },
    /// The store is gone, or has closed this connection. Objects already held stay readable;
    /// a new connection is needed for anything else, and for anything that was under way. A client
    /// made with [`reconnect`](crate::ClientBuilder::reconnect) makes one at its next call.
    ///
    /// Where connecting itself ends so, the store does not let this client in: its user is not among
    /// those who may connect (`--allow-uid`), or there are as many clients as there may be
    /// (`--max-clients`). The store's log says which, as it says why it has cut a client off.
    #[error(
        "the connection to the Plasma store is lost: connect again (a client made with \
         `reconnect(true)` does so at its next call); if the store has refused this client, or cut \
         it off, its log says why"
    )]
    Disconnected,
    /// The client was made by the process that this one was forked from, and is that one's: this
    /// process connects with a client of its own. One made with
    /// [`reconnect`](crate::ClientBuilder::reconnect) does so at its next call. Buffers that were
    /// held before the fork can be read for as long as the parent holds them. One that was being written
    /// is the parent's to seal: what the child writes to it before that is part of the object, and it
    /// must not write to it after that. The child has the parent's connection until it ends or runs
    /// another program, and until then the store does not learn that the parent has ended.
    #[error(
        "this client belongs to the process that this one was forked from: connect with a new \
         client (one made with `reconnect(true)` does so at its next call)"
    )]
    Forked,
    /// An object with this id is there already, sealed or still being written.
    #[error("an object with this id exists already, sealed or still being written")]
    AlreadyExists,
    /// The store has no such object, or not in the state that the call needs.
    #[error("the store has no such object (or it is not yours to change)")]
    NotFound,
    /// The store could not make room:
    ///
    /// - the object is larger than the whole store, or than its client's
    ///   [quota](crate::ClientBuilder::quota_bytes);
    /// - what clients hold, or are writing, cannot be evicted, and leaves too little;
    /// - nothing is evicted for a client [without eviction](crate::PlasmaClient::without_eviction);
    /// - there are as many objects as there may be (`--max-objects`), of whatever size;
    /// - the machine, or the store's control group, has no memory to put behind the object, whatever
    ///   the store may hold.
    ///
    /// The store's log tells of the last two.
    #[error("{}", out_of_memory(*requested_bytes, *capacity_bytes))]
    OutOfMemory {
        /// Data and metadata that room was asked for, in bytes.
        requested_bytes: u64,
        /// What the whole store holds, in bytes.
        capacity_bytes: u64,
    },
    /// More content than one request can carry.
    #[error(
        "a batch of {len} bytes is too long for one request, which takes {max_len}: send several, \
         or create large objects one by one"
    )]
    BatchTooLong {
        /// What the batch would take, in bytes.
        len: u64,
        /// The most that one request takes, in bytes.
        max_len: u64,
    },
    /// More objects than one request can name.
    #[error("{count} objects are too many for one request, which takes {max_count}: send several")]
    TooManyObjects {
        /// How many the request was to name.
        count: usize,
        /// The most that one request takes.
        max_count: usize,
    },
    /// The store refused the memory quota.
    #[error(
        "the store refused a quota of {quota_bytes} bytes: this client has one already, or less \
         than 30 % of the store's {capacity_bytes} bytes would stay shared"
    )]
    QuotaRefused {
        /// The quota that was asked for, in bytes.
        quota_bytes: i64,
        /// What the whole store holds, in bytes.
        capacity_bytes: u64,
    },
    /// The object is sealed: it never changes any more.
    #[error("the object is sealed already")]
    AlreadySealed,
    /// Only an object that this buffer created and has not sealed can be aborted.
    #[error("the object is sealed, so it cannot be aborted: delete it")]
    NotMutable,
    /// The store's memory could not be mapped into this process.
    #[error("cannot map the store's memory ({len} bytes): {source}")]
    Map {
        /// Length of the mapping in bytes.
        len: usize,
        /// What the kernel said.
        source: io::Error,
    },
    /// The store sent something that is not the protocol. The connection was given up.
    #[error("the store broke the protocol: {reason}")]
    Protocol {
        /// What it sent.
        reason: String,
        /// What was wrong with the message, where it was one.
        source: Option<MalformedMessage>,
    },
    /// The kernel refused something this call needs.
    #[error("{action}: {source}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl PlasmaError {
    /// Whether a new connection may help: the store or the connection is gone, or is another
    /// process's, rather than the request refused.
    pub fn should_reconnect(&self) -> bool {
        matches!(
            self,
            Self::Connect { .. }
                | Self::PathTaken { .. }
                | Self::Disconnected
                | Self::Forked
                | Self::Protocol { .. }
        )
    }

    pub(crate) fn protocol(reason: impl Into<String>) -> Self {
        Self::Protocol {
            reason: reason.into(),
            source: None,
        }
    }
}

impl From<MalformedMessage> for PlasmaError {
    fn from(source: MalformedMessage) -> Self {
        Self::Protocol {
            reason: source.to_string(),
            source: Some(source),
        }
    }
}

fn connect_hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::NotFound => {
            "nothing is there: start one with `plasma-store-server -m BYTES -s SOCKET`"
        }
        io::ErrorKind::ConnectionRefused => {
            "nobody listens on it, a store that was killed left it: start a new one"
        }
        io::ErrorKind::PermissionDenied => {
            "this user may not connect: the store's owner can open it with --mode, --group or \
             --allow-uid"
        }
        _ => "is it the socket of a running store?",
    }
}

fn out_of_memory(requested_bytes: u64, capacity_bytes: u64) -> String {
    if requested_bytes > capacity_bytes {
        format!(
            "an object of {requested_bytes} bytes is larger than the whole store \
             ({capacity_bytes} bytes): start the store with a larger -m"
        )
    } else {
        format!(
            "the store ({capacity_bytes} bytes) could not make room for {requested_bytes} more: \
             what is in use is not evicted (and nothing is, for a client without eviction): release \
             or delete objects, or start it with a larger -m. Where there are as many objects as there \
             may be (--max-objects), or no memory on the machine, the store's log says so"
        )
    }
}
