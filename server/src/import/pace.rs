//! Owns the pace of an import: when each write is sent, so that a rate is kept.
//!
//! - Writes keep their order. Each waits until the time of the items before it is over, whatever block it is of.
//! - What was missed while nothing could be sent is caught up with for [`CATCH_UP`], and given up beyond.

use std::collections::VecDeque;
use std::time::Duration;

/// So much of the time that was missed counts.
const CATCH_UP: Duration = Duration::from_millis(500);

/// Writes that wait for their time; times are since any one moment.
#[derive(Debug)]
pub(super) struct Pace<W> {
    /// Items a second; none: no limit.
    rate: Option<u64>,
    /// When the first write may go.
    due: Duration,
    /// With how many items each has.
    waiting: VecDeque<(usize, W)>,
}

impl<W> Pace<W> {
    pub(super) fn new(rate: Option<u64>) -> Self {
        Self { rate, due: Duration::ZERO, waiting: VecDeque::new() }
    }

    /// Takes a write with so many items.
    pub(super) fn push(&mut self, items: usize, write: W) {
        self.waiting.push_back((items, write));
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// When the first write that waits may be sent.
    pub(super) fn due(&self) -> Duration {
        self.due
    }

    /// The first write that waits, to be sent at `now`, if its time has come.
    pub(super) fn next(&mut self, now: Duration) -> Option<W> {
        if self.due > now {
            return None;
        }
        let (items, write) = self.waiting.pop_front()?;
        if let Some(rate) = self.rate {
            let took = Duration::from_secs_f64(items as f64 / rate as f64);
            self.due = self.due.max(now.saturating_sub(CATCH_UP)) + took;
        }
        Some(write)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When each write of a block is sent, and its items, if the clock moves to when something is due.
    fn sent(pace: &mut Pace<usize>, now: &mut Duration) -> Vec<(Duration, usize)> {
        let mut sent = Vec::new();
        while !pace.is_empty() {
            *now = pace.due().max(*now);
            sent.extend(std::iter::from_fn(|| pace.next(*now)).map(|items| (*now, items)));
        }
        sent
    }

    /// The most items in any second.
    fn most_in_a_second(sent: &[(Duration, usize)]) -> usize {
        let from = |at: Duration| {
            let within = sent.iter().filter(|(then, _)| (at..at + Duration::from_secs(1)).contains(then));
            within.map(|(_, items)| items).sum()
        };
        sent.iter().map(|(at, _)| from(*at)).max().unwrap_or_default()
    }

    #[test]
    fn a_rate_is_kept_to_within_a_write_however_large_the_blocks_are() {
        // A block of 256 partitions, as one that was begun without a rate has, and those of a quarter of a second.
        for (blocks, writes, items) in [(1, 256, 1_024), (100, 4, 62)] {
            let (mut pace, mut now, mut all) = (Pace::new(Some(1_000)), Duration::from_secs(7), Vec::new());
            for _ in 0..blocks {
                (0..writes).for_each(|_| pace.push(items, items));
                all.extend(sent(&mut pace, &mut now));
            }
            assert_eq!(all.len(), blocks * writes);
            let most = most_in_a_second(&all[1..]);
            assert!(most <= 1_000 + 500 + items, "{most} a second");
            let total = (blocks * writes * items) as f64 / 1_000.0;
            assert!((now.as_secs_f64() - 7.0 - total).abs() <= 2.0 + items as f64 / 1_000.0, "{now:?}");
        }
    }

    #[test]
    fn what_was_missed_is_caught_up_with_for_half_a_second_only() {
        let (mut pace, mut now) = (Pace::new(Some(100)), Duration::ZERO);
        (0..200).for_each(|_| pace.push(1, 1));
        while now < Duration::from_secs(1) {
            now = pace.due().max(now);
            pace.next(now);
        }
        // The node is away for a minute.
        now += Duration::from_secs(60);
        let at_once = std::iter::from_fn(|| pace.next(now)).count();
        assert!((49..=52).contains(&at_once), "{at_once}");
    }

    #[test]
    fn without_a_rate_nothing_waits() {
        let mut pace = Pace::new(None);
        (0..9).for_each(|n| pace.push(1_000_000, n));
        assert!(std::iter::from_fn(|| pace.next(Duration::ZERO)).eq(0..9));
    }
}
