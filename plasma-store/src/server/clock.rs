//! What time it is for the store. A look at the clock takes as long as a good part of what is asked
//! for in shared memory, so there is one for all that is handled together.

use std::cell::Cell;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::state::Now;

/// How old the date may be that objects are marked with; they tell it in seconds.
const DATE_AGE: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) struct Clock {
    start: Instant,
    last: Cell<Now>,
    /// When the date was read.
    dated: Cell<Duration>,
}

impl Clock {
    pub(super) fn new() -> Self {
        Self {
            start: Instant::now(),
            last: Cell::new(Now {
                elapsed: Duration::ZERO,
                unix_s: date(),
            }),
            dated: Cell::new(Duration::ZERO),
        }
    }

    /// What time it is.
    pub(super) fn now(&self) -> Now {
        let elapsed = self.start.elapsed();
        let mut unix_s = self.last.get().unix_s;
        if elapsed - self.dated.get() > DATE_AGE {
            unix_s = date();
            self.dated.set(elapsed);
        }
        let now = Now { elapsed, unix_s };
        self.last.set(now);
        now
    }

    /// What time it was when it was asked for last.
    pub(super) fn last(&self) -> Now {
        self.last.get()
    }

    /// How long it is until then; none if it is past.
    pub(super) fn until(&self, elapsed: Duration) -> Duration {
        elapsed.saturating_sub(self.start.elapsed())
    }
}

fn date() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |time| time.as_secs() as i64)
}
