//! A long life of the allocator, with the account of what has memory behind it: as much of a store
//! as there is without any input or output.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::MAX_WAITING_IDS;
use crate::arena::{GRANULE, best_len};
use crate::state::backing::Backing;
use crate::state::*;

const CAPACITY: u64 = 1_000_000_000;
/// The load that creates and deletes are about, in bytes.
const LOAD: u64 = CAPACITY / 5 * 4;
const STEPS: usize = 1_000_000;
/// How many steps each kind of sizes lasts for: what came before is in the way of what comes.
const SEASON: usize = 50_000;
const SIZES: std::ops::Range<f64> = 100. ..10_000_000.;

/// What may be behind the arena at any time, in bytes.
const MOST_BACKED: u64 = CAPACITY + (64 << 20);

const CLIENT: ClientId = ClientId(1);

const NOW: Now = Now {
    elapsed: Duration::ZERO,
    unix_s: 0,
};

/// A store without a system under it.
struct Store {
    state: State,
    backing: Backing,
    live: Vec<(ObjectId, u64)>,
    live_bytes: u64,
    made: u64,
    made_bytes: u64,
    /// Bytes that were put behind the arena in all.
    populated: u64,
}

impl Store {
    fn new() -> Self {
        let arena_len = best_len(CAPACITY);
        let mut state = State::new(Limits {
            capacity: CAPACITY,
            arena_len,
            max_objects: usize::MAX,
            max_waiting_ids: MAX_WAITING_IDS,
            external: false,
        });
        state.connect(CLIENT);
        Self {
            state,
            backing: Backing::new(arena_len, GRANULE, CAPACITY),
            live: Vec::new(),
            live_bytes: 0,
            made: 0,
            made_bytes: 0,
            populated: 0,
        }
    }

    fn create(&mut self, size: u64) -> Result<Range, ErrorCode> {
        let mut bytes = [0; ObjectId::LEN];
        bytes[..8].copy_from_slice(&self.made.to_le_bytes());
        let id = ObjectId::new(bytes);
        let new = NewObject {
            id,
            data_size: size,
            metadata_size: 0,
            evict_if_full: false,
        };
        let created = self
            .state
            .create(CLIENT, &new, NOW, &mut Effects::default());
        let range = created?.range;
        let plan = self.backing.plan(&[range], self.state.free_ranges());
        for range in plan.discard {
            self.backing.remove(range);
        }
        for range in plan.populate {
            self.backing.add(range);
            self.populated += range.len;
            // Not only once all is said and done.
            assert!(self.backing.bytes() <= MOST_BACKED);
        }
        assert_eq!(self.backing.missing(range), []);
        self.live.push((id, size));
        self.live_bytes += size;
        self.made += 1;
        self.made_bytes += size;
        Ok(range)
    }

    fn delete(&mut self, index: usize) {
        let (id, size) = self.live.swap_remove(index);
        assert!(self.state.abort(CLIENT, &id, NOW, &mut Effects::default()));
        self.live_bytes -= size;
    }

    fn delete_all(&mut self) {
        while let Some(last) = self.live.len().checked_sub(1) {
            self.delete(last);
        }
        let free: Vec<_> = self.state.free_ranges().collect();
        assert_eq!(free, [Range::new(0, best_len(CAPACITY))]);
    }

    /// How far from the start the last object ends.
    fn extent(&self) -> u64 {
        let last = self.state.free_ranges().next().expect("a long arena");
        // The rest of the arena is by far the largest of what is free.
        assert_eq!(last.end(), best_len(CAPACITY));
        last.offset
    }
}

/// A share, its mean and its largest.
#[derive(Default)]
struct Share {
    sum: f64,
    count: f64,
    most: f64,
}

impl Share {
    fn note(&mut self, part: u64, whole: u64) {
        let share = part as f64 / whole as f64;
        self.sum += share;
        self.count += 1.;
        self.most = self.most.max(share);
    }

    fn tell(&self, what: &str) {
        let mean = self.sum / self.count;
        println!("{what}: {mean:.4} on average, at most {:.4}", self.most);
    }
}

fn size(rng: &mut StdRng, season: usize) -> u64 {
    let uniform = match season % 3 {
        0 => false,
        1 => true,
        _ => rng.random(),
    };
    let size = if uniform {
        rng.random_range(SIZES)
    } else {
        rng.random_range(SIZES.start.ln()..SIZES.end.ln()).exp()
    };
    size as u64
}

#[test]
fn a_million_creates_and_deletes_lose_nothing() {
    let mut rng = StdRng::seed_from_u64(20);
    let mut store = Store::new();
    let (mut extent, mut fragmented) = (Share::default(), Share::default());
    let (mut backed, mut most_backed) = (Share::default(), 0);
    for step in 0..STEPS {
        let size = size(&mut rng, step / SEASON);
        // Now and then it is filled to the last byte.
        let load = if step % SEASON > SEASON * 9 / 10 {
            CAPACITY
        } else {
            LOAD
        };
        if store.live_bytes + size <= load {
            store.create(size).expect("it fits");
        } else if load == CAPACITY && store.live_bytes < load {
            store.create(load - store.live_bytes).expect("it fits");
        } else {
            let index = rng.random_range(0..store.live.len());
            store.delete(index);
        }
        let bytes = store.backing.bytes();
        assert!(bytes <= MOST_BACKED);
        most_backed = most_backed.max(bytes);
        if store.live_bytes > LOAD / 2 {
            let end = store.extent();
            extent.note(end, store.live_bytes);
            fragmented.note(end - store.live_bytes, end);
            backed.note(bytes, store.live_bytes);
        }
    }
    println!(
        "{STEPS} steps, {} objects of {:.1} GB made",
        store.made,
        store.made_bytes as f64 / 1e9
    );
    extent.tell("extent / live bytes");
    fragmented.tell("not live within the extent");
    backed.tell("backed / live bytes");
    println!(
        "backed at most: {:.4} of the capacity; {:.1} GB put behind the arena in all",
        most_backed as f64 / CAPACITY as f64,
        store.populated as f64 / 1e9,
    );
    store.delete_all();

    store.create(CAPACITY / 100 * 99).expect("nearly all of it");
    store.delete_all();

    while store.create(1_000_000).is_ok() {}
    let share = store.live_bytes as f64 / CAPACITY as f64;
    println!("filled with objects of 1 MB: {share:.4}");
    assert!(share >= 0.99);
    store.delete_all();
}
