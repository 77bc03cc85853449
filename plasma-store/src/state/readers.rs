//! What the rules need to know of clients that read without asking.
//!
//! Such clients find sealed objects in an index, and say themselves what they hold. The rules have
//! objects listed there, and ask before one goes away.

use std::fmt::Debug;

use plasma_core::ObjectId;
use plasma_core::shm::index::{Listing, Place};
use plasma_core::shm::pins::Use;

use super::ClientId;
use super::table::Slot;

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
