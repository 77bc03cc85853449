//! Bytes that are no request, and requests with something wrong in them.

use plasma_core::ObjectId;
use plasma_core::protocol::frame::HEADER_LEN;
use plasma_core::protocol::message::{Encoder, ErrorCode, Notification, Reply, Request};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tests::raw::{RawClient, message};

use super::{
    ID, OTHER_ID, Witness, all_requests, connect, cut_off_for, header, let_the_store_catch_up,
    new_object, say_and_hang_up, under_attack,
};

#[test]
fn what_is_no_message_costs_its_sender_the_connection() {
    under_attack(&[], |store| {
        const LIST: i64 = 17;
        let mut lies = vec![
            header(1, LIST, 0),
            header(-1, LIST, 0),
            header(i64::MIN, i64::MIN, i64::MIN),
            header(0, 36, 0),
            header(0, -1, 0),
            header(0, i64::MAX, 0),
            header(0, LIST, -1),
            header(0, LIST, i64::MIN),
            header(0, LIST, i64::MAX),
            header(0, LIST, 1 << 40),
            header(0, LIST, 0),
            vec![0xff; 1000],
            b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        ];
        // Replies, notifications and what nobody sends.
        for kind in (2..=24).step_by(2).chain([25, 26, 27, 29, 31, 33, 35]) {
            lies.push([header(0, kind, 8), vec![0; 8]].concat());
        }
        for lie in lies {
            let client = connect(store);
            client.call_then(&lie);
            client.wait_until_cut_off();
        }
    });
}

trait CallThen {
    fn call_then(&self, bytes: &[u8]);
}

impl CallThen for RawClient {
    /// A valid request, and then these bytes.
    fn call_then(&self, bytes: &[u8]) {
        self.send(&Request::Connect { capabilities: 0 });
        self.send_bytes(bytes).expect("the store reads");
    }
}

#[test]
fn requests_with_any_byte_changed_are_survived() {
    under_attack(&[], |store| {
        let mut attempts = 0;
        for request in all_requests() {
            let whole = message(&request);
            for at in 0..whole.len() {
                for change in [0xff, 0x01, 0x80] {
                    let mut changed = whole.clone();
                    changed[at] ^= change;
                    say_and_hang_up(store, &changed);
                    attempts += 1;
                }
            }
        }
        println!("{attempts} requests with a byte changed");
    });
}

#[test]
fn requests_that_break_off_anywhere_are_survived() {
    under_attack(&[], |store| {
        let silent: Vec<_> = all_requests()
            .iter()
            .flat_map(|request| {
                let whole = message(request);
                for len in 0..whole.len() {
                    say_and_hang_up(store, &whole[..len]);
                }
                [1, HEADER_LEN - 1, HEADER_LEN, whole.len() - 1].map(|len| {
                    let client = connect(store);
                    client
                        .send_bytes(&whole[..len.min(whole.len() - 1)])
                        .expect("the store reads");
                    client
                })
            })
            .collect();
        // They stay, in the middle of a message; everybody else is served.
        let_the_store_catch_up(store);
        Witness::round(&store.client(), 0);
        drop(silent);
    });
}

#[test]
fn random_bytes_are_survived() {
    under_attack(&[], |store| {
        let config = Config {
            cases: 1500,
            failure_persistence: None,
            ..Config::default()
        };
        let body = prop::collection::vec(prop_oneof![0..4_u8, any::<u8>()], 0..300);
        let mut runner = TestRunner::new(config);
        let result = runner.run(&(0..36_i64, any::<bool>(), body), |(kind, framed, body)| {
            let header = header(0, kind, body.len() as i64);
            let header = if framed { &header[..] } else { &[] };
            say_and_hang_up(store, &[header, &body].concat());
            Ok(())
        });
        result.expect("the store survives");
    });
}

/// A message with another header's field, at this place, changed to this.
fn with_field(whole: &[u8], at: usize, value: i64) -> Vec<u8> {
    let mut changed = whole.to_vec();
    changed[at..at + 8].copy_from_slice(&value.to_le_bytes());
    changed
}

#[test]
fn every_field_of_every_header_is_checked() {
    under_attack(&[], |store| {
        let [version, kind, length] = [0, 8, 16];
        let extremes = [
            i64::MIN,
            i64::MIN + 1,
            -2,
            -1,
            1 << 40,
            i64::MAX - 1,
            i64::MAX,
        ];
        for request in all_requests() {
            let whole = message(&request);
            for value in extremes {
                cut_off_for(store, &with_field(&whole, kind, value));
                cut_off_for(store, &with_field(&whole, length, value));
            }
            for value in extremes.into_iter().chain([1, 2, 1 << 8, 1 << 32, 1 << 56]) {
                cut_off_for(store, &with_field(&whole, version, value));
            }
            // Another type, so that the body is read as what it is not; and another length, so that
            // what follows is no header.
            for value in 0..40 {
                say_and_hang_up(store, &with_field(&whole, kind, value));
            }
            let len = (whole.len() - HEADER_LEN) as i64;
            for value in [0, 1, len / 2, len - 8, len - 1, len + 1, len + 8, 1 << 20] {
                let twice = with_field(&whole, length, value.max(0)).repeat(2);
                say_and_hang_up(store, &twice);
            }
        }
    });
}

/// Unlike messages that break off, these are whole as far as their header goes.
#[test]
fn bodies_cut_short_at_any_byte_are_survived() {
    under_attack(&[], |store| {
        for request in all_requests() {
            let whole = message(&request);
            for len in HEADER_LEN..whole.len() {
                let body_len = (len - HEADER_LEN) as i64;
                say_and_hang_up(store, &with_field(&whole[..len], 16, body_len));
            }
        }
    });
}

/// Bodies are made of words: offsets, lengths and numbers. Each in turn is what hurts most.
#[test]
fn requests_with_any_word_changed_are_survived() {
    under_attack(&[], |store| {
        let values = [
            0,
            1,
            3,
            0x7fff_ffff,
            0x8000_0000,
            0xffff_fff0,
            0xffff_fffc,
            0xffff_ffff_u32,
        ];
        let mut attempts = 0;
        for request in all_requests() {
            let whole = message(&request);
            for at in (HEADER_LEN..whole.len().saturating_sub(3)).step_by(4) {
                for value in values {
                    let mut changed = whole.clone();
                    changed[at..at + 4].copy_from_slice(&value.to_le_bytes());
                    say_and_hang_up(store, &changed);
                    attempts += 1;
                }
            }
        }
        println!("{attempts} requests with a word changed");
    });
}

#[test]
fn ids_of_any_other_length_are_refused() {
    under_attack(&[], |store| {
        let mut tried = 0;
        for request in all_requests() {
            let whole = message(&request);
            let places = whole.windows(20).enumerate().filter_map(|(at, part)| {
                let is_id = part == ID.as_bytes() || part == OTHER_ID.as_bytes();
                is_id.then_some(at)
            });
            for at in places {
                for len in [0_u32, 1, 19, 21, 1000, i32::MAX as u32, u32::MAX] {
                    let mut changed = whole.clone();
                    changed[at - 4..at].copy_from_slice(&len.to_le_bytes());
                    cut_off_for(store, &changed);
                    tried += 1;
                }
            }
        }
        // One id in each of six requests, two in each of four.
        assert_eq!(tried, 7 * (6 + 4 * 2));
    });
}

#[test]
fn lists_that_disagree_are_refused() {
    under_attack(&[], |store| {
        let objects: Vec<_> = (1..=5)
            .map(|n| new_object(ObjectId::new([n; 20]), b""))
            .collect();
        let whole = message(&Request::CreateAndSealBatch {
            objects: objects.into(),
            evict_if_full: false,
        });
        // Ids, data, metadata and digests: each list begins with how many there are.
        let places: Vec<_> = (HEADER_LEN..whole.len() - 3)
            .step_by(4)
            .filter(|at| whole[*at..at + 4] == 5_u32.to_le_bytes())
            .collect();
        assert_eq!(places.len(), 4);
        for at in places {
            for count in 0..5_u32 {
                let mut changed = whole.clone();
                changed[at..at + 4].copy_from_slice(&count.to_le_bytes());
                cut_off_for(store, &changed);
            }
        }
        let created = (1..=5).map(|n| ObjectId::new([n; 20])).collect::<Vec<_>>();
        let found = store.client().contains_many(&created);
        assert_eq!(found.expect("the store answers"), []);
    });
}

/// One reply of each kind, whole and well-formed.
fn all_replies() -> Vec<Reply<'static>> {
    vec![
        Reply::Connect {
            memory_capacity: 1,
            offer: None,
        },
        Reply::Create {
            id: ID,
            result: Err(ErrorCode::ObjectExists),
        },
        Reply::CreateAndSeal(Ok(())),
        Reply::CreateAndSealBatch(Ok(())),
        Reply::Abort(ID),
        Reply::Seal {
            id: ID,
            result: Ok(()),
        },
        Reply::Get {
            objects: vec![(ID, None)].into(),
            segments: vec![],
        },
        Reply::Delete(vec![(ID, Ok(()))].into()),
        Reply::Contains {
            id: ID,
            has_object: true,
        },
        Reply::List(Vec::new()),
        Reply::Evict { num_bytes: 1 },
        Reply::SetOptions(Ok(())),
        Reply::GetDebugString("text".into()),
        Reply::RefreshLru,
    ]
}

#[test]
fn replies_are_no_requests() {
    under_attack(&[], |store| {
        let mut encoder = Encoder::new();
        for reply in all_replies() {
            let frame = encoder.reply(&reply);
            cut_off_for(store, &[&frame.header, frame.body].concat());
        }
        let notifications = [Notification::Deleted(ID)];
        let (length, body) = encoder.notification(&notifications);
        cut_off_for(store, &[&length[..], body].concat());
        // As a message of its own, which is how the protocol's list of types has it.
        const NOTIFICATION: i64 = 27;
        let framed = [&header(0, NOTIFICATION, body.len() as i64)[..], body].concat();
        cut_off_for(store, &framed);
    });
}
