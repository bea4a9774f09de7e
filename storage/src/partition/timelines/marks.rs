//! Owns the dead marks of a table or segment: the ids of entries in it that were deleted, or live elsewhere now.
//!
//! - A clone costs one counter, however many there are; whoever marks on copies one chunk.
//! - What was marked since a clone is found by the chunks that both do not share, each of which is walked once: that takes as long
//!   as so many chunks, not as all marks.

use std::sync::Arc;

use crate::codec::{Encoded, Malformed, Reader, put_u64};
use crate::ids::EntryId;
use crate::partition::heap::allocated;

/// Ids of a chunk, at most.
const CHUNK_IDS: usize = 512;

/// What died while something was written is looked up in it under the partition's lock if it is at most so many.
pub(super) const LOOKED_UP_MAX: u64 = 256;

#[cfg(test)]
thread_local! {
    /// Marks that this thread looked for in what was written.
    pub(super) static LOOKED_UP: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

type Chunk = Arc<Vec<EntryId>>;

/// A set of ids, ascending.
#[derive(Clone, Debug, Default)]
pub(super) struct Marks {
    chunks: Arc<Vec<Chunk>>,
    len: u64,
}

impl Marks {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// The chunk that holds `id` or would.
    fn chunk_of(&self, id: EntryId) -> usize {
        self.chunks.partition_point(|chunk| chunk[0] <= id).saturating_sub(1)
    }

    pub(super) fn contains(&self, id: EntryId) -> bool {
        self.len > 0 && self.chunks[self.chunk_of(id)].binary_search(&id).is_ok()
    }

    /// Adds a mark; false if it was there.
    pub(super) fn insert(&mut self, id: EntryId) -> bool {
        let at = self.chunk_of(id);
        let chunks = Arc::make_mut(&mut self.chunks);
        if chunks.is_empty() {
            chunks.push(Chunk::default());
        }
        let Err(place) = chunks[at].binary_search(&id) else { return false };
        let chunk = Arc::make_mut(&mut chunks[at]);
        chunk.insert(place, id);
        if chunk.len() > CHUNK_IDS {
            let upper = chunk.split_off(CHUNK_IDS / 2);
            chunks.insert(at + 1, Arc::new(upper));
        }
        self.len += 1;
        true
    }

    /// All of them, ascending.
    pub(super) fn iter(&self) -> impl Iterator<Item = EntryId> {
        self.chunks.iter().flat_map(|chunk| chunk.iter().copied())
    }

    /// Those that `earlier`, an earlier clone of these, does not have.
    pub(super) fn since(&self, earlier: &Self) -> impl Iterator<Item = EntryId> {
        // Where the chunk of `earlier` is that comes next if nothing more was marked.
        let mut next = 0;
        let is_changed = move |chunk: &&Chunk| {
            let is_here = |at: &usize| earlier.chunks.get(*at).is_some_and(|there| Arc::ptr_eq(there, chunk));
            let near = [next, next + 1].into_iter().find(is_here);
            let found = near.or_else(|| Some(earlier.chunk_of(chunk[0])).filter(is_here));
            next = found.map_or(next, |at| at + 1);
            found.is_none()
        };
        let new = self.chunks.iter().filter(is_changed).flat_map(|chunk| {
            let mut there = earlier.starting_at(chunk[0]).peekable();
            chunk.iter().copied().filter(move |id| {
                while there.next_if(|there| there < id).is_some() {}
                there.peek() != Some(id)
            })
        });
        new.inspect(|_| {
            #[cfg(test)]
            LOOKED_UP.set(LOOKED_UP.get() + 1);
        })
    }

    /// Those from `id` on, ascending.
    fn starting_at(&self, id: EntryId) -> impl Iterator<Item = EntryId> {
        let at = self.chunk_of(id);
        let place = self.chunks.get(at).map_or(0, |chunk| chunk.partition_point(|there| *there < id));
        self.chunks[at..].iter().flat_map(|chunk| chunk.iter().copied()).skip(place)
    }

    /// Bytes of memory it holds, what clones share included.
    pub(super) fn memory(&self) -> usize {
        let ids = self.chunks.iter().map(|chunk| allocated(chunk.capacity() * size_of::<EntryId>()) + 48);
        ids.sum::<usize>() + allocated(self.chunks.capacity() * size_of::<Chunk>())
    }
}

impl Encoded for Marks {
    fn encode(&self, out: &mut Vec<u8>) {
        put_u64(out, self.len);
        let mut before = 0;
        for id in self.iter() {
            put_u64(out, id.0 - before);
            before = id.0;
        }
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (mut ids, mut before) = (Vec::new(), 0u64);
        for n in 0..from.count()? {
            let step = from.u64()?;
            let id = before.checked_add(step).filter(|_| n == 0 || step > 0);
            before = id.ok_or(from.malformed("ascending ids"))?;
            ids.push(EntryId(before));
        }
        let chunks: Vec<Chunk> = ids.chunks(CHUNK_IDS).map(|chunk| Arc::new(chunk.to_vec())).collect();
        Ok(Self { chunks: Arc::new(chunks), len: ids.len() as u64 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn equal_an_ordered_set(
            first in prop::collection::vec(0u64..9_000, 0..3_000),
            then in prop::collection::vec(0u64..9_000, 0..300),
        ) {
            let mut marks = Marks::default();
            for id in &first {
                marks.insert(EntryId(*id));
            }
            let (earlier, mut since) = (marks.clone(), BTreeSet::new());
            for id in &then {
                if marks.insert(EntryId(*id)) {
                    since.insert(EntryId(*id));
                }
            }
            let before: BTreeSet<EntryId> = first.iter().map(|id| EntryId(*id)).collect();
            prop_assert!(earlier.iter().eq(before.iter().copied()));
            prop_assert!(marks.iter().eq(before.union(&since).copied()));
            prop_assert!(marks.since(&earlier).eq(since.iter().copied()));
            let all: BTreeSet<EntryId> = marks.iter().collect();
            prop_assert!((0..9_000).map(EntryId).all(|id| marks.contains(id) == all.contains(&id)));
            prop_assert_eq!(marks.len() as usize, marks.iter().count());
            let mut bytes = Vec::new();
            marks.encode(&mut bytes);
            let again = Marks::decode(&mut Reader::new(&bytes)).unwrap();
            prop_assert!(again.iter().eq(marks.iter()));
            prop_assert_eq!(again.len(), marks.len());
        }
    }
}
