//! Owns the hash maps of a partition: fixed hashing, and growth in steps that stop nothing.
//!
//! - Nothing that reaches the state, an answer or an image may depend on their order of iteration.
//! - A map is one table while it is small, and [`SHARDS`] tables by some bits of the hash from then on, each of which
//!   grows alone: at a million keys no insert moves more than a few thousand entries.

use std::hash::{Hash, Hasher};

use hashbrown::HashTable;

use super::heap::HeapBytes;

/// Tables of a large map.
const SHARDS: usize = 256;

/// A map with more entries than this is spread over the shards.
const SPREAD_ENTRIES: usize = 2_048;

/// A table of entries that are found by a hash and a comparison.
#[derive(Clone, Debug)]
pub(super) struct Shards<T> {
    tables: Vec<HashTable<T>>,
    len: usize,
    heap: HeapBytes,
}

impl<T> Default for Shards<T> {
    fn default() -> Self {
        Self { tables: vec![HashTable::new()], len: 0, heap: HeapBytes::default() }
    }
}

impl<T> Shards<T> {
    /// Which table. The lowest bits of a hash choose the bucket and the highest are its tag, so these are between.
    fn shard(&self, hash: u64) -> usize {
        (hash >> 40) as usize & (self.tables.len() - 1)
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(super) fn find(&self, hash: u64, same: impl FnMut(&T) -> bool) -> Option<&T> {
        self.tables[self.shard(hash)].find(hash, same)
    }

    pub(super) fn find_mut(&mut self, hash: u64, same: impl FnMut(&T) -> bool) -> Option<&mut T> {
        let shard = self.shard(hash);
        self.tables[shard].find_mut(hash, same)
    }

    /// Adds an entry that is not there.
    pub(super) fn insert_new(&mut self, hash: u64, entry: T, hasher: impl Fn(&T) -> u64) -> &mut T {
        if self.len == SPREAD_ENTRIES && self.tables.len() == 1 {
            self.spread(&hasher);
        }
        self.place(hash, entry, &hasher)
    }

    fn place(&mut self, hash: u64, entry: T, hasher: &impl Fn(&T) -> u64) -> &mut T {
        self.len += 1;
        let shard = self.shard(hash);
        let table = &mut self.tables[shard];
        if table.len() == table.capacity() {
            let before = table.allocation_size();
            table.reserve(1, hasher);
            self.heap.resize(before, table.allocation_size());
        }
        table.insert_unique(hash, entry, hasher).into_mut()
    }

    fn spread(&mut self, hasher: &impl Fn(&T) -> u64) {
        let spread = (0..SHARDS).map(|_| HashTable::new()).collect();
        let single = std::mem::replace(&mut self.tables, spread);
        (self.len, self.heap) = (0, HeapBytes::default());
        for entry in single.into_iter().flatten() {
            self.place(hasher(&entry), entry, hasher);
        }
    }

    pub(super) fn remove(&mut self, hash: u64, same: impl FnMut(&T) -> bool) -> Option<T> {
        let shard = self.shard(hash);
        let entry = self.tables[shard].find_entry(hash, same).ok()?;
        self.len -= 1;
        Some(entry.remove().0)
    }

    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.tables.iter().flatten()
    }

    /// Bytes of memory it holds, not counting what the entries hold.
    pub(super) fn memory(&self) -> usize {
        self.heap.get() + self.tables.capacity() * size_of::<HashTable<T>>()
    }
}

/// A map from ids.
#[derive(Clone, Debug)]
pub(super) struct IdMap<K, V>(Shards<(K, V)>);

impl<K, V> Default for IdMap<K, V> {
    fn default() -> Self {
        Self(Shards::default())
    }
}

impl<K: Hash + Eq, V> IdMap<K, V> {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.0.find(hash(key), |(known, _)| known == key).map(|(_, value)| value)
    }

    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.0.find_mut(hash(key), |(known, _)| known == key).map(|(_, value)| value)
    }

    /// Sets the value of a key; answers the one before.
    pub(super) fn insert(&mut self, key: K, value: V) -> Option<V> {
        if let Some(known) = self.get_mut(&key) {
            return Some(std::mem::replace(known, value));
        }
        self.0.insert_new(hash(&key), (key, value), |(key, _)| hash(key));
        None
    }

    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        self.0.remove(hash(key), |(known, _)| known == key).map(|(_, value)| value)
    }

    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.0.iter().map(|(key, value)| (key, value))
    }

    /// Bytes of memory it holds, not counting what keys and values hold.
    pub(super) fn memory(&self) -> usize {
        self.0.memory()
    }
}

#[cfg(test)]
impl<K: Hash + Eq, V> FromIterator<(K, V)> for IdMap<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        let mut map = Self::default();
        for (key, value) in pairs {
            map.insert(key, value);
        }
        map
    }
}

/// The fixed hash of a key.
#[inline]
pub(super) fn hash(key: &impl Hash) -> u64 {
    let mut hasher = IdHasher::default();
    key.hash(&mut hasher);
    hasher.finish()
}

/// Mixes the few integers of an id with the finalizer of SplitMix64.
#[derive(Default)]
pub(super) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    #[inline]
    fn write_u64(&mut self, value: u64) {
        let mut z = (self.0.rotate_left(23) ^ value).wrapping_add(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        self.0 = z ^ (z >> 31);
    }

    #[inline]
    fn write_u32(&mut self, value: u32) {
        self.write_u64(u64::from(value));
    }

    #[inline]
    fn write_u16(&mut self, value: u16) {
        self.write_u64(u64::from(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn equals_an_ordered_map(changes in prop::collection::vec((any::<bool>(), 0u64..6_000, any::<u32>()), 0..8_000)) {
            let (mut map, mut model) = (IdMap::default(), BTreeMap::new());
            for (insert, key, value) in changes {
                if insert {
                    prop_assert_eq!(map.insert(key, value), model.insert(key, value));
                } else {
                    prop_assert_eq!(map.remove(&key), model.remove(&key));
                }
            }
            prop_assert_eq!(map.len(), model.len());
            let sorted: BTreeMap<u64, u32> = map.iter().map(|(key, value)| (*key, *value)).collect();
            prop_assert_eq!(sorted, model);
        }
    }

    #[test]
    fn no_table_of_a_large_map_holds_more_than_its_share() {
        let map: IdMap<u64, ()> = (0..400_000).map(|key| (key, ())).collect();
        let largest = map.0.tables.iter().map(HashTable::capacity).max();
        assert!(largest.is_some_and(|capacity| capacity <= 4 * 400_000 / SHARDS), "{largest:?}");
    }

    #[test]
    fn memory_is_what_the_tables_hold() {
        let map: IdMap<u64, u64> = (0..100_000).map(|key| (key, key)).collect();
        let held: usize = map.0.tables.iter().map(HashTable::allocation_size).sum();
        assert!(map.memory() >= held && map.memory() <= held + held / 20 + 256 * 64);
    }
}
