//! Owns the timelines homed in this partition: the entries, the source of truth, in memory and on disk.
//!
//! - Ids are made here, strictly increasing within the partition; an import alone makes older ones, which are free.
//! - What is written goes to the active table. A table that is full is frozen, flushed to segments, and then kept as a cache
//!   of them until its memory is wanted; segments are merged now and then.
//! - Every entry that is not deleted is, in its last version, in exactly one place: the active table, a frozen one, or a segment
//!   (a cached table and its segments are one place). Whoever changes an entry that is not in the active table marks it dead
//!   where it is, and puts the new version into the active table. Flushes and merges carry on the marks that came meanwhile.
//! - Where an entry is changes nothing that is read, and is no part of the state that replicas share.
//! - An expired entry is hidden at its stamp. It leaves the active table soon after, a bounded number per Raft entry, and the disk
//!   with its segment: entries that expire together lie together. Where they do not, what is left of a segment is written anew.
//! - A damaged record counts as absent where it is met, and is noted: the partition must serve no more.

mod cut;
mod entries;
mod expiry;
mod flush;
mod held;
mod id_list;
mod imports;
mod maintenance;
mod marks;
mod merging;
mod payloads;
mod policy;
mod sizes;
mod spread;
mod table;
#[cfg(test)]
mod tests;
mod walk;

use std::borrow::Cow;
use std::sync::OnceLock;

pub use cut::TimelinesCut;
pub(super) use cut::{Cut, renumber_image};
pub use flush::{FlushWork, Flushed};
pub use maintenance::Dropped;
pub use merging::{MergeWork, Merged};
pub use policy::MergePolicy;
pub use sizes::TimelineSizes;
pub(super) use walk::Walk;

use held::{Frozen, Held};
use sizes::Written;
use table::Table;

use crate::codec::{Encoded, Malformed, Reader};
use crate::entry::Entry;
use crate::ids::{EntryId, SlotIndex, SpaceId, Stamp, UserId};
use crate::segment::SegmentError;

#[derive(Debug, Default)]
pub(super) struct Timelines {
    active: Table,
    /// Oldest first; those that were flushed lead.
    frozen: Vec<Frozen>,
    /// By the largest id that they answer, so that a walk looks into the last one first.
    segments: Vec<Held>,
    /// The largest tick of an id, so that a new one is above all.
    pub(super) last_tick: u64,
    /// The time of the last entry that was imported by its time, and the tick it got.
    last_import: (Stamp, u64),
    /// The sum of the hashes of all entries that are not deleted, in their last versions, the expired included.
    sum: u128,
    cut: Option<Cut>,
    written: Written,
    damage: OnceLock<SegmentError>,
}

/// What an entry adds to the sum: it depends on nothing but the entry.
fn hash_of(entry: &Entry) -> u128 {
    use xxhash_rust::xxh3::xxh3_128;
    let Entry { id, space, owner, author, audience, version, expiry, reference, payload } = entry;
    let words = [
        id.0,
        owner.0,
        author.0,
        u64::from(space.0) | (*audience as u64) << 16 | u64::from(*version) << 32,
        u64::from(expiry.is_some()) | u64::from(reference.is_some()) << 1,
        expiry.map_or(0, |expiry| expiry.0),
        reference.map_or(0, |reference| reference.owner.0),
        reference.map_or(0, |reference| reference.id.0),
    ];
    let mut bytes = [0; 80];
    for (place, word) in bytes.chunks_exact_mut(8).zip(words) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    bytes[64..].copy_from_slice(&xxh3_128(payload).to_le_bytes());
    xxh3_128(&bytes)
}

impl Timelines {
    /// A new id at `stamp` for an owner in `slot`.
    pub(super) fn next_id(&mut self, stamp: Stamp, slot: SlotIndex) -> EntryId {
        self.last_tick = EntryId::first_tick_at(stamp).max(self.last_tick + 1);
        EntryId::from_tick(self.last_tick, slot)
    }

    /// Adds an entry whose id is new.
    pub(super) fn insert(&mut self, entry: Entry) {
        self.sum = self.sum.wrapping_add(hash_of(&entry));
        self.active.insert(entry);
    }

    /// Deletes an entry that is live.
    pub(super) fn remove(&mut self, id: EntryId) -> Option<Entry> {
        let entry = self.active.remove(id).or_else(|| self.take_settled(id))?;
        self.sum = self.sum.wrapping_sub(hash_of(&entry));
        Some(entry)
    }

    /// Gives an entry that is live another payload, and its next version.
    pub(super) fn amend(&mut self, id: EntryId, payload: bytes::Bytes) -> Option<&Entry> {
        self.change(id, |active| active.amend(id, payload))
    }

    /// Gives an entry that is live another expiry, or none.
    pub(super) fn set_expiry(&mut self, id: EntryId, expiry: Option<Stamp>) -> Option<&Entry> {
        self.change(id, |active| active.set_expiry(id, expiry))
    }

    fn change<F>(&mut self, id: EntryId, change: F) -> Option<&Entry>
    where
        F: FnOnce(&mut Table) -> Option<&Entry>,
    {
        if self.active.get(id).is_none() {
            let mut entry = self.take_settled(id)?;
            // What the payload is a slice of must not be held on to.
            entry.payload = bytes::Bytes::copy_from_slice(&entry.payload);
            self.active.insert(entry);
        }
        let before = hash_of(self.active.get(id)?);
        let entry = change(&mut self.active)?;
        self.sum = self.sum.wrapping_sub(before).wrapping_add(hash_of(entry));
        Some(entry)
    }

    /// Marks the version of an entry that is not in the active table, wherever it is; answers it.
    fn take_settled(&mut self, id: EntryId) -> Option<Entry> {
        let mut taken = None;
        if let Some(frozen) = self.frozen.iter_mut().rev().find(|frozen| frozen.get(id).is_some()) {
            taken = frozen.table.get(id).cloned();
            frozen.dead.insert(id);
            if !frozen.flushed {
                return taken;
            }
        }
        for n in 0..self.segments.len() {
            let held = &mut self.segments[n];
            let found = match &taken {
                Some(cached) => held.holds(id).map(|holds| holds.then(|| cached.clone())),
                None => held.get(id),
            };
            match found {
                Ok(Some(entry)) => {
                    held.mark(&entry);
                    return Some(entry);
                }
                Ok(None) => {}
                Err(error) => self.note_damage(error),
            }
        }
        taken
    }

    /// The entry, unless it has expired at `stamp`.
    #[inline]
    pub(super) fn live(&self, id: EntryId, stamp: Stamp) -> Option<Cow<'_, Entry>> {
        let entry = self.active.get(id).map(Cow::Borrowed).or_else(|| self.settled(id));
        entry.filter(|entry| !entry.expired(stamp))
    }

    /// The entries of some ids that have not expired at `stamp`, each with the place of its id; cheaper than one after the
    /// other, most of all if they descend.
    pub(super) fn live_all(&self, ids: &[EntryId], stamp: Stamp, mut give: impl FnMut(usize, &Entry)) {
        for (group, ids) in ids.chunks(entries::AT_ONCE).enumerate() {
            let mut found = [None; entries::AT_ONCE];
            let found = &mut found[..ids.len()];
            self.active.entries.find_all(ids, |_| false, found);
            for frozen in self.frozen.iter().rev() {
                if found.iter().all(Option::is_some) {
                    break;
                }
                frozen.table.entries.find_all(ids, |id| frozen.dead.contains(id), found);
            }
            for (n, id) in ids.iter().enumerate() {
                let entry = found[n].map(Cow::Borrowed).or_else(|| self.in_segments(*id));
                if let Some(entry) = entry.filter(|entry| !entry.expired(stamp)) {
                    give(group * entries::AT_ONCE + n, &entry);
                }
            }
        }
    }

    /// The version of an entry that is not in the active table.
    fn settled(&self, id: EntryId) -> Option<Cow<'_, Entry>> {
        let cached = self.frozen.iter().rev().find_map(|frozen| frozen.get(id));
        cached.map(Cow::Borrowed).or_else(|| self.in_segments(id))
    }

    /// The version of an entry that is in no table.
    fn in_segments(&self, id: EntryId) -> Option<Cow<'_, Entry>> {
        let from = self.segments.partition_point(|held| held.top() < id);
        self.segments[from..].iter().find_map(|held| {
            let found = held.get(id).inspect_err(|error| self.note_damage(error.clone()));
            found.ok().flatten().map(Cow::Owned)
        })
    }

    /// The walk down a timeline, over the entries with ids below `below`.
    #[inline]
    pub(super) fn newest(&self, space: SpaceId, owner: UserId, below: EntryId, stamp: Stamp) -> Walk<'_> {
        Walk::new(self, (space, owner), below, stamp)
    }

    /// Gives away every entry that is not deleted and has not expired, in no order, until one is not taken. Fails at a
    /// damaged record, which is noted.
    pub(super) fn each<E: From<SegmentError>>(
        &self,
        stamp: Stamp,
        mut take: impl FnMut(&Entry) -> Result<(), E>,
    ) -> Result<(), E> {
        for entry in self.unflushed().filter(|entry| !entry.expired(stamp)) {
            take(entry)?;
        }
        for held in &self.segments {
            for entry in held.segment.iter() {
                match entry {
                    Ok(entry) if entry.expired(stamp) || held.dead.contains(entry.id) => {}
                    Ok(entry) => take(&entry)?,
                    Err(error) => {
                        self.note_damage(error.clone());
                        return Err(error.into());
                    }
                }
            }
        }
        Ok(())
    }

    /// Asks for the memory that adding an entry to each of these timelines changes.
    pub(super) fn look_ahead(&self, timelines: impl Iterator<Item = (SpaceId, UserId)> + Clone) {
        self.active.look_ahead(timelines);
    }

    /// Asks for what a read of the newest entries of each of these timelines looks into: the active table, and the one that
    /// was full last.
    pub(super) fn look_ahead_of_newest(&self, timelines: &[(SpaceId, UserId)]) {
        self.active.look_ahead(timelines.iter().copied());
        if let Some(frozen) = self.frozen.last() {
            frozen.table.look_ahead(timelines.iter().copied());
        }
    }

    /// Takes out of the active table at most `most` entries that have expired at `stamp`.
    pub(super) fn sweep(&mut self, stamp: Stamp, most: usize) {
        self.active.sweep(stamp, most);
    }

    /// The stamp at which the next entry vanishes, or has and is still to be swept.
    pub(super) fn next_expiry(&self, stamp: Stamp) -> Option<Stamp> {
        let frozen = self.frozen.iter().filter_map(|frozen| frozen.next_expiry_after(stamp));
        let segments = self.segments.iter().filter(|held| held.answers_to > EntryId::ZERO);
        let segments = segments.filter_map(|held| held.segment.next_expiry_after(stamp));
        self.next_expiry_of_new().into_iter().chain(frozen).chain(segments).min()
    }

    /// The same of the table that takes new entries.
    pub(super) fn next_expiry_of_new(&self) -> Option<Stamp> {
        self.active.first_expiry()
    }

    /// The entries that no segment holds, the expired included.
    pub(super) fn unflushed(&self) -> impl Iterator<Item = &Entry> {
        let frozen = self.frozen.iter().filter(|frozen| !frozen.flushed).flat_map(Frozen::iter);
        self.active.entries.values().chain(frozen)
    }

    /// The smallest and the largest id in segments.
    pub(super) fn segment_ids(&self) -> Option<(EntryId, EntryId)> {
        let infos = || self.segments.iter().map(|held| held.segment.info());
        infos().map(|info| info.lowest).min().zip(infos().map(|info| info.highest).max())
    }

    /// What of the state replicas share: not where entries are.
    pub(super) fn encode_state(&self, out: &mut Vec<u8>) {
        self.last_tick.encode(out);
        self.last_import.encode(out);
        self.sum.encode(out);
    }

    /// Reads back what [`Timelines::encode_state`] wrote.
    fn decode_state(&mut self, from: &mut Reader<'_>) -> Result<(), Malformed> {
        self.last_tick = Encoded::decode(from)?;
        self.last_import = Encoded::decode(from)?;
        self.sum = Encoded::decode(from)?;
        Ok(())
    }

    /// Notes a damaged record; the first one is kept.
    fn note_damage(&self, error: SegmentError) {
        let _ = self.damage.set(error);
    }
}
