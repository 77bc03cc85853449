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
use std::marker::PhantomData;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::OnceLock;

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

    /// Finds an object, checking every number the store sent.
    pub(crate) fn place(
        &self,
        spec: &ObjectSpec,
        access: Access,
    ) -> Result<InSegment<'_>, PlasmaError> {
        let inside = self.inside(spec);
        let at = |access, offset| {
            let base = self.map(access)?.as_mut_ptr();
            // No mapping reaches round to there.
            NonNull::new(base.wrapping_add(offset)).ok_or_else(|| self.outside(spec))
        };
        let [offset, data_len, meta_len] = inside.ok_or_else(|| self.outside(spec))?;
        let read = at(Access::Read, offset)?;
        let write = match access {
            Access::Read => None,
            Access::Write => Some(at(Access::Write, offset)?),
        };
        Ok(InSegment::new(read, write, data_len, meta_len))
    }

    /// The same for reading, if the segment is mapped and the object is inside.
    #[inline(always)]
    pub(crate) fn place_if_mapped(&self, spec: &ObjectSpec) -> Option<InSegment<'_>> {
        let [offset, data_len, meta_len] = self.inside(spec)?;
        let base = self.read.get()?.as_mut_ptr();
        let read = NonNull::new(base.wrapping_add(offset))?;
        Some(InSegment::new(read, None, data_len, meta_len))
    }

    /// Where an object starts, and the bytes of its data and of its metadata, if all of it is inside.
    #[inline(always)]
    fn inside(&self, spec: &ObjectSpec) -> Option<[usize; 3]> {
        let at = |number| usize::try_from(number).ok();
        let offset = at(spec.data_offset)?;
        let data_len = at(spec.data_size)?;
        let meta_len = at(spec.metadata_size)?;
        let meta_offset = offset.checked_add(data_len)?;
        let behind = at(spec.metadata_offset)? == meta_offset;
        let end = meta_offset.checked_add(meta_len)?;
        (behind && end <= self.len).then_some([offset, data_len, meta_len])
    }

    fn outside(&self, spec: &ObjectSpec) -> PlasmaError {
        PlasmaError::protocol(format!(
            "an object outside its segment of {} bytes, or with its metadata elsewhere than behind \
             its data: {spec:?}",
            self.len
        ))
    }

    /// The segment in this process's memory.
    pub(crate) fn map(&self, access: Access) -> Result<&MmapRaw, PlasmaError> {
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

/// An object's bytes in a segment, as long as the segment lives.
pub(crate) struct InSegment<'a> {
    span: Span,
    _segment: PhantomData<&'a Segment>,
}

impl InSegment<'_> {
    #[inline(always)]
    fn new(
        read: NonNull<u8>,
        write: Option<NonNull<u8>>,
        data_len: usize,
        meta_len: usize,
    ) -> Self {
        Self {
            span: Span {
                read,
                write,
                data_len,
                meta_len,
                _own: None,
            },
            _segment: PhantomData,
        }
    }

    /// The bytes without their segment.
    ///
    /// # Safety
    /// The segment lives as long as the span and all that are [shared](Span::share) from it.
    #[inline(always)]
    pub(crate) unsafe fn unbound(self) -> Span {
        self.span
    }
}

/// One object's bytes in this process: data, and right behind it the metadata.
///
/// It does not keep its segment: see [`InSegment::unbound`].
#[derive(Debug)]
pub(crate) struct Span {
    /// INVARIANT: the first of `data_len + meta_len` bytes that stay mapped as long as this lives,
    /// inside `_own` or else inside a segment.
    read: NonNull<u8>,
    /// INVARIANT: the same bytes, or the same memory mapped once more and writable.
    write: Option<NonNull<u8>>,
    data_len: usize,
    meta_len: usize,
    /// Memory of this process, where the object is no longer in the store's.
    _own: Option<Box<MmapMut>>,
}

// SAFETY: the pointers are into mappings that no thread owns and that stay for as long as this lives;
// shared reads need no more, and writes need `&mut Span`.
unsafe impl Send for Span {}
// SAFETY: as above: through `&Span` the memory is only read.
unsafe impl Sync for Span {}

impl Span {
    /// The same bytes once more, unless they can be written.
    pub(crate) fn share(&self) -> Option<Self> {
        self.write.is_none().then_some(Self {
            read: self.read,
            write: None,
            data_len: self.data_len,
            meta_len: self.meta_len,
            _own: None,
        })
    }

    /// Moves to a copy of the bytes in memory of this process, to be written by nobody else and read by
    /// nobody else. Pages are aligned at least as objects are.
    pub(crate) fn make_private(&mut self) -> Result<(), PlasmaError> {
        let len = self.len();
        let failed = |source| PlasmaError::Map { len, source };
        // There is no mapping of no bytes.
        let mut copy = MmapMut::map_anon(len.max(1)).map_err(failed)?;
        let mut room = &mut copy[..];
        room.write_all(self.data()).map_err(failed)?;
        room.write_all(self.meta()).map_err(failed)?;
        let start = NonNull::new(copy.as_mut_ptr())
            .ok_or_else(|| PlasmaError::protocol("memory at address 0"))?;
        *self = Self {
            read: start,
            write: Some(start),
            data_len: self.data_len,
            meta_len: self.meta_len,
            _own: Some(Box::new(copy)),
        };
        Ok(())
    }

    /// Gives up writing: from here on the bytes are read through the read-only mapping.
    pub(crate) fn make_read_only(&mut self) {
        self.write = None;
    }

    /// The first byte. Who can write reads what it wrote through the same mapping.
    fn start(&self) -> *const u8 {
        self.write.unwrap_or(self.read).as_ptr()
    }

    pub(crate) fn data(&self) -> &[u8] {
        // SAFETY: by the fields' invariants `data_len` bytes from there lie in one live mapping;
        // nobody writes them while `self` is borrowed (see the module's contract).
        unsafe { std::slice::from_raw_parts(self.start(), self.data_len) }
    }

    pub(crate) fn meta(&self) -> &[u8] {
        let start = self.start().wrapping_add(self.data_len);
        // SAFETY: by the fields' invariants `meta_len` bytes behind the data lie in the same live
        // mapping; nobody writes them while `self` is borrowed (see the module's contract).
        unsafe { std::slice::from_raw_parts(start, self.meta_len) }
    }

    /// Data and metadata, where they can be written.
    fn parts_mut(&mut self) -> Option<(&mut [u8], &mut [u8])> {
        let start = self.write?.as_ptr();
        let len = self.data_len + self.meta_len;
        // SAFETY: by the field's invariant these bytes lie in one live mapping, and it is writable;
        // `&mut self` is this process's only way to them, and before seal no other process has one.
        let bytes = unsafe { std::slice::from_raw_parts_mut(start, len) };
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
