//! Owns the check that what was done to one timeline, by many at the same time, is linearizable: there is an order of all
//! operations, each between its call and its answer, in which every answer is right. After Wing and Gong, "Testing and
//! verifying concurrent objects" (1993), with Lowe's memory of states that were tried.
//!
//! - The state is the live entries with their ids, which only grow. An append adds the newest, a delete takes one away
//!   and answers whether it was there, a page shows the newest so many.
//! - A page without tags may show an id whose append nobody knows: it cannot be deleted then, and the last page has its tag.
//! - An append or delete whose outcome nobody knows counts if the last page, which shows everything, says that it was done.
//!   Then it may have been done at any time after its call.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use fanfold_client::EntryId;

/// What was done, with what was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// An entry with a payload of its own; its id, unless nobody knows.
    Append { tag: u64, id: Option<EntryId> },
    /// Whether it existed, unless nobody knows.
    Delete { id: EntryId, existed: Option<bool> },
    /// Ids and tags, newest first, of at most so many entries.
    Page { limit: usize, shown: Vec<(EntryId, u64)> },
    /// The same without tags.
    Ids { limit: usize, shown: Vec<EntryId> },
}

/// Something done to a timeline, from its call to its answer, in any unit of time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub called: u64,
    pub answered: u64,
    pub done: Done,
}

/// Why a history is not linearizable.
#[derive(Debug)]
#[expect(dead_code, reason = "it is for whoever reads it")]
pub struct Contradiction {
    /// How many operations have an order in which all is right, at most.
    explained: usize,
    /// Those that can come next in it, none of which fits.
    stuck_at: Vec<Event>,
    live: Vec<(EntryId, u64)>,
    /// Everything at about that time.
    around: Vec<String>,
}

/// How long before and after it is about the same time.
const AROUND: u64 = 2_000_000_000;

/// Checks the history of one timeline. `last` is everything it shows when nothing is under way any more.
pub fn check(events: Vec<Event>, last: Vec<(EntryId, u64)>) -> Result<usize, Contradiction> {
    let end = events.iter().map(|event| event.answered.max(event.called)).max().unwrap_or_default() + 1;
    let all = events.clone();
    let mut events = known(events, &last, end);
    let limit = usize::MAX;
    events.push(Event { called: end + 1, answered: end + 2, done: Done::Page { limit, shown: last } });
    events.sort_by_key(|event| (event.called, event.answered));
    Search::new(events).run().map_err(|mut found| {
        found.around = around(all, &found.stuck_at);
        found
    })
}

/// What was done at about the time of some of it.
fn around(mut all: Vec<Event>, some: &[Event]) -> Vec<String> {
    let from = some.iter().map(|event| event.called).min().unwrap_or_default().saturating_sub(AROUND);
    let to = some.iter().map(|event| event.answered).max().unwrap_or_default().saturating_add(AROUND);
    all.retain(|event| event.answered >= from && event.called <= to);
    all.sort_by_key(|event| event.called);
    all.iter().map(|event| format!("{event:?}")).collect()
}

/// The events that took place, with what pages say of those whose outcome nobody knew: they were done when the first page
/// was answered that says so.
fn known(events: Vec<Event>, last: &[(EntryId, u64)], end: u64) -> Vec<Event> {
    let mut appended: BTreeMap<u64, (EntryId, u64)> =
        last.iter().map(|(id, tag)| (*tag, (*id, end))).collect();
    let live: BTreeSet<EntryId> = last.iter().map(|(id, _)| *id).collect();
    let mut pages = Vec::new();
    for event in &events {
        let (limit, ids): (_, Vec<EntryId>) = match &event.done {
            Done::Page { limit, shown } => (limit, shown.iter().map(|(id, _)| *id).collect()),
            Done::Ids { limit, shown } => (limit, shown.clone()),
            _ => continue,
        };
        if let Done::Page { shown, .. } = &event.done {
            for (id, tag) in shown {
                let seen = appended.entry(*tag).or_insert((*id, end));
                seen.1 = seen.1.min(event.answered);
            }
        }
        let reaches_to = ids.last().filter(|_| ids.len() == *limit).copied();
        pages.push((event.called, event.answered, reaches_to, ids));
    }
    let lacks = |id: EntryId, called: u64| {
        let without = pages.iter().filter(|(at, _, to, shown)| {
            *at >= called && to.is_none_or(|to| to < id) && !shown.contains(&id)
        });
        without.map(|(_, answered, ..)| *answered).min().unwrap_or(end)
    };
    let taken = events.into_iter().filter_map(|mut event| {
        match &mut event.done {
            Done::Append { tag, id: id @ None } => {
                let (known, answered) = appended.get(tag)?;
                (*id, event.answered) = (Some(*known), *answered);
            }
            Done::Delete { id, existed: None } if live.contains(id) => return None,
            Done::Delete { id, existed: None } => event.answered = lacks(*id, event.called),
            _ => {}
        }
        Some(event)
    });
    taken.collect()
}

/// The live entries of a timeline, and the newest id it ever gave.
#[derive(Debug, Default)]
struct Timeline {
    live: BTreeMap<EntryId, u64>,
    newest: Option<EntryId>,
}

/// How to take something back.
#[derive(Clone, Copy)]
enum Undo {
    Append { id: EntryId, newest: Option<EntryId> },
    Delete { id: EntryId, tag: u64 },
    Nothing,
}

impl Timeline {
    /// Does it, if the answer is right.
    fn take(&mut self, done: &Done) -> Option<Undo> {
        match done {
            Done::Append { tag, id } => {
                let id = id.filter(|id| self.newest < Some(*id))?;
                self.live.insert(id, *tag);
                Some(Undo::Append { id, newest: self.newest.replace(id) })
            }
            Done::Delete { id, existed } => {
                let tag = self.live.get(id).copied();
                if existed.is_some_and(|existed| existed != tag.is_some()) {
                    return None;
                }
                self.live.remove(id);
                Some(tag.map_or(Undo::Nothing, |tag| Undo::Delete { id: *id, tag }))
            }
            Done::Page { limit, shown } => {
                let newest = self.live.iter().rev().take(*limit).map(|(id, tag)| (*id, *tag));
                newest.eq(shown.iter().copied()).then_some(Undo::Nothing)
            }
            Done::Ids { limit, shown } => {
                self.live.keys().rev().take(*limit).eq(shown).then_some(Undo::Nothing)
            }
        }
    }

    fn undo(&mut self, undo: Undo) {
        match undo {
            Undo::Append { id, newest } => {
                self.live.remove(&id);
                self.newest = newest;
            }
            Undo::Delete { id, tag } => drop(self.live.insert(id, tag)),
            Undo::Nothing => {}
        }
    }
}

/// A search for an order.
struct Search {
    /// By their calls.
    events: Vec<Event>,
    is_done: Vec<bool>,
    /// What is before it is done.
    first: usize,
    state: Timeline,
    /// The sets of what was done that were gone on from: the state follows from them.
    tried: HashSet<(usize, Vec<usize>)>,
}

/// A step that was taken, how to take it back, and what else could have been.
struct Step {
    event: usize,
    undo: Undo,
    first: usize,
    others: Vec<usize>,
}

impl Search {
    fn new(events: Vec<Event>) -> Self {
        let is_done = vec![false; events.len()];
        Self { events, is_done, first: 0, state: Timeline::default(), tried: HashSet::new() }
    }

    fn run(mut self) -> Result<usize, Contradiction> {
        let mut steps: Vec<Step> = Vec::new();
        let mut furthest: Option<Contradiction> = None;
        while steps.len() < self.events.len() {
            let mut next = self.candidates();
            let all = next.clone();
            while !self.step(&mut steps, next) {
                if !all.is_empty() && furthest.as_ref().is_none_or(|seen| seen.explained < steps.len()) {
                    furthest = Some(Contradiction {
                        explained: steps.len(),
                        stuck_at: all.iter().map(|at| self.events[*at].clone()).collect(),
                        live: self.state.live.iter().rev().take(50).map(|(id, tag)| (*id, *tag)).collect(),
                        around: Vec::new(),
                    });
                }
                let Some(undone) = steps.pop() else {
                    return Err(furthest.expect("whoever cannot begin is stuck"));
                };
                self.is_done[undone.event] = false;
                self.first = undone.first;
                self.state.undo(undone.undo);
                next = undone.others;
            }
        }
        Ok(steps.len())
    }

    /// What may come next: what was called before anything was answered that is not done. Pages first, for they change
    /// nothing, and then in the order of the answers. Nothing, if the same was gone on from before.
    fn candidates(&mut self) -> Vec<usize> {
        let (mut found, mut beyond, mut answered) = (Vec::new(), Vec::new(), u64::MAX);
        for at in self.first..self.events.len() {
            let event = &self.events[at];
            if event.called > answered {
                break;
            }
            if self.is_done[at] {
                beyond.push(at);
            } else {
                answered = answered.min(event.answered);
                found.push(at);
            }
        }
        if !self.tried.insert((self.first, beyond)) {
            return Vec::new();
        }
        // The last is taken first.
        found.sort_by_key(|at| {
            let event = &self.events[*at];
            (matches!(event.done, Done::Page { .. } | Done::Ids { .. }), u64::MAX - event.answered)
        });
        found
    }

    /// Takes one of these that fits.
    fn step(&mut self, steps: &mut Vec<Step>, mut others: Vec<usize>) -> bool {
        while let Some(event) = others.pop() {
            if let Some(undo) = self.state.take(&self.events[event].done) {
                self.is_done[event] = true;
                let first = self.first;
                while self.is_done.get(self.first) == Some(&true) {
                    self.first += 1;
                }
                steps.push(Step { event, undo, first, others });
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: (EntryId, u64) = (EntryId(10), 1);
    const B: (EntryId, u64) = (EntryId(20), 2);

    fn append(called: u64, answered: u64, (id, tag): (EntryId, u64)) -> Event {
        Event { called, answered, done: Done::Append { tag, id: Some(id) } }
    }

    fn unknown_append(called: u64, tag: u64) -> Event {
        Event { called, answered: called, done: Done::Append { tag, id: None } }
    }

    fn delete(called: u64, answered: u64, id: EntryId, existed: impl Into<Option<bool>>) -> Event {
        Event { called, answered, done: Done::Delete { id, existed: existed.into() } }
    }

    fn page(called: u64, answered: u64, shown: &[(EntryId, u64)]) -> Event {
        Event { called, answered, done: Done::Page { limit: 2, shown: shown.to_vec() } }
    }

    fn ids(called: u64, answered: u64, shown: &[(EntryId, u64)]) -> Event {
        let shown = shown.iter().map(|(id, _)| *id).collect();
        Event { called, answered, done: Done::Ids { limit: 2, shown } }
    }

    fn is_right(events: &[Event], last: &[(EntryId, u64)]) -> bool {
        check(events.to_vec(), last.to_vec()).is_ok()
    }

    #[test]
    fn what_overlaps_may_have_had_either_order() {
        let events = [append(1, 5, A), append(2, 6, B)];
        assert!(is_right(&events, &[B, A]));
        for shown in [&[][..], &[A], &[B, A]] {
            assert!(is_right(&[&events[..], &[page(3, 4, shown)]].concat(), &[B, A]), "{shown:?}");
        }
        // B has the higher id, so A was there before.
        assert!(!is_right(&[&events[..], &[page(3, 4, &[B])]].concat(), &[B, A]));
        // What was seen is not unseen.
        assert!(is_right(&[&events[..], &[page(2, 3, &[A]), page(4, 5, &[A])]].concat(), &[B, A]));
        assert!(!is_right(&[&events[..], &[page(2, 3, &[A]), page(4, 5, &[])]].concat(), &[B, A]));
    }

    #[test]
    fn what_was_answered_is_seen_and_only_once() {
        let events = [append(1, 2, A), append(3, 4, B)];
        assert!(is_right(&[&events[..], &[page(5, 6, &[B, A])]].concat(), &[B, A]));
        assert!(!is_right(&[&events[..], &[page(5, 6, &[A])]].concat(), &[B, A]));
        assert!(!is_right(&events, &[A]));
        assert!(!is_right(&events, &[(EntryId(30), 2), B, A]));
        // Ids grow in the order of what did not overlap.
        assert!(!is_right(&[append(1, 2, B), append(3, 4, A)], &[B, A]));
    }

    #[test]
    fn a_page_without_tags_is_of_one_moment() {
        let events = [append(1, 2, A), append(4, 5, B), delete(6, 7, A.0, true)];
        let seen = |shown: &[(EntryId, u64)]| is_right(&[&events[..], &[ids(3, 8, shown)]].concat(), &[B]);
        assert!(seen(&[A]) && seen(&[B, A]) && seen(&[B]));
        // Before the append of B and behind the delete of A.
        assert!(!seen(&[]));
        let events = [append(1, 2, A), delete(3, 3, A.0, None)];
        assert!(!is_right(&[&events[..], &[ids(5, 6, &[]), page(8, 9, &[A])]].concat(), &[A]));
        assert!(is_right(&[&events[..], &[ids(5, 6, &[]), page(8, 9, &[])]].concat(), &[]));
        let events = [append(1, 2, A), unknown_append(3, B.1)];
        assert!(is_right(&[&events[..], &[ids(4, 5, &[B, A])]].concat(), &[B, A]));
        assert!(!is_right(&[&events[..], &[ids(4, 5, &[B, A]), ids(6, 7, &[A])]].concat(), &[B, A]));
    }

    #[test]
    fn a_delete_takes_away_once_and_for_ever() {
        let events = [append(1, 2, A), delete(3, 6, A.0, true)];
        assert!(is_right(&[&events[..], &[page(4, 5, &[A])]].concat(), &[]));
        assert!(is_right(&[&events[..], &[page(4, 5, &[])]].concat(), &[]));
        assert!(!is_right(&[&events[..], &[page(7, 8, &[A])]].concat(), &[]));
        assert!(!is_right(&events, &[A]));
        assert!(is_right(&[&events[..], &[delete(4, 5, A.0, false)]].concat(), &[]));
        assert!(!is_right(&[&events[..], &[delete(4, 5, A.0, true)]].concat(), &[]));
        assert!(!is_right(&[&events[..], &[delete(4, 5, A.0, true), append(7, 8, B)]].concat(), &[B]));
    }

    #[test]
    fn what_nobody_knows_counts_if_it_is_seen() {
        let events = [append(1, 2, A), unknown_append(3, B.1)];
        assert!(is_right(&events, &[A]));
        assert!(is_right(&events, &[B, A]));
        assert!(is_right(&[&events[..], &[page(8, 9, &[A])]].concat(), &[B, A]));
        assert!(!is_right(&[&events[..], &[page(5, 6, &[B, A]), page(8, 9, &[A])]].concat(), &[B, A]));
        assert!(!is_right(&[&events[..], &[page(2, 2, &[B, A])]].concat(), &[B, A]));
        // Seen and then gone without a delete.
        assert!(!is_right(&[&events[..], &[page(5, 6, &[B, A])]].concat(), &[A]));
        let events = [append(1, 2, A), delete(3, 3, A.0, None)];
        assert!(is_right(&events, &[A]));
        assert!(is_right(&[&events[..], &[page(8, 9, &[A])]].concat(), &[]));
        assert!(!is_right(&[&events[..], &[page(5, 6, &[]), page(8, 9, &[A])]].concat(), &[A]));
        // Only the newest are shown: what is below says nothing.
        let three = [append(4, 5, B), append(6, 7, (EntryId(30), 3)), page(8, 9, &[(EntryId(30), 3), B])];
        assert!(is_right(&[&events[..], &three].concat(), &[(EntryId(30), 3), B]));
    }
}
