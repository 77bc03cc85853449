//! How connections end: one, because its client hung up or broke a rule, or all, with the store.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::poll::PollFlags;
use nix::sys::epoll::EpollFlags;
use nix::sys::socket::{Shutdown, shutdown};
use plasma_core::shm::bell::Bell;
use plasma_core::transport::{Inbox, Received, wait_ready};
use tracing::{info, warn};

use super::admission::Peer;
use super::connection::Connection;
use super::requests::Closed;
use super::subscriber::Subscriber;
use super::{Server, Token, set_interest};
use crate::backer::JobId;
use crate::state::ClientId;

/// A client that is served no more.
#[derive(Debug)]
pub(super) struct CutOff {
    /// Open as long as the client's end is.
    socket: OwnedFd,
    /// With which it tells that it has let go of something wanted.
    bell: Option<Bell>,
    /// Memory is being put behind what it was creating.
    pub(super) job: Option<JobId>,
}

/// Whether nobody has the other end of a socket any more.
pub(super) fn has_hung_up(socket: &OwnedFd) -> bool {
    // Asked for nothing, the kernel tells of this all the same.
    let asked = wait_ready(socket.as_fd(), PollFlags::empty(), Some(Duration::ZERO));
    asked.unwrap_or(true)
}

impl Server {
    /// Ends a connection. What its client holds is taken back, but not while the client is still
    /// there: it may be reading that, or writing it, and not know of this yet.
    pub(super) fn close(&mut self, client: ClientId, reason: &Closed) {
        let Some(mut connection) = self.connections.remove(&client) else {
            return;
        };
        self.unfinished -= connection.unfinished;
        for descriptor in connection.inbox.take_descriptors() {
            self.closer.close(descriptor);
        }
        match reason.label() {
            None => info!(client = client.0, "disconnected"),
            Some(label) => {
                self.stats.cut_off(label);
                let Peer { pid, uid, .. } = connection.peer;
                let name = self.state.client_name(client);
                warn!(client = client.0, name, pid, uid, %reason, "cut off a client");
            }
        }
        self.blocked.remove(&client);
        self.drop_subscriber(client);
        let bell = self.rings.remove(client);
        if let Some(job) = connection.job {
            // Memory is being put behind what it was creating: all is taken back after that.
            self.memory.cancel(job);
        }
        let job = connection.job;
        let socket = connection.into_socket();
        let may_hold = self.state.holds_any(client) || self.reads(client);
        self.state.end_waits(client);
        if may_hold && !has_hung_up(&socket) {
            // It reads that this is the end. When it hangs up, the kernel tells us unasked.
            let _ = shutdown(socket.as_raw_fd(), Shutdown::Write);
            let token = Token::Connection(client);
            set_interest(&self.epoll, socket.as_fd(), token, EpollFlags::EPOLLIN);
            self.cut_off.insert(client, CutOff { socket, bell, job });
            return;
        }
        self.silence(bell.as_ref());
        self.hang_up(socket);
        if job.is_none() {
            self.forget(client);
        }
    }

    /// Whether a client may hold objects without having asked for them.
    fn reads(&self, client: ClientId) -> bool {
        let readers = self.state.readers().as_ref();
        readers.is_some_and(|readers| readers.has(client))
    }

    /// Takes back what a client held that was cut off, if it has hung up by now.
    pub(super) fn watch_cut_off(&mut self, client: ClientId) {
        let Some(cut_off) = self.cut_off.get(&client) else {
            return;
        };
        // What it goes on sending is thrown away: among it could be its own end of the connection,
        // which would never be closed while that waits here.
        let mut discarded = Inbox::new();
        let _ = discarded.receive(cut_off.socket.as_fd());
        for descriptor in discarded.take_descriptors() {
            self.closer.close(descriptor);
        }
        if !has_hung_up(&cut_off.socket) {
            return;
        }
        let Some(CutOff { socket, bell, job }) = self.cut_off.remove(&client) else {
            return;
        };
        self.silence(bell.as_ref());
        self.hang_up(socket);
        if job.is_none() {
            self.forget(client);
        }
    }

    /// Hears no more of a client's bell.
    fn silence(&self, bell: Option<&Bell>) {
        if let Some(bell) = bell {
            // The client has the same event, so the kernel would go on telling of it.
            let _ = self.epoll.delete(bell);
        }
    }

    /// Closes a client's connection. What it has sent that nobody read is read before: descriptors may
    /// be among it, and the kernel would have the store wait for them to close.
    pub(super) fn hang_up(&mut self, socket: OwnedFd) {
        // If the kernel has forgotten it already, so much the better.
        let _ = self.epoll.delete(&socket);
        // Nothing more comes after this, so there is an end to what is read.
        let _ = shutdown(socket.as_raw_fd(), Shutdown::Both);
        loop {
            let mut unread = Inbox::new();
            let received = unread.receive(socket.as_fd());
            for descriptor in unread.take_descriptors() {
                self.closer.close(descriptor);
            }
            match received {
                Ok(Received::Bytes(_)) => {}
                Ok(Received::Nothing | Received::End) => return,
                // It did not read all either; that is told once everything is read here.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return,
                // There is more, and no room for it.
                Err(_) => return self.closer.close(socket),
            }
        }
    }

    /// Takes back what a client held.
    pub(super) fn forget(&mut self, client: ClientId) {
        let now = self.now();
        let mut fx = std::mem::take(&mut self.effects);
        self.state.disconnect(client, now, &mut fx);
        self.settle(fx);
    }

    /// Ends the connections of clients that have not read for too long.
    pub(super) fn cut_off_the_stalled(&mut self) {
        let timeout = self.options.clients.stall_timeout;
        let mut stalled = self.blocked.clone();
        stalled.retain(|client| {
            let connection = self.connections.get(client);
            connection.is_some_and(|connection| connection.stalled_for() > timeout)
        });
        for client in stalled {
            self.close(client, &Closed::Stalled(timeout));
        }
    }

    /// Tells clients that nobody serves them any more. That the descriptors are closed does not tell
    /// them, where a process that was forked from this one has them, too.
    pub(super) fn end(self) {
        let Self {
            listener,
            state,
            connections,
            cut_off,
            subscribers,
            ..
        } = self;
        let shut = |socket: BorrowedFd<'_>| {
            // One that has hung up knows.
            let _ = shutdown(socket.as_raw_fd(), Shutdown::Both);
        };
        // Who learns of the end from its socket finds that nobody keeps the index, either; and who finds
        // that nobody listens has learnt of it.
        drop(state);
        let connected = connections.values().map(Connection::socket);
        let cut_off = cut_off.values().map(|cut_off| cut_off.socket.as_fd());
        let told = subscribers.values().map(Subscriber::stream);
        connected.chain(cut_off).chain(told).for_each(shut);
        shut(listener.socket.as_fd());
        while let Ok(waiting) = listener.accept() {
            shut(waiting.as_fd());
        }
    }
}
