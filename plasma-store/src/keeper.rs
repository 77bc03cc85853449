//! Tells clients of the store's end, however it comes.
//!
//! Clients that read in the index make no system call, so nothing tells them that the store has been
//! killed; and what they would find there would still be true of nothing. The kernel can say it: a
//! thread that has a robust futex has the word of it marked when the thread ends, in whatever way,
//! and before anybody else can learn that it has. This is a thread that has such a futex and
//! otherwise does nothing, and lives as long as its process or the store.

use std::io;
use std::ptr;
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};

use nix::errno::Errno;
use nix::libc;
use plasma_core::shm::index::KeeperWord;

/// The head of a thread's list of robust futexes, and the one entry of it; as the kernel reads them.
#[repr(C)]
struct RobustList {
    /// The first entry, or the head itself.
    first: *const Link,
    /// From an entry to its futex word, in bytes.
    futex_offset: libc::c_long,
    /// An entry on its way in or out of the list.
    pending: *const Link,
    /// The entry: what is next, which is the head.
    entry: Link,
}

#[repr(C)]
struct Link {
    next: *const Link,
}

/// What the kernel takes for the head's length, in bytes.
const HEAD_LEN: usize = 3 * size_of::<usize>();

/// A thread that keeps the index, as far as the kernel is concerned.
#[derive(Debug)]
pub(crate) struct Keeper {
    /// Dropped to end the thread.
    stay: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
    word: KeeperWord,
}

impl Keeper {
    /// Starts the thread, and names it in the index.
    pub(crate) fn start(word: KeeperWord) -> io::Result<Self> {
        let (stay, until) = channel::<()>();
        let (ready, started) = channel();
        let theirs = word.clone();
        let builder = thread::Builder::new().name("plasma-keeper".into());
        let thread = builder.spawn(move || {
            let list = RobustList {
                first: ptr::null(),
                futex_offset: 0,
                pending: ptr::null(),
                entry: Link { next: ptr::null() },
            };
            keep(list, &theirs, || {
                // Whoever waits for this has gone only if the store cannot start.
                let _ = ready.send(());
                // Nothing is ever sent: it ends with the sender.
                let _ = until.recv();
            });
        })?;
        let _ = started.recv();
        if word.thread() == 0 {
            return Err(io::ErrorKind::Unsupported.into());
        }
        Ok(Self {
            stay: Some(stay),
            thread: Some(thread),
            word,
        })
    }
}

/// Has the kernel watch over the word while `meanwhile` runs on this thread.
fn keep(mut list: RobustList, word: &KeeperWord, meanwhile: impl FnOnce()) {
    let head = ptr::from_ref(&list.first).cast::<Link>();
    let entry = ptr::from_ref(&list.entry);
    list.futex_offset =
        (word.address().addr() as libc::c_long).wrapping_sub(entry.addr() as libc::c_long);
    list.first = entry;
    list.entry.next = head;
    // SAFETY: the kernel keeps the address for this thread alone, and reads it when the thread ends;
    // `list` stays where it is until the call below takes it back. What the thread's own C library
    // keeps there serves for mutexes of a kind that is not used on this thread.
    let watched =
        unsafe { libc::syscall(libc::SYS_set_robust_list, ptr::from_ref(&list), HEAD_LEN) };
    if Errno::result(watched).is_ok() {
        word.set_thread(nix::unistd::gettid().as_raw().cast_unsigned());
    }
    meanwhile();
    word.set_thread(0);
    // SAFETY: no list is what threads begin with.
    unsafe { libc::syscall(libc::SYS_set_robust_list, ptr::null::<u8>(), HEAD_LEN) };
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // At once: the thread may take its time.
        self.word.set_thread(0);
        drop(self.stay.take());
        if let Some(thread) = self.thread.take() {
            // It has nothing to panic about.
            let _ = thread.join();
        }
    }
}
