//! Owns the cells of all feeds of a space: an arena that grows without copying.
//!
//! - A handle names a cell until it is given back; handles never reach an image, so replicas may differ in them.
//! - Memory grows by regions that are reserved at once and touched cell by cell; nothing is ever moved.

use super::cell::Cell;
use super::region::Region;
use crate::ids::EntryId;

/// Cells of a region.
const REGION_CELLS: usize = Region::<Cell>::ITEMS;

#[derive(Debug, Default)]
pub(super) struct Arena {
    regions: Vec<Region<Cell>>,
    /// The first free cell; the next one stands in its `next`. 0 ends the list.
    free: u32,
    /// Cells ever made.
    made: u32,
}

impl Arena {
    #[inline]
    pub(super) fn get(&self, handle: u32) -> &Cell {
        let at = handle as usize - 1;
        &self.regions[at / REGION_CELLS].items()[at % REGION_CELLS]
    }

    #[inline]
    pub(super) fn get_mut(&mut self, handle: u32) -> &mut Cell {
        let at = handle as usize - 1;
        &mut self.regions[at / REGION_CELLS].items_mut()[at % REGION_CELLS]
    }

    /// A cell of its own, with the floor given; never 0.
    pub(super) fn make(&mut self, before: EntryId) -> u32 {
        let mut handle = self.free;
        if handle != 0 {
            self.free = self.get(handle).next;
        } else {
            if (self.made as usize).is_multiple_of(REGION_CELLS) {
                self.regions.push(Region::new(self.made == 0));
            }
            let made = self.made.checked_add(1);
            self.made = made.expect("cells of 128 bytes fill the memory before the numbers end");
            handle = self.made;
        }
        self.get_mut(handle).clear(before);
        handle
    }

    /// Gives a cell back.
    pub(super) fn free(&mut self, handle: u32) {
        let first = self.free;
        self.get_mut(handle).next = first;
        self.free = handle;
    }

    /// Bytes of the cells ever made: those of a region that were not made take no memory.
    pub(super) fn memory(&self) -> usize {
        let made = self.made as usize;
        let touched = |n: usize| Region::<Cell>::memory((made - n * REGION_CELLS).min(REGION_CELLS), n == 0);
        (0..self.regions.len()).map(touched).sum::<usize>()
            + self.regions.capacity() * size_of::<Region<Cell>>()
    }
}
