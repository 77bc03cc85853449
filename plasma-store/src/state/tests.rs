//! The rules, corner by corner.

mod histories;
mod trace;
mod unasked;

use super::get::WAIT_COST;
use super::*;

const ARENA: u64 = 64 << 10;
const CAPACITY: u64 = 1000;
const MAX_WAITING_IDS: usize = 4 << 20;

const ALICE: ClientId = ClientId(1);
const BOB: ClientId = ClientId(2);

fn id(n: u8) -> ObjectId {
    ObjectId::new([n; ObjectId::LEN])
}

fn at(ms: u64) -> Now {
    Now {
        elapsed: Duration::from_millis(ms),
        unix_s: 1000 + (ms / 1000) as i64,
    }
}

/// A state with the clients Alice and Bob, and what followed from the last call.
struct Bench {
    state: State,
    fx: Effects,
}

type Placed = Result<(ObjectSpec, Range), ErrorCode>;

impl Bench {
    fn new(limits: Limits) -> Self {
        let mut state = State::new(limits);
        state.connect(ALICE);
        state.connect(BOB);
        let fx = Effects::default();
        Self { state, fx }
    }

    fn plain() -> Self {
        Self::new(limits())
    }

    fn external() -> Self {
        Self::new(Limits {
            external: true,
            ..limits()
        })
    }

    fn create_with(&mut self, client: ClientId, n: u8, size: u64, evict_if_full: bool) -> Placed {
        self.fx = Effects::default();
        let new = NewObject {
            id: id(n),
            data_size: size,
            metadata_size: 0,
            evict_if_full,
        };
        let created = self.state.create(client, &new, at(0), &mut self.fx);
        created.map(|created| (created.spec, created.range))
    }

    fn create(&mut self, client: ClientId, n: u8, size: u64) -> Placed {
        self.create_with(client, n, size, true)
    }

    fn seal(&mut self, client: ClientId, n: u8) -> Outcome {
        self.fx = Effects::default();
        self.state.seal(client, &id(n), [n; 8], at(0), &mut self.fx)
    }

    fn release(&mut self, client: ClientId, n: u8) {
        self.fx = Effects::default();
        self.state.release(client, &id(n), at(0), &mut self.fx);
    }

    fn abort(&mut self, client: ClientId, n: u8) -> bool {
        self.fx = Effects::default();
        self.state.abort(client, &id(n), at(0), &mut self.fx)
    }

    fn delete(&mut self, n: u8) -> Outcome {
        self.delete_all(&[n])[0]
    }

    fn delete_all(&mut self, numbers: &[u8]) -> Vec<Outcome> {
        self.fx = Effects::default();
        let ids: Vec<_> = numbers.iter().map(|n| id(*n)).collect();
        let outcomes = self.state.delete(&ids, at(0), &mut self.fx);
        assert!(outcomes.iter().map(|(id, _)| id).eq(&ids));
        outcomes.into_iter().map(|(_, outcome)| outcome).collect()
    }

    fn evict(&mut self, wanted: u64) -> u64 {
        self.fx = Effects::default();
        self.state.evict(wanted, &mut self.fx)
    }

    fn disconnect(&mut self, client: ClientId) {
        self.fx = Effects::default();
        self.state.disconnect(client, at(0), &mut self.fx);
    }

    /// A get that waits for ever if it must.
    fn get(&mut self, client: ClientId, ns: &[u8]) {
        self.get_for(client, ns, None);
    }

    fn get_for(&mut self, client: ClientId, ns: &[u8], timeout: Option<Duration>) {
        self.fx = Effects::default();
        let ids = ns.iter().copied().map(id).collect();
        let got = self.state.get(client, ids, timeout, at(0), &mut self.fx);
        got.expect("few ids");
    }

    /// An object that is sealed and that nobody holds.
    fn put(&mut self, client: ClientId, n: u8, size: u64) {
        self.create(client, n, size).expect("there is room");
        self.seal(client, n).expect("it was being created");
        self.release(client, n);
    }

    /// What was brought back, with its content.
    fn finish_restore(&mut self, n: u8) {
        self.fx = Effects::default();
        self.state.restored(&id(n), at(0), &mut self.fx);
    }

    fn fail_restore(&mut self, n: u8, lost: bool) {
        self.fx = Effects::default();
        self.state.restore_failed(&id(n), lost, at(0), &mut self.fx);
    }

    fn refs(&self, n: u8) -> Option<u32> {
        let object = self.state.table.get(&id(n))?.1;
        Some(object.refs)
    }

    /// The gets that were answered: whose, and which of the ids were there.
    fn answers(&self) -> Vec<(ClientId, Vec<bool>)> {
        let answers = self.fx.replies.iter().map(|(client, reply)| match reply {
            Reply::Get { objects, .. } => {
                let found = objects.iter().map(|(_, spec)| spec.is_some());
                (*client, found.collect())
            }
            other => panic!("not the answer to a get: {other:?}"),
        });
        answers.collect()
    }

    fn deleted(&self) -> Vec<ObjectId> {
        let announcements = self.fx.announcements.iter();
        let deleted = announcements.filter_map(|announcement| match announcement {
            Announcement::One(Notification::Deleted(id)) => Some(*id),
            _ => None,
        });
        deleted.collect()
    }

    fn restores(&self) -> Vec<ObjectId> {
        self.fx.restores.iter().map(|restore| restore.id).collect()
    }

    fn spilled(&self) -> Vec<ObjectId> {
        let carries = self.fx.carries.iter();
        let spilled = carries.filter_map(|carry| match carry {
            Carry::Out(transfer) => Some(transfer.id),
            Carry::Away(_) => None,
        });
        spilled.collect()
    }

    fn debug_line(&self, start: &str) -> String {
        let text = self.state.debug_string();
        let line = text.lines().find_map(|line| line.strip_prefix(start));
        line.expect("a line of the debug string").to_owned()
    }
}

fn limits() -> Limits {
    Limits {
        capacity: CAPACITY,
        arena_len: ARENA,
        max_objects: 100,
        max_waiting_ids: MAX_WAITING_IDS,
        external: false,
    }
}

// ---------------------------------------------------------------------------------------------
// References

#[test]
fn a_release_before_the_seal_is_honoured_at_the_seal() {
    let mut bench = Bench::plain();
    bench.create(ALICE, 1, 10).unwrap();
    bench.release(ALICE, 1);
    assert_eq!(bench.refs(1), Some(1));
    assert_eq!(bench.evict(10), 0);
    assert_eq!(bench.seal(ALICE, 1), Ok(()));
    assert_eq!(bench.refs(1), Some(0));
    assert_eq!(bench.evict(10), 10);
    assert_eq!(bench.state.ignored_requests, 0);
}

#[test]
fn a_creator_that_waits_for_its_own_object_holds_what_it_is_given() {
    let mut bench = Bench::plain();
    bench.create(ALICE, 1, 10).unwrap();
    bench.release(ALICE, 1);
    bench.get(ALICE, &[1]);
    bench.seal(ALICE, 1).unwrap();
    assert_eq!(bench.answers(), [(ALICE, vec![true])]);
    assert_eq!(bench.refs(1), Some(1));

    // The same where content came inline, and the get is for more than that.
    bench.get(ALICE, &[2, 3]);
    bench.create(ALICE, 2, 10).unwrap();
    let batch = [(id(2), [2; 8])];
    bench.state.seal_batch(ALICE, &batch, at(0), &mut bench.fx);
    assert_eq!(bench.answers(), []);
    assert_eq!(bench.refs(2), Some(1));
    bench.create(BOB, 3, 10).unwrap();
    bench.seal(BOB, 3).unwrap();
    assert_eq!(bench.answers(), [(ALICE, vec![true, true])]);
    assert_eq!(bench.delete(2), Err(ErrorCode::ObjectInUse));
    bench.release(ALICE, 2);
    assert_eq!(bench.deleted(), [id(2)]);
}

#[test]
fn one_who_waits_and_gets_twice_holds_once() {
    let mut bench = Bench::plain();
    bench.get(BOB, &[1, 2, 1]);
    bench.create(ALICE, 1, 10).unwrap();
    bench.seal(ALICE, 1).unwrap();
    assert_eq!(bench.answers(), []);
    bench.create(ALICE, 2, 10).unwrap();
    bench.seal(ALICE, 2).unwrap();
    assert_eq!(bench.answers(), [(BOB, vec![true, true, true])]);
    assert_eq!(bench.refs(1), Some(2));
    bench.get(BOB, &[1, 1]);
    assert_eq!(bench.answers(), [(BOB, vec![true, true])]);
    assert_eq!(bench.refs(1), Some(2));
    bench.release(BOB, 1);
    assert_eq!(bench.refs(1), Some(1));
    bench.release(BOB, 1);
    assert_eq!(bench.refs(1), Some(1));
    assert_eq!(bench.state.ignored_requests, 1);
}

#[test]
fn a_get_of_nothing_is_answered_at_once() {
    let mut bench = Bench::plain();
    bench.get(ALICE, &[]);
    assert_eq!(bench.answers(), [(ALICE, vec![])]);
    assert_eq!(bench.state.waits.len(), 0);
}

#[test]
fn a_get_is_answered_with_what_is_there_when_its_time_is_up() {
    let mut bench = Bench::plain();
    bench.put(ALICE, 1, 10);
    bench.get_for(BOB, &[1, 2], Some(Duration::from_millis(5)));
    assert_eq!(bench.answers(), []);
    assert_eq!(bench.state.next_deadline(), Some(Duration::from_millis(5)));
    bench.state.expire(at(4), &mut bench.fx);
    assert_eq!(bench.answers(), []);
    bench.state.expire(at(5), &mut bench.fx);
    assert_eq!(bench.answers(), [(BOB, vec![true, false])]);
    assert_eq!(bench.state.next_deadline(), None);
    assert_eq!(bench.delete(1), Err(ErrorCode::ObjectInUse));
}

#[test]
fn waits_are_bounded() {
    let mut bench = Bench::plain();
    let part = MAX_WAITING_IDS / 4 - WAIT_COST;
    let mut wait_for = |count| {
        let ids = vec![id(1); count];
        let fx = &mut bench.fx;
        bench.state.get(ALICE, ids, None, at(0), fx)
    };
    for _ in 0..4 {
        assert_eq!(wait_for(part), Ok(()));
    }
    assert_eq!(wait_for(1), Err(TooManyWaits));
    // Of those gets, not of all there are: others may wait, and what is there can be had.
    bench.get(BOB, &[1]);
    bench.put(BOB, 2, 10);
    bench.get(ALICE, &[2]);
    assert_eq!(bench.answers(), [(ALICE, vec![true])]);
    bench.disconnect(ALICE);
    assert_eq!(bench.state.waits.len(), 1);
}

// ---------------------------------------------------------------------------------------------
// Deleting

#[test]
fn what_is_deleted_before_its_seal_goes_with_the_last_release() {
    let mut bench = Bench::plain();
    bench.create(ALICE, 1, 10).unwrap();
    assert_eq!(bench.delete(1), Err(ErrorCode::ObjectNotSealed));
    bench.seal(ALICE, 1).unwrap();
    assert_eq!(bench.deleted(), []);
    assert!(bench.state.contains(&id(1)));
    bench.get(BOB, &[1]);
    bench.release(ALICE, 1);
    assert_eq!(bench.deleted(), []);
    bench.release(BOB, 1);
    assert_eq!(bench.deleted(), [id(1)]);
    assert_eq!(bench.delete(1), Err(ErrorCode::ObjectNotFound));
}

#[test]
fn objects_may_be_named_more_than_once_in_one_deletion() {
    let mut bench = Bench::plain();
    for n in 1..=3 {
        bench.put(ALICE, n, 10);
        bench.release(ALICE, n);
    }
    bench.get(BOB, &[2]);
    let (missing, in_use) = (Err(ErrorCode::ObjectNotFound), Err(ErrorCode::ObjectInUse));
    assert_eq!(
        bench.delete_all(&[1, 2, 1, 9, 3, 3, 2]),
        [Ok(()), in_use, missing, missing, Ok(()), missing, in_use]
    );
    assert_eq!(bench.deleted(), [id(1), id(3)]);
    bench.disconnect(BOB);
    assert_eq!(bench.deleted(), [id(2)]);
}

#[test]
fn a_wait_outlives_the_object_and_is_served_by_the_next() {
    let mut bench = Bench::plain();
    bench.create(ALICE, 1, 10).unwrap();
    bench.get(BOB, &[1]);
    assert!(bench.abort(ALICE, 1));
    assert_eq!(bench.answers(), []);
    let created = bench.create(ALICE, 1, 20).unwrap();
    bench.seal(ALICE, 1).unwrap();
    assert_eq!(bench.answers(), [(BOB, vec![true])]);
    assert_eq!(created.0.data_size, 20);

    // An object that was had, let go of and deleted while the get goes on is not there at its end.
    bench.get(BOB, &[1, 2]);
    bench.release(ALICE, 1);
    bench.release(BOB, 1);
    bench.delete(1).unwrap();
    bench.put(ALICE, 1, 30);
    bench.create(ALICE, 2, 10).unwrap();
    bench.seal(ALICE, 2).unwrap();
    assert_eq!(bench.answers(), [(BOB, vec![false, true])]);
}

#[test]
fn only_its_creator_seals_and_aborts_and_only_once() {
    let mut bench = Bench::plain();
    bench.create(ALICE, 1, 10).unwrap();
    assert_eq!(bench.seal(BOB, 1), Err(ErrorCode::ObjectNotFound));
    assert!(!bench.abort(BOB, 1));
    bench.release(BOB, 1);
    assert_eq!(bench.seal(ALICE, 1), Ok(()));
    assert_eq!(bench.seal(ALICE, 1), Err(ErrorCode::ObjectNotFound));
    assert!(!bench.abort(ALICE, 1));
    assert_eq!(bench.state.ignored_requests, 3);
    assert!(bench.state.contains(&id(1)));
}

// ---------------------------------------------------------------------------------------------
// Making room

#[test]
fn one_object_may_take_the_whole_store() {
    let mut bench = Bench::plain();
    bench.put(ALICE, 1, CAPACITY);
    assert_eq!(bench.debug_line("allocated bytes: "), "1000");
    let refused = bench.create_with(ALICE, 2, 1, false);
    assert_eq!(refused, Err(ErrorCode::OutOfMemory));
    bench.put(ALICE, 2, CAPACITY);
    assert!(!bench.state.contains(&id(1)));
    let refused = bench.create(ALICE, 3, CAPACITY + 1);
    assert_eq!(refused, Err(ErrorCode::OutOfMemory));
}

#[test]
fn objects_of_no_bytes_fit_into_a_full_store() {
    let mut bench = Bench::plain();
    bench.create(ALICE, 1, CAPACITY).unwrap();
    let (spec, range) = bench.create_with(ALICE, 2, 0, false).unwrap();
    assert_eq!((spec.data_size, spec.metadata_size, range.len), (0, 0, 0));
    bench.seal(ALICE, 2).unwrap();
    bench.get(BOB, &[2]);
    assert_eq!(bench.answers(), [(BOB, vec![true])]);
    bench.release(ALICE, 2);
    bench.release(BOB, 2);
    bench.delete(2).unwrap();
    assert_eq!(bench.debug_line("allocated bytes: "), "1000");
}

#[test]
fn a_refused_create_leaves_nothing_behind() {
    let mut bench = Bench::plain();
    bench.state.set_options(BOB, "bob", 300).unwrap();
    bench.create(ALICE, 1, 600).unwrap();
    let free: Vec<_> = bench.state.free_ranges().collect();
    let before = bench.state.debug_string();
    for (client, n, size) in [(ALICE, 2, 401), (BOB, 2, 301), (ALICE, 2, u64::MAX)] {
        let refused = bench.create(client, n, size);
        assert_eq!(refused, Err(ErrorCode::OutOfMemory));
    }
    let exists = bench.create(BOB, 1, 10);
    assert_eq!(exists, Err(ErrorCode::ObjectExists));
    assert_eq!(bench.state.debug_string(), before);
    assert!(free.into_iter().eq(bench.state.free_ranges()));
    assert_eq!(bench.state.list().len(), 1);
    assert!(!bench.abort(ALICE, 2));
    assert!(bench.create_with(ALICE, 2, 400, false).is_ok());
}

#[test]
fn objects_are_counted_and_evicted_for_their_number_too() {
    let mut bench = Bench::new(Limits {
        max_objects: 2,
        ..limits()
    });
    bench.put(ALICE, 1, 0);
    bench.create(ALICE, 2, 0).unwrap();
    let refused = bench.create_with(ALICE, 3, 0, false);
    assert_eq!(refused, Err(ErrorCode::OutOfMemory));
    bench.create(ALICE, 3, 0).unwrap();
    assert_eq!(bench.deleted(), [id(1)]);
    // The other two are held.
    let refused = bench.create(ALICE, 4, 0);
    assert_eq!(refused, Err(ErrorCode::OutOfMemory));
}

/// Where it is a place that is missing, and not memory, a hundredth of the objects goes.
#[test]
fn not_all_objects_are_evicted_for_their_number() {
    let mut bench = Bench::new(Limits {
        max_objects: 250,
        ..limits()
    });
    for n in 0..250 {
        bench.put(ALICE, n, 0);
    }
    bench.create(ALICE, 250, 1).unwrap();
    assert_eq!(bench.deleted(), [id(0), id(1)]);
    bench.create(ALICE, 251, 1).unwrap();
    assert_eq!(bench.deleted(), []);
    bench.create(ALICE, 252, 1).unwrap();
    assert_eq!(bench.deleted(), [id(2), id(3)]);
}

#[test]
fn at_least_a_fifth_is_evicted_the_least_recently_used_first() {
    let mut bench = Bench::plain();
    for n in 0..10 {
        bench.put(ALICE, n, 100);
    }
    bench.get(BOB, &[0]);
    bench.release(BOB, 0);
    bench.state.refresh(&[id(1), id(99)]);
    bench.create(ALICE, 20, 10).unwrap();
    assert_eq!(bench.deleted(), [id(2), id(3)]);
    bench.create(ALICE, 21, 500).unwrap();
    assert_eq!(bench.deleted(), [id(4), id(5), id(6), id(7)]);
}

#[test]
fn a_quota_has_its_own_order_and_demotes_what_is_held() {
    let mut bench = Bench::plain();
    bench.put(ALICE, 9, 100);
    bench.state.set_options(BOB, "bob", 300).unwrap();
    for n in 1..=3 {
        bench.put(BOB, n, 100);
    }
    bench.get(ALICE, &[1]);
    bench.create(BOB, 4, 200).unwrap();
    // The first is held and only leaves the quota, the second is evicted; so is neither the
    // third nor anything of anybody else's.
    assert_eq!(bench.deleted(), [id(2)]);
    assert_eq!(bench.debug_line("(bob) num objects: "), "2");
    assert_eq!(bench.debug_line("pinned quota map size: "), "1");
    bench.release(ALICE, 1);
    assert_eq!(bench.evict(u64::MAX), 200);
    assert_eq!(bench.deleted(), [id(9), id(1)]);
    assert_eq!(bench.create(BOB, 5, 301), Err(ErrorCode::OutOfMemory));
    bench.disconnect(BOB);
    assert_eq!(bench.debug_line("(global lru) capacity: "), "1000");
    assert_eq!(bench.evict(u64::MAX), 100);
}

#[test]
fn quotas_leave_three_tenths_to_everybody() {
    let mut bench = Bench::plain();
    let refused = Err(ErrorCode::OutOfMemory);
    assert_eq!(bench.state.set_options(ALICE, "alice", 701), refused);
    assert_eq!(bench.state.client_name(ALICE), "alice");
    assert_eq!(bench.state.set_options(ALICE, "alice", -1), refused);
    assert_eq!(bench.state.set_options(ALICE, "alice", i64::MAX), refused);
    assert_eq!(bench.state.set_options(ALICE, "alice", 0), Ok(()));
    assert_eq!(bench.debug_line("num clients with quota: "), "0");
    assert_eq!(bench.state.set_options(ALICE, "alice", 400), Ok(()));
    assert_eq!(bench.state.set_options(ALICE, "alice", 100), refused);
    assert_eq!(bench.state.set_options(BOB, "bob", 301), refused);
    assert_eq!(bench.state.set_options(BOB, "bob", 300), Ok(()));
}

// ---------------------------------------------------------------------------------------------
// The external store

/// A large and a small object, in that order of ids, that are out and do not fit: Bob holds all
/// the memory, in objects of 300 and 700 bytes, and Alice waits for both.
fn two_starve() -> Bench {
    let mut bench = Bench::external();
    bench.put(BOB, 1, 500);
    bench.put(BOB, 2, 100);
    for (n, size) in [(8, 300), (9, 700)] {
        bench.create(BOB, n, size).unwrap();
        bench.seal(BOB, n).unwrap();
    }
    bench.get(ALICE, &[1]);
    bench.get(ALICE, &[2]);
    assert_eq!(bench.restores(), []);
    bench
}

#[test]
fn what_fits_comes_back_before_what_does_not() {
    let mut bench = two_starve();
    bench.release(BOB, 8);
    assert_eq!(bench.restores(), [id(2)]);
    bench.finish_restore(2);
    assert_eq!(bench.answers(), [(ALICE, vec![true])]);
    bench.release(BOB, 9);
    assert_eq!(bench.restores(), [id(1)]);
}

#[test]
fn nothing_is_evicted_for_what_would_still_not_fit() {
    let mut bench = Bench::external();
    bench.put(BOB, 1, 500);
    for (n, size) in [(8, 300), (9, 700)] {
        bench.create(BOB, n, size).unwrap();
        bench.seal(BOB, n).unwrap();
    }
    bench.get(ALICE, &[1]);
    bench.release(BOB, 8);
    assert_eq!(bench.spilled(), []);
    assert_eq!(bench.restores(), []);
}

#[test]
fn an_object_that_nobody_waits_for_any_more_gives_way_when_it_is_back() {
    let mut bench = Bench::external();
    bench.put(BOB, 1, 600);
    bench.put(BOB, 2, 600);
    bench.get(ALICE, &[1]);
    assert_eq!(bench.restores(), [id(1)]);
    bench.get(BOB, &[2]);
    assert_eq!(bench.restores(), []);
    bench.disconnect(ALICE);
    assert_eq!(bench.restores(), []);
    bench.finish_restore(1);
    assert_eq!(
        (bench.spilled(), bench.restores()),
        (vec![id(1)], vec![id(2)])
    );
}

#[test]
fn an_object_that_was_lost_makes_room_for_others() {
    let mut bench = Bench::external();
    bench.put(BOB, 1, 600);
    bench.put(BOB, 2, 600);
    bench.get(ALICE, &[1]);
    bench.get(BOB, &[2]);
    bench.fail_restore(1, true);
    assert_eq!(
        (bench.deleted(), bench.restores()),
        (vec![id(1)], vec![id(2)])
    );
}

#[test]
fn an_object_that_did_not_come_back_is_tried_again_later() {
    let mut bench = Bench::external();
    bench.put(BOB, 1, 600);
    bench.put(BOB, 2, 600);
    bench.get(ALICE, &[1]);
    bench.get_for(BOB, &[1], Some(Duration::ZERO));
    bench.fail_restore(1, false);
    assert_eq!(bench.answers(), [(BOB, vec![false])]);
    assert_eq!(bench.restores(), []);
    bench.create(BOB, 3, 10).unwrap();
    assert_eq!(bench.restores(), [id(1)]);
}

#[test]
fn what_a_quota_frees_makes_room_for_what_is_waited_for() {
    let mut bench = Bench::external();
    bench.state.set_options(BOB, "bob", 500).unwrap();
    bench.put(ALICE, 1, 500);
    bench.put(BOB, 2, 500);
    bench.create(ALICE, 3, 400).unwrap();
    assert_eq!(bench.spilled(), [id(1)]);
    bench.get(ALICE, &[1]);
    assert_eq!(bench.restores(), []);
    bench.create(BOB, 4, 10).unwrap();
    assert_eq!(
        (bench.spilled(), bench.restores()),
        (vec![id(2)], vec![id(1)])
    );
}

#[test]
fn a_full_table_is_no_reason_to_carry_objects_out() {
    let mut bench = Bench::new(Limits {
        external: true,
        max_objects: 2,
        ..limits()
    });
    bench.put(ALICE, 1, 100);
    bench.put(ALICE, 2, 100);
    assert_eq!(bench.create(ALICE, 3, 100), Err(ErrorCode::OutOfMemory));
    assert_eq!(bench.spilled(), []);
    bench.delete(1).unwrap();
    assert!(bench.create(ALICE, 3, 100).is_ok());
}
