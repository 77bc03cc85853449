//! Many clients at once.

use std::thread;
use std::time::Instant;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use plasma_core::protocol::message::Request;
use plasma_core::{ObjectId, PlasmaClient, PlasmaError};
use tests::raw::{RawClient, message};
use tests::{StoreProcess, eventually, within};

use super::{
    CAPACITY, ID, LIMIT, Witness, all_requests, connect, create, let_the_store_catch_up,
    under_attack,
};

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

/// As many connections as there may be, but for a few: some have never said anything, some have
/// introduced themselves, some have stopped in the middle of a header, some in a body.
#[test]
fn thousands_of_idle_connections_keep_nobody_waiting() {
    under_attack(&[], |store| {
        const CROWD: usize = 3500;
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
        setrlimit(Resource::RLIMIT_NOFILE, most, most).expect("it may be raised");
        let before = store.private_bytes();
        let start = Instant::now();
        let crowd: Vec<_> = (0..CROWD)
            .map(|n| {
                let mut client = connect(store);
                let whole = message(&create(ID, 100));
                match n % 4 {
                    0 => {}
                    1 => drop(client.call(&Request::Connect { capabilities: 0 })),
                    2 => client.send_bytes(&whole[..7]).expect("the store reads"),
                    _ => client.send_bytes(&whole[..40]).expect("the store reads"),
                }
                client
            })
            .collect();
        let_the_store_catch_up(store);
        let grown = store.private_bytes().saturating_sub(before);
        println!(
            "{CROWD} connections in {:?}: {} bytes each",
            start.elapsed(),
            grown / CROWD as u64
        );
        assert!(grown / (CROWD as u64) < 20_000, "{grown} bytes");
        let client = store.client();
        for round in 0..100 {
            Witness::round(&client, round);
        }
        drop(crowd);
    });
}

/// Everybody asks as fast as they can, each for something else.
#[test]
fn floods_keep_nobody_waiting() {
    under_attack(&[], |store| {
        const COUNT: usize = 20_000;
        let socket = store.socket();
        thread::scope(|scope| {
            // Asked in large lots, and answered.
            for request in [
                Request::Contains(ID),
                Request::GetDebugString,
                Request::RefreshLru(vec![ID; 50].into()),
                Request::Get {
                    ids: vec![ID; 50].into(),
                    timeout_ms: 0,
                },
            ] {
                scope.spawn(move || {
                    let mut client = RawClient::connect(socket);
                    let lot = message(&request).repeat(100);
                    for _ in 0..COUNT / 100 {
                        client.send_bytes(&lot).expect("the store reads");
                        for _ in 0..100 {
                            client.reply();
                        }
                    }
                });
            }
            // Connections that come and go.
            scope.spawn(move || {
                for _ in 0..COUNT / 10 {
                    RawClient::connect(socket).call(&Request::Connect { capabilities: 0 });
                }
            });
            // Nonsense.
            scope.spawn(move || {
                for _ in 0..COUNT / 10 {
                    let client = RawClient::connect(socket);
                    // It may be cut off before it has said all.
                    let _ = client.send_bytes(&[0xff; 1000]);
                    client.wait_until_cut_off();
                }
            });
            // Objects that push one another out.
            scope.spawn(move || {
                let client = PlasmaClient::builder().connect(socket);
                let client = client.expect("the store is there");
                for _ in 0..COUNT / 10 {
                    let made = client.create_and_seal(ObjectId::rand(), &[1; 10_000], b"");
                    made.expect("there is room");
                }
            });
        });
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
