//! Clients that read without asking: what the rules need to know of them, and what follows from it.
//!
//! Such clients find sealed objects in an index, and say themselves what they hold. The rules have
//! objects listed there, and ask before one goes away.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::time::Duration;

use plasma_core::ObjectId;
use plasma_core::protocol::message::Notification;
use plasma_core::shm::index::{Listing, Place};
use plasma_core::shm::pins::Use;

use super::table::{Slot, Stage};
use super::{ClientId, Effects, Now, State};

/// How often to look whether those who read without asking have let go of what is in the way of
/// something that a get waits for.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// So much less often for each object that they say to hold: some ten times what it takes to look at it.
const LOOK_INTERVAL_FOR_EACH: Duration = Duration::from_micros(2);

/// Clients that read without asking.
pub(crate) trait Readers: Debug {
    /// Lets them find an object that was sealed; where it is listed, if it is.
    fn publish(&mut self, listing: &Listing) -> Option<Place>;

    /// Takes those of the objects from them, by name and uid, that none of them holds; for each
    /// object, whether one does. What is held stays as it was. If it is `wanted`, whoever lets go of
    /// it last says so, and then it is to be asked again.
    fn take(&mut self, objects: &[(ObjectId, u64)], wanted: bool) -> Vec<bool>;

    /// Who holds what; the same may be there more than once.
    fn holders(&self) -> Vec<Holder>;

    /// What they used since this was last asked, the oldest first, as far as they remember.
    fn used(&mut self) -> Vec<Use>;

    /// A client is gone, and what it held with it.
    fn forget(&mut self, client: ClientId);
}

/// Somebody who holds an object, as they say themselves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Holder {
    pub(crate) client: ClientId,
    pub(crate) uid: u64,
    /// Where the object is if this is true. Whether it is, its uid there tells.
    pub(crate) slot: Slot,
}

/// No clients that read without asking.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct NoReaders;

impl Readers for NoReaders {
    fn publish(&mut self, _: &Listing) -> Option<Place> {
        None
    }

    fn take(&mut self, objects: &[(ObjectId, u64)], _: bool) -> Vec<bool> {
        vec![false; objects.len()]
    }

    fn holders(&self) -> Vec<Holder> {
        Vec::new()
    }

    fn used(&mut self) -> Vec<Use> {
        Vec::new()
    }

    fn forget(&mut self, _: ClientId) {}
}

impl<R: Readers> State<R> {
    /// Looks at what they hold and have used. What they hold they are counted for, and what they hold
    /// no more is free.
    pub(crate) fn look_at_readers(&mut self, fx: &mut Effects) {
        for what in self.readers.used() {
            let Some(slot) = self.table.used(&what) else {
                continue;
            };
            let objects = &mut self.table.objects;
            if what.refreshed {
                self.lru.refresh(objects, slot);
            } else {
                self.lru.touch(objects, slot);
            }
        }
        self.looks += 1;
        let claimed = self.readers.holders();
        self.claims = claimed.len();
        let true_ones = claimed.into_iter().filter(|holder| {
            let object = self.table.claimed(holder.slot, holder.uid);
            object.is_some_and(|object| object.stage == Stage::Sealed)
        });
        let mut holders: Vec<_> = true_ones
            .map(|holder| (holder.client, holder.slot))
            .collect();
        holders.sort_unstable();
        holders.dedup();
        let held: BTreeSet<_> = holders.iter().map(|(_, slot)| *slot).collect();
        for slot in &held {
            self.add_read(*slot);
        }
        let over: Vec<_> = self.read.difference(&held).copied().collect();
        self.unfed |= !over.is_empty();
        let mut unwanted = Vec::new();
        for slot in over {
            self.read.remove(&slot);
            unwanted.extend(self.unref(slot).then_some(slot));
        }
        self.holders = holders;
        self.drop_those_free(&unwanted, fx);
    }

    /// The same, and uses what has become free.
    pub(crate) fn sweep(&mut self, now: Now, fx: &mut Effects) {
        self.look_at_readers(fx);
        self.feed_starved(now, fx);
    }

    /// The same where it is time for that.
    pub(super) fn look_again(&mut self, now: Now, fx: &mut Effects) {
        if self.next_look().is_some_and(|at| at <= now.elapsed) {
            self.sweep(now, fx);
            let claims = u32::try_from(self.claims).unwrap_or(u32::MAX);
            let interval = LOOK_INTERVAL + LOOK_INTERVAL_FOR_EACH * claims;
            self.next_look = now.elapsed.saturating_add(interval);
        }
    }

    /// When it is time for that: something may find room, and nobody tells of it. Those who read without
    /// asking do not when they let go.
    pub(super) fn next_look(&self) -> Option<Duration> {
        let may_find_room = !self.starved.is_empty() && (self.unfed || !self.read.is_empty());
        let look = may_find_room.then_some(self.next_look);
        [look, self.retry_at].into_iter().flatten().min()
    }

    /// How often all that they hold was looked through so far.
    pub(crate) fn looks(&self) -> u64 {
        self.looks
    }

    /// Counts those who read without asking as holding an object, together and once.
    pub(super) fn add_read(&mut self, slot: Slot) {
        let objects = &mut self.table.objects;
        let sealed = objects
            .get(slot)
            .is_some_and(|object| object.stage == Stage::Sealed);
        if sealed && self.read.insert(slot) {
            if objects.get(slot).is_some_and(|object| object.refs == 0) {
                self.lru.pinned(objects, slot);
            }
            if let Some(object) = objects.get_mut(slot) {
                object.refs += 1;
            }
        }
    }

    /// Those of the objects that none of them holds, and that none finds any more; and the others.
    pub(super) fn take_from_readers(&mut self, slots: Vec<Slot>) -> (Vec<Slot>, Vec<Slot>) {
        let names = slots.iter().filter_map(|slot| {
            let object = self.table.at(*slot)?;
            Some((object.id, object.uid))
        });
        let names: Vec<_> = names.collect();
        self.looks += 1;
        let mut held = self.readers.take(&names, false).into_iter();
        slots
            .into_iter()
            .partition(|_| !held.next().unwrap_or(true))
    }

    /// Deletes those of some sealed objects that nobody holds; for each, whether that is so. For the
    /// others whoever lets go of them last leads to this again.
    pub(super) fn drop_those_free(&mut self, slots: &[Slot], fx: &mut Effects) -> Vec<bool> {
        let names = slots.iter().map(|slot| {
            let object = self.table.at(*slot)?;
            let unasked = u32::from(self.read.contains(slot));
            (object.refs <= unasked).then_some((object.id, object.uid))
        });
        let names: Vec<_> = names.collect();
        let asked: Vec<_> = names.iter().flatten().copied().collect();
        if asked.is_empty() {
            return vec![false; slots.len()];
        }
        // All at once: for each time that they are asked, all that they hold is looked through.
        self.looks += 1;
        let mut held = self.readers.take(&asked, true).into_iter();
        let mut dropped = Vec::with_capacity(slots.len());
        for (slot, name) in slots.iter().zip(names) {
            let free = name.filter(|_| held.next() == Some(false));
            match free {
                Some((id, _)) => {
                    self.drop_object(*slot);
                    fx.announce(Notification::Deleted(id));
                }
                None => {
                    if name.is_some() {
                        self.add_read(*slot);
                    }
                }
            }
            dropped.push(free.is_some());
        }
        dropped
    }

    /// The same for one object.
    pub(super) fn drop_if_free(&mut self, slot: Slot, fx: &mut Effects) {
        self.drop_those_free(&[slot], fx);
    }
}
