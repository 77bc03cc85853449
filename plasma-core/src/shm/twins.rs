//! What the twins of the models leave out.
//!
//! Outside a model nothing is ever left out, and this is nothing.

#[cfg(all(plasma_loom, test))]
pub(super) use armed::{Skip, skip, skips};

/// Does something, unless the model's twin leaves it out.
macro_rules! unless_skipped {
    ($what:ident, $done:expr) => {{
        #[cfg(all(plasma_loom, test))]
        let skipped = $crate::shm::twins::skips($crate::shm::twins::Skip::$what);
        #[cfg(not(all(plasma_loom, test)))]
        let skipped = false;
        if !skipped {
            $done
        }
    }};
}

pub(crate) use unless_skipped;

/// Whether the model's twin leaves something out.
macro_rules! is_skipped {
    ($what:ident) => {{
        #[cfg(all(plasma_loom, test))]
        let skipped = $crate::shm::twins::skips($crate::shm::twins::Skip::$what);
        #[cfg(not(all(plasma_loom, test)))]
        let skipped = false;
        skipped
    }};
}

pub(crate) use is_skipped;

#[cfg(all(plasma_loom, test))]
mod armed {
    use std::sync::atomic::{AtomicU32, Ordering};

    /// A fence or a check.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    #[repr(u32)]
    pub(crate) enum Skip {
        ReaderFence = 1,
        StoreFence,
        Recheck,
        Scan,
        Release,
        ReleaseFence,
        PublishFence,
        FindRecheck,
        ExtentFence,
        HomesRecheck,
        TellFence,
        RestFence,
        SleepFence,
        AnswerFence,
    }

    // The models' threads are the checker's, which knows nothing of this: it is the same for all.
    static SKIPPED: AtomicU32 = AtomicU32::new(0);

    pub(crate) fn skip(what: Option<Skip>) {
        SKIPPED.store(what.map_or(0, |what| what as u32), Ordering::SeqCst);
    }

    pub(crate) fn skips(what: Skip) -> bool {
        SKIPPED.load(Ordering::SeqCst) == what as u32
    }
}
