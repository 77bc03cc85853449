//! Random histories, in Arrow's store and in this project's at once: both say the same.
//!
//! After each operation the answers are compared, and everything that can be seen from outside: the
//! list of objects, the debug string, and what a subscriber has heard. The differences that are
//! meant are few, and named here:
//!
//! - Arrow's store goes on counting as pinned what was in use when it went away ([`LEAKS`]). It also
//!   goes on counting it against its creator's quota, and may choose it for eviction there; so
//!   nothing of a client with a quota goes away while in use.
//! - Arrow's store remembers a delete of an object that is aborted then, and deletes the next one of
//!   that id at its last release; so what is to be deleted is sealed, not aborted.
//! - For what does not fit even then, Arrow's store evicts all it can; so that is only asked for
//!   where there is nothing to evict.
//! - What a client that leaves lets go of, Arrow's store takes in the order of a hash. So everything
//!   is refreshed then, which puts it in a known order.
//! - Clients with a quota are told of in the order of a hash.
//! - What clients read and refresh through shared memory, our store learns of when it next looks, so
//!   the order of eviction is only close to Arrow's; these go through the socket.

use std::collections::{BTreeMap, BTreeSet};

use plasma_core::ObjectId;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tests::{StoreProcess, eventually, within};

use crate::peer::{Answer, Content, Event, Listed, Ours, Peer};
use crate::{LIMIT, StoreKind, id};

const CAPACITY: u64 = 1_000_000;
const CLIENTS: usize = 4;
const OBJECTS: usize = 24;
const OPERATIONS: usize = 500;
/// Histories; as many more as are wanted with this variable.
const SEEDS: u64 = 16;
const SEEDS_VARIABLE: &str = "PLASMA_TEST_SEEDS";

#[derive(Clone, Debug, PartialEq)]
enum Op {
    Create(ObjectId, usize, Vec<u8>),
    Seal(ObjectId),
    Abort(ObjectId),
    Put(ObjectId, Vec<u8>, Vec<u8>),
    Batch(Vec<(ObjectId, Vec<u8>, Vec<u8>)>),
    Get(Vec<ObjectId>),
    Release(ObjectId),
    Delete(Vec<ObjectId>),
    Evict(u64),
    Refresh(Vec<ObjectId>),
    Quota(u64),
    Leave,
}

/// In these Arrow's store may go on counting as pinned what goes away.
const LEAKS: &[&str] = &["Abort", "Release", "Batch", "Leave"];

impl Op {
    fn name(&self) -> String {
        let text = format!("{self:?}");
        let name = text.split('(').next();
        name.unwrap_or_default().to_owned()
    }
}

/// What an operation tells its client.
#[derive(Debug, PartialEq)]
enum Told {
    Outcome(Answer<()>),
    Contents(Vec<Option<Content>>),
    Bytes(u64),
    Nothing,
}

/// A store with its clients.
struct Side {
    store: StoreProcess,
    clients: Vec<Ours>,
    watcher: Ours,
    markers: usize,
}

/// What can be seen of a store.
#[derive(Debug, PartialEq)]
struct View {
    objects: Vec<Listed>,
    events: Vec<Event>,
    debug: Vec<String>,
}

impl Side {
    fn start(kind: StoreKind) -> Self {
        let store = StoreProcess::start_program(&kind.program(), CAPACITY, &[]);
        let mut watcher = Ours::connect_by_socket(store.socket());
        let marker = id("the first marker");
        watcher.create_and_seal(marker, b"", b"").unwrap();
        watcher.subscribe();
        // Once it hears of what is there it has subscribed.
        let there = watcher.notification(tests::patience());
        assert_eq!(there, [Event::Sealed(marker, 0, 0)]);
        watcher.delete(&[marker]).unwrap();
        let gone = watcher.notification(tests::patience());
        assert_eq!(gone, [Event::Deleted(marker)]);
        Self {
            clients: (0..CLIENTS)
                .map(|_| Ours::connect_by_socket(store.socket()))
                .collect(),
            store,
            watcher,
            markers: 0,
        }
    }

    fn perform(&mut self, who: usize, op: &Op) -> Told {
        let client = &mut self.clients[who];
        match op {
            Op::Create(id, size, meta) => {
                let outcome = client.create(*id, *size, meta);
                if outcome.is_ok() {
                    client.write(*id, &content(*id, *size));
                }
                Told::Outcome(outcome)
            }
            Op::Seal(id) => Told::Outcome(client.seal(*id)),
            Op::Abort(id) => Told::Outcome(client.abort(*id)),
            Op::Put(id, data, meta) => Told::Outcome(client.create_and_seal(*id, data, meta)),
            Op::Batch(objects) => Told::Outcome(client.batch(objects)),
            Op::Get(ids) => Told::Contents(client.get(ids, 0).unwrap()),
            Op::Release(id) => {
                client.release(*id);
                Told::Nothing
            }
            Op::Delete(ids) => Told::Outcome(client.delete(ids)),
            Op::Evict(bytes) => Told::Bytes(client.evict(*bytes)),
            Op::Refresh(ids) => Told::Outcome(client.refresh(ids)),
            Op::Quota(bytes) => Told::Outcome(client.set_options(&format!("client {who}"), *bytes)),
            Op::Leave => {
                let open = self.open_descriptors();
                let new = Ours::connect_by_socket(self.store.socket());
                self.clients[who] = new;
                // The store has closed one connection, and done what follows from it.
                eventually("the client is gone", || self.open_descriptors() == open);
                let all: Vec<_> = (0..OBJECTS).map(id).collect();
                Told::Outcome(self.watcher.refresh(&all))
            }
        }
    }

    fn open_descriptors(&self) -> usize {
        let folder = format!("/proc/{}/fd", self.store.pid());
        std::fs::read_dir(folder).expect("the store runs").count()
    }

    fn view(&mut self) -> View {
        let objects = self.watcher.list();
        let debug = self.watcher.debug_string();
        View {
            objects,
            events: self.events(),
            debug: normal(&debug),
        }
    }

    /// What the subscriber has heard of this operation: all that comes before a marker's deletion.
    fn events(&mut self) -> Vec<Event> {
        self.markers += 1;
        let marker = id(format!("marker {}", self.markers));
        self.watcher.create_and_seal(marker, b"", b"").unwrap();
        self.watcher.delete(&[marker]).unwrap();
        let mut events = Vec::new();
        loop {
            let more = self.watcher.notification(tests::patience());
            assert!(!more.is_empty(), "the marker is told of");
            events.extend(more);
            if events.last() == Some(&Event::Deleted(marker)) {
                events.truncate(events.len() - 2);
                return events;
            }
        }
    }
}

/// The debug string's lines, the clients with a quota sorted.
fn normal(debug: &str) -> Vec<String> {
    const COMMON_LINES: usize = 11;
    let lines: Vec<&str> = debug.lines().collect();
    let (common, quotas) = lines.split_at(COMMON_LINES);
    let quotas: BTreeSet<_> = quotas.chunks(5).map(|lines| lines.join("\n")).collect();
    let common = common.iter().map(|line| (*line).to_owned());
    common.chain(quotas).collect()
}

/// Takes the pinned bytes out of the debug string.
fn take_pinned(view: &mut View) -> u64 {
    const LINE: usize = 5;
    let line = view.debug.remove(LINE);
    let pinned = line.strip_prefix("pinned bytes: ").expect("pinned bytes");
    pinned.parse().unwrap()
}

/// What an object is filled with.
fn content(id: ObjectId, size: usize) -> Vec<u8> {
    id.as_bytes().iter().copied().cycle().take(size).collect()
}

/// Chooses what happens next: only what a client that keeps to the rules may do, as Arrow's store
/// ends over anything else.
struct Author {
    rng: StdRng,
    /// What each client holds, how often, and whether it is still being created.
    holds: Vec<BTreeMap<ObjectId, (usize, bool)>>,
    /// Clients with a quota, and what they have created.
    quotas: BTreeSet<usize>,
    owned: BTreeMap<ObjectId, usize>,
    /// Deleted before they were sealed.
    doomed: BTreeSet<ObjectId>,
}

impl Author {
    fn new(seed: u64) -> Self {
        Self {
            rng: StdRng::seed_from_u64(seed),
            holds: vec![BTreeMap::new(); CLIENTS],
            quotas: BTreeSet::new(),
            owned: BTreeMap::new(),
            doomed: BTreeSet::new(),
        }
    }

    fn any_id(&mut self) -> ObjectId {
        id(self.rng.random_range(0..OBJECTS))
    }

    fn some_ids(&mut self, most: usize) -> Vec<ObjectId> {
        let count = self.rng.random_range(1..=most);
        (0..count).map(|_| self.any_id()).collect()
    }

    fn size(&mut self) -> usize {
        match self.rng.random_range(0..20) {
            0 => 0,
            1..=4 => self.rng.random_range(1..1000),
            5..=14 => self.rng.random_range(1000..100_000),
            15..=18 => self.rng.random_range(100_000..400_000),
            _ => self.rng.random_range(400_000..=CAPACITY as usize + 10),
        }
    }

    fn meta(&mut self) -> Vec<u8> {
        vec![b'm'; self.rng.random_range(0..50)]
    }

    fn object(&mut self) -> (ObjectId, Vec<u8>, Vec<u8>) {
        let id = self.any_id();
        (id, content(id, self.size()), self.meta())
    }

    /// An object that this client holds.
    fn held(&mut self, who: usize, creating: bool) -> Option<ObjectId> {
        let holds = self.holds[who].iter();
        let held: Vec<_> = holds
            .filter(|(_, (_, state))| *state == creating)
            .map(|(id, _)| *id)
            .collect();
        (!held.is_empty()).then(|| held[self.rng.random_range(0..held.len())])
    }

    fn next(&mut self, objects: &[Listed]) -> (usize, Op) {
        loop {
            let who = self.rng.random_range(0..CLIENTS);
            let op = match self.rng.random_range(0..100) {
                0..18 => {
                    let id = self.any_id();
                    Some(Op::Create(id, self.size(), self.meta()))
                }
                18..30 => self.held(who, true).map(Op::Seal),
                30..34 => self.held(who, true).map(Op::Abort),
                34..44 => {
                    let (id, data, meta) = self.object();
                    Some(Op::Put(id, data, meta))
                }
                44..48 => {
                    let count = self.rng.random_range(1..4);
                    Some(Op::Batch((0..count).map(|_| self.object()).collect()))
                }
                48..58 => Some(Op::Get(self.some_ids(3))),
                58..80 => self.held(who, false).map(Op::Release),
                80..86 => Some(Op::Delete(self.some_ids(2))),
                86..89 => Some(Op::Evict(self.rng.random_range(0..300_000))),
                89..93 => Some(Op::Refresh(self.some_ids(5))),
                93..97 => Some(Op::Quota(self.rng.random_range(1..400_000))),
                _ => Some(Op::Leave),
            };
            if let Some(op) = op.filter(|op| self.may(who, op, objects)) {
                return (who, op);
            }
        }
    }

    fn may(&self, who: usize, op: &Op, objects: &[Listed]) -> bool {
        let holds = &self.holds[who];
        let creating = |id: &ObjectId| holds.get(id).is_some_and(|(_, creating)| *creating);
        let owned = |id: &ObjectId| self.owned.contains_key(id);
        let in_use = |id: &ObjectId| self.holds.iter().any(|holds| holds.contains_key(id));
        match op {
            // A client that gets what it is creating waits for itself, or worse.
            Op::Get(ids) => !ids.iter().any(creating),
            // What follows would go away in use, or might.
            Op::Abort(id) => !owned(id) && !self.doomed.contains(id),
            Op::Batch(new) if new.len() > 1 && self.quotas.contains(&who) => false,
            Op::Batch(new) => {
                let sizes = new.iter().map(|(_, data, meta)| data.len() + meta.len());
                self.fits_or_evicts_nothing(objects, sizes.sum())
            }
            Op::Create(_, size, meta) => self.fits_or_evicts_nothing(objects, size + meta.len()),
            Op::Put(_, data, meta) => self.fits_or_evicts_nothing(objects, data.len() + meta.len()),
            Op::Delete(ids) => !ids.iter().any(|id| owned(id) && in_use(id)),
            Op::Leave => !holds
                .keys()
                .any(|id| creating(id) && (owned(id) || self.doomed.contains(id))),
            _ => true,
        }
    }

    fn fits_or_evicts_nothing(&self, objects: &[Listed], size: usize) -> bool {
        let bytes = |object: &Listed| object.data_size + object.meta_size;
        let used: u64 = objects.iter().map(bytes).sum();
        let missing = (used + size as u64).saturating_sub(CAPACITY);
        let mut idle = objects
            .iter()
            .filter(|object| object.ref_count == 0)
            .peekable();
        let nothing_to_evict = idle.peek().is_none();
        let common = idle.filter(|object| !self.owned.contains_key(&object.id));
        nothing_to_evict || missing <= common.map(bytes).sum()
    }

    /// Takes note of what has happened.
    fn note(&mut self, who: usize, op: &Op, told: &Told) {
        if *told == Told::Outcome(Ok(())) {
            let created: Vec<_> = match op {
                Op::Create(id, ..) | Op::Put(id, ..) => vec![*id],
                Op::Batch(objects) => objects.iter().map(|(id, ..)| *id).collect(),
                _ => Vec::new(),
            };
            for id in created {
                self.owned.remove(&id);
                self.doomed.remove(&id);
                if self.quotas.contains(&who) {
                    self.owned.insert(id, who);
                }
            }
            if let Op::Delete(ids) = op {
                let holds = self.holds.iter().flatten();
                let creating = holds.filter(|(_, (_, creating))| *creating);
                let deleted = creating.map(|(id, _)| *id).filter(|id| ids.contains(id));
                self.doomed.extend(deleted);
            }
            match op {
                Op::Quota(_) => self.quotas.insert(who),
                Op::Leave => {
                    self.owned.retain(|_, owner| *owner != who);
                    self.quotas.remove(&who)
                }
                _ => false,
            };
        }
        let holds = &mut self.holds[who];
        match (op, told) {
            (Op::Create(id, ..), Told::Outcome(Ok(()))) => {
                holds.insert(*id, (1, true));
            }
            (Op::Seal(id), _) => holds.get_mut(id).unwrap().1 = false,
            (Op::Abort(id), _) => {
                holds.remove(id);
            }
            (Op::Get(ids), Told::Contents(contents)) => {
                for (id, _) in ids
                    .iter()
                    .zip(contents)
                    .filter(|(_, found)| found.is_some())
                {
                    holds.entry(*id).or_insert((0, false)).0 += 1;
                }
            }
            (Op::Release(id), _) => {
                let count = &mut holds.get_mut(id).unwrap().0;
                *count -= 1;
                if *count == 0 {
                    holds.remove(id);
                }
            }
            (Op::Leave, _) => holds.clear(),
            _ => {}
        }
    }
}

/// The evictions that there were: from the global order, and from those of quotas.
fn both_say_the_same(seed: u64) -> [usize; 2] {
    let mut author = Author::new(seed);
    let [mut ours, mut arrows] = [StoreKind::Ours, StoreKind::Arrows].map(Side::start);
    let mut leaked = 0;
    let mut refused = 0;
    let mut objects = Vec::new();
    let mut evictions = [0; 2];
    for number in 0..OPERATIONS {
        let (who, op) = author.next(&objects);
        let context = || format!("seed {seed}, operation {number}: {who} {op:.200?}");
        let told = ours.perform(who, &op);
        assert_eq!(told, arrows.perform(who, &op), "{}", context());
        let [mut ours, mut arrows] = [ours.view(), arrows.view()];
        let pinned = take_pinned(&mut ours);
        let held = ours.objects.iter().filter(|object| object.ref_count > 0);
        let held: u64 = held.map(|object| object.data_size + object.meta_size).sum();
        assert_eq!(pinned, held, "{}", context());
        let leaks = take_pinned(&mut arrows).checked_sub(pinned);
        let leaks = leaks.unwrap_or_else(|| panic!("{}", context()));
        assert!(
            leaks == leaked || (leaks > leaked && LEAKS.contains(&&*op.name())),
            "{leaked} leaked, now {leaks}; {}",
            context()
        );
        leaked = leaks;
        if op == Op::Leave {
            // In the order of a hash.
            ours.events.sort_unstable();
            arrows.events.sort_unstable();
        }
        assert_eq!(ours.objects, arrows.objects, "{}", context());
        assert_eq!(ours.events, arrows.events, "{}", context());
        assert_eq!(ours.debug, arrows.debug, "{}", context());
        refused += usize::from(matches!(told, Told::Outcome(Err(_))));
        author.note(who, &op, &told);
        objects = ours.objects;
        evictions = most_evictions(&ours.debug, evictions);
    }
    assert!(refused < OPERATIONS / 2, "mostly refused: {refused}");
    evictions
}

/// The evictions that a debug string tells of, or what was told before where that was more.
fn most_evictions(debug: &[String], before: [usize; 2]) -> [usize; 2] {
    let mut evictions = [0; 2];
    for line in debug.iter().flat_map(|lines| lines.lines()) {
        if let Some((name, count)) = line.split_once(" num evictions: ") {
            evictions[usize::from(name != "(global lru)")] += count.parse::<usize>().unwrap();
        }
    }
    [0, 1].map(|order| evictions[order].max(before[order]))
}

#[test]
#[ignore = "needs Arrow's programs: see tests/README.md"]
fn histories_are_the_same_in_both_stores() {
    let seeds = std::env::var(SEEDS_VARIABLE);
    let seeds = seeds.map_or(SEEDS, |seeds| seeds.parse().expect("a number of seeds"));
    let mut evictions = [0; 2];
    for seed in 0..seeds {
        let more = within(LIMIT, move || both_say_the_same(seed));
        evictions = [0, 1].map(|order| evictions[order] + more[order]);
    }
    // Else the histories are not about much.
    assert!(evictions[0] > 20 * seeds as usize, "{evictions:?}");
    assert!(evictions[1] > 3 * seeds as usize, "{evictions:?}");
}
