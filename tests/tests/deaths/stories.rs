//! What clients do before they are killed or stopped, step by step, and what has to be the case
//! afterwards.

use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;

use plasma_core::protocol::message::{NewObject, Reply, Request};
use plasma_core::{ObjectId, PlasmaClient};
use tests::{debug_number, eventually};

use super::CAPACITY;
use super::actor::{Halting, Stage, hear_notification};
use super::clients::Scene;

/// The objects that stories are about.
pub const ID: ObjectId = ObjectId::new([0xab; 20]);
pub const OTHER_ID: ObjectId = ObjectId::new([0xcd; 20]);

/// Large enough for the store to have to find memory for it.
const SIZE: usize = 4 << 20;

/// What one client does, in a process of its own.
pub struct Story {
    /// What the bystander does first.
    pub before: fn(&Scene),
    /// What the client does, which is all that is known of it at its end.
    pub act: fn(Stage, &Path),
    /// What the bystander does when the client has come to a step.
    pub meanwhile: fn(&Scene, &str),
    /// What has become of the object `ID`, which was not there before, by the steps that were
    /// reached; nothing where the story is not about that.
    pub fate: fn(Reached<'_>) -> Option<Fate>,
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
pub struct Reached<'a>(pub &'a [String]);

impl Reached<'_> {
    pub fn has(self, step: &str) -> bool {
        self.0.iter().any(|reached| reached == step)
    }
}

const QUIET: Story = Story {
    before: |_| {},
    act: |_, _| {},
    meanwhile: |_, _| {},
    fate: |_| None,
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

fn connect(socket: &Path) -> PlasmaClient {
    let builder = PlasmaClient::builder().retries(0);
    builder.connect(socket).expect("the store is there")
}

/// The first thing every client says.
pub const CONNECTS: Story = Story {
    act: |stage, socket| {
        let client = Halting::connect(stage, socket);
        stage.reach("the connection");
        client.ask("connect", &Request::Connect { capabilities: 0 });
    },
    ..QUIET
};

/// Create, write, seal, release.
pub const CREATES: Story = Story {
    act: |stage, socket| {
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
    fate: |reached| {
        Some(if reached.has("the seal request") {
            Fate::Sealed(content(SIZE))
        } else {
            Fate::Gone
        })
    },
    ..QUIET
};

/// Create and think better of it.
pub const ABORTS: Story = Story {
    act: |stage, socket| {
        let mut client = Halting::connect(stage, socket);
        client.ask("create", &create(ID, SIZE));
        client.take_segment();
        client.ask("abort", &Request::Abort(ID));
    },
    fate: |_| Some(Fate::Gone),
    ..QUIET
};

/// An object with its content in one request.
pub const SENDS: Story = Story {
    act: |stage, socket| {
        let client = Halting::connect(stage, socket);
        let content = content(SIZE);
        let request = Request::CreateAndSeal {
            object: new_object(ID, &content),
            evict_if_full: true,
        };
        client.ask("object's", &request);
    },
    fate: |reached| {
        Some(if reached.has("half of the object's reply") {
            Fate::Sealed(content(SIZE))
        } else if reached.has("the object's request") {
            Fate::Either(content(SIZE))
        } else {
            Fate::Gone
        })
    },
    ..QUIET
};

/// Many objects in one request: all of them, or none.
pub const BATCHES: Story = Story {
    act: |stage, socket| {
        let client = Halting::connect(stage, socket);
        let content = content(SIZE / 4);
        let objects = vec![new_object(ID, &content), new_object(OTHER_ID, &content)];
        let request = Request::CreateAndSealBatch {
            objects: objects.into(),
            evict_if_full: true,
        };
        client.ask("batch", &request);
    },
    fate: |reached| {
        Some(if reached.has("half of the batch reply") {
            Fate::Sealed(content(SIZE / 4))
        } else if reached.has("the batch request") {
            Fate::Either(content(SIZE / 4))
        } else {
            Fate::Gone
        })
    },
    after: |scene, _| {
        let first = scene.content(ID).expect("it was put there, if not before");
        let other = scene.content(OTHER_ID);
        // The bystander puts its own there where the batch has not come to anything.
        assert_eq!(first == content(SIZE / 4), other.is_some());
        assert!(other.is_none_or(|other| other == first));
    },
    ..QUIET
};

/// Get, read, release; the object is deleted while it is read.
pub const GETS: Story = Story {
    before: |scene| scene.put(ID, &content(SIZE)),
    act: |stage, socket| {
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
    meanwhile: |scene, step| {
        if step == "half of the object" {
            scene.client.delete(&ID).expect("the store answers");
            // It stays as long as it is held.
            assert_eq!(scene.client.list().expect("the store answers").len(), 1);
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
    act: |stage, socket| {
        let mut client = Halting::connect(stage, socket);
        client.say("the get request", &get(&[ID, OTHER_ID], -1));
        stage.reach("waiting");
        client.hear("the get reply");
        client.take_segment();
        client.say("the release", &Request::Release(ID));
        client.say("the other release", &Request::Release(OTHER_ID));
    },
    meanwhile: |scene, step| {
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
    act: |stage, socket| {
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
    act: |stage, socket| {
        let client = Halting::connect(stage, socket);
        let ids = vec![ID, OTHER_ID];
        client.ask("delete", &Request::Delete(ids.into()));
    },
    after: |scene, reached| {
        // What was held has been let go of by now, and went with that.
        let deleted = reached.has("the delete request");
        for id in [ID, OTHER_ID] {
            assert_eq!(scene.content(id).is_none(), deleted, "{id}");
        }
    },
    ..QUIET
};

/// Memory set apart, and objects in it: one sealed, one not.
pub const HAS_A_QUOTA: Story = Story {
    act: |stage, socket| {
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
    after: |scene, reached| {
        let sealed = reached.has("the seal request");
        assert_eq!(scene.content(ID).is_some(), sealed);
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
    act: |stage, socket| {
        let client = Halting::connect(stage, socket);
        client.say("the list request", &Request::List);
        let bytes = client.hear_bytes("the list reply");
        assert!(bytes.len() > 1 << 20, "it fits into the socket");
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
    act: |stage, socket| {
        let client = Halting::connect(stage, socket);
        client.ask(
            "evict",
            &Request::Evict {
                num_bytes: u64::MAX,
            },
        );
    },
    after: |scene, reached| {
        let evicted = reached.has("the evict request");
        assert_eq!(scene.content(ID).is_none(), evicted);
        assert!(scene.content(OTHER_ID).is_some());
    },
    ..QUIET
};

/// This project's client, doing all of it.
pub const USES_THE_LIBRARY: Story = Story {
    before: |scene| scene.put(OTHER_ID, b"there"),
    act: |stage, socket| {
        let client = connect(socket);
        client
            .set_options("the one who dies", CAPACITY / 2)
            .expect("there is room for a quota");
        stage.reach("its quota");
        let mut notifications = client.subscribe().expect("the store answers");
        stage.reach("its subscription");
        let mut object = client.create(ID, SIZE, b"").expect("there is room");
        stage.reach("its creation");
        let content = content(SIZE);
        let (half, rest) = object.data_mut().split_at_mut(SIZE / 2);
        half.copy_from_slice(&content[..SIZE / 2]);
        stage.reach("half of the object");
        rest.copy_from_slice(&content[SIZE / 2..]);
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
        let abandoned = client.create(ObjectId::rand(), SIZE, b"");
        drop(abandoned.expect("there is room"));
        stage.reach("its abort");
        drop((found, shared));
        stage.reach("its last drop");
    },
    fate: |reached| {
        Some(if reached.has("its seal") {
            Fate::Sealed(content(SIZE))
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
