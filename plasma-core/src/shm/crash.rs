//! Places where a test may end this process, or do anything else.
//!
//! With the feature `crash-points` one follows each step that a client takes in shared memory and that
//! the store acts on. A process that runs with `PLASMA_CRASH_AT=N` in its environment ends itself with
//! SIGKILL at the N-th it comes to; a thread can be made to call something at each (`visited`). Without
//! the feature they are nothing.

/// Ends this process if a test has asked for it here.
#[cfg(feature = "crash-points")]
macro_rules! crash_point {
    () => {
        $crate::shm::crash::here()
    };
}

#[cfg(not(feature = "crash-points"))]
macro_rules! crash_point {
    () => {};
}

pub(crate) use crash_point;

/// How many places this process has come to, if it was to end at one (of whatever number).
#[cfg(feature = "crash-points")]
pub fn passed() -> u64 {
    armed::PASSED.load(std::sync::atomic::Ordering::Relaxed)
}

#[cfg(feature = "crash-points")]
pub use armed::visited;

#[cfg(feature = "crash-points")]
pub(crate) use armed::here;

#[cfg(feature = "crash-points")]
mod armed {
    use std::cell::RefCell;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use nix::sys::signal::{Signal, raise};

    pub(super) static PASSED: AtomicU64 = AtomicU64::new(0);

    type Visitor = Box<dyn FnMut()>;

    thread_local! {
        static VISITOR: RefCell<Option<Visitor>> = const { RefCell::new(None) };
    }

    /// Acts, and calls `visitor` at each place that this thread comes to meanwhile.
    pub fn visited<T>(visitor: impl FnMut() + 'static, act: impl FnOnce() -> T) -> T {
        VISITOR.set(Some(Box::new(visitor)));
        let result = act();
        VISITOR.take();
        result
    }

    /// Calls this thread's visitor, which is not called from within itself.
    fn be_visited() {
        // A thread at its end has none.
        let _ = VISITOR.try_with(|place| {
            if let Some(mut visitor) = place.take() {
                visitor();
                place.replace(Some(visitor));
            }
        });
    }

    pub(crate) fn here() {
        be_visited();
        static CRASH_AT: OnceLock<Option<u64>> = OnceLock::new();
        let crash_at = CRASH_AT.get_or_init(|| {
            let number = std::env::var("PLASMA_CRASH_AT").ok()?;
            number.parse().ok()
        });
        let Some(crash_at) = crash_at else {
            return;
        };
        let passed = PASSED.fetch_add(1, Ordering::Relaxed) + 1;
        if *crash_at == passed {
            // It does not return; if it did, the test that counts on it would tell.
            let _ = raise(Signal::SIGKILL);
        }
    }
}
