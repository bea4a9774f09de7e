//! Owns the windows of expiry: what expires in one window lies in one segment, which is removed when the window has passed.
//!
//! - A window is about an eighth of what its entries have left to live, a minute times a power of two. Windows of one length lie
//!   side by side from the origin of time, so that those of different flushes are the same.

use std::collections::BTreeSet;

use crate::ids::Stamp;

const SHORTEST_MS: u64 = 60_000;

/// Windows of one flush, at most.
const WINDOWS_MAX: usize = 16;

/// A window of expiries; none holds what does not expire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Window {
    first: u64,
    ms: u64,
}

impl Window {
    /// That of an expiry, as seen at `stamp`, at least `least_ms` (a window's length) long.
    fn of(expiry: Stamp, stamp: Stamp, least_ms: u64) -> Self {
        let eighth = expiry.0.saturating_sub(stamp.0) / 8 / SHORTEST_MS;
        let ms = (SHORTEST_MS << eighth.checked_ilog2().unwrap_or(0)).max(least_ms);
        Self { first: expiry.0 / ms * ms, ms }
    }

    /// The window, as seen at `stamp`, that all expiries from `first` to `last` are in, if there is one.
    pub(super) fn around((first, last): (Stamp, Stamp), stamp: Stamp) -> Option<Self> {
        let window = Self::of(first, stamp, SHORTEST_MS);
        (last.0 < window.first + window.ms).then_some(window)
    }
}

/// Cuts what is flushed at one stamp into windows.
#[derive(Debug)]
pub(super) struct Windows {
    stamp: Stamp,
    least_ms: u64,
}

impl Windows {
    /// As many windows as these expiries need, but not too many.
    pub(super) fn of(expiries: impl Iterator<Item = Stamp>, stamp: Stamp) -> Self {
        let minutes: BTreeSet<u64> = expiries.map(|expiry| expiry.0 / SHORTEST_MS).collect();
        let mut windows = Self { stamp, least_ms: SHORTEST_MS };
        loop {
            let found = minutes.iter().map(|minute| windows.window(Stamp(minute * SHORTEST_MS)));
            let mut distinct: Vec<Window> = found.collect();
            distinct.dedup();
            if distinct.len() <= WINDOWS_MAX {
                return windows;
            }
            windows.least_ms *= 2;
        }
    }

    /// That of an expiry.
    pub(super) fn window(&self, expiry: Stamp) -> Window {
        // Seen by the minute, so that all of a minute are in one window.
        Window::of(Stamp(expiry.0 / SHORTEST_MS * SHORTEST_MS), self.stamp, self.least_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn windows_are_few_apart_and_an_eighth_of_what_is_left(
            left in prop::collection::vec(0u64..40_000_000_000, 1..200),
            stamp in 800_000_000_000u64..900_000_000_000,
        ) {
            let stamp = Stamp(stamp);
            let mut expiries: Vec<Stamp> = left.iter().map(|ms| Stamp(stamp.0 + 1 + ms)).collect();
            expiries.sort_unstable();
            let windows = Windows::of(expiries.iter().copied(), stamp);
            let mut found: Vec<Window> = expiries.iter().map(|expiry| windows.window(*expiry)).collect();
            for (window, expiry) in found.iter().zip(&expiries) {
                prop_assert!(window.first <= expiry.0 && expiry.0 < window.first + window.ms);
                let left = expiry.0 - stamp.0;
                prop_assert!(windows.least_ms > SHORTEST_MS || window.ms <= (left / 8).max(SHORTEST_MS));
            }
            // Each window's expiries come in a row: segments of one flush do not overlap in their expiries.
            let distinct = found.iter().copied().collect::<BTreeSet<_>>().len();
            found.dedup();
            prop_assert_eq!(found.len(), distinct);
            prop_assert!(distinct <= WINDOWS_MAX);
        }
    }
}
