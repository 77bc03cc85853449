//! How long it pays to look again before going to sleep.

use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

/// The longest anyone looks again and again for what a peer is about to send.
///
/// Waking a sleeping process costs some 5 to 50 µs; an answer that comes sooner than that is
/// cheaper to watch for. Past it the processor is worth more to somebody else.
const MAX_WINDOW: Duration = Duration::from_micros(100);

/// The shortest window that is worth starting with again once waits get short.
const MIN_WINDOW: Duration = Duration::from_micros(20);

/// A sleep of at most this, waking included, is one that a longer watch could have saved.
const SHORT_SLEEP: Duration = Duration::from_micros(300);

/// An adaptive spin: it watches as long as watching has paid off lately, and not at all when waits
/// are long, so that an idle process uses no processor time.
#[derive(Debug)]
pub struct Spin {
    window: Duration,
}

impl Default for Spin {
    fn default() -> Self {
        Self::new()
    }
}

impl Spin {
    /// A spin that starts hopeful.
    pub fn new() -> Self {
        Self {
            window: max_window(),
        }
    }

    /// Looks until `look` finds something or watching has lasted its time, giving the processor
    /// to whoever else wants it between looks.
    pub fn watch<T>(&mut self, mut look: impl FnMut() -> Option<T>) -> Option<T> {
        if let Some(found) = look() {
            return Some(found);
        }
        if self.window.is_zero() {
            return None;
        }
        let start = Instant::now();
        loop {
            thread::yield_now();
            if let Some(found) = look() {
                return Some(found);
            }
            if start.elapsed() >= self.window {
                return None;
            }
        }
    }

    /// Tells how long the sleep lasted that followed a watch in vain: short ones make the next
    /// watch longer, long ones shorter, down to none.
    pub fn slept(&mut self, time: Duration) {
        self.window = if time <= SHORT_SLEEP {
            (self.window * 2)
                .clamp(MIN_WINDOW, MAX_WINDOW)
                .min(max_window())
        } else if self.window > MIN_WINDOW {
            self.window / 2
        } else {
            Duration::ZERO
        };
    }
}

/// On one processor the peer cannot answer while this process watches.
fn max_window() -> Duration {
    static WINDOW: OnceLock<Duration> = OnceLock::new();
    *WINDOW.get_or_init(|| match thread::available_parallelism() {
        Ok(count) if count.get() == 1 => Duration::ZERO,
        _ => MAX_WINDOW,
    })
}
