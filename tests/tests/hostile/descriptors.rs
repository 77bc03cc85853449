//! Descriptors where none belong, none where one belongs, and the wrong ones.

use std::fs::{File, Permissions};
use std::io::{self, Read};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

use nix::poll::PollFlags;
use nix::sys::eventfd::EventFd;
use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use plasma_core::ObjectId;
use plasma_core::protocol::frame::HEADER_LEN;
use plasma_core::protocol::message::{Reply, Request};
use plasma_core::shm::{self, Offer};
use plasma_core::transport::wait_ready;
use tests::raw::{RawClient, message, send_with_descriptors};
use tests::{StoreProcess, eventually, patience, server_program, within};

use super::{
    CAPACITY, ID, LIMIT, Witness, all_requests, connect, create, cut_off_for, header,
    let_the_store_catch_up, under_attack,
};

/// The most descriptors the kernel lets one message carry.
const MAX_DESCRIPTORS_A_MESSAGE: usize = 253;

fn repeated(descriptor: &impl AsFd, count: usize) -> Vec<BorrowedFd<'_>> {
    vec![descriptor.as_fd(); count]
}

#[test]
fn descriptors_that_nothing_asked_for_are_not_kept() {
    under_attack(&[], |store| {
        let null = File::open("/dev/null").expect("it can be opened");
        let before = store.descriptors();
        let list = message(&Request::List);
        let split = [
            &list[..],
            &list[..HEADER_LEN],
            &list[..1],
            &list[..list.len() - 1],
        ];
        for count in [1, 2, MAX_DESCRIPTORS_A_MESSAGE] {
            let many = repeated(&null, count);
            for part in split {
                let client = connect(store);
                client
                    .send_descriptors(part, &many)
                    .expect("the store reads");
                client.wait_until_cut_off();
            }
        }
        // More than the one that a subscription brings.
        let (_ours, theirs) = UnixStream::pair().expect("a pair of sockets");
        let client = connect(store);
        client.send(&Request::Subscribe);
        let many = [theirs.as_fd(), null.as_fd(), null.as_fd()];
        client
            .send_descriptors(&[0], &many)
            .expect("the store reads");
        client.wait_until_cut_off();
        eventually("nothing is left", || store.descriptors() == before);
    });
}

#[test]
fn no_request_brings_a_descriptor_with_it() {
    under_attack(&[], |store| {
        let null = File::open("/dev/null").expect("it can be opened");
        for request in all_requests() {
            let whole = message(&request);
            for at in [0, HEADER_LEN - 1, HEADER_LEN, whole.len() - 1] {
                let client = connect(store);
                client.send_bytes(&whole[..at]).expect("the store reads");
                // The store may have cut it off at once.
                let _ = client.send_descriptors(&whole[at..=at], &[null.as_fd()]);
                let _ = client.send_bytes(&whole[at + 1..]);
                let _ = client.socket().shutdown(Shutdown::Write);
                client.wait_until_cut_off();
            }
        }
    });
}

#[test]
fn a_subscription_without_its_descriptor_is_none() {
    under_attack(&[], |store| {
        let subscribe = message(&Request::Subscribe);
        // A byte that brings nothing, another request in its place, and the same once more.
        for instead in [vec![0], message(&Request::List), subscribe.clone()] {
            cut_off_for(store, &[subscribe.clone(), instead].concat());
        }
        // Or nothing comes at all, for as long as the client likes.
        let silent: Vec<_> = (0..100)
            .map(|_| {
                let client = connect(store);
                client.send(&Request::Subscribe);
                client
            })
            .collect();
        let_the_store_catch_up(store);
        Witness::round(&store.client(), 0);
        drop(silent);
        // Again and again on one connection: there is one subscription at a time.
        eventually("there is nobody but the witness", || store.sockets() == 2);
        let before = store.descriptors();
        let client = connect(store);
        let streams: Vec<_> = (0..50)
            .map(|_| {
                let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
                client.subscribe(theirs.as_fd());
                ours
            })
            .collect();
        let_the_store_catch_up(store);
        Witness::round(&store.client(), 0);
        eventually("one of them is kept", || store.descriptors() <= before + 2);
        drop(streams);
    });
}

/// A client subscribes anew and closes the stream that it had: the store learns of both at once.
#[test]
fn the_end_of_a_stream_is_not_taken_for_that_of_the_next() {
    under_attack(&[], |store| {
        let client = connect(store);
        let (first, stores_end) = UnixStream::pair().expect("a pair of sockets");
        client.subscribe(stores_end.as_fd());
        let_the_store_catch_up(store);
        store.signal(Signal::SIGSTOP);
        let (mut second, stores_end) = UnixStream::pair().expect("a pair of sockets");
        client.subscribe(stores_end.as_fd());
        drop((first, stores_end));
        store.signal(Signal::SIGCONT);
        let_the_store_catch_up(store);
        let id = ObjectId::rand();
        let put = store.client().create_and_seal(id, b"", b"");
        put.expect("there is room");
        let timeout = Some(patience());
        second.set_read_timeout(timeout).expect("it takes one");
        let mut heard = Vec::new();
        while !heard
            .windows(ObjectId::LEN)
            .any(|part| part == id.as_bytes())
        {
            let mut part = [0; 4096];
            let len = second.read(&mut part).expect("it is told of the object");
            assert_ne!(len, 0, "the store has closed the stream");
            heard.extend_from_slice(&part[..len]);
        }
    });
}

/// A message that comes byte by byte, each with as many descriptors as can be sent.
#[test]
fn descriptors_cannot_be_piled_up_behind_half_a_message() {
    under_attack(&[], |store| {
        let before = store.descriptors();
        let null = File::open("/dev/null").expect("it can be opened");
        let many = repeated(&null, MAX_DESCRIPTORS_A_MESSAGE);
        let client = connect(store);
        client
            .send_bytes(&header(0, 3, 1000))
            .expect("the store reads");
        let mut most = 0;
        for _ in 0..20 {
            if client.send_descriptors(&[0], &many).is_err() {
                break;
            }
            let_the_store_catch_up(store);
            most = most.max(store.descriptors());
        }
        println!("at most {most} descriptors, {before} before");
        assert!(most <= before + MAX_DESCRIPTORS_A_MESSAGE + 10, "{most}");
        client.wait_until_cut_off();
    });
}

/// A store with a limit of its own on descriptors.
fn limited_store(limit: &str) -> (tempfile::TempDir, StoreProcess) {
    limited_store_with(limit, &[])
}

fn limited_store_with(limit: &str, args: &[&str]) -> (tempfile::TempDir, StoreProcess) {
    let folder = tempfile::tempdir().expect("a folder");
    let script = folder.path().join("limited-store");
    let server = server_program().display();
    let text = format!("#!/bin/sh\nulimit {limit}\nexec {server} \"$@\"\n");
    std::fs::write(&script, text).expect("a script");
    std::fs::set_permissions(&script, Permissions::from_mode(0o700)).expect("it is ours");
    let store = StoreProcess::start_program(&script, CAPACITY, args);
    (folder, store)
}

/// Where only some of a message's descriptors find a place, those are not lost track of.
#[test]
fn descriptors_that_do_not_all_find_a_place_are_not_leaked() {
    within(LIMIT, || {
        let (_folder, store) = limited_store("-n 40");
        let witness = Witness::start(&store);
        let before = store.descriptors();
        let null = File::open("/dev/null").expect("it can be opened");
        let many = repeated(&null, 100);
        for _ in 0..5 {
            let attackers: Vec<_> = (before..37).map(|_| connect(&store)).collect();
            eventually("they are accepted", || store.descriptors() == 37);
            let attacker = attackers.into_iter().next_back().expect("there are some");
            attacker
                .send_descriptors(&[0], &many)
                .expect("the store reads");
            attacker.wait_until_cut_off();
            eventually("all are gone", || store.descriptors() == before);
        }
        witness.end();
    });
}

/// A soft limit is only what a process gets unless it asks: 1024 on most machines, and this store
/// promises to serve 4096 clients.
#[test]
fn a_soft_limit_on_descriptors_does_not_limit_the_clients() {
    within(LIMIT, || {
        let (_folder, store) = limited_store("-S -n 32");
        let clients: Vec<_> = (0..64).map(|_| store.client()).collect();
        for client in &clients {
            client.list().expect("the store answers");
        }
    });
}

/// A client that shares memory takes three descriptors: its connection, what wakes the store, and what
/// wakes the client.
#[test]
fn as_many_clients_as_may_connect_find_descriptors_for_the_memory_they_share() {
    within(LIMIT, || {
        const CLIENTS: usize = 600;
        let (_folder, store) = limited_store_with("-S -n 32", &["--max-clients", "600"]);
        let mut clients = Vec::new();
        for number in 0..CLIENTS {
            let mut client = connect(&store);
            let reply = client.call(&Request::Connect {
                capabilities: shm::CAPABILITY,
            });
            let Reply::Connect { offer, .. } = reply else {
                panic!("{reply:?}");
            };
            assert!(offer.is_some(), "client {number} is offered no memory");
            // Behind that of the arena.
            for _ in 0..=Offer::DESCRIPTORS {
                client.descriptor();
            }
            clients.push(client);
        }
        println!("{CLIENTS} clients: {} descriptors", store.descriptors());
    });
}

/// The store has what the client's end of the connection is, so that does not close with the client.
#[test]
fn a_client_that_leaves_its_own_connection_with_the_store_is_missed_all_the_same() {
    let direct = |client: &RawClient, other: &RawClient| {
        other.subscribe(client.socket().as_fd());
    };
    // On its way through the stream that notifications are to go.
    let inside = |client: &RawClient, _: &RawClient| {
        let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
        let both = [client.socket().as_fd(), ours.as_fd()];
        send_with_descriptors(&ours, &[0], &both).expect("there is room");
        client.subscribe(theirs.as_fd());
    };
    // The same, once the store has the stream.
    let later = |client: &RawClient, _: &RawClient| {
        let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
        client.subscribe(theirs.as_fd());
        wait_ready(ours.as_fd(), PollFlags::POLLIN, Some(patience())).expect("a socket");
        let both = [client.socket().as_fd(), ours.as_fd()];
        let sent = send_with_descriptors(&ours, &[0], &both);
        assert!(sent.is_err());
    };
    // In a connection that is never accepted.
    let waiting = |client: &RawClient, _: &RawClient| {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("socket");
        let listener = UnixListener::bind(&path).expect("a listener");
        let caller = UnixStream::connect(&path).expect("it listens");
        send_with_descriptors(&caller, &[0], &[client.socket().as_fd()]).expect("there is room");
        client.subscribe(listener.as_fd());
    };
    // On its way to the store, which has stopped listening.
    let cut_off = |client: &RawClient, _: &RawClient| {
        client.send_bytes(&[0xff; 24]).expect("the store reads");
        wait_ready(client.socket().as_fd(), PollFlags::POLLIN, Some(patience())).expect("a socket");
        for _ in 0..3 {
            let own = [client.socket().as_fd()];
            client.send_descriptors(&[0], &own).expect("there is room");
        }
    };
    type Way = fn(&RawClient, &RawClient);
    for way in [direct as Way, inside, later, waiting, cut_off] {
        under_attack(&[], move |store| {
            let mut pair = [connect(store), connect(store)];
            for (number, client) in pair.iter_mut().enumerate() {
                let id = ObjectId::new([number as u8; ObjectId::LEN]);
                client.call(&create(id, 1000));
            }
            let [a, b] = &pair;
            way(a, b);
            way(b, a);
            let_the_store_catch_up(store);
        });
    }
}

#[test]
fn anything_may_be_given_for_a_subscription() {
    under_attack(&[], |store| {
        let folder = tempfile::tempdir().expect("a folder");
        let (pipe_reader, pipe_writer) = io::pipe().expect("a pipe");
        let (datagram, _other) = UnixDatagram::pair().expect("a pair of sockets");
        let (orphan, parent) = UnixStream::pair().expect("a pair of sockets");
        drop(parent);
        let (shut, _other) = UnixStream::pair().expect("a pair of sockets");
        shut.shutdown(Shutdown::Both).expect("it is connected");
        let file = File::create(folder.path().join("file")).expect("a file");
        let null = File::open("/dev/null").expect("it can be opened");
        let listener = UnixListener::bind(folder.path().join("socket")).expect("a listener");
        let directory = File::open(folder.path()).expect("it can be opened");
        let epoll = nix::sys::epoll::Epoll::new(nix::sys::epoll::EpollCreateFlags::empty());
        let epoll = epoll.expect("an epoll");
        let own = connect(store);
        let (sequenced, _other) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::empty(),
        )
        .expect("a pair of sockets");
        let tcp = TcpListener::bind(("127.0.0.1", 0)).expect("a listener");
        let address = tcp.local_addr().expect("it has an address");
        let over_tcp = TcpStream::connect(address).expect("it listens");
        let event = EventFd::new().expect("an event");
        // The store's own memory, as it hands it out: nothing may be written there.
        let mut reader = connect(store);
        let created = reader.call(&create(ID, 1000));
        assert!(matches!(created, Reply::Create { result: Ok(_), .. }));
        let arena = reader.descriptor();
        let given = [
            sequenced.as_fd(),
            tcp.as_fd(),
            over_tcp.as_fd(),
            event.as_fd(),
            arena.as_fd(),
            pipe_reader.as_fd(),
            pipe_writer.as_fd(),
            datagram.as_fd(),
            orphan.as_fd(),
            shut.as_fd(),
            file.as_fd(),
            null.as_fd(),
            listener.as_fd(),
            directory.as_fd(),
            epoll.0.as_fd(),
            own.socket().as_fd(),
        ];
        let client = store.client();
        let attackers = given.map(|given| {
            let mut attacker = connect(store);
            attacker.subscribe(given);
            // What is sealed from now on is to be told to all of them.
            let id = ObjectId::rand();
            client
                .create_and_seal(id, b"news", b"")
                .expect("there is room");
            client.delete(&id).expect("the store answers");
            attacker.call(&Request::Connect { capabilities: 0 });
            attacker
        });
        // The witness is served, and the store has not gone busy.
        Witness::round(&client, 1);
        drop(attackers);
    });
}
