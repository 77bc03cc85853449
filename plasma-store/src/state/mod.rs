//! The store's rules, and nothing else: no socket, no clock, no mapping.
//!
//! A [`State`] is told what clients ask and what time it is, and says what follows: what to answer
//! whom, what subscribers are to hear, and what content is to be carried to or from the external
//! store. Whoever drives it does those things, in the order in which they are given.

pub(crate) mod alloc;
pub(crate) mod backing;
mod get;
mod lru;
mod readers;
mod restore;
mod room;
mod table;
#[cfg(test)]
mod tests;
mod wait;
#[cfg(any(test, feature = "fuzzing"))]
#[allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "it panics where something is amiss, which is what it is for"
)]
pub(crate) mod world;

use std::collections::BTreeSet;
use std::time::Duration;

use foldhash::{HashMap, HashSet};
use plasma_core::ObjectId;
use plasma_core::protocol::message::{
    Digest, ErrorCode, MMAP_GAP, Notification, ObjectInfo, ObjectSpec, Outcome, Reply, SegmentRef,
};
use plasma_core::shm::index::{FIRST_UID, Place, UID_STEP};

use alloc::{Allocator, Range};
pub(crate) use get::TooManyWaits;
use lru::Lru;
pub(crate) use readers::{Holder, NoReaders, Readers};
pub(crate) use table::Slot;
use table::{Object, Stage, Table};
use wait::Waits;

/// The store has one segment, and this is its number.
pub(crate) const SEGMENT: i32 = 1;

/// Characters of a client's name that are kept.
const MAX_NAME_LEN: usize = 256;

/// One connection, never the same twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ClientId(pub(crate) u64);

/// What the clock says: time since some start, and the date.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    pub(crate) elapsed: Duration,
    pub(crate) unix_s: i64,
}

/// What subscribers are to be told, in one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Announcement {
    One(Notification),
    Batch(Vec<Notification>),
}

/// Content to be carried between the arena and the external store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Transfer {
    pub(crate) id: ObjectId,
    pub(crate) range: Range,
    pub(crate) data_size: u64,
    pub(crate) metadata_size: u64,
}

/// What the external store is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carry {
    /// To keep content that is still in the arena, but not for long.
    Out(Transfer),
    /// To forget content that is of no more use.
    Away(ObjectId),
}

/// What follows from a request, apart from its own answer. To be done in this order.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    /// For the external store, in this order, before anything is written to the arena.
    pub(crate) carries: Vec<Carry>,
    /// Content to be brought back; then [`State::restored`] or [`State::restore_failed`].
    pub(crate) restores: Vec<Transfer>,
    /// What subscribers hear.
    pub(crate) announcements: Vec<Announcement>,
    /// Answers to gets that waited, perhaps the one that was just asked.
    pub(crate) replies: Vec<(ClientId, Reply<'static>)>,
}

impl Effects {
    fn announce(&mut self, notification: Notification) {
        self.announcements.push(Announcement::One(notification));
    }
}

/// An object to be created.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewObject {
    pub(crate) id: ObjectId,
    pub(crate) data_size: u64,
    pub(crate) metadata_size: u64,
    pub(crate) evict_if_full: bool,
}

/// An object that was created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Created {
    pub(crate) spec: ObjectSpec,
    /// What it has of the arena, its gap included.
    pub(crate) range: Range,
    /// The number that it will have for clients that read without asking.
    pub(crate) uid: u64,
    pub(crate) slot: Slot,
}

/// Limits the rules work within.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Bytes of data and metadata.
    pub(crate) capacity: u64,
    /// Bytes of address space to place them in.
    pub(crate) arena_len: u64,
    /// Objects, whatever their size.
    pub(crate) max_objects: usize,
    /// Ids that the waiting gets of one client may name together.
    pub(crate) max_waiting_ids: usize,
    /// Whether evicted objects go to an external store.
    pub(crate) external: bool,
}

/// How things stand, and what has happened so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) used_bytes: u64,
    /// Size of the largest object that there is room for without evicting any.
    pub(crate) largest_free_bytes: u64,
    pub(crate) pinned_bytes: u64,
    pub(crate) objects: usize,
    pub(crate) unsealed_objects: usize,
    /// Objects that were evicted, and their bytes.
    pub(crate) evictions: u64,
    pub(crate) evicted_bytes: u64,
    /// Ids in gets whose objects were there when they were asked for, and whose were not.
    pub(crate) hits: u64,
    pub(crate) misses: u64,
    /// Creates that failed because there were as many objects as there may be.
    pub(crate) refused_creates: u64,
    /// Releases and aborts of what the client does not hold.
    pub(crate) ignored_requests: u64,
}

#[derive(Debug, Default)]
struct Client {
    name: String,
    /// Objects this client holds; those it is creating are among them.
    holds: HashSet<Slot>,
}

/// Everything the store knows, of clients that ask and of those that read without asking.
#[derive(Debug)]
pub(crate) struct State<R = NoReaders> {
    readers: R,
    limits: Limits,
    table: Table,
    allocator: Allocator,
    allocated_bytes: u64,
    lru: Lru,
    clients: HashMap<ClientId, Client>,
    waits: Waits,
    seals: u64,
    /// The uid of the next object that is created or comes back.
    next_uid: u64,
    /// Objects that somebody was seen to hold who did not ask for them. Those who do so have one
    /// reference together.
    read: BTreeSet<Slot>,
    /// Who holds those, as they were last looked at.
    holders: Vec<(ClientId, Slot)>,
    /// How many said then that they hold something, which took its time to look at.
    claims: usize,
    /// How often what they hold was looked through.
    looks: u64,
    /// Objects in the external store that a waiting get is for and that found no room, the
    /// smallest first: where that one does not fit, none does.
    starved: BTreeSet<(u64, ObjectId)>,
    /// There may be more room than when they were last fed.
    unfed: bool,
    /// When to look next whether there is room for them, where nobody tells of it.
    next_look: Duration,
    /// When to try again what could not be brought back.
    retry_at: Option<Duration>,
    unsealed: usize,
    evictions: u64,
    evicted_bytes: u64,
    hits: u64,
    misses: u64,
    refused_creates: u64,
    /// A create was refused because of the number of objects, which has hardly fallen since.
    met_max_objects: bool,
    /// Releases and aborts of what the client does not hold.
    ignored_requests: u64,
}

impl State {
    /// With no clients but those that ask.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn new(limits: Limits) -> Self {
        Self::with_readers(limits, NoReaders)
    }
}

impl<R: Readers> State<R> {
    pub(crate) fn with_readers(limits: Limits, readers: R) -> Self {
        Self {
            readers,
            limits,
            table: Table::default(),
            allocator: Allocator::new(limits.arena_len),
            allocated_bytes: 0,
            lru: Lru::new(limits.capacity),
            clients: HashMap::default(),
            waits: Waits::default(),
            seals: 0,
            next_uid: FIRST_UID,
            read: BTreeSet::new(),
            holders: Vec::new(),
            claims: 0,
            looks: 0,
            starved: BTreeSet::new(),
            unfed: false,
            next_look: Duration::ZERO,
            retry_at: None,
            unsealed: 0,
            evictions: 0,
            evicted_bytes: 0,
            hits: 0,
            misses: 0,
            refused_creates: 0,
            met_max_objects: false,
            ignored_requests: 0,
        }
    }

    /// The clients that read without asking.
    pub(crate) fn readers(&self) -> &R {
        &self.readers
    }

    pub(crate) fn readers_mut(&mut self) -> &mut R {
        &mut self.readers
    }

    pub(crate) fn connect(&mut self, client: ClientId) {
        self.clients.insert(client, Client::default());
    }

    /// Whether a client holds any object, or is creating one.
    pub(crate) fn holds_any(&self, client: ClientId) -> bool {
        let client = self.clients.get(&client);
        client.is_some_and(|client| !client.holds.is_empty())
    }

    /// Forgets what a client waits for.
    pub(crate) fn end_waits(&mut self, client: ClientId) {
        self.waits.end_all_of(client);
    }

    /// Takes back everything a client holds.
    pub(crate) fn disconnect(&mut self, client: ClientId, now: Now, fx: &mut Effects) {
        self.readers.forget(client);
        self.end_waits(client);
        self.lru.end_quota(&mut self.table.objects, client);
        let Some(gone) = self.clients.remove(&client) else {
            return;
        };
        let mut holds: Vec<_> = gone.holds.into_iter().collect();
        // Not in the order of a hash: what happens is the same each time.
        holds.sort_unstable();
        let mut unwanted = Vec::new();
        for slot in holds {
            match self.table.at(slot).map(|object| object.stage) {
                Some(Stage::Creating) => self.drop_object(slot),
                _ => unwanted.extend(self.unref(slot).then_some(slot)),
            }
        }
        self.drop_those_free(&unwanted, fx);
        self.look_at_readers(fx);
        self.feed_starved(now, fx);
    }

    // -----------------------------------------------------------------------------------------
    // Creating

    /// Makes room for an object and reserves its id. Its memory is not backed yet: if that fails,
    /// [`abort`](Self::abort) it.
    pub(crate) fn create(
        &mut self,
        client: ClientId,
        new: &NewObject,
        now: Now,
        fx: &mut Effects,
    ) -> Result<Created, ErrorCode> {
        if self.table.slot(&new.id).is_some() {
            return Err(ErrorCode::ObjectExists);
        }
        let size = new
            .data_size
            .checked_add(new.metadata_size)
            .ok_or(ErrorCode::OutOfMemory)?;
        let range = self.make_room(Some(client), size, new.evict_if_full, fx);
        let range = range.inspect_err(|_| {
            if self.table.len() >= self.limits.max_objects {
                self.refused_creates += 1;
                self.met_max_objects = true;
            }
            self.feed_starved(now, fx);
        })?;
        let object = Object {
            id: new.id,
            stage: Stage::Creating,
            delete_pending: false,
            release_at_seal: false,
            refs: 0,
            data_size: new.data_size,
            metadata_size: new.metadata_size,
            range,
            creator: client,
            owner: None,
            link: lru::Link::default(),
            digest: Digest::default(),
            create_time_s: now.unix_s,
            construct_duration_s: 0,
            seal_number: 0,
            uid: self.next_uid,
        };
        let (spec, uid) = (object.spec(), object.uid);
        let Some(slot) = self.table.insert(object) else {
            self.give_back(range, size);
            return Err(ErrorCode::OutOfMemory);
        };
        self.next_uid += UID_STEP;
        self.unsealed += 1;
        self.lru.created(&mut self.table.objects, slot, client);
        self.add_ref(client, slot);
        // More may have been evicted from the client's quota than the object takes.
        self.feed_starved(now, fx);
        Ok(Created {
            spec,
            range,
            uid,
            slot,
        })
    }

    /// Drops an object that its creator has not sealed; whether there was one.
    pub(crate) fn abort(
        &mut self,
        client: ClientId,
        id: &ObjectId,
        now: Now,
        fx: &mut Effects,
    ) -> bool {
        let Some(slot) = self.creating(client, id) else {
            self.ignored_requests += 1;
            return false;
        };
        if let Some(client) = self.clients.get_mut(&client) {
            client.holds.remove(&slot);
        }
        self.drop_object(slot);
        self.feed_starved(now, fx);
        true
    }

    /// Makes an object immutable.
    pub(crate) fn seal(
        &mut self,
        client: ClientId,
        id: &ObjectId,
        digest: Digest,
        now: Now,
        fx: &mut Effects,
    ) -> Outcome {
        let slot = self.creating(client, id).ok_or(ErrorCode::ObjectNotFound)?;
        let sealed = self.seal_slot(slot, digest, now);
        let (info, _) = sealed.ok_or(ErrorCode::ObjectNotFound)?;
        fx.announce(Notification::Sealed(info));
        let served = self.serve_waits(slot, fx);
        let object = self.table.at(slot);
        if object.is_some_and(|object| object.release_at_seal) && !served.contains(&client) {
            self.release_slot(client, slot, now, fx);
        }
        Ok(())
    }

    /// Seals objects and lets go of them, as one: subscribers hear of them in one message.
    pub(crate) fn seal_batch(
        &mut self,
        client: ClientId,
        objects: &[(ObjectId, Digest)],
        now: Now,
        fx: &mut Effects,
    ) {
        let mut slots = Vec::with_capacity(objects.len());
        let mut notifications = Vec::with_capacity(objects.len());
        for (id, digest) in objects {
            // One that is there twice is sealed by now.
            let Some(slot) = self.creating(client, id) else {
                continue;
            };
            if let Some((info, _)) = self.seal_slot(slot, *digest, now) {
                slots.push(slot);
                notifications.push(Notification::Sealed(info));
            }
        }
        fx.announcements.extend(match notifications.len() {
            0 => None,
            1 => notifications.pop().map(Announcement::One),
            _ => Some(Announcement::Batch(notifications)),
        });
        for slot in slots {
            let served = self.serve_waits(slot, fx);
            if !served.contains(&client) {
                self.release_slot(client, slot, now, fx);
            }
        }
    }

    /// Seals one object and lets go of it; where it is listed for those who read without asking.
    pub(crate) fn seal_and_let_go(
        &mut self,
        client: ClientId,
        id: &ObjectId,
        digest: Digest,
        now: Now,
        fx: &mut Effects,
    ) -> Result<Option<Place>, ErrorCode> {
        let slot = self.creating(client, id).ok_or(ErrorCode::ObjectNotFound)?;
        let sealed = self.seal_slot(slot, digest, now);
        let (info, place) = sealed.ok_or(ErrorCode::ObjectNotFound)?;
        fx.announce(Notification::Sealed(info));
        let served = self.serve_waits(slot, fx);
        if !served.contains(&client) {
            self.release_slot(client, slot, now, fx);
        }
        Ok(place)
    }

    fn seal_slot(
        &mut self,
        slot: Slot,
        digest: Digest,
        now: Now,
    ) -> Option<(ObjectInfo, Option<Place>)> {
        let object = self.table.at_mut(slot)?;
        self.seals += 1;
        self.unsealed -= 1;
        object.stage = Stage::Sealed;
        object.digest = digest;
        object.construct_duration_s = (now.unix_s - object.create_time_s).max(0);
        object.seal_number = self.seals;
        let (info, listing) = (object.info(), object.listing(slot));
        Some((info, self.readers.publish(&listing)))
    }

    /// The object that a client is creating under this id.
    fn creating(&self, client: ClientId, id: &ObjectId) -> Option<Slot> {
        let (slot, object) = self.table.get(id)?;
        (object.stage == Stage::Creating && object.creator == client).then_some(slot)
    }

    // -----------------------------------------------------------------------------------------
    // Asking

    /// The store's one segment, as replies name it.
    pub(crate) fn segment(&self) -> SegmentRef {
        SegmentRef {
            segment: SEGMENT,
            mmap_size: (self.limits.arena_len + MMAP_GAP) as i64,
        }
    }

    /// Ends a client's hold on an object.
    pub(crate) fn release(&mut self, client: ClientId, id: &ObjectId, now: Now, fx: &mut Effects) {
        let held = self.table.get_mut(id).filter(|(slot, _)| {
            let client = self.clients.get(&client);
            client.is_some_and(|client| client.holds.contains(slot))
        });
        let Some((slot, object)) = held else {
            self.ignored_requests += 1;
            return;
        };
        if object.stage == Stage::Creating {
            // It is the creator's until it is sealed or aborted.
            object.release_at_seal = true;
            return;
        }
        self.release_slot(client, slot, now, fx);
    }

    pub(crate) fn contains(&self, id: &ObjectId) -> bool {
        let found = self.table.get(id);
        found.is_some_and(|(_, object)| object.stage != Stage::Creating)
    }

    /// Every object, with how many clients hold it as far as they have been
    /// [looked at](Self::look_at_readers).
    pub(crate) fn list(&self) -> Vec<ObjectInfo> {
        let mut readers: HashMap<Slot, u32> = HashMap::default();
        for (client, slot) in &self.holders {
            let client = self.clients.get(client);
            if !client.is_some_and(|client| client.holds.contains(slot)) {
                *readers.entry(*slot).or_default() += 1;
            }
        }
        let objects = self.table.iter().map(|(slot, object)| {
            let mut info = object.info();
            // Each for itself now, instead of one for all.
            info.ref_count -= u32::from(self.read.contains(&slot));
            info.ref_count += readers.get(&slot).copied().unwrap_or_default();
            info
        });
        objects.collect()
    }

    /// Every object that is sealed and has memory, in the order they were sealed.
    pub(crate) fn sealed_objects(&self) -> Vec<ObjectInfo> {
        let objects = self.table.iter().map(|(_, object)| object);
        let sealed = objects.filter(|object| object.stage == Stage::Sealed);
        let mut sealed: Vec<_> = sealed
            .map(|object| (object.seal_number, object.info()))
            .collect();
        sealed.sort_unstable_by_key(|(number, _)| *number);
        sealed.into_iter().map(|(_, info)| info).collect()
    }

    /// Makes objects the most recently used.
    pub(crate) fn refresh(&mut self, ids: &[ObjectId]) {
        for id in ids {
            if let Some(slot) = self.table.slot(id) {
                self.lru.refresh(&mut self.table.objects, slot);
            }
        }
    }

    // -----------------------------------------------------------------------------------------
    // Accounts

    /// Names a client and, where it asks for one, gives it a quota.
    pub(crate) fn set_options(
        &mut self,
        client: ClientId,
        name: &str,
        quota_bytes: i64,
    ) -> Outcome {
        let name: String = name.chars().take(MAX_NAME_LEN).collect();
        let outcome = match u64::try_from(quota_bytes) {
            Ok(0) => Ok(()),
            Ok(quota) if self.lru.set_quota(client, &name, quota) => Ok(()),
            _ => Err(ErrorCode::OutOfMemory),
        };
        if let Some(client) = self.clients.get_mut(&client) {
            client.name = name;
        }
        outcome
    }

    /// The account of its memory that clients parse.
    pub(crate) fn debug_string(&self) -> String {
        self.lru
            .debug_string(self.allocated_bytes, self.limits.capacity)
    }

    /// The name a client gave itself, for logs.
    pub(crate) fn client_name(&self, client: ClientId) -> &str {
        self.clients.get(&client).map_or("", |client| &client.name)
    }

    pub(crate) fn tally(&self) -> Tally {
        let used_bytes = self.allocated_bytes;
        let block = self.allocator.free_ranges().next();
        let free_bytes = self.limits.capacity - used_bytes;
        Tally {
            used_bytes,
            largest_free_bytes: block.map_or(0, |block| block.len).min(free_bytes),
            pinned_bytes: self.lru.pinned_bytes(),
            objects: self.table.len(),
            unsealed_objects: self.unsealed,
            evictions: self.evictions,
            evicted_bytes: self.evicted_bytes,
            hits: self.hits,
            misses: self.misses,
            refused_creates: self.refused_creates,
            ignored_requests: self.ignored_requests,
        }
    }

    /// The number of objects there may be, if creates fail because of it: until there are one in
    /// ten less, so that one who creates as others delete does not meet it anew each time.
    pub(crate) fn met_max_objects(&mut self) -> Option<usize> {
        let limit = self.limits.max_objects;
        self.met_max_objects &= self.table.len() >= limit - limit / 10;
        self.met_max_objects.then_some(limit)
    }

    // -----------------------------------------------------------------------------------------
    // References

    /// Counts a client as holding an object, once.
    fn add_ref(&mut self, client: ClientId, slot: Slot) {
        let Some(client) = self.clients.get_mut(&client) else {
            return;
        };
        if client.holds.insert(slot) {
            let objects = &mut self.table.objects;
            if objects.get(slot).is_some_and(|object| object.refs == 0) {
                self.lru.pinned(objects, slot);
            }
            if let Some(object) = objects.get_mut(slot) {
                object.refs += 1;
            }
        }
    }

    fn release_slot(&mut self, client: ClientId, slot: Slot, now: Now, fx: &mut Effects) {
        let client = self.clients.get_mut(&client);
        if client.is_some_and(|client| client.holds.remove(&slot)) {
            if self.unref(slot) {
                self.drop_if_free(slot, fx);
            }
            self.feed_starved(now, fx);
        }
    }

    /// One client less holds an object; whether it is to go once nobody does.
    #[must_use]
    fn unref(&mut self, slot: Slot) -> bool {
        let Some(object) = self.table.at_mut(slot) else {
            return false;
        };
        object.refs = object.refs.saturating_sub(1);
        let (refs, delete_pending) = (object.refs, object.delete_pending);
        if refs == 0 {
            self.lru.unpinned(&mut self.table.objects, slot);
        }
        delete_pending
    }
}
