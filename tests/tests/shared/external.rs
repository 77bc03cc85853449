//! What was evicted to an external store comes back once those who read in memory let go of what is in
//! its way, though they tell nobody.

use std::thread;

use plasma_core::PlasmaClient;
use tests::{StoreProcess, eventually, within};

use super::{LIMIT, MIB, id, is_whole, put};

const SIZE: usize = 400_000;

/// A store whose first object was evicted, and that is full of two others.
fn full_store() -> (StoreProcess, PlasmaClient) {
    let store = StoreProcess::start(MIB, &["-e", "hashtable://test"]);
    let client = store.client();
    for number in 0..3 {
        put(&client, id(number), SIZE);
    }
    (store, client)
}

#[test]
fn what_was_let_go_of_since_it_was_last_looked_at_makes_room() {
    within(LIMIT, || {
        let (store, holder) = full_store();
        let held = holder.get_many(&[id(1), id(2)], 0);
        let held = held.expect("the store answers");
        assert!(held.iter().all(Option::is_some));
        for other in [store.client(), store.socket_client()] {
            // It looks at what is held to say so.
            let infos = other.list().expect("the store answers");
            assert!(infos.iter().filter(|info| info.ref_count == 1).count() >= 2);
            assert!(other.get(id(0), 0).expect("the store answers").is_none());
        }
        drop(held);
        for other in [store.client(), store.socket_client()] {
            let back = other.get(id(0), 0).expect("the store answers");
            assert!(is_whole(&id(0), back.expect("there is room").data()));
        }
    });
}

#[test]
fn who_waits_for_room_is_served_when_it_is_let_go_of() {
    within(LIMIT, || {
        let (store, holder) = full_store();
        let held = holder.get_many(&[id(1), id(2)], 0);
        let held = held.expect("the store answers");
        let waiter = store.socket_client();
        let connections = store.sockets();
        let waiting = thread::spawn(move || waiter.get(id(0), -1));
        eventually("it waits", || store.sockets() > connections);
        // Whatever is asked before this has been seen to: that one waits for room.
        holder.list().expect("the store answers");
        drop(held);
        let back = waiting.join().expect("it does not panic");
        let back = back.expect("the store answers").expect("it is sealed");
        assert!(is_whole(&id(0), back.data()));
    });
}
