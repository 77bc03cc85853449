//! The store's rules, and nothing else: no socket, no clock, no mapping.
//!
//! A [`State`] is told what clients ask and what time it is, and says what follows: what to answer
//! whom, what subscribers are to hear, and what content is to be carried to or from the external
//! store. Whoever drives it does those things, in the order in which they are given.

pub(crate) mod alloc;
pub(crate) mod backing;
mod lru;
mod readers;
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
use lru::Lru;
pub(crate) use readers::{Holder, NoReaders, Readers};
pub(crate) use table::Slot;
use table::{Object, Stage, Table};
use wait::{Patience, Wait, Waits};

/// The store has one segment, and this is its number.
pub(crate) const SEGMENT: i32 = 1;

/// What a get that waits counts for beside its ids: it is kept, and its answer will be.
const WAIT_COST: usize = 64;

/// Characters of a client's name that are kept.
const MAX_NAME_LEN: usize = 256;

/// How often to look whether those who read without asking have let go of what is in the way of
/// something that a get waits for.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// So much less often for each object that they say to hold: some ten times what it takes to look at it.
const LOOK_INTERVAL_FOR_EACH: Duration = Duration::from_micros(2);

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

/// How much was evicted.
#[derive(Clone, Copy, Debug, Default)]
struct Evicted {
    objects: u64,
    bytes: u64,
}

/// A client asked for more than the store keeps for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more gets that wait, or for more objects, than one client may have")]
pub(crate) struct TooManyWaits;

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
    /// Objects in the external store that a waiting get is for and that found no room, the
    /// smallest first: where that one does not fit, none does.
    starved: BTreeSet<(u64, ObjectId)>,
    /// When to look next whether those who read without asking have let go of what is in their way.
    next_look: Duration,
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
            starved: BTreeSet::new(),
            next_look: Duration::ZERO,
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

    /// Takes back everything a client holds.
    pub(crate) fn disconnect(&mut self, client: ClientId, now: Now, fx: &mut Effects) {
        self.readers.forget(client);
        self.waits.end_all_of(client);
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
        let slots: Vec<_> = objects
            .iter()
            .filter_map(|(id, digest)| Some((self.creating(client, id)?, digest)))
            .collect();
        let mut notifications: Vec<_> = slots
            .iter()
            .filter_map(|(slot, digest)| self.seal_slot(*slot, **digest, now))
            .map(|(info, _)| Notification::Sealed(info))
            .collect();
        fx.announcements.extend(match notifications.len() {
            0 => None,
            1 => notifications.pop().map(Announcement::One),
            _ => Some(Announcement::Batch(notifications)),
        });
        for (slot, _) in slots {
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
    // Reading

    /// Gives a client objects, now or when they are all there or when time is up: the answer is
    /// among the effects then. A timeout of `None` waits for ever.
    pub(crate) fn get(
        &mut self,
        client: ClientId,
        ids: Vec<ObjectId>,
        timeout: Option<Duration>,
        now: Now,
        fx: &mut Effects,
    ) -> Result<(), TooManyWaits> {
        let mut missing = BTreeSet::new();
        let mut restoring = BTreeSet::new();
        let mut located = Vec::with_capacity(ids.len());
        let mut looked = false;
        for id in &ids {
            let mut spec = None;
            let found = self.table.get(id);
            match found.map(|(slot, object)| (object.stage, slot, object)) {
                Some((Stage::Sealed, slot, object)) => {
                    spec = Some(object.spec());
                    self.add_ref(client, slot);
                }
                Some((Stage::Spilled, slot, object)) => {
                    let size = object.size();
                    if !looked && self.lacks_room(size) && !self.read.is_empty() {
                        // They may have let go of what they were seen to hold.
                        self.look_at_readers(fx);
                        looked = true;
                    }
                    if self.start_restore(slot, now, fx) {
                        restoring.insert(*id);
                    } else if timeout != Some(Duration::ZERO) {
                        self.starved.insert((size, *id));
                    }
                    missing.insert(*id);
                }
                Some((Stage::Restoring, ..)) => {
                    restoring.insert(*id);
                    missing.insert(*id);
                }
                Some((Stage::Creating, ..)) | None => {
                    missing.insert(*id);
                }
            }
            if spec.is_some() {
                self.hits += 1;
            } else {
                self.misses += 1;
            }
            located.push((*id, spec));
        }
        // What is on its way back from the external store is there, only not quite yet.
        if timeout == Some(Duration::ZERO) {
            missing = restoring;
        }
        if missing.is_empty() {
            fx.replies.push((client, self.get_reply(located)));
            return Ok(());
        }
        let cost = ids.len() + WAIT_COST;
        let most = self.limits.max_waiting_ids.saturating_add(WAIT_COST);
        if self.waits.cost_of(client) + cost > most {
            return Err(TooManyWaits);
        }
        let patience = match timeout {
            Some(Duration::ZERO) => Patience::ForRestores,
            Some(timeout) => now
                .elapsed
                .checked_add(timeout)
                .map_or(Patience::Endless, Patience::Until),
            None => Patience::Endless,
        };
        self.waits.begin(client, ids, cost, &missing, patience);
        Ok(())
    }

    /// When [`expire`](Self::expire) is to be called next.
    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        let look = self.readers_are_in_the_way().then_some(self.next_look);
        let deadlines = [self.waits.next_deadline(), look];
        deadlines.into_iter().flatten().min()
    }

    /// Answers the gets whose time is up, and brings back what has room by now.
    pub(crate) fn expire(&mut self, now: Now, fx: &mut Effects) {
        while let Some(wait) = self.waits.expire(now.elapsed) {
            self.answer(wait, fx);
        }
        if self.readers_are_in_the_way() && self.next_look <= now.elapsed {
            self.sweep(now, fx);
            let claims = u32::try_from(self.claims).unwrap_or(u32::MAX);
            let interval = LOOK_INTERVAL + LOOK_INTERVAL_FOR_EACH * claims;
            self.next_look = now.elapsed.saturating_add(interval);
        }
    }

    /// Whether something may find room once those who read without asking let go, of which they tell
    /// nobody.
    fn readers_are_in_the_way(&self) -> bool {
        !self.starved.is_empty() && !self.read.is_empty()
    }

    /// Gives a sealed object to everyone who waits for it; who that was. What its creator gets
    /// that way it holds until it lets go of it again.
    fn serve_waits(&mut self, slot: Slot, fx: &mut Effects) -> Vec<ClientId> {
        let Some(id) = self.table.at(slot).map(|object| object.id) else {
            return Vec::new();
        };
        let waits = self.waits.for_object(&id);
        for (wait, client) in &waits {
            self.add_ref(*client, slot);
            if let Some(wait) = self.waits.satisfy(*wait, &id) {
                self.answer(wait, fx);
            }
        }
        waits.into_iter().map(|(_, client)| client).collect()
    }

    fn answer(&self, wait: Wait, fx: &mut Effects) {
        let holds = self.clients.get(&wait.client).map(|client| &client.holds);
        let located = wait.ids.iter().map(|id| {
            // What came for this wait is held for its client since.
            let found = self.table.get(id).filter(|(slot, object)| {
                object.stage == Stage::Sealed && holds.is_some_and(|holds| holds.contains(slot))
            });
            (*id, found.map(|(_, object)| object.spec()))
        });
        fx.replies
            .push((wait.client, self.get_reply(located.collect())));
    }

    fn get_reply(&self, objects: Vec<(ObjectId, Option<ObjectSpec>)>) -> Reply<'static> {
        let found = objects.iter().any(|(_, spec)| spec.is_some());
        Reply::Get {
            objects: objects.into(),
            segments: found.then(|| self.segment()).into_iter().collect(),
        }
    }

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

    // -----------------------------------------------------------------------------------------
    // Making room

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
        self.evict_oldest(wanted, fx).bytes
    }

    /// Evicts the oldest objects that nobody holds.
    fn evict_oldest(&mut self, wanted: u64, fx: &mut Effects) -> Evicted {
        let slots = self.lru.take_oldest(&mut self.table.objects, wanted);
        let (slots, kept) = self.take_from_readers(slots);
        // Somebody has come to hold them just now.
        for slot in kept {
            self.lru.put_back(&mut self.table.objects, slot);
            self.add_read(slot);
        }
        self.evict_slots(slots, fx)
    }

    pub(crate) fn refresh(&mut self, ids: &[ObjectId]) {
        for id in ids {
            if let Some(slot) = self.table.slot(id) {
                self.lru.refresh(&mut self.table.objects, slot);
            }
        }
    }

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

    /// Takes memory for `size` bytes, evicting where that is allowed and needed. Where the room is
    /// for an object that `creator` makes, its quota comes first.
    fn make_room(
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
            self.look_at_readers(fx);
            if self.lacks_room(size) {
                // Evicting all there is would not help: nobody's objects are lost for nothing.
                return Err(ErrorCode::OutOfMemory);
            }
            let wanted = self.missing_bytes(size).max(capacity / 5).max(1);
            let evicted = self.evict_oldest(wanted, fx);
            // Objects of no bytes free a place in the table, if not memory.
            let helped = evicted.bytes > 0 || (evicted.objects > 0 && !slot_free);
            if !helped {
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
    fn lacks_room(&self, size: u64) -> bool {
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

    // -----------------------------------------------------------------------------------------
    // The external store

    /// Makes room for an object to come back to; whether there is any. Nothing is evicted in vain.
    fn start_restore(&mut self, slot: Slot, now: Now, fx: &mut Effects) -> bool {
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
        } else {
            // For whoever goes on waiting it is tried again once memory is freed.
            self.starved.insert((size, *id));
        }
        for (wait, _) in self.waits.for_object(id) {
            if let Some(wait) = self.waits.disappoint(wait, id) {
                self.answer(wait, fx);
            }
        }
        if gone {
            self.feed_starved(now, fx);
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
    fn feed_starved(&mut self, now: Now, fx: &mut Effects) {
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

    // -----------------------------------------------------------------------------------------
    // Those who read without asking

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

    /// Counts those who read without asking as holding an object, together and once.
    fn add_read(&mut self, slot: Slot) {
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
    fn take_from_readers(&mut self, slots: Vec<Slot>) -> (Vec<Slot>, Vec<Slot>) {
        let names = slots.iter().filter_map(|slot| {
            let object = self.table.at(*slot)?;
            Some((object.id, object.uid))
        });
        let names: Vec<_> = names.collect();
        let mut held = self.readers.take(&names, false).into_iter();
        slots
            .into_iter()
            .partition(|_| !held.next().unwrap_or(true))
    }

    /// The same for one object.
    fn drop_if_free(&mut self, slot: Slot, fx: &mut Effects) {
        self.drop_those_free(&[slot], fx);
    }

    /// Deletes those of some sealed objects that nobody holds; for each, whether that is so. For the
    /// others whoever lets go of them last leads to this again.
    fn drop_those_free(&mut self, slots: &[Slot], fx: &mut Effects) -> Vec<bool> {
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

    /// Removes an object that nobody finds any more, and gives its memory back.
    fn drop_object(&mut self, slot: Slot) {
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

    fn give_back(&mut self, range: Range, size: u64) {
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
