//! Owns the count of deliveries made here lately: how many, and the owners whose entries made most of them.
//!
//! - It is a figure, no state: replicas may differ in it, and it begins anew with each of them.
//! - The owners are kept by Space-Saving with weights (Metwally, Agrawal, El Abbadi 2005), in sets of few, so that a count
//!   looks at one set whatever comes: in a window a count is never too small, and by how much it may be too large is known. Whom an owner
//!   takes the place of has made the fewest deliveries of their set, however many entries that were.
//! - Time is that of the log.

use super::Partition;
use super::map::hash;
use crate::ids::{Stamp, UserId};

/// How long one window counts, in milliseconds of log time; what is told is this one and the one before.
const WINDOW_MS: u64 = 60_000;

/// Owners of one set.
const WAYS: usize = 8;

/// Sets of a window.
const SETS: usize = 64;

/// Deliveries of one owner's entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeliveredBy {
    /// The owner.
    pub owner: UserId,
    /// Followers that the entries reached, each once per entry; not too small in a window in which the owner is kept.
    pub count: u64,
    /// By how much the count may be too large.
    pub error: u64,
}

/// What was delivered in the last one to two minutes of log time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deliveries {
    /// The log time that was counted, in milliseconds; a replica that was made meanwhile has counted less.
    pub over_ms: u64,
    /// All deliveries.
    pub total: u64,
    /// Those who made most of them, in no order.
    pub owners: Vec<DeliveredBy>,
}

#[derive(Debug, Default)]
struct Window {
    /// Which one it is: its first stamp by its length.
    number: u64,
    total: u64,
    /// [`SETS`] sets of [`WAYS`] owners; made when the first is counted. Nobody has the count 0.
    owners: Vec<DeliveredBy>,
}

impl Window {
    fn note(&mut self, owner: UserId, followers: u64) {
        self.total += followers;
        if self.owners.is_empty() {
            self.owners.resize(SETS * WAYS, DeliveredBy::default());
        }
        let at = hash(&owner) as usize % SETS * WAYS;
        let set = &mut self.owners[at..at + WAYS];
        let known = set.iter().position(|known| known.owner == owner && known.count > 0);
        let fewest = || (0..WAYS).min_by_key(|way| set[*way].count).unwrap_or_default();
        let way = &mut set[known.unwrap_or_else(fewest)];
        if known.is_none() {
            *way = DeliveredBy { owner, count: way.count, error: way.count };
        }
        way.count += followers;
    }
}

/// The deliveries of this window and of the one before.
#[derive(Debug, Default)]
pub(super) struct DeliveryCounts {
    current: Window,
    before: Window,
}

impl DeliveryCounts {
    /// Counts an entry of an owner that reached so many followers here.
    pub(super) fn note(&mut self, at: Stamp, owner: UserId, followers: u32) {
        let number = at.0 / WINDOW_MS;
        if number > self.current.number {
            std::mem::swap(&mut self.current, &mut self.before);
            self.current.owners.fill(DeliveredBy::default());
            (self.current.number, self.current.total) = (number, 0);
        }
        self.current.note(owner, followers.into());
    }

    /// What was counted in the window of a stamp and in the one before.
    fn counted(&self, now: Stamp) -> Deliveries {
        let first = (now.0 / WINDOW_MS).saturating_sub(1);
        let mut counted = Deliveries { over_ms: now.0 - first * WINDOW_MS, ..Deliveries::default() };
        for window in [&self.current, &self.before].into_iter().filter(|window| window.number >= first) {
            counted.total += window.total;
            counted.owners.extend(window.owners.iter().filter(|known| known.count > 0));
        }
        counted.owners.sort_unstable_by_key(|known| known.owner);
        counted.owners.dedup_by(|later, sum| {
            let is_same = later.owner == sum.owner;
            if is_same {
                (sum.count, sum.error) = (sum.count + later.count, sum.error + later.error);
            }
            is_same
        });
        counted
    }
}

impl Partition {
    /// What was delivered here in the last one to two minutes before a stamp, as far as this replica has applied it as it
    /// came: what it replayed from its log, or got in a snapshot, is not in it.
    pub fn deliveries(&self, now: Stamp) -> Deliveries {
        self.deliveries.counted(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAVY: UserId = UserId(7);

    fn of(counted: &Deliveries, owner: UserId) -> Option<DeliveredBy> {
        counted.owners.iter().find(|known| known.owner == owner).copied()
    }

    #[test]
    fn rare_entries_of_one_with_many_followers_are_not_displaced_by_many_of_others() {
        let mut counts = DeliveryCounts::default();
        let now = Stamp(10 * WINDOW_MS);
        let mut total = 0;
        for n in 0..60_000 {
            counts.note(now, UserId(1_000 + n % 6_000), 3);
            total += 3;
            if n % 20_000 == 0 {
                counts.note(now, HEAVY, 10_000);
                total += 10_000;
            }
        }
        let counted = counts.counted(now);
        let heavy = of(&counted, HEAVY).unwrap();
        assert!(heavy.count >= 30_000 && heavy.count - heavy.error <= 30_000, "{heavy:?}");
        assert_eq!(counted.owners.iter().max_by_key(|known| known.count), Some(&heavy));
        assert_eq!(counted.total, total);
        for light in counted.owners.iter().filter(|known| known.owner != HEAVY) {
            assert!(light.count >= 30 && light.count - light.error <= 30, "{light:?}");
        }
    }

    #[test]
    fn this_window_and_the_one_before_count_and_older_ones_do_not() {
        let mut counts = DeliveryCounts::default();
        let at = |window: u64| Stamp(window * WINDOW_MS + 5);
        let count = |counts: &DeliveryCounts, window| {
            of(&counts.counted(at(window)), HEAVY).map_or(0, |known| known.count)
        };
        counts.note(at(4), HEAVY, 2);
        counts.note(at(5), HEAVY, 3);
        assert_eq!([5, 6, 7].map(|window| count(&counts, window)), [5, 3, 0]);
        counts.note(at(8), HEAVY, 9);
        assert_eq!([8, 9, 10].map(|window| count(&counts, window)), [9, 9, 0]);
        assert_eq!(counts.counted(at(9)).over_ms, WINDOW_MS + 5);
    }
}
