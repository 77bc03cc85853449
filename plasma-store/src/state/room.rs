//! How room is made: by deleting, and by evicting.

use foldhash::HashSet;
use plasma_core::ObjectId;
use plasma_core::protocol::message::{ErrorCode, Notification, Outcome};

use super::alloc::Range;
use super::lru::{MOST_AHEAD, Portion};
use super::readers::Readers;
use super::table::{Slot, Stage};
use super::{Carry, ClientId, Effects, Now, State, Transfer};

/// How much was evicted.
#[derive(Clone, Copy, Debug, Default)]
struct Evicted {
    objects: u64,
    bytes: u64,
    /// Some were not, since somebody has come to hold them.
    kept: bool,
}

impl<R: Readers> State<R> {
    /// Deletes objects, now or when they are sealed and nobody holds them.
    pub(crate) fn delete(
        &mut self,
        ids: &[ObjectId],
        now: Now,
        fx: &mut Effects,
    ) -> Vec<(ObjectId, Outcome)> {
        let mut sealed = Vec::new();
        let mut outcomes = Vec::with_capacity(ids.len());
        for (number, id) in ids.iter().enumerate() {
            let outcome = match self.table.get_mut(id) {
                None => Err(ErrorCode::ObjectNotFound),
                Some((slot, object)) => {
                    object.delete_pending = true;
                    match object.stage {
                        Stage::Creating => Err(ErrorCode::ObjectNotSealed),
                        // Its content is still being written: those who wait get it first.
                        Stage::Restoring => Err(ErrorCode::ObjectInUse),
                        Stage::Sealed => {
                            sealed.push((number, slot));
                            // Those that nobody holds are found below, all together.
                            Err(ErrorCode::ObjectInUse)
                        }
                        Stage::Spilled => {
                            self.starved.remove(&(object.size(), *id));
                            self.table.remove(slot);
                            fx.carries.push(Carry::Away(*id));
                            fx.announce(Notification::Deleted(*id));
                            Ok(())
                        }
                    }
                }
            };
            outcomes.push((*id, outcome));
        }
        // An id may be there more than once: then it is the first that deletes the object.
        let mut again = Vec::new();
        if sealed.len() > 1 {
            let mut named = HashSet::default();
            (sealed, again) = sealed
                .into_iter()
                .partition(|(_, slot)| named.insert(*slot));
        }
        let slots: Vec<_> = sealed.iter().map(|(_, slot)| *slot).collect();
        let dropped = self.drop_those_free(&slots, fx);
        for ((number, _), dropped) in sealed.iter().zip(&dropped) {
            if let Some((_, outcome)) = outcomes.get_mut(*number).filter(|_| *dropped) {
                *outcome = Ok(());
            }
        }
        for (number, _) in again {
            if let Some((id, outcome)) = outcomes.get_mut(number)
                && self.table.slot(id).is_none()
            {
                *outcome = Err(ErrorCode::ObjectNotFound);
            }
        }
        if dropped.contains(&true) {
            self.feed_starved(now, fx);
        }
        outcomes
    }

    /// Evicts the least recently used objects that nobody holds; the bytes freed.
    pub(crate) fn evict(&mut self, wanted: u64, fx: &mut Effects) -> u64 {
        self.look_at_readers(fx);
        self.evict_oldest(Portion::bytes(wanted), fx).bytes
    }

    /// Evicts the oldest objects that nobody holds.
    fn evict_oldest(&mut self, wanted: Portion, fx: &mut Effects) -> Evicted {
        let slots = self.lru.take_oldest(&mut self.table.objects, wanted);
        let (slots, kept) = self.take_from_readers(slots);
        // Somebody has come to hold them just now.
        for slot in &kept {
            self.lru.put_back(&mut self.table.objects, *slot);
            self.add_read(*slot);
        }
        Evicted {
            kept: !kept.is_empty(),
            ..self.evict_slots(slots, fx)
        }
    }

    /// Takes memory for `size` bytes, evicting where that is allowed and needed. Where the room is
    /// for an object that `creator` makes, its quota comes first.
    pub(super) fn make_room(
        &mut self,
        creator: Option<ClientId>,
        size: u64,
        may_evict: bool,
        fx: &mut Effects,
    ) -> Result<Range, ErrorCode> {
        let capacity = self.limits.capacity;
        if let Some(client) = creator
            && self.lru.lacks_quota(client, size)
        {
            self.look_at_readers(fx);
            let objects = &mut self.table.objects;
            let room = self.lru.make_quota_room(objects, client, size, may_evict);
            let evict = room.map_err(|_| ErrorCode::OutOfMemory)?;
            let (evict, kept) = self.take_from_readers(evict);
            for slot in kept {
                self.lru.demote(&mut self.table.objects, slot);
                self.add_read(slot);
            }
            self.evict_slots(evict, fx);
        }
        let mut looked = false;
        loop {
            let used = self.allocated_bytes;
            let fits = used.checked_add(size).is_some_and(|sum| sum <= capacity);
            let slot_free = creator.is_none() || self.table.len() < self.limits.max_objects;
            if fits
                && slot_free
                && let Some(range) = self.allocator.allocate(size)
            {
                self.allocated_bytes += size;
                return Ok(range);
            }
            // What goes to the external store keeps its place in the table.
            let evicting_helps = slot_free || !self.limits.external;
            if !may_evict || !evicting_helps {
                return Err(ErrorCode::OutOfMemory);
            }
            if !looked {
                // Once: what is kept below counts as held then, and each time less is left to evict.
                self.look_at_readers(fx);
                looked = true;
            }
            if self.lacks_room(size) {
                // Evicting all there is would not help: nobody's objects are lost for nothing.
                return Err(ErrorCode::OutOfMemory);
            }
            // More than is missing, not to look for each object; but of what is missing alone: memory or
            // places. Neither is where free memory is in pieces that are too small.
            let mut wanted = Portion::default();
            if !fits {
                wanted.bytes = self.missing_bytes(size);
                wanted.bytes_ahead = capacity / 5;
            }
            if !slot_free {
                wanted.objects = (self.limits.max_objects / 100).clamp(1, MOST_AHEAD);
            }
            if fits && slot_free {
                wanted.bytes = (capacity / 5).max(1);
            }
            let evicted = self.evict_oldest(wanted, fx);
            // Objects of no bytes free a place in the table, if not memory.
            let helped = evicted.bytes > 0 || (evicted.objects > 0 && !slot_free);
            if !helped && !evicted.kept {
                return Err(ErrorCode::OutOfMemory);
            }
        }
    }

    /// Bytes by which `size` more would go beyond the capacity.
    fn missing_bytes(&self, size: u64) -> u64 {
        let wanted = self.allocated_bytes.saturating_add(size);
        wanted.saturating_sub(self.limits.capacity)
    }

    /// Whether there would not be room for `size` bytes if all were evicted that may be, as far as is
    /// known.
    pub(super) fn lacks_room(&self, size: u64) -> bool {
        self.missing_bytes(size) > self.lru.evictable_bytes()
    }

    /// Evicts objects that are in no order any more, or in a private one, and that nobody holds or
    /// finds.
    fn evict_slots(&mut self, slots: Vec<Slot>, fx: &mut Effects) -> Evicted {
        let mut evicted = Evicted::default();
        for slot in slots {
            let Some(object) = self.table.at(slot) else {
                continue;
            };
            let (id, range, size) = (object.id, object.range, object.size());
            evicted.objects += 1;
            evicted.bytes += size;
            if self.limits.external {
                fx.carries.push(Carry::Out(Transfer {
                    id,
                    range,
                    data_size: object.data_size,
                    metadata_size: object.metadata_size,
                }));
                self.lru.forget(&mut self.table.objects, slot);
                if let Some(object) = self.table.at_mut(slot) {
                    object.stage = Stage::Spilled;
                    object.range = Range::new(0, 0);
                }
                self.give_back(range, size);
            } else {
                self.drop_object(slot);
                fx.announce(Notification::Deleted(id));
            }
        }
        self.evictions += evicted.objects;
        self.evicted_bytes += evicted.bytes;
        evicted
    }

    /// Removes an object that nobody finds any more, and gives its memory back.
    pub(super) fn drop_object(&mut self, slot: Slot) {
        self.read.remove(&slot);
        self.lru.forget(&mut self.table.objects, slot);
        let Some(object) = self.table.remove(slot) else {
            return;
        };
        if object.stage == Stage::Creating {
            self.unsealed -= 1;
        }
        self.give_back(object.range, object.size());
    }

    pub(super) fn give_back(&mut self, range: Range, size: u64) {
        self.allocator.free(range);
        self.allocated_bytes -= size;
    }

    // -----------------------------------------------------------------------------------------
    // Memory that is given back to the system

    /// Free ranges, the largest first.
    pub(crate) fn free_ranges(&self) -> impl Iterator<Item = Range> {
        self.allocator.free_ranges()
    }

    /// The free parts of a range.
    pub(crate) fn free_within(&self, range: Range) -> Vec<Range> {
        self.allocator.free_within(range)
    }

    /// Takes a free range out of use while memory is put behind it or given back.
    pub(crate) fn withhold(&mut self, range: Range) {
        self.allocator.reserve(range);
    }

    /// Puts a range back into use.
    pub(crate) fn readmit(&mut self, range: Range) {
        self.allocator.free(range);
    }
}
