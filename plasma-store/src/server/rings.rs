//! Requests that come through shared memory, and what a client is offered for that.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use foldhash::HashMap;
use nix::sys::epoll::{EpollEvent, EpollFlags};
use plasma_core::ObjectId;
use plasma_core::protocol::frame::MessageType;
use plasma_core::protocol::message::{Digest, ErrorCode, Outcome};
use plasma_core::shm::bell::{Bell, Waker};
use plasma_core::shm::memory::{Memory, Writers};
use plasma_core::shm::page::{PinMemory, Shape};
use plasma_core::shm::pins::PinView;
use plasma_core::shm::ring::{Created, Op, Requests, RingRequest};
use plasma_core::shm::{Offer, index};
use tracing::warn;

use super::memory::Backed;
use super::requests::{Closed, Task};
use super::{Server, TURN_TIME, Token};
use crate::state::alloc::Range;
use crate::state::{self, ClientId, Now};

/// Requests of one ring that are handled before others have their turn.
const TURN: u64 = 256;

/// What a client and the store tell each other through memory.
#[derive(Debug)]
pub(super) struct Ring {
    /// `None` where there are no requests but through the socket, and only the bell.
    requests: Option<Requests>,
    /// Wakes the store.
    bell: Bell,
    /// Wakes the client.
    waker: Waker,
    /// When the last request was taken.
    last: Duration,
    /// Memory is being found for what the client has asked for, here or through the socket; nothing
    /// more of it is handled meanwhile.
    waits: bool,
    /// The objects of a batch whose end has not come.
    batch: Batch,
}

/// Objects that are to be sealed together, or not at all.
#[derive(Debug, Default)]
struct Batch {
    objects: Vec<(ObjectId, Digest)>,
    failed: Option<ErrorCode>,
}

/// A client's content that waits for memory.
#[derive(Debug)]
pub(super) struct Content {
    request: RingRequest,
    content: Vec<u8>,
    range: Range,
}

/// How a request was dealt with.
enum Handled {
    Answered(Outcome, Created),
    /// It will be answered once there is memory.
    Later,
}

/// All rings, and those that are looked at without being told.
#[derive(Debug, Default)]
pub(super) struct Rings {
    all: HashMap<ClientId, Ring>,
    /// INVARIANT: each once.
    watched: Vec<ClientId>,
}

impl Rings {
    pub(super) fn get_mut(&mut self, client: ClientId) -> Option<&mut Ring> {
        self.all.get_mut(&client)
    }

    /// Whether some ring that is watched has something to be handled.
    pub(super) fn any_waiting(&self) -> bool {
        self.watched.iter().any(|client| {
            let ring = self.all.get(client);
            ring.is_none_or(|ring| !ring.waits && ring.is_asked())
        })
    }

    pub(super) fn any_watched(&self) -> bool {
        !self.watched.is_empty()
    }

    /// Looks at a ring from now on without being told.
    fn watch(&mut self, client: ClientId, now: Now) {
        if let Some(ring) = self.all.get_mut(&client)
            && let Some(requests) = &ring.requests
        {
            requests.need_wakeup(false);
            ring.last = now.elapsed;
            if !self.watched.contains(&client) {
                self.watched.push(client);
            }
        }
    }

    /// Handles nothing more of a ring.
    pub(super) fn pause(&mut self, client: ClientId) {
        if let Some(ring) = self.all.get_mut(&client) {
            ring.waits = true;
        }
    }

    /// Goes on with a ring.
    pub(super) fn resume(&mut self, client: ClientId, now: Now) {
        if let Some(ring) = self.all.get_mut(&client) {
            ring.waits = false;
            self.watch(client, now);
        }
    }

    /// Looks no more at any ring: clients are to ring the bell. Whether there is nothing to be handled.
    pub(super) fn rest(&mut self) -> bool {
        self.rest_where(|_| true)
    }

    /// The same for rings that have been quiet for so long, while others are busy.
    pub(super) fn rest_quiet(&mut self, now: Now, time: Duration) {
        self.rest_where(|ring| now.elapsed.saturating_sub(ring.last) >= time);
    }

    fn rest_where(&mut self, is_quiet: impl Fn(&Ring) -> bool) -> bool {
        let all = &mut self.all;
        let mut idle = true;
        self.watched.retain(|client| {
            let Some(ring) = all.get_mut(client) else {
                return false;
            };
            let Some(requests) = &ring.requests else {
                return false;
            };
            if ring.waits {
                // Whoever ends that watches it again.
                requests.need_wakeup(true);
                return false;
            }
            if !is_quiet(ring) {
                return true;
            }
            let sleeps = requests.may_sleep();
            if !sleeps {
                requests.need_wakeup(false);
                idle = false;
            }
            !sleeps
        });
        idle
    }

    /// Forgets a client's ring, but for its bell.
    pub(super) fn remove(&mut self, client: ClientId) -> Option<Bell> {
        self.watched.retain(|watched| *watched != client);
        self.all.remove(&client).map(|ring| ring.bell)
    }
}

impl Ring {
    /// Whether there is something to be handled, or what is no request.
    fn is_asked(&self) -> bool {
        let requests = self.requests.as_ref();
        requests.is_some_and(|requests| requests.waiting() != Ok(0))
    }

    fn answer(&mut self, outcome: Outcome, created: Created) {
        if let Some(requests) = &mut self.requests {
            requests.answer(outcome, created);
        }
    }

    fn wake_if_asleep(&self) {
        let requests = self.requests.as_ref();
        if requests.is_some_and(Requests::client_sleeps) {
            self.waker.wake();
        }
    }
}

impl Server {
    /// What a client is offered beyond the socket, with the descriptors for it; once each.
    pub(super) fn offer(&mut self, client: ClientId) -> Option<(Offer, Vec<OwnedFd>)> {
        let shape = self.options.shared?;
        if self.rings.all.contains_key(&client) {
            return None;
        }
        let offered = self.try_offer(client, shape);
        let offered = offered.inspect_err(|error| {
            warn!(client = client.0, %error, "cannot offer a client shared memory");
        });
        offered.ok()
    }

    fn try_offer(&mut self, client: ClientId, shape: Shape) -> io::Result<(Offer, Vec<OwnedFd>)> {
        let missing = || io::Error::from(io::ErrorKind::InvalidInput);
        let readers = self.state.readers_mut().as_mut().ok_or_else(missing)?;
        let index = readers.memory().ok_or_else(missing)?;
        let index_len = index.len() as u64;
        let index = index.descriptor().ok_or_else(missing)?;
        let index = index.try_clone_to_owned()?;

        let mut page = Memory::create(shape.page_len(), Writers::Client)?;
        let mut answers = Memory::create(shape.answers_len(), Writers::Store)?;
        let bell = Bell::new()?;
        let (waker, wakeup) = Waker::pair()?;
        let descriptors = vec![
            index,
            page.take_descriptor().ok_or_else(missing)?,
            answers.take_descriptor().ok_or_else(missing)?,
            bell.as_fd().try_clone_to_owned()?,
            wakeup.into(),
        ];
        let (page, answers) = (Arc::new(page), Arc::new(answers));
        let pins = PinMemory::of_store(&page, &answers, &shape).ok_or_else(missing)?;
        let token = Token::Bell(client).number();
        let event = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, token);
        self.epoll.add(&bell, event)?;
        readers.add(client, PinView::new(pins));
        let requests = Requests::open(&page, &answers, &shape);
        if let Some(requests) = &requests {
            requests.need_wakeup(true);
        }
        let ring = Ring {
            requests,
            bell,
            waker,
            last: Duration::ZERO,
            waits: false,
            batch: Batch::default(),
        };
        self.rings.all.insert(client, ring);
        Ok((Offer { index_len, shape }, descriptors))
    }

    /// A client has rung: it has written requests, or let go of something that is wanted.
    pub(super) fn hear(&mut self, client: ClientId) {
        // What it is about is in memory.
        let now = self.now();
        self.rings.watch(client, now);
        self.sweep_after(client);
    }

    /// Deletes what could not be before, if this client has let go of something like that.
    pub(super) fn sweep_after(&mut self, client: ClientId) {
        let readers = self.state.readers_mut().as_mut();
        if readers.is_some_and(|readers| readers.has_released(client)) {
            let now = self.now();
            let mut fx = std::mem::take(&mut self.effects);
            self.state.sweep(now, &mut fx);
            self.settle(fx);
        }
    }

    /// Handles what is in the rings that are watched.
    pub(super) fn serve_rings(&mut self) {
        let mut at = 0;
        // Handling one may add to them, or empty them.
        while let Some(client) = self.rings.watched.get(at).copied() {
            at += 1;
            if let Err(reason) = self.serve_ring(client) {
                self.close(client, &reason);
            }
        }
    }

    fn serve_ring(&mut self, client: ClientId) -> Result<(), Closed> {
        let Some(ring) = self.rings.get_mut(client).filter(|ring| !ring.waits) else {
            return Ok(());
        };
        let Some(requests) = &ring.requests else {
            return Ok(());
        };
        let waiting = requests.waiting()?.min(TURN);
        if waiting == 0 {
            return Ok(());
        }
        let start = self.clock.now().elapsed;
        ring.last = start;
        for _ in 0..waiting {
            let ring = self.rings.get_mut(client);
            let Some(requests) = ring.and_then(|ring| ring.requests.as_mut()) else {
                return Ok(());
            };
            let request = requests.take()?;
            let begun = self.stats.begin();
            let looks = self.state.looks();
            let handled = self.handle_ring(client, &request)?;
            self.stats.handled(message_type(request.op), begun);
            let Some(ring) = self.rings.get_mut(client) else {
                return Ok(());
            };
            let Handled::Answered(outcome, created) = handled else {
                break;
            };
            ring.answer(outcome, created);
            // To look through what all clients hold takes longer than to look at the clock.
            let took_long = self.state.looks() != looks;
            if took_long && self.clock.now().elapsed - start > TURN_TIME {
                break;
            }
        }
        if let Some(ring) = self.rings.get_mut(client) {
            ring.wake_if_asleep();
        }
        Ok(())
    }

    fn handle_ring(&mut self, client: ClientId, request: &RingRequest) -> Result<Handled, Closed> {
        let now = self.clock.last();
        let id = request.id;
        self.check(client, request)?;
        let mut fx = std::mem::take(&mut self.effects);
        Ok(match request.op {
            Op::Seal => {
                let place = self
                    .state
                    .seal_and_let_go(client, &id, request.digest, now, &mut fx);
                self.settle(fx);
                let (outcome, place) = match place {
                    Ok(place) => (Ok(()), place),
                    Err(code) => (Err(code), None),
                };
                let place = place.unwrap_or(index::Place::NOT_KNOWN);
                let sealed = Created {
                    offset: u64::from(place.number()),
                    ..Created::default()
                };
                Handled::Answered(outcome, sealed)
            }
            Op::Delete => {
                let outcomes = self.state.delete(&[id], now, &mut fx);
                self.settle(fx);
                let outcome = outcomes.first().map_or(Ok(()), |(_, outcome)| *outcome);
                Handled::Answered(outcome, Created::default())
            }
            Op::Batch | Op::BatchEnd if self.batch_failed(client) => {
                self.settle(fx);
                self.end_of(client, request, Ok(()))
            }
            Op::Create | Op::CreateAndSeal | Op::Batch | Op::BatchEnd => {
                let new = state::NewObject {
                    id,
                    data_size: request.data_size,
                    metadata_size: request.metadata_size,
                    evict_if_full: request.evict_if_full,
                };
                let created = self.state.create(client, &new, now, &mut fx);
                self.settle(fx);
                match created {
                    Ok(created) => self.place(client, request, &created)?,
                    Err(code) => self.end_of(client, request, Err(code)),
                }
            }
        })
    }

    /// Sees to it that an object that was created has memory, and its content if it came along.
    fn place(
        &mut self,
        client: ClientId,
        request: &RingRequest,
        created: &state::Created,
    ) -> Result<Handled, Closed> {
        let range = created.range;
        let backed = self.memory.back(&[range], &mut self.state);
        let told = Created {
            uid: created.uid,
            offset: created.spec.data_offset,
            segment: created.spec.segment,
            slot: created.slot.number(),
        };
        if let Backed::Never = backed {
            self.undo(client, [request.id]);
            return Ok(self.end_of(client, request, Err(ErrorCode::OutOfMemory)));
        }
        if request.op == Op::Create {
            return Ok(match backed {
                Backed::After(job) => {
                    self.wait_for(client, job);
                    let id = request.id;
                    self.tasks
                        .insert(job, Task::RingCreate { client, id, told });
                    Handled::Later
                }
                _ => Handled::Answered(Ok(()), told),
            });
        }
        let ring = self.rings.get_mut(client);
        let Some(requests) = ring.and_then(|ring| ring.requests.as_ref()) else {
            return Ok(Handled::Later);
        };
        let content = requests.content(request)?;
        if let Backed::After(job) = backed {
            let content = Content {
                request: *request,
                content: content.to_vec(),
                range,
            };
            self.wait_for(client, job);
            self.tasks
                .insert(job, Task::RingContent { client, content });
            return Ok(Handled::Later);
        }
        let written = self.memory.write_from(range.offset, &content);
        Ok(self.written(client, request, written))
    }

    fn written(
        &mut self,
        client: ClientId,
        request: &RingRequest,
        written: io::Result<()>,
    ) -> Handled {
        let outcome = written.map_err(|error| {
            warn!(%error, "cannot write to the arena");
            self.undo(client, [request.id]);
            ErrorCode::OutOfMemory
        });
        self.end_of(client, request, outcome)
    }

    /// Content is in the client's page, and a batch names no more objects than any request may.
    fn check(&mut self, client: ClientId, request: &RingRequest) -> Result<(), Closed> {
        let limit = self.options.clients.max_ids;
        let Some(ring) = self.rings.get_mut(client) else {
            return Ok(());
        };
        if let Op::CreateAndSeal | Op::Batch | Op::BatchEnd = request.op
            && let Some(requests) = &ring.requests
        {
            requests.content(request)?;
        }
        let count = ring.batch.objects.len() + 1;
        if matches!(request.op, Op::Batch | Op::BatchEnd) && count > limit {
            return Err(Closed::TooManyIds { count, limit });
        }
        Ok(())
    }

    fn batch_failed(&mut self, client: ClientId) -> bool {
        let ring = self.rings.get_mut(client);
        ring.is_some_and(|ring| ring.batch.failed.is_some())
    }

    /// Seals what has its content now, or was to have it, as far as that is its time.
    fn end_of(&mut self, client: ClientId, request: &RingRequest, outcome: Outcome) -> Handled {
        let answer = |outcome| Handled::Answered(outcome, Created::default());
        let (id, digest) = (request.id, request.digest);
        let now = self.clock.last();
        match (request.op, outcome) {
            (Op::CreateAndSeal, Ok(())) => {
                let mut fx = std::mem::take(&mut self.effects);
                let sealed = self
                    .state
                    .seal_and_let_go(client, &id, digest, now, &mut fx);
                self.settle(fx);
                answer(sealed.map(|_| ()))
            }
            (Op::Batch | Op::BatchEnd, outcome) => {
                let Some(ring) = self.rings.get_mut(client) else {
                    return answer(outcome);
                };
                let batch = &mut ring.batch;
                if batch.failed.is_none() {
                    match outcome {
                        Ok(()) => batch.objects.push((id, digest)),
                        Err(code) => batch.failed = Some(code),
                    }
                }
                let failed = batch.failed;
                let ends = request.op == Op::BatchEnd;
                let objects = if failed.is_some() || ends {
                    std::mem::take(&mut batch.objects)
                } else {
                    Vec::new()
                };
                if ends {
                    batch.failed = None;
                }
                if failed.is_some() {
                    self.undo(client, objects.into_iter().map(|(id, _)| id));
                } else if ends {
                    let mut fx = std::mem::take(&mut self.effects);
                    self.state.seal_batch(client, &objects, now, &mut fx);
                    self.settle(fx);
                }
                answer(failed.filter(|_| ends).map_or(Ok(()), Err))
            }
            (_, outcome) => answer(outcome),
        }
    }

    /// Goes on with a ring whose request waited for memory.
    pub(super) fn finish_ring_create(
        &mut self,
        client: ClientId,
        id: ObjectId,
        told: Created,
        backed: bool,
    ) {
        let outcome = if backed {
            Ok(())
        } else {
            self.undo(client, [id]);
            Err(ErrorCode::OutOfMemory)
        };
        self.answer_ring(client, &Handled::Answered(outcome, told));
    }

    /// The same, for one that brought its content.
    pub(super) fn finish_ring_content(
        &mut self,
        client: ClientId,
        content: &Content,
        backed: bool,
    ) {
        // It has taken some time to find memory.
        self.now();
        let request = &content.request;
        let handled = if backed {
            let written = self.memory.write(content.range.offset, &content.content);
            self.written(client, request, written)
        } else {
            self.undo(client, [request.id]);
            self.end_of(client, request, Err(ErrorCode::OutOfMemory))
        };
        self.answer_ring(client, &handled);
    }

    fn answer_ring(&mut self, client: ClientId, handled: &Handled) {
        if let Some(ring) = self.rings.get_mut(client)
            && let Handled::Answered(outcome, created) = handled
        {
            ring.answer(*outcome, *created);
            ring.wake_if_asleep();
        }
    }
}

/// The message that does the same through the socket, for the account of how long things take.
fn message_type(op: Op) -> MessageType {
    match op {
        Op::Create => MessageType::CreateRequest,
        Op::Seal => MessageType::SealRequest,
        Op::CreateAndSeal => MessageType::CreateAndSealRequest,
        Op::Batch | Op::BatchEnd => MessageType::CreateAndSealBatchRequest,
        Op::Delete => MessageType::DeleteRequest,
    }
}
