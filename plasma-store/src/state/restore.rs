//! What comes back from the external store.

use std::time::Duration;

use plasma_core::ObjectId;
use plasma_core::protocol::message::Notification;
use plasma_core::shm::index::UID_STEP;

use super::alloc::Range;
use super::readers::Readers;
use super::table::{Object, Slot, Stage};
use super::{Carry, Effects, Now, State, Transfer};

/// How long to wait after content could not be brought back.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

impl<R: Readers> State<R> {
    /// Makes room for an object to come back to; whether there is any. Nothing is evicted in vain.
    pub(super) fn start_restore(&mut self, slot: Slot, now: Now, fx: &mut Effects) -> bool {
        let Some(size) = self.table.at(slot).map(Object::size) else {
            return false;
        };
        if self.lacks_room(size) {
            return false;
        }
        let Ok(range) = self.make_room(None, size, true, fx) else {
            return false;
        };
        let Some(object) = self.table.at_mut(slot) else {
            self.give_back(range, size);
            return false;
        };
        object.stage = Stage::Restoring;
        object.range = range;
        object.create_time_s = now.unix_s;
        fx.restores.push(Transfer {
            id: object.id,
            range,
            data_size: object.data_size,
            metadata_size: object.metadata_size,
        });
        self.starved.remove(&(size, object.id));
        true
    }

    /// An object's content is back in its memory.
    pub(crate) fn restored(&mut self, id: &ObjectId, now: Now, fx: &mut Effects) {
        let uid = self.next_uid;
        let Some((slot, object)) = self.restoring(id) else {
            return;
        };
        object.stage = Stage::Sealed;
        object.construct_duration_s = (now.unix_s - object.create_time_s).max(0);
        // It lies elsewhere than before, and whoever read it there must not take it for the same.
        object.uid = uid;
        self.next_uid += UID_STEP;
        let listing = self.table.at(slot).map(|object| object.listing(slot));
        if let Some(listing) = listing {
            self.readers.publish(&listing);
        }
        fx.carries.push(Carry::Away(*id));
        self.serve_waits(slot, fx);
        let Some(object) = self.table.at(slot).filter(|object| object.refs == 0) else {
            return;
        };
        // Everyone who waited is gone.
        let delete_pending = object.delete_pending;
        self.lru.restored(&mut self.table.objects, slot);
        if delete_pending {
            self.drop_if_free(slot, fx);
        }
        self.feed_starved(now, fx);
    }

    /// An object's content did not come back: it is in the external store as before, or `lost`.
    pub(crate) fn restore_failed(&mut self, id: &ObjectId, lost: bool, now: Now, fx: &mut Effects) {
        let Some((slot, object)) = self.restoring(id) else {
            return;
        };
        let (range, size) = (object.range, object.size());
        let gone = lost || object.delete_pending;
        object.stage = Stage::Spilled;
        object.range = Range::new(0, 0);
        self.give_back(range, size);
        if gone {
            self.table.remove(slot);
            fx.carries.push(Carry::Away(*id));
            fx.announce(Notification::Deleted(*id));
        }
        for (wait, _) in self.waits.for_object(id) {
            if let Some(wait) = self.waits.disappoint(wait, id) {
                self.answer(wait, fx);
            }
        }
        if gone {
            self.feed_starved(now, fx);
        } else if self.waits.anyone_waits_for(id) {
            // It is tried again once memory is freed, or after a while: who gives memory back to the
            // system does not tell.
            self.starved.insert((size, *id));
            self.retry_at = Some(now.elapsed.saturating_add(RETRY_INTERVAL));
        }
    }

    /// An object's content could not be carried out: it is lost.
    pub(crate) fn spill_failed(&mut self, id: &ObjectId, fx: &mut Effects) {
        if let Some((slot, object)) = self.table.get(id)
            && object.stage == Stage::Spilled
        {
            self.starved.remove(&(object.size(), *id));
            self.table.remove(slot);
            fx.announce(Notification::Deleted(*id));
        }
    }

    fn restoring(&mut self, id: &ObjectId) -> Option<(Slot, &mut Object)> {
        let found = self.table.get_mut(id);
        found.filter(|(_, object)| object.stage == Stage::Restoring)
    }

    /// Memory was freed: brings back what found no room before.
    pub(super) fn feed_starved(&mut self, now: Now, fx: &mut Effects) {
        self.unfed = false;
        self.retry_at = None;
        while let Some((size, id)) = self.starved.first().copied() {
            let spilled = |(_, object): &(Slot, &Object)| object.stage == Stage::Spilled;
            let slot = self.table.get(&id).filter(spilled).map(|(slot, _)| slot);
            match slot {
                Some(slot) if self.waits.anyone_waits_for(&id) => {
                    if !self.start_restore(slot, now, fx) {
                        return;
                    }
                }
                _ => _ = self.starved.remove(&(size, id)),
            }
        }
    }
}
