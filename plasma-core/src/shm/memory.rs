//! Memory that both sides map: files without a name, of a size that never changes.
//!
//! # What makes references to this memory sound
//!
//! Nothing here is ever seen as anything but atomics and raw bytes. A peer may write whatever it
//! likes, whenever it likes, and for an atomic that is what it is for; every value that is read is
//! an arbitrary number until it has been checked. The files are sealed against shrinking, so a
//! mapping, once made, stays readable whatever a peer does: what it punches out of a file reads as
//! zeros, as long as the system has memory for that. Those that the store alone writes are sealed against
//! every later writer as well.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;

use memmap2::{MmapOptions, MmapRaw};
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, FcntlArg, SealFlag, fallocate, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::ftruncate;

use super::sync::{AtomicU32, AtomicU64};

/// Who may write a file that the store makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writers {
    /// The store alone, through the mapping that it makes with the file.
    Store,
    /// The store, and the client that is given the file.
    Client,
}

/// Types that any bytes are a value of, and that may change at any time.
///
/// # Safety
/// Such a type is atomics and nothing else: no byte of it is padding.
pub unsafe trait Shareable {}

// SAFETY: it is an atomic.
unsafe impl Shareable for AtomicU32 {}
// SAFETY: it is an atomic.
unsafe impl Shareable for AtomicU64 {}

/// A file that both sides map, and this side's mapping.
#[derive(Debug)]
pub struct Memory {
    /// Where it is still of use.
    file: Option<File>,
    mapping: MmapRaw,
    writable: bool,
}

impl Memory {
    /// Makes a file of `len` zero bytes, with nothing behind them yet.
    ///
    /// # Errors
    /// What the kernel says; among others that it is too old to seal what the store alone writes
    /// (Linux before 5.1).
    pub fn create(len: usize, writers: Writers) -> io::Result<Self> {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let descriptor = memfd_create(c"plasma-control", flags)?;
        let signed = i64::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?;
        ftruncate(&descriptor, signed)?;
        let file = File::from(descriptor);
        let mapping = MmapOptions::new().len(len).map_raw(&file)?;
        let mut seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        if writers == Writers::Store {
            // From here on nobody can map it writable, not even by opening it anew.
            seals |= SealFlag::F_SEAL_FUTURE_WRITE;
        }
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
        Ok(Self {
            file: Some(file),
            mapping,
            writable: true,
        })
    }

    /// Maps a file that the store made.
    ///
    /// # Errors
    /// It is shorter than `len`, or could become so; or what the kernel says.
    pub fn open(descriptor: OwnedFd, len: usize, writable: bool) -> io::Result<Self> {
        let file = File::from(descriptor);
        let seals = fcntl(&file, FcntlArg::F_GET_SEALS)?;
        let seals = SealFlag::from_bits_retain(seals);
        let long_enough = file.metadata()?.len() >= len as u64;
        if !seals.contains(SealFlag::F_SEAL_SHRINK) || !long_enough {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut options = MmapOptions::new();
        options.len(len);
        let mapping = if writable {
            options.map_raw(&file)?
        } else {
            options.map_raw_read_only(&file)?
        };
        Ok(Self {
            file: None,
            mapping,
            writable,
        })
    }

    /// How long it is, in bytes.
    pub fn len(&self) -> usize {
        self.mapping.len()
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether this side may write it.
    pub fn is_writable(&self) -> bool {
        self.writable
    }

    /// The file, for a peer; `None` where it was a peer's, or was taken.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.file.as_ref().map(File::as_fd)
    }

    /// The file, for one peer alone: this side needs no more than its mapping.
    pub fn take_descriptor(&mut self) -> Option<OwnedFd> {
        self.file.take().map(OwnedFd::from)
    }

    /// Puts memory behind `len` bytes from `offset`, which are then there for good.
    ///
    /// # Errors
    /// There is no memory.
    pub fn populate(&self, offset: usize, len: usize) -> io::Result<()> {
        let number = |n| i64::try_from(n).map_err(|_| io::ErrorKind::InvalidInput);
        let (offset, len) = (number(offset)?, number(len)?);
        let file = self.file.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        loop {
            match fallocate(file.as_fd(), FallocateFlags::empty(), offset, len) {
                Err(Errno::EINTR) => {}
                result => return Ok(result?),
            }
        }
    }

    /// `count` values from `offset` on; `None` unless all of them are inside, and aligned.
    #[cfg(not(plasma_loom))]
    pub fn slice<T: Shareable>(self: &Arc<Self>, offset: usize, count: usize) -> Option<Slice<T>> {
        let len = count.checked_mul(size_of::<T>())?;
        let end = offset.checked_add(len)?;
        let aligned = offset.is_multiple_of(align_of::<T>());
        if end > self.mapping.len() || !aligned {
            return None;
        }
        // Pages are aligned more than any type is.
        let start = self.mapping.as_mut_ptr().wrapping_add(offset).cast();
        Some(Slice {
            start: NonNull::new(start)?,
            count,
            memory: Arc::clone(self),
        })
    }

    /// The model checker's atomics are not the memory's.
    #[cfg(plasma_loom)]
    pub fn slice<T: Shareable>(
        self: &Arc<Self>,
        _offset: usize,
        _count: usize,
    ) -> Option<Slice<T>> {
        None
    }
}

/// Values in memory that both sides map. Only [`Memory`] that [is writable](Memory::is_writable)
/// may be stored to.
#[cfg(not(plasma_loom))]
#[derive(Debug)]
pub struct Slice<T> {
    /// INVARIANT: the first of `count` values inside the mapping of `memory`, aligned.
    start: NonNull<T>,
    count: usize,
    memory: Arc<Memory>,
}

/// Values that the threads of a model share.
#[cfg(plasma_loom)]
#[derive(Debug)]
pub struct Slice<T>(Arc<[T]>);

#[cfg(plasma_loom)]
impl<T> Slice<T> {
    /// Values of the model's.
    pub fn model(values: Vec<T>) -> Self {
        Self(values.into())
    }
}

impl<T> Clone for Slice<T> {
    fn clone(&self) -> Self {
        #[cfg(plasma_loom)]
        return Self(Arc::clone(&self.0));
        #[cfg(not(plasma_loom))]
        Self {
            start: self.start,
            count: self.count,
            memory: Arc::clone(&self.memory),
        }
    }
}

#[cfg(not(plasma_loom))]
// SAFETY: what it points to lives as long as `memory`, wherever that is moved, and is atomics.
unsafe impl<T: Shareable> Send for Slice<T> {}
#[cfg(not(plasma_loom))]
// SAFETY: as above: atomics may be used by all threads at once.
unsafe impl<T: Shareable> Sync for Slice<T> {}

impl<T: Shareable> Deref for Slice<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        #[cfg(plasma_loom)]
        return &self.0;
        // SAFETY: by the field's invariant these are `count` aligned values inside a mapping that
        // lives as long as `self`. Any bytes are a `T`, and being atomics they may change meanwhile.
        #[cfg(not(plasma_loom))]
        unsafe {
            std::slice::from_raw_parts(self.start.as_ptr(), self.count)
        }
    }
}

/// Bytes in memory that both sides map: copied in and out, and never seen in place.
#[derive(Debug)]
pub struct Bytes {
    /// INVARIANT: the first of `len` bytes inside the mapping of `memory`.
    start: NonNull<u8>,
    len: usize,
    memory: Arc<Memory>,
}

// SAFETY: what it points to lives as long as the memory does, wherever that is moved, and is only
// copied from and to.
unsafe impl Send for Bytes {}
// SAFETY: as above. Through `&Bytes` bytes are read into memory of the caller's.
unsafe impl Sync for Bytes {}

impl Bytes {
    /// None, for a model.
    #[cfg(all(plasma_loom, test))]
    pub(super) fn none() -> Self {
        let memory = Memory::create(1, Writers::Client).expect("there is memory");
        Self::new(&Arc::new(memory), 0, 0).expect("none are inside")
    }

    /// `len` bytes from `offset` on; `None` unless all of them are inside.
    pub fn new(memory: &Arc<Memory>, offset: usize, len: usize) -> Option<Self> {
        let end = offset.checked_add(len)?;
        if end > memory.mapping.len() {
            return None;
        }
        let start = memory.mapping.as_mut_ptr().wrapping_add(offset);
        Some(Self {
            start: NonNull::new(start)?,
            len,
            memory: Arc::clone(memory),
        })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The address of `len` bytes from `offset` on, if all of them are inside.
    fn place(&self, offset: usize, len: usize) -> Option<*mut u8> {
        let inside = offset.checked_add(len).is_some_and(|end| end <= self.len);
        inside.then(|| self.start.as_ptr().wrapping_add(offset))
    }

    /// Writes bytes at `offset`; whether there was room, in memory that may be written.
    pub fn write(&mut self, offset: usize, bytes: &[u8]) -> bool {
        let place = self.place(offset, bytes.len());
        let Some(place) = place.filter(|_| self.memory.writable) else {
            return false;
        };
        // SAFETY: `place` has found that many bytes inside the mapping, which is writable; `bytes` is memory of this process's own, so they do not overlap.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), place, bytes.len()) };
        true
    }

    /// Hands the address of `len` bytes from `offset` on to whoever copies them out.
    ///
    /// The peer may change them meanwhile: what is copied is whatever was there.
    pub fn source(&self, offset: u64, len: u64) -> Option<Source<'_>> {
        let len = usize::try_from(len).ok()?;
        let start = self.place(usize::try_from(offset).ok()?, len)?;
        Some(Source {
            start,
            len,
            _bytes: self,
        })
    }
}

/// Bytes that a peer may still be writing, to be copied once.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// INVARIANT: the first of `len` bytes in a mapping that outlives `'a`.
    start: *const u8,
    len: usize,
    _bytes: &'a Bytes,
}

impl Source<'_> {
    /// The first of the bytes. They are readable for as long as this lives.
    pub fn as_ptr(&self) -> *const u8 {
        self.start
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// A copy of them.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut copy = vec![0; self.len];
        // SAFETY: by the field's invariant `len` bytes from `start` are readable; `copy` is this
        // process's own and has as many.
        unsafe { std::ptr::copy_nonoverlapping(self.start, copy.as_mut_ptr(), self.len) };
        copy
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}
