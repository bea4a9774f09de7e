//! Owns the windows of expiry: what expires in one window lies in one segment, which is removed when the window has passed.
//!
//! - A window is a minute times a power of two long, and begins at a multiple of that, so that those of different flushes are the
//!   same or lie in one another.
//! - It is about an eighth of what its entries have left to live. If that makes too many, those are joined that hold the fewest
//!   bytes together: what is joined waits for the last of it, and that is then a small part of all.
//! - Joined windows do not stay wide for ever: once much of a segment has expired, what is left is split anew (`policy.rs`), by what
//!   is left of its time then.

use crate::ids::Stamp;

const SHORTEST_MS: u64 = 60_000;

/// The minute that a stamp is in.
pub(super) fn minute(stamp: Stamp) -> u64 {
    stamp.0 / SHORTEST_MS
}

/// A window of expiries; none holds what does not expire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Window {
    first: u64,
    ms: u64,
}

impl Window {
    /// That of an expiry, as seen at `stamp`.
    fn of(expiry: Stamp, stamp: Stamp) -> Self {
        let eighth = expiry.0.saturating_sub(stamp.0) / 8 / SHORTEST_MS;
        let ms = SHORTEST_MS << eighth.checked_ilog2().unwrap_or(0);
        Self { first: expiry.0 / ms * ms, ms }
    }

    /// The one twice as long that it lies in; in the end the one of all time.
    fn twice(self) -> Self {
        let ms = self.ms.saturating_mul(2);
        Self { first: self.first / ms * ms, ms }
    }

    fn holds(self, expiry: Stamp) -> bool {
        self.ms == u64::MAX || self.first <= expiry.0 && expiry.0 - self.first < self.ms
    }

    /// The shortest one, but not shorter than seen at `stamp`, that all expiries from `first` to `last` are in.
    pub(super) fn around((first, last): (Stamp, Stamp), stamp: Stamp) -> Self {
        let mut window = Self::of(first, stamp);
        while !window.holds(last) {
            window = window.twice();
        }
        window
    }
}

/// What is in one window.
#[derive(Clone, Copy, Debug)]
struct Share {
    window: Window,
    /// The first and the last expiry.
    range: (Stamp, Stamp),
    bytes: u64,
}

/// Cuts what is written at one stamp into windows.
#[derive(Debug)]
pub(super) struct Windows {
    /// Where each but the first begins, ascending.
    cuts: Vec<Stamp>,
}

impl Windows {
    /// All in one.
    pub(super) fn one() -> Self {
        Self { cuts: Vec::new() }
    }

    /// Those of entries of which so many bytes expire at each of these points, which ascend; at most `most`, and at least one.
    pub(super) fn of(points: impl Iterator<Item = (Stamp, u64)>, stamp: Stamp, most: usize) -> Self {
        let mut shares: Vec<Share> = Vec::new();
        for (expiry, bytes) in points {
            let window = Window::of(expiry, stamp);
            match shares.last_mut() {
                Some(share) if share.window == window => {
                    (share.range.1, share.bytes) = (expiry, share.bytes + bytes);
                }
                _ => shares.push(Share { window, range: (expiry, expiry), bytes }),
            }
        }
        while shares.len() > most.max(1) {
            join_smallest(&mut shares);
        }
        // A window may begin inside of the one before, if that is of what has less time left.
        let cut = |two: &[Share]| Stamp(two[1].window.first.max(two[0].range.1.0 + 1));
        Self { cuts: shares.windows(2).map(cut).collect() }
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.cuts.len() + 1
    }

    /// The number of the window that an entry with this expiry is in. What does not expire is in the last.
    pub(super) fn place(&self, expiry: Option<Stamp>) -> usize {
        let expiry = expiry.unwrap_or(Stamp(u64::MAX));
        self.cuts.partition_point(|cut| *cut <= expiry)
    }
}

/// Puts a window twice as long into the place of those in it, where that holds the fewest bytes.
fn join_smallest(shares: &mut Vec<Share>) {
    let joined = |at: usize| {
        let window = shares[at].window.twice();
        let is_in = |share: &&Share| window.holds(share.range.0) && window.holds(share.range.1);
        let from = at - shares[..at].iter().rev().take_while(is_in).count();
        let to = at + shares[at..].iter().take_while(is_in).count();
        let bytes: u64 = shares[from..to].iter().map(|share| share.bytes).sum();
        (bytes, from..to, window)
    };
    let smallest = (0..shares.len()).map(joined).min_by_key(|(bytes, ..)| *bytes);
    let (bytes, places, window) = smallest.expect("there are too many");
    let range = (shares[places.start].range.0, shares[places.end - 1].range.1);
    shares.splice(places, [Share { window, range, bytes }]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::partition::timelines::spread::Expiries;
    use proptest::prelude::*;

    const MOST: usize = 16;

    proptest! {
        #[test]
        fn windows_are_few_apart_and_an_eighth_of_what_is_left(
            left in prop::collection::vec((0u64..40_000_000_000, 1u64..1_000), 1..200),
            stamp in 800_000_000_000u64..900_000_000_000,
        ) {
            let stamp = Stamp(stamp);
            let (mut entries, mut expiries) = (Vec::new(), Expiries::default());
            for (left, bytes) in left {
                entries.push((Stamp(stamp.0 + 1 + left), bytes));
                expiries.add(Some(Stamp(stamp.0 + 1 + left)), bytes);
            }
            entries.sort_unstable();
            let windows = Windows::of(expiries.points(), stamp, MOST);
            prop_assert!(windows.count() <= MOST);
            let finest = Windows::of(expiries.points(), stamp, usize::MAX);
            if finest.count() <= MOST {
                prop_assert_eq!(&windows.cuts, &finest.cuts);
            }
            let place = |entry: &(Stamp, u64)| finest.place(Some(entry.0));
            for one in entries.chunk_by(|one, next| place(one) == place(next)) {
                let (first, last) = (one[0].0, one[one.len() - 1].0);
                // As seen from the last of a minute.
                let left_ms = first.0 - stamp.0 + SHORTEST_MS;
                prop_assert!(last.0 - first.0 < (left_ms / 8).max(SHORTEST_MS));
            }
        }
    }

    /// Bytes by window.
    fn bytes_of(points: &[(Stamp, u64)], stamp: Stamp) -> Vec<u64> {
        let windows = Windows::of(points.iter().copied(), stamp, MOST);
        let mut bytes = vec![0; windows.count()];
        points.iter().for_each(|(expiry, of)| bytes[windows.place(Some(*expiry))] += of);
        bytes
    }

    #[test]
    fn windows_that_are_joined_hold_little() {
        const DAY_MS: u64 = 86_400_000;
        for start in [840_000_000_000u64, 841_234_567_890, 900_000_000_001] {
            // Spread evenly over what is left.
            let even: Vec<_> = (1..=3_000).map(|n| (Stamp(start + n * 30 * DAY_MS / 3_000), 1)).collect();
            let bytes = bytes_of(&even, Stamp(start));
            assert!(bytes.iter().all(|bytes| *bytes <= 3_000 / 6), "{bytes:?}");
            // Nearly all in an hour, the rest within a year: neither is in a window of the other.
            let hour = [(Stamp(start + DAY_MS / 24), 27_000)];
            let year = (1..=365).map(|day| (Stamp(start + day * DAY_MS), 8));
            let mixed: Vec<_> = hour.into_iter().chain(year).collect();
            let bytes = bytes_of(&mixed, Stamp(start));
            assert_eq!(bytes[0], 27_000);
            assert!(bytes[1..].iter().all(|bytes| *bytes <= 8 * 365 / 5), "{bytes:?}");
        }
    }

    #[test]
    fn any_expiry_has_a_window() {
        for (first, last) in [(0, 0), (0, u64::MAX), (u64::MAX, u64::MAX), (1, u64::MAX - 1)] {
            for stamp in [0, 1 << 40, u64::MAX] {
                let range = (Stamp(first), Stamp(last));
                let window = Window::around(range, Stamp(stamp));
                assert!(window.holds(range.0) && window.holds(range.1));
            }
        }
        let windows = Windows::of([(Stamp(5), 1), (Stamp(u64::MAX), 1)].into_iter(), Stamp(0), 1);
        assert_eq!((windows.count(), windows.place(None)), (1, 0));
    }
}
