//! Whole programs: what users of the client and the store rely on.

use std::time::Duration;

use plasma_core::{ObjectId, PlasmaClient, PlasmaError};
use tests::{StoreProcess, within};

#[test]
fn what_one_client_seals_another_reads() {
    let store = StoreProcess::start(1 << 20, &[]);
    let (writer, reader) = (store.client(), store.client());
    let id = ObjectId::rand();
    let mut object = writer.create(id, 5, b"meta").unwrap();
    object.data_mut().copy_from_slice(b"hello");
    assert!(reader.get(id, 0).unwrap().is_none());
    object.seal().unwrap();
    let read = reader.get(id, 0).unwrap().unwrap();
    assert_eq!((read.data(), read.meta()), (&b"hello"[..], &b"meta"[..]));
    assert!(matches!(object.seal(), Err(PlasmaError::AlreadySealed)));
}

#[test]
fn a_get_that_waits_keeps_no_other_thread_waiting() {
    within(Duration::from_secs(30), || {
        let store = StoreProcess::start(1 << 20, &[]);
        let client: PlasmaClient = store.client();
        let id = ObjectId::rand();
        let waiting = client.clone();
        let waiter = std::thread::spawn(move || waiting.get(id, -1).unwrap().unwrap());
        // Two clients: the waiter's own connection makes a third.
        client
            .create_and_seal(ObjectId::rand(), b"meanwhile", b"")
            .unwrap();
        client.create_and_seal(id, b"at last", b"").unwrap();
        assert_eq!(waiter.join().unwrap().data(), b"at last");
    });
}
