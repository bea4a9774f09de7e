//! Owns the ids of entries that are imported with the times they had.
//!
//! - Only entries that live count as taken, since where an expired one still lies is no part of the state. One that lies where a
//!   new one comes makes room for it.
//! - An entry may be imported into any time, so all segments may cover it: they are asked by their indexes alone, and records are
//!   read only of entries that share its millisecond.

use super::Timelines;
use crate::entry::Entry;
use crate::ids::{EntryId, SlotIndex, SpaceId, Stamp, UserId};

impl Timelines {
    /// The largest id of a timeline's live entries.
    pub(in crate::partition) fn newest_id(
        &self,
        space: SpaceId,
        owner: UserId,
        stamp: Stamp,
    ) -> Option<EntryId> {
        self.newest(space, owner, EntryId::MAX, stamp).next().map(|entry| entry.id)
    }

    /// A free id for an entry that was made at `made`, imported at `stamp`. Their order is kept: it is behind those of its
    /// timeline in the same millisecond, and behind the last one imported if that is not younger.
    pub(in crate::partition) fn import_id(
        &mut self,
        made: Stamp,
        space: SpaceId,
        owner: UserId,
        stamp: Stamp,
    ) -> EntryId {
        let (last_made, last_tick) = self.last_import;
        let slot = SlotIndex::of(owner);
        // The id 0 is below every entry.
        let mut tick = EntryId::first_tick_at(made).max(1);
        if made >= last_made {
            tick = tick.max(last_tick + 1);
        }
        let below = EntryId::first_at(Stamp(made.0 + 1));
        // Those of its timeline that are older than this millisecond change nothing.
        let older = EntryId(EntryId::from_tick(tick, SlotIndex(0)).0 - 1);
        let mut same = self.newest(space, owner, below, stamp);
        while let Some(id) = same.next_above(Some(older)) {
            if same.entry(id).is_some() {
                tick = id.tick() + 1;
                break;
            }
        }
        let tick = self.free_tick(tick, slot, stamp);
        self.last_import = (made, tick);
        EntryId::from_tick(tick, slot)
    }

    /// A free tick from `from` on, behind a taken one, found in few steps however many are taken.
    fn free_tick(&self, from: u64, slot: SlotIndex, stamp: Stamp) -> u64 {
        let taken = |tick| self.live(EntryId::from_tick(tick, slot), stamp).is_some();
        if !taken(from) {
            return from;
        }
        let (mut low, mut step) = (from, 1);
        while taken(low + step) {
            (low, step) = (low + step, step * 2);
        }
        let mut high = low + step;
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if taken(middle) { low = middle } else { high = middle }
        }
        high
    }

    /// Adds an imported entry, whose id no live one has. The ids to come are above it.
    pub(in crate::partition) fn import(&mut self, entry: Entry, stamp: Stamp) {
        self.last_tick = self.last_tick.max(entry.id.tick());
        // An expired one with this id stays in the sum, as one that was swept does.
        if self.active.remove(entry.id).is_none() && self.settled_may_have_expired(entry.id, stamp) {
            self.take_settled(entry.id);
        }
        self.insert(entry);
    }

    /// Whether an expired entry may lie under this id outside of the active table.
    fn settled_may_have_expired(&self, id: EntryId, stamp: Stamp) -> bool {
        let in_segments = || self.segments.iter().any(|held| held.has_expired(stamp));
        self.frozen.iter().any(|frozen| frozen.get(id).is_some()) || in_segments()
    }
}
