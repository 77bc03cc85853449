//! Clients that are told of every seal and every deletion.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::epoll::{EpollEvent, EpollFlags};
use nix::sys::socket::sockopt::OobInline;
use nix::sys::socket::{
    MsgFlags, Shutdown, UnixAddr, getpeername, getsockname, recv, setsockopt, shutdown,
};
use plasma_core::protocol::message::Notification;
use plasma_core::transport::Outbox;
use tracing::{debug, warn};

use super::admission::Peer;
use super::ending::has_hung_up;
use super::{Server, Token, set_interest};
use crate::state::ClientId;

/// Notifications that are longer together go in several writes, in bytes. The kernel takes what is
/// not longer than this as a whole or not at all; Arrow's clients rely on there being the rest of a
/// notification where there is some of it.
const WHOLE_WRITE_LEN: usize = 16 << 10;

#[derive(Debug)]
pub(super) struct Subscriber {
    stream: OwnedFd,
    outbox: Outbox,
    /// What is left to write of each notification in the outbox, in bytes.
    lens: VecDeque<usize>,
    /// Bytes that may wait: as many as for any client, beside what it is told at first.
    allowance: usize,
    /// It has left more unread than that, and was not told everything.
    overrun: bool,
    interest: EpollFlags,
}

impl Subscriber {
    pub(super) fn push(&mut self, length: &[u8], body: &[u8]) {
        // What comes now need not be kept: it is dropped at the next write.
        self.overrun |= self.outbox.len() > self.allowance;
        if !self.overrun {
            self.outbox.push_bytes(length, body);
            self.lens.push_back(length.len() + body.len());
        }
    }

    /// Writes what the stream takes; whether all is written.
    fn flush(&mut self) -> io::Result<bool> {
        if self.overrun {
            let most = self.allowance;
            let text = format!("it has left more than {most} bytes unread (--max-unread-bytes)");
            return Err(io::Error::other(text));
        }
        while !self.outbox.is_empty() {
            let whole = self.whole_notifications();
            match self.outbox.write_part(self.stream.as_fd(), whole)? {
                Some(taken) => self.note_written(taken),
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Bytes of as many notifications as go into one write.
    fn whole_notifications(&self) -> usize {
        let mut whole = 0;
        for len in &self.lens {
            if whole > 0 && whole + len > WHOLE_WRITE_LEN {
                break;
            }
            whole += len;
        }
        whole
    }

    fn note_written(&mut self, mut taken: usize) {
        while let Some(first) = self.lens.front_mut() {
            if taken < *first {
                *first -= taken;
                return;
            }
            taken -= *first;
            self.lens.pop_front();
        }
    }

    pub(super) fn stream(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl Server {
    /// Begins a client's subscription with what is sealed already. A second one takes the place
    /// of the first.
    pub(super) fn subscribe(&mut self, client: ClientId, stream: OwnedFd) {
        self.drop_subscriber(client);
        let Some(peer) = self.connections.get(&client).map(|known| known.peer) else {
            return self.closer.close(stream);
        };
        let limit = self.options.clients.max_subscriptions;
        if self.subscribers.len() >= limit {
            self.stats.refused_subscriptions.add_one();
            let Peer { pid, uid, .. } = peer;
            let reason =
                format!("{limit} clients subscribe, the most there may be (--max-subscriptions)");
            warn!(
                client = client.0,
                pid, uid, reason, "refused a subscription"
            );
            return self.closer.close(stream);
        }
        if let Err(reason) = make_one_way(&stream, self.listener.socket.as_fd()) {
            warn!(client = client.0, %reason, "refused a subscription");
            return self.closer.close(stream);
        }
        let mut subscriber = Subscriber {
            stream,
            allowance: usize::MAX,
            outbox: Outbox::new(),
            lens: VecDeque::new(),
            overrun: false,
            interest: EpollFlags::empty(),
        };
        for info in self.state.sealed_objects() {
            let sealed = [Notification::Sealed(info)];
            let (length, body) = self.encoder.notification(&sealed);
            subscriber.push(&length, body);
        }
        subscriber.allowance = subscriber
            .outbox
            .len()
            .saturating_add(self.options.clients.max_unread_bytes);
        let token = Token::Subscriber(client).number();
        let event = EpollEvent::new(subscriber.interest, token);
        if let Err(error) = self.epoll.add(subscriber.stream(), event) {
            warn!(client = client.0, %error, "cannot write to a subscriber's stream");
            return;
        }
        self.subscribers.insert(client, subscriber);
        self.unheard.insert(client);
        debug!(client = client.0, "subscribed");
    }

    pub(super) fn subscriber_event(&mut self, client: ClientId, events: EpollFlags) {
        let over = events.intersects(EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR);
        let subscriber = self.subscribers.get(&client);
        // It may have been the end of the stream whose place this one has taken.
        if over && subscriber.is_some_and(|it| has_hung_up(&it.stream)) {
            self.drop_subscriber(client);
        } else {
            self.unheard.insert(client);
        }
    }

    /// Writes the notifications that are queued.
    pub(super) fn send_notifications(&mut self) {
        while let Some(client) = self.unheard.pop_first() {
            let Some(subscriber) = self.subscribers.get_mut(&client) else {
                continue;
            };
            let wanted = match subscriber.flush() {
                Ok(true) => EpollFlags::empty(),
                Ok(false) => EpollFlags::EPOLLOUT,
                Err(reason) => {
                    self.stats.dropped_subscriptions.add_one();
                    let peer = self.connections.get(&client).map(|known| known.peer);
                    let (pid, uid) = (peer.map(|peer| peer.pid), peer.map(|peer| peer.uid));
                    warn!(client = client.0, pid, uid, %reason, "ended a subscription");
                    self.drop_subscriber(client);
                    continue;
                }
            };
            if subscriber.interest != wanted {
                subscriber.interest = wanted;
                let token = Token::Subscriber(client);
                set_interest(&self.epoll, subscriber.stream(), token, wanted);
            }
        }
    }

    pub(super) fn drop_subscriber(&mut self, client: ClientId) {
        if let Some(subscriber) = self.subscribers.remove(&client) {
            // The kernel forgets a descriptor that is closed; if it has already, so much the
            // better.
            let _ = self.epoll.delete(subscriber.stream());
        }
    }
}

/// Why a stream cannot be for notifications.
#[derive(Debug, thiserror::Error)]
enum Unsuitable {
    #[error("what it subscribed with is no Unix socket")]
    NoUnixSocket,
    #[error("what it subscribed with is the end of a connection to this store")]
    OwnConnection,
    #[error("what it subscribed with has something to be read")]
    Loaded,
}

/// Makes sure of a descriptor that holding it keeps nothing else open, and that nobody has to be
/// waited for.
///
/// Unix sockets are the only descriptors that can be written to, and closed, without that. But if
/// it is the client's end of its connection, or that is on its way through it, the store would never
/// learn that the client has gone.
fn make_one_way(stream: &OwnedFd, listener: BorrowedFd<'_>) -> Result<(), Unsuitable> {
    let raw = stream.as_raw_fd();
    if getsockname::<UnixAddr>(raw).is_err() {
        return Err(Unsuitable::NoUnixSocket);
    }
    let peer = getpeername::<UnixAddr>(raw);
    if peer.is_ok() && peer == getsockname::<UnixAddr>(listener.as_raw_fd()) {
        return Err(Unsuitable::OwnConnection);
    }
    // From here on nothing can be sent to it; and it must not be too late for that. What was sent out of
    // band counts, too.
    let _ = setsockopt(stream, OobInline, &true);
    let closed = shutdown(raw, Shutdown::Read);
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    match closed.and_then(|()| recv(raw, &mut [0], flags)) {
        Ok(0) | Err(Errno::EAGAIN) => Ok(()),
        Ok(_) | Err(_) => Err(Unsuitable::Loaded),
    }
}
