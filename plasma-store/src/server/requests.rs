//! From a request to what the rules make of it.

use std::io;
use std::time::Duration;

use plasma_core::ObjectId;
use plasma_core::protocol::frame::FrameError;
use plasma_core::protocol::message::{
    Digest, ErrorCode, MalformedMessage, NewObject, Outcome, Reply, Request,
};
use plasma_core::shm::{self, ring::MalformedRequest};
use plasma_core::transport::{Inbox, MissingDescriptor};

use super::Server;
use super::memory::Backed;
use super::rings::Content;
use crate::backer::JobId;
use crate::metrics::CutOff;
use crate::state::alloc::Range;
use crate::state::{self, ClientId, Effects, TooManyWaits, Transfer};

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
pub(super) enum Closed {
    #[error("the client closed it")]
    ByPeer,
    #[error("what it sent is no message: {0}")]
    Frame(FrameError),
    #[error("what it sent is no request: {0}")]
    Message(#[from] MalformedMessage),
    #[error("{0}")]
    Descriptor(#[from] MissingDescriptor),
    #[error("it sent a descriptor that nothing asked for")]
    UnaskedDescriptor,
    #[error("it sent a request of {announced} bytes, {limit} are allowed (--max-request-bytes)")]
    RequestTooLong { announced: i64, limit: usize },
    #[error("it sent a request that names {count} objects, {limit} are allowed (--max-ids)")]
    TooManyIds { count: usize, limit: usize },
    #[error("it has {0} (--max-waiting-ids)")]
    Waits(#[from] TooManyWaits),
    #[error(
        "clients together have sent more than {0} bytes of requests that they do not finish \
         (--max-unfinished-bytes)"
    )]
    TooMuchUnfinished(usize),
    #[error("it has left more than {0} bytes of replies unread (--max-unread-bytes)")]
    TooMuchUnread(usize),
    #[error("it has read nothing of what it was sent for {} s (--stall-timeout)", .0.as_secs_f64())]
    Stalled(Duration),
    #[error("{0}")]
    Ring(#[from] MalformedRequest),
    #[error("{0}")]
    Failed(io::Error),
}

impl From<FrameError> for Closed {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::Length { announced, limit } if announced >= 0 => {
                Self::RequestTooLong { announced, limit }
            }
            error => Self::Frame(error),
        }
    }
}

impl Closed {
    /// What it counts as, unless it was the client's own wish.
    pub(super) fn label(&self) -> Option<CutOff> {
        Some(match self {
            Self::ByPeer => return None,
            Self::Frame(_)
            | Self::Message(_)
            | Self::Descriptor(_)
            | Self::UnaskedDescriptor
            | Self::Ring(_) => CutOff::Malformed,
            Self::RequestTooLong { .. } => CutOff::RequestBytes,
            Self::TooManyIds { .. } => CutOff::Ids,
            Self::Waits(_) => CutOff::WaitingIds,
            Self::TooMuchUnfinished(_) => CutOff::UnfinishedBytes,
            Self::TooMuchUnread(_) => CutOff::UnreadBytes,
            Self::Stalled(_) => CutOff::Stalled,
            Self::Failed(_) => CutOff::Failed,
        })
    }
}

/// What is to be done once there is memory.
#[derive(Debug)]
pub(super) enum Task {
    Create {
        client: ClientId,
        id: ObjectId,
        reply: Reply<'static>,
    },
    /// Inline objects, with their content (data, then metadata) and place.
    Batch {
        client: ClientId,
        objects: Vec<(ObjectId, Digest, Vec<u8>, Range)>,
        single: bool,
    },
    /// An object that a client creates through its ring.
    RingCreate {
        client: ClientId,
        id: ObjectId,
        told: shm::ring::Created,
    },
    /// One whose content came through the ring.
    RingContent {
        client: ClientId,
        content: Content,
    },
    Restore(Transfer),
}

/// How many objects a request names; the limit is for those that name any number.
fn ids_named(request: &Request<'_>) -> usize {
    match request {
        Request::Get { ids, .. } | Request::Delete(ids) | Request::RefreshLru(ids) => ids.len(),
        Request::CreateAndSealBatch { objects, .. } => objects.len(),
        _ => 1,
    }
}

impl Server {
    /// Handles the next thing a client sent; whether there was one.
    pub(super) fn handle_next(
        &mut self,
        client: ClientId,
        inbox: &mut Inbox,
    ) -> Result<bool, Closed> {
        let Some(connection) = self.connections.get_mut(&client) else {
            return Ok(false);
        };
        if connection.awaits_stream {
            let Some(stream) = inbox.next_descriptor() else {
                return Ok(false);
            };
            connection.awaits_stream = false;
            self.subscribe(client, stream?);
            return Ok(true);
        }
        let max_len = self.max_request_len();
        let Some((kind, body)) = inbox.next_message(max_len)? else {
            // The one descriptor a client may send comes on a byte of its own, behind a request.
            return if inbox.descriptors() > 0 {
                Err(Closed::UnaskedDescriptor)
            } else {
                Ok(false)
            };
        };
        let begun = self.stats.begin();
        // What it has let go of before it asked is gone when it is answered.
        self.sweep_after(client);
        let request = Request::decode(kind, body)?;
        let (count, limit) = (ids_named(&request), self.options.clients.max_ids);
        if count > limit {
            return Err(Closed::TooManyIds { count, limit });
        }
        let handled = self.handle(client, request);
        self.stats.handled(kind, begun);
        handled?;
        Ok(true)
    }

    fn handle(&mut self, client: ClientId, request: Request<'_>) -> Result<(), Closed> {
        let now = self.now();
        let mut fx = std::mem::take(&mut self.effects);
        let reply = match request {
            Request::Connect { capabilities } => {
                self.settle(fx);
                self.connect(client, capabilities);
                return Ok(());
            }
            Request::Create {
                id,
                evict_if_full,
                data_size,
                metadata_size,
                device_num,
            } => {
                let new = state::NewObject {
                    id,
                    data_size,
                    metadata_size,
                    evict_if_full,
                };
                self.create(client, &new, device_num, fx);
                return Ok(());
            }
            Request::CreateAndSeal {
                object,
                evict_if_full,
            } => {
                self.create_inline(client, &[object], evict_if_full, true, fx);
                return Ok(());
            }
            Request::CreateAndSealBatch {
                objects,
                evict_if_full,
            } => {
                self.create_inline(client, &objects, evict_if_full, false, fx);
                return Ok(());
            }
            Request::Abort(id) => {
                self.state.abort(client, &id, now, &mut fx);
                Some(Reply::Abort(id))
            }
            Request::Seal { id, digest } => {
                let result = self.state.seal(client, &id, digest, now, &mut fx);
                Some(Reply::Seal { id, result })
            }
            Request::Get { ids, timeout_ms } => {
                let timeout = u64::try_from(timeout_ms).ok().map(Duration::from_millis);
                let ids = ids.into_owned();
                let got = self.state.get(client, ids, timeout, now, &mut fx);
                self.settle(fx);
                return Ok(got?);
            }
            Request::Release(id) => {
                self.state.release(client, &id, now, &mut fx);
                None
            }
            Request::Delete(ids) => {
                let outcomes = self.state.delete(&ids, now, &mut fx);
                Some(Reply::Delete(outcomes.into()))
            }
            Request::Contains(id) => Some(Reply::Contains {
                id,
                has_object: self.state.contains(&id),
            }),
            Request::List => {
                self.state.look_at_readers(&mut fx);
                Some(Reply::List(self.state.list()))
            }
            Request::Evict { num_bytes } => Some(Reply::Evict {
                num_bytes: self.state.evict(num_bytes, &mut fx),
            }),
            Request::Subscribe => {
                if let Some(connection) = self.connections.get_mut(&client) {
                    connection.awaits_stream = true;
                }
                None
            }
            Request::SetOptions {
                client_name,
                quota_bytes,
            } => {
                let outcome = self.state.set_options(client, &client_name, quota_bytes);
                Some(Reply::SetOptions(outcome))
            }
            Request::GetDebugString => {
                self.state.look_at_readers(&mut fx);
                Some(Reply::GetDebugString(self.state.debug_string().into()))
            }
            Request::RefreshLru(ids) => {
                // What was used before is to be older.
                self.state.look_at_readers(&mut fx);
                self.state.refresh(&ids);
                Some(Reply::RefreshLru)
            }
            Request::Disconnect => {
                self.settle(fx);
                return Err(Closed::ByPeer);
            }
        };
        self.settle(fx);
        if let Some(reply) = reply {
            self.reply(client, &reply);
        }
        Ok(())
    }

    /// Tells a client what the store holds at most, and offers it what it can do beyond Arrow's
    /// protocol.
    fn connect(&mut self, client: ClientId, capabilities: u64) {
        let can = capabilities & shm::CAPABILITY != 0;
        let offered = if can { self.offer(client) } else { None };
        let (offer, descriptors) = offered.unzip();
        let reply = Reply::Connect {
            memory_capacity: self.options.limits.capacity as i64,
            offer: offer.map(|offer| (offer, vec![self.state.segment()])),
        };
        self.reply(client, &reply);
        if let Some(connection) = self.connections.get_mut(&client) {
            connection.send_descriptors(descriptors.into_iter().flatten());
        }
    }

    fn create(
        &mut self,
        client: ClientId,
        new: &state::NewObject,
        device_num: i32,
        mut fx: Effects,
    ) {
        let id = new.id;
        let created = if device_num == 0 {
            self.state.create(client, new, self.now(), &mut fx)
        } else {
            // There is no memory on other devices here.
            Err(ErrorCode::OutOfMemory)
        };
        self.settle(fx);
        let state::Created { spec, range, .. } = match created {
            Ok(created) => created,
            Err(code) => {
                let result = Err(code);
                return self.reply(client, &Reply::Create { id, result });
            }
        };
        let result = Ok((spec, self.state.segment()));
        let reply = Reply::Create { id, result };
        match self.memory.back(&[range], &mut self.state) {
            Backed::Now => self.reply(client, &reply),
            Backed::Never => self.finish_create(client, id, &reply, false),
            Backed::After(job) => {
                self.wait_for(client, job);
                self.tasks.insert(job, Task::Create { client, id, reply });
            }
        }
    }

    fn finish_create(&mut self, client: ClientId, id: ObjectId, reply: &Reply<'_>, backed: bool) {
        if backed {
            return self.reply(client, reply);
        }
        self.undo(client, [id]);
        let result = Err(ErrorCode::OutOfMemory);
        self.reply(client, &Reply::Create { id, result });
    }

    /// Creates objects whose content came with the request: all, or none.
    fn create_inline(
        &mut self,
        client: ClientId,
        objects: &[NewObject<'_>],
        evict_if_full: bool,
        single: bool,
        mut fx: Effects,
    ) {
        let now = self.now();
        let mut ranges = Vec::with_capacity(objects.len());
        let mut failed = None;
        for object in objects {
            let new = state::NewObject {
                id: object.id,
                data_size: object.data.len() as u64,
                metadata_size: object.metadata.len() as u64,
                evict_if_full,
            };
            match self.state.create(client, &new, now, &mut fx) {
                Ok(created) => ranges.push(created.range),
                Err(code) => {
                    failed = Some(code);
                    break;
                }
            }
        }
        self.settle(fx);
        let created = objects.iter().take(ranges.len()).map(|object| object.id);
        if let Some(code) = failed {
            self.undo(client, created);
            return self.reply_inline(client, Err(code), single);
        }
        match self.memory.back(&ranges, &mut self.state) {
            Backed::Never => {
                self.undo(client, created);
                self.reply_inline(client, Err(ErrorCode::OutOfMemory), single);
            }
            Backed::Now => {
                let parts = objects.iter().zip(&ranges).map(|(object, range)| {
                    let parts = [object.data, object.metadata];
                    (object.id, object.digest, parts, *range)
                });
                self.fill_and_seal(client, parts, single);
            }
            Backed::After(job) => {
                self.wait_for(client, job);
                let objects = objects.iter().zip(&ranges).map(|(object, range)| {
                    let content = [object.data, object.metadata].concat();
                    (object.id, object.digest, content, *range)
                });
                let objects = objects.collect();
                let task = Task::Batch {
                    client,
                    objects,
                    single,
                };
                self.tasks.insert(job, task);
            }
        }
    }

    /// Writes inline objects to their memory, seals them and lets go of them.
    fn fill_and_seal<'a>(
        &mut self,
        client: ClientId,
        objects: impl Iterator<Item = (ObjectId, Digest, [&'a [u8]; 2], Range)>,
        single: bool,
    ) {
        let mut sealed = Vec::new();
        let mut written = Ok(());
        for (id, digest, parts, range) in objects {
            let mut offset = range.offset;
            for part in parts {
                written = written.and_then(|()| self.memory.write(offset, part));
                offset += part.len() as u64;
            }
            sealed.push((id, digest));
        }
        if let Err(error) = written {
            tracing::warn!(%error, "cannot write to the arena");
            self.undo(client, sealed.into_iter().map(|(id, _)| id));
            return self.reply_inline(client, Err(ErrorCode::OutOfMemory), single);
        }
        let mut fx = std::mem::take(&mut self.effects);
        let now = self.now();
        self.state.seal_batch(client, &sealed, now, &mut fx);
        self.settle(fx);
        self.reply_inline(client, Ok(()), single);
    }

    fn reply_inline(&mut self, client: ClientId, outcome: Outcome, single: bool) {
        let reply = if single {
            Reply::CreateAndSeal(outcome)
        } else {
            Reply::CreateAndSealBatch(outcome)
        };
        self.reply(client, &reply);
    }

    /// Drops objects that a client was creating.
    pub(super) fn undo(&mut self, client: ClientId, ids: impl IntoIterator<Item = ObjectId>) {
        let now = self.now();
        let mut fx = std::mem::take(&mut self.effects);
        for id in ids {
            self.state.abort(client, &id, now, &mut fx);
        }
        self.settle(fx);
    }

    /// Handles nothing more of a client, whichever way it comes, until a job is done.
    pub(super) fn wait_for(&mut self, client: ClientId, job: JobId) {
        if let Some(connection) = self.connections.get_mut(&client) {
            debug_assert!(
                connection.job.is_none(),
                "it was asked to do two things at once"
            );
            connection.job = Some(job);
            // What it sends meanwhile is not read.
            self.unsent.insert(client);
        }
        self.rings.pause(client);
    }

    /// Brings an object back from the external store.
    pub(super) fn restore(&mut self, restore: Transfer, fx: &mut Effects) {
        match self.memory.back(&[restore.range], &mut self.state) {
            Backed::Now => self.finish_restore(restore, true, fx),
            Backed::Never => self.finish_restore(restore, false, fx),
            Backed::After(job) => {
                self.tasks.insert(job, Task::Restore(restore));
            }
        }
    }

    fn finish_restore(&mut self, restore: Transfer, backed: bool, fx: &mut Effects) {
        let Transfer { id, range, .. } = restore;
        let content = self
            .external
            .as_ref()
            .and_then(|external| external.get(&id));
        let written = match content {
            Some(content) if backed => self.memory.write(range.offset, content).is_ok(),
            _ => false,
        };
        let now = self.now();
        if written {
            self.state.restored(&id, now, fx);
        } else {
            let lost = content.is_none();
            self.state.restore_failed(&id, lost, now, fx);
        }
    }

    /// Goes on with what waited for memory.
    pub(super) fn finish_jobs(&mut self) {
        for (job, backed) in self.memory.finish(&mut self.state) {
            let client = match self.tasks.remove(&job) {
                None => continue,
                Some(Task::Create { client, id, reply }) => {
                    self.finish_create(client, id, &reply, backed);
                    client
                }
                Some(Task::Batch {
                    client,
                    objects,
                    single,
                }) => {
                    if backed {
                        let parts = objects.iter().map(|(id, digest, content, range)| {
                            (*id, *digest, [&content[..], &[]], *range)
                        });
                        self.fill_and_seal(client, parts, single);
                    } else {
                        self.undo(client, objects.into_iter().map(|(id, ..)| id));
                        self.reply_inline(client, Err(ErrorCode::OutOfMemory), single);
                    }
                    client
                }
                Some(Task::RingCreate { client, id, told }) => {
                    self.finish_ring_create(client, id, told, backed);
                    client
                }
                Some(Task::RingContent { client, content }) => {
                    self.finish_ring_content(client, &content, backed);
                    client
                }
                Some(Task::Restore(restore)) => {
                    let mut fx = std::mem::take(&mut self.effects);
                    self.finish_restore(restore, backed, &mut fx);
                    self.settle(fx);
                    continue;
                }
            };
            match self.connections.get_mut(&client) {
                Some(connection) => {
                    connection.job = None;
                    connection.more = true;
                    self.unsent.insert(client);
                    let now = self.now();
                    self.rings.resume(client, now);
                }
                // It went away meanwhile, or is about to.
                None => match self.cut_off.get_mut(&client) {
                    Some(cut_off) => cut_off.job = None,
                    None => self.forget(client),
                },
            }
        }
    }
}
