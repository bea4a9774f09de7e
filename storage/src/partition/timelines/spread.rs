//! Owns how many of a segment's bytes expire when.
//!
//! - It is known of what this process wrote, and lives in memory only. Of a segment that was opened it is measured when it matters.

use std::collections::BTreeMap;

use super::expiry::minute;
use crate::ids::Stamp;
use crate::partition::heap::allocated;

/// Parts of a segment that are told apart.
const STEPS: u64 = 32;

/// The bytes of entries by the minute in which they expire.
#[derive(Debug, Default)]
pub(super) struct Expiries {
    /// With the last expiry in the minute.
    minutes: BTreeMap<u64, (Stamp, u64)>,
}

impl Expiries {
    pub(super) fn add(&mut self, expiry: Option<Stamp>, bytes: u64) {
        let Some(expiry) = expiry else { return };
        let (last, sum) = self.minutes.entry(minute(expiry)).or_default();
        (*last, *sum) = (expiry.max(*last), *sum + bytes);
    }

    /// The last expiry of each minute, ascending, with the bytes that expire in it.
    pub(super) fn points(&self) -> impl Iterator<Item = (Stamp, u64)> {
        self.minutes.values().copied()
    }

    pub(super) fn spread(&self) -> Spread {
        let total: u64 = self.points().map(|(_, bytes)| bytes).sum();
        let (mut steps, mut sum, mut said) = (Vec::new(), 0, 0);
        for (expiry, bytes) in self.points() {
            sum += bytes;
            if (sum - said) * STEPS >= total || sum == total {
                steps.push((expiry, sum));
                said = sum;
            }
        }
        Spread { steps: steps.into_boxed_slice() }
    }
}

/// The same in few steps: what has expired is said too small by less than one of [`STEPS`] parts.
#[derive(Debug)]
pub(super) struct Spread {
    /// By which stamp how many bytes have expired.
    steps: Box<[(Stamp, u64)]>,
}

impl Spread {
    fn passed(&self, stamp: Stamp) -> usize {
        self.steps.partition_point(|(expiry, _)| *expiry <= stamp)
    }

    /// Bytes that have expired at `stamp`.
    pub(super) fn expired(&self, stamp: Stamp) -> u64 {
        self.passed(stamp).checked_sub(1).map_or(0, |last| self.steps[last].1)
    }

    /// The steps after `stamp`, each with the bytes that expire in it.
    pub(super) fn left(&self, stamp: Stamp) -> impl Iterator<Item = (Stamp, u64)> {
        let mut before = self.expired(stamp);
        self.steps[self.passed(stamp)..].iter().map(move |(expiry, sum)| {
            let bytes = sum - before;
            before = *sum;
            (*expiry, bytes)
        })
    }

    pub(super) fn memory(&self) -> usize {
        allocated(size_of_val(&*self.steps)) + allocated(size_of::<Self>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_has_expired_is_said_to_a_thirty_second_part(
            entries in prop::collection::vec((0u64..100_000_000, 1u64..1_000), 1..400),
            stamp in 0u64..100_000_000,
        ) {
            let mut expiries = Expiries::default();
            for (expiry, bytes) in &entries {
                expiries.add(Some(Stamp(*expiry)), *bytes);
            }
            let (spread, stamp) = (expiries.spread(), Stamp(stamp));
            prop_assert!(spread.steps.len() as u64 <= STEPS + 1);
            // What expires in one minute counts as expired with the last of it.
            let is_passed = |expiry: u64| {
                let same = entries.iter().filter(|(other, _)| minute(Stamp(*other)) == minute(Stamp(expiry)));
                same.map(|(other, _)| *other).max() <= Some(stamp.0)
            };
            let total: u64 = entries.iter().map(|(_, bytes)| bytes).sum();
            let expired: u64 = entries.iter().filter(|(expiry, _)| is_passed(*expiry)).map(|(_, bytes)| bytes).sum();
            let said = spread.expired(stamp);
            prop_assert!(said <= expired && (expired - said) * STEPS < total);
            prop_assert_eq!(said + spread.left(stamp).map(|(_, bytes)| bytes).sum::<u64>(), total);
            prop_assert!(spread.left(stamp).all(|(expiry, _)| expiry > stamp));
        }
    }
}
