//! The store's memory as this process maps it.
//!
//! # Why a `&[u8]` over this memory is sound
//!
//! Memory that another process can write is not memory that Rust's references expect. What makes
//! the slices of [`ObjectBuffer`](crate::ObjectBuffer) sound is the protocol: between create and
//! seal only the creator is told where an object lies, so it has the only reference; after seal
//! nobody writes it, and the store does not reuse the bytes while a client holds the object. Objects
//! are read through a mapping that the kernel made read-only, so a stray write through a sealed
//! object is a fault in the writer. A process that writes on purpose through a mapping of its own
//! is outside this contract, as with any shared file: clients of one store trust each other's
//! content (and nothing more: every number a peer sends is checked here before it becomes an
//! address).

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::{Arc, OnceLock};

use memmap2::{MmapMut, MmapOptions, MmapRaw};

use crate::PlasmaError;
use crate::protocol::message::ObjectSpec;

/// One of the store's segments: its descriptor, and mappings made when first needed.
#[derive(Debug)]
pub(crate) struct Segment {
    file: File,
    len: usize,
    read: OnceLock<MmapRaw>,
    write: OnceLock<MmapRaw>,
}

/// Whether memory is mapped for reading or for writing as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

impl Segment {
    /// Takes a descriptor that stands for `len` bytes.
    pub(crate) fn new(descriptor: OwnedFd, len: u64) -> Result<Self, PlasmaError> {
        let file = File::from(descriptor);
        let metadata = file.metadata().map_err(|source| PlasmaError::Io {
            action: "cannot examine the store's memory",
            source,
        })?;
        // Past the file's end a mapping is a fault waiting to happen.
        if metadata.len() < len {
            return Err(PlasmaError::protocol(format!(
                "a segment announced with {len} bytes has {}",
                metadata.len()
            )));
        }
        let len = usize::try_from(len)
            .map_err(|_| PlasmaError::protocol(format!("a segment of {len} bytes")))?;
        Ok(Self {
            file,
            len,
            read: OnceLock::new(),
            write: OnceLock::new(),
        })
    }

    fn map(&self, access: Access) -> Result<&MmapRaw, PlasmaError> {
        let cell = match access {
            Access::Read => &self.read,
            Access::Write => &self.write,
        };
        if let Some(mapping) = cell.get() {
            return Ok(mapping);
        }
        let mut options = MmapOptions::new();
        options.len(self.len);
        let mapping = match access {
            Access::Read => options.map_raw_read_only(&self.file),
            Access::Write => options.map_raw(&self.file),
        };
        let mapping = mapping.map_err(|source| PlasmaError::Map {
            len: self.len,
            source,
        })?;
        // Where two threads map at once, one mapping stays and the other goes.
        Ok(cell.get_or_init(|| mapping))
    }
}

/// One object's bytes in this process: data, and right behind it the metadata.
#[derive(Debug)]
pub(crate) struct Span {
    segment: Arc<Segment>,
    /// INVARIANT: the first byte of `data_len + meta_len` bytes inside `private`, or else inside the
    /// mapping of `segment` that `access` names. The mapping lives as long as the segment.
    start: NonNull<u8>,
    access: Access,
    /// Memory of this process, where the object is no longer in the store's.
    private: Option<Box<MmapMut>>,
    data_len: usize,
    meta_len: usize,
}

// SAFETY: the pointer is into a mapping that no thread owns and that `segment` keeps alive; shared
// reads need no more, and writes need `&mut Span`.
unsafe impl Send for Span {}
// SAFETY: as above: through `&Span` the memory is only read.
unsafe impl Sync for Span {}

impl Span {
    /// Finds an object in a segment, checking every number the store sent.
    #[inline]
    pub(crate) fn new(
        segment: &Arc<Segment>,
        spec: &ObjectSpec,
        access: Access,
    ) -> Result<Self, PlasmaError> {
        let outside = || {
            PlasmaError::protocol(format!(
                "an object outside its segment of {} bytes: {spec:?}",
                segment.len
            ))
        };
        let at = |number: u64| usize::try_from(number).map_err(|_| outside());
        let offset = at(spec.data_offset)?;
        let data_len = at(spec.data_size)?;
        let meta_len = at(spec.metadata_size)?;
        let meta_offset = offset.checked_add(data_len).ok_or_else(outside)?;
        if at(spec.metadata_offset)? != meta_offset {
            return Err(PlasmaError::protocol(format!(
                "metadata that is not behind its data: {spec:?}"
            )));
        }
        let end = meta_offset.checked_add(meta_len).ok_or_else(outside)?;
        if end > segment.len {
            return Err(outside());
        }
        Self::at(segment, offset, data_len, meta_len, access)
    }

    #[inline]
    /// INVARIANT of the caller: `offset + data_len + meta_len` is within the segment.
    fn at(
        segment: &Arc<Segment>,
        offset: usize,
        data_len: usize,
        meta_len: usize,
        access: Access,
    ) -> Result<Self, PlasmaError> {
        let base = segment.map(access)?.as_mut_ptr();
        let start = NonNull::new(base.wrapping_add(offset))
            .ok_or_else(|| PlasmaError::protocol("an object at address 0"))?;
        Ok(Self {
            segment: Arc::clone(segment),
            start,
            access,
            private: None,
            data_len,
            meta_len,
        })
    }

    /// The same bytes once more, unless they can be written.
    pub(crate) fn share(&self) -> Option<Self> {
        let Self {
            segment,
            start,
            access: Access::Read,
            private: None,
            data_len,
            meta_len,
        } = self
        else {
            return None;
        };
        Some(Self {
            segment: Arc::clone(segment),
            start: *start,
            access: Access::Read,
            private: None,
            data_len: *data_len,
            meta_len: *meta_len,
        })
    }

    /// A copy of the bytes in memory of this process, to be written by nobody else and read by
    /// nobody else. Pages are aligned at least as objects are.
    pub(crate) fn to_private(&self) -> Result<Self, PlasmaError> {
        let len = self.len();
        let failed = |source| PlasmaError::Map { len, source };
        // There is no mapping of no bytes.
        let mut copy = MmapMut::map_anon(len.max(1)).map_err(failed)?;
        let mut room = &mut copy[..];
        room.write_all(self.data()).map_err(failed)?;
        room.write_all(self.meta()).map_err(failed)?;
        let start = NonNull::new(copy.as_mut_ptr())
            .ok_or_else(|| PlasmaError::protocol("memory at address 0"))?;
        Ok(Self {
            segment: Arc::clone(&self.segment),
            start,
            access: Access::Write,
            private: Some(Box::new(copy)),
            data_len: self.data_len,
            meta_len: self.meta_len,
        })
    }

    /// The same bytes through the read-only mapping; for an object in the store's memory.
    pub(crate) fn to_read_only(&self) -> Result<Self, PlasmaError> {
        // Where it is in the one mapping, it is in the other.
        let base = self.segment.map(self.access)?.as_mut_ptr();
        Self::at(
            &self.segment,
            self.start.addr().get().wrapping_sub(base.addr()),
            self.data_len,
            self.meta_len,
            Access::Read,
        )
    }

    pub(crate) fn data(&self) -> &[u8] {
        // SAFETY: by the field's invariant `data_len` bytes from `start` lie in one live mapping;
        // nobody writes them while `self` is borrowed (see the module's contract).
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.data_len) }
    }

    pub(crate) fn meta(&self) -> &[u8] {
        let start = self.start.as_ptr().wrapping_add(self.data_len);
        // SAFETY: by the field's invariant `meta_len` bytes behind the data lie in the same live
        // mapping; nobody writes them while `self` is borrowed (see the module's contract).
        unsafe { std::slice::from_raw_parts(start, self.meta_len) }
    }

    /// Data and metadata, where the mapping is writable.
    fn parts_mut(&mut self) -> Option<(&mut [u8], &mut [u8])> {
        if self.access != Access::Write {
            return None;
        }
        let len = self.data_len + self.meta_len;
        // SAFETY: by the field's invariant these bytes lie in one live mapping, and it is writable;
        // `&mut self` is this process's only way to them, and before seal no other process has one.
        let bytes = unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), len) };
        bytes.split_at_mut_checked(self.data_len)
    }

    pub(crate) fn data_mut(&mut self) -> Option<&mut [u8]> {
        self.parts_mut().map(|(data, _)| data)
    }

    pub(crate) fn meta_mut(&mut self) -> Option<&mut [u8]> {
        self.parts_mut().map(|(_, meta)| meta)
    }

    pub(crate) fn len(&self) -> usize {
        self.data_len + self.meta_len
    }
}
