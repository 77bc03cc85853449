//! What a thread does is seen in its order, whichever ways it takes to the store.

use std::thread;

use plasma_core::PlasmaClient;
use tests::{StoreProcess, within};

use super::{LIMIT, MIB, id, put};

/// Unsealed objects are given up through the socket, without waiting; what is asked through memory
/// then does not overtake that, also where another thread is waiting just then for the store to have
/// seen to what it gave up itself.
#[test]
fn threads_that_share_a_client_do_not_overtake_themselves() {
    within(LIMIT, || {
        let store = StoreProcess::start(16 * MIB, &[]);
        let client = store.client();
        thread::scope(|scope| {
            for thread in 0..4 {
                let client = client.clone();
                scope.spawn(move || give_up_and_put(&client, id(thread), 1000));
            }
        });
    });
}

fn give_up_and_put(client: &PlasmaClient, id: plasma_core::ObjectId, rounds: u32) {
    for round in 0..rounds {
        drop(client.create(id, 64, b"").expect("there is room"));
        // Another thread begins to wait meanwhile.
        for _ in 0..round % 4 {
            thread::yield_now();
        }
        let put = client.create_and_seal(id, &[1; 64], b"");
        assert!(put.is_ok(), "round {round}: {put:?}");
        client.delete(&id).expect("the store answers");
        assert!(!client.contains(&id).expect("the store answers"));
    }
}

/// Who has waited for an object and lets go of it holds it no more, whatever it asks next.
#[test]
fn what_was_waited_for_is_not_held_by_the_wait() {
    within(LIMIT, || {
        let store = StoreProcess::start(16 * MIB, &[]);
        for client in [store.client(), store.socket_client()] {
            let writer = store.client();
            thread::scope(|scope| {
                let (ask, asked) = std::sync::mpsc::channel();
                scope.spawn(move || {
                    for number in asked {
                        put(&writer, id(number), 100);
                    }
                });
                for number in 0..600 {
                    let wanted = id(number);
                    ask.send(number).expect("the writer is there");
                    // Half of them are waited for as one of two, which is not done by looking.
                    let got = if number % 2 == 0 {
                        client.get(wanted, -1).expect("the store answers")
                    } else {
                        let both = client.get_many(&[wanted, wanted], -1);
                        both.expect("the store answers").swap_remove(0)
                    };
                    drop(got.expect("it was made"));
                    check_unheld(&client, wanted, number);
                }
            });
        }
    });
}

/// Asks for something that would notice if the object were still held.
fn check_unheld(client: &PlasmaClient, id: plasma_core::ObjectId, number: u64) {
    if number.is_multiple_of(3) {
        let infos = client.list().expect("the store answers");
        let held = infos.iter().find(|info| info.ref_count > 0);
        assert_eq!(held, None);
    }
    if number % 3 == 1 {
        assert!(client.evict(1).expect("the store answers") > 0);
    } else {
        client.delete(&id).expect("the store answers");
    }
    assert!(!client.contains(&id).expect("the store answers"));
}
