//! What store and client wake each other with.
//!
//! | | what | its peer may |
//! |---|---|---|
//! | [`Bell`] wakes the store | an event (`eventfd`) that the store watches, and never reads or writes | ring it as often as it likes |
//! | [`Waker`] and [`Wakeup`] wake the client | a pair of sockets, of which the client's end cannot send | not hear it |
//!
//! So nothing that a client does to its ends has the store wait. Both have an event for one, and with it
//! whether writing to it may block; of a socket that is said with each call. And what is sent over a
//! socket may bring descriptors, which whoever receives them, or only closes the socket, may have to
//! wait for to close.

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::sockopt::SockType;
use nix::sys::socket::{self, MsgFlags, getsockopt};
use nix::sys::stat::{SFlag, fstat};
use nix::unistd;

/// What a client wakes the store with.
#[derive(Debug)]
pub struct Bell(OwnedFd);

impl Bell {
    /// A bell, for both sides. It is to be watched edge-triggered: it stays readable once it was rung.
    ///
    /// # Errors
    /// There are no more descriptors to be had.
    pub fn new() -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Self(EventFd::from_flags(flags)?.into()))
    }

    /// The bell that a store has given; `None` where ringing it could end this process.
    pub fn from_peer(bell: OwnedFd) -> Option<Self> {
        // Who writes to one of these that nobody reads gets a signal.
        let kind = SFlag::from_bits_truncate(fstat(&bell).ok()?.st_mode) & SFlag::S_IFMT;
        if kind == SFlag::S_IFIFO || kind == SFlag::S_IFSOCK {
            return None;
        }
        let flags = OFlag::from_bits_retain(fcntl(&bell, FcntlArg::F_GETFL).ok()?);
        fcntl(&bell, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).ok()?;
        Some(Self(bell))
    }

    /// Wakes the store.
    pub fn ring(&self) {
        // It fails where it was rung more often than anybody can count.
        let _ = unistd::write(&self.0, &1_u64.to_ne_bytes());
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What the store wakes a client with.
#[derive(Debug)]
pub struct Waker(UnixStream);

/// What a client is woken by: readable once the store has woken it, or is gone.
#[derive(Debug)]
pub struct Wakeup(OwnedFd);

/// Nobody will wake this client any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("whoever had the other end is gone")]
pub struct Gone;

impl Waker {
    /// Both ends.
    ///
    /// # Errors
    /// There are no more descriptors to be had.
    pub fn pair() -> io::Result<(Self, Wakeup)> {
        let (ours, theirs) = UnixStream::pair()?;
        // Nothing is ever received here, so that there is nothing to be thrown away.
        ours.shutdown(Shutdown::Read)?;
        Ok((Self(ours), Wakeup(theirs.into())))
    }

    /// Wakes the client, if it sleeps. Never waits itself, and never ends this process.
    pub fn wake(&self) {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        // It fails where the client was woken so often without hearing it that it cannot but hear it;
        // and where it is gone, which its connection tells.
        let _ = socket::send(self.0.as_raw_fd(), &[1], flags);
    }
}

impl Wakeup {
    /// The end that a store has given; `None` where it is no socket.
    pub fn from_peer(end: OwnedFd) -> Option<Self> {
        getsockopt(&end, SockType).is_ok().then_some(Self(end))
    }

    /// Takes note of having been woken. Never waits.
    ///
    /// # Errors
    /// Nobody will do so any more.
    pub fn hear(&self) -> Result<(), Gone> {
        // What is left over is heard next time.
        let mut woken = [0; 64];
        match socket::recv(self.0.as_raw_fd(), &mut woken, MsgFlags::MSG_DONTWAIT) {
            Ok(1..) | Err(Errno::EAGAIN | Errno::EINTR) => Ok(()),
            Ok(0) | Err(_) => Err(Gone),
        }
    }
}

impl AsFd for Wakeup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<Wakeup> for OwnedFd {
    fn from(end: Wakeup) -> Self {
        end.0
    }
}
