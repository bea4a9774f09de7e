//! Owns the choice of segments that are merged.
//!
//! - Merged are neighbours by id, of one window of expiry, none of which is larger than all the others together: a byte that is
//!   written again is in a segment at least twice as large. The window of a segment is never shorter than what it spans, so that
//!   every one has others of its kind, and a merge makes none wider.
//! - Bytes written stay within a multiple of the payloads. Space comes before that: a segment of which much is dead is rewritten.
//! - When more than a part of all bytes has expired or is dead, the segment of which most is lost is split: what is left of it goes
//!   to several, by windows as they are seen now. So the segments take little more than what lives in them, and a split frees at
//!   least that part of what it reads. What expires steadily stays below, and goes with its segments, without a write.
//! - A segment that ends within a minute is left alone.

use std::collections::BTreeMap;

use super::Timelines;
use super::expiry::{Window, Windows};
use super::held::Held;
use crate::ids::Stamp;

/// The part of the bound from which on only the widest merges are made.
const SCARCE: f64 = 0.75;

/// When more than one of so many bytes of all segments has expired or is dead, one of which as much has is split …
const LOST_DIVISOR: u64 = 6;

/// … into at most so many …
const SPLIT_MAX: u64 = 4;

/// … of so many bytes each, about, or more.
const SPLIT_BYTES_MIN: u64 = 64 << 10;

/// When segments are merged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MergePolicy {
    /// No segment grows beyond, in bytes, but by being flushed so large. With 0 none is split either.
    pub segment_bytes_max: u64,
    /// Segments merged at once, at least.
    pub fan_in_min: usize,
    /// Segments merged at once, at most.
    pub fan_in_max: usize,
    /// Bytes that flushes and merges may write per byte of payload flushed. Payloads below 64 bytes count as that.
    pub write_bound: f64,
    /// A segment is rewritten when more than one of so many of its bytes is dead, whatever was written.
    pub dead_divisor: u64,
}

impl Default for MergePolicy {
    fn default() -> Self {
        Self { segment_bytes_max: 512 << 20, fan_in_min: 4, fan_in_max: 8, write_bound: 2.5, dead_divisor: 4 }
    }
}

impl MergePolicy {
    fn is_mostly_dead(&self, held: &Held) -> bool {
        held.dead_bytes.saturating_mul(self.dead_divisor) > held.segment.info().bytes
    }

    /// The run among neighbours that takes the fewest bytes for each segment less: their places, and the bytes.
    fn best_run(&self, held: &[&Held], fan_in_min: usize, stamp: Stamp) -> Option<(usize, usize, u64)> {
        let mut best: Option<(usize, usize, u64)> = None;
        // Bytes for each segment less.
        let cost = |(from, to, bytes): (usize, usize, u64)| bytes / (to - from - 1) as u64;
        for from in 0..held.len() {
            let (mut total, mut largest) = (0, 0);
            for to in from + 1..=held.len().min(from + self.fan_in_max) {
                let live = left_of(held[to - 1], stamp);
                (total, largest) = (total + live, live.max(largest));
                if total > self.segment_bytes_max {
                    break;
                }
                let run = (from, to, total);
                let fits = to - from >= fan_in_min.max(2) && 2 * largest <= total;
                if fits && best.is_none_or(|best| cost(run) < cost(best)) {
                    best = Some(run);
                }
            }
        }
        best
    }
}

/// Bytes that a rewrite of it writes, about.
fn left_of(held: &Held, stamp: Stamp) -> u64 {
    held.segment.info().bytes - held.lost_bytes(stamp)
}

/// Whether the part of a segment, or of all, that is lost is too large.
fn is_much(lost_bytes: u64, bytes: u64) -> bool {
    lost_bytes.saturating_mul(LOST_DIVISOR) > bytes
}

/// What is to be done with segments.
#[derive(Debug)]
pub(super) enum Task {
    /// They become one.
    Merge,
    /// One becomes several.
    Split(Windows),
    /// It is found out what of one expires when.
    Measure,
}

impl Timelines {
    /// What to do next, with which segments.
    pub(super) fn choose(&self, policy: &MergePolicy, stamp: Stamp) -> Option<(Task, Vec<&Held>)> {
        let dead = self.segments.iter().filter(|held| policy.is_mostly_dead(held) && !held.expired(stamp));
        if let Some(held) = dead.max_by_key(|held| held.dead_bytes) {
            return Some((Task::Merge, vec![held]));
        }
        if policy.segment_bytes_max == 0 {
            return None;
        }
        let split = self.choose_split(stamp).map(|(task, held)| (task, vec![held]));
        split.or_else(|| self.choose_merge(policy, stamp).map(|run| (Task::Merge, run)))
    }

    /// The segment of which most is lost, if too much of all is.
    fn choose_split(&self, stamp: Stamp) -> Option<(Task, &Held)> {
        // Of one that was not measured all may have expired.
        let lost = |held: &Held| match &held.spread {
            // What is dead where nothing expires is rewritten by a rule of its own.
            _ if held.segment.info().expiry.is_none() => 0,
            None if held.has_expired(stamp) => held.segment.info().bytes,
            _ => held.lost_bytes(stamp),
        };
        let lasting = || self.segments.iter().filter(|held| !held.ends_soon(stamp));
        if !is_much(lasting().map(lost).sum(), lasting().map(|held| held.segment.info().bytes).sum()) {
            return None;
        }
        let of_it = |held: &&Held| (lost(held), held.segment.info().bytes);
        let much = lasting()
            .filter(|held| held.has_expired(stamp) && is_much(lost(held), held.segment.info().bytes));
        let most = much.max_by(|one, other| {
            let ((lost, bytes), (other_lost, other_bytes)) = (of_it(one), of_it(other));
            (u128::from(lost) * u128::from(other_bytes)).cmp(&(u128::from(other_lost) * u128::from(bytes)))
        })?;
        let Some(spread) = &most.spread else { return Some((Task::Measure, most)) };
        let count = (left_of(most, stamp) / SPLIT_BYTES_MIN).clamp(1, SPLIT_MAX);
        Some((Task::Split(Windows::of(spread.left(stamp), stamp, count as usize)), most))
    }

    /// The run of segments that is best one.
    fn choose_merge(&self, policy: &MergePolicy, stamp: Stamp) -> Option<Vec<&Held>> {
        let mut classes: BTreeMap<Option<Window>, Vec<&Held>> = BTreeMap::new();
        for held in self.segments.iter().filter(|held| !held.ends_soon(stamp)) {
            let window = held.segment.info().expiry.map(|expiry| Window::around(expiry, stamp));
            classes.entry(window).or_default().push(held);
        }
        let written = self.written.flushed + self.written.merged;
        let bound = policy.write_bound * self.written.payload as f64;
        // While little may be written, what is written is to bring most.
        let is_scarce = written as f64 > SCARCE * bound;
        let fan_in_min = if is_scarce { policy.fan_in_max } else { policy.fan_in_min };
        let runs = classes.values_mut().filter_map(|class| {
            class.sort_by_key(|held| held.segment.info().lowest);
            let (from, to, bytes) = policy.best_run(class, fan_in_min, stamp)?;
            Some((bytes / (to - from - 1) as u64, bytes, &class[from..to]))
        });
        let cheapest = runs.min_by_key(|(each, ..)| *each);
        let chosen = cheapest.filter(|(_, bytes, _)| (written + bytes) as f64 <= bound);
        chosen.map(|(.., run)| run.to_vec())
    }
}
