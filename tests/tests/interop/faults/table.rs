//! The table: each fault, what either store does after it, the tests that look into it, and how it is
//! done.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use plasma_core::ObjectId;
use plasma_core::protocol::frame::HEADER_LEN;
use plasma_core::protocol::message::Request;
use tests::raw::message;

use super::{
    DESCRIPTORS, Fault, IN_TIME, KEPT, LIST, OTHER, Outcome, Thrown, ask, connect, create,
    creating, empty, gone, header, make_much, make_news, position, quota, say, seal, send,
    subscribe,
};
use crate::CAPACITY;

pub const CLOSES: &str = "closes that connection";
pub const REFUSES: &str = "says no";
const WAITS: &str = "waits for the rest; serves others";

pub const FAULTS: &[Fault] = &[
    Fault {
        name: "a wrong protocol version",
        arrows: Outcome::Aborts,
        ours: CLOSES,
        tests: &["hostile::messages::every_field_of_every_header_is_checked"],
        throw: |store| say(store, header(1, LIST, 0)),
    },
    Fault {
        name: "an unknown message type",
        arrows: Outcome::Aborts,
        ours: CLOSES,
        tests: &["hostile::messages::every_field_of_every_header_is_checked"],
        throw: |store| say(store, header(0, 99, 0)),
    },
    Fault {
        name: "a reply, sent as a request",
        arrows: Outcome::Aborts,
        ours: CLOSES,
        tests: &["hostile::messages::replies_are_no_requests"],
        throw: |store| {
            const GET_REPLY: i64 = 10;
            let mut bytes = message(&Request::List);
            bytes[8..16].copy_from_slice(&GET_REPLY.to_le_bytes());
            say(store, bytes)
        },
    },
    Fault {
        name: "a negative length",
        arrows: Outcome::Aborts,
        ours: CLOSES,
        tests: &["hostile::messages::every_field_of_every_header_is_checked"],
        throw: |store| say(store, header(0, LIST, -1)),
    },
    Fault {
        name: "a length of 2⁴⁰",
        arrows: Outcome::Aborts,
        ours: CLOSES,
        tests: &["operating::who_sends_too_long_a_request_is_cut_off"],
        throw: |store| say(store, header(0, LIST, 1 << 40)),
    },
    Fault {
        name: "a body that is no flatbuffer",
        arrows: Outcome::Crashes,
        ours: CLOSES,
        tests: &[
            "hostile::messages::requests_with_any_word_changed_are_survived",
            "hostile::messages::random_bytes_are_survived",
        ],
        throw: |store| {
            const CREATE: i64 = 1;
            say(store, [header(0, CREATE, 64), vec![0xff; 64]].concat())
        },
    },
    Fault {
        name: "an id of 19 bytes",
        arrows: Outcome::GoesOn,
        ours: CLOSES,
        tests: &["hostile::messages::ids_of_any_other_length_are_refused"],
        throw: |store| {
            let mut bytes = message(&Request::Contains(OTHER));
            let at = position(&bytes, OTHER.as_bytes());
            bytes[at - 4] = 19;
            say(store, bytes)
        },
    },
    Fault {
        name: "an id that is missing",
        arrows: Outcome::Crashes,
        ours: CLOSES,
        tests: &["hostile::messages::every_field_of_every_header_is_checked"],
        throw: |store| {
            let contains = message(&Request::Contains(OTHER));
            let mut bytes = message(&Request::List);
            bytes[8..16].copy_from_slice(&contains[8..16]);
            say(store, bytes)
        },
    },
    Fault {
        name: "lists of different lengths",
        arrows: Outcome::Crashes,
        ours: CLOSES,
        tests: &["hostile::messages::lists_that_disagree_are_refused"],
        throw: |store| {
            let objects: Vec<_> = (1..=5).map(|n| empty(ObjectId::new([n; 20]))).collect();
            let mut bytes = message(&Request::CreateAndSealBatch {
                objects: objects.into(),
                evict_if_full: false,
            });
            let places = (HEADER_LEN..bytes.len() - 3).step_by(4);
            let mut places = places.filter(|at| bytes[*at..at + 4] == 5_u32.to_le_bytes());
            // Whichever list lies first has one entry less than the others.
            let at = places.next().expect("a list of five");
            bytes[at] = 4;
            say(store, bytes)
        },
    },
    Fault {
        name: "half of a header, and silence",
        arrows: Outcome::Hangs,
        ours: WAITS,
        tests: &[
            "hostile::messages::requests_that_break_off_anywhere_are_survived",
            "hostile::crowds::thousands_of_idle_connections_keep_nobody_waiting",
        ],
        throw: |store| say(store, header(0, LIST, 0)[..12].to_vec()),
    },
    Fault {
        name: "half of a request, and silence",
        arrows: Outcome::Hangs,
        ours: WAITS,
        tests: &[
            "hostile::messages::requests_that_break_off_anywhere_are_survived",
            "deaths::clients::sending::by_socket::stopped_at_each_step",
        ],
        throw: |store| {
            let bytes = message(&Request::Get {
                ids: vec![KEPT; 100].into(),
                timeout_ms: 0,
            });
            say(store, bytes[..bytes.len() / 2].to_vec())
        },
    },
    Fault {
        name: "half of a request, and the client is gone",
        arrows: Outcome::GoesOn,
        ours: "goes on",
        tests: &["deaths::clients::sending::by_socket::killed_at_each_step"],
        throw: |store| {
            let bytes = message(&Request::List);
            let client = connect(store);
            send(&client, &bytes[..bytes.len() / 2]);
            gone()
        },
    },
    Fault {
        name: "a release of what the client does not hold",
        arrows: Outcome::Aborts,
        ours: "ignores it, and counts it",
        tests: &["hostile::requests::what_a_client_does_not_hold_it_cannot_change"],
        throw: |store| say(store, message(&Request::Release(KEPT))),
    },
    Fault {
        name: "a release of what does not exist",
        arrows: Outcome::Aborts,
        ours: "ignores it, and counts it",
        tests: &["hostile::requests::what_a_client_does_not_hold_it_cannot_change"],
        throw: |store| say(store, message(&Request::Release(OTHER))),
    },
    Fault {
        name: "a seal of what does not exist",
        arrows: Outcome::Aborts,
        ours: REFUSES,
        tests: &["hostile::requests::what_a_client_does_not_hold_it_cannot_change"],
        throw: |store| ask(store, &seal(OTHER)),
    },
    Fault {
        name: "a seal of what is sealed",
        arrows: Outcome::Aborts,
        ours: REFUSES,
        tests: &["hostile::requests::what_a_client_does_not_hold_it_cannot_change"],
        throw: |store| ask(store, &seal(KEPT)),
    },
    Fault {
        name: "a seal of what another client is writing",
        arrows: Outcome::Obeys,
        ours: REFUSES,
        tests: &["hostile::requests::what_a_client_does_not_hold_it_cannot_change"],
        throw: |store| {
            let creator = creating(store);
            ask(store, &seal(OTHER)).beside(creator)
        },
    },
    Fault {
        name: "an abort of what does not exist",
        arrows: Outcome::Aborts,
        ours: "changes nothing",
        tests: &["hostile::requests::what_a_client_does_not_hold_it_cannot_change"],
        throw: |store| say(store, message(&Request::Abort(OTHER))),
    },
    Fault {
        name: "an abort of what is sealed",
        arrows: Outcome::Aborts,
        ours: "changes nothing",
        tests: &["hostile::requests::what_a_client_does_not_hold_it_cannot_change"],
        throw: |store| say(store, message(&Request::Abort(KEPT))),
    },
    Fault {
        name: "an abort of what another client is writing",
        arrows: Outcome::Aborts,
        ours: "changes nothing",
        tests: &["hostile::requests::what_a_client_does_not_hold_it_cannot_change"],
        throw: |store| {
            let creator = creating(store);
            say(store, message(&Request::Abort(OTHER))).beside(creator)
        },
    },
    Fault {
        name: "sizes whose sum is beyond 2⁶⁴",
        arrows: Outcome::Obeys,
        ours: REFUSES,
        tests: &["hostile::requests::sizes_that_cannot_be_are_out_of_memory"],
        throw: |store| ask(store, &create(OTHER, u64::MAX - 100, 1000, 0)),
    },
    Fault {
        name: "a size of 2⁶³",
        arrows: Outcome::Aborts,
        ours: REFUSES,
        tests: &["hostile::requests::sizes_that_cannot_be_are_out_of_memory"],
        throw: |store| ask(store, &create(OTHER, 1 << 63, 0, 0)),
    },
    Fault {
        name: "a device that is not there",
        arrows: Outcome::GoesOn,
        ours: REFUSES,
        tests: &["hostile::requests::there_is_no_memory_on_other_devices"],
        throw: |store| ask(store, &create(OTHER, 100, 0, 1)),
    },
    Fault {
        name: "a quota below 0",
        arrows: Outcome::Obeys,
        ours: REFUSES,
        tests: &["hostile::requests::quotas_that_cannot_be_are_refused"],
        throw: |store| ask(store, &quota(-1_000_000_000)),
    },
    Fault {
        name: "a quota of more than there is",
        arrows: Outcome::GoesOn,
        ours: REFUSES,
        tests: &["hostile::requests::quotas_that_cannot_be_are_refused"],
        throw: |store| ask(store, &quota(1 << 62)),
    },
    Fault {
        name: "a subscription without its descriptor",
        arrows: Outcome::GoesOn,
        ours: CLOSES,
        tests: &["hostile::descriptors::a_subscription_without_its_descriptor_is_none"],
        throw: |store| say(store, [message(&Request::Subscribe), vec![0]].concat()),
    },
    Fault {
        name: "a subscription whose descriptor does not come",
        arrows: Outcome::Hangs,
        ours: WAITS,
        tests: &[
            "hostile::descriptors::a_subscription_without_its_descriptor_is_none",
            "deaths::clients::subscribing::by_socket::stopped_at_each_step",
        ],
        throw: |store| say(store, message(&Request::Subscribe)),
    },
    Fault {
        name: "a file for a subscription",
        arrows: Outcome::GoesOn,
        ours: "goes on without that subscription",
        tests: &["hostile::descriptors::anything_may_be_given_for_a_subscription"],
        throw: |store| {
            let null = File::open("/dev/null").expect("it is there");
            subscribe(store, null.into())
        },
    },
    Fault {
        name: "a subscription whose stream is closed",
        arrows: Outcome::GoesOn,
        ours: "goes on without that subscription",
        tests: &[
            "hostile::descriptors::anything_may_be_given_for_a_subscription",
            "deaths::clients::subscribing::by_socket::killed_at_each_step",
        ],
        throw: |store| {
            let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
            let thrown = subscribe(store, theirs.into());
            drop(ours);
            make_news(store);
            thrown
        },
    },
    Fault {
        name: "notifications that nobody reads",
        arrows: Outcome::Hangs,
        ours: "keeps them up to a limit, then ends that subscription",
        tests: &[
            "operating::who_leaves_too_many_notifications_unread_hears_no_more",
            "hostile::unread::a_subscriber_that_never_reads_keeps_nobody_waiting",
        ],
        throw: |store| {
            let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
            let thrown = subscribe(store, theirs.into());
            for _ in 0..20 {
                make_news(store);
            }
            thrown.beside(ours)
        },
    },
    Fault {
        name: "a descriptor that nothing asked for",
        arrows: Outcome::GoesOn,
        ours: CLOSES,
        tests: &["hostile::descriptors::no_request_brings_a_descriptor_with_it"],
        throw: |store| {
            let null = File::open("/dev/null").expect("it is there");
            let client = connect(store);
            // The store may cut it off at once.
            let _ = client.send_descriptors(&message(&Request::List), &[null.as_fd()]);
            Thrown::by(client)
        },
    },
    Fault {
        name: "replies that nobody reads",
        arrows: Outcome::Hangs,
        ours: "does not listen to that client meanwhile; closes after a while",
        tests: &[
            "hostile::unread::a_client_that_never_reads_is_paused_and_then_cut_off",
            "deaths::clients::listing::by_socket::stopped_at_each_step",
        ],
        throw: |store| {
            make_much(store);
            let client = connect(store);
            let socket = client.socket();
            socket.set_nonblocking(true).expect("it can be set");
            let lists = message(&Request::List).repeat(1000);
            // Until nothing more is taken.
            let start = Instant::now();
            while start.elapsed() < IN_TIME / 10 {
                let mut socket = client.socket();
                let _ = socket.write(&lists);
            }
            Thrown::by(client)
        },
    },
    Fault {
        name: "a client that dies with replies under way",
        arrows: Outcome::GoesOn,
        ours: "goes on",
        tests: &["deaths::clients::listing::by_socket::killed_at_each_step"],
        throw: |store| {
            make_much(store);
            for _ in 0..100 {
                send(&connect(store), &message(&Request::List).repeat(10));
            }
            gone()
        },
    },
    Fault {
        name: "a client that dies with a descriptor under way",
        arrows: Outcome::GoesOn,
        ours: "goes on",
        tests: &["deaths::clients::getting::by_socket::killed_at_each_step"],
        throw: |store| {
            let get = message(&Request::Get {
                ids: vec![KEPT].into(),
                timeout_ms: 0,
            });
            for _ in 0..500 {
                send(&connect(store), &get);
            }
            gone()
        },
    },
    Fault {
        name: "a client that dies while it writes an object",
        arrows: Outcome::GoesOn,
        ours: "takes it back",
        tests: &["deaths::clients::creating::by_socket::killed_at_each_step"],
        throw: |store| {
            drop(creating(store));
            gone()
        },
    },
    Fault {
        name: "a client that dies while it waits for an object",
        arrows: Outcome::GoesOn,
        ours: "goes on",
        tests: &["deaths::clients::waiting::by_socket::killed_at_each_step"],
        throw: |store| {
            let client = connect(store);
            client.send(&Request::Get {
                ids: vec![OTHER].into(),
                timeout_ms: -1,
            });
            drop(client);
            let mut other = connect(store);
            other.call(&Request::CreateAndSeal {
                object: empty(OTHER),
                evict_if_full: true,
            });
            gone()
        },
    },
    Fault {
        name: "a client that writes all over the shared memory",
        arrows: Outcome::Aborts,
        ours: "goes on: it keeps nothing of its own there (the objects are spoilt)",
        tests: &["interop::faults::our_store_goes_on_after_each"],
        throw: |store| {
            let mut client = creating(store);
            let segment = File::from(client.descriptor());
            let len = segment.metadata().expect("a file").len();
            // As far as the store has given memory to anybody, and beyond.
            let len = len.min(2 * CAPACITY) as usize;
            let noise = vec![0xff; len];
            segment.write_all_at(&noise, 0).expect("it can be written");
            client.call(&seal(OTHER));
            client.send(&Request::Release(OTHER));
            client.call(&Request::Delete(vec![OTHER].into()));
            make_news(store);
            Thrown::by(client)
        },
    },
    Fault {
        name: "more connections than there are descriptors",
        arrows: Outcome::GoesOn,
        ours: "leaves them waiting; serves who is there",
        tests: &["hostile::descriptors::descriptors_that_do_not_all_find_a_place_are_not_leaked"],
        throw: |store| {
            let crowd: Vec<_> = (0..DESCRIPTORS + 10)
                .map(|_| UnixStream::connect(store.socket()).expect("it listens"))
                .collect();
            gone().beside(crowd)
        },
    },
];
