//! The event loop: it carries requests to the rules and answers back, on one thread.
//!
//! It never waits for a client. What a client makes it keep is bounded, as [`ClientLimits`] tell: a
//! request is kept only as far as it has come; a client that does not read is no longer listened
//! to, and after a while it is cut off. Whatever is malformed costs the one who sent it the
//! connection, and nobody else anything.

mod admission;
mod clock;
mod closer;
mod connection;
mod ending;
mod memory;
mod requests;
mod rings;
mod subscriber;

use std::collections::{BTreeSet, VecDeque};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::HashMap;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::EventFd;
use nix::sys::signalfd::SignalFd;
use plasma_core::protocol::message::{Encoder, Reply};
use plasma_core::shm::page::Shape;
use plasma_core::spin::Spin;
use plasma_core::transport::Inbox;
use tracing::{info, warn};

use crate::StoreError;
use crate::arena::Arena;
use crate::backer::JobId;
use crate::builder::Prefault;
use crate::external::ExternalStore;
use crate::limits::ClientLimits;
use crate::metrics::Stats;
use crate::readers::SharedReaders;
use crate::socket::Listener;
use crate::state::{Announcement, Carry, ClientId, Effects, Limits, Now, State};
use clock::Clock;
use closer::Closer;
use connection::{Connection, Progress};
use ending::CutOff;
use memory::Memory;
use requests::{Closed, Task};
use rings::Rings;
use subscriber::Subscriber;

pub(crate) use admission::Admission;

/// Requests of one client that are handled before others have their turn. Others wait for as long as
/// these take, some 10 µs, and a look at who else has asked costs less than one of them.
const TURN: usize = 32;

/// How long a turn may take; what was begun is finished. Some requests have the store look through all
/// that clients hold, which can take as long as many others.
const TURN_TIME: Duration = Duration::from_micros(100);

/// Reads in one turn.
const ROUNDS: usize = 16;

/// Connections that are accepted before those who are connected have their turn.
const ACCEPTS_A_TURN: usize = 64;

/// A request that is no longer than this may always come in parts, in bytes.
const SMALL_REQUEST: usize = 1 << 20;

/// How often those are looked for who have stopped reading.
const STALL_CHECK: Duration = Duration::from_secs(1);

/// How often to look at the rings before the kernel is asked for other events, which takes as long
/// as some ten looks.
const LOOKS_AT_RINGS: u32 = 32;

/// How long the store may be busy with rings before the kernel is asked for other events.
const KERNEL_CHECK: Duration = Duration::from_micros(50);

/// Announcements and replies that there is always room for.
const KEPT_EFFECTS: usize = 256;

/// How long to wait where there are no descriptors to be had.
const DESCRIPTOR_PAUSE: Duration = Duration::from_millis(100);

/// What ends the loop.
#[derive(Debug)]
pub(crate) enum Stop {
    Event(Arc<EventFd>),
    Signals(SignalFd),
}

impl Stop {
    /// What becomes readable then.
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Event(event) => event.as_fd(),
            Self::Signals(signals) => signals.as_fd(),
        }
    }
}

/// How the loop is to serve.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) limits: Limits,
    pub(crate) clients: ClientLimits,
    pub(crate) admission: Admission,
    pub(crate) prefault: Prefault,
    /// What clients share with the store beyond the socket, if anything.
    pub(crate) shared: Option<Shape>,
    /// How long to look for the next request before the store sleeps, at most.
    pub(crate) poll_time: Duration,
}

/// Tells the kernel which events of a descriptor to tell us of.
fn set_interest(epoll: &Epoll, descriptor: BorrowedFd<'_>, token: Token, events: EpollFlags) {
    let mut event = EpollEvent::new(events, token.number());
    if let Err(error) = epoll.modify(descriptor, &mut event) {
        warn!(%error, ?token, "cannot change what to wait for");
    }
}

/// What an event is about, as a number the kernel keeps for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Listener,
    Stop,
    Backer,
    Metrics,
    Connection(ClientId),
    Subscriber(ClientId),
    Bell(ClientId),
}

impl Token {
    const FIRST_CLIENT: u64 = 4;

    fn number(self) -> u64 {
        match self {
            Self::Listener => 0,
            Self::Stop => 1,
            Self::Backer => 2,
            Self::Metrics => 3,
            Self::Connection(client) => Self::FIRST_CLIENT + client.0 * 3,
            Self::Subscriber(client) => Self::FIRST_CLIENT + client.0 * 3 + 1,
            Self::Bell(client) => Self::FIRST_CLIENT + client.0 * 3 + 2,
        }
    }

    fn from_number(number: u64) -> Self {
        match number {
            0 => Self::Listener,
            1 => Self::Stop,
            2 => Self::Backer,
            3 => Self::Metrics,
            _ => {
                let number = number - Self::FIRST_CLIENT;
                let client = ClientId(number / 3);
                match number % 3 {
                    0 => Self::Connection(client),
                    1 => Self::Subscriber(client),
                    _ => Self::Bell(client),
                }
            }
        }
    }
}

#[derive(Debug)]
pub(crate) struct Server {
    options: Options,
    state: State<Option<SharedReaders>>,
    stats: Arc<Stats>,
    /// Who creates objects has been told of `max-objects` in the log, and nothing has changed.
    told_of_max_objects: bool,
    memory: Memory,
    external: Option<Box<dyn ExternalStore>>,
    epoll: Epoll,
    listener: Listener,
    /// Set while descriptors have run out: when to try again.
    accept_at: Option<Duration>,
    /// The same where those that were sent and have not arrived are too many.
    crowd_at: Option<Duration>,
    /// That is in the log, and has not passed.
    told_of_crowd: bool,
    /// Held for its descriptor.
    _stop: Stop,
    clock: Clock,
    next_client: u64,
    connections: HashMap<ClientId, Connection>,
    /// Requests that come through shared memory.
    rings: Rings,
    /// Clients that are served no more, and may still read what they hold.
    cut_off: HashMap<ClientId, CutOff>,
    subscribers: HashMap<ClientId, Subscriber>,
    /// Connections with requests that are here and not handled.
    ready: VecDeque<ClientId>,
    /// Connections and subscribers with something to write, or whose state has changed.
    unsent: BTreeSet<ClientId>,
    unheard: BTreeSet<ClientId>,
    /// Bytes of requests that have not come whole, of all clients.
    unfinished: usize,
    closer: Closer,
    /// Connections whose clients have to read before more is written.
    blocked: BTreeSet<ClientId>,
    stalls_checked: Duration,
    /// When the kernel was last asked for events while the rings were busy.
    kernel_asked: Duration,
    /// What waits for memory.
    tasks: HashMap<JobId, Task>,
    encoder: Encoder,
    /// Empty between requests; kept for its buffers.
    effects: Effects,
    spin: Spin,
}

impl Server {
    pub(crate) fn new(
        options: Options,
        arena: Arena,
        external: Option<Box<dyn ExternalStore>>,
        stats: Arc<Stats>,
        stop: Stop,
        bind: impl FnOnce() -> Result<Listener, StoreError>,
    ) -> Result<Self, StoreError> {
        let readers = options.shared.and_then(|_| readers(&options.limits));
        let options = Options {
            shared: options.shared.filter(|_| readers.is_some()),
            ..options
        };
        let spin = Spin::up_to(options.poll_time);
        let mut state = State::with_readers(options.limits, readers);
        let mut memory = Memory::new(arena, options.limits.capacity)?;
        match options.prefault {
            Prefault::Off => {}
            Prefault::Background => memory.prefault_in_background(&mut state),
            Prefault::Full => memory.prefault_now()?,
        }
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(broken)?;
        let listener = bind()?;
        for (descriptor, token) in [
            (listener.socket.as_fd(), Token::Listener),
            (stop.as_fd(), Token::Stop),
            (memory.event().as_fd(), Token::Backer),
        ] {
            let event = EpollEvent::new(EpollFlags::EPOLLIN, token.number());
            epoll.add(descriptor, event).map_err(broken)?;
        }
        #[cfg(feature = "metrics")]
        if let Some(renewal) = &stats.renewal {
            let event = EpollEvent::new(EpollFlags::EPOLLIN, Token::Metrics.number());
            epoll.add(renewal.event(), event).map_err(broken)?;
        }
        Ok(Self {
            state,
            stats,
            told_of_max_objects: false,
            options,
            memory,
            external,
            epoll,
            listener,
            accept_at: None,
            crowd_at: None,
            told_of_crowd: false,
            _stop: stop,
            clock: Clock::new(),
            next_client: 0,
            connections: HashMap::default(),
            rings: Rings::default(),
            cut_off: HashMap::default(),
            subscribers: HashMap::default(),
            ready: VecDeque::new(),
            unsent: BTreeSet::new(),
            unheard: BTreeSet::new(),
            unfinished: 0,
            closer: Closer::default(),
            blocked: BTreeSet::new(),
            stalls_checked: Duration::ZERO,
            kernel_asked: Duration::ZERO,
            tasks: HashMap::default(),
            encoder: Encoder::new(),
            effects: Effects::default(),
            spin,
        })
    }

    pub(crate) fn socket_path(&self) -> &Path {
        self.listener.path()
    }

    /// Serves until it is told to stop.
    pub(crate) fn run(mut self) -> Result<(), StoreError> {
        let served = self.serve_until_told();
        self.end();
        served
    }

    fn serve_until_told(&mut self) -> Result<(), StoreError> {
        info!(
            socket = %self.socket_path().display(),
            capacity_bytes = self.options.limits.capacity,
            "serving"
        );
        self.publish();
        let mut events = [EpollEvent::empty(); 256];
        loop {
            let count = self.wait(&mut events)?;
            for event in events.iter().take(count) {
                match Token::from_number(event.data()) {
                    Token::Listener => self.accept(),
                    Token::Stop => {
                        let ignored_requests = self.state.tally().ignored_requests;
                        info!(ignored_requests, "stopping");
                        return Ok(());
                    }
                    Token::Backer => self.finish_jobs(),
                    Token::Metrics => self.hear_of_metrics(),
                    Token::Connection(client) => self.serve(client, event.events()),
                    Token::Subscriber(client) => self.subscriber_event(client, event.events()),
                    Token::Bell(client) => self.hear(client),
                }
            }
            for _ in 0..self.ready.len() {
                if let Some(client) = self.ready.pop_front() {
                    self.serve(client, EpollFlags::empty());
                }
            }
            self.serve_rings();
            self.keep_time();
            self.send();
            self.tell_of_max_objects();
            self.publish();
        }
    }

    /// Somebody wants to read the metrics: what clients do without asking is looked at for that.
    fn hear_of_metrics(&mut self) {
        #[cfg(feature = "metrics")]
        if let Some(renewal) = &self.stats.renewal {
            renewal.hear();
        }
        let now = self.now();
        let mut fx = std::mem::take(&mut self.effects);
        self.state.sweep(now, &mut fx);
        self.settle(fx);
        self.publish();
        self.publish_gets();
        #[cfg(feature = "metrics")]
        if let Some(renewal) = &self.stats.renewal {
            renewal.tell();
        }
    }

    /// Tells whoever reads the metrics how things stand.
    fn publish(&self) {
        let stats = &*self.stats;
        if !stats.watched() {
            return;
        }
        let tally = self.state.tally();
        for (level, value) in [
            (&stats.capacity_bytes, self.options.limits.capacity),
            (&stats.used_bytes, tally.used_bytes),
            (&stats.largest_free_bytes, tally.largest_free_bytes),
            (&stats.pinned_bytes, tally.pinned_bytes),
            (&stats.objects, tally.objects as u64),
            (&stats.unsealed_objects, tally.unsealed_objects as u64),
            (&stats.evictions, tally.evictions),
            (&stats.evicted_bytes, tally.evicted_bytes),
            (&stats.refused_creates, tally.refused_creates),
            (&stats.ignored_requests, tally.ignored_requests),
            (&stats.clients, self.connections.len() as u64),
            (&stats.cut_off_clients, self.cut_off.len() as u64),
            (&stats.subscriptions, self.subscribers.len() as u64),
        ] {
            level.set(value);
        }
    }

    /// Tells them of gets. Every client counts its own, so this takes longer, and takes from the clients
    /// what they count in.
    fn publish_gets(&self) {
        let tally = self.state.tally();
        let readers = self.state.readers().as_ref();
        let (hits, misses) = readers.map_or((0, 0), SharedReaders::counts);
        self.stats.hits.set(tally.hits.wrapping_add(hits));
        self.stats.misses.set(tally.misses.wrapping_add(misses));
    }

    /// Says in the log that there are as many objects as there may be, once each time it comes to
    /// that.
    fn tell_of_max_objects(&mut self) {
        match self.state.met_max_objects() {
            Some(limit) if !self.told_of_max_objects => {
                warn!(
                    "creates fail: there are {limit} objects, the most there may be (--max-objects)"
                );
                self.told_of_max_objects = true;
            }
            Some(_) => {}
            None => self.told_of_max_objects = false,
        }
    }

    fn now(&self) -> Now {
        self.clock.now()
    }

    /// Waits for events or requests in shared memory: for a while by looking again, then asleep.
    fn wait(&mut self, events: &mut [EpollEvent]) -> Result<usize, StoreError> {
        let epoll = &self.epoll;
        let mut poll = |timeout| loop {
            match epoll.wait(&mut events[..], timeout) {
                Err(Errno::EINTR) => {}
                result => return result.map_err(broken),
            }
        };
        let now = self.clock.last();
        let overdue = now.elapsed.saturating_sub(self.kernel_asked) >= KERNEL_CHECK;
        if overdue {
            // Whichever way this goes on, it asks the kernel then.
            self.kernel_asked = now.elapsed;
        }
        if !self.ready.is_empty() {
            return poll(EpollTimeout::ZERO);
        }
        let due = self.next_time();
        let is_due = || due.is_some_and(|at| self.clock.until(at).is_zero());
        let rings = &mut self.rings;
        let watched = self.spin.watch(|| {
            for _ in 0..LOOKS_AT_RINGS {
                if rings.any_waiting() {
                    // The kernel is asked now and then, however busy the rings are.
                    let found = if overdue {
                        poll(EpollTimeout::ZERO)
                    } else {
                        Ok(0)
                    };
                    return Some(found);
                }
                if !rings.any_watched() {
                    break;
                }
                std::hint::spin_loop();
            }
            match poll(EpollTimeout::ZERO) {
                Ok(0) if !is_due() => None,
                other => Some(other),
            }
        });
        if let Some(found) = watched {
            rings.rest_quiet(now, self.options.poll_time);
            return found;
        }
        if !rings.rest() {
            return poll(EpollTimeout::ZERO);
        }
        let timeout = match due {
            None => EpollTimeout::NONE,
            Some(at) => {
                let left = self.clock.until(at);
                // Rounded up: not to wake before there is something to do.
                let left_ms = left.as_nanos().div_ceil(1_000_000);
                EpollTimeout::try_from(left_ms).unwrap_or(EpollTimeout::MAX)
            }
        };
        let asleep = Instant::now();
        let count = poll(timeout)?;
        if count > 0 {
            self.spin.slept(asleep.elapsed());
        }
        Ok(count)
    }

    /// When there is something to do even if nothing comes.
    fn next_time(&self) -> Option<Duration> {
        let stalls = (!self.blocked.is_empty()).then_some(self.stalls_checked + STALL_CHECK);
        let waits = self.state.next_deadline();
        let times = [stalls, waits, self.accept_at, self.crowd_at];
        times.into_iter().flatten().min()
    }

    fn keep_time(&mut self) {
        if self.next_time().is_none() {
            return;
        }
        let now = self.now();
        let is_time = |at| at <= now.elapsed;
        if self.state.next_deadline().is_some_and(is_time) {
            let mut fx = std::mem::take(&mut self.effects);
            self.state.expire(now, &mut fx);
            self.settle(fx);
        }
        if !self.blocked.is_empty() && is_time(self.stalls_checked + STALL_CHECK) {
            self.stalls_checked = now.elapsed;
            self.cut_off_the_stalled();
        }
        if self.accept_at.is_some_and(is_time) {
            self.accept_at = None;
            let listener = self.listener.socket.as_fd();
            set_interest(&self.epoll, listener, Token::Listener, EpollFlags::EPOLLIN);
            self.accept();
        }
        if self.crowd_at.is_some_and(is_time) {
            self.crowd_at = None;
            let connections = &self.connections;
            let crowded = self.blocked.iter().copied().filter(|client| {
                let connection = connections.get(client);
                connection.is_some_and(|connection| connection.crowded)
            });
            self.unsent.extend(crowded);
        }
    }

    // -----------------------------------------------------------------------------------------
    // Connections

    /// Reads, handles and answers what a client has sent, as far as it may.
    fn serve(&mut self, client: ClientId, events: EpollFlags) {
        if let Err(reason) = self.try_serve(client, events) {
            self.close(client, &reason);
        }
    }

    fn try_serve(&mut self, client: ClientId, events: EpollFlags) -> Result<(), Closed> {
        let Some(connection) = self.connections.get_mut(&client) else {
            self.watch_cut_off(client);
            return Ok(());
        };
        let over = events.intersects(EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR);
        if connection.job.is_some() {
            return if over { Err(Closed::ByPeer) } else { Ok(()) };
        }
        if connection.flush()? == Progress::Blocked {
            // What is here already has to be looked at again once it is not.
            connection.more = true;
            self.blocked.insert(client);
            // It may be blocked by something else now.
            self.unsent.insert(client);
            return Ok(());
        }
        // What is here comes first: reading on meanwhile, the store would keep all that a client can
        // send faster than it is handled.
        let mut readable =
            connection.inbox.is_empty() && (over || events.contains(EpollFlags::EPOLLIN));
        let most_unfinished = self.max_unfinished();
        let mut left = TURN;
        let start = self.now().elapsed;
        // Who has just asked is likely to ask again before anybody else does.
        for _ in 0..ROUNDS {
            let Some(connection) = self.connections.get_mut(&client) else {
                return Ok(());
            };
            if readable && !connection.receive()? {
                break;
            }
            // Whatever happens next may need the connection; what came is ours meanwhile.
            let mut inbox = std::mem::take(&mut connection.inbox);
            let handled = self.handle_turn(client, &mut inbox, &mut left, start);
            let Some(connection) = self.connections.get_mut(&client) else {
                return Ok(());
            };
            connection.inbox = inbox;
            connection.more = handled?;
            // Only what is left of a request that has not come whole.
            let held = if connection.more {
                0
            } else {
                connection.inbox.len()
            };
            self.unfinished = self.unfinished - connection.unfinished + held;
            connection.unfinished = held;
            if held > SMALL_REQUEST && self.unfinished > most_unfinished {
                return Err(Closed::TooMuchUnfinished(most_unfinished));
            }
            if connection.more || connection.flush()? == Progress::Blocked {
                break;
            }
            readable = true;
        }
        self.unsent.insert(client);
        Ok(())
    }

    /// Handles requests until there are none, or the client has to wait; whether there may be
    /// more.
    fn handle_turn(
        &mut self,
        client: ClientId,
        inbox: &mut Inbox,
        left: &mut usize,
        start: Duration,
    ) -> Result<bool, Closed> {
        let max_unread = self.options.clients.max_unread_bytes;
        while *left > 0 {
            *left -= 1;
            if !self.handle_next(client, inbox)? {
                return Ok(false);
            }
            match self.connections.get_mut(&client) {
                Some(connection) => {
                    if connection.must_wait(max_unread)? {
                        break;
                    }
                }
                None => break,
            }
            if self.now().elapsed - start > TURN_TIME {
                break;
            }
        }
        Ok(true)
    }

    /// Longest request body this store reads, in bytes.
    fn max_request_len(&self) -> usize {
        let capacity = self.options.limits.capacity;
        self.options.clients.request_bytes(capacity)
    }

    /// Most that all clients together may have sent of requests that have not come whole, in bytes.
    fn max_unfinished(&self) -> usize {
        let capacity = self.options.limits.capacity;
        self.options.clients.unfinished_bytes(capacity)
    }

    /// Writes what there is to write, and arranges to hear when more can be written.
    fn send(&mut self) {
        while let Some(client) = self.unsent.pop_first() {
            let Some(connection) = self.connections.get_mut(&client) else {
                continue;
            };
            let was_crowded = connection.crowded;
            match connection.flush() {
                Err(reason) => {
                    self.close(client, &reason);
                    continue;
                }
                Ok(Progress::Blocked) => {
                    if connection.crowded && self.crowd_at.is_none() {
                        self.crowd_at = Some(self.clock.last().elapsed + DESCRIPTOR_PAUSE);
                        if !self.told_of_crowd {
                            warn!(
                                "clients wait: others do not receive the descriptors they are sent"
                            );
                            self.told_of_crowd = true;
                        }
                    }
                    self.blocked.insert(client);
                }
                Ok(Progress::Done) => {
                    self.told_of_crowd &= !was_crowded;
                    self.blocked.remove(&client);
                    if connection.more && connection.job.is_none() {
                        connection.more = false;
                        self.ready.push_back(client);
                    }
                }
            }
            self.listen(client);
        }
        self.send_notifications();
    }

    /// Tells the kernel what to tell us of a connection.
    fn listen(&mut self, client: ClientId) {
        let Some(connection) = self.connections.get_mut(&client) else {
            return;
        };
        let wanted = connection.wanted_events();
        if connection.interest != wanted {
            connection.interest = wanted;
            let token = Token::Connection(client);
            set_interest(&self.epoll, connection.socket(), token, wanted);
        }
    }

    // -----------------------------------------------------------------------------------------
    // Effects

    /// Does what the rules say follows, until nothing more does.
    fn settle(&mut self, mut fx: Effects) {
        loop {
            for carry in std::mem::take(&mut fx.carries) {
                self.carry(carry, &mut fx);
            }
            for announcement in fx.announcements.drain(..) {
                self.announce(&announcement);
            }
            for (client, reply) in fx.replies.drain(..) {
                self.reply(client, &reply);
            }
            if fx.restores.is_empty() {
                break;
            }
            for restore in std::mem::take(&mut fx.restores) {
                self.restore(restore, &mut fx);
                // Its place is free by now, and the next to come back may have it given back.
                for carry in std::mem::take(&mut fx.carries) {
                    self.carry(carry, &mut fx);
                }
            }
        }
        // Kept for its buffers, unless a burst has made them large; it is empty.
        fx.announcements.shrink_to(KEPT_EFFECTS);
        fx.replies.shrink_to(KEPT_EFFECTS);
        self.effects = fx;
    }

    /// Takes content to the external store, or tells it to forget some.
    fn carry(&mut self, carry: Carry, fx: &mut Effects) {
        let Some(external) = &mut self.external else {
            return;
        };
        match carry {
            Carry::Away(id) => external.remove(&id),
            Carry::Out(spill) => {
                let len = spill.data_size + spill.metadata_size;
                let content = self.memory.read(spill.range, len);
                if !content.is_ok_and(|content| external.put(spill.id, content)) {
                    warn!(id = %spill.id, "lost an object on its way to the external store");
                    self.state.spill_failed(&spill.id, fx);
                }
            }
        }
    }

    /// Queues a reply, if the client is still there.
    fn reply(&mut self, client: ClientId, reply: &Reply<'_>) {
        if let Some(connection) = self.connections.get_mut(&client) {
            let most = self.options.clients.max_unread_bytes;
            connection.reply(&mut self.encoder, reply, self.memory.descriptor(), most);
            self.unsent.insert(client);
        }
    }

    fn announce(&mut self, announcement: &Announcement) {
        if self.subscribers.is_empty() {
            return;
        }
        let notifications = match announcement {
            Announcement::One(notification) => std::slice::from_ref(notification),
            Announcement::Batch(notifications) => notifications,
        };
        let (length, body) = self.encoder.notification(notifications);
        for (client, subscriber) in &mut self.subscribers {
            subscriber.push(&length, body);
            self.unheard.insert(*client);
        }
    }
}

/// The index, or none where it cannot be had: the socket does everything then.
fn readers(limits: &Limits) -> Option<SharedReaders> {
    let readers = SharedReaders::create(limits.max_objects, limits.external);
    let readers = readers.inspect_err(|error| {
        warn!(%error, "clients read and write through the socket alone: no shared memory to be had");
    });
    readers.ok()
}

fn broken(error: Errno) -> StoreError {
    StoreError::Kernel {
        action: "wait for events",
        source: error.into(),
    }
}
