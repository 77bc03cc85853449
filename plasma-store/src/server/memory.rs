//! Memory behind the arena: asked for before anyone is told of it, given back when there is more
//! than the capacity.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use plasma_core::shm::memory::Source;
use tracing::warn;

use crate::StoreError;
use crate::arena::Arena;
use crate::backer::{Backer, Job, JobId};
use crate::readers::SharedReaders;
use crate::state;
use crate::state::alloc::Range;
use crate::state::backing::{Backing, Plan};

/// As much memory as is asked for between two requests; more is asked for by another thread.
const AT_ONCE: u64 = 1 << 20;

/// As much memory as is prepared ahead of time in one go; it is out of use meanwhile.
const PREPARED_AT_ONCE: u64 = 16 << 20;

type State = state::State<Option<SharedReaders>>;

/// Whether a range can be handed out.
#[derive(Debug)]
pub(super) enum Backed {
    Now,
    /// When this job is done.
    After(JobId),
    /// There is no memory.
    Never,
}

#[derive(Debug)]
pub(super) struct Memory {
    arena: Arc<Arena>,
    backing: Backing,
    capacity: u64,
    backer: Backer,
    next_job: u64,
    jobs: HashMap<JobId, Running>,
    /// How far memory has been prepared ahead of time, while that goes on.
    prepared: Option<u64>,
}

/// A job that another thread does.
#[derive(Debug)]
struct Running {
    /// What counts as under way.
    plan: Plan,
    /// Free ranges that are out of use meanwhile.
    withheld: Vec<Range>,
    /// It prepares memory ahead of time.
    background: bool,
    /// Where there is no memory, another attempt is made after giving back what lies idle.
    may_retry: bool,
    cancelled: Arc<AtomicBool>,
}

impl Memory {
    pub(super) fn new(arena: Arena, capacity: u64) -> Result<Self, StoreError> {
        let arena = Arc::new(arena);
        Ok(Self {
            backing: Backing::new(arena.len(), arena.granule(), capacity),
            capacity,
            backer: Backer::new(Arc::clone(&arena))?,
            arena,
            next_job: 0,
            jobs: HashMap::new(),
            prepared: None,
        })
    }

    pub(super) fn descriptor(&self) -> &Arc<OwnedFd> {
        self.arena.descriptor()
    }

    /// What becomes readable once a job is done.
    pub(super) fn event(&self) -> impl AsFd {
        self.backer.event()
    }

    pub(super) fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.arena.write(offset, bytes)
    }

    /// Writes what a client has in its page, which it may be changing.
    pub(super) fn write_from(&self, offset: u64, source: &Source<'_>) -> io::Result<()> {
        self.arena.write_from(offset, source)
    }

    pub(super) fn read(&self, range: Range, len: u64) -> io::Result<Vec<u8>> {
        self.arena.read(range.offset, len)
    }

    /// Puts memory behind all of the capacity.
    pub(super) fn prefault_now(&mut self) -> Result<(), StoreError> {
        for range in self.backing.missing(Range::new(0, self.capacity)) {
            self.arena
                .warm(range)
                .map_err(|source| StoreError::Kernel {
                    action: "put memory behind the whole store",
                    source,
                })?;
            self.backing.add(range);
        }
        Ok(())
    }

    /// Has memory put behind all of the capacity, little by little.
    pub(super) fn prefault_in_background(&mut self, state: &mut State) {
        self.prepared = Some(0);
        self.prepare_more(state);
    }

    /// Has the next part of what is free prepared. It is out of use until that is done, so that
    /// nobody is given, and nothing gives back, what is on its way.
    fn prepare_more(&mut self, state: &mut State) {
        while let Some(start) = self.prepared.filter(|start| *start < self.capacity) {
            let part = Range::new(start, PREPARED_AT_ONCE.min(self.capacity - start));
            self.prepared = Some(part.end());
            let free = state.free_within(part);
            let populate = self.backing.worth_preparing(&free, self.capacity);
            if populate.is_empty() {
                continue;
            }
            let plan = Plan {
                discard: Vec::new(),
                populate,
            };
            let withheld = plan.populate.clone();
            let id = self.next_job();
            self.start(id, plan, withheld, true, false, state);
            return;
        }
        self.prepared = None;
    }

    /// Makes sure that there is memory behind ranges that were just allocated.
    pub(super) fn back(&mut self, ranges: &[Range], state: &mut State) -> Backed {
        let plan = self.backing.plan(ranges, state.free_ranges());
        if plan.bytes() > AT_ONCE {
            let withheld = plan.discard.clone();
            let id = self.next_job();
            self.start(id, plan, withheld, false, true, state);
            return Backed::After(id);
        }
        for range in plan.discard {
            self.discard(range);
        }
        for range in plan.populate {
            if let Err(error) = self.populate(range, state) {
                warn!(%error, bytes = range.len, "no memory");
                return Backed::Never;
            }
            self.backing.add(range);
        }
        Backed::Now
    }

    fn discard(&mut self, range: Range) {
        match self.arena.discard(range) {
            Ok(()) => self.backing.remove(range),
            Err(error) => warn!(%error, "cannot give memory back"),
        }
    }

    /// Asks for memory, and once more after giving back what lies idle.
    fn populate(&mut self, range: Range, state: &State) -> io::Result<()> {
        let Err(first) = self.arena.populate(range) else {
            return Ok(());
        };
        let reclaimed = self.backing.reclaimable(state.free_ranges(), range.len);
        if reclaimed.is_empty() {
            return Err(first);
        }
        for range in reclaimed {
            self.discard(range);
        }
        self.arena.populate(range)
    }

    fn next_job(&mut self) -> JobId {
        let id = JobId(self.next_job);
        self.next_job += 1;
        id
    }

    fn start(
        &mut self,
        id: JobId,
        plan: Plan,
        withheld: Vec<Range>,
        background: bool,
        may_retry: bool,
        state: &mut State,
    ) {
        for range in &withheld {
            state.withhold(*range);
        }
        let cancelled = Arc::new(AtomicBool::new(false));
        self.backer.submit(Job {
            id,
            discard: plan.discard.clone(),
            populate: plan.populate.clone(),
            background,
            cancelled: Arc::clone(&cancelled),
        });
        self.backing.begin(&plan);
        let running = Running {
            plan,
            withheld,
            background,
            may_retry,
            cancelled,
        };
        self.jobs.insert(id, running);
    }

    /// Gives back what lies idle in favour of a job that found no memory; whether there was any.
    fn retry(&mut self, id: JobId, job: &Running, state: &mut State) -> bool {
        let wanted = job.plan.populate.iter();
        let populate: Vec<_> = wanted
            .flat_map(|range| self.backing.missing(*range))
            .collect();
        let bytes = populate.iter().map(|range| range.len).sum();
        let discard = self.backing.reclaimable(state.free_ranges(), bytes);
        if discard.is_empty() || job.cancelled.load(Ordering::Relaxed) {
            return false;
        }
        let withheld = discard.clone();
        let plan = Plan { discard, populate };
        self.start(id, plan, withheld, false, false, state);
        true
    }

    /// Nobody waits for a job any more; it still has to end.
    pub(super) fn cancel(&self, job: JobId) {
        if let Some(job) = self.jobs.get(&job) {
            job.cancelled.store(true, Ordering::Relaxed);
        }
    }

    /// The jobs that have ended, and whether each did all it was to do.
    pub(super) fn finish(&mut self, state: &mut State) -> Vec<(JobId, bool)> {
        let mut finished = Vec::new();
        for done in self.backer.take_done() {
            for range in done.discarded {
                self.backing.remove(range);
            }
            for range in done.populated {
                self.backing.add(range);
            }
            if let Some(job) = self.jobs.remove(&done.id) {
                self.backing.end(&job.plan);
                for range in &job.withheld {
                    state.readmit(*range);
                }
                if job.background {
                    if done.result.is_ok() {
                        self.prepare_more(state);
                    } else {
                        warn!("there is no memory to prepare ahead of time");
                        self.prepared = None;
                    }
                    continue;
                }
                if done.result.is_err() && job.may_retry && self.retry(done.id, &job, state) {
                    continue;
                }
            }
            if let Err(error) = &done.result
                && error.kind() != io::ErrorKind::Interrupted
            {
                warn!(%error, "no memory");
            }
            finished.push((done.id, done.result.is_ok()));
        }
        finished
    }
}
