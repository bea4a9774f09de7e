//! Owns the ids of one owner's entries in one space, ascending, in chunks, so that a prolific owner's list never
//! grows by copying all of it.

use crate::ids::EntryId;
use crate::partition::heap::{HeapBytes, allocated};
use crate::partition::prefetch::prefetch;

/// Ids of a chunk; one that ids were put into the middle of may hold twice as many.
const CHUNK_IDS: usize = 1_024;

/// An ordered list of ids; most have only the newest chunk.
#[derive(Debug, Default)]
pub(super) struct IdList {
    newest: Vec<EntryId>,
    /// Full chunks with smaller ids, ascending.
    #[expect(clippy::box_collection, reason = "most have none, and a list is a word smaller so")]
    older: Option<Box<Vec<Vec<EntryId>>>>,
}

/// Ids of a list, largest first.
#[derive(Debug)]
pub(super) struct Descending<'a> {
    ids: std::slice::Iter<'a, EntryId>,
    /// Chunks that come after these.
    older: &'a [Vec<EntryId>],
    below: EntryId,
}

impl Descending<'_> {
    /// No ids.
    pub(super) fn none() -> Self {
        Self { ids: [].iter(), older: &[], below: EntryId::ZERO }
    }
}

impl Iterator for Descending<'_> {
    type Item = EntryId;

    #[inline]
    fn next(&mut self) -> Option<EntryId> {
        loop {
            if let Some(id) = self.ids.next_back() {
                return Some(*id);
            }
            let (chunk, older) = self.older.split_last()?;
            // Only the last of the chunks that begin below it can reach beyond.
            let all = chunk.last().is_some_and(|last| *last < self.below);
            let end = if all { chunk.len() } else { chunk.partition_point(|id| *id < self.below) };
            (self.ids, self.older) = (chunk[..end].iter(), older);
        }
    }
}

impl IdList {
    fn older(&self) -> &[Vec<EntryId>] {
        self.older.as_ref().map_or(&[], |older| older.as_slice())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.newest.is_empty() && self.older.is_none()
    }

    /// The older chunk that holds `id` or would; the newest chunk if there is none.
    fn chunk_of(&self, id: EntryId) -> Option<usize> {
        if self.newest.first().is_some_and(|first| *first <= id) {
            return None;
        }
        let older = self.older();
        let at = older.partition_point(|chunk| chunk[0] <= id).saturating_sub(1);
        // Behind the last id of all older chunks, and in front of the newest: the newest takes it.
        let behind = at + 1 == older.len() && older[at].last().is_some_and(|last| *last < id);
        (!older.is_empty() && !behind).then_some(at)
    }

    fn chunk_mut(&mut self, at: Option<usize>) -> &mut Vec<EntryId> {
        match (at, &mut self.older) {
            (Some(at), Some(older)) => &mut older[at],
            _ => &mut self.newest,
        }
    }

    /// Asks for the newest ids, to which most are added and of which most reads are.
    #[inline]
    pub(super) fn prefetch_end(&self) {
        if let Some(last) = self.newest.last() {
            prefetch(last);
        }
    }

    /// Adds an id that is not there.
    pub(super) fn insert(&mut self, id: EntryId, heap: &mut HeapBytes) {
        if self.newest.len() >= CHUNK_IDS && self.newest.last().is_some_and(|last| *last < id) {
            let full = std::mem::take(&mut self.newest);
            let before = self.directory();
            self.older.get_or_insert_default().push(full);
            heap.replace(before, self.directory());
        }
        if self.newest.last().is_some_and(|last| *last < id) && self.newest.len() < self.newest.capacity() {
            // Nearly all come here: a new id is above all others.
            self.newest.push(id);
            return;
        }
        let at = self.chunk_of(id);
        let chunk = self.chunk_mut(at);
        let before = chunk.capacity();
        let place = chunk.partition_point(|known| *known < id);
        chunk.insert(place, id);
        heap.resize(before * size_of::<EntryId>(), chunk.capacity() * size_of::<EntryId>());
        if chunk.len() > 2 * CHUNK_IDS {
            self.split(at, heap);
        }
    }

    fn split(&mut self, at: Option<usize>, heap: &mut HeapBytes) {
        let directory = self.directory();
        let chunk = self.chunk_mut(at);
        let upper = chunk.split_off(CHUNK_IDS);
        heap.resize(0, upper.capacity() * size_of::<EntryId>());
        if let Some(at) = at {
            self.older.get_or_insert_default().insert(at + 1, upper);
        } else {
            let lower = std::mem::replace(&mut self.newest, upper);
            self.older.get_or_insert_default().push(lower);
        }
        heap.replace(directory, self.directory());
    }

    /// Takes an id out, if it is there.
    pub(super) fn remove(&mut self, id: EntryId, heap: &mut HeapBytes) {
        let at = self.chunk_of(id);
        let chunk = self.chunk_mut(at);
        let Ok(place) = chunk.binary_search(&id) else { return };
        chunk.remove(place);
        if !chunk.is_empty() {
            return;
        }
        heap.resize(chunk.capacity() * size_of::<EntryId>(), 0);
        *chunk = Vec::new();
        let before = self.directory();
        if let (Some(at), Some(older)) = (at, &mut self.older) {
            older.remove(at);
        }
        if self.older().is_empty() {
            self.older = None;
        }
        heap.replace(before, self.directory());
    }

    /// The ids below `below`, largest first.
    #[inline]
    pub(super) fn below(&self, below: EntryId) -> Descending<'_> {
        let older = self.older();
        let chunks = older.partition_point(|chunk| chunk[0] < below);
        // Nearly all ask for the newest, who need not search.
        let all = self.newest.last().is_none_or(|last| *last < below);
        let end = if all { self.newest.len() } else { self.newest.partition_point(|id| *id < below) };
        Descending { ids: self.newest[..end].iter(), older: &older[..chunks], below }
    }

    /// Bytes of what lists the older chunks.
    fn directory(&self) -> usize {
        self.older.as_ref().map_or(0, |older| {
            allocated(size_of::<Vec<Vec<EntryId>>>())
                + allocated(older.capacity() * size_of::<Vec<EntryId>>())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn equals_an_ordered_set(
            steps in prop::collection::vec((0u8..4, 0u64..20_000, 1u64..3_000), 0..12),
            below in 0u64..24_000,
        ) {
            let (mut list, mut set, mut heap) = (IdList::default(), BTreeSet::new(), HeapBytes::default());
            for (what, from, count) in steps {
                for id in (from..from + count).map(EntryId) {
                    if what == 0 {
                        list.remove(id, &mut heap);
                        set.remove(&id);
                    } else if set.insert(id) {
                        list.insert(id, &mut heap);
                    }
                }
            }
            prop_assert!(list.below(EntryId(below)).eq(set.range(..EntryId(below)).rev().copied()));
            prop_assert!(list.below(EntryId::MAX).eq(set.iter().rev().copied()));
            prop_assert_eq!(list.is_empty(), set.is_empty());
            let chunks = list.older().iter().chain([&list.newest]);
            let held: usize = chunks.map(|chunk| allocated(chunk.capacity() * size_of::<EntryId>())).sum();
            prop_assert_eq!(heap.get(), held + list.directory());
        }
    }
}
