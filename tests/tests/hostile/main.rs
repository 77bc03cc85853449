//! Clients that break every rule: each costs itself the connection at most, while a well-behaved
//! client beside it is served as if nothing were.

mod crowds;
mod descriptors;
mod figures;
mod memory;
mod messages;
mod requests;
mod unread;

use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use plasma_core::protocol::message::{NewObject, Request};
use plasma_core::{ObjectId, PlasmaClient};
use tests::raw::RawClient;
use tests::{StoreProcess, debug_number, eventually, patience, within};

const LIMIT: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;
const CAPACITY: u64 = 16 * MIB;

/// A client that minds its own business on a thread of its own, and checks that all goes well.
struct Witness {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(u64, Duration)>,
}

impl Witness {
    fn start(store: &StoreProcess) -> Self {
        let client = store.client();
        let held_id = ObjectId::rand();
        client
            .create_and_seal(held_id, &[9; 1000], b"held")
            .expect("there is room");
        let held = client
            .get(held_id, 0)
            .expect("the store answers")
            .expect("it is sealed");
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let (mut rounds, mut longest) = (0, Duration::ZERO);
            while rounds == 0 || !stopping.load(Ordering::Relaxed) {
                let start = Instant::now();
                Self::round(&client, rounds);
                longest = longest.max(start.elapsed());
                rounds += 1;
                assert_eq!((held.data(), held.meta()), (&[9; 1000][..], &b"held"[..]));
            }
            (rounds, longest)
        });
        Self { stop, thread }
    }

    fn round(client: &PlasmaClient, round: u64) {
        let id = ObjectId::rand();
        let mut object = client.create(id, 1000, b"meta").expect("there is room");
        object.data_mut().fill(round as u8);
        object.seal().expect("it can be sealed");
        let read = client
            .get(id, 0)
            .expect("the store answers")
            .expect("it is sealed");
        assert_eq!(read.data(), [round as u8; 1000]);
        drop((object, read));
        client.delete(&id).expect("the store answers");
        assert!(!client.contains(&id).expect("the store answers"));
    }

    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        let (rounds, longest) = self
            .thread
            .join()
            .expect("the other client is not disturbed");
        println!("the other client: {rounds} rounds of 6 calls, the longest {longest:?}");
        assert!(longest < patience() / 4, "it had to wait: {longest:?}");
    }
}

/// Memory of its own that a store may keep after an attack. Its allocator keeps up to twice the
/// largest block it was given back, of those that it does not map each by itself.
const KEPT_AFTER: u64 = 40 * MIB;

/// A store under attack, with a witness. Afterwards it is there, has let go of every attacker, and
/// descriptors and memory are back where they were.
fn under_attack(args: &'static [&str], attack: impl FnOnce(&StoreProcess) + Send + 'static) {
    within(LIMIT, move || {
        let mut store = StoreProcess::start(CAPACITY, args);
        let witness = Witness::start(&store);
        eventually("there is nobody but the witness", || store.sockets() == 2);
        let (descriptors, private) = (store.descriptors(), store.private_bytes());
        attack(&store);
        eventually("the store has closed what attackers opened", || {
            store.descriptors() == descriptors
        });
        witness.end();
        assert!(store.is_alive());
        eventually("the store holds nothing for anyone who is gone", || {
            let Ok(client) = PlasmaClient::builder().retries(0).connect(store.socket()) else {
                return false;
            };
            let objects = client.list().expect("the store answers");
            let sealed = objects.iter().all(|info| info.digest.is_some());
            let sizes = objects
                .iter()
                .map(|info| info.data_size + info.metadata_size);
            sealed
                && debug_number(&client, "pinned bytes") == 0
                && debug_number(&client, "allocated bytes") == sizes.sum::<u64>()
        });
        let kept = store.private_bytes().saturating_sub(private);
        println!(
            "memory of its own that the store has kept: {} KiB",
            kept >> 10
        );
        assert!(kept < KEPT_AFTER, "{kept} bytes");
    });
}

fn connect(store: &StoreProcess) -> RawClient {
    RawClient::connect(store.socket())
}

/// Says something and hangs up; the store closes its end then, whatever that was.
fn say_and_hang_up(store: &StoreProcess, bytes: &[u8]) {
    let client = connect(store);
    // The store may have cut it off before it had said all.
    let _ = client.send_bytes(bytes);
    let _ = client.socket().shutdown(Shutdown::Write);
    client.wait_until_cut_off();
}

/// Says something for which the store ends the connection of its own accord.
fn cut_off_for(store: &StoreProcess, bytes: &[u8]) {
    let client = connect(store);
    // The store may have cut it off before it had said all.
    let _ = client.send_bytes(bytes);
    client.wait_until_cut_off();
}

/// Waits until the store has dealt with what was sent before.
fn let_the_store_catch_up(store: &StoreProcess) {
    for _ in 0..3 {
        connect(store).call(&Request::Connect { capabilities: 0 });
    }
}

fn header(version: i64, kind: i64, len: i64) -> Vec<u8> {
    [version, kind, len].map(i64::to_le_bytes).concat()
}

const ID: ObjectId = ObjectId::new([0xab; 20]);
const OTHER_ID: ObjectId = ObjectId::new([0xcd; 20]);

fn new_object(id: ObjectId, data: &[u8]) -> NewObject<'_> {
    NewObject {
        id,
        data,
        metadata: b"meta",
        digest: [7; 8],
    }
}

fn create(id: ObjectId, data_size: u64) -> Request<'static> {
    Request::Create {
        id,
        evict_if_full: true,
        data_size,
        metadata_size: 4,
        device_num: 0,
    }
}

/// One request of every kind.
fn all_requests() -> Vec<Request<'static>> {
    let objects = vec![new_object(ID, b"data"), new_object(OTHER_ID, b"")];
    vec![
        Request::Connect { capabilities: 0 },
        create(ID, 100),
        Request::CreateAndSeal {
            object: new_object(ID, b"data"),
            evict_if_full: true,
        },
        Request::CreateAndSealBatch {
            objects: objects.into(),
            evict_if_full: false,
        },
        Request::Abort(ID),
        Request::Seal {
            id: ID,
            digest: [7; 8],
        },
        Request::Get {
            ids: vec![ID, OTHER_ID].into(),
            timeout_ms: -1,
        },
        Request::Release(ID),
        Request::Delete(vec![ID, OTHER_ID].into()),
        Request::Contains(ID),
        Request::List,
        Request::Evict { num_bytes: 1 },
        Request::Subscribe,
        Request::SetOptions {
            client_name: "name".into(),
            quota_bytes: 1000,
        },
        Request::GetDebugString,
        Request::RefreshLru(vec![ID, OTHER_ID].into()),
        Request::Disconnect,
    ]
}
