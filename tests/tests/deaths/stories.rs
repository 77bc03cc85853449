//! What clients do before they are killed or stopped, step by step, and what has to be the case
//! afterwards.

use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;

use nix::sys::signal::Signal;
use plasma_core::protocol::message::{NewObject, Reply, Request};
use plasma_core::{ObjectId, PlasmaError, shm};
use tests::{debug_number, eventually};

use super::actor::{Halting, Library, Stage, hear_notification};
use super::clients::Scene;
use super::{CAPACITY, MIB, Way, under_way};

/// The objects that stories are about.
pub const ID: ObjectId = ObjectId::new([0xab; 20]);
pub const OTHER_ID: ObjectId = ObjectId::new([0xcd; 20]);

/// Large enough for the store to have to find memory for it.
const SIZE: usize = 4 << 20;

/// What goes through shared memory with its content.
const SMALL: usize = 16 << 10;

impl Way {
    /// The size of objects in stories.
    fn size(self) -> usize {
        match self {
            Self::Socket => SIZE,
            Self::Shared => SMALL,
        }
    }
}

/// What one client does, in a process of its own.
pub struct Story {
    /// Options of the store.
    pub options: &'static [&'static str],
    /// What the bystander does first.
    pub before: fn(&Scene),
    /// What the client does, which is all that is known of it at its end.
    pub by_socket: fn(Stage, &Path),
    /// The same, where it shares memory with the store.
    pub in_memory: fn(Stage, &Path),
    /// What the bystander does when the client has come to a step.
    pub meanwhile: fn(&Scene, &str),
    /// What has become of the object `ID`, which was not there before, by the steps that were
    /// reached; nothing where the story is not about that.
    pub fate: fn(Reached<'_>) -> Option<Fate>,
    /// What happens at the client's end without anybody asking the store for anything.
    pub unasked: fn(&Scene, Reached<'_>),
    /// What else is to be the case when all has been taken back.
    pub after: fn(&Scene, Reached<'_>),
}

/// What has become of an object whose creator is gone.
pub enum Fate {
    /// It is sealed, and this is in it.
    Sealed(Vec<u8>),
    /// It has never been.
    Gone,
    /// One or the other: the request was there, and nobody waited for its reply.
    Either(Vec<u8>),
}

/// The steps that a client reached.
#[derive(Clone, Copy)]
pub struct Reached<'a> {
    pub steps: &'a [String],
    pub way: Way,
}

impl Reached<'_> {
    pub fn has(self, step: &str) -> bool {
        self.steps.iter().any(|reached| reached == step)
    }

    /// Whether the store has been asked this; nothing where the client came no further than to some
    /// store to shared memory.
    fn asked(self, what: &str) -> Option<bool> {
        if self.has(&format!("the {what} request")) || self.has(&format!("the {what} reply")) {
            return Some(true);
        }
        let begun = format!(" of the {what}");
        let in_between = |step: &String| step.starts_with("store ") && step.ends_with(&begun);
        (!self.steps.iter().any(in_between)).then_some(false)
    }

    /// What has become of the object if this is what seals it.
    fn fate(self, what: &str, content: Vec<u8>) -> Option<Fate> {
        Some(match self.asked(what) {
            Some(true) => Fate::Sealed(content),
            Some(false) => Fate::Gone,
            None => Fate::Either(content),
        })
    }

    /// The same, where it takes the store some time.
    fn slow_fate(self, what: &str, content: Vec<u8>) -> Option<Fate> {
        let answered = |half: &str| self.has(&format!("{half}the {what} reply"));
        Some(match self.asked(what) {
            Some(false) => Fate::Gone,
            Some(true) if answered("") || answered("half of ") => Fate::Sealed(content),
            _ => Fate::Either(content),
        })
    }
}

const QUIET: Story = Story {
    options: &[],
    before: |_| {},
    by_socket: |_, _| {},
    in_memory: |_, _| {},
    meanwhile: |_, _| {},
    fate: |_| None,
    unasked: |_, _| {},
    after: |_, _| {},
};

/// What is in an object of this size.
fn content(size: usize) -> Vec<u8> {
    (0..size).map(|at| (at % 251) as u8).collect()
}

fn new_object(id: ObjectId, data: &[u8]) -> NewObject<'_> {
    NewObject {
        id,
        data,
        metadata: b"",
        digest: [7; 8],
    }
}

fn get(ids: &[ObjectId], timeout_ms: i64) -> Request<'_> {
    Request::Get {
        ids: ids.into(),
        timeout_ms,
    }
}

fn create(id: ObjectId, size: usize) -> Request<'static> {
    Request::Create {
        id,
        evict_if_full: true,
        data_size: size as u64,
        metadata_size: 0,
        device_num: 0,
    }
}

fn in_memory(stage: Stage, socket: &Path) -> Library {
    Library::connect(stage, socket, Way::Shared)
}

/// The first thing every client says.
pub const CONNECTS: Story = Story {
    by_socket: |stage, socket| {
        let client = Halting::connect(stage, socket);
        stage.reach("the connection");
        client.ask("connect", &Request::Connect { capabilities: 0 });
    },
    in_memory: |stage, socket| {
        let mut client = Halting::connect(stage, socket);
        stage.reach("the connection");
        let capabilities = shm::CAPABILITY;
        let reply = client.ask("connect", &Request::Connect { capabilities });
        let Reply::Connect {
            offer: Some((_, segments)),
            ..
        } = reply
        else {
            panic!("nothing is offered: {reply:?}")
        };
        for _ in segments {
            client.take_segment();
        }
        for number in 0..shm::Offer::DESCRIPTORS {
            client.take(&format!("descriptor {number} of the offer"));
        }
    },
    ..QUIET
};

/// Create, write, seal, release.
pub const CREATES: Story = Story {
    by_socket: |stage, socket| {
        let mut client = Halting::connect(stage, socket);
        let reply = client.ask("create", &create(ID, SIZE));
        let Reply::Create {
            result: Ok((spec, _)),
            ..
        } = reply
        else {
            panic!("it is not created: {reply:?}")
        };
        let segment = client.take_segment();
        let content = content(SIZE);
        let (half, rest) = content.split_at(SIZE / 2);
        let write = |bytes: &[u8], at: usize| {
            let at = spec.data_offset + at as u64;
            segment.write_all_at(bytes, at).expect("it can be written");
        };
        write(half, 0);
        stage.reach("half of the object");
        write(rest, SIZE / 2);
        stage.reach("the object");
        let digest = [7; 8];
        client.ask("seal", &Request::Seal { id: ID, digest });
        client.say("the release", &Request::Release(ID));
    },
    in_memory: |stage, socket| {
        let writer = in_memory(stage, socket);
        let mut object = writer.ask("create", |client| client.create(ID, SMALL, b""));
        let content = content(SMALL);
        let (half, rest) = object.data_mut().split_at_mut(SMALL / 2);
        half.copy_from_slice(&content[..SMALL / 2]);
        stage.reach("half of the object");
        rest.copy_from_slice(&content[SMALL / 2..]);
        stage.reach("the object");
        writer.ask("seal", |_| object.seal());
        writer.let_go(object);
    },
    fate: |reached| reached.fate("seal", content(reached.way.size())),
    ..QUIET
};

/// Create and think better of it.
pub const ABORTS: Story = Story {
    by_socket: |stage, socket| {
        let mut client = Halting::connect(stage, socket);
        client.ask("create", &create(ID, SIZE));
        client.take_segment();
        client.ask("abort", &Request::Abort(ID));
    },
    in_memory: |stage, socket| {
        let writer = in_memory(stage, socket);
        let object = writer.ask("create", |client| client.create(ID, SMALL, b""));
        writer.ask("abort", |_| object.abort());
    },
    fate: |_| Some(Fate::Gone),
    ..QUIET
};

/// An object with its content in one request.
pub const SENDS: Story = Story {
    by_socket: |stage, socket| {
        let client = Halting::connect(stage, socket);
        let content = content(SIZE);
        let request = Request::CreateAndSeal {
            object: new_object(ID, &content),
            evict_if_full: true,
        };
        client.ask("object's", &request);
    },
    in_memory: |stage, socket| {
        let content = content(SMALL);
        let writer = in_memory(stage, socket);
        writer.ask("object's", |client| {
            client.create_and_seal(ID, &content, b"")
        });
    },
    fate: |reached| reached.slow_fate("object's", content(reached.way.size())),
    ..QUIET
};

/// Many objects in one request: all of them, or none.
pub const BATCHES: Story = Story {
    by_socket: |stage, socket| {
        let client = Halting::connect(stage, socket);
        let content = content(SIZE / 4);
        let objects = vec![new_object(ID, &content), new_object(OTHER_ID, &content)];
        let request = Request::CreateAndSealBatch {
            objects: objects.into(),
            evict_if_full: true,
        };
        client.ask("batch", &request);
    },
    in_memory: |stage, socket| {
        let content = content(SMALL / 4);
        // More than the store is told of at once.
        let more = (0..20_u32).map(|n| ObjectId::from_name(&n.to_string()));
        let ids = [ID].into_iter().chain(more).chain([OTHER_ID]);
        let batch: Vec<_> = ids.map(|id| (id, &content[..], &b""[..])).collect();
        let writer = in_memory(stage, socket);
        writer.ask("batch", |client| client.create_and_seal_batch(&batch));
    },
    fate: |reached| reached.slow_fate("batch", content(reached.way.size() / 4)),
    after: |scene, reached| {
        let content = content(reached.way.size() / 4);
        let first = scene.content(ID).expect("it was put there, if not before");
        let other = scene.content(OTHER_ID);
        // The bystander puts its own there where the batch has not come to anything.
        assert_eq!(first == content, other.is_some());
        assert!(other.is_none_or(|other| other == first));
    },
    ..QUIET
};

/// Get, read, release; the object is deleted while it is read.
pub const GETS: Story = Story {
    before: |scene| scene.put(ID, &content(SIZE)),
    by_socket: |stage, socket| {
        let mut client = Halting::connect(stage, socket);
        let reply = client.ask("get", &get(&[ID], 0));
        let Reply::Get { objects, .. } = &reply else {
            panic!("another reply than a get's")
        };
        let spec = objects[0].1.expect("it is there");
        let segment = client.take_segment();
        let mut read = vec![0; SIZE];
        let (half, rest) = read.split_at_mut(SIZE / 2);
        let at = spec.data_offset;
        segment.read_exact_at(half, at).expect("it can be read");
        stage.reach("half of the object");
        let at = at + half.len() as u64;
        segment.read_exact_at(rest, at).expect("it can be read");
        assert_eq!(read, content(SIZE));
        stage.reach("the object");
        client.say("the release", &Request::Release(ID));
    },
    in_memory: |stage, socket| {
        let reader = in_memory(stage, socket);
        let object = reader.get(ID);
        let content = content(SIZE);
        let (half, rest) = object.data().split_at(SIZE / 2);
        assert!(half == &content[..SIZE / 2]);
        stage.reach("half of the object");
        assert!(rest == &content[SIZE / 2..]);
        stage.reach("the object");
        reader.let_go(object);
    },
    meanwhile: |scene, step| {
        if step == "half of the object" {
            scene.client.delete(&ID).expect("the store answers");
            // It stays as long as it is held.
            assert_eq!(scene.client.list().expect("the store answers").len(), 1);
        }
    },
    unasked: |scene, reached| {
        if reached.has("half of the object") {
            scene.hear_of_the_end(&[ID]);
        }
    },
    after: |scene, reached| {
        let deleted = reached.has("half of the object");
        assert_eq!(scene.content(ID).is_none(), deleted);
    },
    ..QUIET
};

/// A get that waits for one object of two, until the bystander seals it.
pub const WAITS: Story = Story {
    before: |scene| scene.put(OTHER_ID, b"there"),
    by_socket: |stage, socket| {
        let mut client = Halting::connect(stage, socket);
        client.say("the get request", &get(&[ID, OTHER_ID], -1));
        stage.reach("waiting");
        client.hear("the get reply");
        client.take_segment();
        client.say("the release", &Request::Release(ID));
        client.say("the other release", &Request::Release(OTHER_ID));
    },
    in_memory: |stage, socket| {
        let reader = in_memory(stage, socket);
        let waiting = reader.client.clone();
        let waiter = under_way(move || waiting.get_many(&[ID, OTHER_ID], -1));
        stage.reach("the get request");
        stage.reach("waiting");
        let found = waiter.join().expect("it does not panic");
        let found = found.expect("the store answers");
        stage.reach("the get reply");
        for object in found {
            let object = object.expect("it is sealed");
            let expected = [&b"there"[..], b"the bystander's"][usize::from(*object.id() == ID)];
            assert_eq!(object.data(), expected);
            reader.let_go(object);
        }
    },
    meanwhile: |scene, step| {
        if step == "the get request" && scene.way == Way::Shared {
            // The bystander's four, the client's, and one for its wait.
            eventually("the store has been asked", || scene.store.sockets() == 6);
        }
        if step == "waiting" {
            scene.put(ID, b"the bystander's");
        }
    },
    fate: |reached| {
        Some(if reached.has("waiting") {
            Fate::Sealed(b"the bystander's".to_vec())
        } else {
            Fate::Gone
        })
    },
    ..QUIET
};

/// A subscription whose notifications nobody reads, and more of them than a socket holds.
pub const SUBSCRIBES: Story = Story {
    by_socket: |stage, socket| {
        let client = Halting::connect(stage, socket);
        client.say("the subscription", &Request::Subscribe);
        let (mut ours, theirs) = UnixStream::pair().expect("a pair of sockets");
        client
            .client()
            .send_descriptors(&[0], &[theirs.as_fd()])
            .expect("the store reads");
        drop(theirs);
        stage.reach("its stream");
        hear_notification(stage, &mut ours);
        drop(ours);
        stage.reach("its stream's end");
    },
    in_memory: |stage, socket| {
        let listener = in_memory(stage, socket);
        let mut heard = listener.ask("subscription", |client| client.subscribe());
        stage.reach("its stream");
        heard.recv().expect("the store answers");
        stage.reach("a notification");
        drop(heard);
        stage.reach("its stream's end");
    },
    meanwhile: |scene, step| {
        if step == "its stream" {
            let ids: Vec<_> = (0..2000_u32)
                .map(|n| ObjectId::from_name(&n.to_string()))
                .collect();
            let batch: Vec<_> = ids.iter().map(|id| (*id, &b""[..], &b""[..])).collect();
            let client = &scene.client;
            client.create_and_seal_batch(&batch).expect("there is room");
            client.delete_many(&ids).expect("the store answers");
        }
    },
    ..QUIET
};

/// Two objects are deleted, of which the bystander holds one.
pub const DELETES: Story = Story {
    before: |scene| {
        scene.put(ID, &content(1000));
        scene.put(OTHER_ID, &content(1000));
        scene.hold(OTHER_ID);
    },
    by_socket: |stage, socket| {
        let client = Halting::connect(stage, socket);
        let ids = vec![ID, OTHER_ID];
        client.ask("delete", &Request::Delete(ids.into()));
    },
    in_memory: |stage, socket| {
        let client = in_memory(stage, socket);
        client.ask("delete", |client| client.delete_many(&[ID, OTHER_ID]));
    },
    after: |scene, reached| {
        // What was held has been let go of by now, and went with that.
        let deleted = [ID, OTHER_ID].map(|id| scene.content(id).is_none());
        let expected = reached.asked("delete").unwrap_or(deleted[0]);
        assert_eq!(deleted, [expected; 2]);
    },
    ..QUIET
};

/// Memory set apart, and objects in it: one sealed, one not.
pub const HAS_A_QUOTA: Story = Story {
    by_socket: |stage, socket| {
        let mut client = Halting::connect(stage, socket);
        let options = Request::SetOptions {
            client_name: "the one who dies".into(),
            quota_bytes: CAPACITY as i64 / 2,
        };
        assert_eq!(client.ask("quota", &options), Reply::SetOptions(Ok(())));
        client.ask("create", &create(ID, SIZE));
        client.take_segment();
        let digest = [7; 8];
        client.ask("seal", &Request::Seal { id: ID, digest });
        client.say("the release", &Request::Release(ID));
        client.ask("other create", &create(OTHER_ID, SIZE));
    },
    in_memory: |stage, socket| {
        let client = in_memory(stage, socket);
        client.ask("quota", |client| {
            client.set_options("the one who dies", CAPACITY / 2)
        });
        let mut object = client.ask("create", |client| client.create(ID, SMALL, b""));
        client.ask("seal", |_| object.seal());
        client.let_go(object);
        let other = client.ask("other create", |client| client.create(OTHER_ID, SMALL, b""));
        stage.reach("another object");
        drop(other);
    },
    after: |scene, reached| {
        let sealed = scene.content(ID).is_some();
        assert_eq!(sealed, reached.asked("seal").unwrap_or(sealed));
        assert!(scene.content(OTHER_ID).is_none());
        assert_eq!(debug_number(&scene.client, "num clients with quota"), 0);
        assert_eq!(
            debug_number(&scene.client, "(global lru) capacity"),
            CAPACITY
        );
    },
    ..QUIET
};

/// A reply so long that the store is still writing it when the client goes.
pub const LISTS: Story = Story {
    before: |scene| {
        let batch: Vec<_> = (0..20_000_u32)
            .map(|n| (ObjectId::from_name(&n.to_string()), &b""[..], &b""[..]))
            .collect();
        let client = &scene.client;
        client.create_and_seal_batch(&batch).expect("there is room");
    },
    by_socket: |stage, socket| {
        let client = Halting::connect(stage, socket);
        client.say("the list request", &Request::List);
        let bytes = client.hear_bytes("the list reply");
        assert!(bytes.len() > 1 << 20, "it fits into the socket");
    },
    in_memory: |stage, socket| {
        let client = in_memory(stage, socket);
        let all = client.ask("list", |client| client.list());
        assert_eq!(all.len(), 20_000);
    },
    after: |scene, _| {
        let all = scene.client.list().expect("the store answers");
        assert_eq!(all.len(), 20_000);
    },
    ..QUIET
};

/// Everything is evicted that nobody holds.
pub const EVICTS: Story = Story {
    before: |scene| {
        scene.put(ID, &content(1000));
        scene.put(OTHER_ID, &content(1000));
        scene.hold(OTHER_ID);
    },
    by_socket: |stage, socket| {
        let client = Halting::connect(stage, socket);
        client.ask(
            "evict",
            &Request::Evict {
                num_bytes: u64::MAX,
            },
        );
    },
    in_memory: |stage, socket| {
        let client = in_memory(stage, socket);
        client.ask("evict", |client| client.evict(u64::MAX));
    },
    after: |scene, reached| {
        let evicted = reached.asked("evict") == Some(true);
        assert_eq!(scene.content(ID).is_none(), evicted);
        assert!(scene.content(OTHER_ID).is_some());
    },
    ..QUIET
};

/// Several buffers of two objects, of which one is deleted while the store is filled with others.
pub const HOLDS: Story = Story {
    before: |scene| {
        scene.put(ID, &content(MIB as usize));
        scene.put(OTHER_ID, &content(MIB as usize));
    },
    by_socket: |stage, socket| hold(&Library::connect(stage, socket, Way::Socket)),
    in_memory: |stage, socket| hold(&Library::connect(stage, socket, Way::Shared)),
    meanwhile: |scene, step| {
        if step != "several buffers" {
            return;
        }
        let client = &scene.client;
        client.delete(&ID).expect("the store answers");
        let half = || client.create(ObjectId::rand(), CAPACITY as usize / 2, b"");
        let first = half().expect("there is room");
        let full = half().expect_err("two objects are held");
        assert!(matches!(full, PlasmaError::OutOfMemory { .. }), "{full}");
        drop(first);
        client.evict(u64::MAX).expect("the store answers");
        let all = client.list().expect("the store answers");
        let mut held: Vec<_> = all.iter().map(|info| (info.id, info.ref_count)).collect();
        held.sort_unstable();
        assert_eq!(held, [(ID, 1), (OTHER_ID, 1)]);
    },
    unasked: |scene, reached| {
        if reached.has("several buffers") {
            scene.hear_of_the_end(&[ID]);
        }
    },
    after: |scene, reached| {
        let deleted = reached.has("several buffers");
        assert_eq!(scene.content(ID).is_none(), deleted);
        assert!(scene.content(OTHER_ID).is_some());
    },
    ..QUIET
};

fn hold(reader: &Library) {
    let found = reader.ask("get", |client| client.get_many(&[ID, OTHER_ID, ID], 0));
    let mut held: Vec<_> = found.into_iter().flatten().collect();
    held.push(reader.get(ID));
    held.push(held[0].share());
    reader.stage.reach("several buffers");
    let content = content(MIB as usize);
    while let Some(object) = held.pop() {
        assert!(
            held.iter()
                .chain([&object])
                .all(|object| object.data() == content)
        );
        reader.let_go(object);
    }
}

/// Get more objects in one call than there are pins for: the others are counted by the store. All of
/// them are deleted while they are held.
pub const HOLDS_MORE_THAN_IT_HAS_PINS: Story = Story {
    options: &["--max-pins", "5"],
    before: |scene| {
        for id in many_ids() {
            scene.put(id, &content(1000));
        }
    },
    by_socket: |stage, socket| hold_many(&Library::connect(stage, socket, Way::Socket)),
    in_memory: |stage, socket| hold_many(&Library::connect(stage, socket, Way::Shared)),
    meanwhile: |scene, step| {
        if step != "the objects" {
            return;
        }
        let client = &scene.client;
        client.delete_many(&many_ids()).expect("the store answers");
        client.evict(u64::MAX).expect("the store answers");
        let all = client.list().expect("the store answers");
        assert_eq!(all.len(), many_ids().len());
        assert!(all.iter().all(|info| info.ref_count == 1), "{all:?}");
    },
    unasked: |scene, reached| {
        if reached.has("the objects") {
            scene.hear_of_the_end(&many_ids());
        }
    },
    after: |scene, reached| {
        let deleted = reached.has("the objects");
        let gone = many_ids().map(|id| scene.content(id).is_none());
        assert_eq!(gone, [deleted; 8]);
    },
    ..QUIET
};

fn many_ids() -> [ObjectId; 8] {
    std::array::from_fn(|n| ObjectId::from_name(&n.to_string()))
}

fn hold_many(reader: &Library) {
    let found = reader.ask("get", |client| client.get_many(&many_ids(), 0));
    let held: Vec<_> = found.into_iter().flatten().collect();
    reader.stage.reach("the objects");
    let content = content(1000);
    assert_eq!(held.len(), many_ids().len());
    assert!(held.iter().all(|object| object.data() == content));
    reader.ask("release", |_| {
        drop(held);
        Ok(())
    });
}

/// Requests of all kinds that the store has not looked at when their client goes: it stands still.
pub const IS_NOT_HEARD: Story = Story {
    before: |scene| scene.put(OTHER_ID, &content(SMALL)),
    by_socket: |stage, socket| ask_unheard(stage, socket, Way::Socket),
    in_memory: |stage, socket| ask_unheard(stage, socket, Way::Shared),
    meanwhile: |scene, step| {
        if step == "ready" {
            scene.store.signal(Signal::SIGSTOP);
        }
    },
    fate: |reached| {
        Some(if reached.has("asked") {
            Fate::Either(content(SMALL))
        } else {
            Fate::Gone
        })
    },
    after: |scene, reached| {
        let sealed = |id: &ObjectId| scene.content(*id).is_some_and(|data| data == content(1000));
        let batch = unheard_ids().map(|id| sealed(&id));
        assert!(batch.iter().all(|one| *one == batch[0]), "{batch:?}");
        // It is the bystander's, who has put it there before.
        let deleted = scene.content(OTHER_ID).is_none();
        assert!(reached.has("asked") || !deleted && !batch[0]);
        assert!(scene.content(ObjectId::from_name("created")).is_none());
    },
    ..QUIET
};

/// Those of a batch.
fn unheard_ids() -> [ObjectId; 40] {
    std::array::from_fn(|n| ObjectId::from_name(&n.to_string()))
}

fn ask_unheard(stage: Stage, socket: &Path, way: Way) {
    // A client has one request under way at a time.
    let [sealing, putting, deleting, creating] = [(); 4].map(|()| way.client(socket, false));
    let object = deleting.get(OTHER_ID, 0).expect("the store answers");
    let mut own = sealing.create(ID, SMALL, b"").expect("there is room");
    own.data_mut().copy_from_slice(&content(SMALL));
    stage.reach("ready");
    let seal = under_way(move || own.seal());
    let put = under_way(move || {
        let content = content(1000);
        putting.create_and_seal_batch(&unheard_ids().map(|id| (id, &content[..], &b""[..])))
    });
    let delete = under_way(move || deleting.delete(&OTHER_ID));
    let create = under_way(move || {
        let created = creating.create(ObjectId::from_name("created"), SMALL, b"");
        created.map(|_| ())
    });
    for call in [seal, put, delete, create] {
        assert!(!call.is_finished(), "the store does not answer");
    }
    stage.reach("asked");
    drop(object);
}

/// This project's client, doing all of it.
pub const USES_THE_LIBRARY: Story = Story {
    before: |scene| scene.put(OTHER_ID, b"there"),
    by_socket: |stage, socket| use_the_library(stage, socket, Way::Socket),
    in_memory: |stage, socket| use_the_library(stage, socket, Way::Shared),
    fate: |reached| {
        Some(if reached.has("its seal") {
            Fate::Sealed(content(reached.way.size()))
        } else {
            Fate::Gone
        })
    },
    after: |scene, reached| {
        assert_eq!(scene.content(OTHER_ID).is_none(), reached.has("its delete"));
        let left = scene.client.list().expect("the store answers").len();
        let expected = 2 + usize::from(reached.has("its batch"));
        assert_eq!(left, expected - usize::from(reached.has("its delete")));
        eventually("its name is forgotten", || {
            let text = scene.client.debug_string().expect("the store answers");
            !text.contains("the one who dies")
        });
    },
    ..QUIET
};

fn use_the_library(stage: Stage, socket: &Path, way: Way) {
    let (client, size) = (way.client(socket, false), way.size());
    client
        .set_options("the one who dies", CAPACITY / 2)
        .expect("there is room for a quota");
    stage.reach("its quota");
    let mut notifications = client.subscribe().expect("the store answers");
    stage.reach("its subscription");
    let mut object = client.create(ID, size, b"").expect("there is room");
    stage.reach("its creation");
    let content = content(size);
    let (half, rest) = object.data_mut().split_at_mut(size / 2);
    half.copy_from_slice(&content[..size / 2]);
    stage.reach("half of the object");
    rest.copy_from_slice(&content[size / 2..]);
    stage.reach("the object");
    object.seal().expect("the store answers");
    stage.reach("its seal");
    let found = client.get_many(&[ID, OTHER_ID, ID], 0);
    let found = found.expect("the store answers");
    let shared = object.share();
    stage.reach("its gets");
    drop(object);
    stage.reach("its first drop");
    let waiting = client.clone();
    // Whatever becomes of that get: nobody seals what it waits for.
    thread::spawn(move || waiting.get(ObjectId::rand(), -1));
    stage.reach("its wait");
    let batch = [(ObjectId::rand(), &b"one"[..], &b""[..])];
    client.create_and_seal_batch(&batch).expect("there is room");
    stage.reach("its batch");
    notifications.recv().expect("the store answers");
    stage.reach("its notification");
    client.delete(&OTHER_ID).expect("the store answers");
    stage.reach("its delete");
    let abandoned = client.create(ObjectId::rand(), size, b"");
    drop(abandoned.expect("there is room"));
    stage.reach("its abort");
    drop((found, shared));
    stage.reach("its last drop");
}
