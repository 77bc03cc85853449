//! What users call.

use std::borrow::Cow;
use std::path::Path;
use std::time::Duration;

use plasma_core::{ObjectBuffer, ObjectId, PlasmaClient, PlasmaError};

use crate::create::Uninit;
use crate::error::{CreateError, GetError};
use crate::object::{FixedLen, Layout, PlasmaObject, VariableLen, ZeroValid};
use crate::{Create, Key, Sealed, header, memory};

/// A connection to a store of typed objects.
///
/// - Clones share one connection; threads may use it at the same time.
/// - Ids are given as an [`ObjectId`], with the type in front (`get::<Tick>(id)`), or as a
///   [`Key`], which knows the type.
/// - An object that this client creates can be read by untyped clients, of any language; one that
///   an untyped client made is [`GetError::Untyped`] here, and [`untyped`](Self::untyped) reads it.
///
/// ```no_run
/// use plasma_typed::{ObjectId, PlasmaObject, TypedClient};
///
/// #[derive(PlasmaObject, Clone, Copy, Debug)]
/// #[repr(C)]
/// struct Tick {
///     ts_ns: u64,
///     price: f64,
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let client = TypedClient::connect("/tmp/plasma")?;
/// let id = ObjectId::from_name("ticks/latest");
///
/// let mut tick = client.create::<Tick>(id)?;
/// tick.price = 101.5;
/// tick.seal()?;
///
/// // In this process or in any other:
/// let tick = client.get::<Tick>(id)?;
/// println!("{tick:?}");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct TypedClient {
    client: PlasmaClient,
}

/// How to create objects, in detail; from [`TypedClient::creator`].
///
/// ```no_run
/// # use plasma_typed::{ObjectId, TypedClient};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let client = TypedClient::connect("/tmp/plasma")?;
/// let key = client
///     .creator()
///     .user_meta(b"camera 3")
///     .without_eviction()
///     .put(&[0.5_f32; 1024])?;
/// assert_eq!(client.get(key)?.ok_or("it is gone")?.user_meta(), b"camera 3");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "it creates nothing by itself"]
pub struct Creator<'a> {
    client: Cow<'a, PlasmaClient>,
    user_meta: &'a [u8],
}

impl From<PlasmaClient> for TypedClient {
    fn from(client: PlasmaClient) -> Self {
        Self { client }
    }
}

impl TypedClient {
    /// Connects to the store that listens at `socket`, waiting up to 5 s for one to be there. For
    /// anything else (a name, a quota, going on with the next store) there is
    /// [`PlasmaClient::builder`]: `TypedClient::from(untyped_client)`.
    ///
    /// # Errors
    /// No store is there, or the path is too long. [`PlasmaError::Disconnected`] if the store refused
    /// this client: its log says why.
    pub fn connect(socket: impl AsRef<Path>) -> Result<Self, PlasmaError> {
        PlasmaClient::builder().connect(socket).map(Self::from)
    }

    /// The same connection without types.
    pub fn untyped(&self) -> &PlasmaClient {
        &self.client
    }

    /// How to create objects with metadata of one's own, or without evicting others.
    pub fn creator(&self) -> Creator<'_> {
        Creator {
            client: Cow::Borrowed(&self.client),
            user_meta: &[],
        }
    }

    /// Creates an object full of zeros, to be written in place and sealed.
    ///
    /// The zeros are written, which takes as long as writing the object once. For one that will be
    /// written whole, [`create_uninit`](Self::create_uninit) saves that.
    ///
    /// # Errors
    /// [`CreateError::AlreadyExists`]; [`CreateError::Store`] if there is no room or the connection
    /// failed.
    pub fn create<T: ?Sized + ZeroValid + FixedLen>(
        &self,
        id: impl Into<Key<T>>,
    ) -> Result<Create<T>, CreateError> {
        self.creator().create(id)
    }

    /// Creates an object with a tail of `len` elements, full of zeros, to be written in place and
    /// sealed. `len` counts elements: those of the slice, or the bytes of a `str`.
    ///
    /// # Errors
    /// As for [`create`](Self::create), and [`CreateError::TooLong`].
    pub fn create_with_len<T: ?Sized + ZeroValid + VariableLen>(
        &self,
        id: impl Into<Key<T>>,
        len: usize,
    ) -> Result<Create<T>, CreateError> {
        self.creator().create_with_len(id, len)
    }

    /// Creates an object that has to be written before it can be read or sealed.
    ///
    /// # Errors
    /// As for [`create`](Self::create).
    pub fn create_uninit<T: ?Sized + FixedLen>(
        &self,
        id: impl Into<Key<T>>,
    ) -> Result<Create<T, Uninit>, CreateError> {
        self.creator().create_uninit(id)
    }

    /// Creates an object with a tail of `len` elements that has to be written before it can be read
    /// or sealed.
    ///
    /// # Errors
    /// As for [`create_with_len`](Self::create_with_len).
    pub fn create_uninit_with_len<T: ?Sized + VariableLen>(
        &self,
        id: impl Into<Key<T>>,
        len: usize,
    ) -> Result<Create<T, Uninit>, CreateError> {
        self.creator().create_uninit_with_len(id, len)
    }

    /// Stores a copy of a value under a fresh id, sealed: a `&Tick`, a `&[f64]`, a `&str`.
    ///
    /// What is stored is what the reference is to: `&[1.0, 2.0]` is an array, to be got as a
    /// `[f64; 2]`; `&values[..]` is a slice.
    ///
    /// # Errors
    /// As for [`create`](Self::create).
    pub fn put<T: ?Sized + PlasmaObject>(&self, value: &T) -> Result<Key<T>, CreateError> {
        self.creator().put(value)
    }

    /// Stores a copy of a value under this id, sealed.
    ///
    /// # Errors
    /// As for [`create`](Self::create).
    pub fn put_at<T: ?Sized + PlasmaObject>(
        &self,
        id: impl Into<Key<T>>,
        value: &T,
    ) -> Result<Key<T>, CreateError> {
        self.creator().put_at(id, value)
    }

    /// Gets a sealed object, without waiting: `None` if there is none.
    ///
    /// # Errors
    /// It is not a `T`, or the connection failed: see [`GetError`].
    pub fn get<T: ?Sized + PlasmaObject>(
        &self,
        id: impl Into<Key<T>>,
    ) -> Result<Option<Sealed<T>>, GetError> {
        let found = self.client.get(id.into().id(), 0)?;
        found.map(Sealed::open).transpose()
    }

    /// Gets sealed objects in one request, without waiting: one entry for each id, in their order,
    /// `None` for those that are not there.
    ///
    /// # Errors
    /// One of them is not a `T` (then none is returned), there are too many for one request, or the
    /// connection failed: see [`GetError`].
    pub fn get_many<T: ?Sized + PlasmaObject>(
        &self,
        ids: impl IntoIterator<Item = impl Into<Key<T>>>,
    ) -> Result<Vec<Option<Sealed<T>>>, GetError> {
        let found = self.client.get_many(&object_ids(ids), 0)?;
        let mut opened = Vec::with_capacity(found.len());
        for buffer in found {
            opened.push(buffer.map(Sealed::open).transpose()?);
        }
        Ok(opened)
    }

    /// Gets an object, waiting for it to be sealed for as long as `timeout`. Other threads that use
    /// this client are not kept waiting.
    ///
    /// # Errors
    /// [`GetError::TimedOut`], it is not a `T`, or the connection failed.
    pub fn wait<T: ?Sized + PlasmaObject>(
        &self,
        id: impl Into<Key<T>>,
        timeout: Duration,
    ) -> Result<Sealed<T>, GetError> {
        let id = id.into().id();
        match self.client.get(id, timeout_ms(timeout))? {
            Some(buffer) => Sealed::open(buffer),
            None => Err(GetError::TimedOut {
                id,
                missing: 1,
                timeout,
            }),
        }
    }

    /// Gets objects in one request, waiting for all of them to be sealed for as long as `timeout`.
    ///
    /// # Errors
    /// As for [`wait`](Self::wait); one that fails is enough for none to be returned.
    pub fn wait_many<T: ?Sized + PlasmaObject>(
        &self,
        ids: impl IntoIterator<Item = impl Into<Key<T>>>,
        timeout: Duration,
    ) -> Result<Vec<Sealed<T>>, GetError> {
        let ids = object_ids(ids);
        let found = self.client.get_many(&ids, timeout_ms(timeout))?;
        let mut missing = ids.iter().zip(&found).filter(|(_, found)| found.is_none());
        if let Some((id, _)) = missing.next() {
            return Err(GetError::TimedOut {
                id: *id,
                missing: 1 + missing.count(),
                timeout,
            });
        }
        let mut opened = Vec::with_capacity(found.len());
        for buffer in found.into_iter().flatten() {
            opened.push(Sealed::open(buffer)?);
        }
        Ok(opened)
    }

    /// Whether an object is there and sealed, of whatever type.
    ///
    /// # Errors
    /// The connection failed.
    pub fn contains(&self, id: impl Into<ObjectId>) -> Result<bool, PlasmaError> {
        self.client.contains(&id.into())
    }

    /// Deletes an object, of whatever type; one that is held, or not sealed yet, goes as soon as
    /// that ends. No error if there is none.
    ///
    /// # Errors
    /// The connection failed.
    pub fn delete(&self, id: impl Into<ObjectId>) -> Result<(), PlasmaError> {
        self.client.delete(&id.into())
    }
}

fn object_ids<T: ?Sized>(ids: impl IntoIterator<Item = impl Into<Key<T>>>) -> Vec<ObjectId> {
    ids.into_iter().map(|id| id.into().id()).collect()
}

/// Whole milliseconds, rounded up; what is too long to count is for ever.
fn timeout_ms(timeout: Duration) -> i64 {
    let ms = timeout.as_nanos().div_ceil(1_000_000);
    i64::try_from(ms).unwrap_or(-1)
}

impl<'a> Creator<'a> {
    /// Bytes to keep with the object, for [`Sealed::user_meta`]. They are copied when it is
    /// created.
    pub fn user_meta(mut self, user_meta: &'a [u8]) -> Self {
        self.user_meta = user_meta;
        self
    }

    /// Refuses to create where the store would have to evict other objects to make room:
    /// [`PlasmaError::OutOfMemory`].
    pub fn without_eviction(mut self) -> Self {
        self.client = Cow::Owned(self.client.without_eviction());
        self
    }

    /// As [`TypedClient::create`].
    ///
    /// # Errors
    /// As there, and [`CreateError::UserMetaTooLong`].
    pub fn create<T: ?Sized + ZeroValid + FixedLen>(
        &self,
        id: impl Into<Key<T>>,
    ) -> Result<Create<T>, CreateError> {
        self.zeroed(id.into(), 0)
    }

    /// As [`TypedClient::create_with_len`].
    ///
    /// # Errors
    /// As there, and [`CreateError::UserMetaTooLong`].
    pub fn create_with_len<T: ?Sized + ZeroValid + VariableLen>(
        &self,
        id: impl Into<Key<T>>,
        len: usize,
    ) -> Result<Create<T>, CreateError> {
        self.zeroed(id.into(), len)
    }

    /// As [`TypedClient::create_uninit`].
    ///
    /// # Errors
    /// As there, and [`CreateError::UserMetaTooLong`].
    pub fn create_uninit<T: ?Sized + FixedLen>(
        &self,
        id: impl Into<Key<T>>,
    ) -> Result<Create<T, Uninit>, CreateError> {
        self.uninit(id.into(), 0)
    }

    /// As [`TypedClient::create_uninit_with_len`].
    ///
    /// # Errors
    /// As there, and [`CreateError::UserMetaTooLong`].
    pub fn create_uninit_with_len<T: ?Sized + VariableLen>(
        &self,
        id: impl Into<Key<T>>,
        len: usize,
    ) -> Result<Create<T, Uninit>, CreateError> {
        self.uninit(id.into(), len)
    }

    /// As [`TypedClient::put`].
    ///
    /// # Errors
    /// As there, and [`CreateError::UserMetaTooLong`].
    pub fn put<T: ?Sized + PlasmaObject>(&self, value: &T) -> Result<Key<T>, CreateError> {
        self.put_at(ObjectId::rand(), value)
    }

    /// As [`TypedClient::put_at`].
    ///
    /// # Errors
    /// As there, and [`CreateError::UserMetaTooLong`].
    pub fn put_at<T: ?Sized + PlasmaObject>(
        &self,
        id: impl Into<Key<T>>,
        value: &T,
    ) -> Result<Key<T>, CreateError> {
        let key = id.into();
        let len = T::tail_len(value);
        let bytes = memory::bytes_of(value);
        if Layout::<T>::size(len) == Some(bytes.len()) {
            let meta = self.metadata(key, len)?;
            let sealed = self.client.create_and_seal(key.id(), bytes, &meta);
            sealed.map_err(|source| CreateError::store(key.id(), source))?;
        } else {
            // Behind its tail the object goes on, up to a multiple of its alignment.
            let sealed = self.uninit(key, len)?.copy_from(value).seal();
            sealed.map_err(|error| CreateError::store(key.id(), error.into_source()))?;
        }
        Ok(key)
    }

    #[inline]
    fn zeroed<T: ?Sized + ZeroValid>(
        &self,
        key: Key<T>,
        len: usize,
    ) -> Result<Create<T>, CreateError> {
        self.uninit(key, len).map(Create::zeroed)
    }

    #[inline]
    fn uninit<T: ?Sized + PlasmaObject>(
        &self,
        key: Key<T>,
        len: usize,
    ) -> Result<Create<T, Uninit>, CreateError> {
        let failed = |source| CreateError::store(key.id(), source);
        let Some(size) = Layout::<T>::size(len) else {
            return Err(CreateError::TooLong {
                id: key.id(),
                len,
                element_bytes: Layout::<T>::ELEMENT.unwrap_or(0),
            });
        };
        let meta = self.metadata(key, len)?;
        let buffer: ObjectBuffer = self.client.create(key.id(), size, &meta).map_err(failed)?;
        Create::new(buffer, len).map_err(failed)
    }

    #[inline]
    fn metadata<T: ?Sized + PlasmaObject>(
        &self,
        key: Key<T>,
        len: usize,
    ) -> Result<Cow<'static, [u8]>, CreateError> {
        let meta = header::encode::<T>(len as u64, self.user_meta);
        meta.ok_or(CreateError::UserMetaTooLong {
            id: key.id(),
            len: self.user_meta.len(),
        })
    }
}
