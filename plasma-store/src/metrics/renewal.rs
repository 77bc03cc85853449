//! How whoever reads the numbers has them brought up to date.
//!
//! While clients only read in shared memory the store sleeps, and its numbers are those of when it
//! fell asleep.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::sys::eventfd::{EfdFlags, EventFd};
use tokio::sync::Notify;

/// How long to wait for the store. It may be busy; then its numbers are not old either, but for those of
/// gets, which it counts only for who asks.
const PATIENCE: Duration = Duration::from_millis(200);

/// A way to ask for numbers of now, and to say that they are there.
#[derive(Debug)]
pub(crate) struct Renewal {
    asked: EventFd,
    renewed: Notify,
}

impl Renewal {
    pub(crate) fn new() -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Self {
            asked: EventFd::from_flags(flags)?,
            renewed: Notify::new(),
        })
    }

    /// What becomes readable when somebody asks.
    pub(crate) fn event(&self) -> BorrowedFd<'_> {
        self.asked.as_fd()
    }

    /// Somebody has been heard to ask.
    pub(crate) fn hear(&self) {
        // Only resets the event.
        let _ = self.asked.read();
    }

    /// The numbers are of now.
    pub(crate) fn tell(&self) {
        self.renewed.notify_waiters();
    }

    /// Asks, and waits until the numbers are of now, or for as long as is good.
    pub(super) async fn ask(&self) {
        let renewed = self.renewed.notified();
        // It fails where so many ask that the store cannot but hear it.
        let _ = self.asked.write(1);
        let _ = tokio::time::timeout(PATIENCE, renewed).await;
    }
}
