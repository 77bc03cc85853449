//! Closes descriptors that came from clients.
//!
//! Closing can wait: a TCP socket for its peer to take what is left, a file of a user's own file
//! system for that user. The store does not, whatever it was sent; what is to be closed after something
//! that never ends stays open.

use std::os::fd::OwnedFd;
use std::sync::mpsc::{self, SendError, Sender};
use std::thread;

use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};

/// A thread that closes descriptors, started when it is first needed.
#[derive(Debug, Default)]
pub(super) struct Closer {
    queue: Option<Sender<OwnedFd>>,
}

impl Closer {
    pub(super) fn close(&mut self, descriptor: OwnedFd) {
        let queue = self.queue.get_or_insert_with(|| {
            let (queue, descriptors) = mpsc::channel::<OwnedFd>();
            let builder = thread::Builder::new().name("plasma-closer".into());
            // If there is no thread to be had, the descriptor comes back and is closed here.
            let _ = builder.spawn(move || descriptors.into_iter().for_each(close_at_once));
            queue
        });
        if let Err(SendError(descriptor)) = queue.send(descriptor) {
            self.queue = None;
            close_at_once(descriptor);
        }
    }
}

fn close_at_once(descriptor: OwnedFd) {
    let do_not_linger = libc::linger {
        l_onoff: 0,
        l_linger: 0,
    };
    // What is no socket does not linger.
    let _ = setsockopt(&descriptor, sockopt::Linger, &do_not_linger);
}
