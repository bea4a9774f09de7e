//! Owns the head of a feed: its newest references in one cache line.
//!
//! - All references of a head share the high half of their positions (R6); one that does not seals the head first.
//! - `max` is the running maximum of all ids that were ever stored here, so that a larger id needs no other look.

use crate::ids::{EntryId, RowPosition};

/// References of a head.
pub(super) const HEAD_REFERENCES: usize = 10;

const COUNT_BITS: u32 = 4;
const COUNT_MASK: u32 = (1 << COUNT_BITS) - 1;

/// The newest references of one reader in one space, and where the others are.
#[derive(Clone, Debug, Default)]
#[repr(C, align(64))]
pub(super) struct Head {
    references: [u32; HEAD_REFERENCES],
    pub(super) max: EntryId,
    /// The newest sealed cell; 0 if there is none.
    pub(super) newest: u32,
    /// The high half of the positions of all references of the head.
    high: u32,
    /// The high half of the feed's floor: an id with a larger one is above it, without a look at the oldest cell.
    floor_high: u32,
    /// The references in the head, and above them those in sealed cells.
    counts: u32,
}

const _: () = assert!(size_of::<Head>() == 64 && HEAD_REFERENCES <= COUNT_MASK as usize);

impl Head {
    /// Whether an id is above the feed's floor for certain.
    #[inline]
    pub(super) fn is_surely_above_floor(&self, id: EntryId) -> bool {
        (id.0 >> 32) as u32 > self.floor_high
    }

    /// Takes note of the feed's floor.
    #[inline]
    pub(super) fn note_floor(&mut self, floor: EntryId) {
        self.floor_high = (floor.0 >> 32) as u32;
    }

    /// References in the head.
    #[inline]
    pub(super) fn count(&self) -> u32 {
        self.counts & COUNT_MASK
    }

    /// References in sealed cells.
    #[inline]
    pub(super) fn sealed(&self) -> u32 {
        self.counts >> COUNT_BITS
    }

    pub(super) fn set_sealed(&mut self, sealed: u32) {
        assert!(sealed < 1 << (32 - COUNT_BITS), "a feed holds far fewer references");
        self.counts = self.count() | sealed << COUNT_BITS;
    }

    /// All references of the feed.
    #[inline]
    pub(super) fn len(&self) -> u32 {
        self.count() + self.sealed()
    }

    /// Whether a reference to `position` finds room beside those that are here.
    #[inline]
    pub(super) fn fits(&self, position: RowPosition) -> bool {
        let count = self.count();
        count == 0 || (self.high == (position.0 >> 32) as u32 && count < HEAD_REFERENCES as u32)
    }

    /// Adds a reference that fits.
    #[inline]
    pub(super) fn add(&mut self, position: RowPosition) {
        self.high = (position.0 >> 32) as u32;
        self.references[self.count() as usize] = position.0 as u32;
        self.counts += 1;
    }

    /// Takes all references out of the head, oldest arrival first; the caller seals them.
    pub(super) fn take(&mut self) -> ([u32; HEAD_REFERENCES], u32, u64) {
        let taken = (self.references, self.count(), u64::from(self.high) << 32);
        self.counts &= !COUNT_MASK;
        taken
    }

    /// The positions of the head, oldest arrival first.
    pub(super) fn positions(&self) -> impl DoubleEndedIterator<Item = RowPosition> {
        let high = u64::from(self.high) << 32;
        self.references[..self.count() as usize].iter().map(move |low| RowPosition(high | u64::from(*low)))
    }
}
