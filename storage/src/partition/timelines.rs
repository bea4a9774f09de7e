//! Owns the timelines homed in this partition: the entries, the source of truth.
//!
//! - Ids are made here, strictly increasing within the partition.
//! - An expired entry is hidden at its stamp and swept soon after, a bounded number per Raft entry.

use std::collections::BTreeSet;

use super::entries::Entries;
use super::heap::HeapBytes;
use super::id_list::IdList;
use super::index::Index;
use super::map::hash;
use super::slots::Slots;
use crate::entry::Entry;
use crate::ids::{EntryId, GraphId, SlotIndex, SpaceId, Stamp, UserId};

/// The ids of one owner's entries in one space.
#[derive(Debug)]
struct Timeline {
    space: SpaceId,
    owner: UserId,
    ids: IdList,
}

#[derive(Debug, Default)]
pub(super) struct Timelines {
    pub(super) entries: Entries,
    slots: Slots<Timeline>,
    /// The timelines by space and owner.
    index: Index,
    expiries: BTreeSet<(Stamp, EntryId)>,
    /// The tick of the last id made.
    pub(super) last_tick: u64,
    /// Of the lists by owner.
    heap: HeapBytes,
}

impl Timelines {
    /// A new id at `stamp` for an owner in `slot`.
    pub(super) fn next_id(&mut self, stamp: Stamp, slot: SlotIndex) -> EntryId {
        self.last_tick = EntryId::first_tick_at(stamp).max(self.last_tick + 1);
        EntryId::from_tick(self.last_tick, slot)
    }

    /// Asks for the memory that adding an entry to each of these timelines changes, step by step, so that the waits for it
    /// overlap.
    pub(super) fn look_ahead(&self, timelines: &[(GraphId, SpaceId, UserId)]) {
        timelines.iter().for_each(|(_, space, owner)| self.prefetch_index(*space, *owner));
        let places = timelines.iter().map(|(_, space, owner)| self.prefetch_timeline(*space, *owner));
        let places: Vec<Option<u32>> = places.collect();
        places.into_iter().flatten().for_each(|at| self.prefetch_ids(at));
    }

    pub(super) fn insert(&mut self, entry: Entry) {
        if let Some(expiry) = entry.expiry {
            self.expiries.insert((expiry, entry.id));
        }
        let at = self.find(entry.space, entry.owner).unwrap_or_else(|| {
            let timeline = Timeline { space: entry.space, owner: entry.owner, ids: IdList::default() };
            let at = self.slots.insert(timeline);
            self.index.insert(hash(&(entry.space, entry.owner)), at);
            at
        });
        let timeline = self.slots.get_mut(at).expect("it was found or made");
        timeline.ids.insert(entry.id, &mut self.heap);
        self.entries.insert(entry);
    }

    fn find(&self, space: SpaceId, owner: UserId) -> Option<u32> {
        let same = |at| self.slots.get(at).is_some_and(|t| t.owner == owner && t.space == space);
        self.index.find(hash(&(space, owner)), same)
    }

    pub(super) fn remove(&mut self, id: EntryId) -> Option<Entry> {
        let entry = self.entries.remove(id)?;
        if let Some(expiry) = entry.expiry {
            self.expiries.remove(&(expiry, id));
        }
        let at = self.find(entry.space, entry.owner)?;
        let timeline = self.slots.get_mut(at)?;
        timeline.ids.remove(id, &mut self.heap);
        if timeline.ids.is_empty() {
            self.slots.remove(at);
            self.index.remove(hash(&(entry.space, entry.owner)), at);
        }
        Some(entry)
    }

    /// The entry, unless it has expired at `stamp`.
    pub(super) fn live(&self, id: EntryId, stamp: Stamp) -> Option<&Entry> {
        self.entries.get(id).filter(|entry| !entry.expired(stamp))
    }

    pub(super) fn amend(&mut self, id: EntryId, payload: bytes::Bytes) -> Option<&Entry> {
        let entry = self.entries.set_payload(id, payload)?;
        entry.version += 1;
        Some(entry)
    }

    pub(super) fn set_expiry(&mut self, id: EntryId, expiry: Option<Stamp>) -> Option<&Entry> {
        let entry = self.entries.get_mut(id)?;
        if let Some(old) = entry.expiry {
            self.expiries.remove(&(old, id));
        }
        if let Some(new) = expiry {
            self.expiries.insert((new, id));
        }
        entry.expiry = expiry;
        Some(entry)
    }

    /// The live entries of a timeline with ids below `below`, newest first.
    pub(super) fn newest(
        &self,
        space: SpaceId,
        owner: UserId,
        below: EntryId,
        stamp: Stamp,
    ) -> impl Iterator<Item = &Entry> {
        self.ids(space, owner, below).filter_map(move |id| self.live(id, stamp))
    }

    /// The ids of a timeline below `below`, newest first, expired ones included; no entry is looked at.
    pub(super) fn ids(&self, space: SpaceId, owner: UserId, below: EntryId) -> impl Iterator<Item = EntryId> {
        let timeline = self.find(space, owner).and_then(|at| self.slots.get(at));
        timeline.into_iter().flat_map(move |timeline| timeline.ids.below(below))
    }

    /// Asks for what tells where a timeline is.
    #[inline]
    pub(super) fn prefetch_index(&self, space: SpaceId, owner: UserId) {
        self.index.prefetch(hash(&(space, owner)));
    }

    /// Asks for a timeline, once the above is there; answers where it is, most likely.
    #[inline]
    pub(super) fn prefetch_timeline(&self, space: SpaceId, owner: UserId) -> Option<u32> {
        let at = self.index.find(hash(&(space, owner)), |_| true)?;
        self.slots.prefetch(at);
        Some(at)
    }

    /// Asks for the newest ids of a timeline, once the above is there.
    #[inline]
    pub(super) fn prefetch_ids(&self, at: u32) {
        if let Some(timeline) = self.slots.get(at) {
            timeline.ids.prefetch_end();
        }
    }

    /// Takes out at most `most` entries that have expired at `stamp`.
    pub(super) fn sweep(&mut self, stamp: Stamp, most: usize) {
        for _ in 0..most {
            match self.expiries.first() {
                Some((expiry, id)) if *expiry <= stamp => {
                    let id = *id;
                    self.remove(id);
                }
                _ => return,
            }
        }
    }

    pub(super) fn next_expiry(&self) -> Option<Stamp> {
        self.expiries.first().map(|(expiry, _)| *expiry)
    }

    /// Bytes of memory it holds.
    pub(super) fn memory(&self) -> usize {
        self.entries.memory()
            + self.slots.memory()
            + self.index.memory()
            + self.heap.get()
            + self.expiries.len() * size_of::<(Stamp, EntryId)>() * 2
    }
}
