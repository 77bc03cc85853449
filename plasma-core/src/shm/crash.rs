//! Places where a test may end this process.
//!
//! With the feature `crash-points` every store to shared memory is followed by one, and a process
//! that runs with `PLASMA_CRASH_AT=N` in its environment ends itself with SIGKILL at the N-th it
//! comes to. Without the feature they are nothing.

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

/// How many places this process has come to, whether or not it was to end at one.
#[cfg(feature = "crash-points")]
pub fn passed() -> u64 {
    armed::PASSED.load(std::sync::atomic::Ordering::Relaxed)
}

#[cfg(feature = "crash-points")]
pub(crate) use armed::here;

#[cfg(feature = "crash-points")]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use nix::sys::signal::{Signal, raise};

    pub(super) static PASSED: AtomicU64 = AtomicU64::new(0);

    pub(crate) fn here() {
        static CRASH_AT: OnceLock<Option<u64>> = OnceLock::new();
        let passed = PASSED.fetch_add(1, Ordering::Relaxed) + 1;
        let crash_at = CRASH_AT.get_or_init(|| {
            let number = std::env::var("PLASMA_CRASH_AT").ok()?;
            number.parse().ok()
        });
        if *crash_at == Some(passed) {
            // It does not return; if it did, the test that counts on it would tell.
            let _ = raise(Signal::SIGKILL);
        }
    }
}
