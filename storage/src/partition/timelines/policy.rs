//! Owns the choice of segments that are merged.
//!
//! - Merged are neighbours by id, of one window of expiry, none of which is larger than all the others together: a byte that is
//!   written again is in a segment at least twice as large.
//! - Bytes written stay within a multiple of the payloads. Space comes before that: a segment of which much is dead is rewritten.

use std::collections::BTreeMap;

use super::Timelines;
use super::expiry::Window;
use super::held::Held;
use crate::ids::Stamp;

/// The part of the bound from which on only the widest merges are made.
const SCARCE: f64 = 0.75;

/// When segments are merged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MergePolicy {
    /// No segment grows beyond, in bytes, but by being flushed so large.
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
    fn best_run(&self, held: &[&Held], fan_in_min: usize) -> Option<(usize, usize, u64)> {
        let mut best: Option<(usize, usize, u64)> = None;
        // Bytes for each segment less.
        let cost = |(from, to, bytes): (usize, usize, u64)| bytes / (to - from - 1) as u64;
        for from in 0..held.len() {
            let (mut total, mut largest) = (0, 0);
            for to in from + 1..=held.len().min(from + self.fan_in_max) {
                let live = left_of(held[to - 1]);
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
fn left_of(held: &Held) -> u64 {
    held.segment.info().bytes.saturating_sub(held.dead_bytes)
}

impl Timelines {
    /// The segments to merge next.
    pub(super) fn choose(&self, policy: &MergePolicy, stamp: Stamp) -> Vec<&Held> {
        let dead = self.segments.iter().filter(|held| policy.is_mostly_dead(held) && !held.expired(stamp));
        if let Some(held) = dead.max_by_key(|held| held.dead_bytes) {
            return vec![held];
        }
        let mut classes: BTreeMap<Option<Window>, Vec<&Held>> = BTreeMap::new();
        for held in &self.segments {
            let window = match held.segment.info().expiry {
                None => None,
                // One that spans more than a window expires before a merge would pay.
                Some(expiry) => match Window::around(expiry, stamp) {
                    None => continue,
                    window => window,
                },
            };
            classes.entry(window).or_default().push(held);
        }
        let written = self.written.flushed + self.written.merged;
        let bound = policy.write_bound * self.written.payload as f64;
        // While little may be written, what is written is to bring most.
        let is_scarce = written as f64 > SCARCE * bound;
        let fan_in_min = if is_scarce { policy.fan_in_max } else { policy.fan_in_min };
        let runs = classes.values_mut().filter_map(|class| {
            class.sort_by_key(|held| held.segment.info().lowest);
            let (from, to, bytes) = policy.best_run(class, fan_in_min)?;
            Some((bytes / (to - from - 1) as u64, bytes, &class[from..to]))
        });
        let cheapest = runs.min_by_key(|(each, ..)| *each);
        let chosen = cheapest.filter(|(_, bytes, _)| (written + bytes) as f64 <= bound);
        chosen.map_or_else(Vec::new, |(.., run)| run.to_vec())
    }
}
