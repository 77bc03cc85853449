//! What users call.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::object::Hold;
use crate::protocol::message::{
    ErrorCode, MAX_IDS, NewObject, ObjectInfo, ObjectSpec, Reply, Request,
};
use crate::segment::Access;
use crate::session::{Session, Shared};
use crate::shortcut::Buffers;
use crate::span::Span;
use crate::{DigestPolicy, Notifications, ObjectBuffer, ObjectId, PlasmaError};

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
///   readable. A client made with [`reconnect`](ClientBuilder::reconnect) goes on with the store
///   that takes its place.
#[derive(Clone)]
pub struct PlasmaClient {
    shared: Arc<Shared>,
    /// Whether what it creates may evict other objects.
    evict_if_full: bool,
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
    pub(crate) retries: u32,
    pub(crate) retry_interval: Duration,
    pub(crate) name: Option<String>,
    pub(crate) quota_bytes: u64,
    pub(crate) digest: DigestPolicy,
    pub(crate) reconnect: bool,
    pub(crate) shared_memory: bool,
}

impl Default for ClientBuilder {
    fn default() -> Self {
        Self {
            retries: 50,
            retry_interval: Duration::from_millis(100),
            name: None,
            quota_bytes: 0,
            digest: DigestPolicy::Off,
            reconnect: false,
            shared_memory: true,
        }
    }
}

impl ClientBuilder {
    /// How often to try again where no store listens yet; 50 unless told, 0 is a single attempt.
    ///
    /// Where this user has no permission it is tried again as well: a store that starts makes its
    /// socket first, and then opens it to others.
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

    /// Whether a client whose store has gone connects again, to the store that listens at the same
    /// path by then; off unless told.
    ///
    /// The next call does so, and waits for a store to be there for as long as
    /// [`retries`](Self::retries) and [`retry_interval`](Self::retry_interval) say. Name and quota
    /// are asked for again.
    ///
    /// - A call that was under way when the store went is [`PlasmaError::Disconnected`], unless
    ///   it does no more if it is made twice: get (with its whole timeout), contains, list,
    ///   refresh, subscribe and debug string are made once more, and go on.
    /// - Buffers stay with the store they came from: they can be read, a seal is
    ///   [`PlasmaError::Disconnected`], and dropping them says nothing to the new store.
    /// - A new store is empty: what was in the old one is not found.
    /// - [`Notifications`] end with their store.
    pub fn reconnect(mut self, reconnect: bool) -> Self {
        self.reconnect = reconnect;
        self
    }

    /// Whether to read and write small objects through memory shared with the store, where the store
    /// offers that; on unless told. Off, everything goes through the socket, as with Arrow's clients
    /// and stores: slower, and a client costs the store less memory.
    pub fn shared_memory(mut self, shared_memory: bool) -> Self {
        self.shared_memory = shared_memory;
        self
    }

    /// Connects to the store that listens at `socket`.
    ///
    /// # Errors
    /// No store is there (after all retries), the path is too long, or the store refused the
    /// quota. [`PlasmaError::Disconnected`] if it refused this client: its log says why.
    pub fn connect(self, socket: impl AsRef<Path>) -> Result<PlasmaClient, PlasmaError> {
        let shared = Shared::connect(self, socket.as_ref())?;
        Ok(PlasmaClient {
            shared: Arc::new(shared),
            evict_if_full: true,
        })
    }
}

impl PlasmaClient {
    /// Connects to the store that listens at `store_socket_name`, trying `num_retries` times more
    /// where none listens yet (100 ms apart).
    ///
    /// # Errors
    /// No store is there, or the path is too long. [`PlasmaError::Disconnected`] if the store refused
    /// this client: its log says why.
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
        let (data_size, meta_size) = (data_size as u64, meta.len() as u64);
        self.shared.once(|session| {
            let evict_if_full = self.evict_if_full;
            if let Some(object) =
                session.create_shortly(oid, data_size, meta_size, evict_if_full)?
            {
                return Ok(object.with_meta(meta));
            }
            let connection = &session.connection;
            let created = connection.create(oid, data_size, meta_size, evict_if_full)?;
            let spec = created.map_err(|code| {
                let requested_bytes = data_size.saturating_add(meta_size);
                session.refusal(code, requested_bytes)
            })?;
            match Span::find(session, &spec, Access::Write) {
                Ok(span) => Ok(ObjectBuffer::writing(oid, span, Hold::Counted).with_meta(meta)),
                Err(error) => {
                    connection.abandon(oid);
                    Err(error)
                }
            }
        })
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
        let len = data.len().saturating_add(meta.len());
        if self.shared.is_written_in_place(len) {
            let mut object = self.create(oid, data.len(), meta)?;
            object.data_mut().copy_from_slice(data);
            return object.seal();
        }
        self.shared.once(|session| {
            let object = new_object(session, oid, data, meta);
            if let Some(()) = session.put_shortly(&object, self.evict_if_full)? {
                return Ok(());
            }
            let request = Request::CreateAndSeal {
                object,
                evict_if_full: self.evict_if_full,
            };
            match session.call(&request)? {
                Reply::CreateAndSeal(outcome) => session.accepted(outcome, object_size(&object)),
                _ => Err(session.mismatch()),
            }
        })
    }

    /// Creates and seals many objects in one request: all of them, or none where one is refused.
    ///
    /// Their content is sent along: through memory shared with the store where none is larger than
    /// 16 KiB, otherwise through the socket. So this is for small objects.
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
        self.shared.once(|session| {
            let objects: Vec<_> = objects
                .iter()
                .map(|(id, data, meta)| new_object(session, *id, data, meta))
                .collect();
            let requested_bytes = objects.iter().map(object_size).fold(0, u64::saturating_add);
            if !session.could_hold(requested_bytes) {
                // Its store would not read so long a request, and end the connection.
                return Err(session.refusal(ErrorCode::OutOfMemory, requested_bytes));
            }
            if let Some(()) = session.put_batch_shortly(&objects, self.evict_if_full)? {
                return Ok(());
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
            match session.call(&request)? {
                Reply::CreateAndSealBatch(outcome) => session.accepted(outcome, requested_bytes),
                _ => Err(session.mismatch()),
            }
        })
    }

    /// Gets a sealed object, waiting up to `timeout_ms` for it: -1 waits for ever, 0 not at all.
    /// `None` if it was not sealed in time.
    ///
    /// # Errors
    /// The connection failed. To wait takes one more connection: the store may refuse it
    /// ([`PlasmaError::Io`]), or not be at its path any more ([`PlasmaError::PathTaken`]).
    pub fn get(&self, oid: ObjectId, timeout_ms: i64) -> Result<Option<ObjectBuffer>, PlasmaError> {
        self.shared
            .repeatable(|session| match session.get_if_there(&oid) {
                Some(found) => Ok(Some(found)),
                None => get_otherwise(session, &oid, timeout_ms),
            })
    }

    /// Gets sealed objects in one request, waiting up to `timeout_ms` for all of them (-1 for ever,
    /// 0 not at all). One entry for each id, in their order; `None` for what was not sealed in
    /// time. An id may occur more than once.
    ///
    /// # Errors
    /// [`PlasmaError::TooManyObjects`], and as [`get`](Self::get).
    pub fn get_many(
        &self,
        object_ids: &[ObjectId],
        timeout_ms: i64,
    ) -> Result<Vec<Option<ObjectBuffer>>, PlasmaError> {
        nameable(object_ids.len())?;
        self.shared
            .repeatable(|session| get_many(session, object_ids, timeout_ms))
    }

    /// Whether an object is in the store and sealed.
    ///
    /// # Errors
    /// The connection failed.
    pub fn contains(&self, oid: &ObjectId) -> Result<bool, PlasmaError> {
        self.shared.repeatable(|session| {
            if let Some(found) = session.contains_shortly(oid)? {
                return Ok(found);
            }
            match session.call(&Request::Contains(*oid))? {
                Reply::Contains { id, has_object } if id == *oid => Ok(has_object),
                _ => Err(session.mismatch()),
            }
        })
    }

    /// Those of the objects that are in the store and sealed, in their order; asked in one go.
    ///
    /// # Errors
    /// The connection failed.
    pub fn contains_many(&self, object_ids: &[ObjectId]) -> Result<Vec<ObjectId>, PlasmaError> {
        self.shared.repeatable(|session| {
            let short: Option<Vec<bool>> = object_ids
                .iter()
                .map(|id| session.contains_shortly(id).transpose())
                .collect::<Option<_>>()
                .transpose()?;
            if let Some(short) = short {
                let found = object_ids.iter().zip(short).filter(|(_, found)| *found);
                return Ok(found.map(|(id, _)| *id).collect());
            }
            let mut found = Vec::new();
            let mut requests = object_ids.iter().copied().map(Request::Contains);
            let mut asked = object_ids.iter();
            session
                .connection
                .call_all(&mut requests, |reply| match reply {
                    Reply::Contains { id, has_object } if Some(&id) == asked.next() => {
                        found.extend(has_object.then_some(id));
                        Ok(())
                    }
                    _ => Err(session.mismatch()),
                })?;
            Ok(found)
        })
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
        self.shared.once(|session| {
            if let Some(()) = session.delete_shortly(object_ids)? {
                return Ok(());
            }
            let request = Request::Delete(object_ids.into());
            match session.call(&request)? {
                Reply::Delete(_) => Ok(()),
                _ => Err(session.mismatch()),
            }
        })
    }

    /// Every object in the store, sealed or not.
    ///
    /// # Errors
    /// The connection failed.
    pub fn list(&self) -> Result<Vec<ObjectInfo>, PlasmaError> {
        self.shared
            .repeatable(|session| match session.call(&Request::List)? {
                Reply::List(infos) => Ok(infos),
                _ => Err(session.mismatch()),
            })
    }

    /// Evicts at least `num_bytes` of what nobody holds, least recently used first, however much is
    /// free already; all of it where that is less. Objects in a client's quota stay. The bytes that
    /// were freed.
    ///
    /// # Errors
    /// The connection failed.
    pub fn evict(&self, num_bytes: u64) -> Result<u64, PlasmaError> {
        self.shared.once(
            |session| match session.call(&Request::Evict { num_bytes })? {
                Reply::Evict { num_bytes } => Ok(num_bytes),
                _ => Err(session.mismatch()),
            },
        )
    }

    /// Makes objects the most recently used, so that they are evicted last. Unknown ids are
    /// ignored.
    ///
    /// # Errors
    /// The connection failed.
    pub fn refresh(&self, object_ids: &[ObjectId]) -> Result<(), PlasmaError> {
        nameable(object_ids.len())?;
        self.shared.repeatable(|session| {
            if let Some(()) = session.refresh_shortly(object_ids)? {
                return Ok(());
            }
            let request = Request::RefreshLru(object_ids.into());
            match session.call(&request)? {
                Reply::RefreshLru => Ok(()),
                _ => Err(session.mismatch()),
            }
        })
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
        self.shared.set_options(name, quota_bytes)
    }

    /// The store's account of its memory, a line for each number.
    ///
    /// # Errors
    /// The connection failed.
    pub fn debug_string(&self) -> Result<String, PlasmaError> {
        self.shared
            .repeatable(|session| match session.call(&Request::GetDebugString)? {
                Reply::GetDebugString(text) => Ok(text.into_owned()),
                _ => Err(session.mismatch()),
            })
    }

    /// The bytes of data and metadata that the store holds at most.
    pub fn store_capacity(&self) -> usize {
        usize::try_from(self.shared.capacity()).unwrap_or(usize::MAX)
    }

    /// Tells what is sealed, deleted and evicted from now on, after what is sealed already.
    ///
    /// # Errors
    /// The connection failed, or there are no more sockets to be had. It takes one more connection: the
    /// store may refuse it ([`PlasmaError::Io`], or the end of the notifications), or not be at its path
    /// any more ([`PlasmaError::PathTaken`]).
    pub fn subscribe(&self) -> Result<Notifications, PlasmaError> {
        self.shared
            .repeatable(|session| Notifications::new(session))
    }
}

fn new_object<'a>(
    session: &Session,
    id: ObjectId,
    data: &'a [u8],
    metadata: &'a [u8],
) -> NewObject<'a> {
    NewObject {
        id,
        data,
        metadata,
        digest: session.digest.apply(data, metadata),
    }
}

/// Gets an object that is not there yet, or that the store has to be asked for.
#[inline(never)]
fn get_otherwise(
    session: &Arc<Session>,
    id: &ObjectId,
    timeout_ms: i64,
) -> Result<Option<ObjectBuffer>, PlasmaError> {
    if let Some(found) = session.get_shortly(id, timeout_ms)? {
        return Ok(found);
    }
    let found = get_many(session, std::slice::from_ref(id), timeout_ms)?;
    Ok(found.into_iter().next().flatten())
}

/// Gets objects in one session, and waits there for those that are missing.
fn get_many(
    session: &Arc<Session>,
    object_ids: &[ObjectId],
    timeout_ms: i64,
) -> Result<Vec<Option<ObjectBuffer>>, PlasmaError> {
    let start = Instant::now();
    let mut buffers: Vec<_> = object_ids.iter().map(|_| None).collect();
    get_now(session, object_ids, &mut buffers)?;
    let missing: Vec<_> = object_ids
        .iter()
        .zip(&buffers)
        .filter(|(_, buffer)| buffer.is_none())
        .map(|(id, _)| *id)
        .collect();
    if missing.is_empty() || timeout_ms == 0 {
        return Ok(buffers);
    }
    let timeout_ms = match u64::try_from(timeout_ms) {
        Err(_) => -1,
        // At least 1, as 0 would not wait, and rounded up as elsewhere.
        Ok(ms) => Duration::from_millis(ms)
            .saturating_sub(start.elapsed())
            .as_nanos()
            .div_ceil(1_000_000)
            .clamp(1, i64::MAX as u128) as i64,
    };
    session.wait(&missing, timeout_ms, || {
        get_now(session, object_ids, &mut buffers)
    })?;
    Ok(buffers)
}

/// Gets those objects that are missing among the buffers and are there.
fn get_now(
    session: &Arc<Session>,
    object_ids: &[ObjectId],
    buffers: &mut [Option<ObjectBuffer>],
) -> Result<(), PlasmaError> {
    let mut all_known = false;
    fill(object_ids, buffers, |missing| {
        let short = session.get_many_shortly(missing)?;
        Ok(short.map(|(found, known)| {
            all_known = known;
            found
        }))
    })?;
    if all_known {
        return Ok(());
    }
    fill(object_ids, buffers, |missing| {
        let found = session.connection.get(missing, 0)?;
        self::buffers(session, missing, &found).map(Some)
    })
}

/// Gets those objects that are missing among the buffers, if any are.
fn fill(
    object_ids: &[ObjectId],
    buffers: &mut [Option<ObjectBuffer>],
    get: impl FnOnce(&[ObjectId]) -> Result<Option<Buffers>, PlasmaError>,
) -> Result<(), PlasmaError> {
    let (places, missing): (Vec<_>, Vec<_>) = buffers
        .iter_mut()
        .zip(object_ids)
        .filter(|(buffer, _)| buffer.is_none())
        .unzip();
    if missing.is_empty() {
        return Ok(());
    }
    let found = get(&missing)?;
    for (place, buffer) in places.into_iter().zip(found.into_iter().flatten()) {
        *place = buffer;
    }
    Ok(())
}

/// Every object found becomes a buffer, or is released, before an error is told.
fn buffers(
    session: &Arc<Session>,
    ids: &[ObjectId],
    found: &[Option<ObjectSpec>],
) -> Result<Vec<Option<ObjectBuffer>>, PlasmaError> {
    let buffers: Vec<_> = ids
        .iter()
        .zip(found)
        .map(|(id, spec)| {
            let spec = spec.as_ref();
            spec.map(|spec| session.buffer(*id, spec)).transpose()
        })
        .collect();
    buffers.into_iter().collect()
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
