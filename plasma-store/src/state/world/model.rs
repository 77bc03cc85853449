//! The store's rules once more, as plainly as they can be said: lists that are searched from end
//! to end, and nothing that has to be kept in step with anything else.
//!
//! Where objects lie is not its business.

use std::time::Duration;

use plasma_core::ObjectId;
use plasma_core::protocol::message::{Digest, ErrorCode, Notification, ObjectInfo, Outcome};

use crate::state::{Announcement, ClientId, Limits, NewObject, Now};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    Creating(ClientId),
    Sealed,
    /// In the external store.
    Out,
    /// On its way back from there.
    Returning,
}

#[derive(Clone, Debug)]
pub(super) struct Object {
    pub(super) id: ObjectId,
    pub(super) life: Life,
    pub(super) data_size: u64,
    pub(super) metadata_size: u64,
    pub(super) holders: Vec<ClientId>,
    delete_pending: bool,
    release_at_seal: bool,
    digest: Digest,
    created_s: i64,
    construction_s: i64,
}

impl Object {
    pub(super) fn size(&self) -> u64 {
        self.data_size + self.metadata_size
    }

    fn info(&self) -> ObjectInfo {
        let sealed = !matches!(self.life, Life::Creating(_));
        ObjectInfo {
            id: self.id,
            data_size: self.data_size,
            metadata_size: self.metadata_size,
            ref_count: self.holders.len() as u32,
            create_time_s: self.created_s,
            construct_duration_s: sealed.then_some(self.construction_s),
            digest: sealed.then_some(self.digest),
        }
    }
}

/// A list of objects, the least recently used first, and what was evicted from it.
#[derive(Clone, Debug, Default)]
struct Order {
    ids: Vec<ObjectId>,
    evictions: u64,
    bytes_evicted: u64,
}

#[derive(Clone, Debug)]
struct Quota {
    client: ClientId,
    name: String,
    bytes: u64,
    order: Order,
}

#[derive(Clone, Debug)]
struct Wait {
    client: ClientId,
    ids: Vec<ObjectId>,
    missing: Vec<ObjectId>,
    deadline: Option<Duration>,
    only_for_what_returns: bool,
}

/// What is to happen outside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Happened {
    /// Objects to be carried out to the external store (true) or to be forgotten there.
    pub(super) carries: Vec<(ObjectId, bool)>,
    pub(super) restores: Vec<ObjectId>,
    pub(super) announcements: Vec<Announcement>,
    /// For each get that is answered: whose it is, and which objects it found.
    pub(super) replies: Vec<(ClientId, Vec<(ObjectId, bool)>)>,
}

#[derive(Clone, Debug)]
pub(super) struct Model {
    limits: Limits,
    clients: Vec<ClientId>,
    /// In the order in which they were sealed, those that are not sealed behind all others.
    objects: Vec<Object>,
    global: Order,
    quotas: Vec<Quota>,
    waits: Vec<Wait>,
    /// When to try again what did not come back.
    retry_at: Option<Duration>,
    pub(super) ignored: u64,
    pub(super) happened: Happened,
}

impl Model {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            clients: Vec::new(),
            objects: Vec::new(),
            global: Order::default(),
            quotas: Vec::new(),
            waits: Vec::new(),
            retry_at: None,
            ignored: 0,
            happened: Happened::default(),
        }
    }

    // What can be seen.

    pub(super) fn objects(&self) -> &[Object] {
        &self.objects
    }

    pub(super) fn find(&self, id: ObjectId) -> Option<&Object> {
        self.objects.iter().find(|object| object.id == id)
    }

    pub(super) fn holds(&self, client: ClientId) -> Vec<ObjectId> {
        let held = self.objects.iter();
        let held = held.filter(|object| object.holders.contains(&client));
        held.map(|object| object.id).collect()
    }

    pub(super) fn contains(&self, id: ObjectId) -> bool {
        let object = self.find(id);
        object.is_some_and(|object| !matches!(object.life, Life::Creating(_)))
    }

    pub(super) fn list(&self) -> Vec<ObjectInfo> {
        self.objects.iter().map(Object::info).collect()
    }

    pub(super) fn sealed_objects(&self) -> Vec<ObjectInfo> {
        let sealed = self.objects.iter();
        let sealed = sealed.filter(|object| object.life == Life::Sealed);
        sealed.map(Object::info).collect()
    }

    pub(super) fn used(&self) -> u64 {
        let here = self.objects.iter();
        let here = here.filter(|object| object.life != Life::Out);
        here.map(Object::size).sum()
    }

    pub(super) fn waits(&self) -> usize {
        self.waits.len()
    }

    pub(super) fn next_deadline(&self) -> Option<Duration> {
        [self.first_to_end(), self.retry_at]
            .into_iter()
            .flatten()
            .min()
    }

    /// When the next wait ends that does.
    fn first_to_end(&self) -> Option<Duration> {
        self.waits.iter().filter_map(|wait| wait.deadline).min()
    }

    fn bytes_of(&self, order: &Order) -> u64 {
        let ids = order.ids.iter();
        ids.filter_map(|id| self.find(*id)).map(Object::size).sum()
    }

    /// The lines of the debug string, those on a share of some capacity with its number apart.
    pub(super) fn debug_lines(&self) -> Vec<(String, Option<f64>)> {
        let held: Vec<_> = self
            .objects
            .iter()
            .filter(|object| !object.holders.is_empty())
            .collect();
        let in_quotas = |id: &ObjectId| self.quotas.iter().any(|q| q.order.ids.contains(id));
        let owned: usize = self.quotas.iter().map(|q| q.order.ids.len()).sum();
        let owned_held = held.iter().filter(|object| in_quotas(&object.id)).count();
        let pinned: u64 = held.iter().map(|object| object.size()).sum();
        let mut lines = vec![
            (
                format!("num clients with quota: {}", self.quotas.len()),
                None,
            ),
            (format!("quota map size: {owned}"), None),
            (format!("pinned quota map size: {owned_held}"), None),
            (format!("allocated bytes: {}", self.used()), None),
            (format!("allocation limit: {}", self.limits.capacity), None),
            (format!("pinned bytes: {pinned}"), None),
        ];
        let mut describe = |name: &str, order: &Order, capacity: u64, original: u64| {
            let remaining = capacity as f64 - self.bytes_of(order) as f64;
            let used = 100. - 100. * remaining / original as f64;
            let Order {
                ids,
                evictions,
                bytes_evicted,
            } = order;
            lines.extend([
                (format!("({name}) capacity: {capacity}"), None),
                (format!("({name}) used: "), Some(used)),
                (format!("({name}) num objects: {}", ids.len()), None),
                (format!("({name}) num evictions: {evictions}"), None),
                (format!("({name}) bytes evicted: {bytes_evicted}"), None),
            ]);
        };
        let set_apart: u64 = self.quotas.iter().map(|quota| quota.bytes).sum();
        let capacity = self.limits.capacity;
        describe("global lru", &self.global, capacity - set_apart, capacity);
        let mut quotas: Vec<_> = self.quotas.iter().collect();
        quotas.sort_by_key(|quota| quota.client);
        for quota in quotas {
            describe(&quota.name, &quota.order, quota.bytes, quota.bytes);
        }
        lines
    }

    // What is asked.

    pub(super) fn connect(&mut self, client: ClientId) {
        self.clients.push(client);
    }

    /// In which order the client lets go of what it holds is the store's choice.
    pub(super) fn disconnect(&mut self, client: ClientId, holds: &[ObjectId], now: Now) {
        self.clients.retain(|other| *other != client);
        self.waits.retain(|wait| wait.client != client);
        while let Some(at) = self.quotas.iter().position(|quota| quota.client == client) {
            let quota = self.quotas.remove(at);
            for id in quota.order.ids {
                if self.object(id).holders.is_empty() {
                    self.global.ids.push(id);
                }
            }
        }
        for id in holds {
            if matches!(self.object(*id).life, Life::Creating(_)) {
                self.remove(*id);
            } else {
                self.let_go(client, *id);
            }
        }
        self.feed(now);
    }

    pub(super) fn create(&mut self, client: ClientId, new: &NewObject, now: Now) -> Outcome {
        if self.find(new.id).is_some() {
            return Err(ErrorCode::ObjectExists);
        }
        let Some(size) = new.data_size.checked_add(new.metadata_size) else {
            return Err(ErrorCode::OutOfMemory);
        };
        let room = self.make_quota_room(client, size, new.evict_if_full)
            && self.make_room(size, new.evict_if_full);
        if room {
            self.objects.push(Object {
                id: new.id,
                life: Life::Creating(client),
                data_size: new.data_size,
                metadata_size: new.metadata_size,
                holders: vec![client],
                delete_pending: false,
                release_at_seal: false,
                digest: Digest::default(),
                created_s: now.unix_s,
                construction_s: 0,
            });
            for quota in &mut self.quotas {
                if quota.client == client {
                    quota.order.ids.push(new.id);
                }
            }
        }
        self.feed(now);
        if room {
            Ok(())
        } else {
            Err(ErrorCode::OutOfMemory)
        }
    }

    pub(super) fn abort(&mut self, client: ClientId, id: ObjectId, now: Now) -> bool {
        if !self.is_creating(client, id) {
            self.ignored += 1;
            return false;
        }
        self.remove(id);
        self.feed(now);
        true
    }

    pub(super) fn seal(
        &mut self,
        client: ClientId,
        id: ObjectId,
        digest: Digest,
        now: Now,
    ) -> Outcome {
        if !self.is_creating(client, id) {
            return Err(ErrorCode::ObjectNotFound);
        }
        let release = self.object(id).release_at_seal;
        let info = self.make_sealed(id, digest, now);
        let announcement = Announcement::One(Notification::Sealed(info));
        self.happened.announcements.push(announcement);
        self.hand_out(client, id, release, now);
        Ok(())
    }

    pub(super) fn seal_batch(
        &mut self,
        client: ClientId,
        objects: &[(ObjectId, Digest)],
        now: Now,
    ) {
        let mut sealed = Vec::new();
        let mut notifications = Vec::new();
        for (id, digest) in objects {
            if self.is_creating(client, *id) {
                let info = self.make_sealed(*id, *digest, now);
                notifications.push(Notification::Sealed(info));
                sealed.push(*id);
            }
        }
        if notifications.len() == 1 {
            let announcement = Announcement::One(notifications.remove(0));
            self.happened.announcements.push(announcement);
        } else if !notifications.is_empty() {
            let announcement = Announcement::Batch(notifications);
            self.happened.announcements.push(announcement);
        }
        for id in sealed {
            self.hand_out(client, id, true, now);
        }
    }

    pub(super) fn get(
        &mut self,
        client: ClientId,
        ids: &[ObjectId],
        timeout: Option<Duration>,
        now: Now,
    ) {
        for id in ids {
            match self.find(*id).map(|object| object.life) {
                Some(Life::Sealed) => self.hold(client, *id),
                Some(Life::Out) => _ = self.bring_back(*id, now),
                _ => {}
            }
        }
        let at_once = timeout == Some(Duration::ZERO);
        let mut missing = Vec::new();
        for id in ids {
            let life = self.find(*id).map(|object| object.life);
            let wanted = match life {
                Some(Life::Sealed) => false,
                Some(Life::Returning) => true,
                _ => !at_once,
            };
            if wanted && !missing.contains(id) {
                missing.push(*id);
            }
        }
        let wait = Wait {
            client,
            ids: ids.to_vec(),
            missing,
            deadline: match timeout {
                Some(timeout) if !at_once => now.elapsed.checked_add(timeout),
                _ => None,
            },
            only_for_what_returns: at_once,
        };
        self.waits.push(wait);
        self.answer_complete();
    }

    pub(super) fn expire(&mut self, now: Now) {
        while let Some(deadline) = self.first_to_end().filter(|at| *at <= now.elapsed) {
            let first = |wait: &Wait| wait.deadline == Some(deadline);
            if let Some(at) = self.waits.iter().position(first) {
                let wait = self.waits.remove(at);
                self.answer(&wait);
            }
        }
        if self.retry_at.is_some_and(|at| at <= now.elapsed) {
            self.feed(now);
        }
    }

    pub(super) fn release(&mut self, client: ClientId, id: ObjectId, now: Now) {
        let held = self
            .find(id)
            .filter(|object| object.holders.contains(&client));
        match held.map(|object| object.life) {
            None => self.ignored += 1,
            Some(Life::Creating(_)) => self.object(id).release_at_seal = true,
            Some(_) => {
                self.let_go(client, id);
                self.feed(now);
            }
        }
    }

    pub(super) fn delete(&mut self, id: ObjectId, now: Now) -> Outcome {
        let object = self.find(id).ok_or(ErrorCode::ObjectNotFound)?;
        let (life, held) = (object.life, !object.holders.is_empty());
        match life {
            Life::Creating(_) => {
                self.object(id).delete_pending = true;
                return Err(ErrorCode::ObjectNotSealed);
            }
            Life::Sealed | Life::Returning if held || life == Life::Returning => {
                self.object(id).delete_pending = true;
                return Err(ErrorCode::ObjectInUse);
            }
            Life::Out => self.happened.carries.push((id, false)),
            Life::Sealed | Life::Returning => {}
        }
        self.remove(id);
        self.announce_deleted(id);
        if life == Life::Sealed {
            self.feed(now);
        }
        Ok(())
    }

    pub(super) fn evict(&mut self, wanted: u64) -> u64 {
        self.evict_at_least(wanted, 0)
    }

    fn evict_at_least(&mut self, wanted: u64, objects: usize) -> u64 {
        let end = self.global.ids.len().saturating_sub(objects);
        let mut bytes = 0;
        while (bytes < wanted || self.global.ids.len() > end) && !self.global.ids.is_empty() {
            let id = self.global.ids[0];
            let size = self.object(id).size();
            bytes += size;
            self.global.evictions += 1;
            self.global.bytes_evicted += size;
            self.evict_object(id);
        }
        bytes
    }

    pub(super) fn refresh(&mut self, ids: &[ObjectId]) {
        let quotas = self.quotas.iter_mut().map(|quota| &mut quota.order);
        for order in quotas.chain([&mut self.global]) {
            for id in ids {
                if order.ids.contains(id) {
                    order.ids.retain(|other| other != id);
                    order.ids.push(*id);
                }
            }
        }
    }

    pub(super) fn set_options(&mut self, client: ClientId, name: &str, quota: i64) -> Outcome {
        if quota == 0 {
            return Ok(());
        }
        let has_one = self.quotas.iter().any(|quota| quota.client == client);
        let set_apart: u64 = self.quotas.iter().map(|quota| quota.bytes).sum();
        let capacity = i128::from(self.limits.capacity);
        let left = capacity - i128::from(set_apart) - i128::from(quota);
        if has_one || quota < 0 || left * 10 < capacity * 3 {
            return Err(ErrorCode::OutOfMemory);
        }
        self.quotas.push(Quota {
            client,
            name: name.to_owned(),
            bytes: quota as u64,
            order: Order::default(),
        });
        Ok(())
    }

    pub(super) fn restored(&mut self, id: ObjectId, now: Now) {
        let object = self.object(id);
        object.life = Life::Sealed;
        object.construction_s = now.unix_s - object.created_s;
        self.happened.carries.push((id, false));
        self.serve(id);
        let object = self.object(id);
        if object.holders.is_empty() {
            if object.delete_pending {
                self.remove(id);
                self.announce_deleted(id);
            } else {
                self.global.ids.push(id);
            }
            self.feed(now);
        }
    }

    pub(super) fn restore_failed(&mut self, id: ObjectId, lost: bool, now: Now) {
        let object = self.object(id);
        object.life = Life::Out;
        let gone = lost || object.delete_pending;
        if gone {
            self.remove(id);
            self.happened.carries.push((id, false));
            self.announce_deleted(id);
        }
        for wait in &mut self.waits {
            if wait.only_for_what_returns {
                wait.missing.retain(|other| *other != id);
            }
        }
        self.answer_complete();
        if gone {
            self.feed(now);
        } else if self.is_awaited(id) {
            self.retry_at = Some(now.elapsed + Duration::from_secs(1));
        }
    }

    pub(super) fn spill_failed(&mut self, id: ObjectId) {
        if self.find(id).is_some_and(|object| object.life == Life::Out) {
            self.remove(id);
            self.announce_deleted(id);
        }
    }

    // What follows.

    fn object(&mut self, id: ObjectId) -> &mut Object {
        let object = self.objects.iter_mut().find(|object| object.id == id);
        object.expect("the object is there")
    }

    fn is_creating(&self, client: ClientId, id: ObjectId) -> bool {
        let object = self.find(id);
        object.is_some_and(|object| object.life == Life::Creating(client))
    }

    fn forget_place(&mut self, id: ObjectId) {
        self.global.ids.retain(|other| *other != id);
        for quota in &mut self.quotas {
            quota.order.ids.retain(|other| *other != id);
        }
    }

    fn remove(&mut self, id: ObjectId) {
        self.forget_place(id);
        self.objects.retain(|object| object.id != id);
    }

    fn announce_deleted(&mut self, id: ObjectId) {
        let announcement = Announcement::One(Notification::Deleted(id));
        self.happened.announcements.push(announcement);
    }

    fn evict_object(&mut self, id: ObjectId) {
        if self.limits.external {
            self.forget_place(id);
            self.object(id).life = Life::Out;
            self.happened.carries.push((id, true));
        } else {
            self.remove(id);
            self.announce_deleted(id);
        }
    }

    fn make_quota_room(&mut self, client: ClientId, size: u64, may_evict: bool) -> bool {
        let Some(at) = self.quotas.iter().position(|quota| quota.client == client) else {
            return true;
        };
        if size > self.quotas[at].bytes {
            return false;
        }
        loop {
            let used = self.bytes_of(&self.quotas[at].order);
            if used + size <= self.quotas[at].bytes {
                return true;
            }
            if !may_evict {
                return false;
            }
            let order = &mut self.quotas[at].order;
            let oldest = order.ids.remove(0);
            let object = self.find(oldest).expect("the object is there");
            let (size, held) = (object.size(), !object.holders.is_empty());
            let order = &mut self.quotas[at].order;
            order.evictions += 1;
            order.bytes_evicted += size;
            if !held {
                self.evict_object(oldest);
            }
        }
    }

    fn fits(&self, size: u64) -> bool {
        self.used().saturating_add(size) <= self.limits.capacity
    }

    fn make_room(&mut self, size: u64, may_evict: bool) -> bool {
        let full = |model: &Self| model.objects.len() >= model.limits.max_objects;
        if full(self) && self.limits.external {
            return false;
        }
        if may_evict && (full(self) || !self.fits(size)) {
            let missing = self.used().saturating_add(size);
            let missing = missing.saturating_sub(self.limits.capacity);
            // Nothing is evicted where that would not be enough.
            if missing <= self.bytes_of(&self.global) {
                let places = match full(self) {
                    true => (self.limits.max_objects / 100).max(1),
                    false => 0,
                };
                let bytes = match self.fits(size) {
                    true => 0,
                    false => missing.max(self.limits.capacity / 5),
                };
                self.evict_at_least(bytes, places);
            }
        }
        !full(self) && self.fits(size)
    }

    fn bring_back(&mut self, id: ObjectId, now: Now) -> bool {
        let size = self.object(id).size();
        let evictable = self.bytes_of(&self.global);
        if self.used() - evictable + size > self.limits.capacity {
            return false;
        }
        if !self.fits(size) {
            let missing = self.used() + size - self.limits.capacity;
            self.evict(missing.max(self.limits.capacity / 5));
        }
        let object = self.object(id);
        object.life = Life::Returning;
        object.created_s = now.unix_s;
        self.happened.restores.push(id);
        true
    }

    fn is_awaited(&self, id: ObjectId) -> bool {
        self.waits.iter().any(|wait| wait.missing.contains(&id))
    }

    /// Brings back what is waited for, the smallest first, as long as it fits.
    fn feed(&mut self, now: Now) {
        self.retry_at = None;
        loop {
            let smallest = self
                .objects
                .iter()
                .filter(|object| object.life == Life::Out && self.is_awaited(object.id))
                .min_by_key(|object| (object.size(), object.id));
            let Some(id) = smallest.map(|object| object.id) else {
                return;
            };
            if !self.bring_back(id, now) {
                return;
            }
        }
    }

    fn make_sealed(&mut self, id: ObjectId, digest: Digest, now: Now) -> ObjectInfo {
        let at = self.objects.iter().position(|object| object.id == id);
        let mut object = self.objects.remove(at.expect("the object is there"));
        object.life = Life::Sealed;
        object.digest = digest;
        object.construction_s = now.unix_s - object.created_s;
        let info = object.info();
        let creating = |object: &Object| matches!(object.life, Life::Creating(_));
        let behind = self.objects.iter().position(creating);
        let behind = behind.unwrap_or(self.objects.len());
        self.objects.insert(behind, object);
        info
    }

    /// Serves those who wait for a new object, and lets its creator go where that is asked for and
    /// it was not among them.
    fn hand_out(&mut self, creator: ClientId, id: ObjectId, release: bool, now: Now) {
        let mut waits = self.waits.iter();
        let wants = waits.any(|wait| wait.client == creator && wait.missing.contains(&id));
        self.serve(id);
        if release && !wants {
            self.let_go(creator, id);
            self.feed(now);
        }
    }

    fn serve(&mut self, id: ObjectId) {
        let mut served = Vec::new();
        for wait in &mut self.waits {
            if wait.missing.contains(&id) {
                wait.missing.retain(|other| *other != id);
                served.push(wait.client);
            }
        }
        for client in served {
            self.hold(client, id);
        }
        self.answer_complete();
    }

    fn answer_complete(&mut self) {
        let waits = std::mem::take(&mut self.waits);
        let (complete, rest) = waits.into_iter().partition(|wait| wait.missing.is_empty());
        self.waits = rest;
        let complete: Vec<_> = complete;
        for wait in complete {
            self.answer(&wait);
        }
    }

    fn answer(&mut self, wait: &Wait) {
        let found = wait.ids.iter().map(|id| {
            let object = self.find(*id);
            let found = object.is_some_and(|object| {
                object.life == Life::Sealed && object.holders.contains(&wait.client)
            });
            (*id, found)
        });
        let reply = (wait.client, found.collect());
        self.happened.replies.push(reply);
    }

    fn hold(&mut self, client: ClientId, id: ObjectId) {
        self.global.ids.retain(|other| *other != id);
        let holders = &mut self.object(id).holders;
        if !holders.contains(&client) {
            holders.push(client);
        }
    }

    fn let_go(&mut self, client: ClientId, id: ObjectId) {
        let object = self.object(id);
        object.holders.retain(|other| *other != client);
        if !object.holders.is_empty() {
            return;
        }
        if object.delete_pending {
            self.remove(id);
            self.announce_deleted(id);
            return;
        }
        let owned = self
            .quotas
            .iter()
            .any(|quota| quota.order.ids.contains(&id));
        if !owned {
            self.global.ids.push(id);
        }
    }
}
