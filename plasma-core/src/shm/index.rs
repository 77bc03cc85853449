//! What is sealed and where it lies, for every client to read: written by the store alone.
//!
//! # Format
//! A header, then entries of one cache line each. An entry is an object's uid, its id and its place.
//! A keyed hash of an object's id names an entry, its *home*; it is in the first of the [`WINDOW`]
//! entries from there on that was free when it was listed. Each entry says as well how far the
//! objects reach whose home it is, so a reader looks no further; most are at home. Where no entry of
//! the window is free an object is listed nowhere, and counted in the header: readers then ask the
//! store for whatever they do not find. So what the index says is never wrong; it may only be
//! incomplete.
//!
//! # Growth
//! The table has as many homes as its header says, and grows one home at a time (linear hashing):
//! with `n` homes, an object's home is its hash modulo the power of two at or above `n`, or half of
//! that where there is no such home yet. One home more takes over part of the objects of one other
//! home. They are listed in their new place first, then the number of homes changes, then their old
//! places are given up: a reader that finds nothing, and the number of homes changed meanwhile, looks
//! again.
//!
//! # Order
//! | store | reader |
//! |---|---|
//! | the home's reach, if it is farther | the home's reach (acquire) |
//! | `stamp` = busy; release fence; fields; `stamp` = uid (release) | `stamp` (acquire); fields; acquire fence; `stamp` again |
//!
//! A uid is never given twice, so an entry whose stamp is the same uid before and after held those
//! fields in between. To keep the object, see [`pins`](super::pins). The two lowest bits of a stamp
//! are not the uid's: they say that the object is to be deleted, or that the store is just finding
//! out whether it can be.

use std::sync::Arc;

use super::crash::crash_point;
use super::id_words::{id_from_words, id_to_words};
use super::memory::{Memory, Shareable, Slice};
use super::sync::{AtomicU64, Ordering, fence};
use super::twins::{is_skipped, unless_skipped};
use crate::ObjectId;

/// Entries that an object may be in, from its home on. Most need no more than three; but among
/// millions of objects there are some with a hundred others in their way.
#[cfg(not(all(plasma_loom, test)))]
pub const WINDOW: usize = 256;

/// The same in models, where each one more takes the checker twice as long.
#[cfg(all(plasma_loom, test))]
pub const WINDOW: usize = 2;

/// Homes of an index that is new.
pub const FIRST_HOMES: usize = 1024;

/// Homes that are added for each object that is listed while the table grows.
const GROWTH: usize = 8;

/// The stamp of an entry that is being written, or whose object is gone.
const BUSY: u64 = 4;

/// Set in the stamp of an object that is to be deleted once nobody holds it: who lets go of it is to
/// tell the store.
const WANTED: u64 = 1;

/// Set in the stamp of an object while the store finds out whether anybody holds it: who looks for
/// it is to ask the store.
const WITHDRAWN: u64 = 2;

/// The first uid.
pub const FIRST_UID: u64 = 8;

/// How many uids apart one is from the next: the lowest bits are for what becomes of the object.
pub const UID_STEP: u64 = 4;

const MAGIC: u64 = u64::from_le_bytes(*b"PLASMAix");
const VERSION: u64 = 1;

/// Looks again this often where the table grows meanwhile. It takes the store longer to add a home
/// than a reader to look, so who is not through by then is not reading an index.
const MAX_LOOKS: usize = 1000;

/// The header: what never changes in one cache line, what does in another.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Header {
    magic: AtomicU64,
    version: AtomicU64,
    seed: AtomicU64,
    _unused: [AtomicU64; 5],
    /// Who keeps the index, as a futex word: see [`Index::is_kept`].
    pub(super) keeper: AtomicU64,
    homes: AtomicU64,
    /// Objects that are sealed and not listed.
    unlisted: AtomicU64,
    /// How often the store has looked at what clients use.
    looks: AtomicU64,
    _unused_too: [AtomicU64; 4],
}

// SAFETY: atomics of eight bytes, sixteen of them in 128 bytes.
unsafe impl Shareable for Header {}

/// Set by the kernel in a futex word whose owner has ended.
const KEEPER_DIED: u64 = 0x4000_0000;

/// One object's place in the index.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Entry {
    stamp: AtomicU64,
    /// The id's 20 bytes, and the segment in the last four.
    id: [AtomicU64; 3],
    offset: AtomicU64,
    data_size: AtomicU64,
    metadata_size: AtomicU64,
    /// What the store knows the object by, in the lower half. In the upper half, how many entries
    /// farther the farthest of those objects is whose home this entry is.
    slot_and_reach: AtomicU64,
}

// SAFETY: atomics of eight bytes, eight of them in 64 bytes.
unsafe impl Shareable for Entry {}

/// An object as the index tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listing {
    /// Its number, which no other object ever has.
    pub uid: u64,
    /// Its name.
    pub id: ObjectId,
    /// The segment it lies in.
    pub segment: i32,
    /// Where its data starts there, in bytes.
    pub offset: u64,
    /// Bytes of data.
    pub data_size: u64,
    /// Bytes of metadata, right behind the data.
    pub metadata_size: u64,
    /// What the store knows it by; nothing to clients.
    pub slot: u32,
}

/// Where an object lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The segment it lies in.
    pub segment: i32,
    /// Where its data starts there, in bytes.
    pub offset: u64,
    /// Bytes of data.
    pub data_size: u64,
    /// Bytes of metadata, right behind the data.
    pub metadata_size: u64,
}

/// An entry's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(u32);

/// An object that was seen in the index. Its entry may list another by now.
#[derive(Clone, Copy, Debug)]
pub struct Sighting<'a> {
    /// Its number, which no other object ever has.
    pub uid: u64,
    /// Where it is listed.
    pub place: Place,
    entry: &'a Entry,
}

/// An object, as the store finds it again wherever it is listed by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its number, which no other object ever has.
    pub uid: u64,
    /// What the store knows it by.
    pub slot: u32,
}

/// What a search came to.
#[derive(Clone, Copy, Debug)]
pub enum Found<'a> {
    /// It is listed.
    Here(Sighting<'a>),
    /// It is not sealed, or not in the store's memory.
    Nowhere,
    /// The store has to be asked.
    Unknown,
}

/// The bytes of memory that an index of up to `max_homes` homes takes, if all of it is used.
pub fn memory_len(max_homes: usize) -> Option<usize> {
    let entries = max_homes.checked_add(WINDOW)?;
    entries
        .checked_mul(size_of::<Entry>())?
        .checked_add(size_of::<Header>())
}

/// The index, for reading.
#[derive(Clone, Debug)]
pub struct Index {
    header: Slice<Header>,
    entries: Slice<Entry>,
    seed: u64,
}

/// An id as the entries hold it, with its segment in what is free.
fn words_of(id: &ObjectId, segment: i32) -> [u64; 3] {
    let [first, second, last] = id_to_words(id);
    [
        first,
        second,
        last | u64::from(segment.cast_unsigned()) << 32,
    ]
}

fn id_of(words: [u64; 3]) -> (ObjectId, i32) {
    let [.., last] = words;
    (id_from_words(words), segment_of(last))
}

/// The segment in an id's last word.
fn segment_of(last: u64) -> i32 {
    ((last >> 32) as u32).cast_signed()
}

/// The home of an id with this hash, where there are `homes` of them.
fn home_of(hash: u64, homes: u64) -> u64 {
    let mask = u64::MAX
        .checked_shr((homes.max(1) - 1).leading_zeros())
        .unwrap_or(0);
    let home = hash & mask;
    if home < homes {
        home
    } else {
        home & (mask >> 1)
    }
}

impl Entry {
    /// Whether these are the words of its object's id.
    #[inline(always)]
    fn is_named(&self, wanted: &[u64; 3]) -> bool {
        let id = self.id.each_ref().map(|word| word.load(Ordering::Relaxed));
        let masks = [u64::MAX, u64::MAX, u64::from(u32::MAX)];
        let mut differences = id.iter().zip(wanted).zip(masks);
        differences.all(|((a, b), mask)| (a ^ b) & mask == 0)
    }

    /// All that it says, for the store.
    fn listing(&self, stamp: u64) -> Listing {
        let words = self.id.each_ref().map(|word| word.load(Ordering::Relaxed));
        let (id, _) = id_of(words);
        let Extent {
            segment,
            offset,
            data_size,
            metadata_size,
        } = self.extent();
        Listing {
            uid: uid_of(stamp),
            id,
            segment,
            offset,
            data_size,
            metadata_size,
            slot: self.known_as(),
        }
    }

    #[inline(always)]
    fn extent(&self) -> Extent {
        let [.., last] = &self.id;
        Extent {
            segment: segment_of(last.load(Ordering::Relaxed)),
            offset: self.offset.load(Ordering::Relaxed),
            data_size: self.data_size.load(Ordering::Relaxed),
            metadata_size: self.metadata_size.load(Ordering::Relaxed),
        }
    }

    /// What the store knows its object by.
    #[inline(always)]
    fn known_as(&self) -> u32 {
        self.slot_and_reach.load(Ordering::Relaxed) as u32
    }
}

fn uid_of(stamp: u64) -> u64 {
    stamp & !(WANTED | WITHDRAWN)
}

impl Sighting<'_> {
    /// The object as the store knows it, if it [is listed](Self::extent) here still after this.
    #[inline(always)]
    pub fn known(&self) -> Known {
        Known {
            uid: self.uid,
            slot: self.entry.known_as(),
        }
    }

    /// Where the object lies; `None` if it is listed here no more.
    #[inline(always)]
    pub fn extent(&self) -> Option<Extent> {
        let extent = self.entry.extent();
        unless_skipped!(ExtentFence, fence(Ordering::Acquire));
        let stamp = self.entry.stamp.load(Ordering::Relaxed);
        (stamp & !WANTED == self.uid || is_skipped!(Recheck)).then_some(extent)
    }

    /// Whether it is still listed here, and the store does not want it back.
    pub fn stays(&self) -> bool {
        self.entry.stamp.load(Ordering::Relaxed) == self.uid
    }
}

/// An entry's two halves of a word.
fn slot_and_reach(slot: u32, reach: u32) -> u64 {
    u64::from(slot) | u64::from(reach) << 32
}

fn reach_of(word: u64) -> u32 {
    (word >> 32) as u32
}

fn is_listed(stamp: u64) -> bool {
    stamp >= FIRST_UID
}

impl Index {
    /// Finds the index in memory that a store has made; `None` where there is none that this
    /// version reads.
    pub fn open(memory: &Arc<Memory>, len: usize) -> Option<Self> {
        let entries = len.checked_sub(size_of::<Header>())? / size_of::<Entry>();
        if u32::try_from(entries).is_err() {
            return None;
        }
        let index = Self::view(memory, entries)?;
        let header = index.header()?;
        let known = header.magic.load(Ordering::Relaxed) == MAGIC
            && header.version.load(Ordering::Relaxed) == VERSION;
        let seed = header.seed.load(Ordering::Relaxed);
        known.then_some(Self { seed, ..index })
    }

    fn view(memory: &Arc<Memory>, entries: usize) -> Option<Self> {
        Some(Self {
            header: memory.slice(0, 1)?,
            entries: memory.slice(size_of::<Header>(), entries)?,
            seed: 0,
        })
    }

    fn header(&self) -> Option<&Header> {
        self.header.first()
    }

    /// Whether the store still keeps it. A store that ends says so; for one that is killed the kernel
    /// does, before anybody can learn of it in another way.
    pub fn is_kept(&self) -> bool {
        let keeper = self
            .header()
            .map_or(0, |header| header.keeper.load(Ordering::Acquire));
        keeper != 0 && keeper & KEEPER_DIED == 0
    }

    fn hash(&self, id: &ObjectId) -> u64 {
        xxhash_rust::xxh3::xxh3_64_with_seed(id.as_bytes(), self.seed)
    }

    /// The home of an object where there are `homes` of them.
    #[cfg(all(plasma_loom, test))]
    pub(super) fn home(&self, id: &ObjectId, homes: u64) -> u64 {
        home_of(self.hash(id), homes)
    }

    /// All entries that an object may be in, with their numbers.
    fn window(&self, home: u64) -> impl Iterator<Item = (Place, &Entry)> {
        self.entries_from(home, WINDOW)
    }

    /// The entries that the objects of a home are in now.
    fn reach(&self, home: u64) -> impl Iterator<Item = (Place, &Entry)> {
        let entry = usize::try_from(home)
            .ok()
            .and_then(|at| self.entries.get(at));
        let word = entry.map_or(0, |entry| entry.slot_and_reach.load(Ordering::Acquire));
        self.entries_from(home, (reach_of(word) as usize + 1).min(WINDOW))
    }

    fn entries_from(&self, home: u64, count: usize) -> impl Iterator<Item = (Place, &Entry)> {
        let start = usize::try_from(home).unwrap_or(usize::MAX);
        let entries = start
            .checked_add(count)
            .and_then(|end| self.entries.get(start..end))
            .unwrap_or_default();
        // There are no more entries than the numbers of 32 bits.
        (start as u32..).map(Place).zip(entries)
    }

    /// Looks for an object. What is found is as it was at some moment during the call; whether it
    /// stays, a pin decides.
    #[inline(always)]
    pub fn find(&self, id: &ObjectId) -> Found<'_> {
        let Some(header) = self.header() else {
            return Found::Unknown;
        };
        let (hash, words) = (self.hash(id), words_of(id, 0));
        'look: for _ in 0..MAX_LOOKS {
            let homes = header.homes.load(Ordering::Acquire);
            for (place, entry) in self.reach(home_of(hash, homes)) {
                let stamp = entry.stamp.load(Ordering::Acquire);
                if !is_listed(stamp) {
                    continue;
                }
                if entry.is_named(&words) {
                    fence(Ordering::Acquire);
                    let again = entry.stamp.load(Ordering::Relaxed);
                    if again & WITHDRAWN != 0 {
                        return Found::Unknown;
                    }
                    let uid = uid_of(stamp);
                    if again & !WANTED != uid && !is_skipped!(FindRecheck) {
                        // It is gone, or elsewhere, or it was half another.
                        continue 'look;
                    }
                    return Found::Here(Sighting { uid, place, entry });
                }
            }
            fence(Ordering::Acquire);
            if header.homes.load(Ordering::Relaxed) == homes || is_skipped!(HomesRecheck) {
                let complete = header.unlisted.load(Ordering::Acquire) == 0;
                return if complete {
                    Found::Nowhere
                } else {
                    Found::Unknown
                };
            }
        }
        Found::Unknown
    }

    /// How often the store has looked at what clients use. What was used before it looked last is to be
    /// noted anew.
    #[inline(always)]
    pub fn looks(&self) -> u64 {
        let header = self.header();
        header.map_or(0, |header| header.looks.load(Ordering::Relaxed))
    }

    /// The stamp of an entry now, for [`pins`](super::pins).
    pub(super) fn stamp(&self, place: Place) -> u64 {
        self.entries
            .get(place.0 as usize)
            .map_or(BUSY, |entry| entry.stamp.load(Ordering::Relaxed))
    }
}

impl Place {
    /// For an object that is listed somewhere, or will be: it has to be looked for.
    pub const NOT_KNOWN: Self = Self(u32::MAX);

    /// The entry's number.
    pub fn number(self) -> u32 {
        self.0
    }

    /// The entry of this number, if there is one.
    pub fn from_number(number: u64) -> Option<Self> {
        u32::try_from(number).ok().map(Self)
    }
}

/// The word in an index that says who keeps it: a thread of the store's, which the kernel can speak
/// for when it has ended.
#[derive(Clone, Debug)]
pub struct KeeperWord(Slice<Header>);

impl KeeperWord {
    /// Names the thread; 0 is nobody.
    pub fn set_thread(&self, thread: u32) {
        if let Some(header) = self.0.first() {
            header.keeper.store(u64::from(thread), Ordering::Release);
        }
    }

    /// The thread, if one is named.
    pub fn thread(&self) -> u32 {
        let word = self.0.first();
        word.map_or(0, |header| header.keeper.load(Ordering::Acquire)) as u32
    }

    /// Where it is, as the kernel knows futex words: four bytes, the low half on the machines this is
    /// for. It is there for as long as this value.
    #[cfg(not(plasma_loom))]
    pub fn address(&self) -> *const u32 {
        match self.0.first() {
            Some(header) => std::ptr::from_ref(&header.keeper).cast(),
            None => std::ptr::null(),
        }
    }
}

/// The index, for the store that keeps it.
#[derive(Debug)]
pub struct IndexWriter {
    index: Index,
    /// Kept for what it is in.
    memory: Option<Arc<Memory>>,
    homes: u64,
    max_homes: u64,
    listed: u64,
    unlisted: u64,
    /// Entries that have memory behind them.
    backed: usize,
}

impl IndexWriter {
    /// An index in new memory, with room for as many objects as `max_homes` is (where more are
    /// listed, some may find no place).
    ///
    /// # Errors
    /// There is no memory, or the kernel cannot seal it.
    pub fn create(max_homes: usize, seed: u64) -> std::io::Result<Self> {
        let invalid = std::io::ErrorKind::InvalidInput;
        let max_homes = max_homes.max(FIRST_HOMES);
        let len = memory_len(max_homes).filter(|_| u32::try_from(max_homes + WINDOW).is_ok());
        let memory = Memory::create(len.ok_or(invalid)?, super::memory::Writers::Store)?;
        let memory = Arc::new(memory);
        let index = Index::view(&memory, max_homes + WINDOW).ok_or(invalid)?;
        let mut writer = Self {
            index: Index { seed, ..index },
            memory: Some(memory),
            homes: 0,
            max_homes: max_homes as u64,
            listed: 0,
            unlisted: 0,
            backed: 0,
        };
        if !writer.back(FIRST_HOMES + WINDOW) {
            return Err(std::io::ErrorKind::OutOfMemory.into());
        }
        writer.begin(FIRST_HOMES as u64);
        Ok(writer)
    }

    fn begin(&mut self, homes: u64) {
        self.homes = homes;
        if let Some(header) = self.index.header() {
            header.homes.store(homes, Ordering::Relaxed);
            header.seed.store(self.index.seed, Ordering::Relaxed);
            header.version.store(VERSION, Ordering::Relaxed);
            header.magic.store(MAGIC, Ordering::Release);
        }
    }

    /// An index of a model's, with room for one home more than it begins with.
    #[cfg(all(plasma_loom, test))]
    pub(super) fn model(homes: usize) -> Self {
        let word = || AtomicU64::new(0);
        let words = || std::array::from_fn(|_| word());
        let entry = |_| Entry {
            stamp: word(),
            id: std::array::from_fn(|_| word()),
            offset: word(),
            data_size: word(),
            metadata_size: word(),
            slot_and_reach: word(),
        };
        let header = Header {
            magic: word(),
            version: word(),
            seed: word(),
            _unused: words(),
            keeper: word(),
            homes: word(),
            unlisted: word(),
            looks: word(),
            _unused_too: std::array::from_fn(|_| word()),
        };
        let max_homes = homes + 1;
        let entries: Vec<_> = (0..max_homes + WINDOW).map(entry).collect();
        let mut writer = Self {
            index: Index {
                header: Slice::model(vec![header]),
                entries: Slice::model(entries),
                seed: 0,
            },
            memory: None,
            homes: 0,
            max_homes: max_homes as u64,
            listed: 0,
            unlisted: 0,
            backed: max_homes + WINDOW,
        };
        writer.begin(homes as u64);
        writer
    }

    /// Adds homes at once.
    #[cfg(all(plasma_loom, test))]
    pub(super) fn add_homes(&mut self, count: usize) {
        for _ in 0..count {
            assert!(self.add_home(), "there is room");
        }
    }

    /// The memory it is in.
    pub fn memory(&self) -> Option<&Arc<Memory>> {
        self.memory.as_ref()
    }

    /// The index, for reading.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// Bytes of memory that are behind it.
    pub fn backed_bytes(&self) -> usize {
        size_of::<Header>() + self.backed * size_of::<Entry>()
    }

    /// The word that says who keeps it.
    pub fn keeper_word(&self) -> Option<KeeperWord> {
        let header = self.index.header.clone();
        (!header.is_empty()).then_some(KeeperWord(header))
    }

    /// Says that the store has looked at what clients use: from here on they note it anew.
    pub fn end_look(&self) {
        if let Some(header) = self.index.header() {
            let looks = header.looks.load(Ordering::Relaxed);
            header.looks.store(looks.wrapping_add(1), Ordering::Release);
            crash_point!();
        }
    }

    /// Lists an object that was sealed; where, if there was a place for it.
    pub fn publish(&mut self, listing: &Listing) -> Option<Place> {
        self.grow();
        let hash = self.index.hash(&listing.id);
        let place = self.put(hash, listing, listing.uid);
        match place {
            Some(_) => self.listed += 1,
            None => self.add_unlisted(1),
        }
        place
    }

    /// Counts objects that are sealed and not listed: more, or fewer.
    pub fn add_unlisted(&mut self, count: i64) {
        self.unlisted = self.unlisted.saturating_add_signed(count);
        if let Some(header) = self.index.header() {
            header.unlisted.store(self.unlisted, Ordering::Release);
            crash_point!();
        }
    }

    /// Writes an object into the first free entry of its window, if there is one.
    fn put(&self, hash: u64, listing: &Listing, stamp: u64) -> Option<Place> {
        let home = home_of(hash, self.homes);
        let mut window = self.index.window(home);
        let (place, entry) =
            window.find(|(_, entry)| !is_listed(entry.stamp.load(Ordering::Relaxed)))?;
        self.reach_to(home, place);
        // As where an entry is given up: who sees this sees as well that the table has grown.
        entry.stamp.store(BUSY, Ordering::Release);
        crash_point!();
        unless_skipped!(PublishFence, fence(Ordering::Release));
        let words = words_of(&listing.id, listing.segment);
        for (place, word) in entry.id.iter().zip(words) {
            place.store(word, Ordering::Relaxed);
        }
        entry.offset.store(listing.offset, Ordering::Relaxed);
        entry.data_size.store(listing.data_size, Ordering::Relaxed);
        entry
            .metadata_size
            .store(listing.metadata_size, Ordering::Relaxed);
        let reach = reach_of(entry.slot_and_reach.load(Ordering::Relaxed));
        let word = slot_and_reach(listing.slot, reach);
        entry.slot_and_reach.store(word, Ordering::Relaxed);
        crash_point!();
        entry.stamp.store(stamp, Ordering::Release);
        crash_point!();
        Some(place)
    }

    /// Has readers of a home look at least as far as this.
    fn reach_to(&self, home: u64, place: Place) {
        let distance = u64::from(place.0).saturating_sub(home);
        self.set_reach(home, |reach| reach.max(distance as u32));
    }

    fn set_reach(&self, home: u64, new: impl FnOnce(u32) -> u32) {
        let entry = usize::try_from(home).ok();
        let entry = entry.and_then(|at| self.index.entries.get(at));
        if let Some(entry) = entry {
            let word = entry.slot_and_reach.load(Ordering::Relaxed);
            let reach = new(reach_of(word));
            if reach != reach_of(word) {
                let word = slot_and_reach(word as u32, reach);
                entry.slot_and_reach.store(word, Ordering::Release);
                crash_point!();
            }
        }
    }

    /// Finds an object's entry.
    fn entry_of(&self, id: &ObjectId, uid: u64) -> Option<(Place, &Entry)> {
        let home = home_of(self.index.hash(id), self.homes);
        let mut entries = self.index.reach(home);
        entries.find(|(_, entry)| uid_of(entry.stamp.load(Ordering::Relaxed)) == uid)
    }

    /// Begins to find out whether anybody holds an object. From here on nobody else gets it by
    /// the index; who has found it already may still be about to pin it, or to find that it cannot.
    /// Then look at the [`pins`](super::pins), and [`restore`](Self::restore) or
    /// [`unpublish`](Self::unpublish) it.
    pub fn withdraw(&mut self, id: &ObjectId, uid: u64) {
        if let Some((_, entry)) = self.entry_of(id, uid) {
            entry.stamp.store(uid | WITHDRAWN, Ordering::Release);
            crash_point!();
        }
    }

    /// Lists an object again that was withdrawn. If it is `wanted`, whoever lets go of it tells the
    /// store.
    pub fn restore(&mut self, id: &ObjectId, uid: u64, wanted: bool) {
        if let Some((_, entry)) = self.entry_of(id, uid) {
            let wanted = if wanted { WANTED } else { 0 };
            entry.stamp.store(uid | wanted, Ordering::Release);
            crash_point!();
        }
    }

    /// Takes out an object that is gone.
    pub fn unpublish(&mut self, id: &ObjectId, uid: u64) {
        match self.entry_of(id, uid).map(|(place, _)| place) {
            Some(place) => {
                let home = home_of(self.index.hash(id), self.homes);
                self.give_up(home, place);
                self.listed -= 1;
            }
            // All that are published are listed or counted.
            None => self.add_unlisted(-1),
        }
    }

    /// Empties an entry of an object with this home.
    fn give_up(&self, home: u64, place: Place) {
        if let Some(entry) = self.index.entries.get(place.0 as usize) {
            entry.stamp.store(BUSY, Ordering::Release);
            crash_point!();
        }
        let farthest = self.index.reach(home).last();
        if farthest.is_none_or(|(farthest, _)| farthest != place) {
            return;
        }
        // Nobody need look that far any more.
        let left = self.index.reach(home).filter(|(_, entry)| {
            let stamp = entry.stamp.load(Ordering::Relaxed);
            is_listed(stamp) && {
                let words = entry.id.each_ref().map(|word| word.load(Ordering::Relaxed));
                home_of(self.index.hash(&id_of(words).0), self.homes) == home
            }
        });
        let reach = left.last().map_or(0, |(last, _)| u64::from(last.0) - home);
        self.set_reach(home, |_| reach as u32);
    }

    /// Adds homes where the table has become too full for its size, a few at a time.
    fn grow(&mut self) {
        let full = self.listed * 2 >= self.homes;
        if !full && self.homes.is_power_of_two() {
            return;
        }
        for _ in 0..GROWTH {
            if self.homes >= self.max_homes || !self.add_home() {
                return;
            }
            if self.homes.is_power_of_two() {
                return;
            }
        }
    }

    /// Adds one home, and moves to it what belongs there; whether there was memory for that.
    fn add_home(&mut self) -> bool {
        let homes = self.homes + 1;
        let entries = usize::try_from(homes)
            .unwrap_or(usize::MAX)
            .saturating_add(WINDOW);
        if entries > self.backed && !self.back(entries) {
            return false;
        }
        // The new home takes over from the one with the same number but for the highest bit.
        let old_home = home_of(self.homes, self.homes);
        let moving: Vec<_> = self
            .index
            .reach(old_home)
            .map(|(place, entry)| (place, entry, entry.stamp.load(Ordering::Relaxed)))
            .filter(|(_, _, stamp)| is_listed(*stamp))
            .filter_map(|(place, entry, stamp)| {
                let listing = entry.listing(stamp);
                let hash = self.index.hash(&listing.id);
                let was_home = home_of(hash, self.homes) == old_home;
                let moves = was_home && home_of(hash, homes) != old_home;
                moves.then_some((place, hash, listing, stamp))
            })
            .collect();
        self.homes = homes;
        let mut lost = 0;
        for (_, hash, listing, stamp) in &moving {
            if self.put(*hash, listing, *stamp).is_none() {
                lost += 1;
            }
        }
        if lost > 0 {
            // They are listed nowhere from now on; before anybody can miss them, this says so.
            self.listed -= lost;
            self.add_unlisted(lost.cast_signed());
        }
        if let Some(header) = self.index.header() {
            header.homes.store(homes, Ordering::Release);
            crash_point!();
        }
        for (place, ..) in moving {
            self.give_up(old_home, place);
        }
        true
    }

    /// Puts memory behind this many entries and some more; whether there was any.
    fn back(&mut self, entries: usize) -> bool {
        /// Entries that are given memory at a time: 64 KiB.
        const STEP: usize = 1024;
        let Some(memory) = &self.memory else {
            return entries <= self.backed;
        };
        let all = usize::try_from(self.max_homes).unwrap_or(usize::MAX) + WINDOW;
        let wanted = entries.next_multiple_of(STEP).min(all);
        let start = self.backed_bytes();
        let end = size_of::<Header>() + wanted * size_of::<Entry>();
        let start = if self.backed == 0 { 0 } else { start };
        if memory.populate(start, end - start).is_err() {
            return false;
        }
        self.backed = wanted;
        true
    }
}

#[cfg(all(test, not(plasma_loom)))]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    fn listing(number: u64) -> Listing {
        Listing {
            uid: FIRST_UID + number * UID_STEP,
            id: ObjectId::from_name(&number.to_string()),
            segment: 1,
            offset: number * 64,
            data_size: number,
            metadata_size: 1,
            slot: number as u32,
        }
    }

    fn found(index: &Index, id: &ObjectId) -> Option<Listing> {
        let found = index.find(id);
        let known = !matches!(found, Found::Unknown);
        assert!(known, "the store would have to be asked for {id}");
        match found {
            Found::Here(seen) => Some(seen.entry.listing(seen.uid)),
            _ => None,
        }
    }

    /// What was deleted leaves gaps behind that readers look past. However long that goes on, they
    /// need not ask the store, and find what is there and nothing else.
    #[test]
    fn objects_that_come_and_go_leave_the_index_whole() {
        let mut writer = IndexWriter::create(1 << 17, 7).unwrap();
        let index = writer.index().clone();
        let mut live = VecDeque::new();
        for number in 0..400_000 {
            let new = listing(number);
            assert!(writer.publish(&new).is_some());
            live.push_back(new);
            if live.len() > 30_000 {
                // Not always the oldest.
                let at = if number % 3 == 0 {
                    number as usize % 1000
                } else {
                    0
                };
                let old = live.remove(at).unwrap();
                writer.withdraw(&old.id, old.uid);
                assert!(matches!(index.find(&old.id), Found::Unknown));
                writer.unpublish(&old.id, old.uid);
                assert_eq!(found(&index, &old.id), None);
            }
            if number % 20_000 == 0 {
                for listing in &live {
                    assert_eq!(found(&index, &listing.id).as_ref(), Some(listing));
                }
                for absent in 0..10_000 {
                    assert_eq!(found(&index, &listing(1 << 40 | absent).id), None);
                }
            }
        }
        // A quarter to half of the homes are in use, as the documentation of the store says.
        let homes = writer.homes;
        assert!((2..=4).contains(&(homes / live.len() as u64)), "{homes}");
    }

    /// With no room for more, what finds none is asked for; nobody is told that it is not there.
    #[test]
    fn what_finds_no_place_is_not_denied() {
        let mut writer = IndexWriter::create(FIRST_HOMES, 7).unwrap();
        let index = writer.index().clone();
        let count = (FIRST_HOMES + WINDOW) as u64 + 100;
        let listed: Vec<_> = (0..count)
            .filter(|number| writer.publish(&listing(*number)).is_some())
            .collect();
        assert!(listed.len() < count as usize);
        for number in 0..count {
            let id = listing(number).id;
            let expected = listed.contains(&number);
            let here = matches!(index.find(&id), Found::Here(_));
            assert_eq!(here, expected, "{number}");
            assert!(here || matches!(index.find(&id), Found::Unknown));
        }
        // Also where gaps have come up meanwhile.
        for number in listed.iter().step_by(2) {
            let gone = listing(*number);
            writer.unpublish(&gone.id, gone.uid);
            assert!(matches!(index.find(&gone.id), Found::Unknown));
        }
        for number in (0..count).filter(|number| !listed.contains(number)) {
            let gone = listing(number);
            writer.unpublish(&gone.id, gone.uid);
        }
        assert_eq!(found(&index, &listing(listed[0]).id), None);
    }

    /// Entries are numbered in 32 bits.
    #[test]
    fn an_index_with_too_many_entries_is_none() {
        let most = u32::MAX as usize;
        for (entries, right) in [(most, true), (most + 1, false)] {
            let len = size_of::<Header>() + entries * size_of::<Entry>();
            let memory = Memory::create(len, super::super::memory::Writers::Store).unwrap();
            let memory = Arc::new(memory);
            let header = memory.slice::<Header>(0, 1).unwrap();
            header[0].magic.store(MAGIC, Ordering::Relaxed);
            header[0].version.store(VERSION, Ordering::Relaxed);
            assert_eq!(Index::open(&memory, len).is_some(), right);
        }
    }

    #[test]
    fn a_home_more_takes_over_from_one_home() {
        for homes in 1..200 {
            let mut moved_from = Vec::new();
            for hash in 0..10_000_u64 {
                let (before, after) = (home_of(hash, homes), home_of(hash, homes + 1));
                assert!(before < homes && after <= homes);
                if before != after {
                    assert_eq!(after, homes);
                    moved_from.push(before);
                }
            }
            moved_from.dedup();
            assert_eq!(moved_from, [home_of(homes, homes)]);
        }
    }
}
