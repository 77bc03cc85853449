//! A client that writes noise over everything it may write.

#![allow(clippy::unwrap_used, reason = "that is how these tests fail")]

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use plasma_core::shm::Word;
use plasma_core::shm::bell::Bell;
use plasma_core::shm::memory::{Memory, Slice};
use plasma_core::{ObjectId, PlasmaError};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tests::raw::RawClient;
use tests::{StoreProcess, within};

use super::{MIB, all_is_accounted_for, content, id, is_whole, offered, put};

/// How long to make noise: `PLASMA_TEST_NOISE_SECONDS` says otherwise.
fn duration() -> Duration {
    let seconds = std::env::var("PLASMA_TEST_NOISE_SECONDS").ok();
    let seconds = seconds.and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(5))
}

/// A client's own page, and what wakes the store.
struct Noisy {
    client: RawClient,
    words: Slice<Word>,
    bell: Bell,
}

impl Noisy {
    fn connect(store: &StoreProcess) -> Self {
        let (client, offer, descriptors) = offered(store);
        let [index, page, answers, bell, _wakeup] = descriptors;
        // What the store alone writes nobody else can map writable.
        let index_len = usize::try_from(offer.index_len).unwrap();
        assert!(Memory::open(index, index_len, true).is_err());
        assert!(Memory::open(answers, offer.shape.answers_len(), true).is_err());
        let len = offer.shape.page_len();
        let page = Arc::new(Memory::open(page, len, true).unwrap());
        let words = page.slice(0, len / size_of::<Word>()).unwrap();
        Self {
            client,
            words,
            bell: Bell::from_peer(bell).unwrap(),
        }
    }

    /// Writes for a while; whether the store has had enough.
    fn make(&self, random: &mut SmallRng, until: Instant) -> bool {
        let end = (Instant::now() + Duration::from_millis(random.random_range(1..50))).min(until);
        while Instant::now() < end {
            for _ in 0..random.random_range(1..200) {
                // Where something is, more often than not; and numbers that could mean something.
                let most = if random.random() {
                    64
                } else {
                    self.words.len()
                };
                let at = random.random_range(0..most);
                let value = match random.random_range(0..6) {
                    0 => random.random(),
                    1 => random.random_range(0..300),
                    2 => u64::MAX,
                    3 => random.random_range(0..7) | u64::from(random.random::<u32>()) << 32,
                    4 => 4 * random.random_range(0..100),
                    _ => 0,
                };
                self.words[at].store(value, Ordering::Relaxed);
            }
            // The store may have closed its end, or not hear: both are its right.
            self.bell.ring();
        }
        let mut byte = [0; 1];
        let ended = nix::sys::socket::recv(
            std::os::fd::AsRawFd::as_raw_fd(self.client.socket()),
            &mut byte,
            nix::sys::socket::MsgFlags::MSG_DONTWAIT | nix::sys::socket::MsgFlags::MSG_PEEK,
        );
        matches!(ended, Ok(0))
    }
}

#[test]
fn noise_hurts_nobody_else() {
    within(duration() + Duration::from_secs(60), || {
        let store = StoreProcess::start(16 * MIB, &[]);
        let (witness, other) = (store.client(), store.socket_client());
        for number in 0..50 {
            put(&witness, id(number), 1000);
        }
        // Noise may evict what nobody holds, as any client may.
        let known: Vec<_> = (0..50).map(id).collect();
        let held = witness.get_many(&known, 0).unwrap();
        let until = Instant::now() + duration();
        let mut random = SmallRng::seed_from_u64(1);
        let mut cut_off = 0;
        let mut turns = 0;
        while Instant::now() < until {
            let noisy = Noisy::connect(&store);
            while Instant::now() < until {
                turns += 1;
                let ended = noisy.make(&mut random, until);
                // Meanwhile everybody else is served, and finds what was there.
                for client in [&witness, &other] {
                    let number = turns % 50;
                    let object = client.get(id(number), 0).unwrap().expect("it is there");
                    assert!(is_whole(&id(number), object.data()));
                }
                // Noise may ask for all the memory there is, as any client may; and claim to hold
                // what it does not, which is deleted when it is gone.
                let new = ObjectId::rand();
                match witness.create_and_seal(new, &content(&new, 500), b"") {
                    Ok(()) => witness.delete(&new).unwrap(),
                    Err(PlasmaError::OutOfMemory { .. }) => {}
                    Err(error) => panic!("the witness is not served: {error}"),
                }
                if ended {
                    cut_off += 1;
                    break;
                }
            }
        }
        assert!(cut_off > 0, "nothing of it was ever malformed");
        println!("{turns} turns of noise, cut off {cut_off} times");
        for (id, object) in known.iter().zip(held) {
            assert!(is_whole(id, object.expect("it was there").data()));
        }
        // What noise has happened to make is the noisy's, and whole or not is nobody's business.
        let infos = witness.list().unwrap();
        let strange: Vec<_> = infos
            .iter()
            .map(|info| info.id)
            .filter(|id| !known.contains(id))
            .collect();
        witness.delete_many(&strange).unwrap();
        assert_eq!(witness.contains_many(&known).unwrap(), known);
        all_is_accounted_for(&store, &witness);
    });
}
