//! The shared control plane, as a client uses it: gets that ask nobody, and small requests through
//! memory.
//!
//! Whatever does not work here is `None`, and left to the socket. Where both are used, what one thread
//! does is seen in its order: requests in the ring are answered before the thread goes on, and what
//! it sends through the socket without waiting is waited for before the next look in here.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{SFlag, fstat};
use nix::{errno::Errno, unistd};

use crate::connection::Connection;
use crate::hand::with_hint;
use crate::protocol::message::Outcome;
use crate::segment::{Access, Segment};
use crate::shm::index::{Extent, Found, Index};
use crate::shm::memory::Memory;
use crate::shm::page::Shape;
use crate::shm::pins::{Got, Pin, Pins};
use crate::shm::ring::{Created, RingRequest, Submitter};
use crate::shm::{self, Offer};
use crate::spin::Spin;
use crate::{ObjectId, PlasmaError};

/// A client's part of the control plane.
#[derive(Debug)]
pub(crate) struct Plane {
    index: Index,
    pins: Pins,
    ring: Option<Mutex<Ring>>,
    /// The most content that fits into the ring, in bytes.
    content_capacity: usize,
    /// Wakes the store.
    bell: OwnedFd,
    /// The store's one segment, and its number.
    segment: (i32, Arc<Segment>),
}

/// The ring, and how long answers took lately.
#[derive(Debug)]
struct Ring {
    submitter: Submitter,
    spin: Spin,
    /// Becomes readable when the store has woken this client.
    wake: OwnedFd,
}

/// A client that cannot use what its store offers.
fn unusable(what: &str) -> PlasmaError {
    PlasmaError::protocol(format!("a shared control plane {what}"))
}

impl Plane {
    /// Maps what a store has offered.
    pub(crate) fn open(
        offer: &Offer,
        segment: (i32, Arc<Segment>),
        descriptors: [OwnedFd; Offer::DESCRIPTORS],
    ) -> Result<Self, PlasmaError> {
        let [index, page, answers, bell, wake] = descriptors;
        let (bell, wake) = (event(bell)?, event(wake)?);
        let Offer { index_len, shape } = offer;
        let map = |descriptor, len, writable| {
            let memory = Memory::open(descriptor, len, writable);
            let memory = memory.map_err(|source| PlasmaError::Map { len, source })?;
            Ok::<_, PlasmaError>(Arc::new(memory))
        };
        let index_len = usize::try_from(*index_len).map_err(|_| unusable("that is too long"))?;
        let index = map(index, index_len, false)?;
        let index = Index::open(&index, index_len).ok_or_else(|| unusable("without an index"))?;
        let page = map(page, shape.page_len(), true)?;
        let pins = Pins::open(&page, shape).ok_or_else(|| unusable("without pins"))?;
        // So that the first get is as any other. Where it cannot be mapped, each says so.
        let _ = segment.1.map(Access::Read);
        let ring = Self::open_ring(shape, &page, answers, wake)?;
        Ok(Self {
            index,
            pins,
            ring,
            content_capacity: shape.content_bytes as usize,
            bell,
            segment,
        })
    }

    fn open_ring(
        shape: &Shape,
        page: &Arc<Memory>,
        answers: OwnedFd,
        wake: OwnedFd,
    ) -> Result<Option<Mutex<Ring>>, PlasmaError> {
        if shape.requests == 0 {
            return Ok(None);
        }
        let len = shape.answers_len();
        let answers = Memory::open(answers, len, false);
        let answers = answers.map_err(|source| PlasmaError::Map { len, source })?;
        let submitter = Submitter::open(page, &Arc::new(answers), shape);
        let submitter = submitter.ok_or_else(|| unusable("without a ring"))?;
        Ok(Some(Mutex::new(Ring {
            submitter,
            spin: Spin::new(),
            wake,
        })))
    }

    /// Whether the store is there.
    pub(crate) fn is_kept(&self) -> bool {
        self.index.is_kept()
    }

    /// The segment of this number.
    #[inline(always)]
    pub(crate) fn segment(&self, number: i32) -> Option<&Segment> {
        let (known, segment) = &self.segment;
        (*known == number).then_some(segment)
    }

    /// Gets an object, if the store need not be asked.
    pub(crate) fn get(&self, id: &ObjectId) -> Got {
        with_hint(|hint| self.pins.get(&self.index, id, hint))
    }

    /// Gets an object that is there; `None` where it is not, or that is not certain.
    #[inline(always)]
    pub(crate) fn get_if_there(&self, id: &ObjectId) -> Option<(Pin, Extent)> {
        with_hint(|hint| self.pins.get_if_there(&self.index, id, hint))
    }

    /// Gets objects, as far as the store need not be asked.
    pub(crate) fn get_many(&self, ids: &[ObjectId]) -> Vec<Got> {
        with_hint(|hint| self.pins.get_many(&self.index, ids, hint))
    }

    /// Whether an object is sealed; `None` where the store has to be asked.
    pub(crate) fn contains(&self, id: &ObjectId) -> Option<bool> {
        match self.index.find(id) {
            Found::Here(_) => Some(true),
            Found::Nowhere => Some(false),
            Found::Unknown => None,
        }
    }

    /// Looks out for an object that may be about to be sealed, for a short time.
    #[inline(never)]
    pub(crate) fn watch_for(&self, id: &ObjectId) {
        Spin::new().watch(|| (self.contains(id) != Some(false)).then_some(()));
    }

    /// Notes objects as used; whether that is all there is to do.
    pub(crate) fn refresh(&self, ids: &[ObjectId]) -> bool {
        if ids.len() > shm::page::TOUCHES {
            return false;
        }
        // What is not in the index is not there, or is held by somebody, or the store has to be asked.
        with_hint(|hint| {
            ids.iter().all(|id| match self.index.find(id) {
                Found::Here(seen) => {
                    self.pins.refresh(&seen, hint);
                    true
                }
                Found::Nowhere => true,
                Found::Unknown => false,
            })
        })
    }

    /// Counts one more buffer of a pinned object.
    pub(crate) fn share(&self, pin: Pin) {
        self.pins.share(pin);
    }

    /// Lets go of a pinned object; whether the store has been sent something that nobody waits for.
    pub(crate) fn release(&self, pin: Pin, id: &ObjectId) -> bool {
        let wanted = with_hint(|hint| self.pins.release(&self.index, pin, id, hint));
        if wanted {
            self.pins.tell_released();
            self.ring_bell();
        }
        wanted
    }

    /// Pins an object of this client's that is about to be sealed.
    pub(crate) fn pin_own(&self, created: &Created) -> Option<Pin> {
        with_hint(|hint| self.pins.pin_own(created, hint))
    }

    /// Takes back a pin of an object that was not sealed.
    pub(crate) fn unpin_own(&self, pin: Pin) {
        self.pins.unpin_own(pin);
    }

    fn ring_bell(&self) {
        // It fails where the store has not heard it so often that it cannot but hear it.
        let _ = unistd::write(&self.bell, &1_u64.to_ne_bytes());
    }

    /// Whether requests can go through the ring, with so much content.
    pub(crate) fn takes(&self, content_len: usize) -> bool {
        self.ring.is_some() && content_len <= self.content_capacity
    }

    /// Asks the store for one thing and waits for the answer; `None` without a ring.
    pub(crate) fn call(
        &self,
        connection: &Connection,
        request: RingRequest,
        content: [&[u8]; 2],
    ) -> Option<Result<(Outcome, Created), PlasmaError>> {
        let mut answer = None;
        let asked = self.call_all(connection, std::iter::once((request, content)), |outcome| {
            answer = Some(outcome);
        })?;
        Some(asked.and_then(|()| answer.ok_or_else(|| unusable("that has lost an answer"))))
    }

    /// Asks the store for many things, and waits for all answers; `None` without a ring. It has to
    /// [take](Self::takes) what each of them brings.
    pub(crate) fn call_all<'a>(
        &self,
        connection: &Connection,
        requests: impl Iterator<Item = (RingRequest, [&'a [u8]; 2])>,
        mut each: impl FnMut((Outcome, Created)),
    ) -> Option<Result<(), PlasmaError>> {
        let mut ring = lock(self.ring.as_ref()?);
        if connection.is_broken() {
            // What was under way when it broke will not be answered any more.
            return Some(Err(PlasmaError::Disconnected));
        }
        Some(self.ask_all(&mut ring, connection, requests, &mut each))
    }

    fn ask_all<'a>(
        &self,
        ring: &mut Ring,
        connection: &Connection,
        requests: impl Iterator<Item = (RingRequest, [&'a [u8]; 2])>,
        each: &mut impl FnMut((Outcome, Created)),
    ) -> Result<(), PlasmaError> {
        /// Requests that the store is told of together, where there are many.
        const TOLD_AT_ONCE: u32 = 16;
        let mut untold = 0;
        for (request, content) in requests {
            while ring.submitter.push(request, content).is_none() {
                self.tell(ring);
                untold = 0;
                self.wait(ring, connection)?;
                while let Some(answer) = Self::next_answer(ring, connection)? {
                    each(answer);
                }
            }
            untold += 1;
            if untold == TOLD_AT_ONCE {
                self.tell(ring);
                untold = 0;
            }
        }
        self.tell(ring);
        while ring.submitter.is_waiting() {
            match Self::next_answer(ring, connection)? {
                Some(answer) => each(answer),
                None => self.wait(ring, connection)?,
            }
        }
        Ok(())
    }

    fn next_answer(
        ring: &mut Ring,
        connection: &Connection,
    ) -> Result<Option<(Outcome, Created)>, PlasmaError> {
        let answer = ring.submitter.next_answer();
        answer.map_err(|error| connection.give_up(PlasmaError::protocol(error.to_string())))
    }

    fn tell(&self, ring: &mut Ring) {
        if ring.submitter.tell() {
            self.ring_bell();
        }
    }

    /// Waits for the next answer: looking, then looking and giving way to others, then asleep.
    fn wait(&self, ring: &mut Ring, connection: &Connection) -> Result<(), PlasmaError> {
        let Ring {
            submitter,
            spin,
            wake,
            ..
        } = ring;
        if !submitter.is_waiting() {
            // There is no room for what is to be written, and nothing that could make some.
            return Err(connection.give_up(unusable("that is too small")));
        }
        let look = || submitter.is_answered().then_some(());
        if spin.watch_memory(look).is_some() {
            return Ok(());
        }
        let since = Instant::now();
        let mut slept = Ok(());
        while slept.is_ok() && submitter.may_sleep() {
            slept = sleep(wake, connection);
        }
        submitter.awake();
        spin.slept(since.elapsed());
        // It may have answered before it went.
        if submitter.is_answered() {
            return Ok(());
        }
        slept
    }
}

/// Sleeps until the store wakes this client, or is gone.
fn sleep(wake: &OwnedFd, connection: &Connection) -> Result<(), PlasmaError> {
    // The socket is another thread's to read: this only asks whether it has ended.
    let over = PollFlags::from_bits_retain(libc::POLLRDHUP);
    let mut watched = [
        PollFd::new(wake.as_fd(), PollFlags::POLLIN),
        PollFd::new(connection.socket(), over),
    ];
    match poll(&mut watched, PollTimeout::NONE) {
        Ok(_) => {}
        Err(Errno::EINTR) => return Ok(()),
        Err(error) => {
            return Err(PlasmaError::Io {
                action: "cannot wait for the store",
                source: error.into(),
            });
        }
    }
    let [woken, socket] = watched;
    if socket.any() != Some(false) {
        // `None` is an event that `nix` has no name for, which is the one that was asked for. Whatever
        // the other is, that it goes on saying that there is something to read means nothing any more.
        return Err(connection.give_up(PlasmaError::Disconnected));
    }
    if woken.any() == Some(true) {
        // Only resets the event; the answer is in memory.
        let _ = unistd::read(wake, &mut [0; 8]);
    }
    Ok(())
}

/// Takes what a store has given for an event: reading it and writing it does not wait, and does not end
/// this process, whatever it is.
fn event(descriptor: OwnedFd) -> Result<OwnedFd, PlasmaError> {
    let failed = |error: Errno| PlasmaError::Io {
        action: "cannot use the store's event",
        source: error.into(),
    };
    // Who writes to one of these that nobody reads gets a signal.
    let kind =
        SFlag::from_bits_truncate(fstat(&descriptor).map_err(failed)?.st_mode) & SFlag::S_IFMT;
    if kind == SFlag::S_IFIFO || kind == SFlag::S_IFSOCK {
        return Err(unusable("with a pipe or a socket for an event"));
    }
    let flags = fcntl(&descriptor, FcntlArg::F_GETFL).map_err(failed)?;
    let flags = OFlag::from_bits_retain(flags) | OFlag::O_NONBLOCK;
    fcntl(&descriptor, FcntlArg::F_SETFL(flags)).map_err(failed)?;
    Ok(descriptor)
}

fn lock(ring: &Mutex<Ring>) -> MutexGuard<'_, Ring> {
    // What is under way is known to the ring itself, and nothing panics between its steps.
    ring.lock().unwrap_or_else(PoisonError::into_inner)
}
