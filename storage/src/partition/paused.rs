//! Owns the owners whose fan-out is paused: an operator's brake on one who posts more than is good for all.
//!
//! - While an owner is paused, new entries make neither rows nor events; they are in the owner's timeline at once. Changes and
//!   deletes of entries travel as ever: they may concern rows that were there before.
//! - When the fan-out goes on, nothing is sent after: the floors of the owner's chains rise to the largest id that was kept
//!   back, as by an import, and pages take those entries from the timeline.
//! - What is paused is part of the state, changed by commands of the log only.

use std::collections::BTreeMap;

use super::Partition;
use crate::command::{Limited, Outcome, Refusal};
use crate::ids::{EntryId, SpaceId, UserId};

/// Most owners of one partition that are paused at a time.
pub const PAUSED_MAX: usize = 4_096;

/// By owner and space, the largest id that was kept back.
pub(super) type Paused = BTreeMap<UserId, BTreeMap<SpaceId, EntryId>>;

impl Partition {
    /// The owners homed here whose fan-out is paused, in order.
    pub fn paused(&self) -> impl Iterator<Item = UserId> + '_ {
        self.paused.keys().copied()
    }

    pub(super) fn pause_fan_out(&mut self, owner: UserId, is_paused: bool) -> Outcome {
        if let Err(refusal) = self.check_home(owner) {
            return Outcome::Refused { refusal };
        }
        if !is_paused {
            let kept_back = self.paused.remove(&owner).unwrap_or_default();
            self.publish_imported(kept_back.into_iter().map(|(space, id)| ((space, owner), id)).collect());
        } else if self.paused.len() >= PAUSED_MAX && !self.paused.contains_key(&owner) {
            let (what, limit) = (Limited::Paused, PAUSED_MAX as u32);
            return Outcome::Refused { refusal: Refusal::LimitReached { what, limit } };
        } else {
            self.paused.entry(owner).or_default();
        }
        Outcome::Done
    }

    /// Whether a new entry is kept back; it is remembered then.
    pub(super) fn keeps_back(&mut self, space: SpaceId, owner: UserId, id: EntryId) -> bool {
        // Nearly always nobody is paused.
        if self.paused.is_empty() {
            return false;
        }
        let Some(kept_back) = self.paused.get_mut(&owner) else { return false };
        let largest = kept_back.entry(space).or_default();
        *largest = id.max(*largest);
        true
    }
}
