//! How a client's own pages are laid out: one that the client writes, one that the store writes for
//! it.
//!
//! | client's page, from | what |
//! |---|---|
//! | 0 | [`PageHeader`] |
//! | 256 | [`LANES`] times [`Lane`]: what was used |
//! | then | [`Refreshes`]: what is to count as used |
//! | then | pins: [`PinSlot`] |
//! | then | requests, 64 bytes each |
//! | then | their content |
//!
//! | store's page, from | what |
//! |---|---|
//! | 0 | [`AnswersHeader`] |
//! | 64 | answers, 32 bytes each |

use std::sync::Arc;

use super::memory::{Memory, Shareable, Slice};
use super::ring::{Answer, CONTENT_ALIGNMENT, Submission};
use super::sync::AtomicU64;

/// Threads of one client that note what they use without getting into each other's way.
#[cfg(not(all(plasma_loom, test)))]
pub const LANES: usize = 8;

/// The same in models.
#[cfg(all(plasma_loom, test))]
pub const LANES: usize = 1;

/// Uses that are kept for the store, of each lane.
#[cfg(not(all(plasma_loom, test)))]
pub const TOUCHES: usize = 256;

/// The same in models.
#[cfg(all(plasma_loom, test))]
pub const TOUCHES: usize = 1;

/// What a client says to the store, each in a cache line of its own.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct PageHeader {
    /// Pins from this one on were never used.
    pub(super) pins_in_use: AtomicU64,
    /// How often something was let go of that the store wants.
    pub(super) released: AtomicU64,
    _unused: [AtomicU64; 6],
    /// Requests written so far.
    pub(super) tail: AtomicU64,
    _unused_too: [AtomicU64; 7],
    /// Whether the client sleeps until it is woken.
    pub(super) asleep: AtomicU64,
    _unused_neither: [AtomicU64; 15],
}

// SAFETY: atomics of eight bytes, 32 of them in 256 bytes.
unsafe impl Shareable for PageHeader {}

/// What some threads of a client have used.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Lane {
    /// Uses noted so far.
    pub(super) touched: AtomicU64,
    pub(super) hits: AtomicU64,
    pub(super) misses: AtomicU64,
    _unused: [AtomicU64; 5],
    pub(super) touches: [AtomicU64; TOUCHES],
}

// SAFETY: atomics of eight bytes, without a gap: 64 bytes and eight for each use.
unsafe impl Shareable for Lane {}

/// Refreshes that may be under way.
#[cfg(not(all(plasma_loom, test)))]
pub const REFRESHES: usize = 256;

/// The same in models.
#[cfg(all(plasma_loom, test))]
pub const REFRESHES: usize = 1;

/// What a client wants to count as just used. The store answers how much of it it has seen, and until
/// then nothing is written over it.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Refreshes {
    /// How many were written so far.
    pub(super) written: AtomicU64,
    _unused: [AtomicU64; 7],
    pub(super) objects: [AtomicU64; REFRESHES],
}

// SAFETY: atomics of eight bytes, without a gap: 64 bytes and eight for each.
unsafe impl Shareable for Refreshes {}

/// What a client holds, a pin each.
#[repr(C, align(16))]
#[derive(Debug)]
pub struct PinSlot {
    /// The object's uid; 0 is none.
    pub(super) uid: AtomicU64,
    /// What the store knows it by, as the client was told. The store takes nobody's word for it.
    pub(super) slot: AtomicU64,
}

// SAFETY: atomics of eight bytes, two of them in 16 bytes.
unsafe impl Shareable for PinSlot {}

/// What the store says to a client.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct AnswersHeader {
    /// Whether the store is to be woken for requests in the ring.
    pub(super) need_wakeup: AtomicU64,
    /// Refreshes that were seen.
    pub(super) refreshed: AtomicU64,
    _unused: [AtomicU64; 6],
}

// SAFETY: atomics of eight bytes, eight of them in 64 bytes.
unsafe impl Shareable for AnswersHeader {}

#[cfg(all(plasma_loom, test))]
impl PageHeader {
    /// A page of a model's, with so many pins.
    pub(super) fn model(pins: usize) -> (Slice<Self>, PinMemory) {
        let word = || AtomicU64::new(0);
        let header = Self {
            pins_in_use: word(),
            released: word(),
            _unused: std::array::from_fn(|_| word()),
            tail: word(),
            _unused_too: std::array::from_fn(|_| word()),
            asleep: word(),
            _unused_neither: std::array::from_fn(|_| word()),
        };
        let lanes: Vec<_> = (0..LANES)
            .map(|_| Lane {
                touched: word(),
                hits: word(),
                misses: word(),
                _unused: std::array::from_fn(|_| word()),
                touches: std::array::from_fn(|_| word()),
            })
            .collect();
        let slots: Vec<_> = (0..pins)
            .map(|_| PinSlot {
                uid: word(),
                slot: word(),
            })
            .collect();
        let refreshes = Refreshes {
            written: word(),
            _unused: std::array::from_fn(|_| word()),
            objects: std::array::from_fn(|_| word()),
        };
        let header = Slice::model(vec![header]);
        let memory = PinMemory {
            header: header.clone(),
            lanes: Slice::model(lanes),
            refreshes: Slice::model(vec![refreshes]),
            slots: Slice::model(slots),
            answers_header: AnswersHeader::model(),
        };
        (header, memory)
    }
}

#[cfg(all(plasma_loom, test))]
impl AnswersHeader {
    pub(super) fn model() -> Slice<Self> {
        Slice::model(vec![Self {
            need_wakeup: AtomicU64::new(0),
            refreshed: AtomicU64::new(0),
            _unused: std::array::from_fn(|_| AtomicU64::new(0)),
        }])
    }
}

/// The parts of both pages that are about what the client holds and uses.
#[derive(Clone, Debug)]
pub struct PinMemory {
    pub(super) header: Slice<PageHeader>,
    pub(super) lanes: Slice<Lane>,
    pub(super) refreshes: Slice<Refreshes>,
    pub(super) slots: Slice<PinSlot>,
    pub(super) answers_header: Slice<AnswersHeader>,
}

impl PinMemory {
    /// The client's view of them: it writes its own page.
    pub fn of_client(page: &Arc<Memory>, answers: &Arc<Memory>, shape: &Shape) -> Option<Self> {
        page.is_writable()
            .then(|| Self::find(page, answers, shape))?
    }

    /// The store's view of them: it writes what it answers.
    pub fn of_store(page: &Arc<Memory>, answers: &Arc<Memory>, shape: &Shape) -> Option<Self> {
        let writable = answers.is_writable();
        writable.then(|| Self::find(page, answers, shape))?
    }

    fn find(page: &Arc<Memory>, answers: &Arc<Memory>, shape: &Shape) -> Option<Self> {
        Some(Self {
            header: page.slice(0, 1)?,
            lanes: page.slice(shape.lanes(), LANES)?,
            refreshes: page.slice(shape.refreshes(), 1)?,
            slots: page.slice(shape.slots(), shape.pins as usize)?,
            answers_header: answers.slice(0, 1)?,
        })
    }
}

/// How large the parts of a client's pages are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// Objects a client can hold without the store's counting them.
    pub pins: u32,
    /// Requests that can be under way in the ring, a power of two; 0 is no ring.
    pub requests: u32,
    /// Bytes of content that can be under way, a multiple of 64.
    pub content_bytes: u32,
}

impl Shape {
    /// The largest parts that either side accepts.
    pub const MAX: Self = Self {
        pins: 1 << 20,
        requests: 1 << 16,
        content_bytes: 1 << 30,
    };

    /// Whether there can be pages of this shape.
    pub fn is_valid(&self) -> bool {
        let Self {
            pins,
            requests,
            content_bytes,
        } = Self::MAX;
        (1..=pins).contains(&self.pins)
            && self.requests <= requests
            && (self.requests == 0 || self.requests.is_power_of_two())
            && self.content_bytes <= content_bytes
            && u64::from(self.content_bytes).is_multiple_of(CONTENT_ALIGNMENT)
    }

    pub(super) fn lanes(&self) -> usize {
        size_of::<PageHeader>()
    }

    pub(super) fn refreshes(&self) -> usize {
        self.lanes() + LANES * size_of::<Lane>()
    }

    pub(super) fn slots(&self) -> usize {
        self.refreshes() + size_of::<Refreshes>()
    }

    pub(super) fn submissions(&self) -> usize {
        (self.slots() + self.pins as usize * size_of::<PinSlot>()).next_multiple_of(64)
    }

    pub(super) fn content(&self) -> usize {
        let end = self.submissions() + self.requests as usize * size_of::<Submission>();
        end.next_multiple_of(4096)
    }

    /// Bytes of the client's page. Only those that are used have memory behind them.
    pub fn page_len(&self) -> usize {
        self.content() + self.content_bytes as usize
    }

    pub(super) fn answers(&self) -> usize {
        size_of::<AnswersHeader>()
    }

    /// Bytes of the store's page.
    pub fn answers_len(&self) -> usize {
        self.answers() + self.requests as usize * size_of::<Answer>()
    }
}
