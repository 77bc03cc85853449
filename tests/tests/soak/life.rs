//! What one client does with its life, in a process of its own.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use plasma_core::{ObjectBuffer, ObjectId, PlasmaClient, PlasmaError};
use rand::RngExt;

use super::content::{content, id, is_right};

/// How often a client tells what it has done.
const REPORT_EVERY: Duration = Duration::from_millis(200);

/// Threads that share a client.
const THREADS: usize = 2;

/// Objects that one of them holds, at most.
const MOST_HELD: usize = 8;

/// What was done and not told yet.
#[derive(Default)]
struct Done {
    created: AtomicU64,
    read: AtomicU64,
    deleted: AtomicU64,
}

impl Done {
    fn tell(&self) {
        let [created, read, deleted] = [&self.created, &self.read, &self.deleted]
            .map(|count| count.swap(0, Ordering::Relaxed));
        println!("{created} {read} {deleted}");
    }
}

/// Lives until standard input ends, with `names` objects that there may be.
pub fn live(socket: &Path, shared_memory: bool, names: u32) {
    let client = PlasmaClient::builder()
        .retries(0)
        .shared_memory(shared_memory)
        .connect(socket)
        .expect("the store accepts a client");
    let (done, stop) = (Done::default(), AtomicBool::new(false));
    thread::scope(|scope| {
        let lives: Vec<_> = (0..THREADS)
            .map(|_| {
                scope.spawn(|| {
                    let mut held = VecDeque::new();
                    while !stop.load(Ordering::Relaxed) {
                        match step(&client, names, &mut held, &done) {
                            Ok(()) | Err(PlasmaError::AlreadyExists) => {}
                            Err(PlasmaError::OutOfMemory { .. }) => {}
                            Err(error) => panic!("{error}"),
                        }
                        while held.len() > MOST_HELD {
                            let_go(&mut held);
                        }
                    }
                    while !held.is_empty() {
                        let_go(&mut held);
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            let _ = io::stdin().read_to_end(&mut Vec::new());
            stop.store(true, Ordering::Relaxed);
        });
        while !lives.iter().any(|life| life.is_finished()) {
            thread::sleep(REPORT_EVERY);
            done.tell();
        }
        for life in lives {
            if life.join().is_err() {
                // Whoever started this is to know now, and not when it has closed the input.
                std::process::exit(101);
            }
        }
    });
    done.tell();
}

/// Writes what is never sealed. Sanitizers know this by its name: the memory may be given to another
/// thread next, and that this one is done with it only the store knows.
#[inline(never)]
fn scribble(data: &mut [u8]) {
    data.fill(0xee);
}

/// What was held is what it was.
fn let_go(held: &mut VecDeque<ObjectBuffer>) {
    if let Some(object) = held.pop_front() {
        assert!(is_right(&object), "WRONG after it was held: {object:?}");
    }
}

fn step(
    client: &PlasmaClient,
    names: u32,
    held: &mut VecDeque<ObjectBuffer>,
    done: &Done,
) -> Result<(), PlasmaError> {
    let mut random = rand::rng();
    let mut any = || id(random.random_range(0..names));
    let count = |count: &AtomicU64, by: usize| _ = count.fetch_add(by as u64, Ordering::Relaxed);
    let mut keep = |object: ObjectBuffer| {
        assert!(is_right(&object), "WRONG: {object:?}");
        count(&done.read, 1);
        held.push_back(object);
    };
    let ids: [ObjectId; 5] = std::array::from_fn(|_| any());
    let [id, ..] = ids;
    match random.random_range(0..180) {
        0..20 => {
            let (data, meta) = content(&id);
            let mut object = client.create(id, data.len(), meta)?;
            object.data_mut().copy_from_slice(&data);
            object.seal()?;
            count(&done.created, 1);
            keep(object);
        }
        20..38 => {
            let (data, meta) = content(&id);
            client.create_and_seal(id, &data, meta)?;
            count(&done.created, 1);
        }
        38..40 => {
            let contents = ids.each_ref().map(|id| (*id, content(id)));
            let objects = contents
                .each_ref()
                .map(|(id, (data, meta))| (*id, &data[..], *meta));
            client.create_and_seal_batch(&objects)?;
            count(&done.created, objects.len());
        }
        40..42 => {
            // It changes its mind, or forgets.
            let mut object = client.create(id, 1000, b"")?;
            scribble(object.data_mut());
            if random.random() {
                object.abort()?;
            }
        }
        42..82 => client.get(id, 0)?.into_iter().for_each(keep),
        82..92 => {
            let found = client.get_many(&ids, 0)?;
            found.into_iter().flatten().for_each(keep);
        }
        92..102 => client.get(id, 5)?.into_iter().for_each(keep),
        102..142 => let_go(held),
        142..150 => {
            client.delete(&id)?;
            count(&done.deleted, 1);
        }
        150..152 => {
            client.delete_many(&ids)?;
            count(&done.deleted, ids.len());
        }
        152..162 => _ = client.contains(&id)?,
        162..164 => _ = client.contains_many(&ids)?,
        164..168 => client.refresh(&ids)?,
        168 => _ = client.evict(1 << 20)?,
        169 => _ = client.list()?,
        170 => {
            let mut notifications = client.subscribe()?;
            for _ in 0..random.random_range(0..100) {
                if notifications
                    .recv_timeout(Duration::from_millis(1))?
                    .is_none()
                {
                    break;
                }
            }
        }
        _ => {
            if let Some(object) = held.front() {
                let shared = object.share();
                held.push_back(shared);
            }
        }
    }
    Ok(())
}
