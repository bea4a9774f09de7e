//! Owns a queue in chunks, so that growth never copies what is there.

use std::collections::VecDeque;

/// Items of a chunk.
const CHUNK_ITEMS: usize = 512;

/// A queue with access by offset from its front.
#[derive(Debug)]
pub(super) struct ChunkedDeque<T> {
    /// All full but the last; the first `gone` items of the first have left.
    chunks: VecDeque<VecDeque<T>>,
    gone: usize,
    len: usize,
}

impl<T> Default for ChunkedDeque<T> {
    fn default() -> Self {
        Self { chunks: VecDeque::new(), gone: 0, len: 0 }
    }
}

impl<T> ChunkedDeque<T> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn push_back(&mut self, item: T) {
        let at = self.gone + self.len;
        if at.is_multiple_of(CHUNK_ITEMS) && at / CHUNK_ITEMS == self.chunks.len() {
            // The first chunk grows as it fills, so that an idle queue stays small.
            let room = if self.len == 0 { 0 } else { CHUNK_ITEMS };
            self.chunks.push_back(VecDeque::with_capacity(room));
        }
        if let Some(chunk) = self.chunks.back_mut() {
            chunk.push_back(item);
            self.len += 1;
        }
    }

    pub(super) fn pop_front(&mut self) -> Option<T> {
        let chunk = self.chunks.front_mut()?;
        let item = chunk.pop_front()?;
        self.len -= 1;
        self.gone += 1;
        if self.gone == CHUNK_ITEMS || self.len == 0 {
            self.chunks.pop_front();
            self.gone = 0;
        }
        Some(item)
    }

    pub(super) fn front(&self) -> Option<&T> {
        self.chunks.front()?.front()
    }

    /// The item at an offset from the front.
    pub(super) fn get(&self, offset: usize) -> Option<&T> {
        let at = self.gone + offset;
        let gone = if at < CHUNK_ITEMS { self.gone } else { 0 };
        self.chunks.get(at / CHUNK_ITEMS)?.get(at % CHUNK_ITEMS - gone)
    }

    /// The items from the offset `from` on.
    pub(super) fn iter_from(&self, from: usize) -> impl DoubleEndedIterator<Item = &T> {
        let at = self.gone + from.min(self.len);
        // Items that left the first chunk no longer count within it.
        let skip = if at < CHUNK_ITEMS { at - self.gone } else { at % CHUNK_ITEMS };
        let chunks = self.chunks.iter().skip(at / CHUNK_ITEMS).enumerate();
        chunks.flat_map(move |(n, chunk)| chunk.range(if n == 0 { skip.min(chunk.len()) } else { 0 }..))
    }

    /// Bytes of memory it holds, not counting what the items hold.
    pub(super) fn memory(&self) -> usize {
        // Only the first chunk may be smaller than a whole one.
        let whole = self.chunks.len().saturating_sub(1) * CHUNK_ITEMS;
        (whole + self.chunks.front().map_or(0, VecDeque::capacity)) * size_of::<T>()
            + self.chunks.capacity() * size_of::<VecDeque<T>>()
    }
}

impl<T> FromIterator<T> for ChunkedDeque<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        let mut deque = Self::default();
        for item in items {
            deque.push_back(item);
        }
        deque
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn equals_the_standard_queue(steps in prop::collection::vec((any::<bool>(), 1usize..700), 1..30)) {
            let (mut deque, mut model, mut next) = (ChunkedDeque::default(), VecDeque::new(), 0u32);
            for (push, count) in steps {
                for _ in 0..count {
                    if push {
                        deque.push_back(next);
                        model.push_back(next);
                        next += 1;
                    } else {
                        prop_assert_eq!(deque.pop_front(), model.pop_front());
                    }
                }
                prop_assert_eq!((deque.len(), deque.front()), (model.len(), model.front()));
                for from in [0, 1, model.len() / 2, model.len()] {
                    let from = from.min(model.len());
                    prop_assert!(deque.iter_from(from).eq(model.range(from..)));
                    prop_assert_eq!(deque.get(from), model.get(from));
                }
            }
        }
    }
}
