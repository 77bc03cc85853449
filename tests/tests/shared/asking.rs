//! What is asked through memory, and who else is heard meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use nix::sys::signal::Signal;
use nix::unistd;
use plasma_core::shm::memory::Memory;
use plasma_core::shm::ring::{Op, RingRequest, Submitter};
use tests::{StoreProcess, within};

use super::{LIMIT, MIB, id, offered, put};

/// Writes requests as fast as there is room for them, and counts the answers.
fn ask_without_end(store: &StoreProcess, answers_read: &AtomicUsize, enough: &AtomicBool) {
    let (_client, offer, [_, page, answers, bell, _]) = offered(store);
    let shape = offer.shape;
    let open = |descriptor, len, writable| {
        let memory = Memory::open(descriptor, len, writable);
        Arc::new(memory.expect("it is what the store says it is"))
    };
    let page = open(page, shape.page_len(), true);
    let answers = open(answers, shape.answers_len(), false);
    let mut ring = Submitter::open(&page, &answers, &shape).expect("there is a ring");
    while !enough.load(Ordering::Relaxed) {
        let request = RingRequest::about(Op::Delete, id(1_000_000));
        while ring.push(request, [&[], &[]]).is_some() {}
        if ring.tell() {
            unistd::write(&bell, &1_u64.to_ne_bytes()).expect("the store is there");
        }
        while let Ok(Some(_)) = ring.next_answer() {
            answers_read.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Other clients, and who ends the store, are heard while the requests of one never run out.
#[test]
fn who_asks_without_end_keeps_nobody_waiting() {
    within(LIMIT, || {
        let mut store = StoreProcess::start(16 * MIB, &[]);
        let (by_socket, in_memory) = (store.socket_client(), store.client());
        let (answered, enough) = (AtomicUsize::new(0), AtomicBool::new(false));
        thread::scope(|scope| {
            scope.spawn(|| ask_without_end(&store, &answered, &enough));
            while answered.load(Ordering::Relaxed) < 100_000 {
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
