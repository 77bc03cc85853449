//! What was evicted to an external store comes back once those who read in memory let go of what is in
//! its way, though they tell nobody.

use plasma_core::PlasmaClient;
use plasma_core::protocol::message::{Reply, Request};
use tests::raw::RawClient;
use tests::{StoreProcess, within};

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
        let waiter = wait_for_the_first(&store);
        drop(held);
        assert_served(waiter);
    });
}

/// The same where the store sees that when somebody else asks for something, before it looks by itself.
#[test]
fn who_waits_for_room_is_served_whoever_has_the_store_look() {
    let asks: [fn(&PlasmaClient); 4] = [
        |client| drop(client.list().expect("the store answers")),
        |client| drop(client.debug_string().expect("the store answers")),
        |client| _ = client.evict(0).expect("the store answers"),
        |client| client.refresh(&[id(1)]).expect("the store answers"),
    ];
    within(LIMIT, move || {
        // More than once: the store may look by itself just before.
        for ask in asks.repeat(3) {
            let (store, holder) = full_store();
            let asker = store.socket_client();
            let held = holder.get_many(&[id(1), id(2)], 0);
            let held = held.expect("the store answers");
            let waiter = wait_for_the_first(&store);
            drop(held);
            ask(&asker);
            assert_served(waiter);
        }
    });
}

/// A client whose get of the first object waits.
fn wait_for_the_first(store: &StoreProcess) -> RawClient {
    let mut waiter = RawClient::connect(store.socket());
    waiter.send(&Request::Get {
        ids: vec![id(0)].into(),
        timeout_ms: -1,
    });
    // Requests are handled in order: that one waits by now.
    waiter.send(&Request::Contains(id(0)));
    assert!(matches!(waiter.reply(), Reply::Contains { .. }));
    waiter
}

fn assert_served(mut waiter: RawClient) {
    let Reply::Get { objects, .. } = waiter.reply() else {
        panic!("another reply than a get's");
    };
    assert!(objects.iter().all(|(_, found)| found.is_some()));
}
