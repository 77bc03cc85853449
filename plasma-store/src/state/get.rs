//! Gets, answered at once or when what they wait for is there.

use std::collections::BTreeSet;
use std::time::Duration;

use plasma_core::ObjectId;
use plasma_core::protocol::message::{ObjectSpec, Reply};

use super::readers::Readers;
use super::table::{Slot, Stage};
use super::wait::{Patience, Wait};
use super::{ClientId, Effects, Now, State};

/// What a get that waits counts for beside its ids: it is kept, and its answer will be.
pub(super) const WAIT_COST: usize = 64;

/// A client asked for more than the store keeps for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more gets that wait, or for more objects, than one client may have")]
pub(crate) struct TooManyWaits;

impl<R: Readers> State<R> {
    /// Gives a client objects, now or when they are all there or when time is up: the answer is
    /// among the effects then. A timeout of `None` waits for ever.
    pub(crate) fn get(
        &mut self,
        client: ClientId,
        ids: Vec<ObjectId>,
        timeout: Option<Duration>,
        now: Now,
        fx: &mut Effects,
    ) -> Result<(), TooManyWaits> {
        let mut missing = BTreeSet::new();
        let mut restoring = BTreeSet::new();
        let mut located = Vec::with_capacity(ids.len());
        let mut looked = false;
        for id in &ids {
            let mut spec = None;
            let found = self.table.get(id);
            match found.map(|(slot, object)| (object.stage, slot, object)) {
                Some((Stage::Sealed, slot, object)) => {
                    spec = Some(object.spec());
                    self.add_ref(client, slot);
                }
                Some((Stage::Spilled, slot, object)) => {
                    let size = object.size();
                    if !looked && self.lacks_room(size) && !self.read.is_empty() {
                        // They may have let go of what they were seen to hold.
                        self.look_at_readers(fx);
                        looked = true;
                    }
                    if self.start_restore(slot, now, fx) {
                        restoring.insert(*id);
                    } else if timeout != Some(Duration::ZERO) {
                        self.starved.insert((size, *id));
                    }
                    missing.insert(*id);
                }
                Some((Stage::Restoring, ..)) => {
                    restoring.insert(*id);
                    missing.insert(*id);
                }
                Some((Stage::Creating, ..)) | None => {
                    missing.insert(*id);
                }
            }
            if spec.is_some() {
                self.hits += 1;
            } else {
                self.misses += 1;
            }
            located.push((*id, spec));
        }
        // What is on its way back from the external store is there, only not quite yet.
        if timeout == Some(Duration::ZERO) {
            missing = restoring;
        }
        if missing.is_empty() {
            fx.replies.push((client, self.get_reply(located)));
            return Ok(());
        }
        let cost = ids.len() + WAIT_COST;
        let most = self.limits.max_waiting_ids.saturating_add(WAIT_COST);
        if self.waits.cost_of(client) + cost > most {
            return Err(TooManyWaits);
        }
        let patience = match timeout {
            Some(Duration::ZERO) => Patience::ForRestores,
            Some(timeout) => now
                .elapsed
                .checked_add(timeout)
                .map_or(Patience::Endless, Patience::Until),
            None => Patience::Endless,
        };
        self.waits.begin(client, ids, cost, &missing, patience);
        Ok(())
    }

    /// When [`expire`](Self::expire) is to be called next.
    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        let deadlines = [self.waits.next_deadline(), self.next_look()];
        deadlines.into_iter().flatten().min()
    }

    /// Answers the gets whose time is up, and brings back what has room by now.
    pub(crate) fn expire(&mut self, now: Now, fx: &mut Effects) {
        while let Some(wait) = self.waits.expire(now.elapsed) {
            self.answer(wait, fx);
        }
        self.look_again(now, fx);
    }

    /// Gives a sealed object to everyone who waits for it; who that was. What its creator gets
    /// that way it holds until it lets go of it again.
    pub(super) fn serve_waits(&mut self, slot: Slot, fx: &mut Effects) -> Vec<ClientId> {
        let Some(id) = self.table.at(slot).map(|object| object.id) else {
            return Vec::new();
        };
        let waits = self.waits.for_object(&id);
        for (wait, client) in &waits {
            self.add_ref(*client, slot);
            if let Some(wait) = self.waits.satisfy(*wait, &id) {
                self.answer(wait, fx);
            }
        }
        waits.into_iter().map(|(_, client)| client).collect()
    }

    pub(super) fn answer(&self, wait: Wait, fx: &mut Effects) {
        let holds = self.clients.get(&wait.client).map(|client| &client.holds);
        let located = wait.ids.iter().map(|id| {
            // What came for this wait is held for its client since.
            let found = self.table.get(id).filter(|(slot, object)| {
                object.stage == Stage::Sealed && holds.is_some_and(|holds| holds.contains(slot))
            });
            (*id, found.map(|(_, object)| object.spec()))
        });
        fx.replies
            .push((wait.client, self.get_reply(located.collect())));
    }

    fn get_reply(&self, objects: Vec<(ObjectId, Option<ObjectSpec>)>) -> Reply<'static> {
        let found = objects.iter().any(|(_, spec)| spec.is_some());
        Reply::Get {
            objects: objects.into(),
            segments: found.then(|| self.segment()).into_iter().collect(),
        }
    }
}
