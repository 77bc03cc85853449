//! Clients that do not read what they asked for.

use std::io::{self, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::poll::PollFlags;
use plasma_core::ObjectId;
use plasma_core::protocol::message::Request;
use plasma_core::transport::wait_ready;
use tests::raw::{RawClient, message};
use tests::{eventually, patience};

use super::{MIB, all_requests, connect, create, let_the_store_catch_up, under_attack};

/// What keeps a subscriber's notifications gives back what it has sent, also where it is never
/// quite empty.
#[test]
fn a_subscriber_that_lags_behind_costs_what_it_lags() {
    under_attack(&[], |store| {
        const OBJECTS: u32 = 1000;
        let attacker = connect(store);
        let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
        attacker.subscribe(theirs.as_fd());
        drop(theirs);
        ours.set_read_timeout(Some(patience()))
            .expect("it can be set");
        let client = store.client();
        let ids: Vec<_> = (0..OBJECTS)
            .map(|n| ObjectId::from_name(&n.to_string()))
            .collect();
        let batch: Vec<_> = ids.iter().map(|id| (*id, &b""[..], &b""[..])).collect();
        let round = || {
            client.create_and_seal_batch(&batch).expect("there is room");
            client.delete_many(&ids).expect("the store answers");
        };
        // From now on it is behind by that much, which is more than the socket holds.
        for _ in 0..10 {
            round();
        }
        let before = store.private_bytes();
        let (mut stream, mut read) = (BufReader::new(ours), 0);
        for _ in 0..60 {
            round();
            // The seals are one notification, the deletions one each.
            for _ in 0..=OBJECTS {
                let mut length = [0; 8];
                stream.read_exact(&mut length).expect("notifications come");
                let length = u64::from_le_bytes(length);
                let body = io::copy(&mut (&mut stream).take(length), &mut io::sink());
                assert_eq!(body.expect("notifications come"), length);
                read += 8 + length;
            }
        }
        let grown = store.private_bytes().saturating_sub(before);
        println!(
            "{} KiB of notifications read, {} KiB kept",
            read >> 10,
            grown >> 10
        );
        assert!(grown < read / 2, "{grown} bytes kept of {read}");
    });
}

/// Who is served no more may not know it yet, and read what it holds, or write it.
#[test]
fn what_one_who_is_cut_off_holds_stays_until_it_hangs_up() {
    under_attack(&["--stall-timeout", "1"], |store| {
        let client = store.client();
        let ids = [(); 4].map(|()| ObjectId::rand());
        client
            .create_and_seal(ids[0], &[1; 1000], b"")
            .expect("there is room");
        client
            .create_and_seal(ids[1], &[1; 1000], b"")
            .expect("there is room");
        let get = |id: ObjectId| Request::Get {
            ids: vec![id].into(),
            timeout_ms: 0,
        };

        // One breaks the protocol, the other does not read. Both hold an object and write another.
        let mut rude = connect(store);
        rude.call(&get(ids[0]));
        drop(rude.descriptor());
        rude.call(&create(ids[2], 1000));
        rude.send_bytes(&[0xff; 64]).expect("it is read");
        let mut lazy = connect(store);
        lazy.call(&get(ids[1]));
        drop(lazy.descriptor());
        lazy.call(&create(ids[3], 1000));
        assert!(!pester(&lazy, &message(&Request::List)), "it is given time");

        let info = |id| {
            client
                .list()
                .expect("the store answers")
                .into_iter()
                .find(move |info| info.id == id)
        };
        let refs = |id| info(id).map(|info| info.ref_count);
        for client in [&rude, &lazy] {
            let socket = client.socket().as_fd();
            let at_end = PollFlags::from_bits_retain(nix::libc::POLLRDHUP);
            let end = wait_ready(socket, at_end, Some(patience()));
            assert!(end.expect("a socket"), "it is not cut off");
        }
        client.delete_many(&ids).expect("the store answers");
        client.evict(u64::MAX).expect("the store answers");
        assert_eq!(ids.map(refs), [Some(1); 4]);

        drop((rude, lazy));
        eventually("all is taken back", || ids.map(refs) == [None; 4]);
    });
}

/// Arrow's clients read a notification's length and then, in one go, as much: where its end came
/// later than its start, they would read past what they have.
#[test]
fn a_subscriber_that_lags_behind_finds_whole_notifications() {
    under_attack(&[], |store| {
        let attacker = connect(store);
        let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
        attacker.subscribe(theirs.as_fd());
        drop(theirs);
        ours.set_nonblocking(true).expect("it can be set");
        let client = store.client();
        let mut read = Vec::new();
        for _ in 0..200 {
            // Far more than the socket holds, and at each step only some of it is read.
            let ids: Vec<_> = (0..100).map(|_| ObjectId::rand()).collect();
            for id in &ids {
                client
                    .create_and_seal(*id, b"", b"")
                    .expect("there is room");
            }
            client.delete_many(&ids).expect("the store answers");
            let mut some = [0; 4096];
            match (&ours).read(&mut some) {
                Ok(count) => read.extend_from_slice(&some[..count]),
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        }
        // Whenever nothing more is there, what was there was whole.
        let mut stops = 0;
        let mut notifications = 0;
        loop {
            let mut some = [0; 64 << 10];
            match (&ours).read(&mut some) {
                Ok(0) => panic!("the stream ended after {notifications} notifications"),
                Ok(count) => read.extend_from_slice(&some[..count]),
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                    let mut unread = &read[..];
                    while let Some((length, rest)) = unread.split_first_chunk() {
                        let length = usize::try_from(u64::from_le_bytes(*length)).expect("short");
                        let whole = rest.get(length..);
                        unread = whole.unwrap_or_else(|| panic!("{} of {length}", rest.len()));
                        notifications += 1;
                    }
                    assert!(unread.is_empty(), "{} bytes of a length", unread.len());
                    read.clear();
                    stops += 1;
                    if notifications >= 200 * 200 {
                        break;
                    }
                    let more = wait_ready(ours.as_fd(), PollFlags::POLLIN, Some(patience()));
                    assert!(more.expect("it can be waited for"), "{notifications} came");
                }
            }
        }
        println!("{notifications} notifications, {stops} times nothing more was there");
    });
}

#[test]
fn a_subscriber_that_never_reads_keeps_nobody_waiting() {
    under_attack(&[], |store| {
        let attacker = connect(store);
        let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
        attacker.subscribe(theirs.as_fd());
        drop(theirs);
        let client = store.client();
        let before = store.private_bytes();
        let ids: Vec<_> = (0..1000_u32)
            .map(|n| ObjectId::from_name(&n.to_string()))
            .collect();
        let batch: Vec<_> = ids.iter().map(|id| (*id, &b""[..], &b""[..])).collect();
        for _ in 0..20 {
            client.create_and_seal_batch(&batch).expect("there is room");
            client.delete_many(&ids).expect("the store answers");
        }
        let grown = store.private_bytes().saturating_sub(before);
        println!("40,000 notifications unread: {} KiB", grown >> 10);
        assert!(grown < 40_000 * 500, "{grown} bytes");
        drop(ours);
    });
}

/// Writes until nothing is taken for a while, or the store hangs up; whether it hung up.
fn pester(client: &RawClient, bytes: &[u8]) -> bool {
    let patience = Some(Duration::from_millis(300));
    client
        .socket()
        .set_write_timeout(patience)
        .expect("a socket takes timeouts");
    loop {
        match client.socket().write(bytes) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
            Err(_) => return true,
        }
    }
}

#[test]
fn a_client_that_never_reads_is_paused_and_then_cut_off() {
    under_attack(&["--stall-timeout", "1"], |store| {
        let client = store.client();
        let ids: Vec<_> = (0..1000_u32)
            .map(|n| ObjectId::from_name(&n.to_string()))
            .collect();
        let batch: Vec<_> = ids.iter().map(|id| (*id, &b""[..], &b""[..])).collect();
        client.create_and_seal_batch(&batch).expect("there is room");
        let before = store.private_bytes();
        let attacker = connect(store);
        let list = message(&Request::List).repeat(1000);
        let start = Instant::now();
        // Unless the machine is very slow it is paused first.
        let mut gone = pester(&attacker, &list);
        let grown = store.private_bytes().saturating_sub(before);
        println!(
            "replies of 100 kB unread: the store has taken {} KiB",
            grown >> 10
        );
        assert!(grown < 16 * MIB, "{grown} bytes");
        while !gone {
            gone = pester(&attacker, &list);
            assert!(start.elapsed() < patience(), "it is never cut off");
        }
        assert!(start.elapsed() >= Duration::from_secs(1));
    });
}

/// Thousands of requests of each kind, and nobody reads what is said to them.
#[test]
fn replies_to_any_kind_of_request_may_stay_unread() {
    under_attack(&[], |store| {
        const COUNT: usize = 3000;
        let ids: Vec<_> = (0..1000_u32)
            .map(|n| ObjectId::from_name(&n.to_string()))
            .collect();
        let batch: Vec<_> = ids.iter().map(|id| (*id, &b""[..], &b""[..])).collect();
        let client = store.client();
        client.create_and_seal_batch(&batch).expect("there is room");
        let before = store.private_bytes();
        let mut unsent: Vec<_> = all_requests()
            .iter()
            .map(|request| {
                let client = connect(store);
                let socket = client.socket();
                socket.set_nonblocking(true).expect("it can be set");
                (client, message(request).repeat(COUNT), 0)
            })
            .collect();
        // Some are paused for good, and some can say all they have to say.
        for _ in 0..50 {
            for (client, bytes, sent) in &mut unsent {
                while let Ok(count) = client.socket().write(&bytes[*sent..]) {
                    *sent += count;
                    if *sent == bytes.len() {
                        break;
                    }
                }
            }
            let_the_store_catch_up(store);
        }
        let whole = unsent
            .iter()
            .filter(|(_, bytes, sent)| *sent == bytes.len());
        println!("{} of {} said it all", whole.count(), unsent.len());
        let grown = store.private_bytes().saturating_sub(before);
        println!("the store has taken {} KiB", grown >> 10);
        assert!(grown < 32 * MIB, "{grown} bytes");
        drop(unsent);
    });
}
