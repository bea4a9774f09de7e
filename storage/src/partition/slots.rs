//! Owns arrays by dense local index, in chunks, so that growth never copies what is there.
//!
//! - A freed index is used again, the last freed first (R4). A free slot names the one freed before it, so that the list of
//!   free slots is part of them and a cut need not write it at once.
//! - The first chunk grows as it fills, so that a small partition stays small.

use super::heap::HeapBytes;
use super::prefetch::prefetch_whole;
use crate::codec::{Encoded, Malformed, Reader, encoded_struct};

/// Slots of a chunk.
const CHUNK_SLOTS: usize = 2_048;

/// What is under a local index.
#[derive(Debug)]
pub(super) enum Slot<T> {
    Used(T),
    /// The slot that was freed before, if that is still free.
    Free(Option<u32>),
}

impl<T> Slot<T> {
    #[inline]
    fn value(&self) -> Option<&T> {
        match self {
            Self::Used(value) => Some(value),
            Self::Free(_) => None,
        }
    }

    /// The slot as it stands in a bucket.
    pub(super) fn encode(&self, out: &mut Vec<u8>, encode: impl FnOnce(&T, &mut Vec<u8>)) {
        match self {
            Self::Free(before) => {
                out.push(0);
                before.encode(out);
            }
            Self::Used(value) => {
                out.push(1);
                encode(value, out);
            }
        }
    }

    /// Reads a slot.
    pub(super) fn decode(
        from: &mut Reader<'_>,
        decode: impl FnOnce(&mut Reader<'_>) -> Result<T, Malformed>,
    ) -> Result<Self, Malformed> {
        if from.flag()? { decode(from).map(Self::Used) } else { Encoded::decode(from).map(Self::Free) }
    }
}

/// What an image says of slots beside what is in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) len: u32,
    /// The slot freed last.
    pub(super) free: Option<u32>,
}

encoded_struct!(Extent { len, free });

/// Values by local index.
#[derive(Debug)]
pub(super) struct Slots<T> {
    chunks: Vec<Vec<Slot<T>>>,
    /// The slot freed last.
    free: Option<u32>,
    used: usize,
    len: usize,
    heap: HeapBytes,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self { chunks: Vec::new(), free: None, used: 0, len: 0, heap: HeapBytes::default() }
    }
}

impl<T> Slots<T> {
    /// How many slots are in use.
    pub(super) fn used(&self) -> usize {
        self.used
    }

    pub(super) fn extent(&self) -> Extent {
        Extent { len: self.len as u32, free: self.free }
    }

    #[inline]
    pub(super) fn slot(&self, index: u32) -> Option<&Slot<T>> {
        let index = index as usize;
        self.chunks.get(index / CHUNK_SLOTS)?.get(index % CHUNK_SLOTS)
    }

    #[inline]
    pub(super) fn get(&self, index: u32) -> Option<&T> {
        self.slot(index)?.value()
    }

    #[inline]
    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        let index = index as usize;
        match self.chunks.get_mut(index / CHUNK_SLOTS)?.get_mut(index % CHUNK_SLOTS)? {
            Slot::Used(value) => Some(value),
            Slot::Free(_) => None,
        }
    }

    /// Asks for the memory of a slot.
    #[inline]
    pub(super) fn prefetch(&self, index: u32) {
        let index = index as usize;
        if let Some(slot) = self.chunks.get(index / CHUNK_SLOTS).and_then(|c| c.get(index % CHUNK_SLOTS)) {
            prefetch_whole(slot);
        }
    }

    /// The index that the next value gets.
    #[inline]
    pub(super) fn next(&self) -> u32 {
        self.free.unwrap_or(self.len as u32)
    }

    /// Puts a value into a free slot and answers its index, which is [`Slots::next`].
    pub(super) fn insert(&mut self, value: T) -> u32 {
        self.used += 1;
        let Some(index) = self.free else {
            self.push(Slot::Used(value));
            return (self.len - 1) as u32;
        };
        let slot = &mut self.chunks[index as usize / CHUNK_SLOTS][index as usize % CHUNK_SLOTS];
        if let Slot::Free(before) = std::mem::replace(slot, Slot::Used(value)) {
            self.free = before;
        }
        index
    }

    fn push(&mut self, slot: Slot<T>) {
        if self.len.is_multiple_of(CHUNK_SLOTS) {
            let capacity = if self.len == 0 { 0 } else { CHUNK_SLOTS };
            self.chunks.push(Vec::with_capacity(capacity));
            self.heap.resize(0, capacity * size_of::<Slot<T>>());
        }
        let chunk = &mut self.chunks[self.len / CHUNK_SLOTS];
        let before = chunk.capacity();
        if chunk.len() == before {
            chunk.reserve_exact(before.clamp(4, CHUNK_SLOTS - before));
            self.heap.resize(before * size_of::<Slot<T>>(), chunk.capacity() * size_of::<Slot<T>>());
        }
        chunk.push(slot);
        self.len += 1;
    }

    /// Empties a slot.
    pub(super) fn remove(&mut self, index: u32) -> Option<T> {
        let at = index as usize;
        let slot = self.chunks.get_mut(at / CHUNK_SLOTS)?.get_mut(at % CHUNK_SLOTS)?;
        if matches!(slot, Slot::Free(_)) {
            return None;
        }
        let Slot::Used(value) = std::mem::replace(slot, Slot::Free(self.free)) else { return None };
        self.free = Some(index);
        self.used -= 1;
        Some(value)
    }

    /// The values in the order of their indexes.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        let slots = self.chunks.iter().flatten().enumerate();
        slots.filter_map(|(n, slot)| slot.value().map(|value| (n as u32, value)))
    }

    /// Bytes of memory it holds, not counting what the values hold.
    pub(super) fn memory(&self) -> usize {
        self.heap.get() + self.chunks.capacity() * size_of::<Vec<Slot<T>>>()
    }
}

impl<T> Slots<T> {
    /// The slots of an image: as many as their extent says, the free ones a chain of all that are free.
    ///
    /// # Errors
    /// They are not.
    pub(super) fn restore(extent: Extent, slots: impl Iterator<Item = Slot<T>>) -> Result<Self, Malformed> {
        let wrong = Reader::new(&[]).malformed("free slots");
        let mut restored = Self::default();
        for slot in slots {
            restored.used += usize::from(slot.value().is_some());
            restored.push(slot);
        }
        restored.free = extent.free;
        let mut free = extent.free;
        for _ in restored.used..restored.len {
            match free.and_then(|index| restored.slot(index)) {
                Some(Slot::Free(before)) => free = *before,
                _ => return Err(wrong),
            }
        }
        let whole = free.is_none() && restored.len == extent.len as usize;
        if whole { Ok(restored) } else { Err(wrong) }
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

    #[test]
    fn restored_slots_are_taken_in_the_same_order() {
        let mut slots = Slots::default();
        (0..100u32).for_each(|n| _ = slots.insert(n));
        [7, 90, 3].into_iter().for_each(|index| _ = slots.remove(index));
        let (mut image, mut copy) = (Vec::new(), Vec::new());
        (0..100).for_each(|n| slots.slot(n).unwrap().encode(&mut image, Encoded::encode));
        let mut from = Reader::new(&image);
        (0..100).for_each(|_| copy.push(Slot::decode(&mut from, Encoded::decode).unwrap()));
        let mut restored = Slots::restore(slots.extent(), copy.into_iter()).unwrap();
        assert_eq!((restored.used(), restored.extent()), (97, slots.extent()));
        assert!((0..5).all(|n| restored.next() == slots.next() && restored.insert(n) == slots.insert(n)));
    }

    #[test]
    fn a_chain_of_free_slots_that_is_none_is_refused() {
        let slots = |free: [Option<u32>; 3]| free.map(Slot::<()>::Free).into_iter();
        let extent = |free| Extent { len: 3, free };
        assert!(Slots::restore(extent(Some(2)), slots([None, Some(0), Some(1)])).is_ok());
        for (free, chain) in [
            (None, [None, Some(0), Some(1)]),
            (Some(1), [None, Some(0), Some(1)]),
            (Some(2), [Some(1), Some(0), Some(1)]),
            (Some(2), [None, Some(9), Some(1)]),
        ] {
            assert!(Slots::restore(extent(free), slots(chain)).is_err());
        }
        assert!(Slots::restore(Extent { len: 4, free: Some(2) }, slots([None, Some(0), Some(1)])).is_err());
    }
}
