//! An object being written.

use std::error::Error;
use std::fmt;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut};

use plasma_core::{ObjectBuffer, ObjectId, PlasmaError};

use crate::memory;
use crate::object::{Layout, PlasmaObject, ZeroValid};
use crate::{Key, Sealed};

/// The state of a [`Create`] whose object is a value: it can be read, written and sealed.
#[derive(Debug)]
pub enum Init {}

/// The state of a [`Create`] whose object has not been written yet: it can be neither read nor
/// sealed.
#[derive(Debug)]
pub enum Uninit {}

/// The states in which an object can be sealed: [`Init`].
#[diagnostic::on_unimplemented(
    message = "an object that has not been written yet cannot be sealed",
    label = "it may hold anything",
    note = "write it first: `write(value)`, `fill_with(|i| …)`, `copy_from_slice(&[…])` or `copy_from(&value)` return a handle that can be sealed"
)]
pub trait Written: sealed::Written {}
impl Written for Init {}

mod sealed {
    pub trait Written {}
    impl Written for super::Init {}
}

/// An object being written, in shared memory, by the only one who knows of it.
///
/// - `Create<T>` is a value of type `T` already, zeroed unless said otherwise: write it as you
///   would a `&mut T`, then [`seal`](Self::seal) it.
/// - `Create<T, Uninit>`, from [`create_uninit`](crate::TypedClient::create_uninit), has to be
///   written first; `write`, `fill_with`, `copy_from_slice` and `copy_from` turn it into a
///   `Create<T>`.
/// - Dropped before it is sealed, the object is aborted, as if it had never been created.
///
/// ```no_run
/// # use plasma_typed::{Create, Key, ObjectId, TypedClient};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let client = TypedClient::connect("/tmp/plasma")?;
/// let mut prices = client.create_with_len::<[f64]>(ObjectId::rand(), 3)?;
/// prices[1] = 101.5;
/// let prices = prices.seal()?;
/// assert_eq!(*prices, [0.0, 101.5, 0.0]);
/// # Ok(())
/// # }
/// ```
///
/// Sealing consumes it, so nothing can be written afterwards:
///
/// ```compile_fail,E0382
/// # use plasma_typed::{Create, ObjectId, TypedClient};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let client = TypedClient::connect("/tmp/plasma")?;
/// let mut prices = client.create_with_len::<[f64]>(ObjectId::rand(), 3)?;
/// let sealed = prices.seal()?;
/// prices[1] = 101.5;
/// # Ok(())
/// # }
/// ```
#[must_use = "dropped before `seal`, the object is aborted, as if it had never been created"]
pub struct Create<T: ?Sized, S = Init> {
    /// INVARIANT: writable, and `check_place::<T>` accepts its data with a tail of `len` elements.
    /// In the state `Init` its data is a value.
    buffer: ObjectBuffer,
    len: usize,
    /// It owns a `T`, so it goes to another thread if a `T` does.
    object: PhantomData<(Box<T>, S)>,
}

impl<T: ?Sized, S> Create<T, S> {
    /// The object's name.
    pub fn id(&self) -> ObjectId {
        *self.buffer.id()
    }

    /// The object's name, with its type: for those who are to get it once it is sealed.
    pub fn key(&self) -> Key<T> {
        Key::new(self.id())
    }

    /// Drops the object, as if it had never been created. Dropping the handle does the same,
    /// without waiting for the store.
    ///
    /// # Errors
    /// The connection failed.
    pub fn abort(self) -> Result<(), PlasmaError> {
        self.buffer.abort()
    }

    /// The same object in another state, for which the caller answers.
    fn into_state<S2>(self) -> Create<T, S2> {
        Create {
            buffer: self.buffer,
            len: self.len,
            object: PhantomData,
        }
    }
}

impl<T: ?Sized + PlasmaObject> Create<T, Uninit> {
    /// An object out of memory that was reserved for it.
    #[inline]
    pub(crate) fn new(mut buffer: ObjectBuffer, len: usize) -> Result<Self, PlasmaError> {
        let place = memory::check_place::<T>(buffer.data(), len as u64);
        place.map_err(|corruption| PlasmaError::Protocol {
            reason: format!("memory for an object that cannot hold it: {corruption}"),
            source: None,
        })?;
        if Layout::<T>::ELEMENT.is_some() {
            // What rounds the size up is nobody's to write, and must not show what was there before.
            let unused = buffer.data_mut().get_mut(Layout::<T>::used(len)..);
            unused.unwrap_or_default().fill(0);
        }
        Ok(Self {
            buffer,
            len,
            object: PhantomData,
        })
    }

    /// Zeroes the object.
    #[inline]
    pub(crate) fn zeroed(mut self) -> Create<T>
    where
        T: ZeroValid,
    {
        self.buffer.data_mut().fill(0);
        self.into_state()
    }

    /// Writes a copy of a value, of the same length if lengths differ.
    ///
    /// # Panics
    /// If the value is longer or shorter than the object.
    ///
    /// # Examples
    /// ```no_run
    /// # use plasma_typed::{ObjectId, TypedClient};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let client = TypedClient::connect("/tmp/plasma")?;
    /// let text = client.create_uninit_with_len::<str>(ObjectId::rand(), 5)?;
    /// let text = text.copy_from("hello").seal()?;
    /// # Ok(())
    /// # }
    /// ```
    #[track_caller]
    #[expect(
        clippy::indexing_slicing,
        reason = "as documented, if its user is mistaken"
    )]
    pub fn copy_from(mut self, value: &T) -> Create<T> {
        let len = T::tail_len(value);
        assert_eq!(
            len, self.len,
            "the object has another length than the value that is copied into it"
        );
        let bytes = memory::bytes_of(value);
        self.buffer.data_mut()[..bytes.len()].copy_from_slice(bytes);
        self.into_state()
    }

    /// The object's memory, to be written through code that takes bytes. Nothing has been written
    /// yet: it holds whatever was there before.
    pub fn as_uninit_bytes_mut(&mut self) -> &mut [MaybeUninit<u8>] {
        let used = ..Layout::<T>::used(self.len);
        let bytes = self.buffer.data_mut().get_mut(used).unwrap_or_default();
        let len = bytes.len();
        // SAFETY: bytes are of size and alignment 1, and in this state they are not read.
        unsafe { memory::assume_uninit(bytes, len) }
    }

    /// Takes the object as written.
    ///
    /// # Safety
    /// Every byte of it has been written, and together they are a value of `T`.
    pub unsafe fn assume_init(self) -> Create<T> {
        self.into_state()
    }
}

impl<T: PlasmaObject> Create<T, Uninit> {
    /// Writes the value.
    pub fn write(mut self, value: T) -> Create<T> {
        self.as_uninit_mut().write(value);
        self.into_state()
    }

    /// The object's memory, to be written in place; then [`assume_init`](Self::assume_init).
    pub fn as_uninit_mut(&mut self) -> &mut MaybeUninit<T> {
        let start = self.buffer.data_mut().as_mut_ptr().cast();
        // SAFETY: by the field's invariant these are the bytes of a `T`, aligned; they are borrowed
        // mutably, and a `MaybeUninit` may hold any.
        unsafe { &mut *start }
    }
}

impl<E: PlasmaObject> Create<[E], Uninit> {
    /// Writes each element, from what `element` returns for its index.
    ///
    /// ```no_run
    /// # use plasma_typed::{ObjectId, TypedClient};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let client = TypedClient::connect("/tmp/plasma")?;
    /// let ramp = client.create_uninit_with_len::<[f32]>(ObjectId::rand(), 1000)?;
    /// let ramp = ramp.fill_with(|i| i as f32).seal()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn fill_with(mut self, mut element: impl FnMut(usize) -> E) -> Create<[E]> {
        for (index, place) in self.as_uninit_mut().iter_mut().enumerate() {
            place.write(element(index));
        }
        self.into_state()
    }

    /// Writes a copy of a slice of the same length.
    ///
    /// # Panics
    /// If the slice is longer or shorter than the object.
    #[track_caller]
    pub fn copy_from_slice(self, elements: &[E]) -> Create<[E]> {
        self.copy_from(elements)
    }

    /// The object's memory, to be written in place; then [`assume_init`](Self::assume_init).
    pub fn as_uninit_mut(&mut self) -> &mut [MaybeUninit<E>] {
        let len = self.len;
        // SAFETY: by the field's invariant these are the bytes of `len` elements, aligned; in this
        // state they are not read.
        unsafe { memory::assume_uninit(self.buffer.data_mut(), len) }
    }
}

impl<T: ?Sized + PlasmaObject, S> Create<T, S> {
    /// Makes the object immutable, and visible to every process.
    ///
    /// # Errors
    /// The connection failed, or the store refused. The error gives the handle back: see
    /// [`SealError`].
    pub fn seal(mut self) -> Result<Sealed<T>, SealError<T>>
    where
        S: Written,
    {
        match self.buffer.seal() {
            Ok(()) => Ok(Sealed::from_sealed(self.buffer, self.len)),
            Err(source) => Err(SealError {
                handle: Box::new(self.into_state()),
                source,
            }),
        }
    }
}

impl<T: ?Sized + PlasmaObject> Deref for Create<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the field's invariant.
        unsafe { memory::assume(self.buffer.data(), self.len) }
    }
}

impl<T: ?Sized + PlasmaObject> DerefMut for Create<T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the field's invariant.
        unsafe { memory::assume_mut(self.buffer.data_mut(), self.len) }
    }
}

impl<T: ?Sized, S> fmt::Debug for Create<T, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Create")
            .field("key", &self.key())
            .field("size_bytes", &self.buffer.data().len())
            .finish_non_exhaustive()
    }
}

/// An object could not be sealed, as the connection failed; what was written is still there.
///
/// ```no_run
/// # use plasma_typed::{ObjectId, TypedClient};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let client = TypedClient::connect("/tmp/plasma")?;
/// let count = client.create::<u64>(ObjectId::rand())?;
/// if let Err(error) = count.seal() {
///     eprintln!("{error}");
///     let count = error.into_handle();
///     println!("what was written: {}", *count);
/// }
/// # Ok(())
/// # }
/// ```
pub struct SealError<T: ?Sized> {
    handle: Box<Create<T>>,
    source: PlasmaError,
}

impl<T: ?Sized> SealError<T> {
    /// The object as it was before the attempt, to be read, written and dropped. Whether it was
    /// sealed is not known, and somebody else may be reading it: what is written from now on nobody
    /// else sees, and sealing it fails again.
    pub fn into_handle(self) -> Create<T> {
        *self.handle
    }

    pub(crate) fn into_source(self) -> PlasmaError {
        self.source
    }

    /// Why it was not sealed.
    pub fn error(&self) -> &PlasmaError {
        &self.source
    }
}

impl<T: ?Sized> fmt::Display for SealError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "object {} was not sealed: {}",
            self.handle.id(),
            self.source
        )
    }
}

impl<T: ?Sized> fmt::Debug for SealError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealError")
            .field("handle", &self.handle)
            .field("source", &self.source)
            .finish()
    }
}

impl<T: ?Sized> Error for SealError<T> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.source)
    }
}
