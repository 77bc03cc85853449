//! The state and a model of it side by side: whatever happens, they have to say the same, and what
//! is in memory, in the lists and in the books has to agree, step by step.

mod fuzz;
mod model;

use std::collections::BTreeMap;

use super::*;
use model::{Happened, Life, Model};

#[cfg(feature = "fuzzing")]
pub use fuzz::history;

const CAPACITY: u64 = 1000;
const MAX_WAITING_IDS: usize = 4 << 20;
/// Far more than ten objects can break into pieces.
const ARENA: u64 = 64 << 10;
const ALIGNMENT: u64 = 64;
pub(super) const SEATS: usize = 4;
pub(super) const STEP: Duration = Duration::from_millis(700);
pub(super) const IDS: u8 = 10;

/// Something that happens. Clients are named by their seat, which a new one takes once its client
/// has gone.
#[derive(Clone, Debug)]
pub(super) enum Op {
    Create(usize, u8, u64, u64, bool),
    /// An object that comes with its content: created, sealed and released.
    Put(usize, u8, u64),
    Seal(usize, u8),
    SealBatch(usize, Vec<u8>),
    Abort(usize, u8),
    Get(usize, Vec<u8>, Option<Duration>),
    Release(usize, u8),
    Delete(u8),
    Evict(u64),
    Refresh(Vec<u8>),
    SetOptions(usize, &'static str, i64),
    Disconnect(usize),
    /// Time passes, in steps, and what is over is over.
    Pass(u32),
    /// The external store has something ready, or fails.
    Return(usize, Outside),
    /// The external store takes nothing, or takes things again.
    Break(bool),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Outside {
    Works,
    Fails,
    Loses,
}

fn id(n: u8) -> ObjectId {
    ObjectId::new([n; ObjectId::LEN])
}

fn all_ids() -> impl Iterator<Item = ObjectId> {
    (0..IDS).map(id)
}

/// The state and the model side by side, with everything around them that they decide on: memory,
/// clients and an external store.
pub(super) struct World {
    limits: Limits,
    state: State,
    model: Model,
    seats: [Option<ClientId>; SEATS],
    next_client: u64,
    now: Now,
    memory: Vec<u8>,
    /// Each object made has a mark of its own, which is all its content.
    marks: BTreeMap<ObjectId, u8>,
    next_mark: u8,
    outside: BTreeMap<ObjectId, Vec<u8>>,
    outside_works: bool,
    returning: Vec<Transfer>,
}

impl World {
    pub(super) fn new(external: bool, max_objects: usize) -> Self {
        let limits = Limits {
            capacity: CAPACITY,
            arena_len: ARENA,
            max_objects,
            max_waiting_ids: MAX_WAITING_IDS,
            external,
        };
        Self {
            limits,
            state: State::new(limits),
            model: Model::new(limits),
            seats: [None; SEATS],
            next_client: 1,
            now: Now {
                elapsed: Duration::ZERO,
                unix_s: 1_000_000,
            },
            memory: vec![0; ARENA as usize],
            marks: BTreeMap::new(),
            next_mark: 1,
            outside: BTreeMap::new(),
            outside_works: true,
            returning: Vec::new(),
        }
    }

    fn seated(&mut self, seat: usize) -> ClientId {
        if let Some(client) = self.seats[seat] {
            return client;
        }
        let client = ClientId(self.next_client);
        self.next_client += 1;
        self.seats[seat] = Some(client);
        self.state.connect(client);
        self.model.connect(client);
        client
    }

    fn mark(&mut self) -> u8 {
        self.next_mark = self.next_mark.wrapping_add(1);
        self.next_mark
    }

    pub(super) fn apply(&mut self, op: &Op) {
        match op {
            Op::Create(seat, n, data_size, metadata_size, evict_if_full) => {
                let client = self.seated(*seat);
                let new = NewObject {
                    id: id(*n),
                    data_size: *data_size,
                    metadata_size: *metadata_size,
                    evict_if_full: *evict_if_full,
                };
                self.create(client, &new);
            }
            Op::Put(seat, n, size) => {
                let client = self.seated(*seat);
                let new = NewObject {
                    id: id(*n),
                    data_size: *size,
                    metadata_size: 0,
                    evict_if_full: true,
                };
                if self.create(client, &new) {
                    self.seal_batch(client, &[*n]);
                }
            }
            Op::Seal(seat, n) => {
                let client = self.seated(*seat);
                let digest = [self.mark(); 8];
                let mut fx = Effects::default();
                let sealed = self.state.seal(client, &id(*n), digest, self.now, &mut fx);
                assert_eq!(sealed, self.model.seal(client, id(*n), digest, self.now));
                self.settle(fx);
            }
            Op::SealBatch(seat, ns) => {
                let client = self.seated(*seat);
                let mut distinct = ns.clone();
                distinct.sort_unstable();
                distinct.dedup();
                self.seal_batch(client, &distinct);
            }
            Op::Abort(seat, n) => {
                let client = self.seated(*seat);
                let mut fx = Effects::default();
                let aborted = self.state.abort(client, &id(*n), self.now, &mut fx);
                assert_eq!(aborted, self.model.abort(client, id(*n), self.now));
                self.settle(fx);
            }
            Op::Get(seat, ns, timeout) => {
                let client = self.seated(*seat);
                let ids: Vec<_> = ns.iter().copied().map(id).collect();
                let mut fx = Effects::default();
                let got = self
                    .state
                    .get(client, ids.clone(), *timeout, self.now, &mut fx);
                assert_eq!(got, Ok(()));
                self.model.get(client, &ids, *timeout, self.now);
                self.settle(fx);
            }
            Op::Release(seat, n) => {
                let client = self.seated(*seat);
                let mut fx = Effects::default();
                self.state.release(client, &id(*n), self.now, &mut fx);
                self.model.release(client, id(*n), self.now);
                self.settle(fx);
            }
            Op::Delete(n) => self.delete(id(*n)),
            Op::Evict(wanted) => {
                let mut fx = Effects::default();
                let evicted = self.state.evict(*wanted, &mut fx);
                assert_eq!(evicted, self.model.evict(*wanted));
                self.settle(fx);
            }
            Op::Refresh(ns) => {
                let ids: Vec<_> = ns.iter().copied().map(id).collect();
                self.state.refresh(&ids);
                self.model.refresh(&ids);
            }
            Op::SetOptions(seat, name, quota) => {
                let client = self.seated(*seat);
                let set = self.state.set_options(client, name, *quota);
                assert_eq!(set, self.model.set_options(client, name, *quota));
                assert_eq!(self.state.client_name(client), *name);
            }
            Op::Disconnect(seat) => self.disconnect(*seat),
            Op::Pass(steps) => {
                self.now.elapsed += STEP * *steps;
                self.now.unix_s += i64::from(*steps);
                let mut fx = Effects::default();
                self.state.expire(self.now, &mut fx);
                self.model.expire(self.now);
                self.settle(fx);
            }
            Op::Return(which, how) => {
                if !self.returning.is_empty() {
                    let transfer = self.returning.remove(which % self.returning.len());
                    self.finish_return(transfer, *how);
                }
            }
            Op::Break(broken) => self.outside_works = !broken,
        }
    }

    fn create(&mut self, client: ClientId, new: &NewObject) -> bool {
        let mut fx = Effects::default();
        let created = self.state.create(client, new, self.now, &mut fx);
        let expected = self.model.create(client, new, self.now);
        assert_eq!(created.map(|_| ()), expected);
        self.settle(fx);
        let Ok(Created { spec, range, .. }) = created else {
            return false;
        };
        assert_eq!(
            (spec.data_size, spec.metadata_size),
            (new.data_size, new.metadata_size)
        );
        assert_eq!(spec.segment, SEGMENT);
        assert_eq!(spec.data_offset, range.offset);
        assert_eq!(spec.metadata_offset, range.offset + spec.data_size);
        assert!(range.len >= spec.data_size + spec.metadata_size);
        let mark = self.mark();
        self.marks.insert(new.id, mark);
        let size = new.data_size + new.metadata_size;
        self.content_mut(range, size).fill(mark);
        true
    }

    fn seal_batch(&mut self, client: ClientId, ns: &[u8]) {
        let objects: Vec<_> = ns.iter().map(|n| (id(*n), [self.mark(); 8])).collect();
        let mut fx = Effects::default();
        self.state.seal_batch(client, &objects, self.now, &mut fx);
        self.model.seal_batch(client, &objects, self.now);
        self.settle(fx);
    }

    fn delete(&mut self, id: ObjectId) {
        let mut fx = Effects::default();
        let deleted = self.state.delete(&[id], self.now, &mut fx);
        assert_eq!(deleted, [(id, self.model.delete(id, self.now))]);
        self.settle(fx);
    }

    fn disconnect(&mut self, seat: usize) {
        let Some(client) = self.seats[seat].take() else {
            return;
        };
        let mut slots: Vec<_> = self.state.clients[&client].holds.iter().copied().collect();
        slots.sort_unstable();
        let holds: Vec<_> = slots
            .iter()
            .map(|slot| self.state.table.at(*slot).expect("it is held").id)
            .collect();
        let mut fx = Effects::default();
        self.state.disconnect(client, self.now, &mut fx);
        self.model.disconnect(client, &holds, self.now);
        assert_eq!(self.model.holds(client), []);
        self.settle(fx);
    }

    fn content_mut(&mut self, range: Range, size: u64) -> &mut [u8] {
        &mut self.memory[range.offset as usize..][..size as usize]
    }

    fn finish_return(&mut self, transfer: Transfer, how: Outside) {
        let Transfer { id, range, .. } = transfer;
        let mut fx = Effects::default();
        let content = self.outside.get(&id).cloned();
        match (content, how) {
            (Some(content), Outside::Works) => {
                self.content_mut(range, content.len() as u64)
                    .copy_from_slice(&content);
                self.state.restored(&id, self.now, &mut fx);
                self.model.restored(id, self.now);
            }
            (content, how) => {
                let lost = content.is_none() || matches!(how, Outside::Loses);
                self.state.restore_failed(&id, lost, self.now, &mut fx);
                self.model.restore_failed(id, lost, self.now);
            }
        }
        self.settle(fx);
    }

    /// Does what is to be done, having compared it.
    fn settle(&mut self, fx: Effects) {
        let expected = std::mem::take(&mut self.model.happened);
        let carries = fx.carries.iter().map(|carry| match carry {
            Carry::Out(transfer) => (transfer.id, true),
            Carry::Away(id) => (*id, false),
        });
        let replies = fx.replies.iter().map(|(client, reply)| {
            let Reply::Get { objects, .. } = reply else {
                panic!("not the answer to a get: {reply:?}");
            };
            let found = objects.iter().map(|(id, spec)| (*id, spec.is_some()));
            (*client, found.collect())
        });
        let happened = Happened {
            carries: carries.collect(),
            restores: fx.restores.iter().map(|restore| restore.id).collect(),
            announcements: fx.announcements.clone(),
            replies: replies.collect(),
        };
        assert_eq!(happened, expected);
        for (client, reply) in &fx.replies {
            self.check_reply(*client, reply);
        }
        for carry in &fx.carries {
            self.carry(carry);
        }
        for restore in fx.restores {
            assert!(restore.range.len >= restore.data_size + restore.metadata_size);
            self.returning.push(restore);
        }
    }

    fn carry(&mut self, carry: &Carry) {
        let out = match carry {
            Carry::Away(id) => {
                self.outside.remove(id);
                return;
            }
            Carry::Out(out) => out,
        };
        let size = out.data_size + out.metadata_size;
        let content = self.content_mut(out.range, size).to_vec();
        let mark = self.marks[&out.id];
        assert!(
            content.iter().all(|byte| *byte == mark),
            "it is overwritten"
        );
        if self.outside_works {
            let before = self.outside.insert(out.id, content);
            assert_eq!(before, None, "it was out already");
            return;
        }
        let mut fx = Effects::default();
        self.state.spill_failed(&out.id, &mut fx);
        self.model.spill_failed(out.id);
        let expected = std::mem::take(&mut self.model.happened);
        assert_eq!(fx.announcements, expected.announcements);
        assert!(fx.carries.is_empty() && fx.restores.is_empty() && fx.replies.is_empty());
    }

    /// What a client is told of is sealed, and it holds it.
    fn check_reply(&self, client: ClientId, reply: &Reply<'_>) {
        let Reply::Get { objects, segments } = reply else {
            return;
        };
        for (id, spec) in objects.iter() {
            let Some(spec) = spec else { continue };
            let (slot, object) = self.state.table.get(id).expect("it is there");
            assert_eq!(object.stage, Stage::Sealed);
            assert_eq!(*spec, object.spec());
            assert!(self.state.clients[&client].holds.contains(&slot));
        }
        let found = objects.iter().any(|(_, spec)| spec.is_some());
        assert_eq!(segments.len(), usize::from(found));
    }

    pub(super) fn check(&self) {
        let Self { state, model, .. } = self;
        for id in all_ids() {
            assert_eq!(state.contains(&id), model.contains(id));
        }
        let by_id = |mut infos: Vec<ObjectInfo>| {
            infos.sort_unstable_by_key(|info| info.id);
            infos
        };
        assert_eq!(by_id(state.list()), by_id(model.list()));
        assert_eq!(state.sealed_objects(), model.sealed_objects());
        assert_eq!(state.allocated_bytes, model.used());
        assert_eq!(state.waits.len(), model.waits());
        assert_eq!(state.next_deadline(), model.next_deadline());
        self.check_tally();
        self.check_debug_string();
        self.check_memory();
        self.check_holds();
    }

    /// What the metrics say is what the list of objects says.
    fn check_tally(&self) {
        let (tally, objects) = (self.state.tally(), self.model.list());
        let unsealed = |info: &&ObjectInfo| info.construct_duration_s.is_none();
        let held = objects.iter().filter(|info| info.ref_count > 0);
        let held = held.map(|info| info.data_size + info.metadata_size);
        assert_eq!(tally.objects, objects.len());
        assert_eq!(
            tally.unsealed_objects,
            objects.iter().filter(unsealed).count()
        );
        assert_eq!(tally.pinned_bytes, held.sum::<u64>());
        assert_eq!(tally.used_bytes, self.model.used());
        assert_eq!(tally.ignored_requests, self.model.ignored);
    }

    fn check_debug_string(&self) {
        let text = self.state.debug_string();
        let expected = self.model.debug_lines();
        assert_eq!(text.lines().count(), expected.len(), "{text}");
        for (line, (start, share)) in text.lines().zip(expected) {
            let Some(share) = share else {
                assert_eq!(line, start);
                continue;
            };
            let number = line
                .strip_prefix(&start)
                .and_then(|rest| rest.strip_suffix('%'));
            let number: f64 = number.expect(&start).parse().expect("a number");
            let error = (number - share).abs();
            assert!(error <= share.abs() * 1e-5 + 1e-9, "{line}: not {share}");
        }
    }

    /// Objects lie apart from each other and hold what was put in them.
    fn check_memory(&self) {
        let mut ranges = Vec::new();
        let mut bytes = 0;
        for object in self.model.objects() {
            let range = self
                .state
                .table
                .get(&object.id)
                .expect("it is there")
                .1
                .range;
            if object.life == Life::Out {
                assert_eq!(range.len, 0);
                continue;
            }
            bytes += object.size();
            assert_eq!(range.offset % ALIGNMENT, 0);
            assert_eq!(range.len, object.size().next_multiple_of(ALIGNMENT));
            if range.len > 0 {
                ranges.push(range);
            }
            if object.life != Life::Returning {
                let content = &self.memory[range.offset as usize..][..object.size() as usize];
                assert!(content.iter().all(|byte| *byte == self.marks[&object.id]));
            }
        }
        assert!(bytes <= self.limits.capacity);
        ranges.extend(self.state.free_ranges());
        ranges.sort_unstable();
        let mut end = 0;
        for range in ranges {
            assert_eq!(range.offset, end);
            end = range.end();
        }
        assert_eq!(end, ARENA);
    }

    fn check_holds(&self) {
        for client in self.seats.iter().flatten() {
            let holds = self.state.clients[client].holds.iter();
            let mut holds: Vec<_> = holds
                .map(|slot| self.state.table.at(*slot).expect("it is held").id)
                .collect();
            let mut expected = self.model.holds(*client);
            holds.sort_unstable();
            expected.sort_unstable();
            assert_eq!(holds, expected);
        }
        let seated = self.seats.iter().flatten().count();
        assert_eq!(self.state.clients.len(), seated);
    }

    /// Everybody leaves, everything is deleted: nothing is left.
    pub(super) fn end(mut self, evict: bool) {
        for seat in 0..SEATS {
            self.disconnect(seat);
            self.check();
        }
        while let Some(transfer) = self.returning.pop() {
            self.finish_return(transfer, Outside::Works);
            self.check();
        }
        assert_eq!(self.state.waits.len(), 0);
        if evict {
            self.apply(&Op::Evict(u64::MAX));
            assert_eq!(self.state.allocated_bytes, 0);
        }
        all_ids().for_each(|id| self.delete(id));
        assert_eq!(self.state.list(), []);
        assert_eq!(self.state.allocated_bytes, 0);
        let free: Vec<_> = self.state.free_ranges().collect();
        assert_eq!(free, [Range::new(0, ARENA)]);
        assert!(self.state.debug_string().contains("\npinned bytes: 0\n"));
        assert!(self.state.starved.is_empty());
        assert!(self.outside.is_empty());
    }
}
