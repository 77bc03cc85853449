//! How a store is configured, started and stopped.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::StoreError;
use crate::arena::{Arena, Place};
use crate::external;
use crate::server::{Options, Server, Stop};
use crate::socket::Listener;
use crate::state::Limits;

/// Objects a store keeps at most, beyond those its capacity makes likely: a bound on what objects
/// of no bytes can cost.
const LEAST_MAX_OBJECTS: u64 = 4 << 20;
const BYTES_AN_OBJECT: u64 = 64;

/// The most objects there can be: more would not fit into one answer to a list.
const MOST_MAX_OBJECTS: usize = 16 << 20;

/// The store's own descriptors, and those of one message while they are looked at.
const DESCRIPTORS_BESIDE_CLIENTS: u64 = 512;

/// When memory is put behind the arena.
///
/// Fresh memory costs far more to write than memory that was written before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Prefault {
    /// As objects need it.
    #[default]
    Off,
    /// All of the capacity, little by little while the store already serves.
    Background,
    /// All of the capacity before the store serves. It starts only if the memory is there.
    Full,
}

/// A Plasma store; see [`Store::builder`].
#[derive(Debug)]
pub struct Store(());

impl Store {
    /// How the store is to be. Only the capacity has to be given.
    pub fn builder() -> StoreBuilder {
        StoreBuilder::default()
    }
}

/// How a store is to be; from [`Store::builder`].
///
/// ```
/// use plasma_store::{Prefault, Store};
///
/// let store = Store::builder()
///     .capacity(8 << 20)
///     .prefault(Prefault::Full)
///     .max_clients(16)
///     .spawn()?;
/// println!("a store listens at {}", store.socket().display());
/// store.shutdown()?;
/// # Ok::<(), plasma_store::StoreError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `spawn` or `run`"]
pub struct StoreBuilder {
    capacity: u64,
    socket: Option<PathBuf>,
    directory: Option<PathBuf>,
    huge_pages: bool,
    prefault: Prefault,
    external_store: Option<String>,
    max_clients: usize,
    max_objects: Option<usize>,
    mode: u32,
    group: Option<String>,
    stall_timeout: Duration,
}

impl Default for StoreBuilder {
    fn default() -> Self {
        Self {
            capacity: 0,
            socket: None,
            directory: None,
            huge_pages: false,
            prefault: Prefault::Off,
            external_store: None,
            max_clients: 4096,
            max_objects: None,
            mode: 0o600,
            group: None,
            stall_timeout: Duration::from_secs(30),
        }
    }
}

impl StoreBuilder {
    /// Bytes of data and metadata that the store holds at most.
    #[doc(alias = "memory")]
    pub fn capacity(mut self, bytes: u64) -> Self {
        self.capacity = bytes;
        self
    }

    /// The socket to listen at. Unless told, one in a fresh private temporary directory.
    pub fn socket(mut self, path: impl Into<PathBuf>) -> Self {
        self.socket = Some(path.into());
        self
    }

    /// A directory whose file system gives the memory (as an unnamed file). Unless told, it is
    /// anonymous memory, which clients cannot cut short.
    pub fn directory(mut self, path: impl Into<PathBuf>) -> Self {
        self.directory = Some(path.into());
        self
    }

    /// Whether to use huge pages, of the size that [`directory`](Self::directory), a hugetlbfs
    /// mount, has.
    pub fn huge_pages(mut self, huge_pages: bool) -> Self {
        self.huge_pages = huge_pages;
        self
    }

    /// When to put memory behind the arena.
    pub fn prefault(mut self, prefault: Prefault) -> Self {
        self.prefault = prefault;
        self
    }

    /// Where evicted objects go, as `NAME://…`; there is `hashtable://`. Unless told, they are
    /// dropped.
    pub fn external_store(mut self, endpoint: impl Into<String>) -> Self {
        self.external_store = Some(endpoint.into());
        self
    }

    /// Connections at a time; 4096 unless told. One more is closed at once.
    pub fn max_clients(mut self, clients: usize) -> Self {
        self.max_clients = clients;
        self
    }

    /// Objects at a time, whatever their size, up to 16 million. Unless told, 4 million and one for
    /// every 64 bytes of capacity.
    pub fn max_objects(mut self, objects: usize) -> Self {
        self.max_objects = Some(objects);
        self
    }

    /// The socket's permissions: who may connect. 0600 unless told, which is this user only.
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    /// The socket's group, by name or number; to let it connect, give it permission with
    /// [`mode`](Self::mode).
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.group = Some(group.into());
        self
    }

    /// How long a client may leave what it was sent unread before it is cut off; 30 s unless told.
    pub fn stall_timeout(mut self, timeout: Duration) -> Self {
        self.stall_timeout = timeout;
        self
    }

    /// Runs the store on a thread of this process.
    ///
    /// # Errors
    /// The store cannot start: there is too little memory, the socket is in use, …
    pub fn spawn(self) -> Result<StoreHandle, StoreError> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let stop = EventFd::from_flags(flags).map_err(|error| StoreError::Kernel {
            action: "make an event",
            source: error.into(),
        })?;
        let stop = Arc::new(stop);
        let server = self.start(Stop::Event(Arc::clone(&stop)))?;
        let socket = server.socket_path().to_owned();
        let builder = thread::Builder::new().name("plasma-store".into());
        let thread = builder.spawn(move || server.run());
        let thread = thread.map_err(|source| StoreError::Kernel {
            action: "start the store's thread",
            source,
        })?;
        Ok(StoreHandle {
            socket,
            stop,
            thread: Some(thread),
            process: std::process::id(),
        })
    }

    /// Asks for as many descriptors as the clients may need: two each, for a connection and a
    /// subscription. What cannot be had is told when it is missed.
    fn raise_descriptor_limit(&self) {
        let wanted = self.max_clients as u64 * 2 + DESCRIPTORS_BESIDE_CLIENTS;
        if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
            && soft < wanted
        {
            let _ = setrlimit(Resource::RLIMIT_NOFILE, wanted.min(hard), hard);
        }
    }

    /// Serves on this thread until SIGTERM or SIGINT comes, which are taken over for the whole
    /// process: this is for a program that is a store and nothing else.
    ///
    /// # Errors
    /// The store cannot start (as for [`spawn`](Self::spawn)), or cannot go on.
    pub fn run(self) -> Result<(), StoreError> {
        let cannot = |error: nix::Error| StoreError::Kernel {
            action: "wait for signals",
            source: error.into(),
        };
        self.raise_descriptor_limit();
        let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
        signals.thread_block().map_err(cannot)?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let signals = SignalFd::with_flags(&signals, flags).map_err(cannot)?;
        self.start(Stop::Signals(signals))?.run()
    }

    fn start(self, stop: Stop) -> Result<Server, StoreError> {
        if self.capacity == 0 {
            return Err(StoreError::CapacityZeroOrHuge);
        }
        let external = self.external_store.as_deref().map(external::connect);
        let external = external.transpose()?;
        let place = Place {
            directory: self.directory,
            huge_pages: self.huge_pages,
        };
        let arena = Arena::create(self.capacity, &place)?;
        let likely = LEAST_MAX_OBJECTS.saturating_add(self.capacity / BYTES_AN_OBJECT);
        let likely = usize::try_from(likely).unwrap_or(usize::MAX);
        let limits = Limits {
            capacity: self.capacity,
            arena_len: arena.len(),
            max_objects: self.max_objects.unwrap_or(likely).min(MOST_MAX_OBJECTS),
            external: external.is_some(),
        };
        let options = Options {
            limits,
            prefault: self.prefault,
            max_clients: self.max_clients,
            owner_only: self.mode & 0o077 == 0,
            stall_timeout: self.stall_timeout,
        };
        // The socket comes last: once it is there, the store serves.
        let bind = || Listener::bind(self.socket.as_deref(), self.mode, self.group.as_deref());
        Server::new(options, arena, external, stop, bind)
    }
}

/// A store that runs on a thread of this process. Dropped, it stops.
#[must_use = "the store stops when its handle is dropped"]
pub struct StoreHandle {
    socket: PathBuf,
    stop: Arc<EventFd>,
    thread: Option<JoinHandle<Result<(), StoreError>>>,
    /// The process whose thread it is: a forked child has the handle, but not the store.
    process: u32,
}

impl StoreHandle {
    /// The socket that the store listens at.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Stops the store and removes its socket. Clients find themselves disconnected; what they
    /// hold stays readable.
    ///
    /// # Errors
    /// What made the store stop earlier, if it had.
    pub fn shutdown(mut self) -> Result<(), StoreError> {
        self.stop()
    }

    fn stop(&mut self) -> Result<(), StoreError> {
        let Some(thread) = self.thread.take() else {
            return Ok(());
        };
        if self.process != std::process::id() {
            return Ok(());
        }
        // It only fails where the counter is full, and then the store has been told already.
        let _ = self.stop.write(1);
        thread.join().unwrap_or(Err(StoreError::Panicked))
    }
}

impl Drop for StoreHandle {
    fn drop(&mut self) {
        // Whoever wants to know how the store ended calls `shutdown`.
        let _ = self.stop();
    }
}

impl fmt::Debug for StoreHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreHandle")
            .field("socket", &self.socket)
            .finish_non_exhaustive()
    }
}

impl AsRef<Path> for StoreHandle {
    fn as_ref(&self) -> &Path {
        &self.socket
    }
}
