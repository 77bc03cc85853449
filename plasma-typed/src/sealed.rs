//! An object being read.

use std::fmt;
use std::ops::Deref;
use std::ptr::NonNull;

use plasma_core::{ObjectBuffer, ObjectId};

use crate::Key;
use crate::error::{GetError, SchemaMismatch};
use crate::header::{Header, Prefix, Unreadable};
use crate::memory::{self, NoValue};
use crate::object::PlasmaObject;
use crate::schema::Stored;

/// An object that never changes any more, read where it lies.
///
/// - It derefs to `T`. There is no way to a `&mut T`.
/// - Clones are one more reference to the same object, without a request to the store; when the
///   last one is dropped, the store may evict the object.
/// - It stays valid whatever happens: when its client is dropped, the object deleted, the store out
///   of memory or gone.
///
/// ```no_run
/// # use plasma_typed::{ObjectId, Sealed, TypedClient};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let client = TypedClient::connect("/tmp/plasma")?;
/// let prices: Option<Sealed<[f64]>> = client.get(ObjectId::from_name("prices"))?;
/// if let Some(prices) = prices {
///     println!("{} prices, the first {:?}", prices.len(), prices.first());
/// }
/// # Ok(())
/// # }
/// ```
///
/// It cannot be written:
///
/// ```compile_fail,E0594
/// # fn raise(prices: plasma_typed::Sealed<[f64]>) {
/// prices[0] = 101.5;
/// # }
/// ```
pub struct Sealed<T: ?Sized> {
    whole: SealedRef<T>,
    /// How many of the last bytes of the object's metadata are its user's.
    user_meta_len: usize,
}

/// A part of a sealed object, which it keeps held as a [`Sealed`] does; from [`Sealed::map`].
pub struct SealedRef<T: ?Sized> {
    /// INVARIANT: what a reference to `T` would point to, for as long as `buffer` is there: a value
    /// in the buffer's data, or one that lives for ever.
    value: NonNull<T>,
    buffer: ObjectBuffer,
}

// SAFETY: it gives out `&T` to any thread that has it, which `T: Sync` allows; dropping it drops no
// `T`, but clones in other threads make it a shared owner, so `T: Send` is asked for as of `Arc`.
unsafe impl<T: ?Sized + Send + Sync> Send for SealedRef<T> {}
// SAFETY: as above.
unsafe impl<T: ?Sized + Send + Sync> Sync for SealedRef<T> {}

impl<T: ?Sized + PlasmaObject> Sealed<T> {
    /// An object that the store has told of, once all of it has been checked.
    pub(crate) fn open(buffer: ObjectBuffer) -> Result<Self, GetError> {
        let (value, user_meta_len) = Self::examine(&buffer)?;
        Ok(Self::new(value, buffer, user_meta_len))
    }

    /// The value in a buffer, and the length of its user metadata.
    fn examine(buffer: &ObjectBuffer) -> Result<(NonNull<T>, usize), GetError> {
        let (value, user_meta) = read(*buffer.id(), buffer.data(), buffer.meta())?;
        Ok((NonNull::from_ref(value), user_meta.len()))
    }

    /// An object that this process has just sealed; INVARIANT of the caller: that of
    /// [`Create`](crate::Create), but for being writable.
    pub(crate) fn from_sealed(buffer: ObjectBuffer, len: usize) -> Self {
        // SAFETY: by the caller's word; a mapping starts at a page, so what lay aligned in the
        // writable one does in the read-only one.
        let value = NonNull::from_ref(unsafe { memory::assume(buffer.data(), len) });
        let user_meta = Header::parse(buffer.meta()).map(|header| header.user_meta.len());
        Self::new(value, buffer, user_meta.unwrap_or(0))
    }
}

/// The value that an object's data and metadata are, if they are one, and its user metadata.
pub(crate) fn read<'a, T: ?Sized + PlasmaObject>(
    id: ObjectId,
    data: &'a [u8],
    meta: &'a [u8],
) -> Result<(&'a T, &'a [u8]), GetError> {
    let header = Header::parse(meta).map_err(|unreadable| match unreadable {
        Unreadable::Untyped => GetError::Untyped { id },
        Unreadable::Corrupt(corruption) => GetError::Corrupt { id, corruption },
    })?;
    if !Prefix::of::<T>().is_that_of(&header) {
        return Err(GetError::SchemaMismatch {
            id,
            mismatch: Box::new(SchemaMismatch::new(header.schema, T::SCHEMA)),
        });
    }
    let value = memory::view(data, header.tail_len).map_err(|no_value| match no_value {
        NoValue::Corrupt(corruption) => GetError::Corrupt { id, corruption },
        NoValue::Invalid(invalid) => GetError::InvalidValue {
            id,
            type_name: Stored::from(T::SCHEMA).title(),
            invalid,
        },
    })?;
    Ok((value, header.user_meta))
}

impl<T: ?Sized> Sealed<T> {
    /// INVARIANT of the caller: `value` is in the buffer's data.
    fn new(value: NonNull<T>, buffer: ObjectBuffer, user_meta_len: usize) -> Self {
        Self {
            whole: SealedRef { value, buffer },
            user_meta_len,
        }
    }

    /// The object's name.
    pub fn id(&self) -> ObjectId {
        self.whole.id()
    }

    /// The object's name, with its type.
    pub fn key(&self) -> Key<T> {
        Key::new(self.id())
    }

    /// Bytes of data: the value, rounded up to its alignment if it has a tail.
    pub fn size_bytes(&self) -> usize {
        self.whole.buffer.data().len()
    }

    /// What its creator wanted to be kept with it; empty unless
    /// [`Creator::user_meta`](crate::Creator::user_meta) said otherwise.
    pub fn user_meta(&self) -> &[u8] {
        let meta = self.whole.buffer.meta();
        let start = meta.len().saturating_sub(self.user_meta_len);
        meta.get(start..).unwrap_or_default()
    }

    /// A part of the object that can be kept, sent and cloned on its own: the object stays held
    /// while anything of it is.
    ///
    /// ```no_run
    /// # use plasma_typed::{ObjectId, SealedRef, TypedClient};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let client = TypedClient::connect("/tmp/plasma")?;
    /// let prices = client.get::<[f64]>(ObjectId::from_name("prices"))?.ok_or("no prices")?;
    /// let newest: SealedRef<[f64]> = prices.map(|prices| &prices[prices.len() / 2..]);
    /// drop(prices);
    /// println!("{} of them", newest.len());
    /// # Ok(())
    /// # }
    /// ```
    pub fn map<U: ?Sized + 'static>(&self, project: impl FnOnce(&T) -> &U) -> SealedRef<U> {
        self.whole.map(project)
    }
}

impl<T: ?Sized> SealedRef<T> {
    /// The name of the object that it is a part of.
    pub fn id(&self) -> ObjectId {
        *self.buffer.id()
    }

    /// A part of the part.
    pub fn map<U: ?Sized + 'static>(&self, project: impl FnOnce(&T) -> &U) -> SealedRef<U> {
        // What is projected lives as long as the object, or for ever: it is a reference into what
        // the closure was given, for a lifetime that the closure cannot choose, and since `U`
        // borrows nothing, nothing with a shorter life can come back out of it.
        SealedRef {
            value: NonNull::from_ref(project(self)),
            buffer: self.buffer.share(),
        }
    }
}

impl<T: ?Sized> Deref for SealedRef<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the field's invariant.
        unsafe { self.value.as_ref() }
    }
}

impl<T: ?Sized> Deref for Sealed<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.whole
    }
}

impl<T: ?Sized> AsRef<T> for Sealed<T> {
    fn as_ref(&self) -> &T {
        self
    }
}

impl<T: ?Sized> AsRef<T> for SealedRef<T> {
    fn as_ref(&self) -> &T {
        self
    }
}

impl<T: ?Sized> Clone for Sealed<T> {
    fn clone(&self) -> Self {
        Self {
            whole: self.whole.clone(),
            user_meta_len: self.user_meta_len,
        }
    }
}

impl<T: ?Sized> Clone for SealedRef<T> {
    fn clone(&self) -> Self {
        Self {
            value: self.value,
            buffer: self.buffer.share(),
        }
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for Sealed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for SealedRef<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl<T: ?Sized + fmt::Display> fmt::Display for Sealed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&**self, f)
    }
}

impl<T: ?Sized + fmt::Display> fmt::Display for SealedRef<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&**self, f)
    }
}

impl<T: ?Sized + PartialEq> PartialEq for Sealed<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: ?Sized + PartialEq> PartialEq for SealedRef<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: ?Sized + Eq> Eq for Sealed<T> {}

impl<T: ?Sized + Eq> Eq for SealedRef<T> {}
