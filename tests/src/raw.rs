//! A client that says what it is told to, bytes and descriptors, and nothing by itself.

use std::io::{self, IoSlice, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::poll::PollFlags;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use plasma_core::protocol::message::{Encoder, Reply, Request};
use plasma_core::transport::{Inbox, Received, wait_ready};

use crate::patience;

/// A connection to a store without a client's manners.
#[derive(Debug)]
pub struct RawClient {
    socket: UnixStream,
    inbox: Inbox,
}

/// A whole request as it goes over the wire.
pub fn message(request: &Request<'_>) -> Vec<u8> {
    let mut encoder = Encoder::new();
    let frame = encoder.request(request);
    [&frame.header, frame.body].concat()
}

/// Sends one byte, or more, with descriptors attached.
pub fn send_with_descriptors(
    socket: &UnixStream,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<usize> {
    let raw: Vec<_> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let part = [IoSlice::new(bytes)];
    let flags = MsgFlags::MSG_NOSIGNAL;
    Ok(sendmsg::<()>(
        socket.as_raw_fd(),
        &part,
        &rights,
        flags,
        None,
    )?)
}

impl RawClient {
    /// Connects, and says nothing yet.
    pub fn connect(socket: &Path) -> Self {
        let socket = UnixStream::connect(socket).expect("the store accepts a connection");
        Self::over(socket)
    }

    /// Speaks over a socket that is there already.
    pub fn over(socket: UnixStream) -> Self {
        for set in [UnixStream::set_read_timeout, UnixStream::set_write_timeout] {
            set(&socket, Some(patience())).expect("a socket takes timeouts");
        }
        Self {
            socket,
            inbox: Inbox::new(),
        }
    }

    /// The connection's socket.
    pub fn socket(&self) -> &UnixStream {
        &self.socket
    }

    /// Sends bytes as they are. The store may have closed the connection: then it fails.
    pub fn send_bytes(&self, bytes: &[u8]) -> io::Result<()> {
        (&self.socket).write_all(bytes)
    }

    /// Sends a request.
    pub fn send(&self, request: &Request<'_>) {
        self.send_bytes(&message(request))
            .expect("the store takes a request");
    }

    /// Sends bytes with descriptors attached.
    pub fn send_descriptors(
        &self,
        bytes: &[u8],
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<usize> {
        send_with_descriptors(&self.socket, bytes, descriptors)
    }

    /// Subscribes with any descriptor.
    pub fn subscribe(&self, stream: BorrowedFd<'_>) {
        self.send(&Request::Subscribe);
        self.send_descriptors(&[0], &[stream])
            .expect("the store takes a descriptor");
    }

    /// Reads once more; false at the end of the stream.
    fn receive(&mut self) -> bool {
        loop {
            let ready = wait_ready(self.socket.as_fd(), PollFlags::POLLIN, Some(patience()));
            assert!(
                ready.expect("a socket can be waited for"),
                "waited in vain for the store"
            );
            match self.inbox.receive(self.socket.as_fd()) {
                Ok(Received::Bytes(_)) => return true,
                Ok(Received::Nothing) => {}
                Ok(Received::End) => return false,
                // What it said last was never read by the other side.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return false,
                Err(error) => panic!("cannot read: {error}"),
            }
        }
    }

    /// The next reply.
    pub fn reply(&mut self) -> Reply<'static> {
        loop {
            let message = self.inbox.next_message(usize::MAX);
            if let Some((kind, body)) = message.expect("the store frames its messages") {
                return Reply::decode(kind, body).expect("the store sends valid replies");
            }
            assert!(self.receive(), "the store closed the connection");
        }
    }

    /// The next descriptor, with its byte.
    pub fn descriptor(&mut self) -> OwnedFd {
        loop {
            match self.inbox.next_descriptor() {
                Some(descriptor) => return descriptor.expect("a descriptor on its byte"),
                None => assert!(self.receive(), "the store closed the connection"),
            }
        }
    }

    /// Sends a request and reads its reply.
    pub fn call(&mut self, request: &Request<'_>) -> Reply<'static> {
        self.send(request);
        self.reply()
    }

    /// Reads, and forgets, until the store has closed the connection; fails if it does not.
    pub fn wait_until_cut_off(mut self) {
        while self.receive() {
            self.inbox = Inbox::new();
        }
    }
}
