//! Clients that go on with the store that follows theirs.

use std::os::unix::fs::MetadataExt;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use plasma_core::{Notification, ObjectId, PlasmaClient, PlasmaError};
use tests::{StoreProcess, debug_number, eventually, patience, within};

use super::{CAPACITY, LIMIT, Place, is_disconnected, new_object};

fn kill(store: &mut StoreProcess) {
    store.signal(Signal::SIGKILL);
    store.wait();
}

/// The kernel's number of the file that a mapping at this address is of.
fn file_at(address: *const u8) -> String {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("this process's mappings");
    let of = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let bound = |text| usize::from_str_radix(text, 16).ok();
        let inside = (bound(start)?..bound(end)?).contains(&address.addr());
        inside.then(|| fields.nth(3).map(str::to_owned))?
    };
    maps.lines()
        .find_map(of)
        .expect("something is mapped there")
}

/// Whether this process has a file of this number, mapped or open.
fn keeps(file: &str) -> bool {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("this process's mappings");
    let mapped = maps
        .lines()
        .any(|line| line.split_ascii_whitespace().nth(4) == Some(file));
    let open = std::fs::read_dir("/proc/self/fd").expect("this process's descriptors");
    // One that is closed meanwhile is not there any more.
    mapped
        || open
            .flatten()
            .filter_map(|entry| std::fs::metadata(entry.path()).ok())
            .any(|metadata| metadata.ino().to_string() == file)
}

/// Every call, made first by a client that does not know yet that its store is gone.
#[test]
fn every_call_goes_on_with_the_next_store() {
    type Call = fn(&PlasmaClient, ObjectId) -> Result<bool, PlasmaError>;
    // The object is in the old store, and not in the new one.
    let calls: [(&str, Call); 17] = [
        ("create", |client, id| {
            let mut object = client.create(id, 4, b"meta")?;
            object.data_mut().copy_from_slice(b"data");
            object.seal()?;
            Ok(object.meta() == b"meta")
        }),
        ("create_and_seal", |client, id| {
            client.create_and_seal(id, b"new", b"")?;
            Ok(client.get(id, 0)?.expect("it is new").data() == b"new")
        }),
        ("create_and_seal of much", |client, id| {
            client.create_and_seal(id, &[0; 200_000], b"")?;
            client.contains(&id)
        }),
        ("create_and_seal_batch", |client, id| {
            client.create_and_seal_batch(&[(id, b"", b"")])?;
            client.contains(&id)
        }),
        ("get", |client, id| Ok(client.get(id, 0)?.is_none())),
        ("get that waits", |client, id| {
            Ok(client.get(id, 10)?.is_none())
        }),
        ("get_many", |client, id| {
            Ok(client.get_many(&[id, id], 0)?.iter().all(Option::is_none))
        }),
        ("contains", |client, id| Ok(!client.contains(&id)?)),
        ("contains_many", |client, id| {
            Ok(client.contains_many(&[id])?.is_empty())
        }),
        ("delete", |client, id| client.delete(&id).map(|()| true)),
        ("delete_many", |client, id| {
            client.delete_many(&[id]).map(|()| true)
        }),
        ("list", |client, _| Ok(client.list()?.is_empty())),
        ("evict", |client, _| Ok(client.evict(1)? == 0)),
        ("refresh", |client, id| client.refresh(&[id]).map(|()| true)),
        ("set_options", |client, _| {
            client.set_options("late", 1000)?;
            Ok(debug_number(client, "num clients with quota") == 1)
        }),
        ("debug_string", |client, _| {
            Ok(client.debug_string()?.contains("allocated bytes: 0"))
        }),
        ("subscribe", |client, id| {
            let mut notifications = client.subscribe()?;
            client.create_and_seal(id, b"", b"")?;
            let first = notifications.recv_timeout(patience())?;
            Ok(matches!(first, Some(Notification::Sealed(info)) if info.id == id))
        }),
    ];
    within(LIMIT, move || {
        let place = Place::new();
        for (name, call) in calls {
            let mut first = place.start_store();
            let client = place.client();
            let id = new_object(&client, b"old");
            kill(&mut first);
            let _second = place.start_store();
            let result = call(&client, id);
            assert!(matches!(result, Ok(true)), "{name}: {result:?}");
        }
    });
}

/// The next store may need the memory of the last.
#[test]
fn nothing_is_kept_of_a_store_that_is_gone() {
    within(LIMIT, || {
        for shared in [true, false] {
            let place = Place::new();
            let mut first = place.start_store();
            let builder = PlasmaClient::builder().retries(0).reconnect(true);
            let client = builder.shared_memory(shared).connect(&place.socket);
            let client = client.unwrap();
            let id = new_object(&client, b"old");
            let object = client.get(id, 0).unwrap().unwrap();
            let memory = file_at(object.data().as_ptr());
            kill(&mut first);
            assert!(client.list().is_err(), "there is no store");
            assert_eq!(object.data(), b"old");
            drop(object);
            assert!(!keeps(&memory));
            let _second = place.start_store();
            assert!(client.list().unwrap().is_empty());
        }
    });
}

#[test]
fn nothing_is_kept_of_a_store_that_is_gone_while_a_get_waits_in_the_next() {
    within(LIMIT, || {
        let place = Place::new();
        let mut first = place.start_store();
        // However long the second store takes to start.
        let builder = PlasmaClient::builder().retries(u32::MAX).reconnect(true);
        let client = builder.connect(&place.socket).unwrap();
        let old = new_object(&client, b"old");
        let memory = file_at(client.get(old, 0).unwrap().unwrap().data().as_ptr());
        let id = ObjectId::rand();
        let waiting = client.clone();
        let before = first.descriptors();
        let waiter = thread::spawn(move || waiting.get(id, -1));
        eventually("the get waits on a connection of its own", || {
            first.descriptors() > before
        });
        kill(&mut first);
        let second = place.start_store();
        eventually("the first store is let go of", || !keeps(&memory));
        assert!(!waiter.is_finished());
        second.client().create_and_seal(id, b"new", b"").unwrap();
        let found = waiter.join().unwrap().unwrap();
        assert_eq!(found.unwrap().data(), b"new");
    });
}

/// The first lives on, but who connects comes to the second.
#[test]
fn another_store_at_the_same_path_is_not_taken_for_the_first() {
    within(LIMIT, || {
        let place = Place::new();
        let first = place.start_store();
        let clients = [first.client(), first.socket_client(), place.client()];
        std::fs::remove_file(&place.socket).unwrap();
        let second = place.start_store();
        for client in clients {
            let id = new_object(&client, b"first");
            let missing = ObjectId::rand();
            // It would wait for what is sealed in the second store, and look for it in the first.
            let refused = client.get(missing, 100).map(|_| ()).unwrap_err();
            assert!(
                matches!(refused, PlasmaError::PathTaken { .. }),
                "{refused}"
            );
            let refused = client.subscribe().map(|_| ()).unwrap_err();
            assert!(
                matches!(refused, PlasmaError::PathTaken { .. }),
                "{refused}"
            );
            assert!(client.get(missing, 0).unwrap().is_none());
            assert_eq!(client.get(id, 100).unwrap().unwrap().data(), b"first");
        }
        assert!(second.client().list().unwrap().is_empty());
    });
}

#[test]
fn without_leave_a_client_stays_disconnected() {
    within(LIMIT, || {
        let place = Place::new();
        let mut first = place.start_store();
        let client = first.client();
        kill(&mut first);
        let _second = place.start_store();
        assert!(is_disconnected(client.list()));
        assert!(is_disconnected(client.create(ObjectId::rand(), 1, b"")));
    });
}

/// The old store is gone with four objects in the hands of one client: read, shared, being written,
/// sealed by its writer. In the new one, somebody else makes objects with the same ids.
#[test]
fn what_is_held_from_the_old_store_stays_and_does_nothing_to_the_new_one() {
    within(LIMIT, || {
        let place = Place::new();
        let mut first = place.start_store();
        let client = place.client();
        let read_id = new_object(&client, b"old");
        let read = client.get(read_id, 0).unwrap().unwrap();
        let shared = read.share();
        let [writing_id, kept_id, sealed_id] = [(); 3].map(|()| ObjectId::rand());
        let mut writing = client.create(writing_id, 3, b"").unwrap();
        let kept = client.create(kept_id, 3, b"").unwrap();
        let mut sealed = client.create(sealed_id, 3, b"").unwrap();
        sealed.data_mut().copy_from_slice(b"old");
        sealed.seal().unwrap();
        kill(&mut first);
        let second = place.start_store();

        // The same ids in the new store, read and written by the very same client.
        let ids = [read_id, writing_id, kept_id, sealed_id];
        let mut anew: Vec<_> = ids
            .iter()
            .map(|id| {
                assert!(client.get(*id, 0).unwrap().is_none(), "it is gone");
                client.create(*id, 3, b"").unwrap()
            })
            .collect();
        assert!(is_disconnected(writing.seal()));
        writing.data_mut().copy_from_slice(b"own");
        assert_eq!(writing.data(), b"own");
        drop(writing);
        drop(kept);
        assert_eq!((read.data(), shared.data()), (&b"old"[..], &b"old"[..]));
        drop((read, shared, sealed));

        // Nothing was released or aborted there: all four are still this client's to write and seal.
        let other = second.client();
        for info in other.list().unwrap() {
            assert_eq!((info.ref_count, info.digest), (1, None), "{}", info.id);
        }
        for object in &mut anew {
            object.data_mut().copy_from_slice(b"new");
            object.seal().unwrap();
        }
        other.delete_many(&ids).unwrap();
        other.evict(u64::MAX).unwrap();
        assert_eq!(other.list().unwrap().len(), ids.len(), "they are held");
        assert!(anew.iter().all(|object| object.data() == b"new"));
        drop(anew);
        eventually("they go", || other.list().unwrap().is_empty());
        assert_eq!(debug_number(&other, "allocated bytes"), 0);
    });
}

/// A get that waits for ever is made once more: what it waits for may come in the new store.
#[test]
fn a_get_that_waits_goes_on_in_the_next_store() {
    within(LIMIT, || {
        let place = Place::new();
        let mut first = place.start_store();
        // However long the second store takes to start.
        let builder = PlasmaClient::builder().retries(u32::MAX).reconnect(true);
        let client = builder.connect(&place.socket).unwrap();
        let (held_id, id) = (new_object(&client, b"old"), ObjectId::rand());
        let waiting = client.clone();
        let before = first.descriptors();
        let waiter = thread::spawn(move || waiting.get_many(&[held_id, id], -1));
        eventually("the get waits on a connection of its own", || {
            first.descriptors() > before
        });
        kill(&mut first);
        // The waiter looks for a store, and finds none for a while.
        let second = place.start_store();
        let other = second.client();
        other.create_and_seal(id, b"new", b"").unwrap();
        // Both have to come from one store.
        other.create_and_seal(held_id, b"again", b"").unwrap();
        let found = waiter.join().unwrap().unwrap();
        let found: Vec<_> = found
            .iter()
            .map(|found| found.as_ref().unwrap().data())
            .collect();
        assert_eq!(found, [&b"again"[..], b"new"]);
    });
}

#[test]
fn threads_that_find_their_store_gone_get_one_connection_together() {
    within(LIMIT, || {
        let place = Place::new();
        let mut first = place.start_store();
        let client = place.client();
        kill(&mut first);
        let second = place.start_store();
        thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    new_object(&client, b"one each");
                    client.list().unwrap();
                });
            }
        });
        assert_eq!(client.list().unwrap().len(), 16);
        eventually("there are the listener and one connection", || {
            second.sockets() == 2
        });
    });
}

#[test]
fn where_no_store_comes_calls_say_so_and_later_ones_try_again() {
    within(LIMIT, || {
        let place = Place::new();
        let mut first = place.start_store();
        let builder = PlasmaClient::builder()
            .retries(2)
            .retry_interval(Duration::from_millis(1))
            .reconnect(true);
        let client = builder.connect(&place.socket).unwrap();
        kill(&mut first);
        for _ in 0..2 {
            let none = client.list();
            assert!(matches!(none, Err(PlasmaError::Connect { .. })), "{none:?}");
            let none = client.create(ObjectId::rand(), 1, b"");
            assert!(matches!(none, Err(PlasmaError::Connect { .. })), "{none:?}");
        }
        let _second = place.start_store();
        assert!(client.list().unwrap().is_empty());
    });
}

#[test]
fn name_and_quota_are_asked_for_again() {
    within(LIMIT, || {
        let place = Place::new();
        let mut first = place.start_store();
        let builder = PlasmaClient::builder()
            .retries(0)
            .name("recorder")
            .quota_bytes(1000)
            .reconnect(true);
        let named = builder.connect(&place.socket).unwrap();
        let late = place.client();
        late.set_options("late", 2000).unwrap();
        kill(&mut first);
        let second = place.start_store();
        named.list().unwrap();
        late.list().unwrap();
        let text = second.client().debug_string().unwrap();
        for line in ["(recorder) capacity: 1000", "(late) capacity: 2000"] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
        drop(second);

        // A store that is too small for them says so at each call.
        let small = StoreProcess::start_at(tests::server_program(), &place.socket, 1000, &[]);
        for _ in 0..2 {
            let refused = named.list();
            assert!(
                matches!(refused, Err(PlasmaError::QuotaRefused { .. })),
                "{refused:?}"
            );
        }
        assert_eq!(debug_number(&small.client(), "num clients with quota"), 0);
    });
}

#[test]
fn the_capacity_is_that_of_the_present_store() {
    within(LIMIT, || {
        let place = Place::new();
        let mut first = place.start_store();
        let client = place.client();
        kill(&mut first);
        let program = tests::server_program();
        let _second = StoreProcess::start_at(program, &place.socket, 2 * CAPACITY, &[]);
        client.list().unwrap();
        assert_eq!(client.store_capacity() as u64, 2 * CAPACITY);
        // A batch that the first could not have held.
        let half = vec![1; CAPACITY as usize / 2];
        let ids = [(); 3].map(|()| ObjectId::rand());
        client
            .create_and_seal_batch(&ids.map(|id| (id, &half[..], &b""[..])))
            .unwrap();
    });
}

/// A store that lives on has cut the client off. Its objects are there in the new connection; what
/// the client still holds from the old one is kept for it, as before.
#[test]
fn a_client_that_was_cut_off_connects_again_and_keeps_what_it_held() {
    within(LIMIT, || {
        let place = Place::new();
        let program = tests::server_program();
        let args = ["--max-ids", "10"];
        let store = StoreProcess::start_at(program, &place.socket, CAPACITY, &args);
        let client = place.client();
        let id = new_object(&client, b"held");
        let held = client.get(id, 0).unwrap().unwrap();
        // Made twice, it fails twice, and no more. So many go through the socket.
        assert!(is_disconnected(client.refresh(&[id; 300])));
        let again = client.get(id, 0).unwrap().unwrap();
        let other = store.client();
        let references = || {
            let infos = other.list().unwrap();
            infos
                .iter()
                .find(|info| info.id == id)
                .map(|info| info.ref_count)
        };
        eventually("the second connection is gone", || references() == Some(2));
        drop(again);
        eventually("only the first holds it", || references() == Some(1));
        assert_eq!(held.data(), b"held");
        drop(held);
        eventually("it is let go", || references() == Some(0));
    });
}
