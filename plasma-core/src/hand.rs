//! What a thread remembers from one get to the next.

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::shm::page::LANES;
use crate::shm::pins::Hint;

/// Pins that a thread starts apart from the next: a cache line's worth.
const PINS_APART: u32 = 8;

thread_local! {
    static HINT: Cell<Hint> = const { Cell::new(NEW) };
}

const NEW: Hint = Hint {
    slot: 0,
    lane: u32::MAX,
    used: 0,
};

/// Lets `each` use and change this thread's hint.
#[inline]
pub(crate) fn with_hint<T>(each: impl FnOnce(&mut Hint) -> T) -> T {
    // Where a thread is ending, any hint will do.
    let mut hint = HINT.try_with(Cell::get).unwrap_or(Hint { lane: 0, ..NEW });
    if hint.lane == u32::MAX {
        hint = first_hint();
    }
    let done = each(&mut hint);
    let _ = HINT.try_with(|cell| cell.set(hint));
    done
}

#[cold]
fn first_hint() -> Hint {
    static THREADS: AtomicU32 = AtomicU32::new(0);
    let number = THREADS.fetch_add(1, Ordering::Relaxed);
    let lane = number % LANES as u32;
    Hint {
        slot: lane * PINS_APART,
        lane,
        used: 0,
    }
}
