//! Owns one table of entries in memory: by id, by owner, and by expiry.
//!
//! - The active table takes what is written. A frozen one never changes; what dies in it is marked beside it.

use std::collections::BTreeSet;
use std::ops::Bound;

use super::entries::Entries;
use super::id_list::{Descending, IdList};
use super::payloads::Payloads;
use crate::entry::Entry;
use crate::ids::{EntryId, SpaceId, Stamp, UserId};
use crate::partition::heap::HeapBytes;
use crate::partition::index::Index;
use crate::partition::map::hash;
use crate::partition::slots::Slots;

/// The ids of one owner's entries in one space.
#[derive(Debug)]
struct Timeline {
    space: SpaceId,
    owner: UserId,
    ids: IdList,
}

#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) entries: Entries,
    slots: Slots<Timeline>,
    /// The timelines by space and owner.
    index: Index,
    expiries: BTreeSet<(Stamp, EntryId)>,
    payloads: Payloads,
    /// Of the lists by owner.
    heap: HeapBytes,
}

impl Table {
    /// Asks for the memory that adding an entry to each of these timelines changes, step by step, so that the waits for it
    /// overlap.
    pub(super) fn look_ahead(&self, timelines: impl Iterator<Item = (SpaceId, UserId)> + Clone) {
        timelines.clone().for_each(|timeline| self.index.prefetch(hash(&timeline)));
        let places = timelines.map(|timeline| self.prefetch(&timeline));
        let places: Vec<Option<u32>> = places.collect();
        for timeline in places.into_iter().flatten().filter_map(|at| self.slots.get(at)) {
            timeline.ids.prefetch_end();
        }
    }

    /// Puts an entry in whose id is not there; its payload owns its memory.
    pub(super) fn insert(&mut self, mut entry: Entry) {
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
        entry.payload = self.payloads.keep(entry.payload);
        self.entries.insert(entry);
    }

    fn find(&self, space: SpaceId, owner: UserId) -> Option<u32> {
        let same = |at| self.slots.get(at).is_some_and(|t| t.owner == owner && t.space == space);
        self.index.find(hash(&(space, owner)), same)
    }

    pub(super) fn remove(&mut self, id: EntryId) -> Option<Entry> {
        let entry = self.entries.remove(id)?;
        self.payloads.release(&entry.payload);
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

    pub(super) fn get(&self, id: EntryId) -> Option<&Entry> {
        self.entries.get(id)
    }

    /// The next version of an entry.
    pub(super) fn amend(&mut self, id: EntryId, payload: bytes::Bytes) -> Option<&Entry> {
        let entry = self.entries.get_mut(id)?;
        self.payloads.release(&entry.payload);
        entry.payload = self.payloads.keep(payload);
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

    /// The ids of a timeline below `below`, newest first, expired ones included; no entry is looked at.
    #[inline]
    pub(super) fn ids(&self, space: SpaceId, owner: UserId, below: EntryId) -> Descending<'_> {
        let timeline = self.find(space, owner).and_then(|at| self.slots.get(at));
        timeline.map_or_else(Descending::none, |timeline| timeline.ids.below(below))
    }

    /// Asks for a timeline, once what tells where it is is there; answers where, most likely.
    fn prefetch(&self, timeline: &(SpaceId, UserId)) -> Option<u32> {
        let at = self.index.find(hash(timeline), |_| true)?;
        self.slots.prefetch(at);
        Some(at)
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

    /// The first expiry, passed or not.
    pub(super) fn first_expiry(&self) -> Option<Stamp> {
        self.expiries.first().map(|(expiry, _)| *expiry)
    }

    /// The expiries after `stamp`, first to last.
    pub(super) fn expiries_after(&self, stamp: Stamp) -> impl Iterator<Item = (Stamp, EntryId)> {
        self.expiries.range((Bound::Excluded((stamp, EntryId::MAX)), Bound::Unbounded)).copied()
    }

    /// Bytes of memory it holds.
    pub(super) fn memory(&self) -> usize {
        self.entries.memory()
            + self.payloads.memory()
            + self.slots.memory()
            + self.index.memory()
            + self.heap.get()
            + self.expiries.len() * size_of::<(Stamp, EntryId)>() * 2
    }
}
