//! The atomics that shared memory is made of: the processor's, or those of a model checker.

#[cfg(not(plasma_loom))]
pub use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

#[cfg(plasma_loom)]
pub use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
