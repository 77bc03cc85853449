//! What is asked through memory, and who else is heard meanwhile.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::Signal;
use nix::unistd;
use plasma_core::protocol::message::{NewObject, Reply, Request};
use plasma_core::shm::Offer;
use plasma_core::shm::bell::Bell;
use plasma_core::shm::memory::Memory;
use plasma_core::shm::ring::{Op, RingRequest, Submitter};
use plasma_core::{ObjectId, PlasmaClient};
use tests::{StoreProcess, within};

use super::{LIMIT, MIB, content, id, offered, put};

/// A ring as a client has it.
fn open_ring(offer: &Offer, page: OwnedFd, answers: OwnedFd) -> Submitter {
    let shape = offer.shape;
    let open = |descriptor, len, writable| {
        let memory = Memory::open(descriptor, len, writable);
        Arc::new(memory.expect("it is what the store says it is"))
    };
    let page = open(page, shape.page_len(), true);
    let answers = open(answers, shape.answers_len(), false);
    Submitter::open(&page, &answers, &shape).expect("there is a ring")
}

fn tell(ring: &mut Submitter, bell: &Bell) {
    if ring.tell() {
        bell.ring();
    }
}

/// Asks for an object to be deleted, as fast as there is room for requests, and counts the answers.
fn ask_without_end(
    store: &StoreProcess,
    id: ObjectId,
    answers_read: &AtomicUsize,
    enough: &AtomicBool,
) {
    let (_client, offer, [_, page, answers, bell, _]) = offered(store);
    let bell = Bell::from_peer(bell).expect("a bell");
    let mut ring = open_ring(&offer, page, answers);
    while !enough.load(Ordering::Relaxed) {
        let request = RingRequest::about(Op::Delete, id);
        while ring.push(request, [&[], &[]]).is_some() {}
        tell(&mut ring, &bell);
        while let Ok(Some(_)) = ring.next_answer() {
            answers_read.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Other clients, and who ends the store, are heard while the requests in the rings never run out.
#[test]
fn who_asks_without_end_keeps_nobody_waiting() {
    within(LIMIT, || {
        let mut store = StoreProcess::start(16 * MIB, &[]);
        let (by_socket, in_memory) = (store.socket_client(), store.client());
        // The store looks through all of them each time that it is to delete one: that takes it longer
        // than it takes to ask.
        let held: Vec<_> = (1_000_000..1_004_000)
            .map(|number| {
                put(&in_memory, id(number), 100);
                let object = in_memory.get(id(number), 0).expect("the store answers");
                object.expect("it was made")
            })
            .collect();
        let (last, _) = held.split_last().expect("there are some");
        let (answered, enough) = (AtomicUsize::new(0), AtomicBool::new(false));
        thread::scope(|scope| {
            // More than one, so that there is always something to do.
            for _ in 0..4 {
                scope.spawn(|| ask_without_end(&store, *last.id(), &answered, &enough));
            }
            while answered.load(Ordering::Relaxed) < 1000 {
                thread::yield_now();
            }
            for number in 0..100 {
                assert!(!by_socket.contains(&id(number)).expect("the store answers"));
                put(&in_memory, id(number), 100);
            }
            store.signal(Signal::SIGTERM);
            while by_socket.contains(&id(0)).is_ok() {}
            enough.store(true, Ordering::Relaxed);
        });
        let status = store.wait();
        assert!(status.success(), "{status}");
    });
}

fn lists(client: &PlasmaClient, id: &ObjectId) -> bool {
    let infos = client.list().expect("the store answers");
    infos.iter().any(|info| info.id == *id)
}

/// One client's requests wait for memory one at a time, whichever way they come: while memory is being
/// found for a batch that came through the socket, what is asked in the ring is not handled.
#[test]
fn what_is_asked_in_memory_waits_for_what_the_socket_has_asked() {
    within(LIMIT, || {
        let store = StoreProcess::start(512 * MIB, &[]);
        let witness = store.client();
        for round in 0..3 {
            let (mut client, offer, [_, page, answers, bell, _]) = offered(&store);
            let bell = Bell::from_peer(bell).expect("a bell");
            let mut ring = open_ring(&offer, page, answers);
            let (large, small) = (id(2 * round), id(2 * round + 1));
            let data = content(&large, 32 << 20);
            let objects = [NewObject {
                id: large,
                data: &data,
                metadata: &[],
                digest: [0; 8],
            }];
            client.send(&Request::CreateAndSealBatch {
                objects: objects[..].into(),
                evict_if_full: true,
            });
            // It has all of the batch once it tells of the object.
            while !lists(&witness, &large) {
                thread::yield_now();
            }
            // More than the store asks the kernel for while it is looking at a request.
            let request = RingRequest {
                data_size: 2 * MIB,
                ..RingRequest::about(Op::Create, small)
            };
            ring.push(request, [&[], &[]]).expect("there is room");
            tell(&mut ring, &bell);
            while !ring.is_answered() {
                thread::yield_now();
            }
            assert!(witness.contains(&large).expect("the store answers"));
            assert!(matches!(client.reply(), Reply::CreateAndSealBatch(Ok(()))));
        }
    });
}

/// The store does not wait for a client to hear that it was woken, whatever the client does to its end;
/// and gets nothing through there that it would have to throw away.
#[test]
fn who_never_hears_its_wakeup_keeps_nobody_waiting() {
    within(LIMIT, || {
        let store = StoreProcess::start(16 * MIB, &[]);
        let witness = store.client();
        let (_client, offer, [_, page, answers, bell, wakeup]) = offered(&store);
        let mut ring = open_ring(&offer, page, answers);
        let bell = Bell::from_peer(bell).expect("a bell");
        fcntl(&wakeup, FcntlArg::F_SETFL(OFlag::empty())).expect("it is this client's");
        // For an event, more than which nobody can write without waiting.
        let full = (u64::MAX - 1).to_ne_bytes();
        assert_eq!(unistd::write(&wakeup, &full), Err(Errno::EPIPE));
        // More than the kernel keeps for who does not hear.
        for number in 0..5000 {
            let request = RingRequest::about(Op::Delete, id(1_000_000));
            ring.push(request, [&[], &[]]).expect("there is room");
            tell(&mut ring, &bell);
            while ring.may_sleep() {
                thread::yield_now();
            }
            let answer = ring.next_answer().expect("it is an answer");
            assert!(answer.is_some());
            if number % 100 == 0 {
                put(&witness, id(number), 100);
            }
        }
    });
}

/// A batch can name an object twice, where it was sealed by itself and deleted meanwhile. It is one
/// object all the same, which nobody finds any more when it is deleted.
#[test]
fn an_object_that_is_twice_in_a_batch_is_sealed_once() {
    within(LIMIT, || {
        let mut store = StoreProcess::start(16 * MIB, &[]);
        let witness = store.client();
        let (_client, offer, [_, page, answers, bell, _]) = offered(&store);
        let bell = Bell::from_peer(bell).expect("a bell");
        let mut ring = open_ring(&offer, page, answers);
        let (twice, other) = (id(1), id(2));
        let data = content(&twice, 1000);
        for op in [Op::Batch, Op::Seal, Op::Delete, Op::BatchEnd] {
            let in_batch = matches!(op, Op::Batch | Op::BatchEnd);
            let data = if in_batch { &data[..] } else { &[] };
            let request = RingRequest {
                data_size: data.len() as u64,
                ..RingRequest::about(op, twice)
            };
            ring.push(request, [data, &[]]).expect("there is room");
            tell(&mut ring, &bell);
            let outcome = loop {
                match ring.next_answer() {
                    Ok(Some((outcome, _))) => break outcome,
                    Ok(None) => thread::yield_now(),
                    Err(error) => panic!("the store does not answer: {error:?}"),
                }
                assert!(store.is_alive());
            };
            assert_eq!(outcome, Ok(()), "{op:?}");
        }
        assert!(witness.contains(&twice).expect("the store answers"));
        witness.delete(&twice).expect("the store answers");
        put(&witness, other, 1000);
        for client in [&witness, &store.client()] {
            let gone = client.get(twice, 0).expect("the store answers");
            assert!(gone.is_none(), "{gone:?}");
        }
    });
}
