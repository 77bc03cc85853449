//! Requests that would have the store keep more than it should.

use std::fs::File;
use std::io::{IoSlice, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg, setsockopt, sockopt};
use plasma_core::protocol::frame::HEADER_LEN;
use plasma_core::protocol::message::{MAX_IDS, Reply, Request};
use plasma_core::{ObjectId, PlasmaError};
use tests::StoreProcess;
use tests::raw::{RawClient, message};

use super::{
    ID, KEPT_AFTER, MIB, connect, cut_off_for, header, let_the_store_catch_up, new_object,
    under_attack,
};

#[test]
fn memory_is_taken_for_what_comes_and_not_for_what_is_announced() {
    under_attack(&[], |store| {
        let_the_store_catch_up(store);
        let before = store.private_bytes();
        const CREATE_AND_SEAL: i64 = 3;
        let announcers: Vec<_> = (0..50)
            .map(|_| {
                let client = connect(store);
                let announcement = header(0, CREATE_AND_SEAL, 60 << 20);
                client.send_bytes(&announcement).expect("the store reads");
                client.send_bytes(&[0; 100]).expect("the store reads");
                client
            })
            .collect();
        let_the_store_catch_up(store);
        let grown = store.private_bytes().saturating_sub(before);
        println!("50 × 60 MiB announced: the store took {} KiB", grown >> 10);
        assert!(grown < 16 * MIB, "{grown} bytes");
        drop(announcers);
    });
}

/// A body need not start where its flatbuffer can be read in place; the copy is not kept.
#[test]
fn a_large_message_leaves_no_memory_behind() {
    under_attack(&[], |store| {
        let_the_store_catch_up(store);
        let before = store.private_bytes();
        let content = vec![1; 12 << 20];
        let attackers: Vec<_> = (0..6)
            .map(|_| {
                let mut client = connect(store);
                // A list request that is one byte longer than it needs: what follows is askew.
                let mut list = message(&Request::List);
                let len = (list.len() - HEADER_LEN + 1) as i64;
                list[16..HEADER_LEN].copy_from_slice(&len.to_le_bytes());
                list.push(0);
                let large = message(&Request::CreateAndSeal {
                    object: new_object(ID, &content),
                    evict_if_full: true,
                });
                client
                    .send_bytes(&[list, large].concat())
                    .expect("the store reads");
                assert!(matches!(client.reply(), Reply::List(_)));
                assert!(matches!(client.reply(), Reply::CreateAndSeal(_)));
                client.call(&Request::Delete(vec![ID].into()));
                client
            })
            .collect();
        let grown = store.private_bytes().saturating_sub(before);
        println!(
            "after 6 × 12 MiB of inline content: {} KiB more",
            grown >> 10
        );
        assert!(grown < 48 * MIB, "{grown} bytes");
        drop(attackers);
    });
}

#[test]
fn requests_that_name_too_much_are_refused() {
    under_attack(&[], |store| {
        let ids = vec![ObjectId::rand(); MAX_IDS + 1];
        for request in [
            Request::Get {
                ids: ids.as_slice().into(),
                timeout_ms: 0,
            },
            Request::Delete(ids.as_slice().into()),
            Request::RefreshLru(ids.as_slice().into()),
        ] {
            cut_off_for(store, &message(&request));
        }
        // The same few bytes named again and again: an offset each, and nothing behind it.
        let count = 400_000;
        let get = [ObjectId::rand()];
        let one = message(&Request::Get {
            ids: get.as_slice().into(),
            timeout_ms: 0,
        });
        let shared = shared_string_get(&one, count);
        cut_off_for(store, &shared);
        assert!(store.private_bytes() < 64 * MIB);
        let client = store.client();
        let found = client.get_many(&ids[..100_000], 0).unwrap();
        assert!(found.iter().all(Option::is_none));
        let error = client.get_many(&ids, 0).unwrap_err();
        assert!(matches!(error, PlasmaError::TooManyObjects { .. }));
    });
}

/// A get of one id, changed so that its list has `count` places for the same string.
fn shared_string_get(one: &[u8], count: usize) -> Vec<u8> {
    let body = &one[HEADER_LEN..];
    let word =
        |at: usize| u32::from_le_bytes(body[at..at + 4].try_into().expect("a number")) as usize;
    // Root table, its vtable's first field (the list), the list, and the string it names.
    let table = word(0);
    let vtable = (table as i64 - i64::from(word(table) as u32 as i32)) as usize;
    let field =
        u16::from_le_bytes(body[vtable + 4..vtable + 6].try_into().expect("a number")) as usize;
    let list = table + field + word(table + field);
    let string = list + 4 + word(list + 4);
    let mut longer = body.to_vec();
    while !longer.len().is_multiple_of(4) {
        longer.push(0);
    }
    let copy = longer.len();
    longer.extend_from_slice(&body[string..string + 4 + ObjectId::LEN]);
    let list = longer.len();
    longer.extend_from_slice(&(count as u32).to_le_bytes());
    // Places count forwards only, so the string comes once more, behind the list.
    for at in 0..count {
        let place = list + 4 + 4 * at;
        let target = list + 4 + 4 * count;
        longer.extend_from_slice(&((target - place) as u32).to_le_bytes());
    }
    let string = longer[copy..copy + 4 + ObjectId::LEN].to_vec();
    longer.extend_from_slice(&string);
    longer.extend_from_slice(&[0; 4]);
    // Room that nothing names, so that what is named is not much for a message of this length.
    longer.resize(longer.len() * 2, 0);
    let offset = (list - (table + field)) as u32;
    longer[table + field..table + field + 4].copy_from_slice(&offset.to_le_bytes());
    let mut message = one[..16].to_vec();
    message.extend_from_slice(&(longer.len() as i64).to_le_bytes());
    message.extend_from_slice(&longer);
    message
}

#[test]
fn unfinished_requests_of_many_clients_are_bounded_together() {
    under_attack(&[], |store| {
        let part = vec![0; 60 << 20];
        let attackers: Vec<_> = (0..10)
            .map(|_| {
                let client = connect(store);
                // The store may have cut it off before it had said all.
                let _ = client.send_bytes(&header(0, 3, 100 << 20));
                let _ = client.send_bytes(&part);
                client
            })
            .collect();
        let_the_store_catch_up(store);
        let private = store.private_bytes();
        assert!(private < 500 * MIB, "{private} bytes for 600 MiB");
        drop(attackers);
    });
}

/// A connection that takes longer to close than any test, as there is more to send than anyone takes;
/// and its peer.
fn reluctant() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let address = listener.local_addr().expect("it has one");
    let stream = TcpStream::connect(address).expect("somebody listens");
    let (peer, _) = listener.accept().expect("somebody connects");
    let linger = nix::libc::linger {
        l_onoff: 1,
        l_linger: 3600,
    };
    setsockopt(&stream, sockopt::Linger, &linger).expect("it is a socket");
    stream.set_nonblocking(true).expect("it is a socket");
    while (&stream).write(&[0; 65536]).is_ok() {}
    (stream, peer)
}

/// Asks as a client does that was there before.
fn assert_answers(witness: &mut RawClient) {
    let start = Instant::now();
    for _ in 0..3 {
        witness.call(&Request::List);
    }
    assert!(start.elapsed() < Duration::from_secs(3), "the store waited");
}

#[test]
fn closing_what_a_client_sent_keeps_nobody_waiting() {
    under_attack(&[], |store| {
        let (stream, _peer) = reluctant();
        let mut witness = connect(store);
        let client = connect(store);
        client.subscribe(stream.as_fd());
        drop(stream);
        drop(client);
        let_the_store_catch_up(store);
        assert_answers(&mut witness);
    });
}

/// What was sent after a connection that is slow to close is closed all the same.
#[test]
fn what_is_slow_to_close_keeps_nothing_else_open() {
    under_attack(&[], |store| {
        let (stream, peer) = reluctant();
        let client = connect(store);
        client.subscribe(stream.as_fd());
        drop((stream, client));
        // It takes what it is sent as long as nobody resets it.
        std::mem::forget(peer);
        let any = File::open("/dev/null").expect("it is there");
        let client = connect(store);
        client
            .send_descriptors(&[0], &[any.as_fd(); 100])
            .expect("the store reads");
        client.wait_until_cut_off();
    });
}

/// Sends descriptors with a byte each, the last of which is slow to close, and hangs up; all that before
/// the store goes on.
fn leave_behind(store: &StoreProcess, client: RawClient, flags: MsgFlags) {
    let (stream, peer) = reluctant();
    // What stands before them is read up to the first of them.
    let any = File::open("/dev/null").expect("it is there");
    for descriptor in [any.as_raw_fd(), stream.as_raw_fd()] {
        let descriptors = [descriptor];
        let rights = [ControlMessage::ScmRights(&descriptors)];
        let bytes = [IoSlice::new(&[0])];
        let socket = client.socket().as_raw_fd();
        sendmsg::<()>(socket, &bytes, &rights, flags, None).expect("there is room");
    }
    drop((stream, client));
    store.signal(Signal::SIGCONT);
    // It takes what it is sent as long as nobody resets it.
    std::mem::forget(peer);
}

/// The same, where the store has closed the connection before it read all.
#[test]
fn closing_what_a_client_sent_in_vain_keeps_nobody_waiting() {
    under_attack(&[], |store| {
        let mut witness = connect(store);
        let client = connect(store);
        let_the_store_catch_up(store);
        store.signal(Signal::SIGSTOP);
        client.send_bytes(&[0xff; 64]).expect("there is room");
        leave_behind(store, client, MsgFlags::empty());
        assert_answers(&mut witness);
    });
}

/// The same, of one that was cut off and has not hung up yet, as it holds something.
#[test]
fn closing_what_was_sent_after_the_end_keeps_nobody_waiting() {
    under_attack(&[], |store| {
        let mut witness = connect(store);
        let mut client = connect(store);
        let create = Request::Create {
            id: ID,
            evict_if_full: true,
            data_size: 10,
            metadata_size: 0,
            device_num: 0,
        };
        assert!(matches!(client.call(&create), Reply::Create { .. }));
        client.descriptor();
        client.send_bytes(&[0xff; 64]).expect("there is room");
        assert_eq!(client.socket().read(&mut [0]).expect("it is told"), 0);
        store.signal(Signal::SIGSTOP);
        leave_behind(store, client, MsgFlags::empty());
        assert_answers(&mut witness);
    });
}

/// The same, where it was sent out of band.
#[test]
fn closing_what_was_sent_out_of_band_keeps_nobody_waiting() {
    under_attack(&[], |store| {
        let mut witness = connect(store);
        let client = connect(store);
        let_the_store_catch_up(store);
        store.signal(Signal::SIGSTOP);
        leave_behind(store, client, MsgFlags::MSG_OOB);
        assert_answers(&mut witness);
    });
}

/// The same, of one that is refused.
#[test]
fn closing_what_was_sent_before_a_refusal_keeps_nobody_waiting() {
    under_attack(&["--max-clients", "2"], |store| {
        // Beside the one that goes on all the time.
        let mut witness = connect(store);
        witness.call(&Request::List);
        store.signal(Signal::SIGSTOP);
        leave_behind(store, connect(store), MsgFlags::empty());
        assert_answers(&mut witness);
    });
}

#[test]
fn a_name_of_any_length_costs_little() {
    under_attack(&[], |store| {
        let_the_store_catch_up(store);
        let before = store.private_bytes();
        let name = "ü".repeat(5 << 20);
        let attackers: Vec<_> = (0..6)
            .map(|_| {
                let mut client = connect(store);
                let set = client.call(&Request::SetOptions {
                    client_name: (&name).into(),
                    quota_bytes: 1000,
                });
                assert_eq!(set, Reply::SetOptions(Ok(())));
                client
            })
            .collect();
        let grown = store.private_bytes().saturating_sub(before);
        println!("6 names of 10 MiB: {} KiB more", grown >> 10);
        assert!(grown < KEPT_AFTER, "{grown} bytes");
        let text = store.client().debug_string().expect("the store answers");
        assert!(text.len() < 100_000, "{} bytes", text.len());
        drop(attackers);
    });
}

/// Each get that waits is something to keep and something to answer one day.
#[test]
fn gets_that_wait_cannot_be_piled_up_without_end() {
    under_attack(&[], |store| {
        let before = store.private_bytes();
        let gets = message(&Request::Get {
            ids: vec![ID].into(),
            timeout_ms: -1,
        });
        let client = connect(store);
        let hundred = gets.repeat(100);
        let start = Instant::now();
        let mut sent = 0;
        while client.send_bytes(&hundred).is_ok() {
            sent += 100;
            assert!(sent <= 1_000_000, "the store takes any number");
        }
        let grown = store.private_bytes().saturating_sub(before);
        println!(
            "cut off after {sent} gets and {:?}, {} KiB",
            start.elapsed(),
            grown >> 10
        );
        client.wait_until_cut_off();
    });
}
