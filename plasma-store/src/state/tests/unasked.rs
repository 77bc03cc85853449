//! Clients that read without asking, as one that is made up says.

use plasma_core::shm::index::{Listing, Place};
use plasma_core::shm::pins::Use;

use super::{ALICE, at, id, limits};
use crate::state::{ClientId, Effects, Holder, NewObject, Readers, State};

/// One that takes the first object that is to go from it, just before it does: nobody sees it before.
#[derive(Debug, Default)]
struct Late {
    holds: Option<u64>,
}

impl Readers for Late {
    fn publish(&mut self, _: &Listing) -> Option<Place> {
        None
    }

    fn take(&mut self, objects: &[(plasma_core::ObjectId, u64)], _: bool) -> Vec<bool> {
        let uids = objects.iter().map(|(_, uid)| *uid);
        let held = uids.map(|uid| *self.holds.get_or_insert(uid) == uid);
        held.collect()
    }

    fn holders(&self) -> Vec<Holder> {
        Vec::new()
    }

    fn used(&mut self) -> Vec<Use> {
        Vec::new()
    }

    fn forget(&mut self, _: ClientId) {}
}

/// A fifth of the store is evicted at a time: where somebody has come to hold just that, the rest can go.
#[test]
fn where_the_oldest_is_held_at_last_another_is_evicted() {
    let mut state = State::with_readers(limits(), Late::default());
    state.connect(ALICE);
    let mut fx = Effects::default();
    for n in 0..6 {
        let new = NewObject {
            id: id(n),
            data_size: 200,
            metadata_size: 0,
            evict_if_full: true,
        };
        let created = state.create(ALICE, &new, at(0), &mut fx);
        created.expect("all but one may go");
        let sealed = state.seal(ALICE, &id(n), [0; 8], at(0), &mut fx);
        sealed.expect("it was just created");
        state.release(ALICE, &id(n), at(0), &mut fx);
    }
    let there: Vec<_> = (0..6).filter(|n| state.contains(&id(*n))).collect();
    assert_eq!(there, [0, 2, 3, 4, 5]);
}
