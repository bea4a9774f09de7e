//! Owns the entries of a table by id, in chunks, so that growth never copies what is there.
//!
//! - Ids ascend; a new one usually goes behind all others.
//! - What left a chunk leaves a hole; a chunk that is mostly holes is packed, an empty one is dropped.

use std::collections::VecDeque;

use crate::entry::Entry;
use crate::ids::EntryId;
use crate::partition::heap::{HeapBytes, allocated};
use crate::partition::prefetch::{LINE_BYTES, prefetch, prefetch_whole};

/// Entries of a chunk; one that entries were put into the middle of may hold twice as many.
const CHUNK_ENTRIES: usize = 512;

/// Entries that are found together, at most.
pub(super) const AT_ONCE: usize = 32;

/// Chunks that are looked at one by one: the entries of a page are often in neighbours.
const CHUNKS_NEAR: usize = 4;

/// Cache lines of a payload that are asked for ahead; the processor sees by itself that more are wanted.
const LINES_AHEAD: usize = 16;

#[derive(Debug, Default)]
struct Chunk {
    /// Of all entries and holes, ascending; apart from the entries, so that a search touches few lines.
    ids: Vec<EntryId>,
    entries: Vec<Option<Entry>>,
    live: usize,
}

impl Chunk {
    fn with_capacity(capacity: usize) -> Self {
        Self { ids: Vec::with_capacity(capacity), entries: Vec::with_capacity(capacity), live: 0 }
    }

    fn memory(&self) -> usize {
        allocated(self.ids.capacity() * size_of::<EntryId>())
            + allocated(self.entries.capacity() * size_of::<Option<Entry>>())
    }

    fn pack(&mut self) {
        self.entries.retain(Option::is_some);
        self.ids = self.entries.iter().flatten().map(|entry| entry.id).collect();
        self.entries.shrink_to_fit();
    }
}

/// Entries by id.
#[derive(Debug, Default)]
pub(super) struct Entries {
    chunks: VecDeque<Chunk>,
    /// The first id of each chunk, side by side, so that a search for the chunk stays in the cache.
    firsts: VecDeque<EntryId>,
    len: usize,
    heap: HeapBytes,
}

impl Entries {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The chunk that holds `id` or would.
    fn chunk_of(&self, id: EntryId) -> usize {
        self.firsts.partition_point(|first| *first <= id).saturating_sub(1)
    }

    /// The same, looked for first from chunk `n` down.
    fn chunk_from(&self, n: usize, id: EntryId) -> usize {
        let near = (n.saturating_sub(CHUNKS_NEAR)..=n).rev().find(|n| self.firsts[*n] <= id);
        let near = near.filter(|near| self.firsts.get(near + 1).is_none_or(|next| id < *next));
        near.unwrap_or_else(|| self.chunk_of(id))
    }

    fn find(&self, id: EntryId) -> Option<(usize, usize)> {
        let chunk = self.chunk_of(id);
        let at = self.chunks.get(chunk)?.ids.binary_search(&id).ok()?;
        Some((chunk, at))
    }

    /// Finds the entries of those of at most [`AT_ONCE`] ids that are not found yet, unless they are dead; cheaper if the ids
    /// descend. Their memory is waited for together, and their payloads are asked for.
    pub(super) fn find_all<'e>(
        &'e self,
        ids: &[EntryId],
        is_dead: impl Fn(EntryId) -> bool,
        found: &mut [Option<&'e Entry>],
    ) {
        let Some((lowest, highest)) = self.range() else { return };
        let mut places = [None; AT_ONCE];
        let mut n = self.chunks.len() - 1;
        for ((place, id), found) in places.iter_mut().zip(ids).zip(&*found) {
            if found.is_none() && (lowest..=highest).contains(id) {
                n = self.chunk_from(n, *id);
                let chunk = &self.chunks[n];
                *place = chunk.ids.binary_search(id).ok().map(|at| &chunk.entries[at]);
                if let Some(entry) = place {
                    prefetch_whole(*entry);
                }
            }
        }
        for ((found, place), id) in found.iter_mut().zip(places).zip(ids) {
            let Some(entry) = place.and_then(Option::as_ref) else { continue };
            if !is_dead(*id) {
                entry.payload.chunks(LINE_BYTES).take(LINES_AHEAD).for_each(|line| prefetch(&line[0]));
                *found = Some(entry);
            }
        }
    }

    pub(super) fn get(&self, id: EntryId) -> Option<&Entry> {
        let (chunk, at) = self.find(id)?;
        self.chunks[chunk].entries[at].as_ref()
    }

    pub(super) fn get_mut(&mut self, id: EntryId) -> Option<&mut Entry> {
        let (chunk, at) = self.find(id)?;
        self.chunks[chunk].entries[at].as_mut()
    }

    /// The smallest and the largest id.
    pub(super) fn range(&self) -> Option<(EntryId, EntryId)> {
        Some((*self.firsts.front()?, *self.chunks.back()?.ids.last()?))
    }

    /// All entries, ids ascending.
    pub(super) fn values(&self) -> impl Iterator<Item = &Entry> {
        self.chunks.iter().flat_map(|chunk| chunk.entries.iter().flatten())
    }

    /// Puts an entry in whose id is not there.
    pub(super) fn insert(&mut self, entry: Entry) {
        self.len += 1;
        let id = entry.id;
        let follows = |chunk: &Chunk| chunk.ids.last().is_none_or(|last| *last < id);
        if self.chunks.back().is_none_or(|last| follows(last) && last.ids.len() >= CHUNK_ENTRIES) {
            // The first chunk grows as it fills, so that a small partition stays small.
            let chunk = Chunk::with_capacity(if self.chunks.is_empty() { 4 } else { CHUNK_ENTRIES });
            self.heap.replace(0, chunk.memory());
            self.chunks.push_back(chunk);
            self.firsts.push_back(id);
        }
        let last = self.chunks.len() - 1;
        if let Some(chunk) = self.chunks.back_mut()
            && follows(chunk)
            && chunk.ids.len() < chunk.ids.capacity().min(chunk.entries.capacity())
        {
            // Nearly all come here: a new id is behind all others.
            chunk.live += 1;
            chunk.ids.push(entry.id);
            chunk.entries.push(Some(entry));
            return;
        }
        let n = if self.chunks[last].ids.is_empty() { last } else { self.chunk_of(entry.id) };
        let chunk = &mut self.chunks[n];
        let before = chunk.memory();
        chunk.live += 1;
        match chunk.ids.binary_search(&entry.id) {
            Ok(hole) => chunk.entries[hole] = Some(entry),
            Err(at) => {
                chunk.ids.insert(at, entry.id);
                chunk.entries.insert(at, Some(entry));
            }
        }
        self.firsts[n] = chunk.ids[0];
        self.heap.replace(before, chunk.memory());
        if chunk.ids.len() > 2 * CHUNK_ENTRIES {
            self.split(n);
        }
    }

    fn split(&mut self, n: usize) {
        let chunk = &mut self.chunks[n];
        let before = chunk.memory();
        let (ids, entries) = (chunk.ids.split_off(CHUNK_ENTRIES), chunk.entries.split_off(CHUNK_ENTRIES));
        let live = entries.iter().flatten().count();
        chunk.live -= live;
        self.firsts.insert(n + 1, ids[0]);
        let upper = Chunk { ids, entries, live };
        self.heap.replace(before, chunk.memory() + upper.memory());
        self.chunks.insert(n + 1, upper);
        self.drop_holes(n + 1);
        self.drop_holes(n);
    }

    /// Packs a chunk that is mostly holes, and drops one that is nothing else.
    fn drop_holes(&mut self, n: usize) {
        let chunk = &mut self.chunks[n];
        let before = chunk.memory();
        if chunk.live == 0 {
            self.chunks.remove(n);
            self.firsts.remove(n);
            self.heap.replace(before, 0);
        } else if chunk.live < chunk.ids.len() / 4 {
            chunk.pack();
            self.firsts[n] = chunk.ids[0];
            self.heap.replace(before, chunk.memory());
        }
    }

    pub(super) fn remove(&mut self, id: EntryId) -> Option<Entry> {
        let (n, at) = self.find(id)?;
        let entry = self.chunks[n].entries[at].take()?;
        self.chunks[n].live -= 1;
        self.len -= 1;
        self.drop_holes(n);
        Some(entry)
    }

    /// Bytes of memory it holds, without the payloads.
    pub(super) fn memory(&self) -> usize {
        self.heap.get()
            + self.chunks.capacity() * size_of::<Chunk>()
            + self.firsts.capacity() * size_of::<EntryId>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Audience;
    use crate::ids::{SpaceId, UserId};
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn entry(id: u64) -> Entry {
        Entry {
            id: EntryId(id),
            space: SpaceId(1),
            owner: UserId(1),
            author: UserId(1),
            audience: Audience::Public,
            version: 1,
            expiry: None,
            reference: None,
            payload: bytes::Bytes::from(vec![0; id as usize % 50]),
        }
    }

    proptest! {
        #[test]
        fn equals_an_ordered_set(
            steps in prop::collection::vec((0u8..4, 0u64..5_000, 1u64..400), 0..60),
        ) {
            let (mut entries, mut model) = (Entries::default(), BTreeSet::new());
            for (what, from, count) in steps {
                for id in from..from + count {
                    if what == 0 {
                        let removed = entries.remove(EntryId(id)).map(|entry| entry.id.0);
                        prop_assert_eq!(removed, model.take(&id));
                    } else if model.insert(id) {
                        entries.insert(entry(id));
                    }
                }
            }
            prop_assert!(entries.values().map(|entry| entry.id.0).eq(model.iter().copied()));
            prop_assert_eq!(entries.len(), model.len());
            for id in 0..5_500 {
                prop_assert_eq!(entries.get(EntryId(id)).is_some(), model.contains(&id));
            }
            for ids in (0..5_500).rev().map(EntryId).collect::<Vec<_>>().chunks(AT_ONCE) {
                let already = entry(7);
                let mut found = [None; AT_ONCE];
                found[1] = Some(&already);
                entries.find_all(ids, |id| id.0 % 5 == 0, &mut found[..ids.len()]);
                for (n, id) in ids.iter().enumerate().filter(|(n, _)| *n != 1) {
                    let expected = Some(*id).filter(|id| model.contains(&id.0) && id.0 % 5 > 0);
                    prop_assert_eq!(found[n].map(|entry| entry.id), expected);
                }
                prop_assert_eq!(found[1].map(|entry| entry.id), Some(already.id));
            }
            prop_assert!(entries.firsts.iter().eq(entries.chunks.iter().map(|chunk| &chunk.ids[0])));
            let held: usize = entries.chunks.iter().map(Chunk::memory).sum();
            prop_assert_eq!(entries.heap.get(), held);
        }
    }
}
