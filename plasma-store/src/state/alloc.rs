//! Which bytes of the arena are free.
//!
//! All of this lives in the store's heap: nothing a client can write decides where memory is. Free
//! ranges are known by place, to merge with their neighbours, and by size, to find the smallest
//! that fits; both in O(log n) of the number of free ranges.

use std::collections::{BTreeMap, BTreeSet};

/// Every object starts at a multiple of this, in bytes.
pub(crate) const ALIGNMENT: u64 = 64;

/// Some bytes of the arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Range {
    pub(crate) offset: u64,
    pub(crate) len: u64,
}

impl Range {
    pub(crate) fn new(offset: u64, len: u64) -> Self {
        Self { offset, len }
    }

    pub(crate) fn end(self) -> u64 {
        self.offset + self.len
    }
}

/// A best-fit allocator over an arena of a fixed length.
#[derive(Debug)]
pub(crate) struct Allocator {
    /// INVARIANT: the same free ranges in both, none empty, none touching another.
    by_offset: BTreeMap<u64, u64>,
    by_len: BTreeSet<(u64, u64)>,
}

impl Allocator {
    /// An allocator for `len` bytes, all of them free.
    pub(crate) fn new(len: u64) -> Self {
        let mut allocator = Self {
            by_offset: BTreeMap::new(),
            by_len: BTreeSet::new(),
        };
        if len > 0 {
            allocator.insert(Range::new(0, len));
        }
        allocator
    }

    /// Takes the start of the smallest free range that `size` bytes fit in. Nothing is taken for
    /// no bytes.
    pub(crate) fn allocate(&mut self, size: u64) -> Option<Range> {
        if size == 0 {
            return Some(Range::new(0, 0));
        }
        let len = size.checked_next_multiple_of(ALIGNMENT)?;
        let (free_len, offset) = *self.by_len.range((len, 0)..).next()?;
        self.remove(Range::new(offset, free_len));
        if free_len > len {
            self.insert(Range::new(offset + len, free_len - len));
        }
        Some(Range::new(offset, len))
    }

    /// Takes exactly `range`, which must be part of one free range.
    pub(crate) fn reserve(&mut self, range: Range) {
        let before = self.by_offset.range(..=range.offset).next_back();
        let free = before.map(|(offset, len)| Range::new(*offset, *len));
        let Some(free) = free.filter(|free| free.end() >= range.end() && range.len > 0) else {
            debug_assert!(range.len == 0, "{range:?} is not free");
            return;
        };
        self.remove(free);
        for rest in [
            Range::new(free.offset, range.offset - free.offset),
            Range::new(range.end(), free.end() - range.end()),
        ] {
            if rest.len > 0 {
                self.insert(rest);
            }
        }
    }

    /// Gives back what was allocated or reserved, merging it with free neighbours.
    pub(crate) fn free(&mut self, range: Range) {
        if range.len == 0 {
            return;
        }
        let Range {
            mut offset,
            mut len,
        } = range;
        let before = self.by_offset.range(..offset).next_back();
        if let Some(before) = before.map(|(offset, len)| Range::new(*offset, *len)) {
            debug_assert!(before.end() <= offset, "{range:?} is freed twice");
            if before.end() == offset {
                self.remove(before);
                offset = before.offset;
                len += before.len;
            }
        }
        let after = Range::new(range.end(), 0);
        if let Some(after_len) = self.by_offset.get(&after.offset).copied() {
            self.remove(Range::new(after.offset, after_len));
            len += after_len;
        }
        self.insert(Range::new(offset, len));
    }

    /// Free ranges, the largest first.
    pub(crate) fn free_ranges(&self) -> impl Iterator<Item = Range> {
        let largest_first = self.by_len.iter().rev();
        largest_first.map(|(len, offset)| Range::new(*offset, *len))
    }

    /// The free parts of a range, by place.
    pub(crate) fn free_within(&self, range: Range) -> Vec<Range> {
        let before = self.by_offset.range(..=range.offset).next_back();
        let first = before.map_or(range.offset, |(offset, _)| *offset);
        let touching = self.by_offset.range(first..range.end().max(first));
        touching
            .filter_map(|(offset, len)| {
                let start = range.offset.max(*offset);
                let end = range.end().min(offset + len);
                (start < end).then(|| Range::new(start, end - start))
            })
            .collect()
    }

    fn insert(&mut self, range: Range) {
        self.by_offset.insert(range.offset, range.len);
        self.by_len.insert((range.len, range.offset));
    }

    fn remove(&mut self, range: Range) {
        self.by_offset.remove(&range.offset);
        self.by_len.remove(&(range.len, range.offset));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn free_bytes(allocator: &Allocator) -> u64 {
        allocator.free_ranges().map(|range| range.len).sum()
    }

    #[test]
    fn the_whole_arena_is_one_object() {
        let mut allocator = Allocator::new(6400);
        let all = allocator.allocate(6400).unwrap();
        assert_eq!(all, Range::new(0, 6400));
        assert_eq!(allocator.allocate(1), None);
        allocator.free(all);
        assert_eq!(allocator.free_ranges().collect::<Vec<_>>(), [all]);
    }

    #[test]
    fn nothing_takes_nothing() {
        let mut allocator = Allocator::new(64);
        assert_eq!(allocator.allocate(0), Some(Range::new(0, 0)));
        allocator.free(Range::new(0, 0));
        assert_eq!(free_bytes(&allocator), 64);
    }

    #[test]
    fn sizes_no_arena_has_are_refused() {
        let mut allocator = Allocator::new(1 << 40);
        assert_eq!(allocator.allocate(u64::MAX), None);
        assert_eq!(allocator.allocate((1 << 40) + 1), None);
    }

    #[test]
    fn the_smallest_fit_is_taken() {
        let mut allocator = Allocator::new(1 << 20);
        let big = allocator.allocate(1024).unwrap();
        let _wall = allocator.allocate(64).unwrap();
        let small = allocator.allocate(128).unwrap();
        let _wall = allocator.allocate(64).unwrap();
        allocator.free(big);
        allocator.free(small);
        assert_eq!(allocator.allocate(100), Some(small));
        assert_eq!(allocator.allocate(200), Some(Range::new(big.offset, 256)));
    }

    proptest! {
        #[test]
        fn ranges_never_overlap_and_always_merge(
            steps in prop::collection::vec((0..3_u8, 1..5000_u64, any::<prop::sample::Index>()), 1..300)
        ) {
            let arena = 64 * 1024;
            let mut allocator = Allocator::new(arena);
            let mut taken: Vec<Range> = Vec::new();
            for (action, size, pick) in steps {
                if action == 0 && !taken.is_empty() {
                    allocator.free(taken.swap_remove(pick.index(taken.len())));
                } else if action == 1 && allocator.free_ranges().next().is_some() {
                    let free: Vec<_> = allocator.free_ranges().collect();
                    let free = free[pick.index(free.len())];
                    let skipped = (size / 2 / 64 * 64).min(free.len - 64);
                    let range = Range::new(free.offset + skipped, 64);
                    allocator.reserve(range);
                    taken.push(range);
                } else {
                    let largest = allocator.free_ranges().next().map_or(0, |range| range.len);
                    let range = allocator.allocate(size);
                    prop_assert_eq!(range.is_some(), largest >= size.next_multiple_of(64));
                    taken.extend(range);
                }
                let window = Range::new(size, size);
                let within: u64 = allocator.free_within(window).iter().map(|range| range.len).sum();
                let overlap = |range: &Range| {
                    range.end().min(window.end()).saturating_sub(range.offset.max(window.offset))
                };
                prop_assert_eq!(within, allocator.free_ranges().map(|range| overlap(&range)).sum::<u64>());
                let mut all: Vec<_> = allocator.free_ranges().chain(taken.iter().copied()).collect();
                all.sort_unstable();
                let mut end = 0;
                for range in &all {
                    prop_assert_eq!(range.offset, end);
                    end = range.end();
                }
                prop_assert_eq!(end, arena);
            }
            for range in taken {
                allocator.free(range);
            }
            prop_assert_eq!(allocator.free_ranges().collect::<Vec<_>>(), [Range::new(0, arena)]);
        }
    }
}
