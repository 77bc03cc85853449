//! What is held stays, whatever becomes of everything else.

use std::time::Duration;

use plasma_typed::{GetError, ObjectId, PlasmaError, Sealed, TypedClient};
use tests::{StoreProcess, within};

use super::{TICK, Tick, connect, start};

fn numbers(client: &TypedClient, count: usize) -> Sealed<[u64]> {
    let numbers = client
        .create_uninit_with_len(ObjectId::rand(), count)
        .expect("there is room");
    let numbers = numbers.fill_with(|i| i as u64);
    numbers.seal().expect("the store is there")
}

fn are_all_there(numbers: &[u64]) -> bool {
    numbers
        .iter()
        .enumerate()
        .all(|(i, number)| *number == i as u64)
}

#[test]
fn after_its_client_is_dropped() {
    let (store, client) = start(1 << 20);
    let held = numbers(&client, 50_000);
    let reader = connect(&store);
    let read = reader.get(held.key()).unwrap().unwrap();
    drop((client, held, reader));
    let writer = connect(&store);
    // It is still held, so this cannot take its memory.
    assert!(
        writer
            .create_with_len::<[u8]>(ObjectId::rand(), 900_000)
            .is_err()
    );
    assert!(are_all_there(&read));
    drop(read);
    within(Duration::from_secs(10), move || {
        // The last handle took the connection with it, which the store hears of in its own time.
        while writer
            .create_with_len::<[u8]>(ObjectId::rand(), 900_000)
            .is_err()
        {}
    });
}

#[test]
fn after_the_object_is_deleted() {
    let (store, client) = start(1 << 20);
    let held = numbers(&client, 50_000);
    let other = connect(&store);
    other.delete(held.key()).unwrap();
    for _ in 0..20 {
        // As much as fits beside it, again and again.
        let id = ObjectId::rand();
        let filler = other.create_uninit_with_len::<[u8]>(id, 500_000).unwrap();
        drop(filler.fill_with(|_| 0xff).seal().unwrap());
        other.delete(id).unwrap();
        assert!(are_all_there(&held));
    }
}

#[test]
fn while_the_store_evicts_everything_else() {
    let (store, client) = start(1 << 20);
    let held = numbers(&client, 10_000);
    let part = held.map(|numbers| &numbers[5_000..]);
    let key = held.key();
    drop(held);
    let other = connect(&store);
    for _ in 0..200 {
        other.put(&[0xff_u8; 60_000][..]).unwrap();
    }
    assert!(
        part.iter()
            .enumerate()
            .all(|(i, number)| *number == 5_000 + i as u64)
    );
    assert!(are_all_there(&other.get(key).unwrap().unwrap()));
}

#[test]
fn after_the_store_is_killed() {
    within(Duration::from_secs(30), || {
        let mut store = StoreProcess::start(1 << 24, &[]);
        let client = TypedClient::connect(store.socket()).unwrap();
        let held = numbers(&client, 500_000);
        let clone = held.clone();
        let mut writing = client.create::<Tick>(ObjectId::rand()).unwrap();
        store.signal(nix::sys::signal::Signal::SIGKILL);
        store.wait();

        assert!(are_all_there(&held));
        let part = clone.map(|numbers| &numbers[1..]);
        drop((held, clone));
        assert_eq!(part[499_998], 499_999);

        // What was being written is still there too, and comes back out of the error.
        *writing = TICK;
        let error = writing.seal().unwrap_err();
        assert!(matches!(error.error(), PlasmaError::Disconnected));
        assert_eq!(*error.into_handle(), TICK);
        let gone = client.get::<Tick>(ObjectId::rand());
        assert!(matches!(
            gone,
            Err(GetError::Store(PlasmaError::Disconnected))
        ));
    });
}
