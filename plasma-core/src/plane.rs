//! The shared control plane, as a client uses it: gets that ask nobody, and small requests through
//! memory.
//!
//! Whatever does not work here is `None`, and left to the socket. Where both are used, what one thread
//! does is seen in its order: requests in the ring are answered before the thread goes on, and what
//! it sends through the socket without waiting is waited for before the next look in here.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::connection::Connection;
use crate::hand::with_hint;
use crate::protocol::message::Outcome;
use crate::segment::{Access, Segment};
use crate::shm::Offer;
use crate::shm::bell::{Bell, Wakeup};
use crate::shm::index::{Extent, Found, Index};
use crate::shm::memory::Memory;
use crate::shm::page::{PinMemory, Shape};
use crate::shm::pins::{Got, Pin, Pins};
use crate::shm::ring::{Created, RingRequest, Submitter};
use crate::spin::Spin;
use crate::{ObjectId, PlasmaError};

/// The longest a get looks for an object that is to come before it sleeps. To wake it takes the store
/// and this process some 50 µs together.
const LONGEST_WATCH: Duration = Duration::from_micros(200);

/// A client's part of the control plane.
#[derive(Debug)]
pub(crate) struct Plane {
    index: Index,
    pins: Pins,
    ring: Option<Mutex<Ring>>,
    /// The most content that fits into the ring, in bytes.
    content_capacity: usize,
    /// How long gets that wait looked in vain lately.
    watch: Mutex<Spin>,
    /// Wakes the store.
    bell: Bell,
    /// The store's one segment, and its number.
    segment: (i32, Arc<Segment>),
}

/// The ring, and how long answers took lately.
#[derive(Debug)]
struct Ring {
    submitter: Submitter,
    spin: Spin,
    wakeup: Wakeup,
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
        let [index, page, answers, bell, wakeup] = descriptors;
        let bell = Bell::from_peer(bell).ok_or_else(|| unusable("with what is no bell"))?;
        let wakeup = Wakeup::from_peer(wakeup).ok_or_else(|| unusable("that wakes nobody"))?;
        let Offer { index_len, shape } = offer;
        let map = |descriptor, len, writable| {
            let memory = Memory::open(descriptor, len, writable);
            let memory = memory.map_err(|source| PlasmaError::Map { len, source })?;
            Ok::<_, PlasmaError>(Arc::new(memory))
        };
        // Before what can be done without; and the first get is as any other then.
        segment.1.map(Access::Read)?;
        let index_len = usize::try_from(*index_len).map_err(|_| unusable("that is too long"))?;
        let index = map(index, index_len, false)?;
        let index = Index::open(&index, index_len).ok_or_else(|| unusable("without an index"))?;
        let page = map(page, shape.page_len(), true)?;
        let answers = map(answers, shape.answers_len(), false)?;
        let pins = PinMemory::of_client(&page, &answers, shape);
        let pins = Pins::new(pins.ok_or_else(|| unusable("without pins"))?);
        let ring = Self::open_ring(shape, &page, &answers, wakeup)?;
        Ok(Self {
            index,
            pins,
            ring,
            watch: Mutex::new(Spin::up_to(LONGEST_WATCH)),
            content_capacity: shape.content_bytes as usize,
            bell,
            segment,
        })
    }

    fn open_ring(
        shape: &Shape,
        page: &Arc<Memory>,
        answers: &Arc<Memory>,
        wakeup: Wakeup,
    ) -> Result<Option<Mutex<Ring>>, PlasmaError> {
        if shape.requests == 0 {
            return Ok(None);
        }
        let submitter = Submitter::open(page, answers, shape);
        let submitter = submitter.ok_or_else(|| unusable("without a ring"))?;
        Ok(Some(Mutex::new(Ring {
            submitter,
            spin: Spin::new(),
            wakeup,
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
        // Each thread for itself; what they learn is everybody's.
        let mut spin = *lock(&self.watch);
        spin.watch(|| (self.contains(id) != Some(false)).then_some(()));
        *lock(&self.watch) = spin;
    }

    /// Notes how long it took after that until the object came.
    pub(crate) fn waited(&self, time: Duration) {
        lock(&self.watch).slept(time);
    }

    /// Notes objects as used; whether that is all there is to do.
    pub(crate) fn refresh(&self, ids: &[ObjectId]) -> bool {
        let mut objects = Vec::with_capacity(ids.len());
        for id in ids {
            match self.index.find(id) {
                Found::Here(seen) => {
                    let known = seen.known();
                    if seen.extent().is_none() {
                        // It is just being moved.
                        return false;
                    }
                    objects.push(known);
                }
                // It is not there, or is held by somebody.
                Found::Nowhere => {}
                Found::Unknown => return false,
            }
        }
        with_hint(|hint| self.pins.refresh(&objects, hint))
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
            self.bell.ring();
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
            self.bell.ring();
        }
    }

    /// Waits for the next answer: looking, then looking and giving way to others, then asleep.
    fn wait(&self, ring: &mut Ring, connection: &Connection) -> Result<(), PlasmaError> {
        let Ring {
            submitter,
            spin,
            wakeup,
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
            slept = sleep(wakeup, connection);
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
fn sleep(wakeup: &Wakeup, connection: &Connection) -> Result<(), PlasmaError> {
    // The socket is another thread's to read: this only asks whether it has ended.
    let over = PollFlags::from_bits_retain(libc::POLLRDHUP);
    let mut watched = [
        PollFd::new(wakeup.as_fd(), PollFlags::POLLIN),
        PollFd::new(connection.socket(), over),
    ];
    match poll(&mut watched, PollTimeout::NONE) {
        Ok(_) => {}
        Err(Errno::EINTR) => return Ok(()),
        Err(error) => {
            // What is under way would be taken for what is asked next.
            return Err(connection.give_up(PlasmaError::Io {
                action: "cannot wait for the store",
                source: error.into(),
            }));
        }
    }
    let [_, socket] = watched;
    // `None` is an event that `nix` has no name for, which is the one that was asked for.
    let ended = socket.any() != Some(false);
    // It only ends the sleep; the answer is in memory.
    if ended || wakeup.hear().is_err() {
        return Err(connection.give_up(PlasmaError::Disconnected));
    }
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is under way is known to the ring itself, and nothing panics between its steps.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
