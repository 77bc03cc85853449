//! One object's bytes in this process.
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
//! content (and nothing more: every number a peer sends is checked before it becomes an address).

use std::io::Write;
use std::ptr::NonNull;
use std::sync::Arc;

use memmap2::MmapMut;

use crate::PlasmaError;
use crate::protocol::message::ObjectSpec;
use crate::segment::{Access, InSegment};
use crate::session::Session;

/// One object's bytes: data, and right behind it the metadata.
pub(crate) struct Span {
    /// INVARIANT: the first of `data_len + meta_len` bytes that stay mapped as long as this lives,
    /// inside `_own` or else inside a segment that `session` keeps.
    read: NonNull<u8>,
    /// INVARIANT: the same bytes, or the same memory mapped once more and writable.
    write: Option<NonNull<u8>>,
    data_len: usize,
    meta_len: usize,
    /// Memory of this process, where the object is no longer in the store's.
    _own: Option<Box<MmapMut>>,
    session: Arc<Session>,
}

// SAFETY: the pointers are into mappings that no thread owns and that stay for as long as this lives;
// shared reads need no more, and writes need `&mut Span`. What keeps them may be sent, too.
unsafe impl Send for Span {}
// SAFETY: as above: through `&Span` the memory is only read.
unsafe impl Sync for Span {}

/// What the two above leave to the compiler: that the session may be sent and shared.
const _: () = {
    const fn is_send_and_sync<T: Send + Sync>() {}
    is_send_and_sync::<Arc<Session>>();
};

impl Span {
    /// Finds an object in the segments that a session was told of, checking every number the store
    /// sent. A connection whose store was wrong is of no more use.
    pub(crate) fn find(
        session: &Arc<Session>,
        spec: &ObjectSpec,
        access: Access,
    ) -> Result<Self, PlasmaError> {
        let connection = &session.connection;
        if let Some(segment) = session.segment_of_plane(spec.segment) {
            let place = segment.place(spec, access);
            let place = place.map_err(|error| connection.judge(error))?;
            // SAFETY: it is the segment of the session's own plane.
            return Ok(unsafe { Self::bind(session, place) });
        }
        let Some(segment) = connection.segment(spec.segment) else {
            let error = format!("an object in a segment never named: {spec:?}");
            return Err(connection.give_up(PlasmaError::protocol(error)));
        };
        let place = segment.place(spec, access);
        let place = place.map_err(|error| connection.judge(error))?;
        // SAFETY: a connection never forgets or replaces a segment, and this one is the session's own.
        Ok(unsafe { Self::bind(session, place) })
    }

    /// The same for reading, if the segment is the control plane's, and mapped, and all is as it
    /// should be.
    #[inline(always)]
    pub(crate) fn find_mapped(session: &Arc<Session>, spec: &ObjectSpec) -> Option<Self> {
        let segment = session.segment_of_plane(spec.segment)?;
        let place = segment.place_if_mapped(spec)?;
        // SAFETY: it is the segment of the session's own plane.
        Some(unsafe { Self::bind(session, place) })
    }

    /// An object's bytes, which stay where they are as long as the session is kept.
    ///
    /// # Safety
    /// The place is in a segment that lives as long as the session.
    #[inline(always)]
    unsafe fn bind(session: &Arc<Session>, place: InSegment<'_>) -> Self {
        Self {
            read: place.read,
            write: place.write,
            data_len: place.data_len,
            meta_len: place.meta_len,
            _own: None,
            session: Arc::clone(session),
        }
    }

    /// The session that it was found in.
    pub(crate) fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// The same bytes once more, unless they can be written.
    pub(crate) fn share(&self) -> Option<Self> {
        self.write.is_none().then_some(Self {
            read: self.read,
            write: None,
            data_len: self.data_len,
            meta_len: self.meta_len,
            _own: None,
            session: Arc::clone(&self.session),
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
            session: Arc::clone(&self.session),
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

    pub(crate) fn is_writable(&self) -> bool {
        self.write.is_some()
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
