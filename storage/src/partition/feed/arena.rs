//! Owns the cells of all feeds of a space: an arena that grows without copying, and gives whole regions back.
//!
//! - A handle names a cell until it is given back; handles never reach an image, so replicas may differ in them.
//! - Memory grows by regions that are reserved at once and touched cell by cell; nothing is ever moved but by whoever closes gaps.
//! - A region of which no cell is in use is given back, unless it is the only one with room.

use super::cell::Cell;
use super::region::Region;
use crate::ids::EntryId;

/// Cells of a region.
const REGION_CELLS: usize = Region::<Cell>::ITEMS;

/// What is known of the cells of a region.
#[derive(Debug, Default)]
struct Count {
    /// The first free cell; the next one stands in its `next`. 0 ends the list.
    free: u32,
    /// Cells ever made.
    made: u32,
    used: u32,
}

impl Count {
    #[inline]
    fn has_room(&self) -> bool {
        (self.used as usize) < REGION_CELLS
    }
}

#[derive(Debug, Default)]
pub(super) struct Arena {
    /// None: it was given back. Apart from the counts, because every touch of a cell looks here.
    regions: Vec<Option<Region<Cell>>>,
    /// Of the region in the same place.
    counts: Vec<Count>,
    /// Where the next cell is most likely found.
    hint: usize,
    used: usize,
}

fn place(handle: u32) -> (usize, usize) {
    let at = handle as usize - 1;
    (at / REGION_CELLS, at % REGION_CELLS)
}

impl Arena {
    #[inline]
    pub(super) fn get(&self, handle: u32) -> &Cell {
        let (at, cell) = place(handle);
        &self.regions[at].as_ref().expect("a cell in use keeps its region").items()[cell]
    }

    #[inline]
    pub(super) fn get_mut(&mut self, handle: u32) -> &mut Cell {
        let (at, cell) = place(handle);
        &mut self.regions[at].as_mut().expect("a cell in use keeps its region").items_mut()[cell]
    }

    fn has_room(&self, at: usize) -> bool {
        self.counts.get(at).is_some_and(Count::has_room) && self.regions[at].is_some()
    }

    /// A cell of its own, with the floor given; never 0.
    pub(super) fn make(&mut self, before: EntryId) -> u32 {
        if !self.has_room(self.hint) {
            let found = (0..self.counts.len()).find(|at| self.has_room(*at));
            self.hint = found.unwrap_or_else(|| self.grow());
        }
        self.make_in(self.hint, before)
    }

    /// Adds a region, in the first place that has none.
    fn grow(&mut self) -> usize {
        let at = self.regions.iter().position(Option::is_none).unwrap_or(self.regions.len());
        let region = Some(Region::new(at == 0));
        if at == self.regions.len() {
            assert!(
                (at + 1) * REGION_CELLS < u32::MAX as usize,
                "memory ends before the numbers of cells do"
            );
            self.regions.push(region);
            self.counts.push(Count::default());
        } else {
            (self.regions[at], self.counts[at]) = (region, Count::default());
        }
        at
    }

    fn make_in(&mut self, at: usize, before: EntryId) -> u32 {
        let mut handle = self.counts[at].free;
        if handle == 0 {
            self.counts[at].made += 1;
            handle = (at * REGION_CELLS) as u32 + self.counts[at].made;
        } else {
            self.counts[at].free = self.get(handle).next;
        }
        self.counts[at].used += 1;
        self.get_mut(handle).clear(before);
        self.used += 1;
        handle
    }

    /// Moves a cell to an earlier region that has room, and answers where it is then.
    pub(super) fn move_down(&mut self, handle: u32) -> Option<u32> {
        let at = (0..place(handle).0).find(|at| self.has_room(*at))?;
        let moved = self.make_in(at, EntryId::ZERO);
        *self.get_mut(moved) = *self.get(handle);
        self.free(handle);
        Some(moved)
    }

    /// Whether so much is free that moving cells gives regions back.
    pub(super) fn has_gaps(&self) -> bool {
        self.regions.iter().flatten().count() > self.used.div_ceil(REGION_CELLS) + 1
    }

    /// Gives a cell back.
    pub(super) fn free(&mut self, handle: u32) {
        let (at, _) = place(handle);
        self.used -= 1;
        self.get_mut(handle).next = self.counts[at].free;
        let count = &mut self.counts[at];
        count.used -= 1;
        count.free = handle;
        if count.used == 0 && self.has_gaps() {
            self.regions[at] = None;
        } else {
            self.hint = at;
        }
    }

    /// Bytes of the cells ever made in regions that were not given back: those that were not made take no memory.
    pub(super) fn memory(&self) -> usize {
        let kept =
            self.regions.iter().zip(&self.counts).enumerate().filter(|(_, (region, _))| region.is_some());
        kept.map(|(n, (_, count))| Region::<Cell>::memory(count.made as usize, n == 0)).sum::<usize>()
            + self.regions.capacity() * size_of::<Option<Region<Cell>>>()
            + self.counts.capacity() * size_of::<Count>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_go_when_their_last_cell_does_and_gaps_can_be_closed() {
        let mut arena = Arena::default();
        let made: Vec<u32> = (0..4 * REGION_CELLS as u64).map(|n| arena.make(EntryId(n))).collect();
        assert!(!arena.has_gaps() && arena.regions.len() == 4);
        let full = arena.memory();
        // Nine of ten go, and no region with them.
        let (kept, freed): (Vec<u32>, Vec<u32>) = made.iter().partition(|handle| **handle % 10 == 0);
        freed.into_iter().for_each(|handle| arena.free(handle));
        assert!(arena.has_gaps() && arena.memory() == full);
        let before: Vec<EntryId> = kept.iter().map(|handle| arena.get(*handle).before).collect();
        let moved: Vec<u32> = kept.iter().map(|handle| arena.move_down(*handle).unwrap_or(*handle)).collect();
        assert!(before.into_iter().eq(moved.iter().map(|handle| arena.get(*handle).before)));
        // One that is empty is kept, so that the next cells need no new one.
        assert!(arena.regions.iter().flatten().count() == 2 && !arena.has_gaps());
        assert!(arena.memory() <= full / 2 + 1_024);
        moved.into_iter().for_each(|handle| arena.free(handle));
        assert!(arena.used == 0 && arena.regions.iter().flatten().count() == 1);
        (0..3 * REGION_CELLS as u64).for_each(|n| _ = arena.make(EntryId(n)));
        assert_eq!(arena.regions.iter().flatten().count(), 3);
    }
}
