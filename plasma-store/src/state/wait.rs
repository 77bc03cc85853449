//! Gets that wait for objects.

use std::collections::BTreeSet;
use std::time::Duration;

use foldhash::HashMap;
use plasma_core::ObjectId;

use super::ClientId;

/// One get that waits. Numbers are given in order of arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct WaitId(u64);

/// How long a get waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Only for what is on its way back from the external store.
    ForRestores,
    Until(Duration),
    Endless,
}

#[derive(Debug)]
pub(crate) struct Wait {
    pub(crate) client: ClientId,
    /// As requested, duplicates included.
    pub(crate) ids: Vec<ObjectId>,
    cost: usize,
    patience: Patience,
    /// Distinct objects that are not there yet.
    missing: usize,
}

/// All gets that wait, by object, by deadline and by client.
#[derive(Debug, Default)]
pub(crate) struct Waits {
    next: u64,
    waits: HashMap<WaitId, Wait>,
    by_object: BTreeSet<(ObjectId, WaitId)>,
    by_deadline: BTreeSet<(Duration, WaitId)>,
    by_client: BTreeSet<(ClientId, WaitId)>,
    /// What the waits of each client cost together; of those that have any.
    costs: HashMap<ClientId, usize>,
}

impl Waits {
    /// Begins a wait for `missing`, which are distinct and not empty, on behalf of a get of `ids`;
    /// it counts as `cost`.
    pub(crate) fn begin(
        &mut self,
        client: ClientId,
        ids: Vec<ObjectId>,
        cost: usize,
        missing: &BTreeSet<ObjectId>,
        patience: Patience,
    ) {
        let id = WaitId(self.next);
        self.next += 1;
        self.by_object
            .extend(missing.iter().map(|object| (*object, id)));
        if let Patience::Until(deadline) = patience {
            self.by_deadline.insert((deadline, id));
        }
        self.by_client.insert((client, id));
        *self.costs.entry(client).or_default() += cost;
        let wait = Wait {
            client,
            ids,
            cost,
            patience,
            missing: missing.len(),
        };
        self.waits.insert(id, wait);
    }

    /// The waits for an object, in order of arrival, with their clients.
    pub(crate) fn for_object(&self, object: &ObjectId) -> Vec<(WaitId, ClientId)> {
        let all = (*object, WaitId(0))..=(*object, WaitId(u64::MAX));
        self.by_object
            .range(all)
            .filter_map(|(_, id)| Some((*id, self.waits.get(id)?.client)))
            .collect()
    }

    pub(crate) fn anyone_waits_for(&self, object: &ObjectId) -> bool {
        let all = (*object, WaitId(0))..=(*object, WaitId(u64::MAX));
        self.by_object.range(all).next().is_some()
    }

    /// One object that a wait is for has come; the wait, if that was the last.
    pub(crate) fn satisfy(&mut self, id: WaitId, object: &ObjectId) -> Option<Wait> {
        if !self.by_object.remove(&(*object, id)) {
            return None;
        }
        let wait = self.waits.get_mut(&id)?;
        wait.missing -= 1;
        if wait.missing == 0 {
            self.end(id)
        } else {
            None
        }
    }

    /// One object did not come back from the external store; the wait, if it is only for such and
    /// this was the last.
    pub(crate) fn disappoint(&mut self, id: WaitId, object: &ObjectId) -> Option<Wait> {
        let wait = self.waits.get(&id)?;
        if wait.patience == Patience::ForRestores {
            self.satisfy(id, object)
        } else {
            None
        }
    }

    /// Ends a wait, whatever is still missing.
    fn end(&mut self, id: WaitId) -> Option<Wait> {
        let wait = self.waits.remove(&id)?;
        if wait.missing > 0 {
            for object in &wait.ids {
                self.by_object.remove(&(*object, id));
            }
        }
        if let Patience::Until(deadline) = wait.patience {
            self.by_deadline.remove(&(deadline, id));
        }
        self.by_client.remove(&(wait.client, id));
        if let Some(cost) = self.costs.get_mut(&wait.client) {
            *cost -= wait.cost;
            if *cost == 0 {
                self.costs.remove(&wait.client);
            }
        }
        Some(wait)
    }

    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        self.by_deadline.first().map(|(deadline, _)| *deadline)
    }

    /// Ends the first wait whose time is over.
    pub(crate) fn expire(&mut self, now: Duration) -> Option<Wait> {
        let (deadline, id) = *self.by_deadline.first()?;
        if deadline > now { None } else { self.end(id) }
    }

    pub(crate) fn end_all_of(&mut self, client: ClientId) {
        let all = (client, WaitId(0))..=(client, WaitId(u64::MAX));
        let ids: Vec<_> = self.by_client.range(all).map(|(_, id)| *id).collect();
        for id in ids {
            self.end(id);
        }
    }

    /// What a client's waits cost together.
    pub(crate) fn cost_of(&self, client: ClientId) -> usize {
        self.costs.get(&client).copied().unwrap_or_default()
    }

    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn len(&self) -> usize {
        self.waits.len()
    }
}
