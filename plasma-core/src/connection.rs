//! One connection to a store, shared by threads.
//!
//! A call holds the receiving side from its request to its reply, so calls take turns and replies
//! come in the order of the requests. The sending side is held for moments only and never waits
//! for the peer: that is what dropping a buffer uses, so a drop does not wait for anybody's reply.

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use foldhash::HashMap;
use nix::poll::PollFlags;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{UnixCredentials, getsockopt};

use crate::birth::Birth;
use crate::plane::Plane;
use crate::protocol::message::{
    Encoder, ErrorCode, MMAP_GAP, ObjectSpec, Reply, Request, SegmentRef,
};
use crate::segment::Segment;
use crate::shm::Offer;
use crate::spin::Spin;
use crate::transport::{Inbox, Outbox, Received, wait_ready};
use crate::{ObjectId, PlasmaError};

/// Longest reply this client reads, in bytes: what a flatbuffer can hold.
const MAX_REPLY_LEN: usize = i32::MAX as usize;

/// This many drops, each this soon after the one before, are the start of many: a list of buffers
/// goes away.
const BURST_LEN: u32 = 8;
const BURST_GAP: Duration = Duration::from_micros(10);

/// How long the flusher lets drops gather before it writes them. Each write costs the store a
/// read, and both sides more than what is in it.
const GATHER_TIME: Duration = Duration::from_micros(50);

/// What is asked to know that the store has seen to all that was sent before: it answers in order.
const ANY_QUESTION: Request<'_> = Request::Contains(ObjectId::new([0; ObjectId::LEN]));

#[derive(Debug)]
pub(crate) struct Connection {
    link: Arc<Link>,
    /// The process that made it.
    birth: Birth,
    /// Locked before the sending side where both are held.
    receiving: Mutex<Receiving>,
    /// Segments by number. The store sends a descriptor once, and what is in a segment may be read for
    /// as long as there is a connection: none is ever removed, or replaced by another of that number.
    /// Locked last, for a moment; changed by who has the receiving side.
    segments: Mutex<HashMap<i32, Arc<Segment>>>,
}

/// The sending side, which a connection shares with its flusher.
#[derive(Debug)]
struct Link {
    socket: UnixStream,
    /// Set once the stream is of no more use; every later call says so at once.
    broken: AtomicBool,
    /// How often something was sent that nobody waits for an answer to, and how many of these the store
    /// is known to have seen to.
    sent_unheeded: AtomicU64,
    heeded: AtomicU64,
    sending: Mutex<Sending>,
    /// Wakes the flusher.
    wake: Condvar,
}

#[derive(Debug, Default)]
struct Sending {
    encoder: Encoder,
    outbox: Outbox,
    /// Requests sent so far that the store answers.
    questions: u64,
    holds: HashMap<ObjectId, Hold>,
    drops: Drops,
    flusher: Flusher,
}

/// A thread that writes what drops leave in the outbox. It is started when it is first needed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Flusher {
    #[default]
    NotStarted,
    Asleep,
    /// What is in the outbox now will be written soon, without anybody else's doing.
    Awake,
    /// The connection is gone, and the thread goes too.
    Ending,
}

/// How drops have followed one another.
#[derive(Debug, Default)]
struct Drops {
    last: Option<Instant>,
    in_a_row: u32,
}

impl Drops {
    /// Notes a drop; whether so many have come so fast that it pays to write them together.
    fn are_many(&mut self) -> bool {
        let now = Instant::now();
        let close = self.last.is_some_and(|last| now - last < BURST_GAP);
        self.in_a_row = if close {
            self.in_a_row.saturating_add(1)
        } else {
            0
        };
        self.last = Some(now);
        self.in_a_row >= BURST_LEN
    }
}

/// The store counts one reference for each client and object; this counts the buffers behind it.
#[derive(Debug, Default)]
struct Hold {
    /// Buffers, and gets under way that may become buffers. No program lives to see it overflow.
    buffers: u64,
    /// The store has counted this client.
    in_store: bool,
}

#[derive(Debug)]
struct Receiving {
    inbox: Inbox,
    /// Replies read so far.
    answers: u64,
    spin: Spin,
}

impl Sending {
    fn push(&mut self, request: &Request<'_>) {
        let frame = self.encoder.request(request);
        self.outbox.push(frame);
    }

    /// Takes one buffer away; whether the store has to be told.
    fn let_go(&mut self, id: &ObjectId) -> bool {
        let Some(hold) = self.holds.get_mut(id) else {
            return false;
        };
        hold.buffers -= 1;
        hold.buffers == 0 && self.holds.remove(id).is_some_and(|hold| hold.in_store)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What a panic could leave half done is a message in a buffer of ours; no call panics there.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Connection {
    pub(crate) fn new(socket: UnixStream) -> Self {
        Self {
            birth: Birth::now(),
            link: Arc::new(Link {
                socket,
                broken: AtomicBool::new(false),
                sent_unheeded: AtomicU64::new(0),
                heeded: AtomicU64::new(0),
                sending: Mutex::default(),
                wake: Condvar::new(),
            }),
            receiving: Mutex::new(Receiving {
                inbox: Inbox::new(),
                answers: 0,
                spin: Spin::new(),
            }),
            segments: Mutex::default(),
        }
    }

    /// Whether this process made it, and not one that this process was forked from.
    pub(crate) fn is_ours(&self) -> bool {
        self.birth == Birth::now()
    }

    /// Takes its turn at the receiving side.
    fn receiving(&self) -> Result<MutexGuard<'_, Receiving>, PlasmaError> {
        if !self.is_ours() {
            return Err(PlasmaError::Forked);
        }
        Ok(lock(&self.receiving))
    }

    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.link.socket.as_fd()
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.link.is_broken()
    }

    /// Notes that the store was sent something that nobody waits for an answer to.
    pub(crate) fn set_behind(&self) {
        self.link.sent_unheeded.fetch_add(1, Ordering::Release);
    }

    /// Whether the store may not have seen to all of that.
    #[inline]
    pub(crate) fn is_behind(&self) -> bool {
        self.link.sent_unheeded.load(Ordering::Acquire) != self.link.heeded.load(Ordering::Acquire)
    }

    /// Waits until the store has seen to everything that it was sent so far.
    #[cold]
    pub(crate) fn catch_up(&self) -> Result<(), PlasmaError> {
        let sent = self.link.sent_unheeded.load(Ordering::Acquire);
        self.call(&ANY_QUESTION)?;
        // Another thread may have caught up with more.
        self.link.heeded.fetch_max(sent, Ordering::AcqRel);
        Ok(())
    }

    /// Waits until the store has answered all that it was asked so far.
    pub(crate) fn hear_out(&self) -> Result<(), PlasmaError> {
        let mut receiving = self.receiving()?;
        let last = self.link.open_sending()?.questions;
        if receiving.answers < last {
            self.answer(&mut receiving, last)?;
        }
        Ok(())
    }

    /// Asks to be a client, and for what there is beyond Arrow's protocol if `capabilities` name
    /// any: the store's capacity in bytes, and what it offers.
    pub(crate) fn begin(
        &self,
        capabilities: u64,
        deadline: Instant,
    ) -> Result<(u64, Option<Plane>), PlasmaError> {
        let request = Request::Connect { capabilities };
        let mut receiving = self.receiving()?;
        let question = self.ask(&request, |_| {})?;
        let reply = self.answer_before(&mut receiving, question, Some(deadline))?;
        let Reply::Connect {
            memory_capacity,
            offer,
        } = reply
        else {
            return Err(PlasmaError::protocol("another reply than a connect's"));
        };
        let capacity = u64::try_from(memory_capacity).unwrap_or(0);
        let Some((offer, segments)) = offer else {
            return Ok((capacity, None));
        };
        let [segment] = segments[..] else {
            return Err(PlasmaError::protocol("an offer for other than one segment"));
        };
        self.meet(&mut receiving, segment, Some(deadline))?;
        let mapped = self.segment(segment.segment);
        let mapped = mapped.ok_or_else(|| PlasmaError::protocol("an offer without a segment"))?;
        let mut descriptors = Vec::with_capacity(Offer::DESCRIPTORS);
        for _ in 0..Offer::DESCRIPTORS {
            descriptors.push(self.next_descriptor(&mut receiving, Some(deadline))?);
        }
        let Ok(descriptors) = descriptors.try_into() else {
            return Err(PlasmaError::protocol("an offer without its descriptors"));
        };
        match Plane::open(&offer, (segment.segment, mapped), descriptors) {
            Ok(plane) => Ok((capacity, Some(plane))),
            // The kernel does not let this process map so much; the socket takes less.
            Err(PlasmaError::Map { source, .. }) if source.raw_os_error().is_some() => {
                Ok((capacity, None))
            }
            Err(error) => Err(error),
        }
    }

    /// Sends a request and reads its reply.
    pub(crate) fn call(&self, request: &Request<'_>) -> Result<Reply<'static>, PlasmaError> {
        self.call_before(request, None)
    }

    /// The same, given up at a deadline (and the connection with it).
    pub(crate) fn call_before(
        &self,
        request: &Request<'_>,
        deadline: Option<Instant>,
    ) -> Result<Reply<'static>, PlasmaError> {
        let mut receiving = self.receiving()?;
        let question = self.ask(request, |_| {})?;
        self.answer_before(&mut receiving, question, deadline)
    }

    /// Sends all requests in one go and reads their replies.
    pub(crate) fn call_all(
        &self,
        requests: &mut dyn Iterator<Item = Request<'_>>,
        mut each: impl FnMut(Reply<'static>) -> Result<(), PlasmaError>,
    ) -> Result<(), PlasmaError> {
        let mut receiving = self.receiving()?;
        let mut sending = self.link.open_sending()?;
        let first = sending.questions + 1;
        for request in requests {
            sending.push(&request);
            sending.questions += 1;
        }
        let last = sending.questions;
        self.link.flush(&mut sending)?;
        drop(sending);
        for question in first..=last {
            each(self.answer(&mut receiving, question)?)?;
        }
        Ok(())
    }

    /// Gets objects, and counts a buffer for each that is found.
    pub(crate) fn get(
        &self,
        ids: &[ObjectId],
        timeout_ms: i64,
    ) -> Result<Vec<Option<ObjectSpec>>, PlasmaError> {
        self.get_before(ids, timeout_ms, None)
    }

    /// The same, given up at a deadline (and the connection with it).
    pub(crate) fn get_before(
        &self,
        ids: &[ObjectId],
        timeout_ms: i64,
        deadline: Option<Instant>,
    ) -> Result<Vec<Option<ObjectSpec>>, PlasmaError> {
        let mut receiving = self.receiving()?;
        let request = Request::Get {
            ids: ids.into(),
            timeout_ms,
        };
        // Counted before the store can answer: a buffer of the same object that is dropped
        // meanwhile must not release what this get is about to be given.
        let question = self.ask(&request, |holds| {
            for id in ids {
                holds.entry(*id).or_default().buffers += 1;
            }
        })?;
        let reply = self.answer_before(&mut receiving, question, deadline)?;
        let Reply::Get { objects, segments } = reply else {
            return Err(self
                .link
                .give_up(PlasmaError::protocol("another reply than a get's")));
        };
        if !objects.iter().map(|(id, _)| id).eq(ids) {
            let error = PlasmaError::protocol("a get's reply for other objects");
            return Err(self.link.give_up(error));
        }
        for segment in segments {
            self.meet(&mut receiving, segment, deadline)?;
        }
        let mut found = Vec::with_capacity(ids.len());
        let mut sending = self.link.sending();
        for (id, spec) in objects.iter() {
            if spec.is_none() {
                sending.let_go(id);
            } else if let Some(hold) = sending.holds.get_mut(id) {
                hold.in_store = true;
            }
            found.push(*spec);
        }
        Ok(found)
    }

    /// Creates an object, and counts its writer as a buffer. The inner result is the store's.
    pub(crate) fn create(
        &self,
        id: ObjectId,
        data_size: u64,
        metadata_size: u64,
        evict_if_full: bool,
    ) -> Result<Result<ObjectSpec, ErrorCode>, PlasmaError> {
        let mut receiving = self.receiving()?;
        let request = Request::Create {
            id,
            evict_if_full,
            data_size,
            metadata_size,
            device_num: 0,
        };
        let question = self.ask(&request, |_| {})?;
        let Reply::Create { id: named, result } = self.answer(&mut receiving, question)? else {
            return Err(self
                .link
                .give_up(PlasmaError::protocol("another reply than a create's")));
        };
        let (spec, segment) = match result {
            Err(code) => return Ok(Err(code)),
            Ok(created) => created,
        };
        if named != id || (spec.data_size, spec.metadata_size) != (data_size, metadata_size) {
            let error = PlasmaError::protocol("a create's reply for another object");
            return Err(self.link.give_up(error));
        }
        self.meet(&mut receiving, segment, None)?;
        let mut sending = self.link.sending();
        let hold = sending.holds.entry(id).or_default();
        hold.buffers += 1;
        hold.in_store = true;
        Ok(Ok(spec))
    }

    /// Counts one more buffer of an object that has one.
    pub(crate) fn retain(&self, id: ObjectId) {
        if !self.is_ours() {
            return;
        }
        match self.link.sending().holds.get_mut(&id) {
            Some(hold) => hold.buffers += 1,
            None => debug_assert!(false, "{id} has no buffer that could be shared"),
        }
    }

    /// Takes one buffer of an object away, and tells the store with the last one. Does not wait.
    pub(crate) fn release(&self, id: ObjectId) {
        if !self.is_ours() {
            return;
        }
        let mut sending = self.link.sending();
        if sending.let_go(&id) && !self.link.is_broken() {
            sending.push(&Request::Release(id));
            self.link.send_drop(&mut sending);
            self.set_behind();
        }
    }

    /// Takes one buffer of each of these objects away, tells the store, and asks it something, so that
    /// who [hears it out](Self::hear_out) knows that it has seen to that. Does not wait.
    pub(crate) fn release_all(&self, ids: impl Iterator<Item = ObjectId>) {
        let mut sending = self.link.sending();
        for id in ids {
            if sending.let_go(&id) {
                sending.push(&Request::Release(id));
            }
        }
        if !self.link.is_broken() {
            sending.push(&ANY_QUESTION);
            sending.questions += 1;
            self.link.send_drop(&mut sending);
        }
    }

    /// Drops an object that was never sealed. Does not wait: the reply is read with a later one.
    pub(crate) fn abandon(&self, id: ObjectId) {
        if !self.is_ours() {
            return;
        }
        let mut sending = self.link.sending();
        sending.holds.remove(&id);
        if !self.link.is_broken() {
            sending.push(&Request::Abort(id));
            sending.questions += 1;
            self.link.send_drop(&mut sending);
            self.set_behind();
        }
    }

    /// Counts the creator's buffer of an object that was created without this.
    pub(crate) fn adopt(&self, id: ObjectId) {
        if !self.is_ours() {
            return;
        }
        let mut sending = self.link.sending();
        let hold = sending.holds.entry(id).or_default();
        hold.buffers += 1;
        hold.in_store = true;
    }

    /// Forgets an object of which it is not known whether it was sealed. The store takes back what
    /// there is when the connection ends.
    pub(crate) fn disown(&self, id: ObjectId) {
        if !self.is_ours() {
            return;
        }
        self.link.sending().holds.remove(&id);
    }

    /// Aborts an object that was never sealed.
    pub(crate) fn abort(&self, id: ObjectId) -> Result<(), PlasmaError> {
        if !self.is_ours() {
            return Err(PlasmaError::Forked);
        }
        self.link.sending().holds.remove(&id);
        match self.call(&Request::Abort(id))? {
            Reply::Abort(_) => Ok(()),
            _ => Err(self
                .link
                .give_up(PlasmaError::protocol("another reply than an abort's"))),
        }
    }

    /// Subscribes: the store writes notifications to `stream` from now on. There is no reply.
    pub(crate) fn subscribe(&self, stream: OwnedFd) -> Result<(), PlasmaError> {
        let receiving = self.receiving()?;
        let mut sending = self.link.open_sending()?;
        sending.push(&Request::Subscribe);
        sending.outbox.push_descriptor(Arc::new(stream));
        let mut sent = self.link.flush(&mut sending)?;
        drop(sending);
        while !sent {
            self.link.wait(PollFlags::POLLOUT, None)?;
            sent = self.link.flush(&mut *self.link.open_sending()?)?;
        }
        drop(receiving);
        Ok(())
    }

    /// Sends a request; the number of its reply.
    fn ask(
        &self,
        request: &Request<'_>,
        count: impl FnOnce(&mut HashMap<ObjectId, Hold>),
    ) -> Result<u64, PlasmaError> {
        let mut sending = self.link.open_sending()?;
        count(&mut sending.holds);
        let Sending {
            encoder, outbox, ..
        } = &mut *sending;
        let sent = outbox.send(self.link.socket.as_fd(), encoder.request(request));
        sent.map_err(|error| self.link.lost(error))?;
        sending.questions += 1;
        Ok(sending.questions)
    }

    fn answer(
        &self,
        receiving: &mut Receiving,
        question: u64,
    ) -> Result<Reply<'static>, PlasmaError> {
        self.answer_before(receiving, question, None)
    }

    /// Reads replies up to that of `question`; the ones before it are to aborts nobody waits for.
    fn answer_before(
        &self,
        receiving: &mut Receiving,
        question: u64,
        deadline: Option<Instant>,
    ) -> Result<Reply<'static>, PlasmaError> {
        loop {
            let message = receiving.inbox.next_message(MAX_REPLY_LEN);
            let message = message.map_err(|error| PlasmaError::protocol(error.to_string()));
            match message.map_err(|error| self.link.give_up(error))? {
                Some((kind, body)) => {
                    let reply = Reply::decode(kind, body);
                    let reply = reply.map_err(|error| self.link.give_up(error.into()))?;
                    receiving.answers += 1;
                    if receiving.answers == question {
                        return Ok(reply);
                    }
                }
                None => self.receive(receiving, deadline)?,
            }
        }
    }

    /// Waits for bytes, writing meanwhile what the kernel has not taken yet.
    fn receive(
        &self,
        receiving: &mut Receiving,
        deadline: Option<Instant>,
    ) -> Result<(), PlasmaError> {
        let Receiving { inbox, spin, .. } = receiving;
        let mut look = || match inbox.receive(self.link.socket.as_fd()) {
            Ok(Received::Nothing) => None,
            other => Some(other),
        };
        let mut asleep = None;
        loop {
            let sent = self.link.flush(&mut self.link.sending())?;
            let received = if sent && asleep.is_none() {
                spin.watch(&mut look)
            } else {
                look()
            };
            match received {
                Some(Ok(Received::Bytes(_))) => break,
                Some(Ok(_)) => return Err(self.link.give_up(PlasmaError::Disconnected)),
                Some(Err(error)) => return Err(self.link.lost(error)),
                None => {}
            }
            asleep.get_or_insert_with(Instant::now);
            let events = if sent {
                PollFlags::POLLIN
            } else {
                PollFlags::POLLIN | PollFlags::POLLOUT
            };
            self.link.wait(events, deadline)?;
        }
        if let Some(since) = asleep {
            spin.slept(since.elapsed());
        }
        Ok(())
    }

    /// Takes the next descriptor, which the store has announced.
    fn next_descriptor(
        &self,
        receiving: &mut Receiving,
        deadline: Option<Instant>,
    ) -> Result<OwnedFd, PlasmaError> {
        loop {
            match receiving.inbox.next_descriptor() {
                Some(Ok(descriptor)) => return Ok(descriptor),
                Some(Err(missing)) => {
                    return Err(self
                        .link
                        .give_up(PlasmaError::protocol(missing.to_string())));
                }
                None => self.receive(receiving, deadline)?,
            }
        }
    }

    /// Makes sure that a segment a reply names is known: its descriptor follows the reply if this
    /// connection has not seen it.
    fn meet(
        &self,
        receiving: &mut Receiving,
        named: SegmentRef,
        deadline: Option<Instant>,
    ) -> Result<(), PlasmaError> {
        if lock(&self.segments).contains_key(&named.segment) {
            return Ok(());
        }
        let descriptor = self.next_descriptor(receiving, deadline)?;
        let len = u64::try_from(named.mmap_size)
            .ok()
            .and_then(|size| size.checked_sub(MMAP_GAP));
        let segment = match len {
            Some(len) => Segment::new(descriptor, len),
            None => Err(PlasmaError::protocol("a segment of negative length")),
        };
        let segment = segment.map_err(|error| self.link.give_up(error))?;
        lock(&self.segments).insert(named.segment, Arc::new(segment));
        Ok(())
    }

    /// The segment of this number, if the store has told of one.
    pub(crate) fn segment(&self, number: i32) -> Option<Arc<Segment>> {
        lock(&self.segments).get(&number).map(Arc::clone)
    }

    /// Marks the connection as of no more use, for the reason given.
    pub(crate) fn give_up(&self, reason: PlasmaError) -> PlasmaError {
        self.link.give_up(reason)
    }

    /// Gives up a connection to a store that broke the protocol; other errors leave it as it is.
    #[cold]
    pub(crate) fn judge(&self, error: PlasmaError) -> PlasmaError {
        match error {
            PlasmaError::Protocol { .. } => self.give_up(error),
            error => error,
        }
    }

    /// Whether the store is known, or can be seen, to be gone, or this is another process's connection.
    pub(crate) fn has_ended(&self) -> bool {
        !self.is_ours() || self.link.ends_within(Duration::ZERO)
    }

    /// The same of a store that may be about to go.
    pub(crate) fn ends_within(&self, time: Duration) -> bool {
        !self.is_ours() || self.link.ends_within(time)
    }

    /// Who is at the other end, as far as the kernel tells: the process that listened there. Two stores
    /// of one process look the same, and so do those of one user that this process has no numbers for, as
    /// they are in other containers.
    pub(crate) fn peer(&self) -> Option<UnixCredentials> {
        getsockopt(&self.link.socket, PeerCredentials).ok()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if !self.is_ours() {
            // The socket is the parent's too, and it goes on using it.
            return;
        }
        self.link.sending().flusher = Flusher::Ending;
        self.link.wake.notify_one();
        // The store is to learn of it now, not when the flusher has ended.
        let _ = self.link.socket.shutdown(Shutdown::Both);
    }
}

impl Link {
    fn sending(&self) -> MutexGuard<'_, Sending> {
        lock(&self.sending)
    }

    /// The sending side, if anything can be sent.
    fn open_sending(&self) -> Result<MutexGuard<'_, Sending>, PlasmaError> {
        if self.is_broken() {
            return Err(PlasmaError::Disconnected);
        }
        Ok(self.sending())
    }

    fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    /// Whether the stream is of no more use, or the store has closed it and nobody has noticed yet, or
    /// does so in this time.
    fn ends_within(&self, time: Duration) -> bool {
        if self.is_broken() {
            return true;
        }
        let hangup = PollFlags::empty();
        let ended = wait_ready(self.socket.as_fd(), hangup, Some(time));
        self.is_broken() || !matches!(ended, Ok(false))
    }

    fn give_up(&self, reason: PlasmaError) -> PlasmaError {
        self.broken.store(true, Ordering::Release);
        // A thread that waits here learns of it; if the socket is gone already, it knows. The store
        // is not to: it would take back what buffers still read, which is theirs until the last of
        // them is dropped.
        let _ = self.socket.shutdown(Shutdown::Read);
        reason
    }

    fn lost(&self, error: io::Error) -> PlasmaError {
        self.give_up(match error.kind() {
            io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::NotConnected => PlasmaError::Disconnected,
            _ => PlasmaError::Io {
                action: "the connection to the store failed",
                source: error,
            },
        })
    }

    fn flush(&self, sending: &mut Sending) -> Result<bool, PlasmaError> {
        let flushed = sending.outbox.flush(self.socket.as_fd());
        flushed.map_err(|error| self.lost(error))
    }

    /// Sees to it that what a drop has put into the outbox is written, without waiting.
    fn send_drop(self: &Arc<Self>, sending: &mut Sending) {
        let many = sending.drops.are_many();
        if sending.flusher == Flusher::Awake {
            return;
        }
        if !many && !matches!(self.flush(sending), Ok(false)) {
            return;
        }
        if sending.flusher == Flusher::NotStarted {
            let link = Arc::clone(self);
            let builder = thread::Builder::new().name("plasma-flush".into());
            if builder.spawn(move || link.flush_when_woken()).is_err() {
                // There are no more threads to be had: the next call writes what is left.
                let _ = self.flush(sending);
                return;
            }
        }
        sending.flusher = Flusher::Awake;
        self.wake.notify_one();
    }

    /// The flusher's life.
    fn flush_when_woken(&self) {
        let mut sending = self.sending();
        loop {
            match sending.flusher {
                Flusher::Ending => return,
                Flusher::NotStarted | Flusher::Asleep => {
                    sending = self
                        .wake
                        .wait(sending)
                        .unwrap_or_else(PoisonError::into_inner);
                }
                Flusher::Awake => {
                    drop(sending);
                    thread::sleep(GATHER_TIME);
                    sending = self.flush_all();
                }
            }
        }
    }

    /// Writes the outbox, waiting where the kernel takes no more, and goes to sleep if there was
    /// nothing in it.
    fn flush_all(&self) -> MutexGuard<'_, Sending> {
        loop {
            let mut sending = self.sending();
            let idle = sending.outbox.is_empty();
            match self.flush(&mut sending) {
                Ok(false) => {
                    drop(sending);
                    // If that fails, so does the next write, and the connection is given up.
                    let _ = self.wait(PollFlags::POLLOUT, None);
                }
                flushed => {
                    if (idle || flushed.is_err()) && sending.flusher == Flusher::Awake {
                        sending.flusher = Flusher::Asleep;
                    }
                    return sending;
                }
            }
        }
    }

    fn wait(&self, events: PollFlags, deadline: Option<Instant>) -> Result<(), PlasmaError> {
        let timeout = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        match wait_ready(self.socket.as_fd(), events, timeout) {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.give_up(PlasmaError::Io {
                action: "the store does not answer",
                source: io::ErrorKind::TimedOut.into(),
            })),
            Err(error) => Err(self.lost(error)),
        }
    }
}
