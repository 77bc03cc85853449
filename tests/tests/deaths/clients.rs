//! A client goes through a story, and at each step of it is killed, or stopped and woken again.
//!
//! Killed, it costs nobody anything: every byte it held is back, every waiter has what there is to
//! have and otherwise waits on, and subscribers hear of what is so. Stopped, it slows nobody down,
//! and goes on afterwards as if nothing had been.
//!
//! Each story is told of a client that uses the socket alone, where the steps are halves of messages,
//! and of one that shares memory with the store, where they are its stores to that memory.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use plasma_core::{Notification, Notifications, ObjectBuffer, ObjectId, PlasmaClient, PlasmaError};
use tests::{StoreProcess, debug_number, eventually, patience, role, within};

use super::actor::{Actor, Stage};
use super::stories::{self, Fate, ID, Reached, Story};
use super::{CAPACITY, LIMIT, Way};

macro_rules! clients {
    ($($name:ident: $story:ident),+ $(,)?) => { $(
        mod $name {
            use super::*;

            one_way!(by_socket: Way::Socket, stories::$story);
            one_way!(in_memory: Way::Shared, stories::$story);
        }
    )+ };
}

macro_rules! one_way {
    ($name:ident: $way:expr, $story:expr) => {
        mod $name {
            use super::*;

            #[test]
            fn killed_at_each_step() {
                let this = concat!(module_path!(), "::killed_at_each_step");
                play(this, $way, &$story, kill_at_each_step);
            }

            #[test]
            fn stopped_at_each_step() {
                let this = concat!(module_path!(), "::stopped_at_each_step");
                play(this, $way, &$story, stop_at_each_step);
            }
        }
    };
}

clients! {
    connecting: CONNECTS,
    creating: CREATES,
    aborting: ABORTS,
    sending: SENDS,
    batching: BATCHES,
    getting: GETS,
    waiting: WAITS,
    subscribing: SUBSCRIBES,
    deleting: DELETES,
    with_a_quota: HAS_A_QUOTA,
    listing: LISTS,
    evicting: EVICTS,
    holding: HOLDS,
    holding_more_than_it_has_pins: HOLDS_MORE_THAN_IT_HAS_PINS,
    using_the_library: USES_THE_LIBRARY,
}

/// These are only killed: where the store stands still, everybody waits for it.
mod asking_a_store_that_stands_still {
    use super::*;

    #[test]
    fn killed_by_socket() {
        let this = concat!(module_path!(), "::killed_by_socket");
        play(this, Way::Socket, &stories::IS_NOT_HEARD, kill_at_each_step);
    }

    #[test]
    fn killed_in_memory() {
        let this = concat!(module_path!(), "::killed_in_memory");
        play(this, Way::Shared, &stories::IS_NOT_HEARD, kill_at_each_step);
    }
}

fn play(
    this: &'static str,
    way: Way,
    story: &'static Story,
    direct: fn(&Scene, &'static str, &Story),
) {
    if let Some((_, socket)) = role() {
        match way {
            Way::Socket => (story.by_socket)(Stage, &socket),
            Way::Shared => (story.in_memory)(Stage, &socket),
        }
        return Stage.end();
    }
    let (_, this) = this.split_once("::").expect("it is in this program");
    within(2 * LIMIT, move || {
        direct(&Scene::new(way, story.options), this, story);
    });
}

fn kill_at_each_step(scene: &Scene, this: &'static str, story: &Story) {
    for kill_at in 0.. {
        let run = scene.begin(story);
        let mut actor = Actor::start(this, "actor", scene.store.socket());
        let mut over = false;
        for at in 0..=kill_at {
            let Some(step) = actor.next_step() else {
                over = true;
                break;
            };
            (story.meanwhile)(scene, step);
            if at < kill_at {
                actor.go_on();
            }
        }
        if over {
            actor.wait();
            println!("steps: {:?}", actor.reached());
        } else {
            actor.kill();
        }
        scene.finish(story, scene.reached(actor.reached()), run);
        if over {
            assert!(kill_at > 0, "a story has steps");
            return;
        }
    }
}

fn stop_at_each_step(scene: &Scene, this: &'static str, story: &Story) {
    let run = scene.begin(story);
    let mut actor = Actor::start(this, "actor", scene.store.socket());
    let mut longest = Duration::ZERO;
    while let Some(step) = actor.next_step().map(str::to_owned) {
        actor.signal(Signal::SIGSTOP);
        eventually("it stands still", || actor.is_stopped());
        let start = Instant::now();
        (story.meanwhile)(scene, &step);
        let meanwhile = start.elapsed();
        assert!(meanwhile < patience() / 4, "{meanwhile:?}");
        longest = longest.max(scene.longest_round());
        actor.signal(Signal::SIGCONT);
        actor.go_on();
    }
    actor.wait();
    println!("the others' longest round of 5 calls: {longest:?}");
    scene.finish(story, scene.reached(actor.reached()), run);
}

/// A store, and a client that nothing happens to.
pub struct Scene {
    pub store: StoreProcess,
    pub client: PlasmaClient,
    /// How the client of the story talks to the store.
    pub way: Way,
    /// What the store has open when there is only the bystander.
    descriptors: usize,
    heard: RefCell<Notifications>,
    /// What is there, by what was heard.
    there: RefCell<BTreeSet<ObjectId>>,
    held: RefCell<Vec<ObjectBuffer>>,
}

/// What the bystander waits for during one run of a story.
struct Run {
    waiter: Option<thread::JoinHandle<Vec<u8>>>,
}

impl Scene {
    fn new(way: Way, options: &[&str]) -> Self {
        let store = StoreProcess::start(CAPACITY, options);
        let client = store.client();
        let heard = client.subscribe().expect("the store answers");
        // The connection on which gets wait is kept for the next that has to.
        assert!(client.get(ID, 1).expect("the store answers").is_none());
        eventually("nobody else is there", || store.sockets() == 4);
        Self {
            descriptors: store.descriptors(),
            store,
            client,
            way,
            heard: RefCell::new(heard),
            there: RefCell::default(),
            held: RefCell::default(),
        }
    }

    fn reached<'a>(&self, steps: &'a [String]) -> Reached<'a> {
        Reached {
            steps,
            way: self.way,
        }
    }

    /// Puts an object there that nobody holds.
    pub fn put(&self, id: ObjectId, data: &[u8]) {
        let client = &self.client;
        client.create_and_seal(id, data, b"").expect("it is free");
    }

    /// Holds an object until all that the client had is to be back.
    pub fn hold(&self, id: ObjectId) {
        let object = self.client.get(id, 0).expect("the store answers");
        self.held.borrow_mut().extend(object);
    }

    /// What is in an object, if it is there.
    pub fn content(&self, id: ObjectId) -> Option<Vec<u8>> {
        let object = self.client.get(id, 0).expect("the store answers");
        object.map(|object| object.data().to_vec())
    }

    fn begin(&self, story: &Story) -> Run {
        (story.before)(self);
        let waiter = (story.fate)(self.reached(&[])).map(|_| {
            let client = self.client.clone();
            thread::spawn(move || {
                let object = client.get(ID, -1).expect("the store answers");
                object.expect("it is sealed").data().to_vec()
            })
        });
        Run { waiter }
    }

    /// Sees to it that all is as it should be, and clears up.
    fn finish(&self, story: &Story, reached: Reached<'_>, run: Run) {
        let last = reached.steps.last().map_or("the start", String::as_str);
        println!("after {last}");
        // Where a story has stopped it.
        self.store.signal(Signal::SIGCONT);
        if let Some(waiter) = run.waiter {
            let fate = (story.fate)(reached).expect("the object has one");
            self.waiter_is_right(waiter, fate);
        }
        // It may not have been accepted yet, but is before whoever connects later.
        drop(self.store.socket_client());
        // What it asked for last has been done by then, with all that the bystander holds.
        eventually("its connections are gone", || {
            self.store.descriptors() == self.descriptors
        });
        (story.unasked)(self, reached);
        self.held.borrow_mut().clear();
        eventually("every byte it held is back", || self.all_is_back());
        (story.after)(self, reached);
        self.subscriber_is_right();

        let all = self.client.list().expect("the store answers");
        let all: Vec<_> = all.into_iter().map(|info| info.id).collect();
        self.client.delete_many(&all).expect("the store answers");
        assert_eq!(debug_number(&self.client, "allocated bytes"), 0);
        let whole = self.client.create(ID, CAPACITY as usize, b"");
        drop(whole.expect("the whole store is there to be used"));
    }

    /// Who waits for an object has it if there is one. If not, its id is free for another, and then
    /// that is what it has.
    fn waiter_is_right(&self, waiter: thread::JoinHandle<Vec<u8>>, fate: Fate) {
        const BYSTANDERS: &[u8] = b"the object's second life";
        let second_life = || match self.client.create_and_seal(ID, BYSTANDERS, b"") {
            Ok(()) => true,
            Err(PlasmaError::AlreadyExists) => false,
            Err(error) => panic!("there is room: {error}"),
        };
        let expected = match fate {
            Fate::Sealed(content) => vec![content],
            Fate::Gone => {
                eventually("its id is free", second_life);
                vec![BYSTANDERS.to_vec()]
            }
            Fate::Either(content) => {
                eventually("it is sealed, or its id is free", || {
                    waiter.is_finished() || second_life()
                });
                vec![content, BYSTANDERS.to_vec()]
            }
        };
        let found = waiter.join().expect("the store answers");
        assert!(expected.contains(&found), "{} bytes", found.len());
    }

    fn all_is_back(&self) -> bool {
        let client = &self.client;
        let objects = client.list().expect("the store answers");
        let unused = |info: &plasma_core::ObjectInfo| info.digest.is_some() && info.ref_count == 0;
        let sizes = objects
            .iter()
            .map(|info| info.data_size + info.metadata_size);
        objects.iter().all(unused)
            && debug_number(client, "pinned bytes") == 0
            && debug_number(client, "allocated bytes") == sizes.sum::<u64>()
            && self.store.descriptors() == self.descriptors
    }

    /// Listens for what becomes of some object next: which it is, and whether it was sealed or is gone.
    fn hear(&self) -> (ObjectId, bool) {
        let mut heard = self.heard.borrow_mut();
        let notification = heard.recv_timeout(patience()).expect("the store is there");
        let (of, sealed) = match notification.expect("it hears of it") {
            Notification::Sealed(info) => (info.id, true),
            Notification::Deleted(of) => (of, false),
        };
        let mut there = self.there.borrow_mut();
        let is_news = if sealed {
            there.insert(of)
        } else {
            there.remove(&of)
        };
        assert!(is_news, "sealed twice, or deleted unsealed: {of}");
        (of, sealed)
    }

    /// Waits for the end of objects without asking the store anything.
    pub fn hear_of_the_end(&self, ids: &[ObjectId]) {
        let mut left: BTreeSet<_> = ids.iter().copied().collect();
        while !left.is_empty() {
            let (of, sealed) = self.hear();
            if !sealed {
                left.remove(&of);
            }
        }
    }

    /// From what was heard follows what is there.
    fn subscriber_is_right(&self) {
        let end = ObjectId::rand();
        self.put(end, b"");
        while self.hear() != (end, true) {}
        let objects = self.client.list().expect("the store answers");
        let objects: BTreeSet<_> = objects.iter().map(|info| info.id).collect();
        assert_eq!(*self.there.borrow(), objects);
        // For the next run, of which it hears from the start.
        let all: Vec<_> = objects.into_iter().collect();
        self.client.delete_many(&all).expect("the store answers");
        self.hear_of_the_end(&all);
    }

    /// The longest of some rounds of what clients do; none may take long.
    fn longest_round(&self) -> Duration {
        let mut longest = Duration::ZERO;
        for round in 0..10 {
            let start = Instant::now();
            let id = ObjectId::rand();
            let mut object = self.client.create(id, 1000, b"").expect("there is room");
            object.data_mut().fill(round);
            object.seal().expect("the store answers");
            drop(object);
            assert_eq!(self.content(id).expect("it is sealed"), [round; 1000]);
            self.client.delete(&id).expect("the store answers");
            assert!(!self.client.contains(&id).expect("the store answers"));
            longest = longest.max(start.elapsed());
        }
        assert!(longest < patience() / 4, "{longest:?}");
        longest
    }
}
