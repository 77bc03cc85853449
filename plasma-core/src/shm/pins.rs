//! What clients hold of what they read in the index: each client's pins, written by it alone.
//!
//! # Why nothing is freed that somebody holds
//! | reader | store |
//! |---|---|
//! | finds uid u in an entry | withdraws u: its stamp changes |
//! | `pin` = u | full fence |
//! | full fence | looks at every client's pins (acquire) |
//! | stamp still u? then it holds the object | u is nowhere: the memory is free |
//! | ... `pin` = 0 (release) | else: the object stays |
//!
//! The two fences are in some order. If the reader's comes first, the store sees the pin; if the
//! store's does, the reader sees that the stamp has changed. Letting go is in the same way between
//! the reader's `pin` = 0 and the store's mark that an object is wanted: either the store sees that
//! it is free, or the reader sees the mark, and tells the store.
//!
//! A client that dies cannot clean up: the store drops its pins with its connection.

use std::cell::Cell;
use std::sync::{Mutex, PoisonError};

use super::crash::crash_point;
use super::index::{Extent, Found, Index, Known, Place, Sighting};
use super::page::{LANES, Lane, PinMemory, REFRESHES, TOUCHES};
use super::ring::Created;
use super::sync::{AtomicU32, AtomicU64, Ordering, fence};
use super::twins::{is_skipped, unless_skipped};
use crate::ObjectId;

/// How often to look again for an object that the store was just about to free.
const ATTEMPTS: usize = 4;

/// An object that this client holds. It does not let go by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin {
    slot: u32,
    place: Place,
    uid: u64,
}

/// What came of an attempt to get an object without asking the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Got {
    /// This client holds it.
    Pinned(Pin, Extent),
    /// It is not there.
    Nowhere,
    /// The store has to be asked.
    Unknown,
}

/// Where a thread looks first for a free pin, so that threads do not meet; no more than advice.
#[derive(Debug, Default)]
pub struct Hint {
    /// The pin.
    pub slot: Cell<u32>,
    /// The thread's lane.
    pub lane: Cell<u32>,
    /// What this thread noted last as used.
    used: Cell<Used>,
}

/// An object that was noted as used: by its uid, where it was pinned, and how often the store had looked
/// at what is used. A thread may have clients of several stores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Used {
    uid: u64,
    pins: usize,
    looks: u64,
}

/// A client's pins, for the client.
#[derive(Debug)]
pub struct Pins {
    memory: PinMemory,
    /// Held by whoever writes refreshes.
    refreshing: Mutex<()>,
    /// How many handles of this process are behind each pin. It is nobody else's business.
    owners: Box<[AtomicU32]>,
}

/// Handles that there may be behind one pin: half of what can be counted.
const MAX_OWNERS: u32 = u32::MAX / 2;

#[cold]
#[expect(clippy::panic, reason = "as documented; no program needs as many")]
fn too_many_owners() -> ! {
    panic!("one object has {MAX_OWNERS} handles, and can have no more")
}

impl Hint {
    /// A hint at a pin, for a thread with this lane.
    pub const fn new(slot: u32, lane: u32) -> Self {
        Self {
            slot: Cell::new(slot),
            lane: Cell::new(lane),
            used: Cell::new(Used {
                uid: 0,
                pins: 0,
                looks: 0,
            }),
        }
    }
}

impl Pin {
    /// The same pin, of an object that was listed in this place since.
    #[must_use]
    pub fn placed(self, place: Place) -> Self {
        Self { place, ..self }
    }
}

impl Pins {
    /// The pins in a client's page, which it may write.
    pub fn new(memory: PinMemory) -> Self {
        let owners = memory.slots.iter().map(|_| AtomicU32::new(0)).collect();
        Self {
            memory,
            refreshing: Mutex::new(()),
            owners,
        }
    }

    /// Gets an object that is there. Where it is not, or that is not certain, `None`: then
    /// [`get`](Self::get) says more.
    #[inline(always)]
    pub fn get_if_there(&self, index: &Index, id: &ObjectId, hint: &Hint) -> Option<(Pin, Extent)> {
        match index.find(id) {
            Found::Here(seen) => self.hold(index, &seen, hint)?,
            Found::Nowhere | Found::Unknown => None,
        }
    }

    /// Gets an object without asking the store, if that is possible.
    pub fn get(&self, index: &Index, id: &ObjectId, hint: &Hint) -> Got {
        for _ in 0..ATTEMPTS {
            let seen = match index.find(id) {
                Found::Here(seen) => seen,
                Found::Nowhere => {
                    self.count_miss(hint);
                    return Got::Nowhere;
                }
                Found::Unknown => return Got::Unknown,
            };
            match self.hold(index, &seen, hint) {
                Some(Some((pin, extent))) => return Got::Pinned(pin, extent),
                Some(None) => {}
                None => return Got::Unknown,
            }
        }
        Got::Unknown
    }

    /// Holds an object that was seen; `Some(None)` where it is too late, and `None` without a pin.
    #[inline(always)]
    fn hold(
        &self,
        index: &Index,
        seen: &Sighting<'_>,
        hint: &Hint,
    ) -> Option<Option<(Pin, Extent)>> {
        let pin = self.mark(seen, hint)?;
        unless_skipped!(ReaderFence, fence(Ordering::SeqCst));
        let extent = self.confirm(index, seen, pin, hint);
        Some(extent.map(|extent| (pin, extent)))
    }

    /// Gets objects in the same way, with one fence for all.
    pub fn get_many(&self, index: &Index, ids: &[ObjectId], hint: &Hint) -> Vec<Got> {
        // Who has none left need not look through all of them for each.
        let mut any_left = true;
        let marked: Vec<_> = ids
            .iter()
            .map(|id| match index.find(id) {
                Found::Here(_) if !any_left => Err(Got::Unknown),
                Found::Here(seen) => match self.mark(&seen, hint) {
                    Some(pin) => Ok((seen, pin)),
                    None => {
                        any_left = false;
                        Err(Got::Unknown)
                    }
                },
                Found::Nowhere => {
                    self.count_miss(hint);
                    Err(Got::Nowhere)
                }
                Found::Unknown => Err(Got::Unknown),
            })
            .collect();
        fence(Ordering::SeqCst);
        let confirmed = marked.into_iter().zip(ids).map(|(marked, id)| {
            let (seen, pin) = match marked {
                Ok(marked) => marked,
                Err(got) => return got,
            };
            match self.confirm(index, &seen, pin, hint) {
                Some(extent) => Got::Pinned(pin, extent),
                None => self.get(index, id, hint),
            }
        });
        confirmed.collect()
    }

    /// Pins an object that this client is about to seal: as its creator it holds it until then, so
    /// there is nothing to confirm. `None` where there is no pin left.
    pub fn pin_own(&self, created: &Created, hint: &Hint) -> Option<Pin> {
        let slot = self.claim(hint)?;
        let pin = Pin {
            slot,
            place: Place::NOT_KNOWN,
            uid: created.uid,
        };
        self.set(pin, created.slot);
        Some(pin)
    }

    /// Gives back a pin that an object was to have that was not sealed.
    pub fn unpin_own(&self, pin: Pin) {
        self.clear(pin.slot);
        self.give_back(pin.slot);
    }

    /// Takes a pin for an object that was found, and says so. It counts only once it is confirmed,
    /// behind a fence.
    #[inline(always)]
    fn mark(&self, seen: &Sighting<'_>, hint: &Hint) -> Option<Pin> {
        let slot = self.claim(hint)?;
        let pin = Pin {
            slot,
            place: seen.place,
            uid: seen.uid,
        };
        self.set(pin, seen.known().slot);
        Some(pin)
    }

    /// Where the object is that this client holds from now on, or `None` where it is too late.
    #[inline(always)]
    fn confirm(&self, index: &Index, seen: &Sighting<'_>, pin: Pin, hint: &Hint) -> Option<Extent> {
        let known = seen.known();
        let extent = seen.extent();
        if extent.is_some() {
            self.note(known, index.looks(), hint);
        } else {
            self.clear(pin.slot);
            self.give_back(pin.slot);
        }
        extent
    }

    #[inline(always)]
    fn set(&self, pin: Pin, known_as: u32) {
        if let Some(slot) = self.memory.slots.get(pin.slot as usize) {
            slot.slot.store(u64::from(known_as), Ordering::Relaxed);
            crash_point!();
            slot.uid.store(pin.uid, Ordering::Release);
            crash_point!();
        }
    }

    fn clear(&self, slot: u32) {
        if let Some(slot) = self.memory.slots.get(slot as usize) {
            let order = if is_skipped!(Release) {
                Ordering::Relaxed
            } else {
                Ordering::Release
            };
            slot.uid.store(0, order);
            crash_point!();
        }
    }

    /// Finds a pin that nobody uses.
    #[inline(always)]
    fn claim(&self, hint: &Hint) -> Option<u32> {
        let hinted = hint.slot.get();
        let slot = if self.claims(hinted) {
            hinted
        } else {
            self.claim_any(hinted)?
        };
        let next = slot + 1;
        let is_last = next as usize >= self.owners.len();
        hint.slot.set(if is_last { 0 } else { next });
        self.count_in(slot);
        Some(slot)
    }

    /// Takes a pin, if nobody uses it.
    #[inline(always)]
    fn claims(&self, slot: u32) -> bool {
        self.owners.get(slot as usize).is_some_and(|owners| {
            owners.load(Ordering::Relaxed) == 0
                && owners
                    .compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed)
                    .is_ok()
        })
    }

    fn claim_any(&self, hinted: u32) -> Option<u32> {
        let count = self.owners.len() as u32;
        let start = hinted.min(count);
        (start..count)
            .chain(0..start)
            .find(|slot| self.claims(*slot))
    }

    /// Has the store look at this pin from now on, and at all before it.
    #[inline(always)]
    fn count_in(&self, slot: u32) {
        if let Some(header) = self.memory.header.first()
            && header.pins_in_use.load(Ordering::Relaxed) <= u64::from(slot)
        {
            header
                .pins_in_use
                .fetch_max(u64::from(slot) + 1, Ordering::Relaxed);
            crash_point!();
        }
    }

    fn give_back(&self, slot: u32) {
        if let Some(owners) = self.owners.get(slot as usize) {
            owners.store(0, Ordering::Release);
        }
    }

    /// Counts one more handle behind a pin.
    ///
    /// # Panics
    /// If there are more than `MAX_OWNERS`: a count that comes round to none would have others take the
    /// pin.
    pub fn share(&self, pin: Pin) {
        if let Some(owners) = self.owners.get(pin.slot as usize) {
            let others = owners.fetch_add(1, Ordering::Relaxed);
            if others >= MAX_OWNERS {
                // To reach none before this, as many threads would have to be in between.
                owners.fetch_sub(1, Ordering::Relaxed);
                too_many_owners();
            }
        }
    }

    /// Takes one handle away, and lets go of the object with the last; whether the store has to be
    /// told ([`tell_released`](Self::tell_released)).
    #[inline(always)]
    pub fn release(&self, index: &Index, pin: Pin, id: &ObjectId, hint: &Hint) -> bool {
        let Some(owners) = self.owners.get(pin.slot as usize) else {
            return false;
        };
        // Down to one: that one is this handle's, and nobody can join, as only who has a handle makes
        // another. At none the pin would be somebody else's.
        let mut count = owners.load(Ordering::Acquire);
        while count > 1 {
            let one_less =
                owners.compare_exchange_weak(count, count - 1, Ordering::AcqRel, Ordering::Acquire);
            match one_less {
                Ok(_) => return false,
                Err(now) => count = now,
            }
        }
        self.clear(pin.slot);
        unless_skipped!(ReleaseFence, fence(Ordering::SeqCst));
        self.give_back(pin.slot);
        hint.slot.set(pin.slot);
        if index.stamp(pin.place) == pin.uid {
            return false;
        }
        Self::is_wanted(index, pin, id)
    }

    /// Whether the store wants an object that is not as it was in its place.
    #[cold]
    fn is_wanted(index: &Index, pin: Pin, id: &ObjectId) -> bool {
        // It has been marked, or it is gone, or it is elsewhere as the index has grown.
        match index.find(id) {
            Found::Here(seen) => seen.uid != pin.uid || !seen.stays(),
            Found::Nowhere | Found::Unknown => true,
        }
    }

    /// Notes for the store that something was let go of that it wants back. Then wake it.
    pub fn tell_released(&self) {
        if let Some(header) = self.memory.header.first() {
            header.released.fetch_add(1, Ordering::Release);
            crash_point!();
        }
    }

    /// Notes for the store that objects are to count as just used; whether there is room for that until
    /// it looks.
    pub fn refresh(&self, objects: &[Known], hint: &Hint) -> bool {
        let PinMemory {
            refreshes,
            answers_header,
            ..
        } = &self.memory;
        let (Some(refreshes), Some(seen)) = (refreshes.first(), answers_header.first()) else {
            return false;
        };
        // What it guards is in shared memory, and nothing panics between its steps.
        let turn = self.refreshing.lock();
        let _turn = turn.unwrap_or_else(PoisonError::into_inner);
        let written = refreshes.written.load(Ordering::Relaxed);
        let unseen = written.wrapping_sub(seen.refreshed.load(Ordering::Acquire));
        let room = (REFRESHES as u64).saturating_sub(unseen);
        if objects.len() as u64 > room {
            return false;
        }
        let mut number = written;
        for object in objects {
            let at = usize::try_from(number % REFRESHES as u64).unwrap_or(0);
            let touch = touch_of(*object);
            if let Some(place) = refreshes.objects.get(at) {
                place.store(touch, Ordering::Relaxed);
            }
            number = number.wrapping_add(1);
            // Also among what this thread reads, for the order.
            self.note_touch(touch | REFRESH, hint);
        }
        crash_point!();
        refreshes.written.store(number, Ordering::Release);
        crash_point!();
        // If it is read after this, that is later.
        hint.used.set(Used::default());
        true
    }

    /// Notes for the store that an object was read: once, until the store has looked.
    #[inline(always)]
    fn note(&self, known: Known, looks: u64, hint: &Hint) {
        if let Some(lane) = self.lane(hint) {
            add(&lane.hits);
        }
        let used = Used {
            uid: known.uid,
            pins: self.owners.as_ptr().addr(),
            looks,
        };
        if hint.used.replace(used) != used {
            self.note_touch(touch_of(known), hint);
        }
    }

    fn lane(&self, hint: &Hint) -> Option<&Lane> {
        self.memory.lanes.get(hint.lane.get() as usize)
    }

    fn note_touch(&self, touch: u64, hint: &Hint) {
        let Some(lane) = self.lane(hint) else {
            return;
        };
        let noted = lane.touched.load(Ordering::Relaxed);
        let at = usize::try_from(noted % TOUCHES as u64).unwrap_or(0);
        if let Some(place) = lane.touches.get(at) {
            place.store(touch, Ordering::Relaxed);
            lane.touched.store(noted.wrapping_add(1), Ordering::Release);
            crash_point!();
        }
    }

    fn count_miss(&self, hint: &Hint) {
        if let Some(lane) = self.lane(hint) {
            add(&lane.misses);
        }
    }
}

/// Adds one, where another thread may do so at the same time and that does not matter.
fn add(count: &AtomicU64) {
    let was = count.load(Ordering::Relaxed);
    count.store(was.wrapping_add(1), Ordering::Relaxed);
}

/// Set in a use that is a refresh, where there are others. It is where a uid has none of its bits.
const REFRESH: u64 = 1 << 32;

/// A use of an object, in a word: what the store knows it by, and half of its uid. Not where it is
/// listed: it may be elsewhere when the store looks.
fn touch_of(known: Known) -> u64 {
    known.uid << 32 | u64::from(known.slot)
}

/// What was written to a circle of words between one count and another, the oldest first, as far as it
/// is still there.
fn since(from: u64, to: u64, words: &[AtomicU64]) -> impl Iterator<Item = u64> {
    let len = words.len() as u64;
    let fresh = to.wrapping_sub(from).min(len);
    (0..fresh).filter_map(move |number| {
        let number = to.wrapping_sub(fresh).wrapping_add(number);
        let at = usize::try_from(number.checked_rem(len)?).ok()?;
        Some(words.get(at)?.load(Ordering::Relaxed))
    })
}

/// A use of an object, as a client says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use {
    /// What the store knows it by.
    pub slot: u32,
    /// The lower half of its uid. Whether that is the uid of what is there, the store has to see.
    pub half_uid: u32,
    /// Whether it was refreshed, and not read.
    pub refreshed: bool,
}

impl Use {
    fn from_touch(touch: u64) -> Self {
        Self {
            slot: touch as u32,
            half_uid: ((touch & !REFRESH) >> 32) as u32,
            refreshed: touch & REFRESH != 0,
        }
    }
}

/// A client's pins, for the store. All that is read here is what a client wrote.
#[derive(Debug)]
pub struct PinView {
    memory: PinMemory,
    /// Uses that were read, of each lane.
    read: [u64; LANES],
    /// Refreshes that were read.
    refreshed: u64,
    /// Releases that were seen.
    released: u64,
}

impl PinView {
    /// The pins in a client's page, where the store may write what it answers.
    pub fn new(memory: PinMemory) -> Self {
        Self {
            memory,
            read: [0; LANES],
            refreshed: 0,
            released: 0,
        }
    }

    /// The uids that this client holds, and what it says the store knows them by. What was withdrawn before the fence
    /// (sequentially consistent) that has to come before this, and is not among them, nobody here holds or will.
    pub fn held(&self) -> impl Iterator<Item = (u64, u32)> {
        let in_use = self
            .memory
            .header
            .first()
            .map_or(0, |header| header.pins_in_use.load(Ordering::Relaxed));
        let in_use = usize::try_from(in_use).unwrap_or(usize::MAX);
        self.memory
            .slots
            .iter()
            .take(in_use)
            .map(|slot| (slot.uid.load(Ordering::Acquire), slot))
            .filter(|(uid, _)| *uid != 0)
            .map(|(uid, slot)| (uid, slot.slot.load(Ordering::Relaxed) as u32))
    }

    /// Whether the client has let go of something wanted since this was last asked.
    pub fn has_released(&mut self) -> bool {
        let released = self
            .memory
            .header
            .first()
            .map_or(0, |header| header.released.load(Ordering::Acquire));
        std::mem::replace(&mut self.released, released) != released
    }

    /// What the client used since this was last asked, the oldest first, as far as that is still
    /// known.
    pub fn used(&mut self, mut each: impl FnMut(Use)) {
        // All refreshes; those of them that are among the last uses come once more, in their order.
        let PinMemory {
            refreshes,
            answers_header,
            ..
        } = &self.memory;
        if let (Some(refreshes), Some(seen)) = (refreshes.first(), answers_header.first()) {
            let written = refreshes.written.load(Ordering::Acquire);
            for touch in since(self.refreshed, written, &refreshes.objects) {
                each(Use::from_touch(touch | REFRESH));
            }
            if written != self.refreshed {
                self.refreshed = written;
                seen.refreshed.store(written, Ordering::Release);
                crash_point!();
            }
        }
        for (lane, read) in self.memory.lanes.iter().zip(&mut self.read) {
            let touched = lane.touched.load(Ordering::Acquire);
            for touch in since(*read, touched, &lane.touches) {
                each(Use::from_touch(touch));
            }
            *read = touched;
        }
    }

    /// Gets that were served from the index, and those that found nothing there. Approximate, where
    /// threads of one client meet.
    pub fn counts(&self) -> (u64, u64) {
        let sum = |count: fn(&Lane) -> &AtomicU64| {
            let counts = self.memory.lanes.iter().map(count);
            counts.fold(0, |sum: u64, count| {
                sum.wrapping_add(count.load(Ordering::Relaxed))
            })
        };
        (sum(|lane| &lane.hits), sum(|lane| &lane.misses))
    }
}

#[cfg(all(test, not(plasma_loom)))]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Arc;

    use super::super::memory::{Memory, Writers};
    use super::super::page::Shape;
    use super::*;

    /// A count that came round to none would give the pin to somebody else.
    #[test]
    fn handles_are_not_counted_beyond_what_can_be_counted() {
        let shape = Shape {
            pins: 1,
            requests: 0,
            content_bytes: 0,
        };
        let page = Memory::create(shape.page_len(), Writers::Client).unwrap();
        let answers = Memory::create(shape.answers_len(), Writers::Store).unwrap();
        let memory = PinMemory::of_client(&Arc::new(page), &Arc::new(answers), &shape);
        let pins = Pins::new(memory.unwrap());
        let hint = Hint::new(0, 0);
        let created = Created {
            uid: 8,
            offset: 0,
            segment: 0,
            slot: 0,
        };
        let pin = pins.pin_own(&created, &hint).unwrap();
        pins.owners[0].store(MAX_OWNERS - 1, Ordering::Relaxed);
        pins.share(pin);
        for _ in 0..3 {
            let one_more = catch_unwind(AssertUnwindSafe(|| pins.share(pin)));
            assert!(one_more.is_err());
        }
        assert_eq!(pins.owners[0].load(Ordering::Relaxed), MAX_OWNERS);
        assert!(pins.pin_own(&created, &hint).is_none());
    }
}
