//! Owns the sealed cell: what some heads held, about fifty references in 128 bytes.
//!
//! - A cell takes whole heads: a copy of a fixed size. It is full when another might not fit, so it always ends with a head.
//! - The newest position, detours aside, stands in full (R6); the words are the steps that lead there ([`Steps`]).

use super::head::{HEAD_WORDS, Head};
use super::region::Plain;
use super::steps::Steps;
use crate::ids::{EntryId, RowPosition};
use crate::partition::prefetch::prefetch;

/// Words of a cell: three heads.
const CELL_WORDS: usize = 3 * HEAD_WORDS;

/// A run of references of one feed.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(128))]
pub(super) struct Cell {
    /// The next newer cell; of the newest, the oldest one.
    pub(super) next: u32,
    /// The next older cell; means nothing in the oldest one.
    pub(super) previous: u32,
    /// The position of the newest reference that is no detour.
    last: RowPosition,
    /// At least the largest id of everything that was ever older than this cell, evicted and refused ids included.
    pub(super) before: EntryId,
    count: u8,
    used: u8,
    words: [u16; CELL_WORDS],
}

const _: () = assert!(size_of::<Cell>() == 128 && CELL_WORDS <= u8::MAX as usize);

// SAFETY: it is integers only, and of the alignment above.
#[expect(unsafe_code, reason = "the promise of `Plain`")]
unsafe impl Plain for Cell {}

impl Cell {
    #[cfg(test)]
    pub(super) fn new(before: EntryId) -> Self {
        Self { next: 0, previous: 0, last: RowPosition(0), before, count: 0, used: 0, words: [0; CELL_WORDS] }
    }

    /// Makes it an empty cell; the words behind `used` mean nothing.
    pub(super) fn clear(&mut self, before: EntryId) {
        (self.next, self.previous, self.last, self.before) = (0, 0, RowPosition(0), before);
        (self.count, self.used) = (0, 0);
    }

    #[inline]
    pub(super) fn count(&self) -> u32 {
        u32::from(self.count)
    }

    /// Whether another head fits, however long.
    #[inline]
    pub(super) fn has_room(&self) -> bool {
        usize::from(self.used) + HEAD_WORDS <= CELL_WORDS
    }

    /// Whether one more head may fill it.
    #[inline]
    pub(super) fn is_nearly_full(&self) -> bool {
        usize::from(self.used) + 2 * HEAD_WORDS > CELL_WORDS
    }

    /// Asks for both cache lines of a cell that is about to be written.
    #[inline]
    pub(super) fn prefetch(&self) {
        prefetch(self);
        prefetch(&self.words[CELL_WORDS - 1]);
    }

    /// Takes over the references of a head; there is room.
    #[inline]
    pub(super) fn take(&mut self, head: &Head) {
        let (words, used) = head.words();
        let at = usize::from(self.used);
        // A copy of a fixed size: what is behind the used words means nothing.
        self.words[at..at + HEAD_WORDS].copy_from_slice(words);
        self.used += used as u8;
        self.count += head.count() as u8;
        self.last = head.last();
    }

    /// The positions, newest arrival first.
    #[inline]
    pub(super) fn positions(&self) -> Steps<'_> {
        Steps::new(&self.words[..usize::from(self.used)], self.last, self.count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn positions() -> impl Strategy<Value = Vec<u64>> {
        let near = (1u64 << 32) - 200_000..(1u64 << 32) + 200_000;
        prop::collection::vec(prop_oneof![5 => near, 1 => any::<u64>()], 1..120)
    }

    /// Fills a cell; answers what it took, oldest first.
    fn fill(cell: &mut Cell, positions: &[u64]) -> Vec<u64> {
        let (mut head, mut taken, mut waiting) = (Head::default(), Vec::new(), Vec::new());
        for position in positions {
            if !head.add(RowPosition(*position)) {
                cell.take(&head);
                head.note_sealed();
                taken.append(&mut waiting);
                if !cell.has_room() {
                    break;
                }
                assert!(head.add(RowPosition(*position)), "an empty head has room for any");
            }
            waiting.push(*position);
        }
        taken
    }

    proptest! {
        #[test]
        fn a_cell_returns_what_it_took_newest_first(positions in positions()) {
            let mut cell = Cell::new(EntryId(7));
            let mut taken = fill(&mut cell, &positions);
            taken.reverse();
            prop_assert!(cell.positions().map(|p| p.0).eq(taken));
        }
    }

    #[test]
    fn fifty_references_fit_at_steps_of_up_to_65_535() {
        let positions: Vec<u64> = (0..60).map(|n| n * 65_535).collect();
        assert_eq!(fill(&mut Cell::new(EntryId::ZERO), &positions).len(), 51);
    }
}
