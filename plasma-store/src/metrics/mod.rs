//! What the store counts and measures.
//!
//! The store's thread alone writes here, plainly and without ever waiting; whoever wants to know
//! reads at any time. Each number is right by itself; two of them may be of different moments.

#[cfg(feature = "metrics")]
mod exporter;
#[cfg(feature = "metrics")]
mod renewal;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use plasma_core::protocol::frame::MessageType;

#[cfg(feature = "metrics")]
pub(crate) use exporter::Exporter;
#[cfg(feature = "metrics")]
pub(crate) use renewal::Renewal;

/// An enum whose variants are the values of a label.
macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $label:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum $name {
            $($variant),+
        }

        impl $name {
            /// The label of each, in this order.
            pub(crate) const LABELS: &[&str] = &[$($label),+];
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

/// A number that one thread writes and others read.
#[derive(Debug, Default)]
pub(crate) struct Number(AtomicU64);

impl Number {
    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub(crate) fn add_one(&self) {
        self.add(1);
    }

    fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    #[cfg(feature = "metrics")]
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
    classes: [Number; TIME_BOUNDS_US.len() + 1],
    total_ns: Number,
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
    /// How they ask for numbers of now.
    #[cfg(feature = "metrics")]
    pub(crate) renewal: Option<Renewal>,
    pub(crate) capacity_bytes: Number,
    pub(crate) used_bytes: Number,
    pub(crate) largest_free_bytes: Number,
    pub(crate) pinned_bytes: Number,
    pub(crate) objects: Number,
    pub(crate) unsealed_objects: Number,
    pub(crate) evictions: Number,
    pub(crate) evicted_bytes: Number,
    pub(crate) hits: Number,
    pub(crate) misses: Number,
    pub(crate) refused_creates: Number,
    pub(crate) ignored_requests: Number,
    pub(crate) clients: Number,
    pub(crate) cut_off_clients: Number,
    pub(crate) subscriptions: Number,
    pub(crate) accepted: Number,
    /// By reason.
    refused: [Number; Refused::LABELS.len()],
    /// By reason.
    cut_off: [Number; CutOff::LABELS.len()],
    pub(crate) refused_subscriptions: Number,
    pub(crate) dropped_subscriptions: Number,
    /// By message type.
    requests: [Times; MESSAGE_TYPES],
}

impl Stats {
    pub(crate) fn new(watched: bool) -> Self {
        Self {
            watched,
            #[cfg(feature = "metrics")]
            renewal: None,
            capacity_bytes: Number::default(),
            used_bytes: Number::default(),
            largest_free_bytes: Number::default(),
            pinned_bytes: Number::default(),
            objects: Number::default(),
            unsealed_objects: Number::default(),
            evictions: Number::default(),
            evicted_bytes: Number::default(),
            hits: Number::default(),
            misses: Number::default(),
            refused_creates: Number::default(),
            ignored_requests: Number::default(),
            clients: Number::default(),
            cut_off_clients: Number::default(),
            subscriptions: Number::default(),
            accepted: Number::default(),
            refused: Default::default(),
            cut_off: Default::default(),
            refused_subscriptions: Number::default(),
            dropped_subscriptions: Number::default(),
            requests: std::array::from_fn(|_| Times::default()),
        }
    }

    /// Whether somebody is to read this.
    pub(crate) fn watched(&self) -> bool {
        self.watched
    }

    /// A connection was refused.
    pub(crate) fn refused(&self, reason: Refused) {
        if let Some(count) = self.refused.get(reason as usize) {
            count.add_one();
        }
    }

    /// A client was cut off.
    pub(crate) fn cut_off(&self, reason: CutOff) {
        if let Some(count) = self.cut_off.get(reason as usize) {
            count.add_one();
        }
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

#[cfg(all(test, feature = "metrics"))]
mod tests {
    use super::*;

    #[test]
    fn times_are_sorted_by_bounds_that_belong_to_the_lower_class() {
        let times = Times::default();
        let ns = [0, 999, 1000, 1001, 2000, 1_000_000_000, 1_000_000_001];
        for ns in ns {
            times.add(Duration::from_nanos(ns));
        }
        times.add(Duration::MAX);
        let counts = times.classes.each_ref().map(Number::get);
        assert_eq!(counts[..3], [3, 2, 0]);
        assert_eq!(counts[TIME_BOUNDS_US.len() - 1..], [1, 2]);
        assert_eq!(counts.iter().sum::<u64>(), 8);
    }

    #[test]
    fn times_are_taken_only_for_somebody() {
        assert!(Stats::new(false).begin().is_none());
        let stats = Stats::new(true);
        stats.handled(MessageType::RefreshLruReply, stats.begin());
        let last = stats.requests.last().expect("one for each type");
        assert_eq!(last.classes.iter().map(Number::get).sum::<u64>(), 1);
    }
}
