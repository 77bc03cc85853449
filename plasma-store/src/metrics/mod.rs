//! What the store counts and measures.
//!
//! The store's thread alone writes here, plainly and without ever waiting; whoever wants to know
//! reads at any time. Each number is right by itself; two of them may be of different moments.

#[cfg(feature = "metrics")]
mod exporter;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use plasma_core::protocol::frame::MessageType;

#[cfg(feature = "metrics")]
pub(crate) use exporter::Exporter;

/// An enum whose variants are the values of a label.
macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $label:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum $name {
            $($variant),+
        }

        impl $name {
            /// All there are, each with its label.
            pub(crate) const ALL: &[(Self, &str)] = &[$((Self::$variant, $label)),+];
        }
    };
}

labels! {
    /// Why connections are refused.
    Refused {
        NotAllowed = "not_allowed",
        TooManyClients = "max_clients",
        Failed = "failed",
    }
}

labels! {
    /// Why clients are cut off.
    CutOff {
        Malformed = "malformed",
        RequestBytes = "max_request_bytes",
        Ids = "max_ids",
        WaitingIds = "max_waiting_ids",
        UnfinishedBytes = "max_unfinished_bytes",
        UnreadBytes = "max_unread_bytes",
        Stalled = "stall_timeout",
        Failed = "failed",
    }
}

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add_one(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that comes from elsewhere.
#[derive(Debug, Default)]
pub(crate) struct Level(AtomicU64);

impl Level {
    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Upper bounds of the classes that times are sorted into, in microseconds: the fastest request
/// takes some, the slowest is one that carries all the content a message can.
const TIME_BOUNDS_US: [u64; 19] = [
    1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000,
    200_000, 500_000, 1_000_000,
];

/// How long something took, how often.
#[derive(Debug, Default)]
pub(crate) struct Times {
    /// One for each bound, and one for what takes longer than any.
    classes: [Count; TIME_BOUNDS_US.len() + 1],
    total_ns: Count,
}

impl Times {
    fn add(&self, time: Duration) {
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let class = TIME_BOUNDS_US.partition_point(|bound_us| bound_us * 1000 < ns);
        if let Some(count) = self.classes.get(class) {
            count.add_one();
        }
        self.total_ns.add(ns);
    }
}

/// Message types are numbered from 0 to 35.
const MESSAGE_TYPES: usize = 36;

/// All that the store counts and measures.
#[derive(Debug)]
pub(crate) struct Stats {
    /// Somebody is to read this: only then are times taken.
    watched: bool,
    pub(crate) capacity_bytes: Level,
    pub(crate) used_bytes: Level,
    pub(crate) largest_free_bytes: Level,
    pub(crate) pinned_bytes: Level,
    pub(crate) objects: Level,
    pub(crate) unsealed_objects: Level,
    pub(crate) evictions: Level,
    pub(crate) evicted_bytes: Level,
    pub(crate) hits: Level,
    pub(crate) misses: Level,
    pub(crate) refused_creates: Level,
    pub(crate) ignored_requests: Level,
    pub(crate) clients: Level,
    pub(crate) cut_off_clients: Level,
    pub(crate) subscriptions: Level,
    pub(crate) accepted: Count,
    refused: [Count; Refused::ALL.len()],
    cut_off: [Count; CutOff::ALL.len()],
    pub(crate) refused_subscriptions: Count,
    pub(crate) dropped_subscriptions: Count,
    /// By message type.
    requests: [Times; MESSAGE_TYPES],
}

impl Stats {
    pub(crate) fn new(watched: bool) -> Self {
        Self {
            watched,
            capacity_bytes: Level::default(),
            used_bytes: Level::default(),
            largest_free_bytes: Level::default(),
            pinned_bytes: Level::default(),
            objects: Level::default(),
            unsealed_objects: Level::default(),
            evictions: Level::default(),
            evicted_bytes: Level::default(),
            hits: Level::default(),
            misses: Level::default(),
            refused_creates: Level::default(),
            ignored_requests: Level::default(),
            clients: Level::default(),
            cut_off_clients: Level::default(),
            subscriptions: Level::default(),
            accepted: Count::default(),
            refused: Default::default(),
            cut_off: Default::default(),
            refused_subscriptions: Count::default(),
            dropped_subscriptions: Count::default(),
            requests: std::array::from_fn(|_| Times::default()),
        }
    }

    /// Whether somebody is to read this.
    pub(crate) fn watched(&self) -> bool {
        self.watched
    }

    pub(crate) fn refused(&self, reason: Refused) -> &Count {
        &self.refused[reason as usize]
    }

    pub(crate) fn cut_off(&self, reason: CutOff) -> &Count {
        &self.cut_off[reason as usize]
    }

    /// A request begins to be handled.
    pub(crate) fn begin(&self) -> Option<Instant> {
        self.watched.then(Instant::now)
    }

    /// A request has been handled that began then.
    pub(crate) fn handled(&self, kind: MessageType, begun: Option<Instant>) {
        if let (Some(begun), Some(times)) = (begun, self.requests.get(kind as usize)) {
            times.add(begun.elapsed());
        }
    }
}
