//! What our clients and our store share in memory: what it saves, and that it is safe.

mod asking;
mod crashes;
mod external;
mod forks;
mod noise;
mod order;
mod reading;

use std::os::fd::OwnedFd;
use std::time::Duration;

use plasma_core::protocol::message::{Reply, Request};
use plasma_core::shm::{CAPABILITY, Offer};
use plasma_core::{ObjectId, PlasmaClient};
use tests::raw::RawClient;
use tests::{StoreProcess, debug_number, eventually};

const LIMIT: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;

/// The object of this number.
fn id(number: u64) -> ObjectId {
    ObjectId::from_name(&format!("object {number}"))
}

/// What is in an object: a function of its id, and of how long it is.
fn content(id: &ObjectId, len: usize) -> Vec<u8> {
    id.as_bytes().iter().copied().cycle().take(len).collect()
}

/// Whether an object is what it was made as.
fn is_whole(id: &ObjectId, data: &[u8]) -> bool {
    data == content(id, data.len())
}

/// Makes an object that nobody holds.
fn put(client: &PlasmaClient, id: ObjectId, len: usize) {
    client
        .create_and_seal(id, &content(&id, len), b"")
        .expect("there is room");
}

/// A client that has been offered the shared control plane, and what it was given for it.
fn offered(store: &StoreProcess) -> (RawClient, Offer, [OwnedFd; Offer::DESCRIPTORS]) {
    let mut client = RawClient::connect(store.socket());
    let capabilities = CAPABILITY;
    let reply = client.call(&Request::Connect { capabilities });
    let Reply::Connect {
        offer: Some((offer, segments)),
        ..
    } = reply
    else {
        panic!("nothing is offered: {reply:?}");
    };
    for _ in segments {
        client.descriptor();
    }
    let descriptors = [(); Offer::DESCRIPTORS].map(|()| client.descriptor());
    (client, offer, descriptors)
}

/// Waits until nobody but `client` is connected to the store and nothing is held, then counts: what
/// is allocated is what is there, and all of that is whole.
fn all_is_accounted_for(store: &StoreProcess, client: &PlasmaClient) {
    eventually("nothing is held", || {
        let infos = client.list().expect("the store answers");
        let free = |info: &plasma_core::ObjectInfo| info.ref_count == 0 && info.digest.is_some();
        infos.iter().all(free)
    });
    assert_eq!(debug_number(client, "pinned bytes"), 0);
    let infos = client.list().expect("the store answers");
    let live: u64 = infos
        .iter()
        .map(|info| info.data_size + info.metadata_size)
        .sum();
    assert_eq!(debug_number(client, "allocated bytes"), live);
    for info in &infos {
        let object = client.get(info.id, 0).expect("the store answers");
        let object = object.expect("it is listed");
        assert!(
            is_whole(&info.id, object.data()),
            "{} is not whole",
            info.id
        );
    }
    assert!(store.arena_bytes() > 0);
}
