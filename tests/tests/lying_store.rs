//! Stores that lie: the client says so, and never panics, faults or believes them.

use std::fs::File;
use std::io::{self, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use nix::poll::PollFlags;
use nix::sys::eventfd::EventFd;
use nix::sys::memfd::{MFdFlags, memfd_create};
use plasma_core::protocol::frame::HEADER_LEN;
use plasma_core::protocol::message::{Encoder, MMAP_GAP, ObjectSpec, Reply, Request, SegmentRef};
use plasma_core::shm::Offer;
use plasma_core::shm::bell::Waker;
use plasma_core::shm::index::IndexWriter;
use plasma_core::shm::memory::{Memory, Writers};
use plasma_core::shm::page::Shape;
use plasma_core::shm::ring::Requests;
use plasma_core::transport::{Inbox, Received, wait_ready};
use plasma_core::{ObjectBuffer, ObjectId, PlasmaClient, PlasmaError};
use tests::raw::send_with_descriptors;
use tests::{patience, within};

const LIMIT: Duration = Duration::from_secs(60);
const SEGMENT_LEN: u64 = 1 << 16;
const ID: ObjectId = ObjectId::new([0xab; 20]);
const OTHER_ID: ObjectId = ObjectId::new([0xcd; 20]);

/// The store's end of a connection.
struct Liar {
    socket: UnixStream,
    inbox: Inbox,
}

impl Liar {
    /// Waits for a request; false once the client has closed the connection.
    fn hear(&mut self) -> bool {
        loop {
            match self.inbox.next_message(1 << 30) {
                Ok(Some((kind, body))) => {
                    let request = Request::decode(kind, body).expect("the client sends requests");
                    // What is let go of has no answer that anybody waits for.
                    if !matches!(request, Request::Release(_)) {
                        return true;
                    }
                }
                Ok(None) => {
                    let waited =
                        wait_ready(self.socket.as_fd(), PollFlags::POLLIN, Some(patience()));
                    assert!(waited.expect("a socket"), "the client says nothing");
                    match self.inbox.receive(self.socket.as_fd()) {
                        Ok(Received::Bytes(_) | Received::Nothing) => {}
                        Ok(Received::End) | Err(_) => return false,
                    }
                }
                Err(error) => panic!("the client sends no message: {error}"),
            }
        }
    }

    /// Says something; the client may have had enough already.
    fn say(&mut self, bytes: &[u8]) {
        let _ = self.socket.write_all(bytes);
    }

    fn reply(&mut self, reply: &Reply<'_>) {
        self.say(&encoded(reply));
    }

    fn give(&mut self, descriptor: &impl AsFd) {
        let _ = send_with_descriptors(&self.socket, &[0], &[descriptor.as_fd()]);
    }
}

fn encoded(reply: &Reply<'_>) -> Vec<u8> {
    let mut encoder = Encoder::new();
    let frame = encoder.reply(reply);
    [&frame.header, frame.body].concat()
}

const HONEST_CONNECT: Reply<'static> = Reply::Connect {
    memory_capacity: SEGMENT_LEN as i64,
    offer: None,
};

/// A client of a store that introduces itself honestly and answers the first request after that
/// with a lie, then falls silent until the client leaves.
fn lied_to(lie: impl FnOnce(&mut Liar) + Send + 'static, ask: impl FnOnce(&PlasmaClient)) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("plasma.sock");
    let listener = UnixListener::bind(&path).expect("a listener");
    let liar = thread::spawn(move || {
        let (socket, _) = listener.accept().expect("the client connects");
        let mut liar = Liar {
            socket,
            inbox: Inbox::new(),
        };
        assert!(liar.hear());
        liar.reply(&HONEST_CONNECT);
        if liar.hear() {
            lie(&mut liar);
            while liar.hear() {}
        }
    });
    let client = PlasmaClient::builder()
        .retries(0)
        .connect(&path)
        .expect("so far it is a store");
    ask(&client);
    drop(client);
    liar.join().expect("the liar has said its part");
}

fn is_broken<T>(result: &Result<T, PlasmaError>) -> bool {
    matches!(
        result,
        Err(PlasmaError::Protocol { .. } | PlasmaError::Disconnected)
    )
}

/// The lie is found out, and nothing that this store says later is listened to.
fn is_found_out<T: std::fmt::Debug>(
    what: &str,
    lie: impl FnOnce(&mut Liar) + Send + 'static,
    ask: impl FnOnce(&PlasmaClient) -> Result<T, PlasmaError>,
) {
    lied_to(lie, |client| {
        let result = ask(client);
        assert!(is_broken(&result), "{what}: {result:?}");
        let after = client.contains(&ID);
        assert!(
            matches!(after, Err(PlasmaError::Disconnected)),
            "{what}: {after:?}"
        );
    });
}

fn segment(len: u64) -> File {
    let descriptor = memfd_create(c"lie", MFdFlags::MFD_CLOEXEC).expect("a memfd");
    let file = File::from(descriptor);
    file.set_len(len).expect("it can be sized");
    file
}

const SEGMENT: SegmentRef = SegmentRef {
    segment: 1,
    mmap_size: (SEGMENT_LEN + MMAP_GAP) as i64,
};

const SPEC: ObjectSpec = ObjectSpec {
    segment: 1,
    data_offset: 64,
    data_size: 100,
    metadata_offset: 164,
    metadata_size: 10,
    device_num: 0,
};

fn get_reply(spec: ObjectSpec, segment: SegmentRef) -> Reply<'static> {
    Reply::Get {
        objects: vec![(ID, Some(spec))].into(),
        segments: vec![segment],
    }
}

fn create_reply(spec: ObjectSpec, segment: SegmentRef) -> Reply<'static> {
    Reply::Create {
        id: ID,
        result: Ok((spec, segment)),
    }
}

fn get(client: &PlasmaClient) -> Result<Option<ObjectBuffer>, PlasmaError> {
    client.get(ID, 0)
}

fn create(client: &PlasmaClient) -> Result<ObjectBuffer, PlasmaError> {
    client.create(ID, 100, &[1; 10])
}

fn header(version: i64, kind: i64, len: i64) -> Vec<u8> {
    [version, kind, len].map(i64::to_le_bytes).concat()
}

/// The store takes back what a client held when its connection ends: not before the last buffer is
/// gone, whatever has become of the connection meanwhile.
#[test]
fn a_connection_of_no_more_use_lasts_as_long_as_what_it_holds() {
    within(LIMIT, || {
        let (gave_up, has_given_up) = mpsc::channel();
        let (looked, has_looked) = mpsc::channel();
        let lie = move |liar: &mut Liar| {
            liar.reply(&get_reply(SPEC, SEGMENT));
            liar.give(&segment(SEGMENT_LEN));
            assert!(liar.hear());
            liar.say(&[0xff; 64]);
            has_given_up.recv().expect("the client goes on");
            let hung_up = wait_ready(
                liar.socket.as_fd(),
                PollFlags::empty(),
                Some(Duration::ZERO),
            );
            assert!(!hung_up.expect("a socket"), "it let go of what it holds");
            looked.send(()).expect("the client goes on");
        };
        lied_to(lie, |client| {
            let held = get(client).unwrap().unwrap();
            assert!(is_broken(&client.contains(&ID)));
            gave_up.send(()).unwrap();
            has_looked.recv().unwrap();
            assert_eq!(held.data(), [0; 100]);
        });
    });
}

/// Whether an object is sealed is not known where the store does not say. Others may have it.
#[test]
fn what_may_have_been_sealed_is_written_by_nobody() {
    within(LIMIT, || {
        let memory = segment(SEGMENT_LEN);
        let theirs = memory.try_clone().unwrap();
        let lie = move |liar: &mut Liar| {
            liar.reply(&create_reply(SPEC, SEGMENT));
            liar.give(&theirs);
            assert!(liar.hear(), "it asks to seal the object");
            liar.socket.shutdown(Shutdown::Both).unwrap();
        };
        lied_to(lie, |client| {
            let mut object = create(client).unwrap();
            object.data_mut().fill(1);
            let sealed = object.seal();
            assert!(
                matches!(sealed, Err(PlasmaError::Disconnected)),
                "{sealed:?}"
            );

            // It is as it was, and writing goes on, but nobody else sees that.
            assert_eq!(
                (object.data(), object.meta()),
                (&[1; 100][..], &[1; 10][..])
            );
            object.data_mut().fill(2);
            assert_eq!(object.data(), [2; 100]);
            let mut bytes = [0; 100];
            memory.read_exact_at(&mut bytes, SPEC.data_offset).unwrap();
            assert_eq!(bytes, [1; 100]);

            let again = object.seal();
            assert!(matches!(again, Err(PlasmaError::Disconnected)), "{again:?}");
            assert!(object.is_mutable());
        });
    });
}

#[test]
fn what_is_no_reply_is_found_out() {
    within(LIMIT, || {
        const GET_REPLY: i64 = 10;
        let lies = [
            vec![0xff; 100],
            header(1, GET_REPLY, 0),
            header(0, 99, 0),
            header(0, GET_REPLY, -1),
            header(0, GET_REPLY, i64::MAX),
            header(0, GET_REPLY, 0),
            [header(0, GET_REPLY, 64), vec![0xff; 64]].concat(),
            // A request, and another question's reply.
            [header(0, 17, 8), vec![0; 8]].concat(),
            encoded(&Reply::List(Vec::new())),
            encoded(&HONEST_CONNECT),
        ];
        for (number, lie) in lies.into_iter().enumerate() {
            let what = format!("lie {number}");
            is_found_out(&what, move |liar| liar.say(&lie), get);
        }
    });
}

#[test]
fn places_that_cannot_be_are_found_out() {
    within(LIMIT, || {
        let at = |data_offset: u64, data_size: u64, metadata_size: u64| ObjectSpec {
            data_offset,
            data_size,
            metadata_offset: data_offset.wrapping_add(data_size),
            metadata_size,
            ..SPEC
        };
        let lies = [
            at(SEGMENT_LEN - 100, 100, 10),
            at(SEGMENT_LEN, 100, 10),
            at(u64::MAX - 50, 100, 10),
            at(1 << 63, 100, 10),
            at(i64::MAX as u64, 100, 10),
            ObjectSpec {
                metadata_offset: 0,
                ..SPEC
            },
            ObjectSpec {
                metadata_offset: u64::MAX,
                ..SPEC
            },
            ObjectSpec { segment: 2, ..SPEC },
            ObjectSpec {
                device_num: 1,
                ..SPEC
            },
        ];
        for lie in lies {
            let what = format!("{lie:?}");
            let tell = move |reply: Reply<'static>| {
                move |liar: &mut Liar| {
                    liar.reply(&reply);
                    liar.give(&segment(SEGMENT_LEN));
                }
            };
            is_found_out(&what, tell(get_reply(lie, SEGMENT)), get);
            is_found_out(&what, tell(create_reply(lie, SEGMENT)), create);
        }
        let sizes = [
            at(0, SEGMENT_LEN + 1, 0),
            at(64, u64::MAX - 1, 10),
            at(64, 100, u64::MAX),
        ];
        for lie in sizes {
            let tell = move |liar: &mut Liar| {
                liar.reply(&get_reply(lie, SEGMENT));
                liar.give(&segment(SEGMENT_LEN));
            };
            is_found_out(&format!("{lie:?}"), tell, get);
        }
    });
}

#[test]
fn answers_about_other_objects_are_found_out() {
    within(LIMIT, || {
        let say = |reply: Reply<'static>| move |liar: &mut Liar| liar.reply(&reply);
        let objects = |ids: &[ObjectId]| Reply::Get {
            objects: ids.iter().map(|id| (*id, None)).collect(),
            segments: Vec::new(),
        };
        for ids in [&[OTHER_ID][..], &[], &[ID, ID], &[ID, OTHER_ID]] {
            is_found_out("get", say(objects(ids)), get);
        }
        let contains = Reply::Contains {
            id: OTHER_ID,
            has_object: true,
        };
        is_found_out("contains", say(contains.clone()), |client| {
            client.contains(&ID)
        });
        let contains_many = |client: &PlasmaClient| client.contains_many(&[ID]);
        is_found_out("contains_many", say(contains), contains_many);
        let other_size = ObjectSpec {
            data_size: 99,
            metadata_offset: 163,
            ..SPEC
        };
        is_found_out("create", say(create_reply(other_size, SEGMENT)), create);
        let other_id = Reply::Create {
            id: OTHER_ID,
            result: Ok((SPEC, SEGMENT)),
        };
        is_found_out("create", say(other_id), create);
        let seal = |liar: &mut Liar| {
            liar.reply(&create_reply(SPEC, SEGMENT));
            liar.give(&segment(SEGMENT_LEN));
            liar.hear();
            liar.reply(&Reply::Seal {
                id: OTHER_ID,
                result: Ok(()),
            });
        };
        is_found_out("seal", seal, |client| create(client)?.seal());
    });
}

#[test]
fn segments_that_are_not_there_are_found_out() {
    within(LIMIT, || {
        // A mapping longer than its file faults where it is read.
        for len in [0, 1, SEGMENT_LEN - 1] {
            let tell = move |liar: &mut Liar| {
                liar.reply(&get_reply(SPEC, SEGMENT));
                liar.give(&segment(len));
            };
            is_found_out(&format!("a file of {len} bytes"), tell, get);
        }
        let pipe = |liar: &mut Liar| {
            let (reader, _writer) = io::pipe().expect("a pipe");
            liar.reply(&get_reply(SPEC, SEGMENT));
            liar.give(&reader);
        };
        is_found_out("a pipe", pipe, get);
        let none = |liar: &mut Liar| {
            liar.reply(&get_reply(SPEC, SEGMENT));
            liar.reply(&HONEST_CONNECT);
        };
        is_found_out("no descriptor", none, get);
        let hangs_up = |liar: &mut Liar| {
            liar.reply(&create_reply(SPEC, SEGMENT));
            let _ = liar.socket.shutdown(Shutdown::Both);
        };
        is_found_out("the end instead of a descriptor", hangs_up, create);
        for mmap_size in [0, 7, -1, i64::MIN, i64::MAX] {
            let lie = SegmentRef {
                mmap_size,
                ..SEGMENT
            };
            let tell = move |liar: &mut Liar| {
                liar.reply(&get_reply(SPEC, lie));
                liar.give(&segment(SEGMENT_LEN));
            };
            is_found_out(&format!("a segment of {mmap_size} bytes"), tell, get);
        }
    });
}

#[test]
fn replies_with_any_byte_changed_do_no_harm() {
    within(LIMIT, || {
        let honest = encoded(&get_reply(SPEC, SEGMENT));
        // A changed length would only make the client wait for more: that is tested above.
        for at in (0..16).chain(HEADER_LEN..honest.len()) {
            let mut changed = honest.clone();
            changed[at] ^= if at % 2 == 0 { 0xff } else { 0x01 };
            let tell = move |liar: &mut Liar| {
                liar.say(&changed);
                liar.give(&segment(SEGMENT_LEN));
                let _ = liar.socket.shutdown(Shutdown::Write);
            };
            lied_to(tell, |client| match get(client) {
                // It is an object like any other then: all of it is there to be read.
                Ok(Some(object)) => {
                    let sum: u64 = object.data().iter().map(|byte| u64::from(*byte)).sum();
                    assert_eq!(sum, 0);
                }
                Ok(None) => {}
                Err(PlasmaError::Protocol { .. } | PlasmaError::Disconnected) => {}
                Err(other) => panic!("byte {at}: {other}"),
            });
        }
    });
}

#[test]
fn a_store_that_is_none_is_found_out_at_once() {
    within(LIMIT, || {
        let greetings: [fn(&mut Liar); 4] = [
            |liar| liar.say(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
            |liar| liar.say(&[0xff; 64]),
            |liar| liar.reply(&Reply::List(Vec::new())),
            |_| {},
        ];
        for greeting in greetings {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("plasma.sock");
            let listener = UnixListener::bind(&path).unwrap();
            let liar = thread::spawn(move || {
                let (socket, _) = listener.accept().unwrap();
                let mut liar = Liar {
                    socket,
                    inbox: Inbox::new(),
                };
                assert!(liar.hear());
                greeting(&mut liar);
            });
            let result = PlasmaClient::builder().retries(0).connect(&path);
            assert!(is_broken(&result), "{result:?}");
            liar.join().unwrap();
        }
    });
}

/// Connects to a store that offers memory as it should be, and these to wake each other, and answers
/// nothing more; and does something there, if it has got as far as that.
fn offered(
    bell: OwnedFd,
    wakeup: OwnedFd,
    then: impl FnOnce(&PlasmaClient),
) -> Result<(), PlasmaError> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("plasma.sock");
    let listener = UnixListener::bind(&path).expect("a listener");
    let store = thread::spawn(move || {
        let (socket, _) = listener.accept().expect("the client connects");
        let mut liar = Liar {
            socket,
            inbox: Inbox::new(),
        };
        assert!(liar.hear());
        let shape = Shape {
            pins: 8,
            requests: 8,
            content_bytes: 4096,
        };
        let index = IndexWriter::create(1, 7).expect("an index");
        // Some thread: nobody looks whose it is.
        index.keeper_word().expect("it has one").set_thread(1);
        let index = index.memory().expect("it is in memory");
        let page = Memory::create(shape.page_len(), Writers::Client).expect("a page");
        let answers = Memory::create(shape.answers_len(), Writers::Store).expect("a page");
        let (page, answers) = (Arc::new(page), Arc::new(answers));
        let requests = Requests::open(&page, &answers, &shape).expect("there is a ring");
        requests.need_wakeup(true);
        let index_len = index.len() as u64;
        liar.reply(&Reply::Connect {
            memory_capacity: SEGMENT_LEN as i64,
            offer: Some((Offer { index_len, shape }, vec![SEGMENT])),
        });
        liar.give(&segment(SEGMENT_LEN));
        for memory in [index, &page, &answers] {
            liar.give(&memory.descriptor().expect("it is here"));
        }
        liar.give(&bell);
        liar.give(&wakeup);
        drop(wakeup);
        while liar.hear() {}
    });
    let client = PlasmaClient::builder().retries(0).connect(&path);
    let told = client.map(|client| then(&client));
    store.join().expect("the store has said its part");
    told
}

/// What a client is woken by, and what wakes it.
fn wakeup() -> (OwnedFd, Waker) {
    let (ours, theirs) = Waker::pair().expect("a pair of sockets");
    (theirs.into(), ours)
}

fn event() -> OwnedFd {
    OwnedFd::from(EventFd::new().expect("an event"))
}

/// The kernel ends a process that writes to a pipe or a socket whose other end is closed, unless it has
/// asked for something else. Rust's programs have; a client may be part of one that has not.
#[test]
fn what_would_not_wake_anybody_is_refused() {
    within(LIMIT, || {
        let (good, _ours) = wakeup();
        offered(event(), good, |_| {}).expect("all of it is as it should be");

        let pipe = || OwnedFd::from(io::pipe().unwrap().1);
        let socket = || OwnedFd::from(UnixStream::pair().unwrap().0);
        let lies: [(&str, OwnedFd, OwnedFd); 4] = [
            ("a pipe for a bell", pipe(), wakeup().0),
            ("a socket for a bell", socket(), wakeup().0),
            ("a pipe to be woken by", event(), pipe()),
            ("an event to be woken by", event(), event()),
        ];
        for (what, bell, wakeup) in lies {
            let told = offered(bell, wakeup, |_| {});
            assert!(
                matches!(told, Err(PlasmaError::Protocol { .. })),
                "{what}: {told:?}"
            );
        }
    });
}

/// Who would wake a client is gone: that is the end of the connection, and not a wait for ever.
#[test]
fn a_client_that_nobody_will_wake_does_not_sleep() {
    within(LIMIT, || {
        let (dead, ours) = wakeup();
        drop(ours);
        let put = |client: &PlasmaClient| {
            let told = client.create_and_seal(ID, b"content", b"");
            assert!(matches!(told, Err(PlasmaError::Disconnected)), "{told:?}");
        };
        offered(event(), dead, put).unwrap();
    });
}
