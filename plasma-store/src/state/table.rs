//! The objects, by id.

use std::collections::HashMap;

use foldhash::quality::RandomState;
use plasma_core::ObjectId;
use plasma_core::protocol::message::{Digest, ObjectInfo, ObjectSpec};
use plasma_core::shm::index::Listing;
use plasma_core::shm::pins::Use;
use slab::Slab;

use super::alloc::Range;
use super::lru::Link;
use super::{ClientId, SEGMENT};

/// An object's place in the table, the same for as long as it exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Slot(u32);

impl Slot {
    /// The slot of this number.
    pub(crate) fn from_number(number: u32) -> Self {
        Self(number)
    }

    pub(crate) fn number(self) -> u32 {
        self.0
    }
}

/// The objects, by slot. Whoever keeps a slot forgets it before its object goes, so there is always
/// one; should that ever fail, what is missing is passed over, and tests are told.
#[derive(Debug, Default)]
pub(crate) struct Objects(Slab<Object>);

impl Objects {
    pub(crate) fn get(&self, slot: Slot) -> Option<&Object> {
        let object = self.0.get(slot.0 as usize);
        debug_assert!(object.is_some(), "no object at {slot:?}");
        object
    }

    pub(crate) fn get_mut(&mut self, slot: Slot) -> Option<&mut Object> {
        let object = self.0.get_mut(slot.0 as usize);
        debug_assert!(object.is_some(), "no object at {slot:?}");
        object
    }
}

/// How far an object's life has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Its creator writes it.
    Creating,
    /// It is there, for ever the same.
    Sealed,
    /// It was evicted to the external store and has no memory here.
    Spilled,
    /// It has memory again, and its content is on its way back.
    Restoring,
}

/// What the store knows of an object. There may be millions: every byte counts.
#[derive(Debug)]
pub(crate) struct Object {
    pub(crate) id: ObjectId,
    pub(crate) stage: Stage,
    /// To be deleted when the last client lets go.
    pub(crate) delete_pending: bool,
    /// The creator has let go of it before sealing it.
    pub(crate) release_at_seal: bool,
    /// Clients that hold it.
    pub(crate) refs: u32,
    pub(crate) data_size: u64,
    pub(crate) metadata_size: u64,
    pub(crate) range: Range,
    /// Who may write, seal and abort it, until it is sealed.
    pub(crate) creator: ClientId,
    /// The client in whose quota it counts.
    pub(crate) owner: Option<ClientId>,
    pub(crate) link: Link,
    pub(crate) digest: Digest,
    pub(crate) create_time_s: i64,
    pub(crate) construct_duration_s: i64,
    /// Counts seals: subscribers are told of what is there in this order.
    pub(crate) seal_number: u64,
    /// What clients that read without asking know it by; another each time it gets memory.
    pub(crate) uid: u64,
}

impl Object {
    /// Bytes that count against the capacity.
    pub(crate) fn size(&self) -> u64 {
        self.data_size + self.metadata_size
    }

    pub(crate) fn spec(&self) -> ObjectSpec {
        ObjectSpec {
            segment: SEGMENT,
            data_offset: self.range.offset,
            data_size: self.data_size,
            metadata_offset: self.range.offset + self.data_size,
            metadata_size: self.metadata_size,
            device_num: 0,
        }
    }

    /// What clients that read without asking are to find.
    pub(crate) fn listing(&self, slot: Slot) -> Listing {
        Listing {
            uid: self.uid,
            id: self.id,
            segment: SEGMENT,
            offset: self.range.offset,
            data_size: self.data_size,
            metadata_size: self.metadata_size,
            slot: slot.0,
        }
    }

    pub(crate) fn info(&self) -> ObjectInfo {
        let sealed = self.stage != Stage::Creating;
        ObjectInfo {
            id: self.id,
            data_size: self.data_size,
            metadata_size: self.metadata_size,
            ref_count: self.refs,
            create_time_s: self.create_time_s,
            construct_duration_s: sealed.then_some(self.construct_duration_s),
            digest: sealed.then_some(self.digest),
        }
    }
}

/// The objects, by id and by slot.
#[derive(Debug, Default)]
pub(crate) struct Table {
    // Ids are the clients' choice, so the hash is keyed: who wants them to collide has to find out a
    // secret of this process first.
    slots: HashMap<ObjectId, Slot, RandomState>,
    pub(crate) objects: Objects,
}

impl Table {
    pub(crate) fn len(&self) -> usize {
        self.objects.0.len()
    }

    pub(crate) fn slot(&self, id: &ObjectId) -> Option<Slot> {
        self.slots.get(id).copied()
    }

    pub(crate) fn get(&self, id: &ObjectId) -> Option<(Slot, &Object)> {
        let slot = self.slot(id)?;
        Some((slot, self.objects.get(slot)?))
    }

    pub(crate) fn get_mut(&mut self, id: &ObjectId) -> Option<(Slot, &mut Object)> {
        let slot = self.slot(id)?;
        Some((slot, self.objects.get_mut(slot)?))
    }

    pub(crate) fn at(&self, slot: Slot) -> Option<&Object> {
        self.objects.get(slot)
    }

    pub(crate) fn at_mut(&mut self, slot: Slot) -> Option<&mut Object> {
        self.objects.get_mut(slot)
    }

    /// The object of this uid, if it is in a slot that somebody says it is in.
    pub(crate) fn claimed(&self, slot: Slot, uid: u64) -> Option<&Object> {
        let object = self.objects.0.get(slot.0 as usize);
        object.filter(|object| object.uid == uid)
    }

    /// Where the object is that somebody says to have used, if it is still there.
    pub(crate) fn used(&self, what: &Use) -> Option<Slot> {
        let object = self.objects.0.get(what.slot as usize)?;
        (object.uid as u32 == what.half_uid).then_some(Slot(what.slot))
    }

    /// Adds an object whose id is free; `None` once the table is full.
    pub(crate) fn insert(&mut self, object: Object) -> Option<Slot> {
        let slot = Slot(u32::try_from(self.objects.0.vacant_key()).ok()?);
        self.slots.insert(object.id, slot);
        self.objects.0.insert(object);
        Some(slot)
    }

    pub(crate) fn remove(&mut self, slot: Slot) -> Option<Object> {
        let object = self.objects.0.try_remove(slot.0 as usize);
        debug_assert!(object.is_some(), "no object at {slot:?}");
        let object = object?;
        self.slots.remove(&object.id);
        Some(object)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Slot, &Object)> {
        let objects = self.objects.0.iter();
        objects.map(|(index, object)| (Slot(index as u32), object))
    }
}
