//! Owns arrays by dense local index, in chunks, so that growth never copies what is there.
//!
//! - A freed index is used again, the last freed first (R4).
//! - The first chunk grows as it fills, so that a small partition stays small.

use super::heap::HeapBytes;
use super::prefetch::prefetch;
use crate::codec::{Encoded, Malformed, Reader, put_u64};

/// Slots of a chunk.
const CHUNK_SLOTS: usize = 2_048;

/// Values by local index.
#[derive(Debug)]
pub(super) struct Slots<T> {
    chunks: Vec<Vec<Option<T>>>,
    free: Vec<u32>,
    len: usize,
    heap: HeapBytes,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self { chunks: Vec::new(), free: Vec::new(), len: 0, heap: HeapBytes::default() }
    }
}

impl<T> Slots<T> {
    /// How many slots are in use.
    pub(super) fn used(&self) -> usize {
        self.len - self.free.len()
    }

    #[inline]
    pub(super) fn get(&self, index: u32) -> Option<&T> {
        let index = index as usize;
        self.chunks.get(index / CHUNK_SLOTS)?.get(index % CHUNK_SLOTS)?.as_ref()
    }

    #[inline]
    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        let index = index as usize;
        self.chunks.get_mut(index / CHUNK_SLOTS)?.get_mut(index % CHUNK_SLOTS)?.as_mut()
    }

    /// Asks for the memory of a slot.
    #[inline]
    pub(super) fn prefetch(&self, index: u32) {
        let index = index as usize;
        if let Some(slot) = self.chunks.get(index / CHUNK_SLOTS).and_then(|c| c.get(index % CHUNK_SLOTS)) {
            prefetch(slot);
        }
    }

    /// Puts a value into a free slot and answers its index.
    pub(super) fn insert(&mut self, value: T) -> u32 {
        if let Some(index) = self.free.pop() {
            let at = index as usize;
            self.chunks[at / CHUNK_SLOTS][at % CHUNK_SLOTS] = Some(value);
            return index;
        }
        self.push(Some(value));
        (self.len - 1) as u32
    }

    fn push(&mut self, slot: Option<T>) {
        if self.len.is_multiple_of(CHUNK_SLOTS) {
            let capacity = if self.len == 0 { 0 } else { CHUNK_SLOTS };
            self.chunks.push(Vec::with_capacity(capacity));
            self.heap.resize(0, capacity * size_of::<Option<T>>());
        }
        let chunk = &mut self.chunks[self.len / CHUNK_SLOTS];
        let before = chunk.capacity();
        if chunk.len() == before {
            chunk.reserve_exact(before.clamp(4, CHUNK_SLOTS - before));
            self.heap.resize(before * size_of::<Option<T>>(), chunk.capacity() * size_of::<Option<T>>());
        }
        chunk.push(slot);
        self.len += 1;
    }

    /// Empties a slot.
    pub(super) fn remove(&mut self, index: u32) -> Option<T> {
        let at = index as usize;
        let value = self.chunks.get_mut(at / CHUNK_SLOTS)?.get_mut(at % CHUNK_SLOTS)?.take()?;
        self.free.push(index);
        Some(value)
    }

    /// The values in the order of their indexes.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        let slots = self.chunks.iter().flatten().enumerate();
        slots.filter_map(|(n, slot)| slot.as_ref().map(|value| (n as u32, value)))
    }

    /// Bytes of memory it holds, not counting what the values hold.
    pub(super) fn memory(&self) -> usize {
        self.heap.get() + self.chunks.capacity() * size_of::<Vec<Option<T>>>() + self.free.capacity() * 4
    }
}

impl<T: Encoded> Encoded for Slots<T> {
    fn encode(&self, out: &mut Vec<u8>) {
        put_u64(out, self.len as u64);
        self.chunks.iter().flatten().for_each(|slot| slot.encode(out));
        self.free.encode(out);
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut slots = Self::default();
        for _ in 0..from.count()? {
            slots.push(Encoded::decode(from)?);
        }
        slots.free = Encoded::decode(from)?;
        let empty = slots.len - slots.iter().count();
        let free = |index: &u32| (*index as usize) < slots.len && slots.get(*index).is_none();
        if slots.free.len() != empty || !slots.free.iter().all(free) {
            return Err(from.malformed("free slots"));
        }
        Ok(slots)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_freed_index_is_used_again() {
        let mut slots = Slots::default();
        for n in 0..5_000u32 {
            assert_eq!(slots.insert(n), n);
        }
        assert_eq!((slots.remove(4_097), slots.remove(7)), (Some(4_097), Some(7)));
        assert_eq!((slots.used(), slots.get(7)), (4_998, None));
        assert_eq!((slots.insert(70), slots.insert(71), slots.insert(72)), (7, 4_097, 5_000));
        assert_eq!(slots.get(4_097), Some(&71));
    }

    #[test]
    fn no_growth_copies_more_than_a_chunk() {
        let mut slots = Slots::default();
        for n in 0..10 * CHUNK_SLOTS as u64 {
            slots.insert(n);
        }
        assert!(slots.chunks.iter().all(|chunk| chunk.capacity() == CHUNK_SLOTS));
    }
}
