//! What clients read without asking, and what they hold of it: the index, and every client's pins.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::Arc;

use plasma_core::ObjectId;
use plasma_core::shm::index::{IndexWriter, Listing, Place};
use plasma_core::shm::memory::Memory;
use plasma_core::shm::pins::{PinView, Use};
use plasma_core::shm::{Ordering, fence};

use crate::keeper::Keeper;
use crate::state::{ClientId, Holder, Readers, Slot};

/// The index and the pins of all clients, where the store has them.
#[derive(Debug)]
pub(crate) struct SharedReaders {
    /// Ends before the index does.
    _keeper: Keeper,
    index: IndexWriter,
    pins: BTreeMap<ClientId, PinView>,
    /// Uids, kept for its room.
    found: Vec<u64>,
    /// What the index has served to clients that are gone.
    past_counts: (u64, u64),
}

impl SharedReaders {
    /// An index for `max_objects` objects, which takes memory as they come. Where it cannot tell of
    /// all there are (`partial`), clients ask for what they do not find in it.
    pub(crate) fn create(max_objects: usize, partial: bool) -> io::Result<Self> {
        // At half as many objects as homes it grows no more.
        let max_homes = max_objects.saturating_mul(2).next_power_of_two();
        // Ids that meet in one place cannot be chosen without knowing this. Clients do: one that means
        // to can have all ask the store for what they do not find.
        let seed = RandomState::new().hash_one(0);
        let mut index = IndexWriter::create(max_homes, seed)?;
        if partial {
            index.add_unlisted(1);
        }
        let word = index.keeper_word().ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Self {
            _keeper: Keeper::start(word)?,
            index,
            pins: BTreeMap::new(),
            found: Vec::new(),
            past_counts: (0, 0),
        })
    }

    /// The memory that the index is in.
    pub(crate) fn memory(&self) -> Option<&Arc<Memory>> {
        self.index.memory()
    }

    /// Takes account of a client's pins from now on.
    pub(crate) fn add(&mut self, client: ClientId, pins: PinView) {
        self.pins.insert(client, pins);
    }

    /// Whether a client reads without asking.
    pub(crate) fn has(&self, client: ClientId) -> bool {
        self.pins.contains_key(&client)
    }

    /// Whether a client has let go of something wanted since this was last asked.
    pub(crate) fn has_released(&mut self, client: ClientId) -> bool {
        self.pins
            .get_mut(&client)
            .is_some_and(PinView::has_released)
    }

    /// Gets of all clients that the index has served, and those that found nothing there.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let counts = self.pins.values().map(PinView::counts);
        counts.fold(self.past_counts, |(hits, misses), (h, m)| {
            (hits.wrapping_add(h), misses.wrapping_add(m))
        })
    }

    /// Finds the uids that any client holds, in order. What was withdrawn before is not found by
    /// anybody any more.
    fn look(&mut self) {
        fence(Ordering::SeqCst);
        self.found.clear();
        let held = self.pins.values().flat_map(PinView::held);
        self.found.extend(held.map(|(uid, _)| uid));
        self.found.sort_unstable();
    }

    /// Finds this uid, if any client holds it.
    fn look_for(&mut self, wanted: u64) {
        fence(Ordering::SeqCst);
        self.found.clear();
        let mut held = self.pins.values().flat_map(PinView::held);
        self.found
            .extend(held.find(|(uid, _)| *uid == wanted).map(|(uid, _)| uid));
    }
}

impl Readers for Option<SharedReaders> {
    fn publish(&mut self, listing: &Listing) -> Option<Place> {
        self.as_mut()?.index.publish(listing)
    }

    fn take(&mut self, objects: &[(ObjectId, u64)], wanted: bool) -> Vec<bool> {
        let Some(readers) = self else {
            return vec![false; objects.len()];
        };
        for (id, uid) in objects {
            readers.index.withdraw(id, *uid);
        }
        match objects {
            // Nothing need be put in order to be looked through once.
            [(_, uid)] => readers.look_for(*uid),
            _ => readers.look(),
        }
        let taken = objects.iter().map(|(id, uid)| {
            let held = readers.found.binary_search(uid).is_ok();
            if held {
                readers.index.restore(id, *uid, wanted);
            } else {
                readers.index.unpublish(id, *uid);
            }
            held
        });
        taken.collect()
    }

    fn holders(&self) -> Vec<Holder> {
        let all = self.iter().flat_map(|readers| &readers.pins);
        let holders = all.flat_map(|(client, pins)| {
            pins.held().map(|(uid, slot)| Holder {
                client: *client,
                uid,
                slot: Slot::from_number(slot),
            })
        });
        holders.collect()
    }

    fn used(&mut self) -> Vec<Use> {
        let mut used = Vec::new();
        if let Some(readers) = self {
            for pins in readers.pins.values_mut() {
                pins.used(|what| used.push(what));
            }
            readers.index.end_look();
        }
        used
    }

    fn forget(&mut self, client: ClientId) {
        if let Some(readers) = self
            && let Some(gone) = readers.pins.remove(&client)
        {
            let (hits, misses) = gone.counts();
            let past = &mut readers.past_counts;
            *past = (past.0.wrapping_add(hits), past.1.wrapping_add(misses));
        }
    }
}
