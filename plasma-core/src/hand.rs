//! What a thread remembers from one get to the next.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::shm::page::LANES;
use crate::shm::pins::Hint;

/// Pins that a thread starts apart from the next: two cache lines' worth.
const PINS_APART: u32 = 8;

thread_local! {
    // Nothing of it has to be dropped, so it is there for as long as its thread.
    static HINT: Hint = const { Hint::new(0, NO_LANE) };
}

/// A thread's lane before it has one.
const NO_LANE: u32 = u32::MAX;

/// Lets `each` use and change this thread's hint.
#[inline(always)]
pub(crate) fn with_hint<T>(each: impl FnOnce(&Hint) -> T) -> T {
    HINT.with(|hint| {
        if hint.lane.get() == NO_LANE {
            begin(hint);
        }
        each(hint)
    })
}

#[cold]
fn begin(hint: &Hint) {
    static THREADS: AtomicU32 = AtomicU32::new(0);
    let number = THREADS.fetch_add(1, Ordering::Relaxed);
    let lane = number % LANES as u32;
    hint.slot.set(lane * PINS_APART);
    hint.lane.set(lane);
}
