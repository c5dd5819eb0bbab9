//! Which delivery is sent next.
//!
//! * To one target one at a time, in the order of events.
//! * Of one owner so many at a time, however many endpoints they have.
//! * Next is the owner who has waited longest since one of theirs was taken, then the endpoint, then the oldest delivery.

use std::collections::{BTreeMap, HashMap, VecDeque};

use schemas::ids::DeliveryId;

use crate::channel::DueDelivery;

/// Whose a target is: a customer's number; 0 is the operator.
pub(super) type OwnerKey = i64;

/// Deliveries that are due, and what is under way.
#[derive(Debug)]
pub(super) struct Queue {
    /// Of one owner at one time.
    per_owner: usize,
    waiting: BTreeMap<String, TargetQueue>,
    /// By target: the delivery under way.
    under_way: HashMap<String, DeliveryId>,
    owners: HashMap<OwnerKey, Owner>,
    /// By target: the turn in which one was taken last.
    taken: HashMap<String, u64>,
    turn: u64,
}

/// What waits for one target.
#[derive(Debug)]
struct TargetQueue {
    owner: OwnerKey,
    due: VecDeque<DueDelivery>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Owner {
    under_way: usize,
    /// The turn in which one of theirs was taken last.
    taken: u64,
}

impl Queue {
    pub(super) fn new(per_owner: usize) -> Queue {
        Queue {
            per_owner,
            waiting: BTreeMap::new(),
            under_way: HashMap::new(),
            owners: HashMap::new(),
            taken: HashMap::new(),
            turn: 0,
        }
    }

    /// Replaces what waits.
    pub(super) fn fill(&mut self, due: Vec<(OwnerKey, DueDelivery)>) {
        self.waiting.clear();
        for (owner, delivery) in due {
            if self.under_way.get(&delivery.queue) == Some(&delivery.id) {
                continue;
            }
            let target = delivery.queue.clone();
            let waiting = self.waiting.entry(target).or_insert_with(|| TargetQueue {
                owner,
                due: VecDeque::new(),
            });
            waiting.due.push_back(delivery);
        }
    }

    /// Takes the next delivery that can be sent now; `None` where there is none.
    pub(super) fn take(&mut self) -> Option<(OwnerKey, DueDelivery)> {
        let target = self
            .waiting
            .iter()
            .filter(|(target, _)| !self.under_way.contains_key(*target))
            .filter_map(|(target, waiting)| {
                let owner = self.owners.get(&waiting.owner).copied().unwrap_or_default();
                let taken = self.taken.get(target).copied().unwrap_or_default();
                let head = waiting.due.front()?;
                (owner.under_way < self.per_owner).then_some(((owner.taken, taken, head.id), target))
            })
            .min()
            .map(|(_, target)| target.clone())?;
        let waiting = self.waiting.get_mut(&target)?;
        let owner = waiting.owner;
        let due = waiting.due.pop_front()?;
        if waiting.due.is_empty() {
            self.waiting.remove(&target);
        }
        self.turn += 1;
        let of_owner = self.owners.entry(owner).or_default();
        of_owner.under_way += 1;
        of_owner.taken = self.turn;
        self.under_way.insert(target.clone(), due.id);
        self.taken.insert(target, self.turn);
        Some((owner, due))
    }

    /// A delivery that was taken is no longer under way.
    pub(super) fn finish(&mut self, owner: OwnerKey, due: &DueDelivery) {
        self.under_way.remove(&due.queue);
        if let Some(owner) = self.owners.get_mut(&owner) {
            owner.under_way -= 1;
        }
    }

    /// Nothing more is sent to where nobody answered.
    pub(super) fn forget(&mut self, target: &str) {
        self.waiting.remove(target);
    }

    /// Nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.waiting.clear();
    }
}

#[cfg(test)]
mod tests {
    use schemas::ids::EventId;

    use super::*;

    fn due(id: i64, target: &str) -> DueDelivery {
        DueDelivery {
            id: DeliveryId(id),
            event: EventId(id),
            target: target.to_owned(),
            queue: target.to_owned(),
            attempts: 0,
            deferred: 0,
            created_at_ms: 0,
        }
    }

    #[test]
    fn an_owner_with_much_waits_behind_one_with_little() {
        let mut queue = Queue::new(2);
        let mut all = Vec::new();
        for id in 1..=400 {
            all.push((1, due(id, ["a1", "a2", "a3", "a4"][usize::try_from(id).unwrap() % 4])));
        }
        all.push((2, due(401, "b1")));
        all.push((2, due(402, "b1")));
        queue.fill(all);
        let taken: Vec<(i64, DueDelivery)> = std::iter::from_fn(|| queue.take()).collect();
        let ids: Vec<i64> = taken.iter().map(|(_, due)| due.id.0).collect();
        assert_eq!(ids, [1, 401, 2], "two of the first owner, one per endpoint");
        // What becomes free goes to whom it belonged, the other endpoints first.
        queue.finish(taken[0].0, &taken[0].1);
        assert_eq!(queue.take().unwrap().1.id.0, 3);
        assert!(queue.take().is_none());
        queue.finish(taken[1].0, &taken[1].1);
        assert_eq!(queue.take().unwrap().1.id.0, 402);
        queue.fill(vec![(1, due(2, "a3")), (1, due(6, "a3"))]);
        assert!(queue.take().is_none(), "what is under way is not taken again");
        queue.finish(taken[2].0, &taken[2].1);
        assert_eq!(queue.take().unwrap().1.id.0, 6);
    }
}
