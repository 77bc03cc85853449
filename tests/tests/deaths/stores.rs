//! The store is killed: at each step of a client's life, while a call is under way, in the middle of
//! a reply, and behind each store of the client's to the memory they share.
//!
//! What the client holds stays readable and is dropped quietly. Its calls say `Disconnected`; or,
//! where it was made to, it goes on with the store that starts at the same path, in which nothing
//! is but what is made there.

use std::cell::RefCell;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::symlink;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::poll::PollFlags;
use nix::sys::signal::Signal;
use plasma_core::protocol::message::{Encoder, Reply, Request};
use plasma_core::shm::crash;
use plasma_core::transport::{Inbox, Received, wait_ready};
use plasma_core::{Notifications, ObjectBuffer, ObjectId, PlasmaClient, PlasmaError};
use plasma_typed::{Create, Key, Sealed, TypedClient};
use tests::{StoreProcess, debug_number, eventually, patience, server_program, within};

use super::{CAPACITY, LIMIT, Place, Way, is_disconnected, new_object, under_way};

fn kill(store: &mut StoreProcess) {
    end(store, Signal::SIGKILL);
}

fn end(store: &mut StoreProcess, signal: Signal) {
    store.signal(signal);
    store.wait();
}

/// What takes no longer than this has not been waiting for time to pass.
const AT_ONCE: Duration = Duration::from_secs(5);

/// How a client is made.
#[derive(Clone, Copy, Debug)]
struct How {
    reconnect: bool,
    way: Way,
}

const HOW: [How; 4] = [
    How::new(false, Way::Socket),
    How::new(false, Way::Shared),
    How::new(true, Way::Socket),
    How::new(true, Way::Shared),
];

impl How {
    const fn new(reconnect: bool, way: Way) -> Self {
        Self { reconnect, way }
    }

    fn connect(self, place: &Place) -> PlasmaClient {
        self.way.client(&place.socket, self.reconnect)
    }
}

/// Small enough to be created through shared memory.
const SIZE: usize = 1 << 19;

fn content(seed: u8) -> Vec<u8> {
    (0..SIZE).map(|at| (at % 251) as u8 ^ seed).collect()
}

/// What a client has at some point of its life.
struct Life {
    client: PlasmaClient,
    /// Sealed objects, and what is in them.
    held: Vec<(ObjectBuffer, Vec<u8>)>,
    /// Objects that are not sealed, and what has been written so far, from the start.
    writing: Vec<(ObjectBuffer, Vec<u8>)>,
    typed: Option<Sealed<[u64]>>,
    typed_writing: Option<Create<[u64]>>,
    notifications: Option<Notifications>,
    waiter: Option<JoinHandle<Result<Option<ObjectBuffer>, PlasmaError>>>,
}

/// The object that is waited for, and sealed in the second store.
const AWAITED: ObjectId = ObjectId::new([0xab; 20]);

type Step = (&'static str, fn(&StoreProcess, &mut Life));

const STEPS: [Step; 12] = [
    ("connected", |_, _| {}),
    ("named", |_, life| {
        let quota = life.client.set_options("the survivor", 8 << 20);
        quota.expect("there is room");
    }),
    ("subscribed", |_, life| {
        life.notifications = Some(life.client.subscribe().expect("the store answers"));
    }),
    ("created", |_, life| {
        for _ in 0..2 {
            let object = life.client.create(ObjectId::rand(), SIZE, b"meta");
            life.writing
                .push((object.expect("there is room"), Vec::new()));
        }
    }),
    ("half written", |_, life| {
        let (object, written) = &mut life.writing[0];
        *written = content(1)[..SIZE / 2].to_vec();
        object.data_mut()[..SIZE / 2].copy_from_slice(written);
    }),
    ("written", |_, life| {
        let (object, written) = &mut life.writing[0];
        *written = content(1);
        object.data_mut().copy_from_slice(written);
    }),
    ("sealed", |_, life| {
        let (mut object, written) = life.writing.remove(0);
        object.seal().expect("the store answers");
        life.held.push((object, written));
    }),
    ("got and shared", |_, life| {
        let id = new_object(&life.client, &content(2));
        let found = life.client.get_many(&[id, id], 0);
        for object in found.expect("the store answers") {
            let object = object.expect("it is there");
            life.held.push((object.share(), content(2)));
            life.held.push((object, content(2)));
        }
    }),
    ("deleted while held", |_, life| {
        let (object, _) = life.held.last().expect("something is held");
        life.client.delete(object.id()).expect("the store answers");
    }),
    ("with types", |_, life| {
        let typed = TypedClient::from(life.client.clone());
        let numbers: Vec<u64> = (0..1000).collect();
        let key = typed.put(&numbers[..]).expect("there is room");
        life.typed = typed.get(key).expect("the store answers");
        let writing = typed.create_with_len(Key::rand(), 1000);
        life.typed_writing = Some(writing.expect("there is room"));
    }),
    ("waiting", |store, life| {
        let before = store.sockets();
        let client = life.client.clone();
        life.waiter = Some(thread::spawn(move || client.get(AWAITED, -1)));
        eventually("the get waits on a connection of its own", || {
            store.sockets() > before
        });
    }),
    ("rid of some", |_, life| {
        life.held.pop();
        life.writing.pop();
    }),
];

/// Everything that is held can be read, and what is not sealed can be written, and is nobody's.
fn check_what_is_held(life: &mut Life) {
    for (object, content) in &life.held {
        assert!(object.data() == content && object.share().data() == content);
    }
    for (object, written) in &mut life.writing {
        assert_eq!(object.meta(), b"meta");
        assert!(object.data().starts_with(written));
        assert!(is_disconnected(object.seal()));
        *written = vec![7; SIZE];
        object.data_mut().copy_from_slice(written);
        assert!(object.data() == written);
        assert!(is_disconnected(object.seal()));
    }
    if let Some(numbers) = &life.typed {
        assert!(numbers.iter().copied().eq(0..1000));
    }
    if let Some(mut writing) = life.typed_writing.take() {
        writing[999] = 1;
        let error = writing.seal().expect_err("its store is gone");
        assert!(matches!(error.error(), PlasmaError::Disconnected));
        assert_eq!(error.into_handle()[999], 1);
    }
}

fn live_until(step: usize, place: &Place, how: &How, signal: Signal) {
    let reconnect = how.reconnect;
    let mut first = place.start_store();
    let client = how.connect(place);
    let mut life = Life {
        client,
        held: Vec::new(),
        writing: Vec::new(),
        typed: None,
        typed_writing: None,
        notifications: None,
        waiter: None,
    };
    for (_, act) in &STEPS[..=step] {
        act(&first, &mut life);
    }
    end(&mut first, signal);

    let mut old: Vec<_> = [&life.held, &life.writing]
        .into_iter()
        .flatten()
        .map(|(object, _)| *object.id())
        .collect();
    old.sort_unstable();
    old.dedup();
    if !reconnect {
        check_what_is_held(&mut life);
        let start = Instant::now();
        for id in old.iter().chain([&AWAITED]) {
            assert!(is_disconnected(life.client.get(*id, 60_000)));
            for (name, _, call) in CALLS {
                assert!(is_disconnected(call(&life.client, *id)), "{name}");
            }
        }
        if let Some(waiter) = life.waiter.take() {
            assert!(is_disconnected(waiter.join().expect("it does not panic")));
        }
        assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
    }
    let second = place.start_store();
    let witness = second.client();
    check_what_is_held(&mut life);
    if let Some(notifications) = life.notifications.take() {
        let end = notifications.last().expect("it ends with an error");
        assert!(is_disconnected(end));
    }
    if reconnect {
        // What is gone is gone, and its id is free.
        assert!(life.client.list().expect("it goes on").is_empty());
        let left = life.client.contains_many(&old);
        assert!(left.expect("it goes on").is_empty());
        for id in &old {
            assert!(life.client.get(*id, 0).expect("it goes on").is_none());
            life.client
                .create_and_seal(*id, b"new", b"")
                .expect("there is room");
        }
        let name = "the survivor";
        let text = witness.debug_string().expect("the store answers");
        assert_eq!(text.contains(name), step > 0, "{text}");
        witness
            .create_and_seal(AWAITED, b"at last", b"")
            .expect("there is room");
    } else {
        assert!(is_disconnected(life.client.list()));
        assert!(is_disconnected(life.client.create(AWAITED, 1, b"")));
    }
    if let Some(waiter) = life.waiter.take() {
        let found = waiter.join().expect("it does not panic");
        let found = found.expect("it goes on").expect("it is sealed");
        assert_eq!(found.data(), b"at last");
    }
    // Dropped after all that, nothing of it reaches the second store.
    let mut kept = Vec::new();
    for id in old.iter().filter(|_| reconnect) {
        kept.extend(witness.get(*id, 0).expect("the store answers"));
    }
    drop(life);
    let infos = witness.list().expect("the store answers");
    assert!(
        infos
            .iter()
            .all(|info| info.ref_count == u32::from(info.id != AWAITED))
    );
    assert_eq!(infos.len(), kept.len() + usize::from(reconnect));
    drop(kept);
    let all: Vec<_> = infos.iter().map(|info| info.id).collect();
    witness.delete_many(&all).expect("the store answers");
    eventually("all is gone", || {
        debug_number(&witness, "allocated bytes") == 0
    });
}

fn end_at_each_step(signal: Signal) {
    within(LIMIT, move || {
        let place = Place::new();
        for how in &HOW {
            for (step, (name, _)) in STEPS.iter().enumerate() {
                println!("{name}, {how:?}");
                live_until(step, &place, how, signal);
            }
        }
    });
}

#[test]
fn killed_at_each_step_of_a_clients_life() {
    end_at_each_step(Signal::SIGKILL);
}

#[test]
fn told_to_end_at_each_step_of_a_clients_life() {
    end_at_each_step(Signal::SIGTERM);
}

/// What a call comes to whose store is killed while it is under way, where the client reconnects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    /// It is made once more, in a store without any objects.
    MadeAgain,
    Disconnected,
}

type Call = fn(&PlasmaClient, ObjectId) -> Result<bool, PlasmaError>;

/// Every call, and whether it may be made twice.
const CALLS: [(&str, Expected, Call); 15] = [
    ("create", Expected::Disconnected, |client, id| {
        client.create(id, 4, b"meta").map(|_| true)
    }),
    ("create_and_seal", Expected::Disconnected, |client, id| {
        client.create_and_seal(id, b"new", b"").map(|()| true)
    }),
    ("a batch", Expected::Disconnected, |client, id| {
        let batch = [(id, &b""[..], &b""[..])];
        client.create_and_seal_batch(&batch).map(|()| true)
    }),
    ("delete", Expected::Disconnected, |client, id| {
        client.delete(&id).map(|()| true)
    }),
    ("delete_many", Expected::Disconnected, |client, id| {
        client.delete_many(&[id]).map(|()| true)
    }),
    ("evict", Expected::Disconnected, |client, _| {
        client.evict(1).map(|_| true)
    }),
    ("set_options", Expected::Disconnected, |client, _| {
        client.set_options("late", 1000).map(|()| true)
    }),
    ("get", Expected::MadeAgain, |client, id| {
        Ok(client.get(id, 0)?.is_none())
    }),
    ("get with a timeout", Expected::MadeAgain, |client, id| {
        Ok(client.get(id, 1)?.is_none())
    }),
    ("get_many", Expected::MadeAgain, |client, id| {
        Ok(client.get_many(&[id], 0)?[0].is_none())
    }),
    ("contains", Expected::MadeAgain, |client, id| {
        Ok(!client.contains(&id)?)
    }),
    ("contains_many", Expected::MadeAgain, |client, id| {
        Ok(client.contains_many(&[id, id])?.is_empty())
    }),
    ("list", Expected::MadeAgain, |client, _| {
        Ok(client.list()?.is_empty())
    }),
    ("refresh", Expected::MadeAgain, |client, id| {
        client.refresh(&[id]).map(|()| true)
    }),
    ("debug_string", Expected::MadeAgain, |client, _| {
        Ok(client.debug_string()?.contains("allocated bytes: 0"))
    }),
];

/// Kills a client's store while the client waits for the answer to a call; what comes of the call.
/// Nothing where the client did not need the store for that: what it reads in shared memory.
fn cut_short(
    place: &Place,
    how: &How,
    call: impl FnOnce(PlasmaClient, ObjectBuffer, ObjectId) -> Result<bool, PlasmaError>
    + Send
    + 'static,
) -> Option<Result<bool, PlasmaError>> {
    let mut first = place.start_store();
    let client = how.connect(place);
    let id = new_object(&client, b"old");
    let writing = client.create(ObjectId::rand(), 3, b"");
    let mut writing = writing.expect("there is room");
    writing.data_mut().fill(1);
    first.signal(Signal::SIGSTOP);
    let calling = client.clone();
    let thread = under_way(move || call(calling, writing, id));
    let needs_the_store = !thread.is_finished();
    kill(&mut first);
    let second = place.start_store();
    let result = thread.join().expect("it does not panic");
    // Nothing was done there that was not asked for.
    let objects = second.client().list().expect("the store answers");
    assert!(objects.is_empty(), "{objects:?}");
    assert_eq!(client.list().is_ok(), how.reconnect);
    needs_the_store.then_some(result)
}

#[test]
fn killed_while_a_call_is_under_way() {
    within(LIMIT, || {
        let place = Place::new();
        for how in HOW {
            for (name, expected, call) in CALLS {
                let result = cut_short(&place, &how, move |client, writing, id| {
                    let result = call(&client, id);
                    drop(writing);
                    result
                });
                match (result, expected) {
                    (None, _) => assert!(how.way == Way::Shared, "{name} was not under way"),
                    (Some(result), Expected::MadeAgain) if how.reconnect => {
                        assert!(matches!(result, Ok(true)), "{name}: {result:?}");
                    }
                    (Some(result), _) => assert!(is_disconnected(result), "{name}"),
                }
            }
            let sealed = cut_short(&place, &how, |_, mut writing, _| {
                writing.seal().map(|()| true)
            });
            assert!(sealed.is_some_and(is_disconnected));
            let aborted = cut_short(&place, &how, |_, writing, _| writing.abort().map(|()| true));
            assert!(aborted.is_some_and(is_disconnected));
        }
    });
}

/// A store that breaks off, at a path that leads to a whole one by then.
struct BreaksOff {
    path: PathBuf,
    listener: UnixListener,
    whole: PathBuf,
}

impl BreaksOff {
    /// A path that leads to this one.
    fn new(folder: &Path, whole: &Path) -> Self {
        let path = folder.join("path");
        let listener = UnixListener::bind(folder.join("broken")).expect("a listener");
        Self {
            path,
            listener,
            whole: whole.to_owned(),
        }
    }

    fn lead_to(&self, socket: &Path) {
        let new = self.path.with_extension("new");
        symlink(socket, &new).expect("a link");
        std::fs::rename(new, &self.path).expect("a link");
    }

    /// Introduces itself to one client, and answers its next request with so much of a reply.
    fn serve(&self, reply: &[u8]) {
        let (socket, _) = self.listener.accept().expect("the client connects");
        let mut inbox = Inbox::new();
        hear(&socket, &mut inbox);
        let connect = Reply::Connect {
            memory_capacity: CAPACITY as i64,
            offer: None,
        };
        (&socket).write_all(&encoded(&connect)).expect("it reads");
        hear(&socket, &mut inbox);
        self.lead_to(&self.whole);
        (&socket).write_all(reply).expect("it reads");
    }
}

fn hear(socket: &UnixStream, inbox: &mut Inbox) {
    loop {
        match inbox
            .next_message(1 << 30)
            .expect("the client says it well")
        {
            Some((kind, body)) => {
                Request::decode(kind, body).expect("the client says it well");
                return;
            }
            None => {
                let ready = wait_ready(socket.as_fd(), PollFlags::POLLIN, Some(patience()));
                assert!(ready.expect("a socket"), "the client says nothing");
                let received = inbox.receive(socket.as_fd()).expect("a socket");
                assert_ne!(received, Received::End, "the client has left");
            }
        }
    }
}

fn encoded(reply: &Reply<'_>) -> Vec<u8> {
    let mut encoder = Encoder::new();
    let frame = encoder.reply(reply);
    [&frame.header, frame.body].concat()
}

/// A whole reply of each kind, to a request about one object.
fn reply_to(name: &str, id: ObjectId) -> Option<Reply<'static>> {
    use plasma_core::protocol::message::{ObjectSpec, SegmentRef};
    let spec = ObjectSpec {
        segment: 0,
        data_offset: 0,
        data_size: 4,
        metadata_offset: 4,
        metadata_size: 4,
        device_num: 0,
    };
    let segment = SegmentRef {
        segment: 0,
        mmap_size: 4096 + 8,
    };
    Some(match name {
        // Whole as they are, the segment's descriptor does not follow.
        "create" => Reply::Create {
            id,
            result: Ok((spec, segment)),
        },
        "get" | "get_many" => Reply::Get {
            objects: vec![(id, Some(spec))].into(),
            segments: vec![segment],
        },
        "create_and_seal" => Reply::CreateAndSeal(Ok(())),
        "a batch" => Reply::CreateAndSealBatch(Ok(())),
        "delete" | "delete_many" => Reply::Delete(vec![(id, Ok(()))].into()),
        "evict" => Reply::Evict { num_bytes: 1 },
        "contains" => Reply::Contains {
            id,
            has_object: true,
        },
        "list" => Reply::List(Vec::new()),
        "refresh" => Reply::RefreshLru,
        "debug_string" => Reply::GetDebugString("a text".into()),
        "set_options" => Reply::SetOptions(Ok(())),
        _ => return None,
    })
}

#[test]
fn killed_in_the_middle_of_a_reply() {
    within(2 * LIMIT, || {
        let folder = tempfile::tempdir().expect("a folder");
        let place = Place::new();
        let store = place.start_store();
        let witness = store.client();
        let broken = BreaksOff::new(folder.path(), store.socket());
        let id = ObjectId::rand();
        let mut tried = 0;
        for (name, expected, call) in CALLS {
            let Some(reply) = reply_to(name, id) else {
                continue;
            };
            let reply = encoded(&reply);
            // Whole only where a descriptor is still to come.
            let ends = reply.len() + usize::from(matches!(name, "create" | "get" | "get_many"));
            for end in (0..ends).step_by(5).chain([1, 23, 24, 25, ends - 1]) {
                for reconnect in [false, true] {
                    broken.lead_to(&folder.path().join("broken"));
                    let path = broken.path.clone();
                    let (result, client) = thread::scope(|scope| {
                        let client = scope.spawn(move || {
                            let builder = PlasmaClient::builder().reconnect(reconnect);
                            let client = builder.connect(path).expect("so far it is a store");
                            (call(&client, id), client)
                        });
                        broken.serve(&reply[..end]);
                        client.join().expect("it does not panic")
                    });
                    if reconnect && expected == Expected::MadeAgain {
                        assert!(matches!(result, Ok(true)), "{name}, {end}: {result:?}");
                    } else {
                        assert!(is_disconnected(result), "{name}, {end}");
                    }
                    assert_eq!(client.list().is_ok(), reconnect, "{name}, {end}");
                    assert!(witness.list().unwrap().is_empty(), "{name}, {end}");
                    tried += 1;
                }
            }
        }
        println!("{tried} replies that break off");
    });
}

/// What a client holds, with what is in it.
type Held = Vec<(ObjectBuffer, Vec<u8>)>;

type Act = fn(&PlasmaClient, &[ObjectId], &mut Held) -> Result<(), PlasmaError>;

/// What is worth keeping short, as there are many of them.
const SMALL: usize = 10_000;

fn small(seed: u8) -> Vec<u8> {
    vec![seed + 1; SMALL]
}

/// What goes through shared memory, step by step. Each asks the store at least once, and each can be
/// done in an empty store, too. What is found is kept.
const THROUGH_MEMORY: [Act; 8] = [
    |client, ids, held| {
        let found = client.get(ids[0], 0)?;
        held.extend(found.map(|object| (object, small(0))));
        Ok(())
    },
    |client, ids, held| {
        let found = client.get_many(&[ids[0], ids[1], ids[0]], 0)?;
        let contents = [0, 1, 0].map(small);
        let found = found.into_iter().zip(contents);
        held.extend(found.filter_map(|(object, content)| Some((object?, content))));
        Ok(())
    },
    |client, _, held| {
        let mut object = client.create(ObjectId::rand(), SMALL, b"")?;
        object.data_mut().copy_from_slice(&small(2));
        let sealed = object.seal();
        held.push((object, small(2)));
        sealed
    },
    |client, _, _| client.create_and_seal(ObjectId::rand(), b"small", b""),
    |client, _, _| {
        let batch = [(); 3].map(|()| (ObjectId::rand(), &b"small"[..], &b""[..]));
        client.create_and_seal_batch(&batch)
    },
    |client, ids, _| client.delete_many(ids),
    |client, _, held| {
        let asked = client.create(ObjectId::rand(), SMALL, b"")?.abort();
        // Of what is to be deleted.
        held.drain(..held.len().min(2));
        asked
    },
    |client, ids, _| client.contains(&ids[0]).map(|_| ()),
];

/// Ends the store behind the client's store to shared memory of this number; whether there is one.
fn end_behind(number: usize, place: &Place, reconnect: bool, signal: Signal) -> bool {
    let mut first = place.start_store();
    let client = Way::Shared.client(&place.socket, reconnect);
    let ids = [0, 1].map(|seed| new_object(&client, &small(seed)));
    let mut held = Held::new();
    // The second store, and when it was there.
    let second = Rc::new(RefCell::new(None));
    let mut stores = 0;
    let (theirs, socket) = (Rc::clone(&second), place.socket.clone());
    let visitor = move || {
        stores += 1;
        if stores == number {
            end(&mut first, signal);
            let second = StoreProcess::start_at(server_program(), &socket, CAPACITY, &[]);
            theirs.replace(Some((second, Instant::now())));
        }
    };
    let is_over = || second.borrow().is_some();
    crash::visited(visitor, || {
        for act in THROUGH_MEMORY {
            let was_over = is_over();
            let result = act(&client, &ids, &mut held);
            let right = match &result {
                // What is under way may have been done already.
                Ok(()) => !was_over || reconnect,
                Err(_) => is_over() && (!was_over || !reconnect) && is_disconnected(result),
            };
            assert!(right, "{number}, {signal}: {was_over}");
            assert!(
                held.iter()
                    .all(|(object, content)| object.data() == content)
            );
        }
        held.clear();
    });
    let Some((store, since)) = second.take() else {
        return false;
    };
    assert!(since.elapsed() < AT_ONCE, "{:?}", since.elapsed());
    assert_eq!(client.list().is_ok(), reconnect);
    let witness = store.client();
    let infos = witness.list().expect("the store answers");
    assert!(reconnect || infos.is_empty());
    let sealed = |info: &plasma_core::ObjectInfo| info.digest.is_some() && info.ref_count == 0;
    assert!(infos.iter().all(sealed), "{infos:?}");
    let sizes: u64 = infos.iter().map(|info| info.data_size).sum();
    assert_eq!(debug_number(&witness, "allocated bytes"), sizes);
    true
}

#[test]
fn ended_behind_each_store_to_shared_memory() {
    within(2 * LIMIT, || {
        let place = Place::new();
        for signal in [Signal::SIGKILL, Signal::SIGTERM] {
            for reconnect in [false, true] {
                let count = (1..)
                    .take_while(|n| end_behind(*n, &place, reconnect, signal))
                    .count();
                println!("{signal} behind {count} stores");
                assert!(count > 40);
            }
        }
    });
}
