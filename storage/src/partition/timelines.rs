//! Owns the timelines homed in this partition: the entries, the source of truth.
//!
//! - Ids are made here, strictly increasing within the partition.
//! - An expired entry is hidden at its stamp and swept soon after, a bounded number per Raft entry.

use std::collections::BTreeSet;

use super::entries::Entries;
use super::heap::HeapBytes;
use super::id_list::IdList;
use super::map::IdMap;
use super::prefetch::prefetch;
use crate::entry::Entry;
use crate::ids::{EntryId, GraphId, SlotIndex, SpaceId, Stamp, UserId};

#[derive(Debug, Default)]
pub(super) struct Timelines {
    pub(super) entries: Entries,
    by_owner: IdMap<(SpaceId, UserId), IdList>,
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
        let lists = timelines.iter().map(|(_, space, owner)| self.by_owner.guess(&(*space, *owner)));
        let lists: Vec<Option<&IdList>> = lists.collect();
        lists.iter().flatten().for_each(|list| prefetch(*list));
        lists.iter().flatten().for_each(|list| list.prefetch_end());
    }

    pub(super) fn insert(&mut self, entry: Entry) {
        if let Some(expiry) = entry.expiry {
            self.expiries.insert((expiry, entry.id));
        }
        self.by_owner.or_default((entry.space, entry.owner)).insert(entry.id, &mut self.heap);
        self.entries.insert(entry);
    }

    pub(super) fn remove(&mut self, id: EntryId) -> Option<Entry> {
        let entry = self.entries.remove(id)?;
        if let Some(expiry) = entry.expiry {
            self.expiries.remove(&(expiry, id));
        }
        let key = (entry.space, entry.owner);
        if let Some(ids) = self.by_owner.get_mut(&key) {
            ids.remove(id, &mut self.heap);
            if ids.is_empty() {
                self.by_owner.remove(&key);
            }
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
        self.by_owner.get(&(space, owner)).into_iter().flat_map(move |ids| ids.below(below))
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
            + self.by_owner.memory()
            + self.heap.get()
            + self.expiries.len() * size_of::<(Stamp, EntryId)>() * 2
    }
}
