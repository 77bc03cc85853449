//! A client is killed behind each of its stores to shared memory, one after the other.
//!
//! It reads, makes and deletes objects of every kind, in every way that goes through memory. A
//! client that is killed half way through telling the store something has told it nothing, or all;
//! what it held is free, what it was making is gone, and everything else is as it was.

#![allow(clippy::unwrap_used, reason = "that is how these tests fail")]

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use plasma_core::PlasmaClient;
use tests::{StoreProcess, role, within};

use super::{MIB, all_is_accounted_for, content, id, put};

const LIMIT: Duration = Duration::from_secs(300);
const TEST: &str = "crashes::a_client_may_be_killed_behind_each_store_to_shared_memory";

/// All that a client does through memory.
fn act(client: &PlasmaClient) {
    let held = client.get(id(0), 0).unwrap().unwrap();
    let shared = held.share();
    let many = client.get_many(&[id(1), id(2), id(3)], 0).unwrap();
    client.refresh(&[id(1), id(2)]).unwrap();
    drop(held);

    let mut own = client.create(id(10), 100, b"").unwrap();
    own.data_mut().copy_from_slice(&content(&id(10), 100));
    own.seal().unwrap();
    put(client, id(11), 4000);
    let batch: Vec<_> = (12..15).map(|n| (id(n), content(&id(n), 50))).collect();
    let batch: Vec<_> = batch
        .iter()
        .map(|(id, data)| (*id, &data[..], &b""[..]))
        .collect();
    client.create_and_seal_batch(&batch).unwrap();
    // Again, which fails as one.
    client.create_and_seal_batch(&batch).unwrap_err();
    drop(client.create(id(16), 100, b"").unwrap());

    // Written in place, as it is too long for the ring; and one that somebody else reads by socket.
    put(client, id(17), 100_000);
    assert!(client.contains(&id(17)).unwrap());
    drop(client.get(id(17), -1).unwrap().unwrap());
    assert!(client.get(id(1000), 10).unwrap().is_none());

    // Wanted by the store while it is held.
    client.delete(&id(10)).unwrap();
    client.delete(&id(0)).unwrap();
    drop((own, shared, many));
    client.delete_many(&[id(11), id(12)]).unwrap();
    assert!(!client.contains(&id(0)).unwrap());
}

#[test]
fn a_client_may_be_killed_behind_each_store_to_shared_memory() {
    if let Some((_, socket)) = role() {
        let client = PlasmaClient::builder().retries(0).connect(socket).unwrap();
        act(&client);
        drop(client);
        println!("passed {}", plasma_core::shm::crash::passed());
        return;
    }
    within(LIMIT, || {
        let store = StoreProcess::start(16 * MIB, &[]);
        let witness = store.client();
        let kept = witness.create(id(100), 10, b"").unwrap();
        drop(kept);
        let mut crashes = 0;
        loop {
            for number in 0..4 {
                if !witness.contains(&id(number)).unwrap() {
                    put(&witness, id(number), 1000);
                }
            }
            let ended = Command::new(std::env::current_exe().unwrap())
                .args([TEST, "--exact", "--nocapture"])
                .env("PLASMA_TEST_ROLE", "act")
                .env("PLASMA_TEST_ARG", store.socket())
                .env("PLASMA_CRASH_AT", (crashes + 1).to_string())
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .status()
                .unwrap();
            // It goes on for others while it takes back what is left.
            all_is_accounted_for(&store, &witness);
            let made: Vec<_> = (10..20).map(id).collect();
            witness.delete_many(&made).unwrap();
            assert!(witness.contains_many(&made).unwrap().is_empty());
            if ended.signal().is_none() {
                assert!(ended.success(), "it fails after {crashes} crashes");
                break;
            }
            crashes += 1;
        }
        println!("killed at {crashes} places");
        // Every request and every answer has several.
        assert!(crashes > 50, "only {crashes} places");
        for number in 0..4 {
            witness.delete(&id(number)).unwrap();
        }
        assert!(witness.list().unwrap().is_empty());
        assert!(tests::debug_number(&witness, "allocated bytes") == 0);
    });
}
