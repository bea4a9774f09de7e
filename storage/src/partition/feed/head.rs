//! Owns the head of a feed: its newest references in one cache line.
//!
//! - References stand as steps behind the newest sealed one, which a cell takes as they are.
//! - `max` is the running maximum of all ids that were ever stored here, so that a larger id needs no other look.

use super::region::Plain;
use super::steps::{Step, Steps};
use crate::ids::{EntryId, RowPosition};

/// Words of a head, which are the most references of one.
pub(super) const HEAD_WORDS: usize = 17;

/// Stands in the place of the newest reference of a freed feed.
const FREED: RowPosition = RowPosition(u64::MAX);

/// The newest references of one reader in one space, and where the others are.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
pub(super) struct Head {
    pub(super) max: EntryId,
    /// The position of the newest reference that is no detour, sealed or not.
    last: RowPosition,
    /// The newest sealed cell; 0 if there is none.
    pub(super) newest: u32,
    /// The high half of the feed's floor: an id with a larger one is above it, without a look at the oldest cell.
    floor_high: u32,
    /// References in sealed cells.
    sealed: u32,
    used: u8,
    count: u8,
    words: [u16; HEAD_WORDS],
}

const _: () = assert!(size_of::<Head>() == 64);

// SAFETY: it is integers only, and of the alignment above.
#[expect(unsafe_code, reason = "the promise of `Plain`")]
unsafe impl Plain for Head {}

impl Head {
    /// Whether an id is above the feed's floor for certain.
    #[inline]
    pub(super) fn is_surely_above_floor(&self, id: EntryId) -> bool {
        (id.0 >> 32) as u32 > self.floor_high
    }

    /// The least and the largest that the floor of a feed that has cells can be.
    #[inline]
    pub(super) fn floor_range(&self) -> (EntryId, EntryId) {
        let least = u64::from(self.floor_high) << 32;
        (EntryId(least), EntryId(least | u64::from(u32::MAX)))
    }

    /// Takes note of the feed's floor.
    #[inline]
    pub(super) fn note_floor(&mut self, floor: EntryId) {
        self.floor_high = (floor.0 >> 32) as u32;
    }

    /// Makes an empty head that of a freed feed with this floor.
    pub(super) fn set_freed(&mut self, floor: EntryId) {
        assert!(self.newest == 0 && self.len() == 0, "a freed feed holds nothing");
        (self.max, self.last) = (floor, FREED);
    }

    /// Whether the feed is freed; its floor is `max` then.
    #[inline]
    pub(super) fn is_freed(&self) -> bool {
        self.last == FREED && self.len() == 0
    }

    /// References in the head.
    #[inline]
    pub(super) fn count(&self) -> u32 {
        u32::from(self.count)
    }

    /// References in sealed cells.
    #[inline]
    pub(super) fn sealed(&self) -> u32 {
        self.sealed
    }

    pub(super) fn set_sealed(&mut self, sealed: u32) {
        self.sealed = sealed;
    }

    /// All references of the feed.
    #[inline]
    pub(super) fn len(&self) -> u32 {
        self.sealed + self.count()
    }

    /// The position of the newest reference that is no detour; means nothing if there is none.
    #[inline]
    pub(super) fn last(&self) -> RowPosition {
        self.last
    }

    /// Whether there is room for no other reference.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        usize::from(self.used) >= HEAD_WORDS
    }

    /// Adds a reference if its step is one word and there is room.
    #[inline]
    pub(super) fn add_near(&mut self, position: RowPosition) -> bool {
        let step = position.0.wrapping_sub(self.last.0);
        let Some(word) = self.words.get_mut(usize::from(self.used)) else { return false };
        if step.wrapping_sub(1) >= 0xFFFF {
            return false;
        }
        *word = step as u16;
        self.used += 1;
        self.count += 1;
        self.last = position;
        true
    }

    /// Adds a reference if there is room; an empty head has room for any.
    pub(super) fn add(&mut self, position: RowPosition) -> bool {
        // The first of a feed stands in full: its step leads from nowhere.
        let step = if self.len() == 0 { Step::first() } else { Step::between(self.last, position) };
        let (at, words) = (usize::from(self.used), step.words());
        let Some(room) = self.words.get_mut(at..at + words.len()) else { return false };
        room.copy_from_slice(words);
        self.used += words.len() as u8;
        self.count += 1;
        if !step.is_detour {
            self.last = position;
        }
        true
    }

    /// The words of the steps, and how many of them count.
    #[inline]
    pub(super) fn words(&self) -> (&[u16; HEAD_WORDS], usize) {
        (&self.words, usize::from(self.used))
    }

    /// Notes that all references went to a sealed cell.
    #[inline]
    pub(super) fn note_sealed(&mut self) {
        self.sealed += self.count();
        assert!(self.sealed < 1 << 31, "a feed holds far fewer references");
        (self.used, self.count) = (0, 0);
    }

    /// The positions of the head, newest arrival first.
    pub(super) fn positions(&self) -> Steps<'_> {
        Steps::new(&self.words[..usize::from(self.used)], self.last, self.count())
    }
}
