//! The store's memory as this process maps it.

use std::fs::File;
use std::marker::PhantomData;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::OnceLock;

use memmap2::{MmapOptions, MmapRaw};

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
        Ok(InSegment {
            read,
            write,
            data_len,
            meta_len,
            _segment: PhantomData,
        })
    }

    /// The same for reading, if the segment is mapped and the object is inside.
    #[inline(always)]
    pub(crate) fn place_if_mapped(&self, spec: &ObjectSpec) -> Option<InSegment<'_>> {
        let [offset, data_len, meta_len] = self.inside(spec)?;
        let base = self.read.get()?.as_mut_ptr();
        let read = NonNull::new(base.wrapping_add(offset))?;
        Some(InSegment {
            read,
            write: None,
            data_len,
            meta_len,
            _segment: PhantomData,
        })
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
        let inside = spec.device_num == 0 && behind && end <= self.len;
        inside.then_some([offset, data_len, meta_len])
    }

    fn outside(&self, spec: &ObjectSpec) -> PlasmaError {
        PlasmaError::protocol(format!(
            "an object outside its segment of {} bytes, or on another device, or with its metadata \
             elsewhere than behind its data: {spec:?}",
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

/// Where an object's bytes are: data, and right behind it the metadata.
#[derive(Debug)]
pub(crate) struct InSegment<'a> {
    /// INVARIANT: the first of `data_len + meta_len` bytes that are mapped as long as the segment lives.
    pub(crate) read: NonNull<u8>,
    /// INVARIANT: the same memory mapped once more and writable.
    pub(crate) write: Option<NonNull<u8>>,
    pub(crate) data_len: usize,
    pub(crate) meta_len: usize,
    _segment: PhantomData<&'a Segment>,
}
