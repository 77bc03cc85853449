//! How a store is configured, started and stopped.

use std::fmt;
#[cfg(feature = "metrics")]
use std::net::SocketAddr;
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
use crate::limits::ClientLimits;
use crate::metrics::Stats;
#[cfg(feature = "metrics")]
use crate::metrics::{Exporter, Renewal};
use crate::server::{Admission, Options, Server, Stop};
use crate::sharing::Sharing;
use crate::socket::Listener;
use crate::state::Limits;

/// The descriptors that a client takes: its connection.
const CLIENT: u64 = 1;

/// Those of a client that shares memory: also what wakes the store, and what wakes the client. The
/// memory itself is mapped, and its descriptors are closed once the client has them.
const SHARING_CLIENT: u64 = 3;

/// The store's own descriptors, and those of messages while they are looked at or sent.
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

/// How long to look for the next request unless told. A client that goes on asking does so within
/// less, and one that does not has cost no more than waking the store once would.
const POLL_TIME: Duration = Duration::from_micros(50);

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
#[derive(Clone, Debug, Default)]
#[must_use = "a builder does nothing until `spawn` or `run`"]
pub struct StoreBuilder {
    capacity: u64,
    socket: Option<PathBuf>,
    directory: Option<PathBuf>,
    huge_pages: bool,
    prefault: Prefault,
    external_store: Option<String>,
    limits: ClientLimits,
    sharing: Sharing,
    poll_time: Option<Duration>,
    mode: Option<u32>,
    group: Option<String>,
    allowed_uids: Vec<u32>,
    #[cfg(feature = "metrics")]
    metrics: Option<SocketAddr>,
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

    /// The socket's permissions: who may connect. 0600 unless told, which is this user only; with
    /// [`group`](Self::group), 0660; with [`allow_uid`](Self::allow_uid), 0666.
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = Some(mode);
        self
    }

    /// The socket's group, by name or number. It may connect, unless [`mode`](Self::mode) says
    /// otherwise.
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.group = Some(group.into());
        self
    }

    /// Lets a user connect, by number; call it again for more.
    ///
    /// From the first call on only these users and the store's own may connect, whatever the
    /// socket's permissions: others, root among them, find their connection closed. Permissions
    /// apply as well; unless [`mode`](Self::mode) is told, the socket's let everyone through. The
    /// user must also be able to reach the socket: one that nobody named lies in a directory that is
    /// this user's alone.
    pub fn allow_uid(mut self, uid: u32) -> Self {
        self.allowed_uids.push(uid);
        self
    }

    /// Connections at a time; 4096 unless told. One more is closed at once. A client is one, and one
    /// more for each of its subscriptions and for each of its threads whose get waits through the
    /// socket; it keeps up to four of the latter for the next such gets.
    ///
    /// A connection takes a descriptor of this process, three where it shares memory, and a
    /// subscription takes one more. [`run`](Self::run) raises the limit on them (`ulimit -n`) as far
    /// as the system lets it; [`spawn`](Self::spawn) leaves it as it is, since the rest of the
    /// program is bound by it too. Where there are none left, who connects waits or shares no memory,
    /// and the log says so.
    pub fn max_clients(mut self, clients: usize) -> Self {
        self.limits.max_clients = clients;
        self
    }

    /// Subscriptions at a time, of all clients; 1024 unless told. The stream of one more is closed
    /// at once: its client finds its notifications at an end.
    pub fn max_subscriptions(mut self, subscriptions: usize) -> Self {
        self.limits.max_subscriptions = subscriptions;
        self
    }

    /// Objects at a time, whatever their size, up to 16 million. Unless told, 4 million and one for
    /// every 64 bytes of capacity. Where there are as many, a hundredth of that is evicted, up to 16,384
    /// objects, the least recently used first; if none can be, the create fails with `OutOfMemory`.
    pub fn max_objects(mut self, objects: usize) -> Self {
        self.limits.max_objects = Some(objects);
        self
    }

    /// Objects that one request may name; 1,048,576 unless told, and no more. A client that names
    /// more is cut off.
    pub fn max_ids(mut self, ids: usize) -> Self {
        self.limits.max_ids = ids;
        self
    }

    /// Longest request, in bytes. Unless told, 128 MiB more than the capacity or than 2 GiB, the
    /// lesser of the two; no more than the latter. A client that announces a longer one is cut off.
    ///
    /// Only content that is sent inside a request makes one long: objects that are created and then
    /// written may have any size.
    pub fn max_request_bytes(mut self, bytes: u64) -> Self {
        self.limits.max_request_bytes = Some(bytes);
        self
    }

    /// Bytes that all clients together may have sent of requests that have not come whole. Unless
    /// told, twice the longest request. A client that goes beyond it is cut off, if more than 1 MiB
    /// is its own.
    pub fn max_unfinished_bytes(mut self, bytes: u64) -> Self {
        self.limits.max_unfinished_bytes = Some(bytes);
        self
    }

    /// Bytes that are kept for one client until it reads them; 256 MiB unless told. A client that
    /// has left more replies unread when there is another for it is cut off. Notifications count
    /// apart from replies, and without those of a subscription's beginning: with more of them
    /// unread the subscription ends.
    pub fn max_unread_bytes(mut self, bytes: usize) -> Self {
        self.limits.max_unread_bytes = bytes;
        self
    }

    /// Objects that the waiting gets of one client may name together; 4,194,304 unless told. Each
    /// get that waits counts for 64 more. A client that goes beyond it is cut off.
    pub fn max_waiting_ids(mut self, ids: usize) -> Self {
        self.limits.max_waiting_ids = ids;
        self
    }

    /// How long a client may leave what it was sent unread before it is cut off; 30 s unless told.
    pub fn stall_timeout(mut self, timeout: Duration) -> Self {
        self.limits.stall_timeout = timeout;
        self
    }

    /// Whether clients of this project are offered memory to read and write small objects through
    /// without a system call; on unless told. Off, everybody uses the socket, as Arrow's clients
    /// always do.
    ///
    /// Sealed objects are then listed in an index that clients read, which takes 64 bytes for each
    /// of up to four times as many objects as there are (128 KiB at least), and each client has pages
    /// of its own: 12 KiB when it only reads (24 KiB where many of its threads do), and up to 16 bytes
    /// for each object that it holds; up to some 300 KiB once it writes small objects.
    ///
    /// It takes Linux 5.1. On an older kernel the store uses the socket, and its log says so once.
    pub fn shared_memory(mut self, shared_memory: bool) -> Self {
        self.sharing.enabled = shared_memory;
        self
    }

    /// Objects that one client can hold through [`shared_memory`](Self::shared_memory); 8192 unless
    /// told, and 1,048,576 at most: more counts as that. 0 is the same as none of it. What a client
    /// holds beyond that goes through the socket.
    ///
    /// The store looks at what all clients hold when it deletes or evicts, so this bounds what a
    /// client can make that cost.
    pub fn max_pins(mut self, pins: u32) -> Self {
        self.sharing.pins = pins;
        self
    }

    /// Small requests that one client can have under way in shared memory, rounded up to a power of
    /// two; 256 unless told, and 65,536 at most: more counts as that. 0 has them go through the
    /// socket.
    pub fn ring_requests(mut self, requests: u32) -> Self {
        self.sharing.requests = requests;
        self
    }

    /// Bytes of content that one client can have under way in shared memory, rounded up to a multiple
    /// of 64; 256 KiB unless told, and 1 GiB at most: more counts as that. Only objects of up to
    /// 16 KiB, and no more than this, have their content sent that way: with 0 it goes through the
    /// socket, and larger objects are created, written and sealed as ever.
    pub fn ring_bytes(mut self, bytes: u32) -> Self {
        self.sharing.content_bytes = bytes;
        self
    }

    /// How long the store goes on looking for requests after the last, before it sleeps and has to be
    /// woken; 50 µs unless told, and not at all where there is but one processor. It looks less long
    /// where requests have not come that soon lately, and less often where others want the processor.
    /// A store that nobody asks for anything uses no processor time either way.
    pub fn poll_time(mut self, time: Duration) -> Self {
        self.poll_time = Some(time);
        self
    }

    /// Serves metrics over HTTP at this address, under `/metrics`, in the format of Prometheus
    /// (`OpenMetrics`), from a thread of their own. Port 0 is any that is free:
    /// [`StoreHandle::metrics_address`] tells which. Unless told, there are none.
    ///
    /// Whoever can reach the address can read them: counts, sizes and times, nothing of an object.
    #[cfg(feature = "metrics")]
    pub fn metrics(mut self, address: impl Into<SocketAddr>) -> Self {
        self.metrics = Some(address.into());
        self
    }

    /// Runs the store on a thread of this process. It serves once this returns.
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
        let service = self.start(Stop::Event(Arc::clone(&stop)))?;
        let socket = service.server.socket_path().to_owned();
        #[cfg(feature = "metrics")]
        let metrics_address = service.exporter.as_ref().map(Exporter::address);
        let builder = thread::Builder::new().name("plasma-store".into());
        let thread = builder.spawn(move || service.run());
        let thread = thread.map_err(|source| StoreError::Kernel {
            action: "start the store's thread",
            source,
        })?;
        Ok(StoreHandle {
            socket,
            #[cfg(feature = "metrics")]
            metrics_address,
            stop,
            thread: Some(thread),
            process: std::process::id(),
        })
    }

    /// Asks for as many descriptors as the clients may need. What cannot be had is told when it is
    /// missed.
    fn raise_descriptor_limit(&self) {
        let clients = self.limits.max_clients as u64;
        let subscriptions = clients.min(self.limits.max_subscriptions as u64);
        let shared = self.sharing.shape().is_some();
        let wanted = clients
            .saturating_mul(if shared { SHARING_CLIENT } else { CLIENT })
            .saturating_add(subscriptions)
            .saturating_add(DESCRIPTORS_BESIDE_CLIENTS);
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

    fn start(self, stop: Stop) -> Result<Service, StoreError> {
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
        let limits = Limits {
            capacity: self.capacity,
            arena_len: arena.len(),
            max_objects: self.limits.objects(self.capacity),
            max_waiting_ids: self.limits.max_waiting_ids,
            external: external.is_some(),
        };
        let listed = !self.allowed_uids.is_empty();
        let mode = self.mode.unwrap_or(match &self.group {
            _ if listed => 0o666,
            Some(_) => 0o660,
            None => 0o600,
        });
        let options = Options {
            limits,
            clients: self.limits,
            admission: if listed {
                Admission::Listed(self.allowed_uids)
            } else if mode & 0o077 == 0 {
                Admission::Owner
            } else {
                Admission::Everyone
            },
            prefault: self.prefault,
            shared: self.sharing.shape(),
            poll_time: self.poll_time.unwrap_or(POLL_TIME),
        };
        #[cfg(feature = "metrics")]
        let watched = self.metrics.is_some();
        #[cfg(not(feature = "metrics"))]
        let watched = false;
        #[cfg_attr(not(feature = "metrics"), expect(unused_mut))]
        let mut stats = Stats::new(watched);
        #[cfg(feature = "metrics")]
        if watched {
            let renewal = Renewal::new().map_err(|source| StoreError::Kernel {
                action: "make an event",
                source,
            })?;
            stats.renewal = Some(renewal);
        }
        let stats = Arc::new(stats);
        #[cfg(feature = "metrics")]
        let exporter = match self.metrics {
            Some(address) => Some(Exporter::start(address, Arc::clone(&stats))?),
            None => None,
        };
        // The socket comes last: once it is there, the store serves.
        let bind = || Listener::bind(self.socket.as_deref(), mode, self.group.as_deref());
        Ok(Service {
            server: Server::new(options, arena, external, stats, stop, bind)?,
            #[cfg(feature = "metrics")]
            exporter,
        })
    }
}

/// A store, and what goes with it.
struct Service {
    server: Server,
    #[cfg(feature = "metrics")]
    exporter: Option<Exporter>,
}

impl Service {
    /// Serves until the store is told to stop; then everything stops.
    fn run(self) -> Result<(), StoreError> {
        self.server.run()
    }
}

/// A store that runs on a thread of this process. Dropped, it stops.
#[must_use = "the store stops when its handle is dropped"]
pub struct StoreHandle {
    socket: PathBuf,
    #[cfg(feature = "metrics")]
    metrics_address: Option<SocketAddr>,
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

    /// Where metrics are served, if they are: see [`StoreBuilder::metrics`].
    #[cfg(feature = "metrics")]
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics_address
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
