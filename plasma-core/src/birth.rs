//! Which process this is, told without a system call.
//!
//! After a fork the child has everything its parent had, and must not use it: the socket's stream,
//! the pins and the ring are one process's. So every process has a number in a page that the kernel
//! empties in a child.

use std::io;
use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous};

/// A process, told apart from those it was forked from and those it forks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Birth(u64);

/// The page, for as long as there are processes that have it.
#[derive(Debug)]
struct Page(NonNull<AtomicU64>);

// SAFETY: the page is never unmapped, and what is in it is an atomic.
unsafe impl Send for Page {}
// SAFETY: as above.
unsafe impl Sync for Page {}

impl Page {
    fn new() -> io::Result<Self> {
        let len = NonZeroUsize::new(size_of::<AtomicU64>()).ok_or(io::ErrorKind::InvalidInput)?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping of nobody's, at an address that the kernel chooses.
        let page = unsafe { mmap_anonymous(None, len, protection, MapFlags::MAP_PRIVATE) }?;
        // SAFETY: the mapping was made just now, and nobody has anything in it.
        unsafe { madvise(page, len.get(), MmapAdvise::MADV_WIPEONFORK) }?;
        Ok(Self(page.cast()))
    }

    fn number(&self) -> &AtomicU64 {
        // SAFETY: the page was mapped for this and never goes away; it is aligned as pages are, and
        // its bytes, zero at first, are only ever seen as this atomic.
        unsafe { self.0.as_ref() }
    }
}

impl Birth {
    /// This process.
    #[inline]
    pub(crate) fn now() -> Self {
        static PAGE: OnceLock<Option<Page>> = OnceLock::new();
        let Some(page) = PAGE.get_or_init(|| Page::new().ok()) else {
            // The kernel has to be asked each time (Linux before 4.14).
            return Self(u64::from(std::process::id()));
        };
        match page.number().load(Ordering::Relaxed) {
            0 => Self::new(page),
            number => Self(number),
        }
    }

    #[cold]
    fn new(page: &Page) -> Self {
        // A child goes on where its parent was, so that no number is one of an ancestor's.
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let first = page.number();
        match first.compare_exchange(0, number, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => Self(number),
            Err(others) => Self(others),
        }
    }
}
