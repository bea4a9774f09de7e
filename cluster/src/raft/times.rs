//! Owns the times that applying takes: how long each piece waited for the state's lock, how long it took with that, and how
//! long upkeep had the lock in between.
//!
//! - Whoever else works on the state under its lock on another thread (reads, mostly) shows here as a wait.
//! - Upkeep (cuts, installed files) works where the group is applied, so applying comes later; and it waits where a cut or what is
//!   not flushed is at its bound. What stalls applying is the waits for the lock and these two.
//! - They are figures: nothing is decided by them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The upper bounds of the times that are told apart; longer ones are counted behind them.
pub const BOUNDS: [Duration; 13] = [
    Duration::from_micros(100),
    Duration::from_micros(250),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_millis(2),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(20),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_secs(1),
];

/// Counts of times by [`BOUNDS`], the last for longer ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Times {
    /// How many were within each bound and not within the one before.
    pub counts: [u64; BOUNDS.len() + 1],
    /// All together.
    pub sum: Duration,
}

/// What applying took so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ApplyTimes {
    /// Waits of a piece for the lock.
    pub waits: Times,
    /// Pieces, with their waits.
    pub pieces: Times,
    /// Times for which upkeep had the lock, and for which applying waited until upkeep had caught up.
    pub held: Times,
}

/// Times that are counted.
#[derive(Debug, Default)]
struct Counted {
    counts: [AtomicU64; BOUNDS.len() + 1],
    sum_nanos: AtomicU64,
}

impl Counted {
    fn count(&self, time: Duration) {
        let at = BOUNDS.partition_point(|bound| *bound < time);
        self.counts[at].fetch_add(1, Ordering::Relaxed);
        self.sum_nanos.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
    }

    fn now(&self) -> Times {
        let counts = std::array::from_fn(|at| self.counts[at].load(Ordering::Relaxed));
        Times { counts, sum: Duration::from_nanos(self.sum_nanos.load(Ordering::Relaxed)) }
    }
}

/// Counts what applying takes.
#[derive(Debug, Default)]
pub(super) struct ApplyClock {
    waits: Counted,
    pieces: Counted,
    held: Counted,
}

impl ApplyClock {
    /// Counts a piece: its wait for the lock, and all of it.
    pub fn count(&self, wait: Duration, piece: Duration) {
        self.waits.count(wait);
        self.pieces.count(piece);
    }

    /// Counts how long upkeep had the lock, or was waited for.
    pub fn count_held(&self, held: Duration) {
        self.held.count(held);
    }

    pub fn now(&self) -> ApplyTimes {
        ApplyTimes { waits: self.waits.now(), pieces: self.pieces.now(), held: self.held.now() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_counted_within_the_first_bound_that_it_does_not_pass() {
        let clock = ApplyClock::default();
        for micros in [1, 100, 101, 5_000, 5_001, 2_000_000] {
            clock.count(Duration::ZERO, Duration::from_micros(micros));
        }
        let ApplyTimes { waits, pieces, held } = clock.now();
        assert_eq!((waits.counts[0], waits.sum), (6, Duration::ZERO));
        assert_eq!(pieces.counts, [2, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(pieces.sum, Duration::from_micros(2_010_203));
        assert_eq!(held, Times::default(), "upkeep is told apart");
        clock.count_held(Duration::from_millis(3));
        assert_eq!((clock.now().held.counts[5], clock.now().pieces), (1, pieces));
    }
}
