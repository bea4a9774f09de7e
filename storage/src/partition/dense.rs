//! Owns the ids of owners side by side by local index: a page names the owner of each row, and this is all it asks of most.
//!
//! - Eight stand in a cache line; those of a hundred thousand owners stay in the second cache, where the owners themselves do not.
//! - An index that is freed keeps its last id until it is used again.
//! - It grows by chunks, so that nothing is ever moved but the first, which grows as it fills.

use super::heap::HeapBytes;
use super::prefetch::prefetch;
use crate::ids::UserId;

/// Ids of a chunk.
const CHUNK_IDS: usize = 8_192;

/// User ids by local index.
#[derive(Debug, Default)]
pub(super) struct DenseIds {
    chunks: Vec<Vec<UserId>>,
    heap: HeapBytes,
}

impl DenseIds {
    /// The id that was last given this index, which was set some time.
    #[inline]
    pub(super) fn get(&self, index: u32) -> UserId {
        let index = index as usize;
        self.chunks[index / CHUNK_IDS][index % CHUNK_IDS]
    }

    /// Asks for an id that is about to be read.
    #[inline]
    pub(super) fn prefetch(&self, index: u32) {
        let index = index as usize;
        if let Some(id) = self.chunks.get(index / CHUNK_IDS).and_then(|chunk| chunk.get(index % CHUNK_IDS)) {
            prefetch(id);
        }
    }

    /// Gives an index an id; those that were skipped have none that means anything.
    pub(super) fn set(&mut self, index: u32, id: UserId) {
        let (chunk, at) = (index as usize / CHUNK_IDS, index as usize % CHUNK_IDS);
        self.chunks.resize_with(self.chunks.len().max(chunk + 1), Vec::new);
        let ids = &mut self.chunks[chunk];
        let before = ids.capacity();
        if chunk > 0 && before == 0 {
            ids.reserve_exact(CHUNK_IDS);
        }
        ids.resize(ids.len().max(at + 1), UserId(0));
        ids[at] = id;
        self.heap.resize(before * size_of::<UserId>(), ids.capacity() * size_of::<UserId>());
    }

    /// Bytes of memory it holds.
    pub(super) fn memory(&self) -> usize {
        self.heap.get() + self.chunks.capacity() * size_of::<Vec<UserId>>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_index_has_the_id_it_was_given_last() {
        let mut ids = DenseIds::default();
        let far = 3 * CHUNK_IDS as u32 + 5;
        for index in (0..100).chain([CHUNK_IDS as u32, far, 7]) {
            ids.set(index, UserId(u64::from(index) + 9));
            ids.set(index, UserId(u64::from(index) + 1));
        }
        for index in [0, 7, 99, CHUNK_IDS as u32, far] {
            ids.prefetch(index);
            assert_eq!(ids.get(index), UserId(u64::from(index) + 1));
        }
        ids.prefetch(u32::MAX);
        let held: usize = ids.chunks.iter().map(|chunk| size_of::<UserId>() * chunk.capacity()).sum();
        assert!(ids.memory() >= held && ids.memory() < held + 1_024);
    }
}
