//! Owns which operations may be sent now and which wait for earlier ones.
//!
//! - Operations are admitted in order and finished ones leave in the same order, however they were answered.
//! - An operation waits for the last admitted one on each of its lanes and for the append that makes the entry it
//!   names; for nothing else.
//! - What is held is bounded by the caller, who admits while [`Schedule::len`] is below its window.

use std::collections::{HashMap, VecDeque};

use super::operation::{AppendNumber, Lane, Operation};

/// The place of an operation in the order of the run, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place(usize);

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Operations under way, with what `A` answered them.
#[derive(Debug)]
pub struct Schedule<A> {
    first: usize,
    slots: VecDeque<Slot<A>>,
    last_on_lane: HashMap<Lane, Place>,
    makers: HashMap<AppendNumber, Place>,
    appends: usize,
    ready: VecDeque<Place>,
}

#[derive(Debug)]
struct Slot<A> {
    operation: Operation,
    makes: Option<AppendNumber>,
    waits_for: usize,
    dependents: Vec<Place>,
    answer: Option<A>,
}

impl<A> Default for Schedule<A> {
    fn default() -> Self {
        Self {
            first: 0,
            slots: VecDeque::new(),
            last_on_lane: HashMap::new(),
            makers: HashMap::new(),
            appends: 0,
            ready: VecDeque::new(),
        }
    }
}

impl<A> Schedule<A> {
    /// Operations admitted that have not left yet.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether nothing is under way.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Takes the next operation of the run.
    pub fn admit(&mut self, operation: Operation) {
        let place = Place(self.first + self.slots.len());
        let mut waits_for = 0;
        for lane in operation.lanes() {
            if let Some(before) = self.last_on_lane.insert(lane, place) {
                waits_for += self.add_dependent(before, place);
            }
        }
        if let Some(maker) = operation.needs().and_then(|made| self.makers.get(&made.by).copied()) {
            waits_for += self.add_dependent(maker, place);
        }
        let makes = matches!(operation, Operation::Append(_)).then(|| {
            let number = AppendNumber(self.appends);
            self.appends += 1;
            self.makers.insert(number, place);
            number
        });
        if waits_for == 0 {
            self.ready.push_back(place);
        }
        self.slots.push_back(Slot { operation, makes, waits_for, dependents: Vec::new(), answer: None });
    }

    /// The next operation that waits for nothing, with the number of the append if it is one; each is given out once.
    pub fn next_ready(&mut self) -> Option<(Place, Option<AppendNumber>, &Operation)> {
        let place = self.ready.pop_front()?;
        let slot = &self.slots[place.0 - self.first];
        Some((place, slot.makes, &slot.operation))
    }

    /// An operation that has not left yet.
    pub fn operation(&self, place: Place) -> &Operation {
        &self.slots[place.0 - self.first].operation
    }

    /// Notes the answer to an operation given out before, and frees what waited for it.
    pub fn complete(&mut self, place: Place, answer: A) {
        let slot = &mut self.slots[place.0 - self.first];
        assert!(slot.answer.is_none(), "an operation is answered once");
        slot.answer = Some(answer);
        for dependent in std::mem::take(&mut slot.dependents) {
            let waiting = &mut self.slots[dependent.0 - self.first];
            waiting.waits_for -= 1;
            if waiting.waits_for == 0 {
                self.ready.push_back(dependent);
            }
        }
    }

    /// The oldest operation with its answer, once it has one.
    pub fn pop_finished(&mut self) -> Option<(Operation, A)> {
        self.slots.front()?.answer.as_ref()?;
        let slot = self.slots.pop_front()?;
        let place = Place(self.first);
        self.first += 1;
        for lane in slot.operation.lanes() {
            if self.last_on_lane.get(&lane) == Some(&place) {
                self.last_on_lane.remove(&lane);
            }
        }
        if let Some(number) = slot.makes {
            self.makers.remove(&number);
        }
        slot.answer.map(|answer| (slot.operation, answer))
    }

    /// Makes `place` wait for `before`, unless that was answered already; how many waits were added.
    fn add_dependent(&mut self, before: Place, place: Place) -> usize {
        let slot = &mut self.slots[before.0 - self.first];
        // Two lanes can lead to the same operation; it is one wait, and it was pushed last.
        if slot.answer.is_some() || slot.dependents.last() == Some(&place) {
            return 0;
        }
        slot.dependents.push(place);
        1
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use fanfold_protocol::UserId;
    use fanfold_protocol::message::Audience;

    use super::*;
    use crate::workload::operation::{Made, Post, Relation};

    fn post(owner: u64, reference: Option<(u64, usize)>) -> Operation {
        let reference = reference.map(|(owner, by)| Made { owner: UserId(owner), by: AppendNumber(by) });
        Operation::Append(Post {
            owner: UserId(owner),
            author: None,
            audience: Audience::Public,
            reference,
            payload: Bytes::new(),
        })
    }

    fn ready(schedule: &mut Schedule<u32>) -> Vec<usize> {
        std::iter::from_fn(|| schedule.next_ready().map(|(place, _, _)| place.0)).collect()
    }

    #[test]
    fn posts_of_one_owner_go_out_one_after_the_other() {
        let mut schedule = Schedule::default();
        for owner in [1, 2, 1] {
            schedule.admit(post(owner, None));
        }
        assert_eq!(ready(&mut schedule), [0, 1]);
        schedule.complete(Place(1), 11);
        assert_eq!(ready(&mut schedule), Vec::<usize>::new());
        schedule.complete(Place(0), 10);
        assert_eq!(ready(&mut schedule), [2]);
    }

    #[test]
    fn a_repost_waits_for_the_entry_it_repeats_and_for_nothing_else() {
        let mut schedule = Schedule::default();
        schedule.admit(post(1, None));
        schedule.admit(post(2, None));
        schedule.admit(post(3, Some((1, 0))));
        assert_eq!(ready(&mut schedule), [0, 1]);
        schedule.complete(Place(0), 0);
        assert_eq!(ready(&mut schedule), [2]);
    }

    #[test]
    fn a_reply_to_oneself_waits_once_for_the_same_entry() {
        let mut schedule = Schedule::default();
        schedule.admit(post(1, None));
        schedule.admit(post(1, Some((1, 0))));
        assert_eq!(ready(&mut schedule), [0]);
        schedule.complete(Place(0), 0);
        assert_eq!(ready(&mut schedule), [1]);
    }

    #[test]
    fn answers_leave_in_the_order_of_the_run() {
        let mut schedule = Schedule::default();
        for owner in 0..3 {
            schedule.admit(post(owner, None));
        }
        assert_eq!(ready(&mut schedule), [0, 1, 2]);
        schedule.complete(Place(2), 2);
        schedule.complete(Place(1), 1);
        assert!(schedule.pop_finished().is_none());
        schedule.complete(Place(0), 0);
        let left: Vec<_> = std::iter::from_fn(|| schedule.pop_finished()).map(|(_, answer)| answer).collect();
        assert_eq!(left, [0, 1, 2]);
        assert!(schedule.is_empty());
        // What has left is waited for by nobody.
        schedule.admit(post(2, Some((0, 0))));
        assert_eq!(ready(&mut schedule), [3]);
    }

    #[test]
    fn a_follow_waits_for_a_block_from_either_side() {
        let mut schedule = Schedule::default();
        let (user, target) = (UserId(1), UserId(2));
        schedule.admit(Operation::Relate { user, target, change: Relation::Block });
        schedule.admit(Operation::Follow { reader: target, owners: vec![user] });
        schedule.admit(Operation::Follow { reader: user, owners: vec![target] });
        assert_eq!(ready(&mut schedule), [0]);
        schedule.complete(Place(0), 0);
        assert_eq!(ready(&mut schedule), [1, 2]);
    }
}
