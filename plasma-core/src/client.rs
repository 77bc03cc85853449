//! What users call.

use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::connection::{Connection, Located};
use crate::protocol::message::{
    ErrorCode, MAX_IDS, NewObject, ObjectInfo, Outcome, Reply, Request,
};
use crate::segment::{Access, Span};
use crate::{DigestPolicy, Notifications, ObjectBuffer, ObjectId, PlasmaError};

/// Longest path of a Unix socket, in bytes: `sun_path` less its final zero.
const MAX_SOCKET_PATH_LEN: usize = 107;

/// A store that accepts a connection answers within this, or it is not a store.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);

/// Connections kept for the next get that has to wait.
const IDLE_WAITERS: usize = 4;

/// Objects from this size on are created in place and written there, rather than sent through
/// the socket, which copies them four times.
const INLINE_LIMIT: usize = 128 << 10;

/// Longest batch, in bytes: a flatbuffer has at most 2 GiB, and some of that is its frame.
const MAX_BATCH_LEN: u64 = i32::MAX as u64 - 1024;

/// What an object in a batch takes beside its content, in bytes, at most: its id, its digest, and
/// the lengths, places and padding of four strings.
const BATCH_OBJECT_OVERHEAD: usize = 128;

/// A connection to a store.
///
/// - Clones share one connection; threads may use it at the same time, and one that waits in
///   [`get`](Self::get) keeps no other from being served.
/// - The store takes back what this client holds when the last clone and the last buffer are gone.
/// - Once the store is gone, calls return [`PlasmaError::Disconnected`]; buffers that are held stay
///   readable.
#[derive(Clone)]
pub struct PlasmaClient {
    shared: Arc<Shared>,
    /// Whether what it creates may evict other objects.
    evict_if_full: bool,
}

/// What clones of a client and its buffers share.
pub(crate) struct Shared {
    pub(crate) connection: Arc<Connection>,
    pub(crate) digest: DigestPolicy,
    path: PathBuf,
    capacity: u64,
    /// Idle connections for gets that wait: a wait may last for ever, so it has one to itself.
    waiters: Mutex<Vec<Arc<Connection>>>,
}

/// How to connect; from [`PlasmaClient::builder`].
///
/// ```no_run
/// use std::time::Duration;
/// use plasma_core::PlasmaClient;
///
/// let client = PlasmaClient::builder()
///     .retries(100)
///     .retry_interval(Duration::from_millis(20))
///     .name("recorder")
///     .quota_bytes(64 << 20)
///     .connect("/tmp/plasma")?;
/// # Ok::<(), plasma_core::PlasmaError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `connect`"]
pub struct ClientBuilder {
    retries: u32,
    retry_interval: Duration,
    name: Option<String>,
    quota_bytes: u64,
    digest: DigestPolicy,
}

impl Default for ClientBuilder {
    fn default() -> Self {
        Self {
            retries: 50,
            retry_interval: Duration::from_millis(100),
            name: None,
            quota_bytes: 0,
            digest: DigestPolicy::Off,
        }
    }
}

impl ClientBuilder {
    /// How often to try again where no store listens yet; 50 unless told, 0 is a single attempt.
    pub fn retries(mut self, retries: u32) -> Self {
        self.retries = retries;
        self
    }

    /// How long to wait before trying again; 100 ms unless told.
    pub fn retry_interval(mut self, interval: Duration) -> Self {
        self.retry_interval = interval;
        self
    }

    /// A name for this client in the store's debug string.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Memory in bytes to set apart for objects that this client creates; 0, the default, is none.
    /// See [`PlasmaClient::set_options`].
    pub fn quota_bytes(mut self, quota_bytes: u64) -> Self {
        self.quota_bytes = quota_bytes;
        self
    }

    /// Whether sealing computes a digest; off unless told.
    pub fn digest(mut self, digest: DigestPolicy) -> Self {
        self.digest = digest;
        self
    }

    /// Connects to the store that listens at `socket`.
    ///
    /// # Errors
    /// No store is there (after all retries), the path is too long, or the store refused the
    /// quota.
    pub fn connect(self, socket: impl AsRef<Path>) -> Result<PlasmaClient, PlasmaError> {
        let path = socket.as_ref().to_owned();
        let connection = self.open(&path)?;
        let deadline = Instant::now() + HANDSHAKE_TIMEOUT;
        let capacity = match connection.call_before(&Request::Connect, Some(deadline))? {
            Reply::Connect { memory_capacity } => u64::try_from(memory_capacity).unwrap_or(0),
            _ => return Err(PlasmaError::protocol("another reply than a connect's")),
        };
        let client = PlasmaClient {
            shared: Arc::new(Shared {
                connection: Arc::new(connection),
                digest: self.digest,
                path,
                capacity,
                waiters: Mutex::default(),
            }),
            evict_if_full: true,
        };
        if self.name.is_some() || self.quota_bytes > 0 {
            client.set_options(self.name.as_deref().unwrap_or_default(), self.quota_bytes)?;
        }
        Ok(client)
    }

    fn open(&self, path: &Path) -> Result<Connection, PlasmaError> {
        let len = path.as_os_str().as_bytes().len();
        if len > MAX_SOCKET_PATH_LEN {
            return Err(PlasmaError::SocketPathTooLong {
                path: path.to_owned(),
                len,
                max_len: MAX_SOCKET_PATH_LEN,
            });
        }
        let mut retries_left = self.retries;
        loop {
            match UnixStream::connect(path) {
                Ok(socket) => return Ok(Connection::new(socket)),
                Err(_) if retries_left > 0 => {
                    retries_left -= 1;
                    thread::sleep(self.retry_interval);
                }
                Err(source) => {
                    return Err(PlasmaError::Connect {
                        path: path.to_owned(),
                        source,
                    });
                }
            }
        }
    }
}

impl Shared {
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

    fn accepted(&self, outcome: Outcome, requested_bytes: u64) -> Result<(), PlasmaError> {
        outcome.map_err(|code| self.refusal(code, requested_bytes))
    }

    /// A reply that answers another question than was asked: the stream cannot be trusted.
    fn mismatch(&self) -> PlasmaError {
        let error = PlasmaError::protocol("a reply to another request");
        self.connection.give_up(error)
    }

    /// One more connection to the same store.
    fn open(&self) -> Result<Arc<Connection>, PlasmaError> {
        let opened = ClientBuilder::default().retries(0).open(&self.path);
        // In this order: while the first connection lasts, no other store has taken the path.
        if self.connection.has_ended() {
            return Err(PlasmaError::Disconnected);
        }
        opened.map(Arc::new)
    }

    fn buffer(
        self: &Arc<Self>,
        id: ObjectId,
        located: &Located,
    ) -> Result<ObjectBuffer, PlasmaError> {
        let (segment, spec) = located;
        match Span::new(segment, spec, Access::Read) {
            Ok(span) => Ok(ObjectBuffer::sealed(self, id, span)),
            Err(error) => {
                self.connection.release(id);
                Err(self.connection.judge(error))
            }
        }
    }

    /// Waits until objects are sealed, on a connection that is not needed for anything else, and
    /// gets them on the shared one while that connection holds them.
    fn wait(
        self: &Arc<Self>,
        ids: &[ObjectId],
        timeout_ms: i64,
    ) -> Result<Vec<Option<Located>>, PlasmaError> {
        let idle = self.waiters().pop();
        let waiter = match idle {
            Some(waiter) => waiter,
            None => self.open()?,
        };
        let found = waiter.get(ids, timeout_ms)?;
        let located = self.connection.get(ids, 0);
        for (id, _) in ids.iter().zip(found).filter(|(_, found)| found.is_some()) {
            waiter.release(*id);
        }
        let mut idle = self.waiters();
        if idle.len() < IDLE_WAITERS {
            idle.push(waiter);
        }
        located
    }

    fn waiters(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Connection>>> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PlasmaClient {
    /// Connects to the store that listens at `store_socket_name`, trying `num_retries` times more
    /// where none listens yet (100 ms apart).
    ///
    /// # Errors
    /// No store is there, or the path is too long.
    #[doc(alias = "connect")]
    pub fn new(store_socket_name: &str, num_retries: u32) -> Result<Self, PlasmaError> {
        Self::builder()
            .retries(num_retries)
            .connect(store_socket_name)
    }

    /// How to connect, in detail.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// The same client over the same connection, but what it creates evicts nothing: where the
    /// store is full, creating is [`PlasmaError::OutOfMemory`].
    ///
    /// ```no_run
    /// # use plasma_core::{ObjectId, PlasmaClient};
    /// # let client = PlasmaClient::new("/tmp/plasma", 0)?;
    /// // Worth keeping only where there is room for it.
    /// let kept = client.without_eviction().create_and_seal(ObjectId::rand(), b"a hint", b"");
    /// # Ok::<(), plasma_core::PlasmaError>(())
    /// ```
    #[doc(alias = "evict_if_full")]
    pub fn without_eviction(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            evict_if_full: false,
        }
    }

    /// Creates an object of `data_size` bytes with the metadata `meta`, to be written in place and
    /// sealed. The store evicts what nobody holds where it must to make room.
    ///
    /// # Errors
    /// [`PlasmaError::AlreadyExists`], [`PlasmaError::OutOfMemory`], or the connection failed.
    pub fn create(
        &self,
        oid: ObjectId,
        data_size: usize,
        meta: &[u8],
    ) -> Result<ObjectBuffer, PlasmaError> {
        let Shared { connection, .. } = &*self.shared;
        let (data_size, meta_size) = (data_size as u64, meta.len() as u64);
        let located = connection.create(oid, data_size, meta_size, self.evict_if_full)?;
        let (segment, spec) = located.map_err(|code| {
            let requested_bytes = data_size.saturating_add(meta_size);
            self.shared.refusal(code, requested_bytes)
        })?;
        match Span::new(&segment, &spec, Access::Write) {
            Ok(mut span) => {
                if let Some(space) = span.meta_mut() {
                    space.copy_from_slice(meta);
                }
                Ok(ObjectBuffer::writing(&self.shared, oid, span))
            }
            Err(error) => {
                connection.abandon(oid);
                Err(connection.judge(error))
            }
        }
    }

    /// Creates an object with this content and seals it.
    ///
    /// # Errors
    /// [`PlasmaError::AlreadyExists`], [`PlasmaError::OutOfMemory`], or the connection failed.
    pub fn create_and_seal(
        &self,
        oid: ObjectId,
        data: &[u8],
        meta: &[u8],
    ) -> Result<(), PlasmaError> {
        if data.len().saturating_add(meta.len()) >= INLINE_LIMIT {
            let mut object = self.create(oid, data.len(), meta)?;
            object.data_mut().copy_from_slice(data);
            return object.seal();
        }
        let object = self.new_object(oid, data, meta);
        let request = Request::CreateAndSeal {
            object,
            evict_if_full: self.evict_if_full,
        };
        match self.shared.connection.call(&request)? {
            Reply::CreateAndSeal(outcome) => self.shared.accepted(outcome, object_size(&object)),
            _ => Err(self.shared.mismatch()),
        }
    }

    /// Creates and seals many objects in one request: all of them, or none where one is refused.
    /// They travel through the socket, so this is for small objects.
    ///
    /// ```no_run
    /// # use plasma_core::{ObjectId, PlasmaClient};
    /// # let client = PlasmaClient::new("/tmp/plasma", 0)?;
    /// let ids = [ObjectId::rand(), ObjectId::rand()];
    /// client.create_and_seal_batch(&[(ids[0], b"one", b""), (ids[1], b"two", b"")])?;
    /// # Ok::<(), plasma_core::PlasmaError>(())
    /// ```
    ///
    /// # Errors
    /// The first object's error: [`PlasmaError::AlreadyExists`] or [`PlasmaError::OutOfMemory`];
    /// [`PlasmaError::BatchTooLong`], [`PlasmaError::TooManyObjects`]; or the connection failed.
    pub fn create_and_seal_batch(
        &self,
        objects: &[(ObjectId, &[u8], &[u8])],
    ) -> Result<(), PlasmaError> {
        nameable(objects.len())?;
        let objects: Vec<_> = objects
            .iter()
            .map(|(id, data, meta)| self.new_object(*id, data, meta))
            .collect();
        let requested_bytes = objects.iter().map(object_size).fold(0, u64::saturating_add);
        if requested_bytes > self.shared.capacity {
            // Its store would not read so long a request, and end the connection.
            return Err(self.shared.refusal(ErrorCode::OutOfMemory, requested_bytes));
        }
        let overhead = objects.len().saturating_mul(BATCH_OBJECT_OVERHEAD) as u64;
        let len = requested_bytes.saturating_add(overhead);
        if len > MAX_BATCH_LEN {
            return Err(PlasmaError::BatchTooLong {
                len,
                max_len: MAX_BATCH_LEN,
            });
        }
        let request = Request::CreateAndSealBatch {
            objects: objects.into(),
            evict_if_full: self.evict_if_full,
        };
        match self.shared.connection.call(&request)? {
            Reply::CreateAndSealBatch(outcome) => self.shared.accepted(outcome, requested_bytes),
            _ => Err(self.shared.mismatch()),
        }
    }

    fn new_object<'a>(&self, id: ObjectId, data: &'a [u8], metadata: &'a [u8]) -> NewObject<'a> {
        NewObject {
            id,
            data,
            metadata,
            digest: self.shared.digest.apply(data, metadata),
        }
    }

    /// Gets a sealed object, waiting up to `timeout_ms` for it: -1 waits for ever, 0 not at all.
    /// `None` if it was not sealed in time.
    ///
    /// # Errors
    /// The connection failed.
    pub fn get(&self, oid: ObjectId, timeout_ms: i64) -> Result<Option<ObjectBuffer>, PlasmaError> {
        let found = self.get_many(&[oid], timeout_ms)?;
        Ok(found.into_iter().next().flatten())
    }

    /// Gets sealed objects in one request, waiting up to `timeout_ms` for all of them (-1 for ever,
    /// 0 not at all). One entry for each id, in their order; `None` for what was not sealed in
    /// time. An id may occur more than once.
    ///
    /// # Errors
    /// [`PlasmaError::TooManyObjects`], or the connection failed.
    pub fn get_many(
        &self,
        object_ids: &[ObjectId],
        timeout_ms: i64,
    ) -> Result<Vec<Option<ObjectBuffer>>, PlasmaError> {
        nameable(object_ids.len())?;
        let start = Instant::now();
        let mut buffers = self.buffers(object_ids, |ids| self.shared.connection.get(ids, 0))?;
        if timeout_ms == 0 || buffers.iter().all(Option::is_some) {
            return Ok(buffers);
        }
        let missing: Vec<ObjectId> = object_ids
            .iter()
            .zip(&buffers)
            .filter_map(|(id, buffer)| buffer.is_none().then_some(*id))
            .collect();
        let timeout_ms = match u64::try_from(timeout_ms) {
            Err(_) => -1,
            // At least 1, as 0 would not wait, and rounded up as elsewhere.
            Ok(ms) => Duration::from_millis(ms)
                .saturating_sub(start.elapsed())
                .as_nanos()
                .div_ceil(1_000_000)
                .clamp(1, i64::MAX as u128) as i64,
        };
        let found = self.buffers(&missing, |ids| self.shared.wait(ids, timeout_ms))?;
        let places = buffers.iter_mut().filter(|buffer| buffer.is_none());
        for (place, buffer) in places.zip(found) {
            *place = buffer;
        }
        Ok(buffers)
    }

    fn buffers(
        &self,
        ids: &[ObjectId],
        get: impl FnOnce(&[ObjectId]) -> Result<Vec<Option<Located>>, PlasmaError>,
    ) -> Result<Vec<Option<ObjectBuffer>>, PlasmaError> {
        let located = get(ids)?;
        // Every object found becomes a buffer, or is released, before an error is told.
        let buffers: Vec<_> = ids
            .iter()
            .zip(&located)
            .map(|(id, located)| {
                let located = located.as_ref();
                located
                    .map(|located| self.shared.buffer(*id, located))
                    .transpose()
            })
            .collect();
        buffers.into_iter().collect()
    }

    /// Whether an object is in the store and sealed.
    ///
    /// # Errors
    /// The connection failed.
    pub fn contains(&self, oid: &ObjectId) -> Result<bool, PlasmaError> {
        match self.shared.connection.call(&Request::Contains(*oid))? {
            Reply::Contains { id, has_object } if id == *oid => Ok(has_object),
            _ => Err(self.shared.mismatch()),
        }
    }

    /// Those of the objects that are in the store and sealed, in their order; asked in one go.
    ///
    /// # Errors
    /// The connection failed.
    pub fn contains_many(&self, object_ids: &[ObjectId]) -> Result<Vec<ObjectId>, PlasmaError> {
        let mut found = Vec::new();
        let mut requests = object_ids.iter().copied().map(Request::Contains);
        let mut asked = object_ids.iter();
        self.shared
            .connection
            .call_all(&mut requests, |reply| match reply {
                Reply::Contains { id, has_object } if Some(&id) == asked.next() => {
                    found.extend(has_object.then_some(id));
                    Ok(())
                }
                _ => Err(self.shared.mismatch()),
            })?;
        Ok(found)
    }

    /// Deletes an object; one that is held, or not sealed yet, goes as soon as that ends. No error
    /// if there is none.
    ///
    /// # Errors
    /// The connection failed.
    pub fn delete(&self, oid: &ObjectId) -> Result<(), PlasmaError> {
        self.delete_many(std::slice::from_ref(oid))
    }

    /// Deletes objects in one request; see [`delete`](Self::delete).
    ///
    /// # Errors
    /// [`PlasmaError::TooManyObjects`], or the connection failed.
    pub fn delete_many(&self, object_ids: &[ObjectId]) -> Result<(), PlasmaError> {
        nameable(object_ids.len())?;
        let request = Request::Delete(object_ids.into());
        match self.shared.connection.call(&request)? {
            Reply::Delete(_) => Ok(()),
            _ => Err(self.shared.mismatch()),
        }
    }

    /// Every object in the store, sealed or not.
    ///
    /// # Errors
    /// The connection failed.
    pub fn list(&self) -> Result<Vec<ObjectInfo>, PlasmaError> {
        match self.shared.connection.call(&Request::List)? {
            Reply::List(infos) => Ok(infos),
            _ => Err(self.shared.mismatch()),
        }
    }

    /// Evicts what nobody holds, least recently used first, until `num_bytes` are free or nothing
    /// is left to evict; the bytes freed.
    ///
    /// # Errors
    /// The connection failed.
    pub fn evict(&self, num_bytes: u64) -> Result<u64, PlasmaError> {
        match self.shared.connection.call(&Request::Evict { num_bytes })? {
            Reply::Evict { num_bytes } => Ok(num_bytes),
            _ => Err(self.shared.mismatch()),
        }
    }

    /// Makes objects the most recently used, so that they are evicted last. Unknown ids are
    /// ignored.
    ///
    /// # Errors
    /// The connection failed.
    pub fn refresh(&self, object_ids: &[ObjectId]) -> Result<(), PlasmaError> {
        nameable(object_ids.len())?;
        let request = Request::RefreshLru(object_ids.into());
        match self.shared.connection.call(&request)? {
            Reply::RefreshLru => Ok(()),
            _ => Err(self.shared.mismatch()),
        }
    }

    /// Names this client in the store's debug string, and sets `quota_bytes` of the store's memory
    /// apart for objects that it creates: they are evicted to make room for one another, and not
    /// for other clients' objects. 0 sets only the name. A quota lasts until the client
    /// disconnects and cannot be changed.
    ///
    /// # Errors
    /// [`PlasmaError::QuotaRefused`], or the connection failed.
    #[doc(alias = "SetClientOptions")]
    pub fn set_options(&self, name: &str, quota_bytes: u64) -> Result<(), PlasmaError> {
        let quota_bytes = i64::try_from(quota_bytes).unwrap_or(i64::MAX);
        let request = Request::SetOptions {
            client_name: name.into(),
            quota_bytes,
        };
        match self.shared.connection.call(&request)? {
            Reply::SetOptions(Ok(())) => Ok(()),
            Reply::SetOptions(Err(_)) => Err(PlasmaError::QuotaRefused {
                quota_bytes,
                capacity_bytes: self.shared.capacity,
            }),
            _ => Err(self.shared.mismatch()),
        }
    }

    /// The store's account of its memory, a line for each number.
    ///
    /// # Errors
    /// The connection failed.
    pub fn debug_string(&self) -> Result<String, PlasmaError> {
        match self.shared.connection.call(&Request::GetDebugString)? {
            Reply::GetDebugString(text) => Ok(text.into_owned()),
            _ => Err(self.shared.mismatch()),
        }
    }

    /// The bytes of data and metadata that the store holds at most.
    pub fn store_capacity(&self) -> usize {
        usize::try_from(self.shared.capacity).unwrap_or(usize::MAX)
    }

    /// Tells what is sealed, deleted and evicted from now on, after what is sealed already.
    ///
    /// # Errors
    /// The connection failed, or there are no more sockets to be had.
    pub fn subscribe(&self) -> Result<Notifications, PlasmaError> {
        Notifications::new(self)
    }

    pub(crate) fn connect_again(&self) -> Result<Arc<Connection>, PlasmaError> {
        self.shared.open()
    }
}

/// Whether one request can name so many objects.
fn nameable(count: usize) -> Result<(), PlasmaError> {
    if count > MAX_IDS {
        return Err(PlasmaError::TooManyObjects {
            count,
            max_count: MAX_IDS,
        });
    }
    Ok(())
}

fn object_size(object: &NewObject<'_>) -> u64 {
    (object.data.len() as u64).saturating_add(object.metadata.len() as u64)
}

impl fmt::Debug for PlasmaClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.shared, f)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlasmaClient")
            .field("socket", &self.path)
            .field("capacity", &self.capacity)
            .finish_non_exhaustive()
    }
}
