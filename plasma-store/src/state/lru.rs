//! The order in which objects may be evicted, and what a client's quota holds.
//!
//! There is one global order, of everything that nobody holds, and one private order for each
//! client with a quota, of everything that this client created, held or not. An object is in at
//! most one of them.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::ClientId;
use super::table::{Object, Objects, Slot};

/// The share of the capacity that quotas must leave to the global order.
const GLOBAL_RESERVE: f64 = 0.3;

/// Where an object stands in its order.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Link {
    older: Option<Slot>,
    newer: Option<Slot>,
    /// The object is in some order.
    linked: bool,
}

/// Objects from the least to the most recently used, with the numbers the debug string tells.
#[derive(Debug)]
struct Order {
    name: String,
    oldest: Option<Slot>,
    newest: Option<Slot>,
    original_capacity: u64,
    capacity: u64,
    used: u64,
    objects: usize,
    evictions: u64,
    bytes_evicted: u64,
}

impl Order {
    fn new(name: String, capacity: u64) -> Self {
        Self {
            name,
            oldest: None,
            newest: None,
            original_capacity: capacity,
            capacity,
            used: 0,
            objects: 0,
            evictions: 0,
            bytes_evicted: 0,
        }
    }

    /// Makes an object the most recently used.
    fn add(&mut self, objects: &mut Objects, slot: Slot) {
        let Some(object) = objects.get_mut(slot) else {
            return;
        };
        debug_assert!(!object.link.linked);
        object.link = Link {
            older: self.newest,
            newer: None,
            linked: true,
        };
        self.used += object.size();
        self.objects += 1;
        let older = self.newest.replace(slot);
        match older.and_then(|older| objects.get_mut(older)) {
            Some(older) => older.link.newer = Some(slot),
            None => self.oldest = Some(slot),
        }
    }

    /// Takes an object out, if it is in.
    fn remove(&mut self, objects: &mut Objects, slot: Slot) -> bool {
        let Some(object) = objects.get_mut(slot) else {
            return false;
        };
        let size = object.size();
        let link = std::mem::take(&mut object.link);
        if !link.linked {
            return false;
        }
        self.used -= size;
        self.objects -= 1;
        match link.older.and_then(|older| objects.get_mut(older)) {
            Some(older) => older.link.newer = link.newer,
            None => self.oldest = link.newer,
        }
        match link.newer.and_then(|newer| objects.get_mut(newer)) {
            Some(newer) => newer.link.older = link.older,
            None => self.newest = link.older,
        }
        true
    }

    /// The oldest objects that together are at least as much as wanted; all where they are less.
    fn oldest(&self, objects: &Objects, wanted: Portion) -> (Vec<Slot>, u64) {
        let mut chosen = Vec::new();
        let mut bytes = 0;
        let mut next = self.oldest;
        while wanted.exceeds(bytes, chosen.len())
            && let Some(slot) = next
            && let Some(object) = objects.get(slot)
        {
            bytes += object.size();
            chosen.push(slot);
            next = object.link.newer;
        }
        (chosen, bytes)
    }

    /// The same, counted as evicted.
    fn choose(&mut self, objects: &Objects, wanted: Portion) -> Vec<Slot> {
        let (chosen, bytes) = self.oldest(objects, wanted);
        self.evictions += chosen.len() as u64;
        self.bytes_evicted += bytes;
        chosen
    }

    fn remaining(&self) -> i128 {
        i128::from(self.capacity) - i128::from(self.used)
    }

    fn describe(&self, text: &mut String) {
        let Self {
            name,
            capacity,
            objects,
            evictions,
            bytes_evicted,
            ..
        } = self;
        let remaining = self.remaining() as f64 / self.original_capacity as f64;
        let used = as_cpp_prints(100. * (1. - remaining));
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "\n({name}) capacity: {capacity}\n({name}) used: {used}%\
             \n({name}) num objects: {objects}\n({name}) num evictions: {evictions}\
             \n({name}) bytes evicted: {bytes_evicted}"
        );
    }
}

/// The most objects that are evicted in one go beyond those that have to be: everybody waits some 10 ms
/// for as many.
pub(crate) const MOST_AHEAD: usize = 1 << 14;

/// A part of an order, from its oldest end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Portion {
    /// At least so many bytes, and at least so many objects.
    pub(crate) bytes: u64,
    pub(crate) objects: usize,
    /// And until there are so many bytes, unless there are [`MOST_AHEAD`] objects before that.
    pub(crate) bytes_ahead: u64,
}

impl Portion {
    /// At least so many bytes.
    pub(crate) fn bytes(bytes: u64) -> Self {
        Self {
            bytes,
            ..Self::default()
        }
    }

    /// Whether so many bytes of so many objects are less than it.
    fn exceeds(&self, bytes: u64, objects: usize) -> bool {
        bytes < self.bytes
            || objects < self.objects
            || (bytes < self.bytes_ahead && objects < MOST_AHEAD)
    }
}

/// All orders.
#[derive(Debug)]
pub(crate) struct Lru {
    global: Order,
    quotas: BTreeMap<ClientId, Order>,
    /// Bytes of objects that some client holds.
    pinned_bytes: u64,
    /// Objects in private orders, and how many of them some client holds.
    owned: usize,
    owned_pinned: usize,
}

/// An object is larger than its creator's whole quota, or does not fit and nothing may be evicted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct QuotaExceeded;

impl Lru {
    pub(crate) fn new(capacity: u64) -> Self {
        Self {
            global: Order::new("global lru".into(), capacity),
            quotas: BTreeMap::new(),
            pinned_bytes: 0,
            owned: 0,
            owned_pinned: 0,
        }
    }

    /// Sets memory apart for a client; whether that was possible.
    pub(crate) fn set_quota(&mut self, client: ClientId, name: &str, bytes: u64) -> bool {
        let reserve = self.global.original_capacity as f64 * GLOBAL_RESERVE;
        let left = i128::from(self.global.capacity) - i128::from(bytes);
        if self.quotas.contains_key(&client) || (left as f64) < reserve {
            return false;
        }
        self.global.capacity -= bytes;
        self.quotas.insert(client, Order::new(name.into(), bytes));
        true
    }

    /// Gives a client's quota back: what nobody holds joins the global order, the rest at its last
    /// release.
    pub(crate) fn end_quota(&mut self, objects: &mut Objects, client: ClientId) {
        let Some(quota) = self.quotas.get_mut(&client) else {
            return;
        };
        let (slots, _) = quota.oldest(objects, Portion::bytes(u64::MAX));
        for slot in slots {
            self.disown(objects, slot);
            if objects.get(slot).is_some_and(|object| object.refs == 0) {
                self.global.add(objects, slot);
            }
        }
        if let Some(quota) = self.quotas.remove(&client) {
            self.global.capacity += quota.capacity;
        }
    }

    /// Whether an object that a client creates does not fit into its quota as it is.
    pub(crate) fn lacks_quota(&self, client: ClientId, size: u64) -> bool {
        let quota = self.quotas.get(&client);
        quota.is_some_and(|quota| i128::from(size) > quota.remaining())
    }

    /// Makes room in a client's quota for an object it creates. Objects in the way that somebody
    /// holds leave the quota; the others are to be evicted by the caller.
    pub(crate) fn make_quota_room(
        &mut self,
        objects: &mut Objects,
        client: ClientId,
        size: u64,
        may_evict: bool,
    ) -> Result<Vec<Slot>, QuotaExceeded> {
        let Some(quota) = self.quotas.get_mut(&client) else {
            return Ok(Vec::new());
        };
        if size > quota.capacity {
            return Err(QuotaExceeded);
        }
        let missing = i128::from(size) - quota.remaining();
        let Ok(missing @ 1..) = u64::try_from(missing) else {
            return Ok(Vec::new());
        };
        if !may_evict {
            return Err(QuotaExceeded);
        }
        let chosen = quota.choose(objects, Portion::bytes(missing));
        let (pinned, evict): (Vec<_>, Vec<_>) = chosen
            .into_iter()
            .partition(|slot| objects.get(*slot).is_some_and(|object| object.refs > 0));
        for slot in pinned {
            self.disown(objects, slot);
        }
        Ok(evict)
    }

    /// Bytes of objects in the global order, all of which may be evicted.
    pub(crate) fn evictable_bytes(&self) -> u64 {
        self.global.used
    }

    /// Bytes of objects that some client holds.
    pub(crate) fn pinned_bytes(&self) -> u64 {
        self.pinned_bytes
    }

    /// The oldest objects that nobody holds; no longer in the order, and counted as evicted.
    pub(crate) fn take_oldest(&mut self, objects: &mut Objects, wanted: Portion) -> Vec<Slot> {
        let chosen = self.global.choose(objects, wanted);
        for slot in &chosen {
            self.global.remove(objects, *slot);
        }
        chosen
    }

    /// An object that was taken is not evicted after all, because it is in use.
    pub(crate) fn put_back(&mut self, objects: &mut Objects, slot: Slot) {
        let Some(size) = objects.get(slot).map(Object::size) else {
            return;
        };
        self.global.evictions -= 1;
        self.global.bytes_evicted -= size;
        self.global.add(objects, slot);
    }

    /// An object of a quota that was chosen turns out to be in use: it leaves the quota, as others in
    /// use do.
    pub(crate) fn demote(&mut self, objects: &mut Objects, slot: Slot) {
        self.disown(objects, slot);
        self.global.add(objects, slot);
    }

    /// A client has created an object; nobody holds it yet. It is in its creator's private order,
    /// if there is one.
    pub(crate) fn created(&mut self, objects: &mut Objects, slot: Slot, creator: ClientId) {
        if let Some(quota) = self.quotas.get_mut(&creator)
            && let Some(object) = objects.get_mut(slot)
        {
            object.owner = Some(creator);
            quota.add(objects, slot);
            self.owned += 1;
        }
    }

    /// The first client holds an object.
    pub(crate) fn pinned(&mut self, objects: &mut Objects, slot: Slot) {
        let Some(object) = objects.get(slot) else {
            return;
        };
        self.pinned_bytes += object.size();
        if object.owner.is_some() {
            self.owned_pinned += 1;
        } else {
            self.global.remove(objects, slot);
        }
    }

    /// The last client has let go of an object that stays.
    pub(crate) fn unpinned(&mut self, objects: &mut Objects, slot: Slot) {
        let Some(object) = objects.get(slot) else {
            return;
        };
        self.pinned_bytes -= object.size();
        if object.owner.is_some() {
            self.owned_pinned -= 1;
        } else {
            self.global.add(objects, slot);
        }
    }

    /// An object has memory again, and nobody holds it.
    pub(crate) fn restored(&mut self, objects: &mut Objects, slot: Slot) {
        self.global.add(objects, slot);
    }

    /// An object goes away, or its memory does.
    pub(crate) fn forget(&mut self, objects: &mut Objects, slot: Slot) {
        let Some(object) = objects.get(slot) else {
            return;
        };
        if object.refs > 0 {
            self.pinned_bytes -= object.size();
        }
        if object.owner.is_some() {
            self.disown(objects, slot);
        } else {
            self.global.remove(objects, slot);
        }
    }

    /// Makes an object the most recently used in its order, if it is in one.
    pub(crate) fn refresh(&mut self, objects: &mut Objects, slot: Slot) {
        let order = match objects.get(slot).and_then(|object| object.owner) {
            Some(owner) => self.quotas.get_mut(&owner),
            None => Some(&mut self.global),
        };
        if let Some(order) = order
            && order.remove(objects, slot)
        {
            order.add(objects, slot);
        }
    }

    /// An object was held for a while that nobody holds, as far as its order is concerned: reading
    /// changes nothing in a private one.
    pub(crate) fn touch(&mut self, objects: &mut Objects, slot: Slot) {
        let in_global = objects.get(slot).is_some_and(|o| o.owner.is_none());
        if in_global && self.global.remove(objects, slot) {
            self.global.add(objects, slot);
        }
    }

    /// Takes an object out of its private order.
    fn disown(&mut self, objects: &mut Objects, slot: Slot) {
        let Some(object) = objects.get_mut(slot) else {
            return;
        };
        let Some(owner) = object.owner.take() else {
            return;
        };
        self.owned -= 1;
        if object.refs > 0 {
            self.owned_pinned -= 1;
        }
        if let Some(quota) = self.quotas.get_mut(&owner) {
            quota.remove(objects, slot);
        }
    }

    /// The store's account of its memory, in the lines that Arrow's clients parse.
    pub(crate) fn debug_string(&self, allocated_bytes: u64, capacity: u64) -> String {
        let mut text = format!(
            "num clients with quota: {}\nquota map size: {}\npinned quota map size: {}\n\
             allocated bytes: {allocated_bytes}\nallocation limit: {capacity}\npinned bytes: {}",
            self.quotas.len(),
            self.owned,
            self.owned_pinned,
            self.pinned_bytes,
        );
        self.global.describe(&mut text);
        for quota in self.quotas.values() {
            quota.describe(&mut text);
        }
        text
    }
}

/// A number as a C++ stream prints it: six significant digits, no zeros behind them.
fn as_cpp_prints(number: f64) -> String {
    if number == 0. {
        return "0".into();
    }
    let scientific = format!("{number:.5e}");
    let Some((digits, exponent)) = scientific.split_once('e') else {
        return scientific;
    };
    let trim = |digits: &str| -> String {
        let fraction = digits.contains('.');
        let trimmed = if fraction {
            digits.trim_end_matches('0').trim_end_matches('.')
        } else {
            digits
        };
        trimmed.into()
    };
    match exponent.parse::<i32>() {
        Ok(exponent @ -4..=5) => trim(&format!("{number:.*}", (5 - exponent) as usize)),
        Ok(exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{}e{sign}{:02}", trim(digits), exponent.abs())
        }
        Err(_) => scientific,
    }
}

#[cfg(test)]
mod tests {
    use super::as_cpp_prints;

    #[test]
    fn numbers_look_as_in_cpp() {
        for (number, text) in [
            (0., "0"),
            (100., "100"),
            (41.943_06, "41.9431"),
            (41.943_04, "41.943"),
            (52.428_8, "52.4288"),
            (0.5, "0.5"),
            (0.000_123_456_7, "0.000123457"),
            (0.000_01, "1e-05"),
            (99.999_999_9, "100"),
            (1_234_567., "1.23457e+06"),
            (-3.25, "-3.25"),
        ] {
            assert_eq!(as_cpp_prints(number), text);
        }
    }
}
