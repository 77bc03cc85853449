//! Clients that break every rule: each costs itself the connection at most, while a well-behaved
//! client beside it is served as if nothing were.

use std::fs::{File, Permissions};
use std::io::{self, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::poll::PollFlags;
use nix::sys::socket::{setsockopt, sockopt};
use plasma_core::protocol::frame::HEADER_LEN;
use plasma_core::protocol::message::{ErrorCode, MAX_IDS, NewObject, Reply, Request};
use plasma_core::transport::wait_ready;
use plasma_core::{ObjectId, PlasmaClient, PlasmaError};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tests::raw::{RawClient, message};
use tests::{
    PATIENCE, StoreProcess, debug_number, eventually, in_another_process, role, server_program,
    wait_for_line, within,
};

const LIMIT: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;
const CAPACITY: u64 = 16 * MIB;

/// The most descriptors the kernel lets one message carry.
const MAX_DESCRIPTORS_A_MESSAGE: usize = 253;

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
    }
}

/// A store under attack, with a witness; afterwards it is there and has let go of every attacker.
fn under_attack(args: &'static [&str], attack: impl FnOnce(&StoreProcess) + Send + 'static) {
    within(LIMIT, move || {
        let mut store = StoreProcess::start(CAPACITY, args);
        let witness = Witness::start(&store);
        let before = store.descriptors();
        attack(&store);
        eventually("the store has closed what attackers opened", || {
            store.descriptors() == before
        });
        witness.end();
        assert!(store.is_alive());
        eventually("the store holds nothing for anyone who is gone", || {
            let Ok(client) = PlasmaClient::builder().retries(0).connect(store.socket()) else {
                return false;
            };
            debug_number(&client, "pinned bytes") == 0
        });
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

// -------------------------------------------------------------------------------------------------
// Bytes that are no request

#[test]
fn what_is_no_message_costs_its_sender_the_connection() {
    under_attack(&[], |store| {
        const LIST: i64 = 17;
        let mut lies = vec![
            header(1, LIST, 0),
            header(-1, LIST, 0),
            header(i64::MIN, i64::MIN, i64::MIN),
            header(0, 36, 0),
            header(0, -1, 0),
            header(0, i64::MAX, 0),
            header(0, LIST, -1),
            header(0, LIST, i64::MIN),
            header(0, LIST, i64::MAX),
            header(0, LIST, 1 << 40),
            header(0, LIST, 0),
            vec![0xff; 1000],
            b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        ];
        // Replies, notifications and what nobody sends.
        for kind in (2..=24).step_by(2).chain([25, 26, 27, 29, 31, 33, 35]) {
            lies.push([header(0, kind, 8), vec![0; 8]].concat());
        }
        for lie in lies {
            let client = connect(store);
            client.call_then(&lie);
            client.wait_until_cut_off();
        }
    });
}

trait CallThen {
    fn call_then(&self, bytes: &[u8]);
}

impl CallThen for RawClient {
    /// A valid request, and then these bytes.
    fn call_then(&self, bytes: &[u8]) {
        self.send(&Request::Connect { capabilities: 0 });
        self.send_bytes(bytes).expect("the store reads");
    }
}

#[test]
fn requests_with_any_byte_changed_are_survived() {
    under_attack(&[], |store| {
        let mut attempts = 0;
        for request in all_requests() {
            let whole = message(&request);
            for at in 0..whole.len() {
                for change in [0xff, 0x01, 0x80] {
                    let mut changed = whole.clone();
                    changed[at] ^= change;
                    say_and_hang_up(store, &changed);
                    attempts += 1;
                }
            }
        }
        println!("{attempts} requests with a byte changed");
    });
}

#[test]
fn requests_that_break_off_anywhere_are_survived() {
    under_attack(&[], |store| {
        let silent: Vec<_> = all_requests()
            .iter()
            .flat_map(|request| {
                let whole = message(request);
                for len in 0..whole.len() {
                    say_and_hang_up(store, &whole[..len]);
                }
                [1, HEADER_LEN - 1, HEADER_LEN, whole.len() - 1].map(|len| {
                    let client = connect(store);
                    client
                        .send_bytes(&whole[..len.min(whole.len() - 1)])
                        .expect("the store reads");
                    client
                })
            })
            .collect();
        // They stay, in the middle of a message; everybody else is served.
        let_the_store_catch_up(store);
        Witness::round(&store.client(), 0);
        drop(silent);
    });
}

#[test]
fn random_bytes_are_survived() {
    under_attack(&[], |store| {
        let config = Config {
            cases: 1500,
            failure_persistence: None,
            ..Config::default()
        };
        let body = prop::collection::vec(prop_oneof![0..4_u8, any::<u8>()], 0..300);
        let mut runner = TestRunner::new(config);
        let result = runner.run(&(0..36_i64, any::<bool>(), body), |(kind, framed, body)| {
            let header = header(0, kind, body.len() as i64);
            let header = if framed { &header[..] } else { &[] };
            say_and_hang_up(store, &[header, &body].concat());
            Ok(())
        });
        result.expect("the store survives");
    });
}

#[test]
fn ids_of_any_other_length_are_refused() {
    under_attack(&[], |store| {
        let mut tried = 0;
        for request in all_requests() {
            let whole = message(&request);
            let Some(at) = whole.windows(20).position(|part| part == ID.as_bytes()) else {
                continue;
            };
            for len in [0_u32, 1, 19, 21] {
                let mut changed = whole.clone();
                changed[at - 4..at].copy_from_slice(&len.to_le_bytes());
                let client = connect(store);
                client.send_bytes(&changed).expect("the store reads");
                client.wait_until_cut_off();
                tried += 1;
            }
        }
        assert_eq!(tried, 4 * 10);
    });
}

// -------------------------------------------------------------------------------------------------
// Memory

#[test]
fn memory_is_taken_for_what_comes_and_not_for_what_is_announced() {
    under_attack(&[], |store| {
        let_the_store_catch_up(store);
        let before = store.private_bytes();
        const CREATE_AND_SEAL: i64 = 3;
        let announcers: Vec<_> = (0..50)
            .map(|_| {
                let client = connect(store);
                let announcement = header(0, CREATE_AND_SEAL, 60 << 20);
                client.send_bytes(&announcement).expect("the store reads");
                client.send_bytes(&[0; 100]).expect("the store reads");
                client
            })
            .collect();
        let_the_store_catch_up(store);
        let grown = store.private_bytes().saturating_sub(before);
        println!("50 × 60 MiB announced: the store took {} KiB", grown >> 10);
        assert!(grown < 16 * MIB, "{grown} bytes");
        drop(announcers);
    });
}

/// A body need not start where its flatbuffer can be read in place; the copy is not kept.
#[test]
fn a_large_message_leaves_no_memory_behind() {
    under_attack(&[], |store| {
        let_the_store_catch_up(store);
        let before = store.private_bytes();
        let content = vec![1; 12 << 20];
        let attackers: Vec<_> = (0..6)
            .map(|_| {
                let mut client = connect(store);
                // A list request that is one byte longer than it needs: what follows is askew.
                let mut list = message(&Request::List);
                let len = (list.len() - HEADER_LEN + 1) as i64;
                list[16..HEADER_LEN].copy_from_slice(&len.to_le_bytes());
                list.push(0);
                let large = message(&Request::CreateAndSeal {
                    object: new_object(ID, &content),
                    evict_if_full: true,
                });
                client
                    .send_bytes(&[list, large].concat())
                    .expect("the store reads");
                assert!(matches!(client.reply(), Reply::List(_)));
                assert!(matches!(client.reply(), Reply::CreateAndSeal(_)));
                client.call(&Request::Delete(vec![ID].into()));
                client
            })
            .collect();
        let grown = store.private_bytes().saturating_sub(before);
        println!(
            "after 6 × 12 MiB of inline content: {} KiB more",
            grown >> 10
        );
        assert!(grown < 48 * MIB, "{grown} bytes");
        drop(attackers);
    });
}

#[test]
fn requests_that_name_too_much_are_refused() {
    under_attack(&[], |store| {
        let ids = vec![ObjectId::rand(); MAX_IDS + 1];
        for request in [
            Request::Get {
                ids: ids.as_slice().into(),
                timeout_ms: 0,
            },
            Request::Delete(ids.as_slice().into()),
            Request::RefreshLru(ids.as_slice().into()),
        ] {
            cut_off_for(store, &message(&request));
        }
        // The same few bytes named again and again: an offset each, and nothing behind it.
        let count = 400_000;
        let get = [ObjectId::rand()];
        let one = message(&Request::Get {
            ids: get.as_slice().into(),
            timeout_ms: 0,
        });
        let shared = shared_string_get(&one, count);
        cut_off_for(store, &shared);
        assert!(store.private_bytes() < 64 * MIB);
        let client = store.client();
        let found = client.get_many(&ids[..100_000], 0).unwrap();
        assert!(found.iter().all(Option::is_none));
        let error = client.get_many(&ids, 0).unwrap_err();
        assert!(matches!(error, PlasmaError::TooManyObjects { .. }));
    });
}

/// A get of one id, changed so that its list has `count` places for the same string.
fn shared_string_get(one: &[u8], count: usize) -> Vec<u8> {
    let body = &one[HEADER_LEN..];
    let word =
        |at: usize| u32::from_le_bytes(body[at..at + 4].try_into().expect("a number")) as usize;
    // Root table, its vtable's first field (the list), the list, and the string it names.
    let table = word(0);
    let vtable = (table as i64 - i64::from(word(table) as u32 as i32)) as usize;
    let field =
        u16::from_le_bytes(body[vtable + 4..vtable + 6].try_into().expect("a number")) as usize;
    let list = table + field + word(table + field);
    let string = list + 4 + word(list + 4);
    let mut longer = body.to_vec();
    while !longer.len().is_multiple_of(4) {
        longer.push(0);
    }
    let copy = longer.len();
    longer.extend_from_slice(&body[string..string + 4 + ObjectId::LEN]);
    let list = longer.len();
    longer.extend_from_slice(&(count as u32).to_le_bytes());
    // Places count forwards only, so the string comes once more, behind the list.
    for at in 0..count {
        let place = list + 4 + 4 * at;
        let target = list + 4 + 4 * count;
        longer.extend_from_slice(&((target - place) as u32).to_le_bytes());
    }
    let string = longer[copy..copy + 4 + ObjectId::LEN].to_vec();
    longer.extend_from_slice(&string);
    longer.extend_from_slice(&[0; 4]);
    // Room that nothing names, so that what is named is not much for a message of this length.
    longer.resize(longer.len() * 2, 0);
    let offset = (list - (table + field)) as u32;
    longer[table + field..table + field + 4].copy_from_slice(&offset.to_le_bytes());
    let mut message = one[..16].to_vec();
    message.extend_from_slice(&(longer.len() as i64).to_le_bytes());
    message.extend_from_slice(&longer);
    message
}

#[test]
fn unfinished_requests_of_many_clients_are_bounded_together() {
    under_attack(&[], |store| {
        let part = vec![0; 60 << 20];
        let attackers: Vec<_> = (0..10)
            .map(|_| {
                let client = connect(store);
                // The store may have cut it off before it had said all.
                let _ = client.send_bytes(&header(0, 3, 100 << 20));
                let _ = client.send_bytes(&part);
                client
            })
            .collect();
        let_the_store_catch_up(store);
        let private = store.private_bytes();
        assert!(private < 500 * MIB, "{private} bytes for 600 MiB");
        drop(attackers);
    });
}

#[test]
fn closing_what_a_client_sent_keeps_nobody_waiting() {
    under_attack(&[], |store| {
        // A connection that takes its time to close: there is more to send than anyone takes.
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let _peer = listener.accept().unwrap();
        let linger = nix::libc::linger {
            l_onoff: 1,
            l_linger: 5,
        };
        setsockopt(&stream, sockopt::Linger, &linger).unwrap();
        stream.set_nonblocking(true).unwrap();
        while (&stream).write(&[0; 65536]).is_ok() {}
        let client = connect(store);
        client.subscribe(stream.as_fd());
        drop(stream);
        drop(client);
        let start = Instant::now();
        let_the_store_catch_up(store);
        assert!(start.elapsed() < Duration::from_secs(3), "the store waited");
    });
}

#[test]
fn a_name_of_any_length_costs_little() {
    under_attack(&[], |store| {
        let_the_store_catch_up(store);
        let before = store.private_bytes();
        let name = "ü".repeat(5 << 20);
        let attackers: Vec<_> = (0..6)
            .map(|_| {
                let mut client = connect(store);
                let set = client.call(&Request::SetOptions {
                    client_name: (&name).into(),
                    quota_bytes: 1000,
                });
                assert_eq!(set, Reply::SetOptions(Ok(())));
                client
            })
            .collect();
        let grown = store.private_bytes().saturating_sub(before);
        println!("6 names of 10 MiB: {} KiB more", grown >> 10);
        assert!(grown < 30 * MIB, "{grown} bytes");
        let text = store.client().debug_string().expect("the store answers");
        assert!(text.len() < 100_000, "{} bytes", text.len());
        drop(attackers);
    });
}

/// Each get that waits is something to keep and something to answer one day.
#[test]
fn gets_that_wait_cannot_be_piled_up_without_end() {
    under_attack(&[], |store| {
        let before = store.private_bytes();
        let gets = message(&Request::Get {
            ids: vec![ID].into(),
            timeout_ms: -1,
        });
        let client = connect(store);
        let hundred = gets.repeat(100);
        let start = Instant::now();
        let mut sent = 0;
        while client.send_bytes(&hundred).is_ok() {
            sent += 100;
            assert!(sent <= 1_000_000, "the store takes any number");
        }
        let grown = store.private_bytes().saturating_sub(before);
        println!(
            "cut off after {sent} gets and {:?}, {} KiB",
            start.elapsed(),
            grown >> 10
        );
        client.wait_until_cut_off();
    });
}

/// What keeps a subscriber's notifications gives back what it has sent, also where it is never
/// quite empty.
#[test]
fn a_subscriber_that_lags_behind_costs_what_it_lags() {
    under_attack(&[], |store| {
        const OBJECTS: u32 = 1000;
        let attacker = connect(store);
        let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
        attacker.subscribe(theirs.as_fd());
        drop(theirs);
        ours.set_read_timeout(Some(PATIENCE))
            .expect("it can be set");
        let client = store.client();
        let ids: Vec<_> = (0..OBJECTS)
            .map(|n| ObjectId::from_name(&n.to_string()))
            .collect();
        let batch: Vec<_> = ids.iter().map(|id| (*id, &b""[..], &b""[..])).collect();
        let round = || {
            client.create_and_seal_batch(&batch).expect("there is room");
            client.delete_many(&ids).expect("the store answers");
        };
        // From now on it is behind by that much, which is more than the socket holds.
        for _ in 0..10 {
            round();
        }
        let before = store.private_bytes();
        let (mut stream, mut read) = (BufReader::new(ours), 0);
        for _ in 0..60 {
            round();
            // The seals are one notification, the deletions one each.
            for _ in 0..=OBJECTS {
                let mut length = [0; 8];
                stream.read_exact(&mut length).expect("notifications come");
                let length = u64::from_le_bytes(length);
                let body = io::copy(&mut (&mut stream).take(length), &mut io::sink());
                assert_eq!(body.expect("notifications come"), length);
                read += 8 + length;
            }
        }
        let grown = store.private_bytes().saturating_sub(before);
        println!(
            "{} KiB of notifications read, {} KiB kept",
            read >> 10,
            grown >> 10
        );
        assert!(grown < read / 2, "{grown} bytes kept of {read}");
    });
}

/// Who is served no more may not know it yet, and read what it holds, or write it.
#[test]
fn what_one_who_is_cut_off_holds_stays_until_it_hangs_up() {
    under_attack(&["--stall-timeout", "1"], |store| {
        let client = store.client();
        let ids = [(); 4].map(|()| ObjectId::rand());
        client
            .create_and_seal(ids[0], &[1; 1000], b"")
            .expect("there is room");
        client
            .create_and_seal(ids[1], &[1; 1000], b"")
            .expect("there is room");
        let get = |id: ObjectId| Request::Get {
            ids: vec![id].into(),
            timeout_ms: 0,
        };

        // One breaks the protocol, the other does not read. Both hold an object and write another.
        let mut rude = connect(store);
        rude.call(&get(ids[0]));
        drop(rude.descriptor());
        rude.call(&create(ids[2], 1000));
        rude.send_bytes(&[0xff; 64]).expect("it is read");
        let mut lazy = connect(store);
        lazy.call(&get(ids[1]));
        drop(lazy.descriptor());
        lazy.call(&create(ids[3], 1000));
        assert!(!pester(&lazy, &message(&Request::List)), "it is given time");

        let info = |id| {
            client
                .list()
                .expect("the store answers")
                .into_iter()
                .find(move |info| info.id == id)
        };
        let refs = |id| info(id).map(|info| info.ref_count);
        for client in [&rude, &lazy] {
            let socket = client.socket().as_fd();
            let at_end = PollFlags::from_bits_retain(nix::libc::POLLRDHUP);
            let end = wait_ready(socket, at_end, Some(PATIENCE));
            assert!(end.expect("a socket"), "it is not cut off");
        }
        client.delete_many(&ids).expect("the store answers");
        client.evict(u64::MAX).expect("the store answers");
        assert_eq!(ids.map(refs), [Some(1); 4]);

        drop((rude, lazy));
        eventually("all is taken back", || ids.map(refs) == [None; 4]);
    });
}

/// Arrow's clients read a notification's length and then, in one go, as much: where its end came
/// later than its start, they would read past what they have.
#[test]
fn a_subscriber_that_lags_behind_finds_whole_notifications() {
    under_attack(&[], |store| {
        let attacker = connect(store);
        let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
        attacker.subscribe(theirs.as_fd());
        drop(theirs);
        ours.set_nonblocking(true).expect("it can be set");
        let client = store.client();
        let mut read = Vec::new();
        for _ in 0..200 {
            // Far more than the socket holds, and at each step only some of it is read.
            let ids: Vec<_> = (0..100).map(|_| ObjectId::rand()).collect();
            for id in &ids {
                client
                    .create_and_seal(*id, b"", b"")
                    .expect("there is room");
            }
            client.delete_many(&ids).expect("the store answers");
            let mut some = [0; 4096];
            match (&ours).read(&mut some) {
                Ok(count) => read.extend_from_slice(&some[..count]),
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        }
        // Whenever nothing more is there, what was there was whole.
        let mut stops = 0;
        let mut notifications = 0;
        loop {
            let mut some = [0; 64 << 10];
            match (&ours).read(&mut some) {
                Ok(0) => panic!("the stream ended after {notifications} notifications"),
                Ok(count) => read.extend_from_slice(&some[..count]),
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                    let mut unread = &read[..];
                    while let Some((length, rest)) = unread.split_first_chunk() {
                        let length = usize::try_from(u64::from_le_bytes(*length)).expect("short");
                        let whole = rest.get(length..);
                        unread = whole.unwrap_or_else(|| panic!("{} of {length}", rest.len()));
                        notifications += 1;
                    }
                    assert!(unread.is_empty(), "{} bytes of a length", unread.len());
                    read.clear();
                    stops += 1;
                    if notifications >= 200 * 200 {
                        break;
                    }
                    let more = wait_ready(ours.as_fd(), PollFlags::POLLIN, Some(PATIENCE));
                    assert!(more.expect("it can be waited for"), "{notifications} came");
                }
            }
        }
        println!("{notifications} notifications, {stops} times nothing more was there");
    });
}

#[test]
fn a_subscriber_that_never_reads_keeps_nobody_waiting() {
    under_attack(&[], |store| {
        let attacker = connect(store);
        let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
        attacker.subscribe(theirs.as_fd());
        drop(theirs);
        let client = store.client();
        let before = store.private_bytes();
        let ids: Vec<_> = (0..1000_u32)
            .map(|n| ObjectId::from_name(&n.to_string()))
            .collect();
        let batch: Vec<_> = ids.iter().map(|id| (*id, &b""[..], &b""[..])).collect();
        for _ in 0..20 {
            client.create_and_seal_batch(&batch).expect("there is room");
            client.delete_many(&ids).expect("the store answers");
        }
        let grown = store.private_bytes().saturating_sub(before);
        println!("40,000 notifications unread: {} KiB", grown >> 10);
        assert!(grown < 40_000 * 500, "{grown} bytes");
        drop(ours);
    });
}

/// Writes until nothing is taken for a while, or the store hangs up; whether it hung up.
fn pester(client: &RawClient, bytes: &[u8]) -> bool {
    let patience = Some(Duration::from_millis(300));
    client
        .socket()
        .set_write_timeout(patience)
        .expect("a socket takes timeouts");
    loop {
        match client.socket().write(bytes) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
            Err(_) => return true,
        }
    }
}

#[test]
fn a_client_that_never_reads_is_paused_and_then_cut_off() {
    under_attack(&["--stall-timeout", "1"], |store| {
        let client = store.client();
        let ids: Vec<_> = (0..1000_u32)
            .map(|n| ObjectId::from_name(&n.to_string()))
            .collect();
        let batch: Vec<_> = ids.iter().map(|id| (*id, &b""[..], &b""[..])).collect();
        client.create_and_seal_batch(&batch).expect("there is room");
        let before = store.private_bytes();
        let attacker = connect(store);
        let list = message(&Request::List).repeat(1000);
        let start = Instant::now();
        // Unless the machine is very slow it is paused first.
        let mut gone = pester(&attacker, &list);
        let grown = store.private_bytes().saturating_sub(before);
        println!(
            "replies of 100 kB unread: the store has taken {} KiB",
            grown >> 10
        );
        assert!(grown < 16 * MIB, "{grown} bytes");
        while !gone {
            gone = pester(&attacker, &list);
            assert!(start.elapsed() < PATIENCE, "it is never cut off");
        }
        assert!(start.elapsed() >= Duration::from_secs(1));
    });
}

// -------------------------------------------------------------------------------------------------
// Requests that are not for this client to make

#[test]
fn what_a_client_does_not_hold_it_cannot_change() {
    under_attack(&[], |store| {
        let mut attacker = connect(store);
        let victim = store.client();
        let mut writing = victim.create(ID, 100, b"").expect("there is room");
        victim
            .create_and_seal(OTHER_ID, b"sealed", b"")
            .expect("there is room");
        let held = victim.get(OTHER_ID, 0).expect("the store answers");
        for id in [ID, OTHER_ID, ObjectId::new([1; 20])] {
            let seal = Request::Seal { id, digest: [0; 8] };
            let result = Err(ErrorCode::ObjectNotFound);
            for _ in 0..2 {
                assert_eq!(attacker.call(&seal), Reply::Seal { id, result });
                assert_eq!(attacker.call(&Request::Abort(id)), Reply::Abort(id));
                attacker.send(&Request::Release(id));
            }
        }
        let infos = victim.list().expect("the store answers");
        for id in [ID, OTHER_ID] {
            let info = infos
                .iter()
                .find(|info| info.id == id)
                .expect("it is there");
            assert_eq!(info.ref_count, 1, "{id}");
        }
        // Nor can it have what is not sealed.
        let get = Request::Get {
            ids: vec![ID].into(),
            timeout_ms: 0,
        };
        let Reply::Get { objects, segments } = attacker.call(&get) else {
            panic!("another reply than a get's")
        };
        assert_eq!((&objects[..], segments), (&[(ID, None)][..], vec![]));
        writing.seal().expect("it is still the creator's");
        drop((writing, held));
        victim
            .delete_many(&[ID, OTHER_ID])
            .expect("the store answers");
        assert!(!victim.contains(&OTHER_ID).expect("the store answers"));
    });
}

// -------------------------------------------------------------------------------------------------
// Descriptors

fn repeated(descriptor: &impl AsFd, count: usize) -> Vec<BorrowedFd<'_>> {
    vec![descriptor.as_fd(); count]
}

#[test]
fn descriptors_that_nothing_asked_for_are_not_kept() {
    under_attack(&[], |store| {
        let null = File::open("/dev/null").expect("it can be opened");
        let before = store.descriptors();
        let list = message(&Request::List);
        let split = [
            &list[..],
            &list[..HEADER_LEN],
            &list[..1],
            &list[..list.len() - 1],
        ];
        for count in [1, 2, MAX_DESCRIPTORS_A_MESSAGE] {
            let many = repeated(&null, count);
            for part in split {
                let client = connect(store);
                client
                    .send_descriptors(part, &many)
                    .expect("the store reads");
                client.wait_until_cut_off();
            }
        }
        // More than the one that a subscription brings.
        let (_ours, theirs) = UnixStream::pair().expect("a pair of sockets");
        let client = connect(store);
        client.send(&Request::Subscribe);
        let many = [theirs.as_fd(), null.as_fd(), null.as_fd()];
        client
            .send_descriptors(&[0], &many)
            .expect("the store reads");
        client.wait_until_cut_off();
        eventually("nothing is left", || store.descriptors() == before);
    });
}

/// A message that comes byte by byte, each with as many descriptors as can be sent.
#[test]
fn descriptors_cannot_be_piled_up_behind_half_a_message() {
    under_attack(&[], |store| {
        let before = store.descriptors();
        let null = File::open("/dev/null").expect("it can be opened");
        let many = repeated(&null, MAX_DESCRIPTORS_A_MESSAGE);
        let client = connect(store);
        client
            .send_bytes(&header(0, 3, 1000))
            .expect("the store reads");
        let mut most = 0;
        for _ in 0..20 {
            if client.send_descriptors(&[0], &many).is_err() {
                break;
            }
            let_the_store_catch_up(store);
            most = most.max(store.descriptors());
        }
        println!("at most {most} descriptors, {before} before");
        assert!(most <= before + MAX_DESCRIPTORS_A_MESSAGE + 10, "{most}");
        client.wait_until_cut_off();
    });
}

/// A store with a limit of its own on descriptors.
fn limited_store(limit: &str) -> (tempfile::TempDir, StoreProcess) {
    let folder = tempfile::tempdir().expect("a folder");
    let script = folder.path().join("limited-store");
    let server = server_program().display();
    let text = format!("#!/bin/sh\nulimit {limit}\nexec {server} \"$@\"\n");
    std::fs::write(&script, text).expect("a script");
    std::fs::set_permissions(&script, Permissions::from_mode(0o700)).expect("it is ours");
    let store = StoreProcess::start_program(&script, CAPACITY, &[]);
    (folder, store)
}

/// Where only some of a message's descriptors find a place, those are not lost track of.
#[test]
fn descriptors_that_do_not_all_find_a_place_are_not_leaked() {
    within(LIMIT, || {
        let (_folder, store) = limited_store("-n 40");
        let witness = Witness::start(&store);
        let before = store.descriptors();
        let null = File::open("/dev/null").expect("it can be opened");
        let many = repeated(&null, 100);
        for _ in 0..5 {
            let attackers: Vec<_> = (before..37).map(|_| connect(&store)).collect();
            eventually("they are accepted", || store.descriptors() == 37);
            let attacker = attackers.into_iter().next_back().expect("there are some");
            attacker
                .send_descriptors(&[0], &many)
                .expect("the store reads");
            attacker.wait_until_cut_off();
            eventually("all are gone", || store.descriptors() == before);
        }
        witness.end();
    });
}

/// A soft limit is only what a process gets unless it asks: 1024 on most machines, and this store
/// promises to serve 4096 clients.
#[test]
fn a_soft_limit_on_descriptors_does_not_limit_the_clients() {
    within(LIMIT, || {
        let (_folder, store) = limited_store("-S -n 32");
        let clients: Vec<_> = (0..64).map(|_| store.client()).collect();
        for client in &clients {
            client.list().expect("the store answers");
        }
    });
}

#[test]
fn anything_may_be_given_for_a_subscription() {
    under_attack(&[], |store| {
        let folder = tempfile::tempdir().expect("a folder");
        let (pipe_reader, pipe_writer) = io::pipe().expect("a pipe");
        let (datagram, _other) = UnixDatagram::pair().expect("a pair of sockets");
        let (orphan, parent) = UnixStream::pair().expect("a pair of sockets");
        drop(parent);
        let (shut, _other) = UnixStream::pair().expect("a pair of sockets");
        shut.shutdown(Shutdown::Both).expect("it is connected");
        let file = File::create(folder.path().join("file")).expect("a file");
        let null = File::open("/dev/null").expect("it can be opened");
        let listener = UnixListener::bind(folder.path().join("socket")).expect("a listener");
        let directory = File::open(folder.path()).expect("it can be opened");
        let epoll = nix::sys::epoll::Epoll::new(nix::sys::epoll::EpollCreateFlags::empty());
        let epoll = epoll.expect("an epoll");
        let own = connect(store);
        let given = [
            pipe_reader.as_fd(),
            pipe_writer.as_fd(),
            datagram.as_fd(),
            orphan.as_fd(),
            shut.as_fd(),
            file.as_fd(),
            null.as_fd(),
            listener.as_fd(),
            directory.as_fd(),
            epoll.0.as_fd(),
            own.socket().as_fd(),
        ];
        let client = store.client();
        let attackers = given.map(|given| {
            let mut attacker = connect(store);
            attacker.subscribe(given);
            // What is sealed from now on is to be told to all of them.
            let id = ObjectId::rand();
            client
                .create_and_seal(id, b"news", b"")
                .expect("there is room");
            client.delete(&id).expect("the store answers");
            attacker.call(&Request::Connect { capabilities: 0 });
            attacker
        });
        // The witness is served, and the store has not gone busy.
        Witness::round(&client, 1);
        drop(attackers);
    });
}

// -------------------------------------------------------------------------------------------------
// Many

#[test]
fn thousands_of_connections_leave_nothing_behind() {
    under_attack(&[], |store| {
        let requests = all_requests();
        for n in 0..4000 {
            let client = connect(store);
            if let Some(request) = requests.get(n % 40) {
                client.send(request);
            }
        }
    });
}

#[test]
fn more_clients_than_may_connect_are_turned_away() {
    within(LIMIT, || {
        let store = StoreProcess::start(CAPACITY, &["--max-clients", "8"]);
        let mut clients: Vec<_> = (0..8).map(|_| store.client()).collect();
        for _ in 0..20 {
            let refused = PlasmaClient::builder().retries(0).connect(store.socket());
            assert!(
                matches!(refused, Err(PlasmaError::Disconnected)),
                "{refused:?}"
            );
        }
        for client in &clients {
            client.list().expect("those who are there are served");
        }
        clients.pop();
        eventually("there is a place again", || {
            PlasmaClient::builder()
                .retries(0)
                .connect(store.socket())
                .is_ok()
        });
    });
}

// -------------------------------------------------------------------------------------------------
// Clients that are killed

/// What a client does before it is killed.
const LAST_DEEDS: [&str; 7] = [
    "creating",
    "holding",
    "waiting",
    "subscribed",
    "sending",
    "filling",
    "asking",
];

fn last_deed(deed: &str, socket: &std::path::Path) {
    let client = PlasmaClient::builder()
        .connect(socket)
        .expect("the store is there");
    let ready = || {
        println!("ready");
        // Nobody writes: it ends with the kill.
        let _ = io::stdin().read_line(&mut String::new());
    };
    match deed {
        "creating" => {
            let objects = [1, 3 << 20].map(|size| {
                let mut object = client
                    .create(ObjectId::rand(), size, b"meta")
                    .expect("room");
                object.data_mut()[0] = 1;
                object
            });
            ready();
            drop(objects);
        }
        "holding" => {
            let held = client
                .get_many(&[ID, OTHER_ID, ID], 0)
                .expect("the store answers");
            assert!(held.iter().all(Option::is_some));
            client.delete(&OTHER_ID).expect("the store answers");
            ready();
            drop(held);
        }
        "waiting" => {
            let waiting = client.clone();
            thread::spawn(move || waiting.get_many(&[ObjectId::rand(), ID], -1));
            let raw = RawClient::connect(socket);
            raw.send(&Request::Get {
                ids: vec![ID, ObjectId::rand()].into(),
                timeout_ms: -1,
            });
            ready();
        }
        "subscribed" => {
            let notifications = client.subscribe().expect("the store is there");
            ready();
            drop(notifications);
        }
        "sending" => {
            let content = vec![1; 10 << 20];
            let whole = message(&Request::CreateAndSeal {
                object: new_object(ObjectId::rand(), &content),
                evict_if_full: true,
            });
            let raw = RawClient::connect(socket);
            raw.send_bytes(&whole[..whole.len() / 2])
                .expect("the store reads");
            ready();
        }
        "filling" => {
            // All of it is sent, and nobody waits for the reply.
            let content = vec![1; 10 << 20];
            let raw = RawClient::connect(socket);
            raw.send(&Request::CreateAndSeal {
                object: new_object(ObjectId::new([1; 20]), &content),
                evict_if_full: true,
            });
            ready();
        }
        "asking" => {
            let raw = RawClient::connect(socket);
            raw.send(&create(ObjectId::rand(), 14 << 20));
            ready();
        }
        other => panic!("no such deed: {other}"),
    }
}

#[test]
fn what_a_killed_client_had_is_taken_back() {
    if let Some((deed, socket)) = role() {
        return last_deed(&deed, &socket);
    }
    within(LIMIT, || {
        let store = StoreProcess::start(CAPACITY, &[]);
        let client = store.client();
        let before = store.descriptors();
        for deed in LAST_DEEDS {
            client
                .create_and_seal(ID, b"kept", b"")
                .expect("there is room");
            client
                .create_and_seal(OTHER_ID, b"deleted", b"")
                .expect("there is room");
            let mut killed = in_another_process(
                "what_a_killed_client_had_is_taken_back",
                deed,
                store.socket(),
            );
            wait_for_line(&mut killed, "ready");
            killed.kill().expect("it is our child");
            killed.wait().expect("it is our child");
            eventually("everything it had is taken back", || {
                store.descriptors() == before
                    && debug_number(&client, "pinned bytes") == 0
                    && client
                        .list()
                        .expect("the store answers")
                        .iter()
                        .all(|info| info.digest.is_some() && info.ref_count == 0)
            });
            let kept = client
                .contains_many(&[ID, OTHER_ID])
                .expect("the store answers");
            let expected = if deed == "holding" {
                &[ID][..]
            } else {
                &[ID, OTHER_ID]
            };
            assert_eq!(kept, expected, "{deed}");
            let all = client.list().expect("the store answers");
            let all: Vec<_> = all.into_iter().map(|info| info.id).collect();
            client.delete_many(&all).expect("the store answers");
            assert_eq!(debug_number(&client, "allocated bytes"), 0);
            // The whole store is there to be used again.
            drop(
                client
                    .create(ID, CAPACITY as usize, b"")
                    .expect("there is room"),
            );
        }
    });
}
