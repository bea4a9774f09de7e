//! Owns the posting list: an ordered set of 32-bit local indexes.
//!
//! - Members are kept ascending in chunks of at most [`CHUNK_MEMBERS`], so that a change moves few bytes.
//! - No chunk is empty.

/// Members of a chunk; a full one is split in two.
const CHUNK_MEMBERS: usize = 512;

/// An ordered set of local indexes.
#[derive(Clone, Debug, Default)]
pub(super) struct PostingList {
    chunks: Vec<Vec<u32>>,
    len: u32,
}

impl PostingList {
    pub(super) fn len(&self) -> u32 {
        self.len
    }

    /// The chunk that holds `member`, or would.
    fn chunk_of(&self, member: u32) -> usize {
        self.chunks
            .partition_point(|chunk| chunk.first().is_none_or(|first| *first <= member))
            .saturating_sub(1)
    }

    /// Adds `member`; false if it was there.
    pub(super) fn insert(&mut self, member: u32) -> bool {
        if self.chunks.is_empty() {
            self.chunks.push(Vec::new());
        }
        let at = self.chunk_of(member);
        let chunk = &mut self.chunks[at];
        let Err(place) = chunk.binary_search(&member) else { return false };
        chunk.insert(place, member);
        if chunk.len() > CHUNK_MEMBERS {
            let upper = chunk.split_off(CHUNK_MEMBERS / 2);
            self.chunks.insert(at + 1, upper);
        }
        self.len += 1;
        true
    }

    /// Takes `member` out; false if it was not there.
    pub(super) fn remove(&mut self, member: u32) -> bool {
        let at = self.chunk_of(member);
        let Some(chunk) = self.chunks.get_mut(at) else { return false };
        let Ok(place) = chunk.binary_search(&member) else { return false };
        chunk.remove(place);
        if chunk.is_empty() {
            self.chunks.remove(at);
        }
        self.len -= 1;
        true
    }

    /// Members from `from` on, ascending.
    pub(super) fn iter_from(&self, from: u32) -> impl Iterator<Item = u32> {
        let at = self.chunk_of(from);
        self.chunks.iter().skip(at).flatten().copied().skip_while(move |member| *member < from)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = u32> {
        self.chunks.iter().flatten().copied()
    }

    /// Bytes of memory it holds.
    pub(super) fn memory(&self) -> usize {
        self.chunks.capacity() * size_of::<Vec<u32>>()
            + self.chunks.iter().map(|chunk| chunk.capacity() * size_of::<u32>()).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn equals_a_set(changes in prop::collection::vec((any::<bool>(), 0u32..3_000), 0..4_000), from in 0u32..3_000) {
            let (mut list, mut set) = (PostingList::default(), BTreeSet::new());
            for (insert, member) in changes {
                if insert {
                    prop_assert_eq!(list.insert(member), set.insert(member));
                } else {
                    prop_assert_eq!(list.remove(member), set.remove(&member));
                }
            }
            prop_assert_eq!(list.len() as usize, set.len());
            prop_assert!(list.iter().eq(set.iter().copied()));
            prop_assert!(list.iter_from(from).eq(set.range(from..).copied()));
        }
    }
}
