//! The name of an object whose type is known.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::str::FromStr;

use plasma_core::{ObjectId, ParseObjectIdError};

/// An [`ObjectId`] that remembers what type of object it names, so that
/// [`get`](crate::TypedClient::get) need not be told.
///
/// It is a plain value of 20 bytes: send it through a channel, print it, read it back.
///
/// ```
/// use plasma_typed::{Key, ObjectId};
///
/// let key: Key<[f64]> = Key::from_name("prices");
/// let text = key.to_string();
/// assert_eq!(text.parse(), Ok(key));
/// assert_eq!(ObjectId::from(key), ObjectId::from_name("prices"));
/// ```
///
/// It is a [`PlasmaObject`](crate::PlasmaObject) itself, as an [`ObjectId`] is: that is how objects
/// refer to others.
#[repr(transparent)]
pub struct Key<T: ?Sized> {
    id: ObjectId,
    /// A key has no `T`, and does not care in what thread it is.
    object: PhantomData<fn() -> *const T>,
}

impl<T: ?Sized> Key<T> {
    /// The key of the object of this name.
    pub const fn new(id: ObjectId) -> Self {
        Self {
            id,
            object: PhantomData,
        }
    }

    /// A fresh random key. Two of them are never the same in practice.
    pub fn rand() -> Self {
        Self::new(ObjectId::rand())
    }

    /// The key that stands for a name: see [`ObjectId::from_name`].
    pub fn from_name(name: &str) -> Self {
        Self::new(ObjectId::from_name(name))
    }

    /// The object's name.
    pub const fn id(&self) -> ObjectId {
        self.id
    }
}

impl<T: ?Sized> Clone for Key<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: ?Sized> Copy for Key<T> {}

impl<T: ?Sized> PartialEq for Key<T> {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl<T: ?Sized> Eq for Key<T> {}

impl<T: ?Sized> PartialOrd for Key<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T: ?Sized> Ord for Key<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.id.cmp(&other.id)
    }
}

impl<T: ?Sized> Hash for Key<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id.hash(state);
    }
}

/// The id in hexadecimal.
impl<T: ?Sized> fmt::Display for Key<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.id, f)
    }
}

impl<T: ?Sized> fmt::Debug for Key<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key<{}>({})", std::any::type_name::<T>(), self.id)
    }
}

/// Reads an id in hexadecimal; what type it names is not in it.
impl<T: ?Sized> FromStr for Key<T> {
    type Err = ParseObjectIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self::new)
    }
}

impl<T: ?Sized> From<ObjectId> for Key<T> {
    fn from(id: ObjectId) -> Self {
        Self::new(id)
    }
}

impl<T: ?Sized> From<&ObjectId> for Key<T> {
    fn from(id: &ObjectId) -> Self {
        Self::new(*id)
    }
}

impl<T: ?Sized> From<&Self> for Key<T> {
    fn from(key: &Self) -> Self {
        *key
    }
}

impl<T: ?Sized> From<Key<T>> for ObjectId {
    fn from(key: Key<T>) -> Self {
        key.id
    }
}

impl<T: ?Sized> From<&Key<T>> for ObjectId {
    fn from(key: &Key<T>) -> Self {
        key.id
    }
}
