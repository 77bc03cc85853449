//! Small requests and their answers, through memory instead of the socket.
//!
//! The client writes requests into its page, one behind the other, and then how many there are
//! (`tail`, release). The store reads each once into memory of its own, handles them in order, and
//! writes an answer for each into its page: the answer's number last (release). There is room for
//! as many answers as for requests, and a client has no more than that many under way.
//!
//! # Sleeping
//! | client | store |
//! |---|---|
//! | `tail` (release) | `need_wakeup` = 1 |
//! | full fence | full fence |
//! | `need_wakeup`? then write to the bell | `tail` as it was? then sleep |
//!
//! and the other way round for the client's `asleep` and the answers. One of the two always sees
//! what the other wrote, so nobody sleeps while there is something to do.

use std::sync::Arc;

use super::crash::crash_point;
use super::id_words::{id_from_words, id_to_words};
use super::memory::{Bytes, Memory, Shareable, Slice, Source};
use super::page::{AnswersHeader, PageHeader, Shape};
use super::sync::{AtomicU64, Ordering, fence};
use super::twins::unless_skipped;
use crate::ObjectId;
use crate::protocol::message::{Digest, ErrorCode, Outcome};

/// One request.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Submission {
    words: [AtomicU64; 8],
}

// SAFETY: atomics of eight bytes, eight of them in 64 bytes.
unsafe impl Shareable for Submission {}

/// One answer.
#[repr(C, align(32))]
#[derive(Debug)]
pub struct Answer {
    /// The request's number, and the outcome in the lowest byte.
    number: AtomicU64,
    words: [AtomicU64; 3],
}

// SAFETY: atomics of eight bytes, four of them in 32 bytes.
unsafe impl Shareable for Answer {}

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Op {
    /// To create an object that the client writes in place.
    Create = 1,
    /// To seal one and let go of it: the client has pinned it.
    Seal = 2,
    /// To create and seal an object with this content, and let go of it.
    CreateAndSeal = 3,
    /// The same, as one of many that are sealed together with the last.
    Batch = 4,
    /// The last of many.
    BatchEnd = 5,
    /// To delete an object.
    Delete = 6,
}

impl Op {
    fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Create,
            2 => Self::Seal,
            3 => Self::CreateAndSeal,
            4 => Self::Batch,
            5 => Self::BatchEnd,
            6 => Self::Delete,
            _ => return None,
        })
    }
}

/// A request in the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingRequest {
    /// What it asks for.
    pub op: Op,
    /// Whether other objects may be evicted to make room.
    pub evict_if_full: bool,
    /// The object.
    pub id: ObjectId,
    /// Bytes of data.
    pub data_size: u64,
    /// Bytes of metadata.
    pub metadata_size: u64,
    /// Where the content starts in the client's page: data, and behind it metadata.
    pub content: u64,
    /// The object's digest.
    pub digest: Digest,
}

impl RingRequest {
    /// A request that says no more than which object it is about.
    pub fn about(op: Op, id: ObjectId) -> Self {
        Self {
            op,
            evict_if_full: false,
            id,
            data_size: 0,
            metadata_size: 0,
            content: 0,
            digest: Digest::default(),
        }
    }

    fn to_words(self) -> [u64; 8] {
        let [first, second, last] = id_to_words(&self.id);
        [
            self.op as u64 | u64::from(self.evict_if_full) << 8 | last << 32,
            first,
            second,
            self.data_size,
            self.metadata_size,
            self.content,
            u64::from_le_bytes(self.digest),
            0,
        ]
    }

    fn from_words(words: [u64; 8]) -> Option<Self> {
        let [
            head,
            first,
            second,
            data_size,
            metadata_size,
            content,
            digest,
            _,
        ] = words;
        Some(Self {
            op: Op::from_number(head as u8)?,
            evict_if_full: head >> 8 & 1 == 1,
            id: id_from_words([first, second, head >> 32]),
            data_size,
            metadata_size,
            content,
            digest: digest.to_le_bytes(),
        })
    }

    /// Bytes of data and metadata together, if there can be so many.
    pub fn size(&self) -> Option<u64> {
        self.data_size.checked_add(self.metadata_size)
    }
}

/// Where an object lies that was created. The answer to a seal has the object's place in the index for
/// an offset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Created {
    /// The number it will have once it is sealed.
    pub uid: u64,
    /// Where its data starts in its segment, in bytes.
    pub offset: u64,
    /// Its segment.
    pub segment: i32,
    /// What the store knows it by; nothing to clients.
    pub slot: u32,
}

/// The number of requests written or read, from one side's own count: 56 bits of it go into an
/// answer.
type Count = u64;

const OUTCOME_BITS: u32 = 8;

/// Content starts at multiples of this, in bytes: a cache line.
pub(super) const CONTENT_ALIGNMENT: u64 = 64;

/// A client's ring, for the client: what is under way is known to whoever holds it.
#[derive(Debug)]
pub struct Submitter {
    header: Slice<PageHeader>,
    submissions: Slice<Submission>,
    content: Bytes,
    answers_header: Slice<AnswersHeader>,
    answers: Slice<Answer>,
    /// Requests written, and how many of them the store has been told of.
    written: Count,
    told: Count,
    /// Answers read.
    read: Count,
    /// Where each request's content ends that is under way, the oldest first.
    ends: std::collections::VecDeque<u64>,
    /// Bytes of content written and taken by the store, counted from the beginning.
    content_end: u64,
    content_start: u64,
}

impl Submitter {
    /// The ring in a client's pages; `None` where there is none.
    pub fn open(page: &Arc<Memory>, answers: &Arc<Memory>, shape: &Shape) -> Option<Self> {
        let requests = shape.requests as usize;
        if requests == 0 || !page.is_writable() {
            return None;
        }
        Some(Self {
            header: page.slice(0, 1)?,
            submissions: page.slice(shape.submissions(), requests)?,
            content: Bytes::new(page, shape.content(), shape.content_bytes as usize)?,
            answers_header: answers.slice(0, 1)?,
            answers: answers.slice(shape.answers(), requests)?,
            written: 0,
            told: 0,
            read: 0,
            ends: std::collections::VecDeque::new(),
            content_end: 0,
            content_start: 0,
        })
    }

    /// A ring of a model's, without content, as both sides see it.
    #[cfg(all(plasma_loom, test))]
    pub(super) fn model(shape: &Shape) -> (Self, Requests) {
        let word = || AtomicU64::new(0);
        let (header, ..) = PageHeader::model(1);
        let requests = shape.requests as usize;
        let submissions: Vec<_> = (0..requests)
            .map(|_| Submission {
                words: std::array::from_fn(|_| word()),
            })
            .collect();
        let answers: Vec<_> = (0..requests)
            .map(|_| Answer {
                number: word(),
                words: std::array::from_fn(|_| word()),
            })
            .collect();
        let submissions = Slice::model(submissions);
        let answers = Slice::model(answers);
        let answers_header = AnswersHeader::model();
        let client = Self {
            header: header.clone(),
            submissions: submissions.clone(),
            content: Bytes::none(),
            answers_header: answers_header.clone(),
            answers: answers.clone(),
            written: 0,
            told: 0,
            read: 0,
            ends: std::collections::VecDeque::new(),
            content_end: 0,
            content_start: 0,
        };
        let store = Requests {
            header,
            submissions,
            content: Bytes::none(),
            answers_header,
            answers,
            read: 0,
            answered: 0,
        };
        (client, store)
    }

    /// Whether some request has not been answered.
    pub fn is_waiting(&self) -> bool {
        self.read < self.written
    }

    /// Writes a request with its content; `None` where there is no room until something under way is
    /// answered. The store learns of it with [`tell`](Self::tell).
    pub fn push(&mut self, mut request: RingRequest, content: [&[u8]; 2]) -> Option<()> {
        let len: usize = content.iter().map(|part| part.len()).sum();
        let capacity = self.content.len() as u64;
        if self.written - self.read >= self.submissions.len() as u64 {
            return None;
        }
        if len > 0 {
            if !self.is_waiting() {
                // Nothing is under way: the same bytes again, which are still in the cache.
                self.content_end = 0;
                self.content_start = 0;
            }
            // Content is in one piece: what is left at the end is skipped where it does not fit.
            let at = self.content_end % capacity.max(1);
            let skipped = if at + len as u64 > capacity {
                capacity - at
            } else {
                0
            };
            let start = self.content_end + skipped;
            let end = (start + len as u64).next_multiple_of(CONTENT_ALIGNMENT);
            if end - self.content_start > capacity {
                return None;
            }
            let mut place = usize::try_from(start % capacity).ok()?;
            request.content = place as u64;
            for part in content {
                if !self.content.write(place, part) {
                    return None;
                }
                place += part.len();
            }
            crash_point!();
            self.content_end = end;
        }
        let at = self.written % self.submissions.len() as u64;
        let submission = self.submissions.get(usize::try_from(at).ok()?)?;
        for (place, word) in submission.words.iter().zip(request.to_words()) {
            place.store(word, Ordering::Relaxed);
        }
        crash_point!();
        self.ends.push_back(self.content_end);
        self.written += 1;
        Some(())
    }

    /// Tells the store of the requests written; whether it has to be woken.
    pub fn tell(&mut self) -> bool {
        let Some(header) = self.header.first() else {
            return false;
        };
        self.told = self.written;
        header.tail.store(self.written, Ordering::Release);
        crash_point!();
        unless_skipped!(TellFence, fence(Ordering::SeqCst));
        let answers = self.answers_header.first();
        answers.is_some_and(|answers| answers.need_wakeup.load(Ordering::Relaxed) != 0)
    }

    /// The next answer, if it is there: the outcome, and where the object lies if it was created.
    ///
    /// # Errors
    /// It is no answer.
    pub fn next_answer(&mut self) -> Result<Option<(Outcome, Created)>, NoAnswer> {
        let Some(answer) = self.next() else {
            return Ok(None);
        };
        let number = answer.number.load(Ordering::Acquire);
        if number >> OUTCOME_BITS != (self.read + 1) & (u64::MAX >> OUTCOME_BITS) {
            return Ok(None);
        }
        let [uid, offset, segment_and_slot] =
            answer.words.each_ref().map(|w| w.load(Ordering::Relaxed));
        let outcome = match number as u8 {
            0 => Ok(()),
            code => Err(ErrorCode::from_number(i32::from(code)).ok_or(NoAnswer)?),
        };
        self.read += 1;
        if let Some(end) = self.ends.pop_front() {
            self.content_start = end;
        }
        let created = Created {
            uid,
            offset,
            segment: (segment_and_slot as u32).cast_signed(),
            slot: (segment_and_slot >> 32) as u32,
        };
        Ok(Some((outcome, created)))
    }

    fn next(&self) -> Option<&Answer> {
        if !self.is_waiting() {
            return None;
        }
        let at = self.read % self.answers.len() as u64;
        self.answers.get(usize::try_from(at).ok()?)
    }

    /// Whether the next answer is there.
    pub fn is_answered(&self) -> bool {
        self.next().is_some_and(|answer| {
            let number = answer.number.load(Ordering::Acquire);
            number >> OUTCOME_BITS == (self.read + 1) & (u64::MAX >> OUTCOME_BITS)
        })
    }

    /// Says that this client is about to sleep until it is woken. It may only if this is true: no
    /// answer has come meanwhile.
    pub fn may_sleep(&self) -> bool {
        if let Some(header) = self.header.first() {
            header.asleep.store(1, Ordering::Relaxed);
            crash_point!();
        }
        unless_skipped!(SleepFence, fence(Ordering::SeqCst));
        !self.is_answered()
    }

    /// Says that this client is awake.
    pub fn awake(&self) {
        if let Some(header) = self.header.first() {
            header.asleep.store(0, Ordering::Relaxed);
            crash_point!();
        }
    }
}

/// An answer that no store gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an outcome that there is not")]
pub struct NoAnswer;

/// A client's ring, for the store. All that is read here is what a client wrote.
#[derive(Debug)]
pub struct Requests {
    header: Slice<PageHeader>,
    submissions: Slice<Submission>,
    content: Bytes,
    answers_header: Slice<AnswersHeader>,
    answers: Slice<Answer>,
    read: Count,
    answered: Count,
}

/// What a client wrote is no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what is in its ring is no request")]
pub struct MalformedRequest;

impl Requests {
    /// The ring in a client's pages; `None` where there is none.
    pub fn open(page: &Arc<Memory>, answers: &Arc<Memory>, shape: &Shape) -> Option<Self> {
        let requests = shape.requests as usize;
        if requests == 0 || !answers.is_writable() {
            return None;
        }
        Some(Self {
            header: page.slice(0, 1)?,
            submissions: page.slice(shape.submissions(), requests)?,
            content: Bytes::new(page, shape.content(), shape.content_bytes as usize)?,
            answers_header: answers.slice(0, 1)?,
            answers: answers.slice(shape.answers(), requests)?,
            read: 0,
            answered: 0,
        })
    }

    /// How many requests are there that were not taken.
    ///
    /// # Errors
    /// The client says that there are more than there is room for.
    pub fn waiting(&self) -> Result<u64, MalformedRequest> {
        let tail = self
            .header
            .first()
            .map_or(0, |header| header.tail.load(Ordering::Acquire));
        let waiting = tail.wrapping_sub(self.read);
        if waiting > self.submissions.len() as u64 {
            return Err(MalformedRequest);
        }
        Ok(waiting)
    }

    /// Takes the next request, which [`waiting`](Self::waiting) has told of.
    ///
    /// # Errors
    /// It is none.
    pub fn take(&mut self) -> Result<RingRequest, MalformedRequest> {
        let at = self.read % self.submissions.len() as u64;
        let at = usize::try_from(at).map_err(|_| MalformedRequest)?;
        let submission = self.submissions.get(at).ok_or(MalformedRequest)?;
        let words = submission.words.each_ref();
        let words = words.map(|word| word.load(Ordering::Relaxed));
        self.read += 1;
        RingRequest::from_words(words).ok_or(MalformedRequest)
    }

    /// The content of a request.
    ///
    /// # Errors
    /// It is not in the page.
    pub fn content(&self, request: &RingRequest) -> Result<Source<'_>, MalformedRequest> {
        let len = request.size().ok_or(MalformedRequest)?;
        let content = self.content.source(request.content, len);
        content.ok_or(MalformedRequest)
    }

    /// Answers the oldest request that was not answered.
    pub fn answer(&mut self, outcome: Outcome, created: Created) {
        let at = self.answered % self.answers.len() as u64;
        self.answered += 1;
        let answer = usize::try_from(at).ok().and_then(|at| self.answers.get(at));
        let Some(answer) = answer else {
            return;
        };
        let Created {
            uid,
            offset,
            segment,
            slot,
        } = created;
        let segment_and_slot = u64::from(segment.cast_unsigned()) | u64::from(slot) << 32;
        let words = [uid, offset, segment_and_slot];
        for (place, word) in answer.words.iter().zip(words) {
            place.store(word, Ordering::Relaxed);
        }
        crash_point!();
        let code = outcome.err().map_or(0, |code| code as u64);
        let number = self.answered << OUTCOME_BITS | code;
        answer.number.store(number, Ordering::Release);
        crash_point!();
    }

    /// Whether the client has to be woken for the answers written so far.
    pub fn client_sleeps(&self) -> bool {
        unless_skipped!(AnswerFence, fence(Ordering::SeqCst));
        let header = self.header.first();
        header.is_some_and(|header| header.asleep.load(Ordering::Relaxed) != 0)
    }

    /// Says that the store is about to stop looking. It may only if this is true: no request has
    /// come meanwhile.
    pub fn may_sleep(&self) -> bool {
        self.need_wakeup(true);
        unless_skipped!(RestFence, fence(Ordering::SeqCst));
        self.waiting() == Ok(0)
    }

    /// Says whether the store has to be woken for requests.
    pub fn need_wakeup(&self, need: bool) {
        if let Some(header) = self.answers_header.first() {
            header.need_wakeup.store(u64::from(need), Ordering::Relaxed);
            crash_point!();
        }
    }
}
