//! Many clients of several kinds live with one store, each in a process of its own: they make, read
//! and delete objects, and whoever reads one knows what it has to be. They die at random (SIGKILL),
//! are stopped (SIGSTOP) and go on, and others take their places.
//!
//! Now and then everybody leaves. Then the store has counted right: what is allocated is what its
//! list says, nothing is held, and it has no more descriptors, mappings and memory than before.
//!
//! `PLASMA_SOAK_SECONDS` says how long it goes on.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "the interop tests use all of it")]
#[path = "../interop/arrow.rs"]
mod arrow;
mod content;
mod crowd;
mod life;

use std::fs::File;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use plasma_core::PlasmaClient;
use tests::raw::RawClient;
use tests::{StoreProcess, debug_number, eventually, role, within};

use crowd::{Crowd, Kind, Tally};

const CAPACITY: u64 = 64 << 20;

/// Objects that there may be; together they are more than twice as large as the store.
const NAMES: u32 = 3000;

/// Everybody leaves this often, or more often if it does not go on for long.
const PHASE: Duration = Duration::from_secs(60);
const LEAST_PHASES: u32 = 4;

/// Private memory that the store may have beyond what it had after the first phase. What its allocator
/// keeps goes up and down by some megabytes; a leak goes on.
const MEMORY_KEPT: u64 = 8 << 20;

fn duration(default_s: u64) -> Duration {
    let set = std::env::var("PLASMA_SOAK_SECONDS").ok();
    let seconds = set.map_or(default_s, |text| text.parse().expect("a number of seconds"));
    Duration::from_secs(seconds)
}

#[test]
fn clients_live_and_die_and_the_store_counts_right() {
    if let Some((kind, socket)) = role() {
        return life::live(&socket, kind == "shared", NAMES);
    }
    let kinds = [[Kind::Shared; 6], [Kind::Socket; 6]].concat();
    soak(kinds, duration(5));
}

#[test]
#[ignore = "needs Arrow's programs: see tests/interop/peers.sh"]
fn clients_of_ours_and_of_arrows_live_and_die_and_the_store_counts_right() {
    let kinds = [
        &[Kind::Shared; 6][..],
        &[Kind::Socket; 4],
        &[Kind::Python; 6],
    ];
    soak(kinds.concat(), duration(20));
}

/// What the store has, as the kernel says, while nobody but one client is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Belongings {
    descriptors: usize,
    mappings: usize,
    private_bytes: u64,
    arena_bytes: u64,
}

impl Belongings {
    fn of(store: &StoreProcess) -> Self {
        Self {
            descriptors: store.descriptors(),
            mappings: store.mappings(),
            private_bytes: store.private_bytes(),
            arena_bytes: store.arena_bytes(),
        }
    }
}

fn soak(kinds: Vec<Kind>, duration: Duration) {
    let limit = duration * 2 + Duration::from_secs(120);
    within(limit, move || {
        let store = StoreProcess::start(CAPACITY, &[]);
        let watcher = store.client();
        // Once it answers, it has closed its copies of the descriptors that the watcher got.
        watcher.list().unwrap();
        let descriptors = store.descriptors();
        have_the_closer_started(&store);
        wait_for_descriptors(&store, descriptors);
        let start = Instant::now();
        let phase = PHASE.min(duration / LEAST_PHASES);
        let mut first: Option<Belongings> = None;
        let mut total = Tally::default();
        let mut phases = 0;
        while start.elapsed() < duration {
            let left = duration.saturating_sub(start.elapsed());
            let mut crowd = Crowd::gather(&store, &kinds, NAMES);
            crowd.live(phase.min(left));
            total += crowd.leave();
            phases += 1;

            let objects = settled(&store, &watcher);
            wait_for_descriptors(&store, descriptors);
            let now = Belongings::of(&store);
            println!(
                "{:4} s, {total}, {objects} objects stayed, store: {} descriptors, {} mappings, \
                 {} KiB private, {} MiB arena",
                start.elapsed().as_secs(),
                now.descriptors,
                now.mappings,
                now.private_bytes >> 10,
                now.arena_bytes >> 20,
            );
            let first = *first.get_or_insert(now);
            assert!(now.mappings <= first.mappings + 2, "{now:?}, was {first:?}");
            assert!(
                now.private_bytes <= first.private_bytes + MEMORY_KEPT,
                "{now:?}, was {first:?}"
            );
            assert!(now.arena_bytes <= CAPACITY * 2, "{now:?}");
        }
        println!(
            "soak: {} s, {} clients at a time in {phases} phases, {total}; no wrong byte, nothing \
             held and nothing leaked",
            start.elapsed().as_secs(),
            kinds.len(),
        );
        assert!(total.read > 0 && total.created > 0 && total.killed > 0);
    });
}

/// The store starts a thread once a client leaves a descriptor behind, as one that is killed may: now, so
/// that it is there in all phases.
fn have_the_closer_started(store: &StoreProcess) {
    let client = RawClient::connect(store.socket());
    let any = File::open("/dev/null").unwrap();
    client.send_descriptors(&[0], &[any.as_fd()]).unwrap();
    client.wait_until_cut_off();
}

/// Waits until the store has as many descriptors as it had: what a client left behind is closed on a
/// thread that nobody hears from.
fn wait_for_descriptors(store: &StoreProcess, descriptors: usize) {
    eventually("the store has the descriptors that it had", || {
        store.descriptors() == descriptors
    });
}

/// Waits until the store has noticed that everybody has gone, and checks its books; how many objects
/// there are.
fn settled(store: &StoreProcess, watcher: &PlasmaClient) -> usize {
    eventually("the store lets go of who has gone", || {
        // The watcher's connection, and the listener.
        store.sockets() == 2
    });
    let mut objects = Vec::new();
    eventually("nothing is held any more", || {
        objects = watcher.list().unwrap();
        debug_number(watcher, "pinned bytes") == 0
            && objects
                .iter()
                .all(|info| info.ref_count == 0 && info.digest.is_some())
    });
    let sizes = objects
        .iter()
        .map(|info| info.data_size + info.metadata_size);
    assert_eq!(debug_number(watcher, "allocated bytes"), sizes.sum::<u64>());
    let ids: Vec<_> = objects.iter().map(|info| info.id).collect();
    for found in watcher.get_many(&ids, 0).unwrap() {
        let object = found.expect("it is listed, and nobody else is there");
        assert!(content::is_right(&object), "WRONG: {object:?}");
    }
    ids.len()
}
