//! Owns the tables from the hash of an id to its local index, built for looking many up at once.
//!
//! - A place is a word: 31 bits of the hash and the index. They alone say where it belongs, so growing asks nobody; a
//!   caller compares the id where the index leads, which it is about to touch anyway.
//! - Places are found by linear probing in one cache line or two, so that they can be asked for ahead of a lookup.
//! - A table is one shard while it is small, and [`SHARDS`] from then on, each of which grows alone: at a million ids no
//!   insert moves more than a few thousand.

use super::heap::HeapBytes;
use super::prefetch::prefetch;

/// Shards of a large table.
const SHARDS: usize = 256;

/// A table with more ids than this is spread over the shards.
const SPREAD_IDS: usize = 2_048;

/// How far behind the place where a word belongs memory is asked for.
const PROBED_AHEAD: usize = 3;

/// Set in every word that is in use.
const USED: u32 = 1 << 31;

#[derive(Clone, Debug, Default)]
struct Shard {
    /// A power of two, or none.
    words: Box<[u64]>,
    len: usize,
}

/// Local indexes by the hash of what they name.
#[derive(Clone, Debug)]
pub(super) struct Index {
    shards: Vec<Shard>,
    heap: HeapBytes,
}

impl Default for Index {
    fn default() -> Self {
        Self { shards: vec![Shard::default()], heap: HeapBytes::default() }
    }
}

#[inline]
fn tag(hash: u64) -> u32 {
    (hash >> 33) as u32 | USED
}

impl Shard {
    #[inline]
    fn at(&self, tag: u32) -> usize {
        tag as usize & self.words.len().wrapping_sub(1)
    }

    /// The words from where `tag` belongs on, up to the first free one, with their places.
    #[inline]
    fn probe(&self, tag: u32) -> impl Iterator<Item = (usize, u64)> {
        let (mask, first) = (self.words.len().wrapping_sub(1), self.at(tag));
        let places = (0..self.words.len()).map(move |n| (first + n) & mask);
        places.map(|place| (place, self.words[place])).take_while(|(_, word)| *word != 0)
    }

    fn put(&mut self, word: u64) {
        let mask = self.words.len() - 1;
        let mut place = self.at((word >> 32) as u32);
        while self.words[place] != 0 {
            place = (place + 1) & mask;
        }
        self.words[place] = word;
    }

    fn insert(&mut self, word: u64, heap: &mut HeapBytes) {
        if 4 * (self.len + 1) > 3 * self.words.len() {
            let grown = vec![0; (2 * self.words.len()).max(4)].into_boxed_slice();
            let before = std::mem::replace(&mut self.words, grown);
            heap.resize(size_of_val::<[u64]>(&before), size_of_val::<[u64]>(&self.words));
            before.into_iter().filter(|word| *word != 0).for_each(|word| self.put(word));
        }
        self.put(word);
        self.len += 1;
    }

    /// Frees a place and lets the words behind it move up, so that no probe ends too early.
    fn free(&mut self, mut place: usize) {
        let mask = self.words.len() - 1;
        let mut behind = place;
        self.len -= 1;
        loop {
            behind = (behind + 1) & mask;
            let word = self.words[behind];
            if word == 0 {
                break;
            }
            let wanted = self.at((word >> 32) as u32);
            // It may move up unless the place where it belongs lies behind the free one.
            if (behind.wrapping_sub(wanted) & mask) >= (behind.wrapping_sub(place) & mask) {
                self.words[place] = word;
                place = behind;
            }
        }
        self.words[place] = 0;
    }
}

impl Index {
    #[inline]
    fn shard_of(&self, tag: u32) -> usize {
        (tag >> 23) as usize & (self.shards.len() - 1)
    }

    /// The index under `hash` that `same` accepts.
    #[inline]
    pub(super) fn find(&self, hash: u64, mut same: impl FnMut(u32) -> bool) -> Option<u32> {
        let tag = tag(hash);
        let mut words = self.shards[self.shard_of(tag)].probe(tag);
        let found = words.find(|(_, word)| (*word >> 32) as u32 == tag && same(*word as u32));
        found.map(|(_, word)| word as u32)
    }

    /// Asks for the memory that a lookup reads first.
    #[inline]
    pub(super) fn prefetch(&self, hash: u64) {
        let tag = tag(hash);
        let shard = &self.shards[self.shard_of(tag)];
        let at = shard.at(tag);
        // Most words are found where they belong, or soon behind.
        for place in [at, at + PROBED_AHEAD] {
            if let Some(word) = shard.words.get(place) {
                prefetch(word);
            }
        }
    }

    /// Adds an index that is not there.
    pub(super) fn insert(&mut self, hash: u64, index: u32) {
        if self.shards.len() == 1 && self.shards[0].len == SPREAD_IDS {
            let single = std::mem::take(&mut self.shards[0]);
            (self.shards, self.heap) = (vec![Shard::default(); SHARDS], HeapBytes::default());
            single.words.into_iter().filter(|word| *word != 0).for_each(|word| self.place(word));
        }
        self.place(u64::from(tag(hash)) << 32 | u64::from(index));
    }

    fn place(&mut self, word: u64) {
        let shard = self.shard_of((word >> 32) as u32);
        self.shards[shard].insert(word, &mut self.heap);
    }

    /// Takes an index out, if it is there.
    pub(super) fn remove(&mut self, hash: u64, index: u32) {
        let tag = tag(hash);
        let shard = self.shard_of(tag);
        let shard = &mut self.shards[shard];
        let wanted = u64::from(tag) << 32 | u64::from(index);
        let place = shard.probe(tag).find(|(_, word)| *word == wanted).map(|(place, _)| place);
        if let Some(place) = place {
            shard.free(place);
        }
    }

    /// Bytes of memory it holds.
    pub(super) fn memory(&self) -> usize {
        self.heap.get() + self.shards.capacity() * size_of::<Shard>()
    }
}

#[cfg(test)]
mod tests {
    use super::super::map::hash;
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn equals_an_ordered_set(
            // Coarse hashes, so that tags meet.
            grain in prop::sample::select(vec![0u64, 40, 56]),
            changes in prop::collection::vec((prop::bool::weighted(0.7), 0u32..5_000), 0..8_000),
        ) {
            let (mut index, mut model) = (Index::default(), BTreeSet::new());
            let hash_of = |key: u32| hash(&u64::from(key)) >> grain << grain;
            for (insert, key) in changes {
                if insert && model.insert(key) {
                    index.insert(hash_of(key), key);
                } else if !insert {
                    index.remove(hash_of(key), key);
                    model.remove(&key);
                }
            }
            for key in 0..5_000 {
                let found = index.find(hash_of(key), |other| other == key);
                prop_assert_eq!(found, model.get(&key).copied());
            }
        }
    }

    #[test]
    fn no_shard_of_a_large_table_holds_more_than_its_share() {
        let mut index = Index::default();
        (0..400_000u32).for_each(|key| index.insert(hash(&u64::from(key)), key));
        let largest = index.shards.iter().map(|shard| shard.words.len()).max();
        assert!(largest.is_some_and(|words| words <= 4_096), "{largest:?}");
        let held: usize = index.shards.iter().map(|shard| 8 * shard.words.len()).sum();
        assert!(index.memory() >= held && index.memory() < held + 20_000);
    }
}
