//! Whole programs: what users of the client and the store rely on.

use std::io::Write;
use std::os::fd::AsFd;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use plasma_core::{
    DigestPolicy, Notification, Notifications, ObjectBuffer, ObjectId, ObjectInfo, PlasmaClient,
    PlasmaError,
};
use plasma_store::Store;
use tests::{
    StoreProcess, debug_number, eventually, in_another_process, patience, role, wait_for_line,
    within,
};

const MIB: u64 = 1 << 20;
const LIMIT: Duration = Duration::from_secs(30);

/// A store of a megabyte and a client of it, under a watchdog.
fn with_store(test: impl FnOnce(StoreProcess, PlasmaClient) + Send + 'static) {
    within(LIMIT, || {
        let store = StoreProcess::start(MIB, &[]);
        let client = store.client();
        test(store, client);
    });
}

/// What the store says of one object.
fn info(client: &PlasmaClient, id: ObjectId) -> Option<ObjectInfo> {
    let mut found = client.list().expect("the store answers").into_iter();
    found.find(|info| info.id == id)
}

fn ref_count(client: &PlasmaClient, id: ObjectId) -> u32 {
    info(client, id).expect("it is listed").ref_count
}

fn new_object(client: &PlasmaClient, data: &[u8]) -> ObjectId {
    let id = ObjectId::rand();
    client
        .create_and_seal(id, data, b"")
        .expect("there is room");
    id
}

/// Everything a store tells about itself.
fn account(client: &PlasmaClient) -> (String, Vec<ObjectInfo>) {
    let text = client.debug_string().expect("the store answers");
    (text, client.list().expect("the store answers"))
}

fn next(notifications: &mut Notifications) -> Notification {
    let next = notifications.recv_timeout(patience());
    next.expect("the subscription lasts")
        .expect("there is a notification")
}

fn next_sealed(notifications: &mut Notifications) -> ObjectInfo {
    match next(notifications) {
        Notification::Sealed(info) => info,
        Notification::Deleted(id) => panic!("{id} was deleted"),
    }
}

// -------------------------------------------------------------------------------------------------
// Creating

#[test]
fn what_one_client_seals_another_reads() {
    with_store(|store, writer| {
        let reader = store.client();
        let id = ObjectId::rand();
        let mut object = writer.create(id, 5, b"meta").unwrap();
        object.data_mut().copy_from_slice(b"hello");
        assert!(reader.get(id, 0).unwrap().is_none());
        object.seal().unwrap();
        let read = reader.get(id, 0).unwrap().unwrap();
        assert_eq!((read.data(), read.meta()), (&b"hello"[..], &b"meta"[..]));
        assert!(matches!(object.seal(), Err(PlasmaError::AlreadySealed)));
        assert!(matches!(object.abort(), Err(PlasmaError::NotMutable)));
    });
}

#[test]
fn objects_may_have_no_data_or_nothing_at_all() {
    with_store(|_store, client| {
        for meta in [&b""[..], b"only metadata"] {
            let id = ObjectId::rand();
            let mut object = client.create(id, 0, meta).unwrap();
            assert!(object.data_mut().is_empty());
            object.seal().unwrap();
            for read in [client.get(id, 0).unwrap().unwrap(), object] {
                assert_eq!((read.data(), read.meta()), (&[][..], meta));
                assert_eq!(read.size(), meta.len());
            }
            let inline = ObjectId::rand();
            client.create_and_seal(inline, b"", meta).unwrap();
            assert_eq!(client.get(inline, 0).unwrap().unwrap().meta(), meta);
        }
    });
}

#[test]
fn an_object_may_be_as_large_as_the_store_and_no_larger() {
    with_store(|_store, client| {
        let whole = MIB as usize;
        for (data_size, meta) in [(whole, &b""[..]), (whole - 4, b"meta")] {
            let id = ObjectId::rand();
            let mut object = client.create(id, data_size, meta).unwrap();
            object.data_mut().fill(7);
            object.seal().unwrap();
            assert!(object.data().iter().all(|byte| *byte == 7));
            assert_eq!(object.meta(), meta);
            drop(object);
            client.delete(&id).unwrap();
        }
        for (data_size, meta) in [
            (whole + 1, &b""[..]),
            (whole - 3, b"meta"),
            (usize::MAX, b""),
        ] {
            match client.create(ObjectId::rand(), data_size, meta) {
                Err(PlasmaError::OutOfMemory {
                    requested_bytes,
                    capacity_bytes,
                }) => {
                    assert_eq!(requested_bytes, (data_size + meta.len()) as u64);
                    assert_eq!(capacity_bytes, MIB);
                }
                other => panic!("{other:?}"),
            }
        }
        let batch = vec![3; whole / 2 + 1];
        let objects = [
            (ObjectId::rand(), &batch[..], &b""[..]),
            (ObjectId::rand(), &batch, b""),
        ];
        let refused = client.create_and_seal_batch(&objects);
        assert!(matches!(refused, Err(PlasmaError::OutOfMemory { .. })));
        assert!(client.list().unwrap().is_empty());
    });
}

/// The store reads no request that could not fit into it: the client has to say so itself.
#[test]
fn a_batch_far_larger_than_the_store_is_refused_like_any_other() {
    with_store(|_store, client| {
        let large = vec![0; 48 << 20];
        let objects = [1, 2].map(|n| (ObjectId::new([n; 20]), &large[..], &b""[..]));
        let refused = client.create_and_seal_batch(&objects);
        assert!(
            matches!(refused, Err(PlasmaError::OutOfMemory { .. })),
            "{refused:?}"
        );
        assert!(client.list().unwrap().is_empty());
    });
}

#[test]
fn of_two_clients_that_create_an_object_at_once_one_does() {
    with_store(|store, _| {
        let clients = [store.client(), store.client()];
        let start = Arc::new(Barrier::new(2));
        let rounds: Vec<_> = (0..50_u8).map(|n| ObjectId::new([n; 20])).collect();
        let racers = clients.map(|client| {
            let (start, rounds) = (Arc::clone(&start), rounds.clone());
            thread::spawn(move || {
                let race = |id: &ObjectId| {
                    start.wait();
                    match client.create(*id, 100, b"") {
                        Ok(mut object) => {
                            object.seal().unwrap();
                            true
                        }
                        Err(PlasmaError::AlreadyExists) => false,
                        Err(other) => panic!("{other}"),
                    }
                };
                rounds.iter().map(race).collect::<Vec<_>>()
            })
        });
        let [one, other] = racers.map(|racer| racer.join().unwrap());
        for (one, other) in one.into_iter().zip(other) {
            assert!(one != other, "both or neither created it");
        }
    });
}

#[test]
fn a_create_that_fails_leaves_no_trace() {
    with_store(|_store, client| {
        let kept = new_object(&client, &[1; 1000]);
        let before = account(&client);
        let too_large = ObjectId::rand();
        for size in [MIB as usize + 1, usize::MAX] {
            assert!(client.create(too_large, size, b"").is_err());
        }
        assert!(client.create(kept, 10, b"").is_err());
        assert!(client.create_and_seal(kept, b"", b"").is_err());
        let batch = [(too_large, &b"new"[..], &b""[..]), (kept, b"", b"")];
        assert!(client.create_and_seal_batch(&batch).is_err());
        assert!(!client.contains(&too_large).unwrap());
        assert_eq!(account(&client), before);
    });
}

/// What is in use is in the way: evicting all the rest would not help, so nothing is evicted.
#[test]
fn a_create_that_cannot_succeed_evicts_nothing() {
    with_store(|_store, client| {
        let held = client.create(ObjectId::rand(), 600_000, b"").unwrap();
        let kept = new_object(&client, &[1; 100_000]);
        let refused = client.create(ObjectId::rand(), 500_000, b"");
        assert!(matches!(refused, Err(PlasmaError::OutOfMemory { .. })));
        assert!(client.contains(&kept).unwrap());
        drop(held);
        drop(client.create(ObjectId::rand(), 1_000_000, b"").unwrap());
        assert!(!client.contains(&kept).unwrap());
    });
}

#[test]
fn an_object_that_is_not_sealed_is_as_if_it_had_never_been() {
    with_store(|_store, client| {
        let before = account(&client);
        let id = ObjectId::rand();
        let give_up: [fn(ObjectBuffer); 2] = [|object| object.abort().unwrap(), drop];
        for give_up in give_up {
            let object = client.create(id, 1000, b"meta").unwrap();
            assert!(object.is_mutable());
            assert!(!client.contains(&id).unwrap());
            assert_eq!(ref_count(&client, id), 1);
            give_up(object);
            assert_eq!(account(&client), before);
        }
    });
}

#[test]
fn data_starts_at_multiples_of_64() {
    with_store(|_store, client| {
        for size in [1, 63, 64, 65, 1000] {
            let id = ObjectId::rand();
            let mut object = client.create(id, size, b"x").unwrap();
            assert_eq!(object.data_mut().as_ptr().addr() % 64, 0);
            object.seal().unwrap();
            assert_eq!(object.data().as_ptr().addr() % 64, 0);
            let read = client.get(id, 0).unwrap().unwrap();
            assert_eq!(read.data().as_ptr().addr() % 64, 0);
        }
    });
}

// -------------------------------------------------------------------------------------------------
// Getting

#[test]
fn a_get_of_many_has_an_entry_for_each_id_asked() {
    with_store(|_store, client| {
        assert!(client.get_many(&[], 0).unwrap().is_empty());
        assert!(client.get_many(&[], -1).unwrap().is_empty());
        let (a, b, missing) = (
            new_object(&client, b"a"),
            new_object(&client, b"b"),
            ObjectId::rand(),
        );
        let found = client.get_many(&[a, missing, b, a, a], 0).unwrap();
        let data = found
            .iter()
            .map(|found| found.as_ref().map(ObjectBuffer::data));
        let expected = [Some(&b"a"[..]), None, Some(b"b"), Some(b"a"), Some(b"a")];
        assert!(data.eq(expected));
        // One reference of one client, however many buffers it has.
        assert_eq!(ref_count(&client, a), 1);
        let mut found = found.into_iter().flatten();
        drop((found.next(), found.next(), found.next()));
        assert_eq!(ref_count(&client, a), 1);
        assert_eq!(ref_count(&client, b), 0);
        drop(found);
        assert_eq!(ref_count(&client, a), 0);
    });
}

#[test]
fn what_was_evicted_meanwhile_is_not_found() {
    with_store(|_store, client| {
        let (gone, kept) = (new_object(&client, &[0; 100]), new_object(&client, b"kept"));
        assert_eq!(client.evict(1).unwrap(), 100);
        let found = client.get_many(&[gone, kept, gone], 0).unwrap();
        let found: Vec<_> = found.iter().map(Option::is_some).collect();
        assert_eq!(found, [false, true, false]);
        let found = client.get_many(&[gone, kept], 20).unwrap();
        assert!(found[0].is_none() && found[1].is_some());
        assert_eq!(client.contains_many(&[gone, kept]).unwrap(), [kept]);
        assert!(client.contains_many(&[]).unwrap().is_empty());
    });
}

/// Everybody waits while objects are evicted, so not a fifth of the memory goes at once where that is
/// tens of thousands of them.
#[test]
fn of_small_objects_less_than_a_fifth_is_evicted() {
    within(LIMIT, || {
        let store = StoreProcess::start(8 << 20, &[]);
        let client = store.client();
        let ids: Vec<_> = (0..(8 << 20) / 64 + 1)
            .map(|number: u32| ObjectId::from_name(&number.to_string()))
            .collect();
        for ids in ids.chunks(1000) {
            let objects: Vec<_> = ids.iter().map(|id| (*id, &[0; 64][..], &[][..])).collect();
            client.create_and_seal_batch(&objects).unwrap();
        }
        let left = client.contains_many(&ids).unwrap();
        assert_eq!(ids.len() - left.len(), 1 << 14);
        assert_eq!(left, ids[1 << 14..], "the oldest went");
    });
}

#[test]
fn a_get_waits_as_long_as_it_is_told() {
    with_store(|store, client| {
        let id = ObjectId::rand();
        let start = Instant::now();
        assert!(client.get(id, 0).unwrap().is_none());
        assert!(client.get(id, 80).unwrap().is_none());
        assert!(start.elapsed() >= Duration::from_millis(80));
        let there = new_object(&client, b"there");
        let start = Instant::now();
        let found = client.get_many(&[there, id], 80).unwrap();
        assert!(found[0].is_some() && found[1].is_none());
        assert!(start.elapsed() >= Duration::from_millis(80));
        drop(found);
        assert_eq!(ref_count(&store.client(), there), 0);
    });
}

#[test]
fn a_get_waits_no_longer_where_the_store_does_not_answer() {
    with_store(|store, client| {
        let there = new_object(&client, b"there");
        store.signal(Signal::SIGSTOP);
        let found = client.get_many(&[there, ObjectId::rand()], 80).unwrap();
        assert!(found[0].is_some() && found[1].is_none());
        store.signal(Signal::SIGCONT);
        drop(found);
        assert_eq!(ref_count(&store.client(), there), 0);
    });
}

#[test]
fn a_relative_path_is_that_of_the_folder_it_was_given_in() {
    const THIS: &str = "a_relative_path_is_that_of_the_folder_it_was_given_in";
    if let Some((_, folder)) = role() {
        std::env::set_current_dir(folder).unwrap();
        let client = PlasmaClient::builder().connect("plasma.sock").unwrap();
        std::env::set_current_dir("/").unwrap();
        // Both connect once more.
        assert!(client.get(ObjectId::rand(), 10).unwrap().is_none());
        client.subscribe().unwrap();
        return;
    }
    with_store(|store, _| {
        let folder = store.socket().parent().unwrap();
        let other = in_another_process(THIS, "wanderer", folder);
        let output = other.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
    });
}

#[test]
fn a_get_waits_for_another_process() {
    const THIS: &str = "a_get_waits_for_another_process";
    let id = ObjectId::from_name("from another process");
    if let Some((_, socket)) = role() {
        let client = PlasmaClient::builder().connect(socket).unwrap();
        println!("ready");
        std::io::stdin().read_line(&mut String::new()).unwrap();
        client.create_and_seal(id, b"at last", b"").unwrap();
        return;
    }
    with_store(move |store, client| {
        let mut other = in_another_process(THIS, "writer", store.socket());
        wait_for_line(&mut other, "ready");
        let connections = store.sockets();
        let waiter = thread::spawn(move || client.get(id, -1).unwrap().unwrap());
        eventually("the get waits on a connection of its own", || {
            store.sockets() > connections
        });
        writeln!(other.stdin.take().unwrap(), "now").unwrap();
        assert_eq!(waiter.join().unwrap().data(), b"at last");
        assert!(other.wait().unwrap().success());
    });
}

#[test]
fn a_get_that_waits_keeps_no_other_thread_waiting() {
    with_store(|store, client| {
        let id = ObjectId::rand();
        let held = client.get(new_object(&client, &[0; 500]), 0).unwrap();
        let connections = store.sockets();
        let waiting = client.clone();
        let waiter = thread::spawn(move || waiting.get_many(&[id, id], -1).unwrap());
        eventually("the get waits on a connection of its own", || {
            store.sockets() > connections
        });
        new_object(&client, b"meanwhile");
        assert_eq!(client.evict(1).unwrap(), 9);
        drop(held);
        assert_eq!(client.evict(1).unwrap(), 500);
        client.create_and_seal(id, b"at last", b"").unwrap();
        let found = waiter.join().unwrap();
        assert!(
            found
                .into_iter()
                .all(|found| found.unwrap().data() == b"at last")
        );
        assert_eq!(ref_count(&client, id), 0);
    });
}

#[test]
fn what_was_waited_for_is_not_held_any_more_once_it_is_dropped() {
    with_store(|_store, client| {
        for round in 0..500 {
            let id = ObjectId::rand();
            let waiting = client.clone();
            let waiter = thread::spawn(move || {
                drop(waiting.get(id, -1).unwrap().unwrap());
                ref_count(&waiting, id)
            });
            // It may come before the waiter; mostly it does not.
            thread::sleep(Duration::from_micros(300));
            client.create_and_seal(id, b"at last", b"").unwrap();
            assert_eq!(waiter.join().unwrap(), 0, "in round {round}");
            client.delete(&id).unwrap();
        }
    });
}

// -------------------------------------------------------------------------------------------------
// Holding and letting go

#[test]
fn a_held_object_is_not_evicted() {
    with_store(|_store, client| {
        let id = ObjectId::rand();
        let mut object = client.create(id, 1000, b"").unwrap();
        assert_eq!(client.evict(u64::MAX).unwrap(), 0);
        object.seal().unwrap();
        assert_eq!(debug_number(&client, "pinned bytes"), 1000);
        assert_eq!(client.evict(u64::MAX).unwrap(), 0);
        drop(object);
        assert_eq!(debug_number(&client, "pinned bytes"), 0);
        assert_eq!(client.evict(u64::MAX).unwrap(), 1000);
        assert_eq!(debug_number(&client, "allocated bytes"), 0);
    });
}

#[test]
fn buffers_outlive_the_client_value() {
    with_store(|store, other| {
        let client = store.client();
        let id = new_object(&client, b"still here");
        let object = client.get(id, 0).unwrap().unwrap();
        drop(client);
        assert_eq!(ref_count(&other, id), 1);
        assert_eq!(other.evict(u64::MAX).unwrap(), 0);
        assert_eq!(object.data(), b"still here");
        drop(object);
        eventually("the client is gone", || ref_count(&other, id) == 0);
    });
}

#[test]
fn a_shared_buffer_is_released_with_its_last_handle() {
    with_store(|mut store, client| {
        let id = new_object(&client, b"abc");
        let first = client.get(id, 0).unwrap().unwrap();
        let before = account(&client);
        let second = first.share();
        let third = second.share();
        assert_eq!(account(&client), before, "the store was not asked");
        drop(first);
        drop(third);
        assert_eq!((second.data(), ref_count(&client, id)), (&b"abc"[..], 1));

        // It stays a handle like any other, and needs no store.
        let got = client.get(id, 0).unwrap().unwrap();
        drop(second);
        assert_eq!(ref_count(&client, id), 1);
        drop(got);
        eventually("it is released", || ref_count(&client, id) == 0);

        let kept = client.get(id, 0).unwrap().unwrap();
        store.signal(Signal::SIGKILL);
        store.wait();
        let shared = kept.share();
        drop(kept);
        assert_eq!(shared.data(), b"abc");
    });
}

#[test]
#[should_panic(expected = "only a sealed object can be shared")]
fn an_object_has_one_writer() {
    with_store(|_store, client| {
        let object = client.create(ObjectId::rand(), 1, b"").unwrap();
        drop(object.share());
    });
}

#[test]
fn clones_share_one_connection() {
    with_store(|store, client| {
        let connections = store.sockets();
        let id = new_object(&client, b"shared");
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let client = client.clone();
                thread::spawn(move || client.get(id, 0).unwrap().unwrap())
            })
            .collect();
        let buffers: Vec<_> = threads.into_iter().map(|t| t.join().unwrap()).collect();
        assert_eq!(store.sockets(), connections);
        assert_eq!(ref_count(&client, id), 1);
        drop((client, buffers));
        eventually("the connection ends with the last of them", || {
            store.sockets() < connections
        });
    });
}

#[test]
fn threads_of_a_client_may_all_be_the_first_to_read() {
    with_store(|store, client| {
        let id = new_object(&client, &[7; 1000]);
        for _ in 0..50 {
            // A client that uses the socket alone maps the store's memory when it first reads.
            let client = store.socket_client();
            let start = Barrier::new(4);
            thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        start.wait();
                        let object = client.get(id, 0).unwrap().unwrap();
                        assert_eq!(object.data(), [7; 1000]);
                    });
                }
            });
        }
    });
}

#[test]
fn a_delete_waits_for_those_who_hold_the_object() {
    with_store(|store, client| {
        let other = store.client();
        let id = ObjectId::rand();
        let mut object = client.create(id, 3, b"").unwrap();
        other.delete(&id).unwrap();
        object.seal().unwrap();
        assert!(client.contains(&id).unwrap());
        let held = other.get(id, 0).unwrap().unwrap();
        client.delete(&id).unwrap();
        drop(object);
        assert!(client.contains(&id).unwrap());
        assert_eq!(held.data().len(), 3);
        drop(held);
        assert!(!other.contains(&id).unwrap());
        assert!(client.get(id, 0).unwrap().is_none());
        // The name is free again.
        client.create_and_seal(id, b"again", b"").unwrap();
        client.delete_many(&[id, ObjectId::rand(), id]).unwrap();
        client.delete(&ObjectId::rand()).unwrap();
        client.delete_many(&[]).unwrap();
        assert!(client.list().unwrap().is_empty());
    });
}

#[test]
fn a_list_tells_everything_of_an_object() {
    with_store(|store, client| {
        let seconds = || {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            now.as_secs().cast_signed()
        };
        let start = seconds();
        let id = ObjectId::rand();
        let builder = PlasmaClient::builder().digest(DigestPolicy::Xxh64);
        let digesting = builder.connect(store.socket()).unwrap();
        let mut object = digesting.create(id, 10, b"meta").unwrap();
        let told = info(&client, id).unwrap();
        assert_eq!((told.data_size, told.metadata_size), (10, 4));
        assert_eq!(told.ref_count, 1);
        assert_eq!((told.construct_duration_s, told.digest), (None, None));
        object.data_mut().fill(1);
        object.seal().unwrap();
        let told = info(&client, id).unwrap();
        assert_eq!(told.digest, Some(object.digest()));
        assert!((start..=seconds()).contains(&told.create_time_s));
        assert!((0..=seconds() - start).contains(&told.construct_duration_s.unwrap()));
        let other = client.get(id, 0).unwrap();
        assert_eq!(ref_count(&client, id), 2);
        drop(other);
        let undigested = new_object(&client, b"");
        assert_eq!(info(&client, undigested).unwrap().digest, Some([0; 8]));
    });
}

#[test]
fn what_was_used_last_is_evicted_last() {
    with_store(|_store, client| {
        let ids = [1, 2, 3, 4].map(|size| new_object(&client, &vec![0; size]));
        client.refresh(&[ids[0], ObjectId::rand()]).unwrap();
        drop(client.get(ids[1], 0).unwrap());
        assert_eq!(client.evict(1).unwrap(), 3);
        assert_eq!(client.evict(5).unwrap(), 4 + 1);
        assert_eq!(client.contains_many(&ids).unwrap(), [ids[1]]);
        assert_eq!(client.evict(0).unwrap(), 0);
    });
}

#[test]
fn a_quota_that_leaves_too_little_is_refused() {
    with_store(|store, client| {
        match client.set_options("greedy", MIB) {
            Err(PlasmaError::QuotaRefused {
                quota_bytes,
                capacity_bytes,
            }) => assert_eq!((quota_bytes, capacity_bytes), (1 << 20, MIB)),
            other => panic!("{other:?}"),
        }
        client.set_options("modest", 1000).unwrap();
        assert_eq!(debug_number(&client, "(modest) capacity"), 1000);
        let again = client.set_options("modest", 1000);
        assert!(matches!(again, Err(PlasmaError::QuotaRefused { .. })));
        let too_large = client.create(ObjectId::rand(), 1001, b"");
        assert!(matches!(too_large, Err(PlasmaError::OutOfMemory { .. })));
        let first = new_object(&client, &[0; 600]);
        new_object(&client, &[0; 600]);
        assert!(!client.contains(&first).unwrap());
        let builder = PlasmaClient::builder().name("late").quota_bytes(MIB);
        let refused = builder.connect(store.socket());
        assert!(matches!(refused, Err(PlasmaError::QuotaRefused { .. })));
        drop(client);
        let other = store.client();
        eventually("the quota goes with its client", || {
            debug_number(&other, "num clients with quota") == 0
        });
    });
}

#[test]
fn a_client_knows_how_much_its_store_holds() {
    with_store(|_store, client| assert_eq!(client.store_capacity(), MIB as usize));
}

// -------------------------------------------------------------------------------------------------
// Notifications

#[test]
fn a_subscriber_hears_of_everything_in_order() {
    with_store(|_store, client| {
        let before = [new_object(&client, b"1"), new_object(&client, b"22")];
        let unsealed = client.create(ObjectId::rand(), 1, b"").unwrap();
        let mut subscriptions = [client.subscribe().unwrap(), client.subscribe().unwrap()];
        for notifications in &mut subscriptions {
            for (id, size) in before.into_iter().zip(1..) {
                let told = next_sealed(notifications);
                assert_eq!((told.id, told.data_size), (id, size));
            }
            assert!(notifications.try_recv().unwrap().is_none());
        }
        let sealed = ObjectId::rand();
        client.create_and_seal(sealed, b"333", b"meta").unwrap();
        client.delete(&before[0]).unwrap();
        let batch = [
            (ObjectId::rand(), &b"4444"[..], &b""[..]),
            (ObjectId::rand(), b"55555", b""),
        ];
        client.create_and_seal_batch(&batch).unwrap();
        client.evict(1).unwrap();
        drop(unsealed);
        for notifications in &mut subscriptions {
            let told = next_sealed(notifications);
            assert_eq!(
                (told.id, told.data_size, told.metadata_size),
                (sealed, 3, 4)
            );
            assert_eq!(next(notifications), Notification::Deleted(before[0]));
            for (id, data, _) in batch {
                let told = next_sealed(notifications);
                assert_eq!((told.id, told.data_size), (id, data.len() as u64));
            }
            assert_eq!(next(notifications), Notification::Deleted(before[1]));
        }
        // One that ends takes no other along.
        let [first, mut second] = subscriptions;
        drop(first);
        let last = new_object(&client, b"last");
        assert_eq!(next_sealed(&mut second).id, last);
    });
}

#[test]
fn notifications_can_be_waited_for_in_a_poll_loop() {
    with_store(|_store, client| {
        let mut notifications = client.subscribe().unwrap();
        let soon = Duration::from_millis(30);
        let start = Instant::now();
        assert!(notifications.recv_timeout(soon).unwrap().is_none());
        assert!(start.elapsed() >= soon);
        assert!(notifications.try_recv().unwrap().is_none());
        let ready = |notifications: &Notifications, timeout: u16| {
            let mut polled = [PollFd::new(notifications.as_fd(), PollFlags::POLLIN)];
            poll(&mut polled, PollTimeout::from(timeout)).unwrap() == 1
        };
        assert!(!ready(&notifications, 0));
        let ids = [new_object(&client, b"1"), new_object(&client, b"2")];
        let mut heard = Vec::new();
        while heard.len() < ids.len() {
            assert!(ready(&notifications, 20_000));
            while let Some(notification) = notifications.try_recv().unwrap() {
                let Notification::Sealed(info) = notification else {
                    panic!("nothing was deleted")
                };
                heard.push(info.id);
            }
        }
        assert_eq!(heard, ids);
        assert!(!ready(&notifications, 0));
    });
}

#[test]
fn a_subscription_ends_with_the_store() {
    with_store(|mut store, client| {
        let id = new_object(&client, b"before the end");
        let mut notifications = client.subscribe().unwrap();
        let first = notifications.next().unwrap().unwrap();
        assert!(matches!(first, Notification::Sealed(info) if info.id == id));
        store.signal(Signal::SIGKILL);
        store.wait();
        let last = notifications.next().unwrap();
        assert!(matches!(last, Err(PlasmaError::Disconnected)), "{last:?}");
        assert!(notifications.next().is_none());
        let again = notifications.recv_timeout(patience());
        assert!(matches!(again, Err(PlasmaError::Disconnected)), "{again:?}");
    });
}

// -------------------------------------------------------------------------------------------------
// A store's end

fn is_disconnected<T: std::fmt::Debug>(result: Result<T, PlasmaError>) -> bool {
    matches!(result, Err(PlasmaError::Disconnected))
}

/// Every call, made first by a client that does not know yet that the store is gone.
#[test]
fn after_a_store_is_killed_every_call_says_so() {
    type Call = fn(&PlasmaClient, ObjectId) -> bool;
    let calls: [Call; 17] = [
        |client, id| is_disconnected(client.create(id, 1, b"")),
        |client, id| is_disconnected(client.create_and_seal(id, b"", b"")),
        |client, id| is_disconnected(client.create_and_seal(id, &[0; 200_000], b"")),
        |client, id| is_disconnected(client.create_and_seal_batch(&[(id, b"", b"")])),
        |client, id| is_disconnected(client.get(id, 0)),
        |client, id| is_disconnected(client.get(id, 10)),
        |client, id| is_disconnected(client.get_many(&[id], -1)),
        |client, id| is_disconnected(client.contains(&id)),
        |client, id| is_disconnected(client.contains_many(&[id])),
        |client, id| is_disconnected(client.delete(&id)),
        |client, id| is_disconnected(client.delete_many(&[id])),
        |client, _| is_disconnected(client.list()),
        |client, _| is_disconnected(client.evict(1)),
        |client, id| is_disconnected(client.refresh(&[id])),
        |client, _| is_disconnected(client.set_options("late", 0)),
        |client, _| is_disconnected(client.debug_string()),
        |client, _| is_disconnected(client.subscribe()),
    ];
    with_store(move |mut store, client| {
        let id = new_object(&client, b"for ever");
        let held = client.get(id, 0).unwrap().unwrap();
        let mut writing = client.create(ObjectId::rand(), 10, b"").unwrap();
        let fresh = calls.map(|_| store.client());
        store.signal(Signal::SIGKILL);
        store.wait();
        for (number, (call, fresh)) in calls.into_iter().zip(fresh).enumerate() {
            for attempt in ["first", "second"] {
                assert!(call(&fresh, id), "call {number}, {attempt} attempt");
            }
        }
        assert!(is_disconnected(writing.seal()));
        writing.data_mut().fill(1);
        assert!(is_disconnected(writing.abort()));
        assert_eq!(held.data(), b"for ever");
        drop(held);
        assert!(PlasmaError::Disconnected.should_reconnect());
    });
}

/// A client belongs to the store it connected to, also where another one has taken its place.
#[test]
fn a_client_does_not_mistake_another_store_for_its_own() {
    within(LIMIT, || {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("plasma.sock");
        let program = tests::server_program();
        let mut first = StoreProcess::start_at(program, &socket, MIB, &[]);
        let clients = [first.client(), first.client()];
        first.signal(Signal::SIGKILL);
        first.wait();
        let _second = StoreProcess::start_at(program, &socket, MIB, &[]);
        assert!(is_disconnected(clients[0].subscribe()));
        assert!(is_disconnected(clients[1].get(ObjectId::rand(), 10)));
        assert!(is_disconnected(clients[0].list()));
    });
}

#[test]
fn a_get_that_waits_ends_when_the_store_is_killed() {
    with_store(|mut store, client| {
        let connections = store.sockets();
        let waiter = thread::spawn(move || client.get(ObjectId::rand(), -1));
        eventually("the get waits on a connection of its own", || {
            store.sockets() > connections
        });
        store.signal(Signal::SIGKILL);
        store.wait();
        assert!(is_disconnected(waiter.join().unwrap()));
    });
}

#[test]
fn a_store_inside_a_process_goes_with_its_handle() {
    within(LIMIT, || {
        let folder = tempfile::tempdir().unwrap();
        let named = folder.path().join("plasma.sock");
        for stop in [
            |store: plasma_store::StoreHandle| store.shutdown().unwrap(),
            drop,
        ] {
            for socket in [None, Some(&named)] {
                let builder = Store::builder().capacity(MIB);
                let store = match socket {
                    Some(socket) => builder.socket(socket).spawn().unwrap(),
                    None => builder.spawn().unwrap(),
                };
                let path = store.socket().to_owned();
                let client = PlasmaClient::builder().retries(0).connect(&path).unwrap();
                let held = client
                    .get(new_object(&client, b"held"), 0)
                    .unwrap()
                    .unwrap();
                stop(store);
                assert!(!path.exists());
                let private = path.parent().unwrap();
                assert_eq!(private.exists(), socket.is_some());
                assert!(is_disconnected(client.list()));
                assert_eq!(held.data(), b"held");
            }
        }
    });
}

// -------------------------------------------------------------------------------------------------
// The external store

#[test]
fn what_is_evicted_to_an_external_store_comes_back_whole() {
    within(LIMIT, || {
        let store = StoreProcess::start(MIB, &["-e", "hashtable://test"]);
        let client = store.client();
        let mut notifications = client.subscribe().unwrap();
        let ids = [1_u8, 2, 3].map(|n| (n, ObjectId::new([n; 20])));
        for (n, id) in ids {
            let data = vec![n; 600_000];
            client.create_and_seal(id, &data, &[n; 5]).unwrap();
            assert_eq!(next_sealed(&mut notifications).id, id);
        }
        for (n, id) in ids.into_iter().chain(ids) {
            assert!(client.contains(&id).unwrap());
            let object = client.get(id, 0).unwrap().unwrap();
            assert!(object.data() == vec![n; 600_000]);
            assert_eq!(object.meta(), [n; 5]);
        }
        // While one is held there is no room for another; a get that waits is served after it.
        let held = client.get(ids[0].1, 0).unwrap().unwrap();
        assert!(client.get(ids[1].1, 0).unwrap().is_none());
        let connections = store.sockets();
        let (waiting, second) = (client.clone(), ids[1].1);
        let waiter = thread::spawn(move || waiting.get(second, -1).unwrap().unwrap());
        eventually("the get waits on a connection of its own", || {
            store.sockets() > connections
        });
        drop(held);
        assert_eq!(waiter.join().unwrap().meta(), [2; 5]);
        client.delete(&ids[2].1).unwrap();
        assert!(!client.contains(&ids[2].1).unwrap());
        loop {
            match next(&mut notifications) {
                Notification::Sealed(_) => {}
                Notification::Deleted(id) => break assert_eq!(id, ids[2].1),
            }
        }
    });
}

// -------------------------------------------------------------------------------------------------
// Idle time

/// Being there costs nothing: a store that nobody asks anything uses no processor time. Time has
/// to pass for that to be seen.
#[test]
fn an_idle_store_uses_no_processor_time() {
    with_store(|store, client| {
        let mut notifications = client.subscribe().unwrap();
        for n in 0..200_u32 {
            let id = new_object(&client, &n.to_le_bytes());
            drop(client.get(id, 0).unwrap());
            next(&mut notifications);
        }
        let waiting = client.clone();
        thread::spawn(move || waiting.get(ObjectId::rand(), 10_000));
        // The last request may still be winding down.
        thread::sleep(Duration::from_millis(200));
        let before = [store.pid(), nix::unistd::getpid()].map(tests::processor_ticks);
        thread::sleep(Duration::from_secs(2));
        let used = tests::processor_ticks(store.pid()) - before[0];
        println!("idle for 2 s: {used} ticks of 10 ms");
        assert!(used <= 1, "{used} ticks of 10 ms in 2 s");
    });
}
