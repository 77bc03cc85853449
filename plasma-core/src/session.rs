//! A client's time with one store, and how it gets to the next.
//!
//! What a client holds belongs to the session it was got in: a buffer keeps its session, so that
//! what it gives back goes to the store it came from, or to nobody, and never to the next store.

use std::fmt;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};

use crate::birth::Birth;
use crate::client::ClientBuilder;
use crate::connection::Connection;
use crate::object::Hold;
use crate::plane::Plane;
use crate::protocol::message::{ErrorCode, ObjectSpec, Outcome, Reply, Request};
use crate::segment::{Access, Segment};
use crate::shortcut::MAX_CONTENT;
use crate::span::Span;
use crate::{DigestPolicy, ObjectBuffer, ObjectId, PlasmaError, shm};

/// Longest path of a Unix socket, in bytes: `sun_path` less its final zero.
const MAX_SOCKET_PATH_LEN: usize = 107;

/// A store that accepts a connection answers within this, or it is not a store.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);

/// How much later than it should a get that waits may be answered, before this client looks for itself.
const ANSWER_GRACE: Duration = Duration::from_millis(200);

/// A store that ends closes all connections within this.
const CLOSING_TIME: Duration = Duration::from_millis(200);

/// Connections kept for the next get that has to wait.
const IDLE_WAITERS: usize = 4;

/// Objects up to this size are sent through the socket where there is nothing better, in bytes. It
/// copies them four times.
const MAX_SENT: usize = 128 << 10;

/// What clones of a client share.
pub(crate) struct Shared {
    /// The socket of every store this client comes to.
    path: PathBuf,
    /// What the last of them holds at most, in bytes.
    capacity: AtomicU64,
    /// The session that calls are made in. None between two stores: it keeps all of a store's memory,
    /// which the next may need.
    session: ArcSwapOption<Session>,
    /// The same, where it is the only one there will be: found without counting.
    only: Option<Arc<Session>>,
    /// How to begin the next session.
    builder: ArcSwap<ClientBuilder>,
    /// Held by whoever does.
    turn: ArcSwap<Turn>,
}

/// One thread's turn at a time, among those of one process. A forked child has another: whoever had its
/// parent's is not in the child, and would never give it back.
struct Turn {
    birth: Birth,
    taken: Mutex<()>,
}

impl Turn {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            birth: Birth::now(),
            taken: Mutex::default(),
        })
    }
}

/// A connection to one store, from when it was accepted to when the last buffer of it is gone.
pub(crate) struct Session {
    pub(crate) connection: Connection,
    /// The short way to the store, where both sides have one.
    pub(crate) plane: Option<Plane>,
    pub(crate) digest: DigestPolicy,
    path: PathBuf,
    capacity: u64,
    /// Idle connections for gets that wait: a wait may last for ever, so it has one to itself.
    waiters: Mutex<Vec<Connection>>,
    /// Set while the store may not have seen to what an idle one of them has let go of. Changed under
    /// its lock.
    waiters_behind: AtomicBool,
}

impl Shared {
    /// Begins the first session.
    pub(crate) fn connect(builder: ClientBuilder, path: &Path) -> Result<Self, PlasmaError> {
        let path = lasting(path);
        let first = retrying(
            builder.retries,
            builder.retry_interval,
            || match Session::begin(&builder, &path) {
                Err(error @ PlasmaError::Connect { .. }) => Err(Trouble::MayPass(error)),
                other => other.map_err(Trouble::Stays),
            },
        )?;
        let first = Arc::new(first);
        Ok(Self {
            path,
            capacity: AtomicU64::new(first.capacity),
            only: (!builder.reconnect).then(|| Arc::clone(&first)),
            session: ArcSwapOption::new(Some(first)),
            builder: ArcSwap::from_pointee(builder),
            turn: ArcSwap::new(Turn::new()),
        })
    }

    /// Makes a call that does no more if it is made twice.
    #[inline(always)]
    pub(crate) fn repeatable<T>(
        &self,
        call: impl Fn(&Arc<Session>) -> Result<T, PlasmaError>,
    ) -> Result<T, PlasmaError> {
        if let Some(session) = &self.only {
            return call(session);
        }
        self.repeated(&call)
    }

    #[inline(never)]
    fn repeated<T>(
        &self,
        call: &impl Fn(&Arc<Session>) -> Result<T, PlasmaError>,
    ) -> Result<T, PlasmaError> {
        if let Some(session) = &*self.session.load() {
            match call(session) {
                Err(PlasmaError::Disconnected | PlasmaError::Forked) => {}
                result => return result,
            }
        }
        // Not while the last session is kept here: a call may wait for ever.
        call(&self.renewed()?)
    }

    /// Makes a call that may have been carried out where it fails: it is made in a new session only
    /// if the present one is known to have ended before.
    pub(crate) fn once<T>(
        &self,
        call: impl FnOnce(&Arc<Session>) -> Result<T, PlasmaError>,
    ) -> Result<T, PlasmaError> {
        if let Some(session) = &self.only {
            return call(session);
        }
        if let Some(session) = &*self.session.load()
            && !session.has_ended()
        {
            return call(session);
        }
        call(&self.renewed()?)
    }

    /// A session that has not ended.
    fn renewed(&self) -> Result<Arc<Session>, PlasmaError> {
        let start = Instant::now();
        let turn = self.turn();
        let _taken = lock(&turn.taken);
        let builder = self.builder.load_full();
        if let Some(last) = self.session.load_full()
            && !last.has_ended()
        {
            // Another thread has begun it.
            return Ok(last);
        }
        self.session.store(None);
        // Where another thread has tried in vain meanwhile, those were this one's attempts too.
        let interval = builder.retry_interval.as_nanos().max(1);
        let made = start.elapsed().as_nanos() / interval;
        let made = u32::try_from(made).unwrap_or(u32::MAX);
        let retries = builder.retries.saturating_sub(made);
        let next = retrying(retries, builder.retry_interval, || {
            match Session::begin(&builder, &self.path) {
                // A store that is on its way out may still have accepted.
                Err(error @ (PlasmaError::Connect { .. } | PlasmaError::Disconnected)) => {
                    Err(Trouble::MayPass(error))
                }
                other => other.map_err(Trouble::Stays),
            }
        })?;
        let next = Arc::new(next);
        self.capacity.store(next.capacity, Ordering::Relaxed);
        self.session.store(Some(Arc::clone(&next)));
        Ok(next)
    }

    /// This process's turn at beginning a session.
    fn turn(&self) -> Arc<Turn> {
        let last = self.turn.load_full();
        if last.birth == Birth::now() {
            return last;
        }
        let ours = Turn::new();
        let found = self.turn.compare_and_swap(&last, Arc::clone(&ours));
        if Arc::ptr_eq(&found, &last) {
            ours
        } else {
            Arc::clone(&found)
        }
    }

    /// Names the client and asks for a quota, in this session and in those that follow.
    pub(crate) fn set_options(&self, name: &str, quota_bytes: u64) -> Result<(), PlasmaError> {
        let set = self.once(|session| session.set_options(name, quota_bytes));
        if matches!(set, Ok(()) | Err(PlasmaError::QuotaRefused { .. })) {
            self.builder.rcu(|builder| {
                let mut builder = ClientBuilder::clone(builder);
                builder.name = Some(name.to_owned());
                if set.is_ok() && quota_bytes > 0 {
                    builder.quota_bytes = quota_bytes;
                }
                builder
            });
        }
        set
    }

    /// Whether an object of so many bytes is better created and then written than sent.
    pub(crate) fn is_written_in_place(&self, len: usize) -> bool {
        let session = self.session.load();
        let short = session.as_ref().is_some_and(|it| it.plane.is_some());
        len > if short { MAX_CONTENT } else { MAX_SENT }
    }

    /// What the present store holds at most, in bytes.
    pub(crate) fn capacity(&self) -> u64 {
        self.capacity.load(Ordering::Relaxed)
    }
}

/// Why an attempt failed: for a reason that may pass, or for one that stays.
enum Trouble {
    MayPass(PlasmaError),
    Stays(PlasmaError),
}

/// Tries once and `retries` times more.
fn retrying<T>(
    mut retries: u32,
    interval: Duration,
    mut attempt: impl FnMut() -> Result<T, Trouble>,
) -> Result<T, PlasmaError> {
    loop {
        match attempt() {
            Ok(done) => return Ok(done),
            Err(Trouble::MayPass(_)) if retries > 0 => {
                retries -= 1;
                thread::sleep(interval);
            }
            Err(Trouble::MayPass(error) | Trouble::Stays(error)) => return Err(error),
        }
    }
}

/// A path that leads to the same place whatever this process's working directory comes to be, if the
/// kernel takes one as long.
fn lasting(path: &Path) -> PathBuf {
    match std::path::absolute(path) {
        Ok(absolute) if is_socket_path(&absolute) => absolute,
        _ => path.to_owned(),
    }
}

fn is_socket_path(path: &Path) -> bool {
    path.as_os_str().len() <= MAX_SOCKET_PATH_LEN
}

fn connect(path: &Path) -> Result<Connection, PlasmaError> {
    if !is_socket_path(path) {
        return Err(PlasmaError::SocketPathTooLong {
            path: path.to_owned(),
            len: path.as_os_str().len(),
            max_len: MAX_SOCKET_PATH_LEN,
        });
    }
    match UnixStream::connect(path) {
        Ok(socket) => Ok(Connection::new(socket)),
        Err(source) => Err(PlasmaError::Connect {
            path: path.to_owned(),
            source,
        }),
    }
}

impl Session {
    fn begin(builder: &ClientBuilder, path: &Path) -> Result<Self, PlasmaError> {
        let connection = connect(path)?;
        let deadline = Instant::now() + HANDSHAKE_TIMEOUT;
        let capabilities = if builder.shared_memory {
            shm::CAPABILITY
        } else {
            0
        };
        let (capacity, plane) = connection.begin(capabilities, deadline)?;
        let session = Self {
            connection,
            plane,
            digest: builder.digest,
            path: path.to_owned(),
            capacity,
            waiters: Mutex::default(),
            waiters_behind: AtomicBool::new(false),
        };
        if builder.name.is_some() || builder.quota_bytes > 0 {
            let name = builder.name.as_deref().unwrap_or_default();
            session.set_options(name, builder.quota_bytes)?;
        }
        Ok(session)
    }

    fn set_options(&self, name: &str, quota_bytes: u64) -> Result<(), PlasmaError> {
        let quota_bytes = i64::try_from(quota_bytes).unwrap_or(i64::MAX);
        let request = Request::SetOptions {
            client_name: name.into(),
            quota_bytes,
        };
        match self.connection.call(&request)? {
            Reply::SetOptions(Ok(())) => Ok(()),
            Reply::SetOptions(Err(_)) => Err(PlasmaError::QuotaRefused {
                quota_bytes,
                capacity_bytes: self.capacity,
            }),
            _ => Err(self.mismatch()),
        }
    }

    /// Whether so much could ever be in the store.
    pub(crate) fn could_hold(&self, bytes: u64) -> bool {
        bytes <= self.capacity
    }

    /// The store's refusal as this crate tells it.
    pub(crate) fn refusal(&self, code: ErrorCode, requested_bytes: u64) -> PlasmaError {
        match code {
            ErrorCode::ObjectExists => PlasmaError::AlreadyExists,
            ErrorCode::OutOfMemory => PlasmaError::OutOfMemory {
                requested_bytes,
                capacity_bytes: self.capacity,
            },
            ErrorCode::ObjectNotFound | ErrorCode::ObjectNotSealed | ErrorCode::ObjectInUse => {
                PlasmaError::NotFound
            }
        }
    }

    pub(crate) fn accepted(
        &self,
        outcome: Outcome,
        requested_bytes: u64,
    ) -> Result<(), PlasmaError> {
        outcome.map_err(|code| self.refusal(code, requested_bytes))
    }

    /// A reply that answers another question than was asked: the stream cannot be trusted.
    pub(crate) fn mismatch(&self) -> PlasmaError {
        let error = PlasmaError::protocol("a reply to another request");
        self.connection.give_up(error)
    }

    /// Asks through the socket, once the store has seen to all that this client has let go of.
    pub(crate) fn call(&self, request: &Request<'_>) -> Result<Reply<'static>, PlasmaError> {
        self.settle_waits();
        self.connection.call(request)
    }

    /// Whether the store is known, or can be seen, to be gone, or this is another process's session.
    pub(crate) fn has_ended(&self) -> bool {
        let kept = self.plane.as_ref().is_none_or(Plane::is_kept);
        !kept || self.connection.has_ended()
    }

    /// One more connection to the same store.
    pub(crate) fn open(&self) -> Result<Connection, PlasmaError> {
        if !self.connection.is_ours() {
            return Err(PlasmaError::Forked);
        }
        let opened = connect(&self.path);
        if self.has_ended() {
            return Err(PlasmaError::Disconnected);
        }
        let opened = opened?;
        // The path may have been given to another store while this one is there.
        if opened.peer() != self.connection.peer() {
            return Err(PlasmaError::PathTaken {
                path: self.path.clone(),
            });
        }
        Ok(opened)
    }

    /// The control plane's segment, if it has this number.
    #[inline(always)]
    pub(crate) fn segment_of_plane(&self, number: i32) -> Option<&Segment> {
        self.plane.as_ref()?.segment(number)
    }

    /// A buffer of an object that the connection counts one for.
    pub(crate) fn buffer(
        self: &Arc<Self>,
        id: ObjectId,
        spec: &ObjectSpec,
    ) -> Result<ObjectBuffer, PlasmaError> {
        match Span::find(self, spec, Access::Read) {
            Ok(span) => Ok(ObjectBuffer::sealed(id, span, Hold::Counted)),
            Err(error) => {
                self.connection.release(id);
                Err(error)
            }
        }
    }

    /// Waits until objects are sealed, on a connection that is not needed for anything else, and has
    /// them got while that connection holds them.
    pub(crate) fn wait<T>(
        &self,
        ids: &[ObjectId],
        timeout_ms: i64,
        get: impl FnOnce() -> Result<T, PlasmaError>,
    ) -> Result<T, PlasmaError> {
        let idle = self.settled_waiters().pop();
        let waiter = match idle {
            Some(waiter) => waiter,
            None => self.open()?,
        };
        let asleep = Instant::now();
        let deadline = u64::try_from(timeout_ms).ok().and_then(|ms| {
            asleep.checked_add(Duration::from_millis(ms).saturating_add(ANSWER_GRACE))
        });
        let found = match waiter.get_before(ids, timeout_ms, deadline) {
            Ok(found) => found,
            // It has not let this connection in, or has no time for it. If it answers after all, it counts
            // this client until it sees that the connection has ended.
            Err(PlasmaError::Io { source, .. }) if source.kind() == io::ErrorKind::TimedOut => {
                return get();
            }
            Err(error) => return Err(self.explain_loss(error)),
        };
        if let Some(plane) = &self.plane {
            plane.waited(asleep.elapsed());
        }
        let got = get();
        let found = ids.iter().zip(found).filter(|(_, found)| found.is_some());
        let mut found = found.map(|(id, _)| *id).peekable();
        let holds = found.peek().is_some();
        if holds {
            waiter.release_all(found);
        }
        // The next call waits for the store to see to that, and not who has what it waited for.
        let mut idle = lock(&self.waiters);
        if idle.len() < IDLE_WAITERS {
            idle.push(waiter);
            if holds {
                self.waiters_behind.store(true, Ordering::Release);
            }
        } else {
            drop(idle);
            // One that cannot be asked any more has ended, and holds nothing.
            let _ = waiter.hear_out();
        }
        got
    }

    /// What it means that a connection of this client's beside the first has met this.
    pub(crate) fn explain_loss(&self, error: PlasmaError) -> PlasmaError {
        let closed = matches!(error, PlasmaError::Disconnected);
        if !closed || self.has_ended() || self.connection.ends_within(CLOSING_TIME) {
            return error;
        }
        PlasmaError::Io {
            action: "a get that waits, or a subscription, is one more connection, and the store \
                     refuses it: its log says why (it may be --max-clients, or --max-waiting-ids)",
            source: io::ErrorKind::ConnectionRefused.into(),
        }
    }

    /// Whether what is asked now could overtake what a wait has let go of.
    #[inline]
    pub(crate) fn waits_are_behind(&self) -> bool {
        self.waiters_behind.load(Ordering::Acquire)
    }

    /// Waits until the store has seen to what waits have let go of.
    #[inline]
    pub(crate) fn settle_waits(&self) {
        if self.waits_are_behind() && !self.has_ended() {
            drop(self.settled_waiters());
        }
    }

    #[cold]
    fn settled_waiters(&self) -> MutexGuard<'_, Vec<Connection>> {
        let mut idle = lock(&self.waiters);
        if self.waits_are_behind() {
            // One that has ended holds nothing.
            idle.retain(|waiter| waiter.hear_out().is_ok());
            self.waiters_behind.store(false, Ordering::Release);
        }
        idle
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that is changed under these locks can be left half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlasmaClient")
            .field("socket", &self.path)
            .field("capacity", &self.capacity())
            .finish_non_exhaustive()
    }
}
