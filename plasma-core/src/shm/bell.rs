//! What two processes wake each other with: a pair of connected sockets, an end for each.
//!
//! Not an event (`eventfd`), which both would have for one: whether writing to it may block is then up
//! to either, and who sleeps in it would be the store. Of a socket that is said with each call.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::sys::socket::sockopt::SockType;
use nix::sys::socket::{self, MsgFlags, getsockopt};

/// One end. It is readable once the other has rung, or is gone.
#[derive(Debug)]
pub struct Bell(OwnedFd);

/// The other end is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("whoever had the other end is gone")]
pub struct Gone;

impl Bell {
    /// Two ends.
    ///
    /// # Errors
    /// There are no more descriptors to be had.
    pub fn pair() -> io::Result<[Self; 2]> {
        let (one, other) = UnixStream::pair()?;
        Ok([Self(one.into()), Self(other.into())])
    }

    /// The end that a peer has given; `None` where it is no socket.
    pub fn from_peer(end: OwnedFd) -> Option<Self> {
        getsockopt(&end, SockType).is_ok().then_some(Self(end))
    }

    /// Wakes whoever waits at the other end. Never waits itself, and never ends this process.
    pub fn ring(&self) {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        // It fails where it was rung so often without being heard that it cannot but be heard; and
        // where there is nobody to hear it, which others tell.
        let _ = socket::send(self.0.as_raw_fd(), &[1], flags);
    }

    /// Takes note of what was rung. Never waits.
    ///
    /// # Errors
    /// Nobody will ring any more.
    pub fn hear(&self) -> Result<(), Gone> {
        // What is left over is heard next time.
        let mut rung = [0; 64];
        match socket::recv(self.0.as_raw_fd(), &mut rung, MsgFlags::MSG_DONTWAIT) {
            Ok(1..) | Err(Errno::EAGAIN | Errno::EINTR) => Ok(()),
            Ok(0) | Err(_) => Err(Gone),
        }
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<Bell> for OwnedFd {
    fn from(end: Bell) -> Self {
        end.0
    }
}
