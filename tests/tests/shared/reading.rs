//! What is read without asking, and what becomes of it.

#![allow(clippy::unwrap_used, reason = "that is how these tests fail")]

use std::time::Duration;

use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use plasma_core::{ObjectId, PlasmaClient, PlasmaError};
use tests::{
    StoreProcess, debug_number, eventually, in_another_process, processor_ticks, role,
    wait_for_line, within,
};

use super::{LIMIT, MIB, content, id, is_whole, put};

/// A store that stands still answers nobody: what works all the same asks nobody.
#[test]
fn gets_ask_nobody() {
    within(LIMIT, || {
        let store = StoreProcess::start(16 * MIB, &[]);
        let (writer, reader) = (store.client(), store.client());
        let ids: Vec<_> = (0..100).map(id).collect();
        for id in &ids {
            put(&writer, *id, 1000);
        }
        store.signal(Signal::SIGSTOP);
        for id in &ids {
            let object = reader.get(*id, -1).unwrap().unwrap();
            assert!(is_whole(id, object.data()));
            let shared = object.share();
            drop(object);
            assert!(is_whole(id, shared.data()));
            assert!(reader.contains(id).unwrap());
        }
        let buffers = reader.get_many(&ids, 1000).unwrap();
        assert!(buffers.iter().all(Option::is_some));
        drop(buffers);
        assert_eq!(reader.contains_many(&ids).unwrap(), ids);
        reader.refresh(&ids).unwrap();
        // What is not there is known not to be.
        assert!(!reader.contains(&id(1000)).unwrap());
        assert!(reader.get(id(1000), 0).unwrap().is_none());
        let some = reader.get_many(&[ids[0], id(1000)], 0).unwrap();
        assert!(some[0].is_some() && some[1].is_none());
        store.signal(Signal::SIGCONT);
        assert_eq!(writer.list().unwrap().len(), 100);
    });
}

/// Nobody makes a system call that could fail; the kernel tells all the same.
#[test]
fn a_store_that_is_killed_is_known_to_be_gone_at_once() {
    within(LIMIT, || {
        for _ in 0..20 {
            let mut store = StoreProcess::start(16 * MIB, &[]);
            let client = store.client();
            put(&client, id(1), 1000);
            let held = client.get(id(1), 0).unwrap().unwrap();
            store.signal(Signal::SIGKILL);
            store.wait();
            assert!(matches!(
                client.get(id(1), 0),
                Err(PlasmaError::Disconnected)
            ));
            assert!(matches!(
                client.contains(&id(1)),
                Err(PlasmaError::Disconnected)
            ));
            let made = client.create_and_seal(id(2), b"", b"");
            assert!(matches!(made, Err(PlasmaError::Disconnected)));
            assert!(is_whole(&id(1), held.data()));
        }
    });
}

fn references(client: &PlasmaClient, id: ObjectId) -> Option<u32> {
    let infos = client.list().unwrap();
    let info = infos.iter().find(|info| info.id == id);
    info.map(|info| info.ref_count)
}

#[test]
fn what_is_held_is_counted_and_outlives_its_deletion() {
    within(LIMIT, || {
        let store = StoreProcess::start(16 * MIB, &[]);
        let (one, two, by_socket) = (store.client(), store.client(), store.socket_client());
        put(&one, id(1), 1000);
        assert_eq!(references(&one, id(1)), Some(0));
        let held = [one.get(id(1), 0), one.get(id(1), 0), two.get(id(1), 0)];
        let held = held.map(|got| got.unwrap().unwrap());
        assert_eq!(references(&by_socket, id(1)), Some(2));
        let counted = by_socket.get(id(1), 0).unwrap().unwrap();
        assert_eq!(references(&by_socket, id(1)), Some(3));
        assert_eq!(debug_number(&by_socket, "pinned bytes"), 1000);
        two.delete(&id(1)).unwrap();
        drop(counted);
        // It is there for everybody until the last lets go, as with Arrow's store.
        assert!(two.contains(&id(1)).unwrap() && by_socket.contains(&id(1)).unwrap());
        let [first, second, third] = held;
        drop(third);
        drop(first);
        assert!(is_whole(&id(1), second.data()));
        assert_eq!(references(&by_socket, id(1)), Some(1));
        drop(second);
        // Who has let go of it knows at once.
        assert!(!one.contains(&id(1)).unwrap());
        assert!(one.get(id(1), 0).unwrap().is_none());
        assert_eq!(debug_number(&one, "allocated bytes"), 0);
    });
}

#[test]
fn what_is_held_is_not_evicted_and_what_was_read_is_evicted_later() {
    within(LIMIT, || {
        let store = StoreProcess::start(10 * MIB, &[]);
        let (writer, reader) = (store.client(), store.client());
        let size = MIB as usize;
        for number in 0..10 {
            put(&writer, id(number), size);
        }
        let held = reader.get(id(0), 0).unwrap().unwrap();
        drop(reader.get(id(1), 0).unwrap().unwrap());
        reader.refresh(&[id(2)]).unwrap();
        // A fifth of the store goes for it: the oldest two of those that nobody has looked at.
        put(&writer, id(10), size);
        let left: Vec<_> = (0..11)
            .filter(|n| reader.contains(&id(*n)).unwrap())
            .collect();
        assert_eq!(left, [0, 1, 2, 5, 6, 7, 8, 9, 10]);
        // All but what is held goes, and no more than that can be asked for.
        let refused = writer.create(id(20), 10 * size, b"");
        assert!(matches!(refused, Err(PlasmaError::OutOfMemory { .. })));
        drop(writer.create(id(20), 9 * size, b"").unwrap());
        assert!(is_whole(&id(0), held.data()));
        drop(held);
        drop(writer.create(id(20), 10 * size, b"").unwrap());
    });
}

/// A process that may not map as much as is shared does without.
#[test]
fn where_the_index_cannot_be_mapped_the_socket_serves() {
    if let Some((_, socket)) = role() {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        let pages: u64 = statm.split(' ').next().unwrap().parse().unwrap();
        // More than the objects take, and not enough for the index as well.
        let limit = pages * 4096 + 1536 * MIB;
        setrlimit(Resource::RLIMIT_AS, limit, limit).unwrap();
        let client = PlasmaClient::builder().retries(0).connect(socket).unwrap();
        put(&client, id(1), 1000);
        assert!(is_whole(
            &id(1),
            client.get(id(1), 0).unwrap().unwrap().data()
        ));
        return;
    }
    within(LIMIT, || {
        let store = StoreProcess::start(16 * MIB, &[]);
        let mut client = in_another_process(
            "reading::where_the_index_cannot_be_mapped_the_socket_serves",
            "client",
            store.socket(),
        );
        assert!(client.wait().unwrap().success());
        assert!(store.client().contains(&id(1)).unwrap());
    });
}

/// Many are deleted in one request, of which some are held in one way, some in the other and some in
/// none, and those go that nobody holds.
#[test]
fn of_many_that_are_deleted_those_stay_that_are_held() {
    within(LIMIT, || {
        let store = StoreProcess::start(16 * MIB, &["--max-pins", "2000"]);
        let (writer, deleter) = (store.client(), store.socket_client());
        let holders = [store.client(), store.socket_client()];
        let ids: Vec<_> = (0..6000).map(id).collect();
        for id in &ids {
            put(&writer, *id, 100);
        }
        let hold = |client: &PlasmaClient, rest| {
            let wanted = ids.iter().skip(rest).step_by(3).take(1500);
            let wanted: Vec<_> = wanted.copied().collect();
            client.get_many(&wanted, 0).unwrap()
        };
        let held: Vec<_> = holders
            .iter()
            .zip([0, 1])
            .map(|(c, rest)| hold(c, rest))
            .collect();
        deleter.delete_many(&ids).unwrap();
        assert_eq!(deleter.list().unwrap().len(), 3000);
        for object in held.iter().flatten().flatten() {
            assert!(is_whole(object.id(), object.data()));
        }
        let gone = || deleter.list().unwrap().is_empty();
        drop(held);
        eventually("all of them are gone", gone);
    });
}

/// What one thread reads again and again, and nothing else, is as much in use as what many read.
#[test]
fn what_is_read_all_the_time_is_not_evicted() {
    within(LIMIT, || {
        let store = StoreProcess::start(10 * MIB, &[]);
        let (writer, reader) = (store.client(), store.client());
        let read = |number| reader.get(id(number), 0).unwrap();
        put(&writer, id(0), MIB as usize);
        for number in 1..60 {
            assert!(read(0).is_some(), "{number}");
            put(&writer, id(number), MIB as usize);
        }
        assert!(read(1).is_none());
    });
}

/// Where an object is listed may change between when it is used and when the store looks.
#[test]
fn what_was_used_is_known_wherever_it_is_listed() {
    within(LIMIT, || {
        const SIZE: usize = 1 << 10;
        let store = StoreProcess::start(10 * MIB, &[]);
        let (writer, reader) = (store.client(), store.client());
        let read = |number| reader.get(id(number), 0).unwrap().is_some();
        // The index has twice as many homes as there are objects at least, and grows from 1024 on.
        let old: Vec<_> = (0..400).map(id).collect();
        for id in &old {
            put(&writer, *id, SIZE);
        }
        let (refreshed, others) = old.split_at(200);
        reader.refresh(refreshed).unwrap();
        assert!(read(300));
        for number in 1000..9000 {
            put(&writer, id(number), SIZE);
            assert!(read(300));
        }
        // Two fifths of the store.
        for number in 0..4 {
            put(&writer, id(10_000 + number), MIB as usize);
        }
        assert!(reader.contains_many(others).unwrap().len() < 100);
        assert_eq!(reader.contains_many(refreshed).unwrap(), refreshed);
        assert!(read(300));
    });
}

/// A refresh is not lost among reads, nor among other refreshes.
#[test]
fn what_was_refreshed_is_evicted_last() {
    within(LIMIT, || {
        const SMALL: u64 = 600;
        let store = StoreProcess::start(10 * MIB, &[]);
        let (writer, reader) = (store.client(), store.client());
        for number in 0..9 {
            put(&writer, id(number), MIB as usize);
        }
        let small: Vec<_> = (1000..1000 + SMALL).map(id).collect();
        for id in &small {
            put(&writer, *id, 100);
        }
        let read_small = || {
            for id in &small {
                assert!(reader.get(*id, 0).unwrap().is_some());
            }
        };
        reader.refresh(&[id(0)]).unwrap();
        read_small();
        put(&writer, id(10), MIB as usize);
        assert_eq!(reader.contains_many(&[id(0), id(1)]).unwrap(), [id(0)]);

        // More than there is room for in memory, in one go and one by one.
        reader.refresh(&[id(3)]).unwrap();
        reader.refresh(&small).unwrap();
        for id in &small {
            reader.refresh(std::slice::from_ref(id)).unwrap();
        }
        reader.refresh(&[id(4)]).unwrap();
        read_small();
        for number in 11..15 {
            put(&writer, id(number), MIB as usize);
        }
        let left: Vec<_> = (2..9)
            .filter(|n| reader.contains(&id(*n)).unwrap())
            .collect();
        assert_eq!(left, [3, 4]);
    });
}

/// Pins are few; what they do not suffice for, the store counts.
#[test]
fn where_pins_run_out_the_store_counts() {
    within(LIMIT, || {
        let store = StoreProcess::start(16 * MIB, &["--max-pins", "4"]);
        let client = store.client();
        let ids: Vec<_> = (0..10).map(id).collect();
        for id in &ids {
            put(&client, *id, 100);
        }
        let buffers = client.get_many(&ids, 0).unwrap();
        let more: Vec<_> = ids
            .iter()
            .map(|id| client.get(*id, 0).unwrap().unwrap())
            .collect();
        for (id, buffer) in ids.iter().zip(buffers.iter().flatten()) {
            assert!(is_whole(id, buffer.data()));
            assert_eq!(references(&client, *id), Some(1));
        }
        // An object that this client makes is held without a pin, too.
        let mut own = client.create(id(50), 10, b"").unwrap();
        own.data_mut().copy_from_slice(&content(&id(50), 10));
        own.seal().unwrap();
        assert_eq!(references(&client, id(50)), Some(1));
        client.delete_many(&ids).unwrap();
        drop((buffers, more));
        assert!(client.contains_many(&ids).unwrap().is_empty());
        drop(own);
        assert_eq!(references(&client, id(50)), Some(0));
    });
}

#[test]
fn each_part_can_be_left_out() {
    within(LIMIT, || {
        for args in [
            &["--no-shared-memory"][..],
            &["--max-pins", "0"],
            &["--ring-requests", "0"],
            &[
                "--ring-requests",
                "1",
                "--ring-bytes",
                "64",
                "--poll-time",
                "0",
            ],
        ] {
            let store = StoreProcess::start(16 * MIB, args);
            let (one, two) = (store.client(), store.client());
            let batch: Vec<_> = (0..20).map(|n| (id(n), content(&id(n), 200))).collect();
            let batch: Vec<_> = batch
                .iter()
                .map(|(id, data)| (*id, &data[..], &b"m"[..]))
                .collect();
            one.create_and_seal_batch(&batch).unwrap();
            put(&one, id(100), 50);
            let mut object = one.create(id(101), 70_000, b"meta").unwrap();
            object
                .data_mut()
                .copy_from_slice(&content(&id(101), 70_000));
            object.seal().unwrap();
            for number in (0..20).chain([100, 101]) {
                let object = two.get(id(number), 0).unwrap().unwrap();
                assert!(is_whole(&id(number), object.data()), "{args:?}");
            }
            two.delete(&id(100)).unwrap();
            assert!(!one.contains(&id(100)).unwrap());
        }
    });
}

/// The table grows, one home at a time, under the eyes of a process that reads in it.
#[test]
fn nothing_is_missed_while_the_index_grows() {
    const OBJECTS: u64 = 60_000;
    if let Some((_, socket)) = role() {
        let client = PlasmaClient::builder().retries(0).connect(socket).unwrap();
        println!("reading");
        // What was there from the beginning is there, whatever moves.
        while !client.contains(&id(OBJECTS)).unwrap() {
            for number in 0..100 {
                let object = client.get(id(number), 0).unwrap();
                assert!(is_whole(&id(number), object.expect("it is there").data()));
            }
        }
        return;
    }
    within(LIMIT, || {
        let store = StoreProcess::start(64 * MIB, &[]);
        let client = store.client();
        let put_all = |numbers: std::ops::Range<u64>| {
            let content: Vec<_> = numbers.map(|n| (id(n), content(&id(n), 20))).collect();
            let batch: Vec<_> = content
                .iter()
                .map(|(id, data)| (*id, &data[..], &b""[..]))
                .collect();
            client.create_and_seal_batch(&batch).unwrap();
        };
        put_all(0..100);
        let mut reader = in_another_process(
            "reading::nothing_is_missed_while_the_index_grows",
            "read",
            store.socket(),
        );
        wait_for_line(&mut reader, "reading");
        let held = client.get(id(7), 0).unwrap().unwrap();
        for start in (100..OBJECTS).step_by(1000) {
            put_all(start..(start + 1000).min(OBJECTS));
        }
        put_all(OBJECTS..OBJECTS + 1);
        assert!(reader.wait().unwrap().success());
        // Wherever it is listed by now, it is known to be held.
        assert_eq!(references(&client, id(7)), Some(1));
        drop(held);
        assert_eq!(references(&client, id(7)), Some(0));
        // A store that stands still is asked nothing: all of them are in the index.
        store.signal(Signal::SIGSTOP);
        for number in 0..=OBJECTS {
            assert!(client.contains(&id(number)).unwrap(), "{number}");
        }
        for number in OBJECTS + 1..2 * OBJECTS {
            assert!(!client.contains(&id(number)).unwrap(), "{number}");
        }
        store.signal(Signal::SIGCONT);
        let odd: Vec<_> = (0..OBJECTS).filter(|n| n % 2 == 1).map(id).collect();
        client.delete_many(&odd).unwrap();
        for number in 0..OBJECTS {
            assert_eq!(client.contains(&id(number)).unwrap(), number % 2 == 0);
        }
    });
}

/// A get that waits is served by a seal that comes through memory.
#[test]
fn who_waits_is_served_by_who_asks_nobody() {
    within(LIMIT, || {
        let store = StoreProcess::start(16 * MIB, &[]);
        let (writer, waiter) = (store.client(), store.client());
        for number in 0..200 {
            let waiting = {
                let waiter = waiter.clone();
                std::thread::spawn(move || waiter.get(id(number), -1))
            };
            if number % 2 == 0 {
                eventually("it waits", || store.sockets() >= 4);
            }
            put(&writer, id(number), 100);
            let object = waiting.join().unwrap().unwrap().unwrap();
            assert!(is_whole(&id(number), object.data()));
        }
        assert!(waiter.get(id(1000), 50).unwrap().is_none());
    });
}

/// What one thread does through memory and through the socket happens in its order.
#[test]
fn both_ways_keep_their_order() {
    within(LIMIT, || {
        let store = StoreProcess::start(16 * MIB, &[]);
        let client = store.client();
        for number in 0..500 {
            let id = id(number);
            // Dropped unsealed: that goes through the socket, and nobody waits for it.
            drop(client.create(id, 100, b"").unwrap());
            drop(client.create(id, 2 * MIB as usize, b"").unwrap());
            put(&client, id, 100);
            let held = client.get(id, 0).unwrap().unwrap();
            client.delete(&id).unwrap();
            assert!(client.contains(&id).unwrap());
            drop(held);
            assert!(!client.contains(&id).unwrap());
            put(&client, id, 100);
            client.delete(&id).unwrap();
            assert!(client.get(id, 0).unwrap().is_none());
        }
    });
}

/// Threads of one client pin, share and let go of the same few objects.
#[test]
fn threads_share_a_clients_pins() {
    within(LIMIT, || {
        let store = StoreProcess::start(16 * MIB, &["--max-pins", "16"]);
        let client = store.client();
        for number in 0..8 {
            put(&client, id(number), 1000);
        }
        std::thread::scope(|scope| {
            for thread in 0..4_u64 {
                let client = &client;
                scope.spawn(move || {
                    let mut held = Vec::new();
                    for turn in 0..20_000_u64 {
                        let id = id((turn * 7 + thread) % 8);
                        let object = client.get(id, 0).unwrap().expect("it is there");
                        assert!(is_whole(&id, object.data()));
                        match turn % 3 {
                            0 => drop(object),
                            1 => held.push(object.share()),
                            _ => held.push(object),
                        }
                        if held.len() > 6 {
                            held.clear();
                        }
                    }
                });
            }
        });
        super::all_is_accounted_for(&store, &client);
    });
}

/// Without a ring the bell still tells of what is let go of; and is heard once each time.
#[test]
fn a_store_without_rings_goes_to_sleep_again() {
    within(LIMIT, || {
        let store = StoreProcess::start(16 * MIB, &["--ring-requests", "0"]);
        let (one, two) = (store.client(), store.client());
        for number in 0..10 {
            put(&one, id(number), 100);
            let held = two.get(id(number), 0).unwrap().unwrap();
            one.delete(&id(number)).unwrap();
            drop(held);
        }
        eventually("all are deleted", || one.list().unwrap().is_empty());
        let calm = || {
            let before = processor_ticks(store.pid());
            std::thread::sleep(Duration::from_millis(500));
            processor_ticks(store.pid()) - before
        };
        // A store that is awake all the time uses fifty.
        eventually("it sleeps", || calm() <= 2);
        drop(two);
        put(&one, id(0), 100);
        eventually("it sleeps again", || calm() <= 2);
    });
}

/// Who is cut off keeps what it holds until it lets go of it, and the store hears of that.
#[test]
fn what_one_lets_go_of_who_was_cut_off_is_deleted() {
    within(LIMIT, || {
        let store = StoreProcess::start(16 * MIB, &["--max-ids", "2"]);
        let (reader, other) = (store.client(), store.client());
        for number in 0..2 {
            put(&other, id(number), 100);
        }
        let [one, two] = [0, 1].map(|number| reader.get(id(number), 0).unwrap().unwrap());
        let too_many = [2, 3, 4].map(|number| (id(number), &b""[..], &b""[..]));
        let cut_off = reader.create_and_seal_batch(&too_many);
        assert!(matches!(cut_off, Err(PlasmaError::Disconnected)));
        other.delete(&id(0)).unwrap();
        assert!(other.contains(&id(0)).unwrap());
        assert!(is_whole(&id(0), one.data()));
        drop(one);
        eventually("it is deleted", || !other.contains(&id(0)).unwrap());
        assert!(is_whole(&id(1), two.data()));
    });
}
