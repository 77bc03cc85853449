//! What is sealed and deleted, as it happens.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::poll::PollFlags;

use crate::PlasmaError;
use crate::connection::Connection;
use crate::protocol::message::{Notification, decode_notification};
use crate::session::Session;
use crate::transport::{copy_aligned, wait_ready};

/// Longest notification this client reads, in bytes: what a flatbuffer can hold.
const MAX_NOTIFICATION_LEN: usize = i32::MAX as usize;

const LENGTH_BYTES: usize = 8;

/// A stream of what is sealed, deleted and evicted in a store; from
/// [`PlasmaClient::subscribe`](crate::PlasmaClient::subscribe).
///
/// It begins with every object that is sealed already. As an iterator it waits for each
/// notification and ends, after an error, when the connection is lost.
///
/// ```no_run
/// # let client = plasma_core::PlasmaClient::new("/tmp/plasma", 0)?;
/// use plasma_core::Notification;
///
/// for notification in client.subscribe()? {
///     match notification? {
///         Notification::Sealed(object) => println!("{}: {} bytes", object.id, object.data_size),
///         Notification::Deleted(id) => println!("{id}: gone"),
///     }
/// }
/// # Ok::<(), plasma_core::PlasmaError>(())
/// ```
///
/// In a poll loop, wait for its descriptor ([`AsFd`]) to become readable, then call
/// [`try_recv`](Self::try_recv) until it returns `None`: what has been read from the socket does
/// not make it readable again.
pub struct Notifications {
    stream: UnixStream,
    bytes: Vec<u8>,
    ready: VecDeque<Notification>,
    ended: bool,
    /// The subscription lasts as long as the connection that made it.
    connection: Connection,
}

impl Notifications {
    pub(crate) fn new(session: &Session) -> Result<Self, PlasmaError> {
        let io = |source| PlasmaError::Io {
            action: "cannot make a socket for notifications",
            source,
        };
        let (stream, stores_end) = UnixStream::pair().map_err(io)?;
        stream.set_nonblocking(true).map_err(io)?;
        // A connection of its own: a connection has one subscription.
        let connection = session.open()?;
        let subscribed = connection.subscribe(stores_end.into());
        subscribed.map_err(|error| session.explain_loss(error))?;
        Ok(Self {
            stream,
            bytes: Vec::new(),
            ready: VecDeque::new(),
            ended: false,
            connection,
        })
    }

    /// The next notification, waited for as long as it takes.
    ///
    /// # Errors
    /// [`PlasmaError::Disconnected`] once the store is gone, [`PlasmaError::Forked`] in a process that was
    /// forked since, or what else happened to the connection.
    pub fn recv(&mut self) -> Result<Notification, PlasmaError> {
        loop {
            if let Some(notification) = self.wait_until(None)? {
                return Ok(notification);
            }
        }
    }

    /// The next notification, or `None` if there is none within the timeout.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Option<Notification>, PlasmaError> {
        self.wait_until(Instant::now().checked_add(timeout))
    }

    /// The next notification, or `None` if none is here.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub fn try_recv(&mut self) -> Result<Option<Notification>, PlasmaError> {
        if !self.connection.is_ours() {
            return Err(PlasmaError::Forked);
        }
        loop {
            if let Some(notification) = self.ready.pop_front() {
                return Ok(Some(notification));
            }
            if !self.parse()? && !self.read()? {
                return Ok(None);
            }
        }
    }

    fn wait_until(
        &mut self,
        deadline: Option<Instant>,
    ) -> Result<Option<Notification>, PlasmaError> {
        loop {
            if let Some(notification) = self.try_recv()? {
                return Ok(Some(notification));
            }
            let timeout = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            if !wait_ready(self.stream.as_fd(), PollFlags::POLLIN, timeout).map_err(failed)? {
                return Ok(None);
            }
        }
    }

    /// Takes one message out of the bytes; whether there was a whole one.
    fn parse(&mut self) -> Result<bool, PlasmaError> {
        let Some((length, rest)) = self.bytes.split_first_chunk::<LENGTH_BYTES>() else {
            return Ok(false);
        };
        let announced = i64::from_le_bytes(*length);
        let len = usize::try_from(announced)
            .ok()
            .filter(|len| *len <= MAX_NOTIFICATION_LEN)
            .ok_or_else(|| PlasmaError::protocol(format!("a notification of {announced} bytes")))?;
        let Some(body) = rest.get(..len) else {
            return Ok(false);
        };
        // Flatbuffers are read from aligned memory, which these bytes need not be.
        let mut room = Vec::new();
        let body = copy_aligned(body, &mut room);
        self.ready.extend(decode_notification(body)?);
        self.bytes.drain(..LENGTH_BYTES + len);
        Ok(true)
    }

    /// Reads what is there; whether there was anything.
    fn read(&mut self) -> Result<bool, PlasmaError> {
        let mut chunk = [0; 16 << 10];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(PlasmaError::Disconnected),
                Ok(count) => {
                    let read = chunk.get(..count).unwrap_or_default();
                    self.bytes.extend_from_slice(read);
                    return Ok(true);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(error)),
            }
        }
    }
}

fn failed(source: io::Error) -> PlasmaError {
    match source.kind() {
        io::ErrorKind::ConnectionReset => PlasmaError::Disconnected,
        _ => PlasmaError::Io {
            action: "cannot read notifications",
            source,
        },
    }
}

impl Iterator for Notifications {
    type Item = Result<Notification, PlasmaError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let next = self.recv();
        self.ended = next.is_err();
        Some(next)
    }
}

impl AsFd for Notifications {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl fmt::Debug for Notifications {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notifications")
            .field("stream", &self.stream)
            .field("ready", &self.ready.len())
            .finish_non_exhaustive()
    }
}
