//! One client's connection: what came, what is to go, and how far each has got.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::EpollFlags;
use plasma_core::protocol::message::{Encoder, Reply};
use plasma_core::transport::{Inbox, Outbox, Received};

use super::admission::Peer;
use super::requests::Closed;
use crate::backer::JobId;

/// Bytes to a client that are gathered before they are written.
const GATHER_LIMIT: usize = 256 << 10;

#[derive(Debug)]
pub(super) struct Connection {
    socket: OwnedFd,
    pub(super) peer: Peer,
    pub(super) inbox: Inbox,
    outbox: Outbox,
    /// The client has been sent the segment's descriptor.
    knows_segment: bool,
    /// A subscription was asked for and its stream has not come yet.
    pub(super) awaits_stream: bool,
    /// Memory is being put behind what this client creates; it is not listened to meanwhile.
    pub(super) job: Option<JobId>,
    /// Requests may be here that were not handled.
    pub(super) more: bool,
    /// Bytes that are here of a request that has not come whole.
    pub(super) unfinished: usize,
    /// The limit on what it leaves unread, once it is past that and was not sent everything.
    overrun: Option<usize>,
    /// Since when the client has read nothing of what waits for it.
    blocked_since: Option<Instant>,
    /// What waits is a descriptor that the kernel does not take now, as too many are on their way.
    pub(super) crowded: bool,
    pub(super) interest: EpollFlags,
}

/// How a write went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// All is written.
    Done,
    /// The client has to read first, or others have.
    Blocked,
}

impl Connection {
    pub(super) fn new(socket: OwnedFd, peer: Peer) -> Self {
        Self {
            socket,
            peer,
            inbox: Inbox::new(),
            outbox: Outbox::new(),
            knows_segment: false,
            awaits_stream: false,
            job: None,
            more: false,
            unfinished: 0,
            overrun: None,
            blocked_since: None,
            crowded: false,
            interest: EpollFlags::EPOLLIN,
        }
    }

    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    pub(super) fn into_socket(self) -> OwnedFd {
        self.socket
    }

    /// Reads what is there; whether there was anything.
    pub(super) fn receive(&mut self) -> Result<bool, Closed> {
        match self.inbox.receive(self.socket.as_fd()) {
            Ok(Received::Bytes(_)) => Ok(true),
            Ok(Received::Nothing) => Ok(false),
            Ok(Received::End) => Err(Closed::ByPeer),
            Err(error) => Err(lost(error)),
        }
    }

    /// Queues a reply, and behind it the segment's descriptor if the client has not seen it. With
    /// more than `max_unread` bytes unread before it, the connection is to end at the next write.
    pub(super) fn reply(
        &mut self,
        encoder: &mut Encoder,
        reply: &Reply<'_>,
        segment: &Arc<OwnedFd>,
        max_unread: usize,
    ) {
        if self.overrun.is_some() {
            return;
        }
        if self.outbox.len() > max_unread {
            // It may have been read by now. If this fails, so does the next write.
            let _ = self.outbox.flush(self.socket.as_fd());
            if self.outbox.len() > max_unread {
                self.overrun = Some(max_unread);
                return;
            }
        }
        self.outbox.push(encoder.reply(reply));
        let names_segment = match reply {
            Reply::Create { result, .. } => result.is_ok(),
            Reply::Get { segments, .. } => !segments.is_empty(),
            Reply::Connect { offer, .. } => offer.is_some(),
            _ => false,
        };
        if names_segment && !self.knows_segment {
            self.outbox.push_descriptor(Arc::clone(segment));
            self.knows_segment = true;
        }
    }

    /// Queues descriptors that the last reply has announced.
    pub(super) fn send_descriptors(&mut self, descriptors: impl Iterator<Item = OwnedFd>) {
        if self.overrun.is_none() {
            for descriptor in descriptors {
                self.outbox.push_descriptor(Arc::new(descriptor));
            }
        }
    }

    /// Whether the next request is to wait: for memory, or for the client to read. It never has more
    /// than `max_unread` bytes unread for having asked for much.
    pub(super) fn must_wait(&mut self, max_unread: usize) -> Result<bool, Closed> {
        if self.job.is_some() {
            return Ok(true);
        }
        let most = GATHER_LIMIT.min(max_unread);
        Ok(self.outbox.len() > most && self.flush()? == Progress::Blocked)
    }

    /// Writes what the client can take.
    pub(super) fn flush(&mut self) -> Result<Progress, Closed> {
        if let Some(limit) = self.overrun {
            return Err(Closed::TooMuchUnread(limit));
        }
        if self.outbox.is_empty() {
            return Ok(Progress::Done);
        }
        let before = self.outbox.len();
        let flushed = self.outbox.flush(self.socket.as_fd());
        // That is no fault of this client's, and passes.
        self.crowded = flushed.as_ref().is_err_and(is_crowd);
        if self.crowded {
            self.blocked_since = None;
            return Ok(Progress::Blocked);
        }
        if flushed.map_err(lost)? {
            self.blocked_since = None;
            return Ok(Progress::Done);
        }
        if self.outbox.len() < before || self.blocked_since.is_none() {
            self.blocked_since = Some(Instant::now());
        }
        Ok(Progress::Blocked)
    }

    pub(super) fn stalled_for(&self) -> Duration {
        self.blocked_since
            .map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// The events that can be dealt with now.
    pub(super) fn wanted_events(&self) -> EpollFlags {
        if self.job.is_some() {
            EpollFlags::empty()
        } else if self.outbox.is_empty() {
            EpollFlags::EPOLLIN
        } else if self.crowded {
            // The socket takes bytes, so the kernel would tell of that at once; time has to pass.
            EpollFlags::empty()
        } else {
            EpollFlags::EPOLLOUT
        }
    }
}

/// Whether the kernel has as many descriptors under way from this user as it allows one (as many as a
/// process may have open).
fn is_crowd(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::ETOOMANYREFS as i32)
}

fn lost(error: io::Error) -> Closed {
    match error.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Closed::ByPeer,
        _ => Closed::Failed(error),
    }
}
