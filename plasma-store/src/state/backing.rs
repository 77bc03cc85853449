//! Which bytes of the arena have memory behind them.
//!
//! The arena is longer than the store's capacity and sparse. Memory is put behind a range before
//! anyone is told of it, stays when the object is deleted (the next one finds it warm), and is given
//! back where more than the capacity would be taken otherwise. This only keeps account.

use std::collections::BTreeMap;

use super::alloc::Range;

/// Memory that may be behind free ranges beyond the capacity, in bytes.
const SLACK: u64 = 32 << 20;

/// What is to be done before ranges can be handed out, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Free ranges whose memory is to be given back.
    pub(crate) discard: Vec<Range>,
    /// Ranges that are to have memory.
    pub(crate) populate: Vec<Range>,
}

impl Plan {
    /// Bytes of memory that come or go.
    pub(crate) fn bytes(&self) -> u64 {
        total(&self.discard) + total(&self.populate)
    }
}

fn total(ranges: &[Range]) -> u64 {
    ranges.iter().map(|range| range.len).sum()
}

/// An account of the backed part of an arena, in whole granules.
#[derive(Debug)]
pub(crate) struct Backing {
    arena_len: u64,
    granule: u64,
    /// Most that is to be behind the arena.
    limit: u64,
    /// Bytes that begun plans are to put behind the arena, and to take from there.
    coming: u64,
    going: u64,
    /// INVARIANT: start to end of every backed range; whole granules (the last may be cut by the
    /// arena's end), none empty, none touching another.
    backed: BTreeMap<u64, u64>,
    backed_bytes: u64,
}

impl Backing {
    /// An account of an arena with nothing behind it, for a store of this capacity.
    pub(crate) fn new(arena_len: u64, granule: u64, capacity: u64) -> Self {
        Self {
            arena_len,
            granule,
            limit: capacity.saturating_add(SLACK),
            coming: 0,
            going: 0,
            backed: BTreeMap::new(),
            backed_bytes: 0,
        }
    }

    /// Bytes that have memory behind them.
    pub(crate) fn bytes(&self) -> u64 {
        self.backed_bytes
    }

    /// What it takes to hand out ranges that were just allocated, and to stay within the limit as
    /// far as the memory behind `free` ranges allows.
    pub(crate) fn plan(&self, ranges: &[Range], free: impl Iterator<Item = Range>) -> Plan {
        let mut populate: Vec<_> = ranges
            .iter()
            .flat_map(|range| self.missing(*range))
            .collect();
        if populate.is_empty() {
            return Plan::default();
        }
        // Small neighbours share granules.
        populate.sort_unstable();
        populate.dedup_by(|next, range| {
            let touches = next.offset <= range.end();
            if touches {
                range.len = range.end().max(next.end()) - range.offset;
            }
            touches
        });
        let backed = self.bytes() + self.coming - self.going;
        let surplus = (backed + total(&populate)).saturating_sub(self.limit);
        Plan {
            discard: self.reclaimable(free, surplus),
            populate,
        }
    }

    /// Counts a plan as carried out while that takes its time. Its `discard` must not be among the
    /// free ranges meanwhile.
    pub(crate) fn begin(&mut self, plan: &Plan) {
        self.coming += total(&plan.populate);
        self.going += total(&plan.discard);
    }

    /// A plan that was begun is over: what became of it is added and removed on its own.
    pub(crate) fn end(&mut self, plan: &Plan) {
        self.coming -= total(&plan.populate);
        self.going -= total(&plan.discard);
    }

    /// The granules that `range` touches.
    fn outward(&self, range: Range) -> (u64, u64) {
        let start = range.offset / self.granule * self.granule;
        let end = range.end().next_multiple_of(self.granule);
        (start, end.min(self.arena_len))
    }

    /// The granules that lie wholly in `range`.
    fn inward(&self, range: Range) -> (u64, u64) {
        let start = range.offset.next_multiple_of(self.granule);
        let end = if range.end() == self.arena_len {
            self.arena_len
        } else {
            range.end() / self.granule * self.granule
        };
        (start, end.max(start))
    }

    /// The backed parts between two places.
    fn backed_between(&self, start: u64, end: u64) -> impl Iterator<Item = (u64, u64)> {
        let first = self
            .backed
            .range(..=start)
            .next_back()
            .map_or(start, |(at, _)| *at);
        let touching = self.backed.range(first..end.max(first));
        touching
            .map(move |(from, to)| (*from.max(&start), *to.min(&end)))
            .filter(|(from, to)| from < to)
    }

    /// What has no memory yet of the granules that `range` touches.
    pub(crate) fn missing(&self, range: Range) -> Vec<Range> {
        if range.len == 0 {
            return Vec::new();
        }
        let (start, end) = self.outward(range);
        let before = self.backed.range(..=start).next_back();
        if before.is_some_and(|(_, to)| *to >= end) {
            return Vec::new();
        }
        let mut missing = Vec::new();
        let mut at = start;
        for (from, to) in self.backed_between(start, end) {
            if at < from {
                missing.push(Range::new(at, from - at));
            }
            at = to;
        }
        if at < end {
            missing.push(Range::new(at, end - at));
        }
        missing
    }

    /// What has no memory yet of the granules that lie wholly in `free` ranges, as far as the
    /// capacity is not behind the arena already.
    pub(crate) fn worth_preparing(&self, free: &[Range], capacity: u64) -> Vec<Range> {
        let mut left = capacity.saturating_sub(self.bytes() + self.coming - self.going);
        let mut found = Vec::new();
        for range in free {
            let (start, end) = self.inward(*range);
            for missing in self.missing(Range::new(start, end - start)) {
                let len = missing.len.min(left.next_multiple_of(self.granule));
                if len == 0 {
                    return found;
                }
                left = left.saturating_sub(len);
                found.push(Range::new(missing.offset, len));
            }
        }
        found
    }

    /// Of free ranges, enough that have memory to give back `wanted` bytes; fewer where there is
    /// no more.
    pub(crate) fn reclaimable(&self, free: impl Iterator<Item = Range>, wanted: u64) -> Vec<Range> {
        let mut found = Vec::new();
        let mut left = wanted;
        for range in free {
            // The largest come first: behind one without a whole granule there is none.
            if left == 0 || range.len < self.granule.min(self.arena_len) {
                break;
            }
            let (start, end) = self.inward(range);
            // From the end: what is near the start is what is allocated next.
            let backed: Vec<_> = self.backed_between(start, end).collect();
            for (from, to) in backed.into_iter().rev() {
                let take = left.next_multiple_of(self.granule).min(to - from);
                // Granules are counted from 0, so only the arena's end may cut one.
                let from = (to - take) / self.granule * self.granule;
                found.push(Range::new(from, to - from));
                left = left.saturating_sub(to - from);
                if left == 0 {
                    break;
                }
            }
        }
        found
    }

    /// Notes that memory was put behind a range that [`missing`](Self::missing) named.
    pub(crate) fn add(&mut self, range: Range) {
        let (mut start, mut end) = self.outward(range);
        if start >= end {
            return;
        }
        let before = self.backed.range(..start).next_back();
        if let Some((from, to)) = before.filter(|(_, to)| **to >= start) {
            (start, end) = (*from, end.max(*to));
        }
        while let Some((from, to)) = self.backed.range(start..=end).next() {
            let (from, to) = (*from, *to);
            end = end.max(to);
            self.backed_bytes -= to - from;
            self.backed.remove(&from);
        }
        if let Some(to) = self.backed.insert(start, end) {
            self.backed_bytes -= to - start;
        }
        self.backed_bytes += end - start;
    }

    /// Notes that the memory behind a range that [`reclaimable`](Self::reclaimable) named is gone.
    pub(crate) fn remove(&mut self, range: Range) {
        let (start, end) = (range.offset, range.end());
        let parts: Vec<_> = self.backed_between(start, end).collect();
        for (from, to) in parts {
            let Some((&whole_from, &whole_to)) = self.backed.range(..=from).next_back() else {
                continue;
            };
            self.backed.remove(&whole_from);
            if whole_from < from {
                self.backed.insert(whole_from, from);
            }
            if to < whole_to {
                self.backed.insert(to, whole_to);
            }
            self.backed_bytes -= to - from;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn memory_is_asked_for_once() {
        let mut backing = Backing::new(1000, 100, 1000);
        let range = Range::new(150, 200);
        assert_eq!(backing.missing(range), [Range::new(100, 300)]);
        backing.add(Range::new(100, 300));
        assert_eq!(backing.missing(range), []);
        assert_eq!(
            backing.missing(Range::new(0, 1000)),
            [Range::new(0, 100), Range::new(400, 600)]
        );
    }

    #[test]
    fn only_whole_granules_are_given_back() {
        let mut backing = Backing::new(1050, 100, 1000);
        backing.add(Range::new(0, 1050));
        let reclaimable = |free, wanted| backing.reclaimable([free].into_iter(), wanted);
        assert_eq!(
            reclaimable(Range::new(150, 200), 1000),
            [Range::new(200, 100)]
        );
        assert_eq!(reclaimable(Range::new(150, 99), 1000), []);
        assert_eq!(
            reclaimable(Range::new(850, 200), 1000),
            [Range::new(900, 150)]
        );
        assert_eq!(
            reclaimable(Range::new(0, 1000), 101),
            [Range::new(800, 200)]
        );
    }

    #[test]
    fn neighbours_share_granules() {
        let backing = Backing::new(1000, 100, 1000);
        let ranges = [250, 10, 20, 90, 500, 210].map(|offset| Range::new(offset, 30));
        let plan = backing.plan(&ranges, [].into_iter());
        assert_eq!(plan.populate, [Range::new(0, 300), Range::new(500, 100)]);
        assert_eq!(plan.bytes(), 400);
    }

    #[test]
    fn plans_that_are_under_way_count() {
        const MIB: u64 = 1 << 20;
        let mut backing = Backing::new(1024 * MIB, MIB, 100 * MIB);
        let limit = 100 * MIB + SLACK;
        // All the capacity is backed, and free.
        backing.add(Range::new(0, 100 * MIB));
        let mut free = [Range::new(0, 100 * MIB)];
        let mut begun = Vec::new();
        for n in 1..=4 {
            let range = Range::new(n * 200 * MIB, 25 * MIB);
            let plan = backing.plan(&[range], free.iter().copied());
            backing.begin(&plan);
            // What is being given back is not free meanwhile.
            for range in &plan.discard {
                let end = free[0].end();
                assert_eq!(range.end(), end, "it is taken from the end");
                free[0].len -= range.len;
            }
            begun.push(plan);
        }
        for plan in &begun {
            plan.discard.iter().for_each(|range| backing.remove(*range));
            plan.populate.iter().for_each(|range| backing.add(*range));
            backing.end(plan);
        }
        assert_eq!(backing.bytes(), limit);
        assert_eq!((backing.coming, backing.going), (0, 0));
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_bitmap(
            steps in prop::collection::vec((any::<bool>(), 0..1030_u64, 1..300_u64), 1..100)
        ) {
            let (arena, granule) = (1030, 10);
            let mut backing = Backing::new(arena, granule, arena);
            let mut bits = vec![false; arena as usize];
            for (add, offset, len) in steps {
                let range = Range::new(offset, len.min(arena - offset));
                let changed = if add {
                    backing.missing(range)
                } else {
                    backing.reclaimable([range].into_iter(), len)
                };
                for range in &changed {
                    for at in range.offset..range.end() {
                        prop_assert_eq!(bits[at as usize], !add);
                        bits[at as usize] = add;
                    }
                    if add { backing.add(*range) } else { backing.remove(*range) }
                }
                if add {
                    prop_assert!(bits[offset as usize..range.end() as usize].iter().all(|bit| *bit));
                }
                prop_assert_eq!(backing.bytes(), bits.iter().filter(|bit| **bit).count() as u64);
            }
        }
    }
}
