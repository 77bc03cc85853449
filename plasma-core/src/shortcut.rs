//! Calls that take the short way: through the shared control plane instead of the socket.
//!
//! Each is `None` where it cannot, for whatever reason, and the socket can: then nothing has
//! happened.
//!
//! What a get goes through is inlined into one function: to hand what was found from one function to
//! the next through memory took as long as to find it.

use std::sync::Arc;

use crate::object::Hold;
use crate::plane::Plane;
use crate::protocol::message::{Digest, NewObject, ObjectSpec};
use crate::segment::Access;
use crate::session::Session;
use crate::shm::index::{Extent, Place};
use crate::shm::pins::{Got, Pin};
use crate::shm::ring::{Created, Op, RingRequest};
use crate::span::Span;
use crate::{ObjectBuffer, ObjectId, PlasmaError};

/// Objects up to this size are created through the ring, in bytes. The store may have to find memory
/// for a larger one first, and the ring is one client's threads' together.
const MAX_CREATE: u64 = 1 << 20;

/// Content up to this size travels in the ring, in bytes. What is longer is created and written in
/// place: one round trip more, and one copy less.
pub(crate) const MAX_CONTENT: usize = 16 << 10;

type Short<T> = Result<Option<T>, PlasmaError>;

/// What came of a get, for each id.
pub(crate) type Buffers = Vec<Option<ObjectBuffer>>;

impl Session {
    /// The control plane, if there is one that is in use.
    #[inline(always)]
    fn plane_in_use(&self) -> Option<&Plane> {
        let plane = self.plane.as_ref()?;
        let connection = &self.connection;
        // Otherwise the socket says what is the matter.
        if !connection.is_ours() || connection.is_broken() {
            return None;
        }
        if !plane.is_kept() {
            self.give_up_store();
            return None;
        }
        Some(plane)
    }

    /// The same, and all that was sent through a socket has been seen to. Where there is none, what waits
    /// have sent has: the rest goes through the socket that the next request takes as well.
    #[inline]
    fn plane(&self) -> Short<&Plane> {
        let plane = self.plane_in_use();
        self.settle_waits();
        if plane.is_some() && self.connection.is_behind() {
            self.connection.catch_up()?;
        }
        Ok(plane)
    }

    /// The store has gone. The socket need not show it: a process that the store's was forked into may
    /// have the other end.
    #[cold]
    fn give_up_store(&self) {
        let _ = self.connection.give_up(PlasmaError::Disconnected);
    }

    #[inline]
    fn pinned(
        self: &Arc<Self>,
        plane: &Plane,
        pin: Pin,
        id: ObjectId,
        extent: Extent,
    ) -> Result<ObjectBuffer, PlasmaError> {
        let spec = spec(extent);
        if let Some(span) = Span::find_mapped(self, &spec) {
            return Ok(ObjectBuffer::sealed(id, span, Hold::Pinned(pin)));
        }
        match Span::find(self, &spec, Access::Read) {
            Ok(span) => Ok(ObjectBuffer::sealed(id, span, Hold::Pinned(pin))),
            Err(error) => {
                self.unpin(plane, pin, &id);
                Err(error)
            }
        }
    }

    #[inline]
    fn unpin(&self, plane: &Plane, pin: Pin, id: &ObjectId) {
        if plane.release(pin, id) {
            self.connection.set_behind();
        }
    }

    /// Gets one object that is there; `None` where it is not, or that is not certain.
    #[inline(always)]
    pub(crate) fn get_if_there(self: &Arc<Self>, id: &ObjectId) -> Option<ObjectBuffer> {
        let plane = self.plane_in_use()?;
        if self.connection.is_behind() || self.waits_are_behind() {
            return None;
        }
        let (pin, extent) = plane.get_if_there(id)?;
        let Some(span) = Span::find_mapped(self, &spec(extent)) else {
            self.unpin(plane, pin, id);
            return None;
        };
        Some(ObjectBuffer::sealed(*id, span, Hold::Pinned(pin)))
    }

    /// Gets one object; `Some(None)` if it is not there and there is no time to wait for it.
    pub(crate) fn get_shortly(
        self: &Arc<Self>,
        id: &ObjectId,
        timeout_ms: i64,
    ) -> Short<Option<ObjectBuffer>> {
        let Some(plane) = self.plane()? else {
            return Ok(None);
        };
        let mut may_come = timeout_ms != 0;
        loop {
            return match plane.get(id) {
                Got::Pinned(pin, extent) => {
                    let buffer = self.pinned(plane, pin, *id, extent)?;
                    Ok(Some(Some(buffer)))
                }
                Got::Nowhere if may_come => {
                    may_come = false;
                    plane.watch_for(id);
                    continue;
                }
                Got::Nowhere if timeout_ms == 0 => Ok(Some(None)),
                Got::Nowhere | Got::Unknown => Ok(None),
            };
        }
    }

    /// Gets those of many objects that it can, and says whether the others are known not to be there.
    pub(crate) fn get_many_shortly(self: &Arc<Self>, ids: &[ObjectId]) -> Short<(Buffers, bool)> {
        let Some(plane) = self.plane()? else {
            return Ok(None);
        };
        let mut all_known = true;
        let found = plane.get_many(ids);
        // Every pin becomes a buffer, or is given back, before an error is told.
        let buffers: Vec<_> = found
            .into_iter()
            .zip(ids)
            .map(|(got, id)| match got {
                Got::Pinned(pin, extent) => self.pinned(plane, pin, *id, extent).map(Some),
                Got::Nowhere => Ok(None),
                Got::Unknown => {
                    all_known = false;
                    Ok(None)
                }
            })
            .collect();
        let buffers: Result<Buffers, _> = buffers.into_iter().collect();
        Ok(Some((buffers?, all_known)))
    }

    /// Whether an object is sealed.
    #[inline]
    pub(crate) fn contains_shortly(&self, id: &ObjectId) -> Short<bool> {
        Ok(self.plane()?.and_then(|plane| plane.contains(id)))
    }

    /// Notes objects as used.
    pub(crate) fn refresh_shortly(&self, ids: &[ObjectId]) -> Short<()> {
        let plane = self.plane()?;
        Ok(plane.and_then(|plane| plane.refresh(ids).then_some(())))
    }

    /// Creates an object.
    pub(crate) fn create_shortly(
        self: &Arc<Self>,
        id: ObjectId,
        data_size: u64,
        metadata_size: u64,
        evict_if_full: bool,
    ) -> Short<ObjectBuffer> {
        let Some(plane) = self.plane()? else {
            return Ok(None);
        };
        if data_size.saturating_add(metadata_size) > MAX_CREATE {
            return Ok(None);
        }
        let request = RingRequest {
            evict_if_full,
            data_size,
            metadata_size,
            ..RingRequest::about(Op::Create, id)
        };
        let Some(created) = plane.call(&self.connection, request, [&[], &[]]) else {
            return Ok(None);
        };
        let (outcome, created) = created?;
        self.accepted(outcome, data_size + metadata_size)?;
        let extent = Extent {
            segment: created.segment,
            offset: created.offset,
            data_size,
            metadata_size,
        };
        match Span::find(self, &spec(extent), Access::Write) {
            Ok(span) => {
                let hold = Hold::Created(created);
                Ok(Some(ObjectBuffer::writing(id, span, hold)))
            }
            Err(error) => {
                self.connection.abandon(id);
                Err(error)
            }
        }
    }

    /// Seals an object of this client's, and goes on holding it.
    pub(crate) fn seal_shortly(
        &self,
        id: ObjectId,
        created: &Created,
        digest: Digest,
    ) -> Short<Pin> {
        let Some(plane) = self.plane()? else {
            return Ok(None);
        };
        // Before the store lets go of it on this client's behalf.
        let Some(pin) = plane.pin_own(created) else {
            return Ok(None);
        };
        let request = RingRequest {
            digest,
            ..RingRequest::about(Op::Seal, id)
        };
        let Some(answer) = plane.call(&self.connection, request, [&[], &[]]) else {
            plane.unpin_own(pin);
            return Ok(None);
        };
        // Where there is no answer it may have been sealed, and be this pin that keeps it where the
        // buffer reads it: the pin stays until the store takes everything back.
        let (outcome, sealed) = answer?;
        if let Err(code) = outcome {
            plane.unpin_own(pin);
            return Err(self.refusal(code, 0));
        }
        let place = Place::from_number(sealed.offset).unwrap_or(Place::NOT_KNOWN);
        Ok(Some(pin.placed(place)))
    }

    /// Creates and seals an object with this content.
    pub(crate) fn put_shortly(&self, object: &NewObject<'_>, evict_if_full: bool) -> Short<()> {
        self.put_all_shortly(std::slice::from_ref(object), evict_if_full, false)
    }

    /// Creates and seals many objects, or none.
    pub(crate) fn put_batch_shortly(
        &self,
        objects: &[NewObject<'_>],
        evict_if_full: bool,
    ) -> Short<()> {
        self.put_all_shortly(objects, evict_if_full, true)
    }

    fn put_all_shortly(
        &self,
        objects: &[NewObject<'_>],
        evict_if_full: bool,
        as_one: bool,
    ) -> Short<()> {
        let Some(plane) = self.plane()? else {
            return Ok(None);
        };
        let longest = objects.iter().map(content_len).max().unwrap_or(0);
        if longest > MAX_CONTENT || !plane.takes(longest) {
            return Ok(None);
        }
        let last = objects.len().saturating_sub(1);
        let requests = objects.iter().enumerate().map(|(number, object)| {
            let op = match (as_one, number == last) {
                (false, _) => Op::CreateAndSeal,
                (true, false) => Op::Batch,
                (true, true) => Op::BatchEnd,
            };
            let request = RingRequest {
                evict_if_full,
                data_size: object.data.len() as u64,
                metadata_size: object.metadata.len() as u64,
                digest: object.digest,
                ..RingRequest::about(op, object.id)
            };
            (request, [object.data, object.metadata])
        });
        let mut outcome = Ok(());
        let asked = plane.call_all(&self.connection, requests, |(last, _)| outcome = last);
        match asked {
            None => Ok(None),
            Some(asked) => {
                asked?;
                let sizes = objects
                    .iter()
                    .map(content_len)
                    .fold(0, usize::saturating_add);
                self.accepted(outcome, sizes as u64).map(Some)
            }
        }
    }

    /// Deletes objects.
    pub(crate) fn delete_shortly(&self, ids: &[ObjectId]) -> Short<()> {
        let Some(plane) = self.plane()? else {
            return Ok(None);
        };
        let requests = ids
            .iter()
            .map(|id| (RingRequest::about(Op::Delete, *id), [&[][..], &[]]));
        let asked = plane.call_all(&self.connection, requests, |_| {});
        asked.transpose()
    }

    /// Counts one more buffer of an object that has one.
    pub(crate) fn retain(&self, id: ObjectId, hold: &Hold) {
        match (hold, &self.plane) {
            (Hold::Pinned(pin), Some(plane)) => plane.share(*pin),
            _ => self.connection.retain(id),
        }
    }

    /// Lets go of one buffer of a sealed object.
    #[inline]
    pub(crate) fn let_go(&self, id: ObjectId, hold: &Hold) {
        match (hold, &self.plane) {
            (Hold::Pinned(pin), Some(plane)) => {
                // After a fork these are the parent's pins.
                if self.connection.is_ours() {
                    self.unpin(plane, *pin, &id);
                }
            }
            _ => self.connection.release(id),
        }
    }
}

fn content_len(object: &NewObject<'_>) -> usize {
    object.data.len().saturating_add(object.metadata.len())
}

#[inline(always)]
fn spec(extent: Extent) -> ObjectSpec {
    ObjectSpec {
        segment: extent.segment,
        data_offset: extent.offset,
        data_size: extent.data_size,
        // Where this is too much, it is not inside any segment either.
        metadata_offset: extent.offset.saturating_add(extent.data_size),
        metadata_size: extent.metadata_size,
        device_num: 0,
    }
}
