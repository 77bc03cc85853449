//! A thread that puts memory behind large ranges, so that requests never wait for it.
//!
//! Jobs take turns in steps, so that a small one is not kept waiting by a large one.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::StoreError;
use crate::arena::Arena;
use crate::state::alloc::Range;

/// Bytes that one job is given before the next has its turn.
const STEP: u64 = 16 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct JobId(pub(crate) u64);

/// Memory to be given back and then memory to be had.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) id: JobId,
    pub(crate) discard: Vec<Range>,
    pub(crate) populate: Vec<Range>,
    /// Taken up only while there is nothing else to do, and then done thoroughly.
    pub(crate) background: bool,
    /// Set where nobody waits for it any more.
    pub(crate) cancelled: Arc<AtomicBool>,
}

/// How a job ended.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) id: JobId,
    /// What has no memory any more, and what has.
    pub(crate) discarded: Vec<Range>,
    pub(crate) populated: Vec<Range>,
    /// Whether everything was done that was asked.
    pub(crate) result: io::Result<()>,
}

#[derive(Debug)]
struct Running {
    job: Job,
    done: Done,
}

#[derive(Debug, Default)]
struct Queues {
    waiting: VecDeque<Running>,
    background: VecDeque<Running>,
    done: Vec<Done>,
    stopping: bool,
}

#[derive(Debug)]
struct Shared {
    arena: Arc<Arena>,
    queues: Mutex<Queues>,
    work: Condvar,
    /// Readable once something is done.
    event: EventFd,
}

impl Shared {
    fn queues(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
pub(crate) struct Backer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Backer {
    pub(crate) fn new(arena: Arc<Arena>) -> Result<Self, StoreError> {
        let cannot = |source| StoreError::Kernel {
            action: "start the thread that prepares memory",
            source,
        };
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let event = EventFd::from_flags(flags).map_err(|error| cannot(error.into()))?;
        let shared = Arc::new(Shared {
            arena,
            queues: Mutex::default(),
            work: Condvar::new(),
            event,
        });
        let worker = Arc::clone(&shared);
        let builder = thread::Builder::new().name("plasma-backer".into());
        let thread = builder.spawn(move || work(&worker)).map_err(cannot)?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// What becomes readable once a job is done.
    pub(crate) fn event(&self) -> impl AsFd {
        self.shared.event.as_fd()
    }

    pub(crate) fn submit(&self, job: Job) {
        let background = job.background;
        let running = Running {
            done: Done {
                id: job.id,
                discarded: Vec::new(),
                populated: Vec::new(),
                result: Ok(()),
            },
            job,
        };
        let mut queues = self.shared.queues();
        if background {
            queues.background.push_back(running);
        } else {
            queues.waiting.push_back(running);
        }
        self.shared.work.notify_one();
    }

    /// Jobs that ended since this was last asked.
    pub(crate) fn take_done(&self) -> Vec<Done> {
        // Only resets the event: what is done is in the queue.
        let _ = self.shared.event.read();
        std::mem::take(&mut self.shared.queues().done)
    }
}

impl Drop for Backer {
    fn drop(&mut self) {
        self.shared.queues().stopping = true;
        self.shared.work.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed; there is nothing left to save.
            let _ = thread.join();
        }
    }
}

fn work(shared: &Shared) {
    loop {
        let mut queues = shared.queues();
        let mut running = loop {
            if queues.stopping {
                return;
            }
            let next = queues.waiting.pop_front();
            if let Some(running) = next.or_else(|| queues.background.pop_front()) {
                break running;
            }
            queues = shared
                .work
                .wait(queues)
                .unwrap_or_else(PoisonError::into_inner);
        };
        drop(queues);
        let finished = step(&shared.arena, &mut running);
        let mut queues = shared.queues();
        if finished {
            queues.done.push(running.done);
            // It only fails where the counter is full, and then it is readable anyway.
            let _ = shared.event.write(1);
        } else if running.job.background {
            queues.background.push_back(running);
        } else {
            queues.waiting.push_back(running);
        }
    }
}

/// Does one step of a job; whether it is finished.
fn step(arena: &Arena, running: &mut Running) -> bool {
    let Running { job, done } = running;
    if job.cancelled.load(Ordering::Relaxed) {
        done.result = Err(io::ErrorKind::Interrupted.into());
        return true;
    }
    if let Some(range) = take_step(&mut job.discard) {
        // Memory that cannot be given back stays where it is and is used again.
        if arena.discard(range).is_ok() {
            done.discarded.push(range);
        }
        return false;
    }
    let Some(range) = take_step(&mut job.populate) else {
        return true;
    };
    done.result = if job.background {
        arena.warm(range)
    } else {
        arena.populate(range)
    };
    if done.result.is_ok() {
        done.populated.push(range);
    }
    done.result.is_err() || job.populate.is_empty()
}

/// Takes at most a step off the last range.
fn take_step(ranges: &mut Vec<Range>) -> Option<Range> {
    let last = ranges.last_mut()?;
    let step = Range::new(last.offset, last.len.min(STEP));
    last.offset += step.len;
    last.len -= step.len;
    if last.len == 0 {
        ranges.pop();
    }
    Some(step)
}
