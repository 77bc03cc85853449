//! How long it pays to look again before going to sleep.
//!
//! This is no interface to build on: client and store share it.

use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

/// The longest a client looks again and again for what the store is about to send.
///
/// Waking a sleeping process costs some 5 to 50 µs; an answer that comes sooner than that is
/// cheaper to watch for. Past it the processor is worth more to somebody else.
const MAX_WINDOW: Duration = Duration::from_micros(100);

/// The shortest window that is worth starting with again once waits get short.
const MIN_WINDOW: Duration = Duration::from_micros(20);

/// What of a sleep is the waking, at most: an answer came so much sooner than it was heard of.
const WAKING: Duration = Duration::from_micros(20);

/// Who gives the processor away for this long has given it to somebody who had work to do. The
/// kernel lets that go on for milliseconds, in which the answer may have come long ago.
const CROWD: Duration = Duration::from_micros(50);

/// After that so many waits go straight to sleep: more each time, where it happens again soon.
const MIN_SKIP: u32 = 16;
const MAX_SKIP: u32 = 4096;

/// How often to look at memory before the processor is offered to anybody else, at least and at most.
/// A look takes some 20 ns, and a store that is awake answers within one or two microseconds.
const MIN_LOOKS: u32 = 16;
const MAX_LOOKS: u32 = 256;

/// Who is back sooner than this after offering the processor is alone with it.
const ALONE: Duration = Duration::from_micros(2);

/// An adaptive spin: it watches as long as watching has paid off lately, and not at all when waits
/// are long, so that an idle process uses no processor time.
#[derive(Clone, Copy, Debug)]
pub struct Spin {
    window: Duration,
    /// The longest it ever looks.
    longest: Duration,
    /// How long it looked last, before it gave up.
    watched: Duration,
    /// Waits that are still to go straight to sleep, and how many the next crowd costs.
    skip: u32,
    next_skip: u32,
    /// Looks at memory before the processor is offered to others.
    looks: u32,
}

impl Default for Spin {
    fn default() -> Self {
        Self::new()
    }
}

impl Spin {
    /// A spin that starts hopeful.
    pub fn new() -> Self {
        Self::up_to(MAX_WINDOW)
    }

    /// The same, for a watch of at most `longest`; of none where there is but one processor.
    pub fn up_to(longest: Duration) -> Self {
        let longest = if is_alone() { Duration::ZERO } else { longest };
        Self {
            window: longest,
            longest,
            watched: Duration::ZERO,
            skip: 0,
            next_skip: MIN_SKIP,
            looks: MIN_LOOKS,
        }
    }

    /// The same as [`watch`](Self::watch), for a look that only reads memory: it is repeated at once
    /// for a while, longer where nobody else has a use for the processor meanwhile.
    pub fn watch_memory<T>(&mut self, mut look: impl FnMut() -> Option<T>) -> Option<T> {
        for _ in 0..self.looks {
            if let Some(found) = look() {
                return Some(found);
            }
            std::hint::spin_loop();
        }
        if self.skip > 0 || self.window.is_zero() {
            return self.watch(look);
        }
        let start = Instant::now();
        thread::yield_now();
        let away = start.elapsed();
        self.looks = if away < ALONE {
            (self.looks * 2).min(MAX_LOOKS)
        } else {
            (self.looks / 2).max(MIN_LOOKS)
        };
        if away >= CROWD {
            self.met_a_crowd();
        }
        self.watch(look)
    }

    /// Who gives way in a crowd comes last; whoever sleeps is woken first.
    fn met_a_crowd(&mut self) {
        self.skip = self.next_skip;
        self.next_skip = (self.next_skip * 2).min(MAX_SKIP);
    }

    /// Looks until `look` finds something or watching has lasted its time, giving the processor
    /// to whoever else wants it between looks.
    pub fn watch<T>(&mut self, mut look: impl FnMut() -> Option<T>) -> Option<T> {
        if let Some(found) = look() {
            return Some(found);
        }
        self.watched = Duration::ZERO;
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        if self.window.is_zero() {
            return None;
        }
        let start = Instant::now();
        let mut before = Duration::ZERO;
        loop {
            thread::yield_now();
            let found = look();
            let now = start.elapsed();
            if now - before >= CROWD {
                self.met_a_crowd();
            } else if found.is_some() && self.next_skip > MIN_SKIP {
                self.next_skip -= 1;
            }
            if found.is_some() || now >= self.window {
                self.watched = now;
                return found;
            }
            before = now;
        }
    }

    /// Tells how long the sleep lasted that followed the last watch. If the longest watch would have
    /// saved it the next one is longer; otherwise shorter, down to none.
    pub fn slept(&mut self, time: Duration) {
        let whole = self.watched.saturating_add(time);
        self.window = if whole <= self.longest.saturating_add(WAKING) {
            let longer = self.window.saturating_mul(2).max(MIN_WINDOW);
            longer.min(self.longest)
        } else if self.window > MIN_WINDOW {
            self.window / 2
        } else {
            Duration::ZERO
        };
    }
}

/// Whether there is one processor: there a peer cannot answer while this process watches.
fn is_alone() -> bool {
    static IS_ALONE: OnceLock<bool> = OnceLock::new();
    *IS_ALONE
        .get_or_init(|| matches!(thread::available_parallelism(), Ok(count) if count.get() == 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: Duration = Duration::from_micros(50);

    fn hopeful() -> Spin {
        Spin {
            window: LONGEST,
            longest: LONGEST,
            ..Spin::new()
        }
    }

    #[test]
    fn a_watch_that_cannot_be_long_enough_is_given_up() {
        let mut spin = hopeful();
        for _ in 0..3 {
            spin.slept(LONGEST * 3);
        }
        assert_eq!(spin.window, Duration::ZERO);
    }

    #[test]
    fn a_watch_that_would_have_paid_off_becomes_as_long_as_it_may() {
        let mut spin = hopeful();
        spin.window = Duration::ZERO;
        for _ in 0..3 {
            spin.watched = spin.window;
            spin.slept(LONGEST - spin.window + WAKING / 2);
        }
        assert_eq!(spin.window, LONGEST);
    }

    #[test]
    fn a_sleep_without_a_watch_counts_by_itself() {
        let mut spin = hopeful();
        spin.skip = 1;
        assert_eq!(spin.watch(|| None::<()>), None);
        spin.slept(LONGEST);
        assert_eq!(spin.window, LONGEST);
    }

    #[test]
    fn it_may_be_told_to_look_for_ever() {
        let mut spin = Spin {
            window: Duration::MAX,
            longest: Duration::MAX,
            ..Spin::new()
        };
        spin.watched = Duration::MAX;
        spin.slept(Duration::MAX);
        assert_eq!(spin.window, Duration::MAX);
    }
}
