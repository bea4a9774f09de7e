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

/// A region with the count of its cells.
#[derive(Debug)]
struct Block {
    region: Region<Cell>,
    /// The first free cell; the next one stands in its `next`. 0 ends the list.
    free: u32,
    /// Cells ever made.
    made: usize,
    used: usize,
}

impl Block {
    fn has_room(&self) -> bool {
        self.used < REGION_CELLS
    }
}

#[derive(Debug, Default)]
pub(super) struct Arena {
    /// None: it was given back.
    blocks: Vec<Option<Block>>,
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
        let (block, at) = place(handle);
        &self.block(block).region.items()[at]
    }

    #[inline]
    pub(super) fn get_mut(&mut self, handle: u32) -> &mut Cell {
        let (block, at) = place(handle);
        &mut self.block_mut(block).region.items_mut()[at]
    }

    #[inline]
    fn block(&self, block: usize) -> &Block {
        self.blocks[block].as_ref().expect("a cell in use keeps its region")
    }

    #[inline]
    fn block_mut(&mut self, block: usize) -> &mut Block {
        self.blocks[block].as_mut().expect("a cell in use keeps its region")
    }

    /// A cell of its own, with the floor given; never 0.
    pub(super) fn make(&mut self, before: EntryId) -> u32 {
        let has_room = |block: &Option<Block>| block.as_ref().is_some_and(Block::has_room);
        if !self.blocks.get(self.hint).is_some_and(has_room) {
            self.hint = match self.blocks.iter().position(has_room) {
                Some(hint) => hint,
                None => self.grow(),
            };
        }
        self.make_in(self.hint, before)
    }

    /// Adds a region, in the first place that has none.
    fn grow(&mut self) -> usize {
        let at = self.blocks.iter().position(Option::is_none).unwrap_or(self.blocks.len());
        let region = Region::new(at == 0);
        let block = Some(Block { region, free: 0, made: 0, used: 0 });
        if at == self.blocks.len() {
            assert!(
                (at + 1) * REGION_CELLS < u32::MAX as usize,
                "memory ends before the numbers of cells do"
            );
            self.blocks.push(block);
        } else {
            self.blocks[at] = block;
        }
        at
    }

    fn make_in(&mut self, at: usize, before: EntryId) -> u32 {
        let block = self.block_mut(at);
        let mut handle = block.free;
        if handle == 0 {
            block.made += 1;
            handle = (at * REGION_CELLS + block.made) as u32;
        } else {
            block.free = block.region.items()[place(handle).1].next;
        }
        block.used += 1;
        block.region.items_mut()[place(handle).1].clear(before);
        self.used += 1;
        handle
    }

    /// Moves a cell to an earlier region that has room, and answers where it is then.
    pub(super) fn move_down(&mut self, handle: u32) -> Option<u32> {
        let earlier = &self.blocks[..place(handle).0];
        let at = earlier.iter().position(|block| block.as_ref().is_some_and(Block::has_room))?;
        let moved = self.make_in(at, EntryId::ZERO);
        *self.get_mut(moved) = *self.get(handle);
        self.free(handle);
        Some(moved)
    }

    /// Whether so much is free that moving cells gives regions back.
    pub(super) fn has_gaps(&self) -> bool {
        self.blocks.iter().flatten().count() > self.used.div_ceil(REGION_CELLS) + 1
    }

    /// Gives a cell back.
    pub(super) fn free(&mut self, handle: u32) {
        let (at, cell) = place(handle);
        self.used -= 1;
        let block = self.block_mut(at);
        block.used -= 1;
        block.region.items_mut()[cell].next = block.free;
        block.free = handle;
        if block.used == 0 && self.has_gaps() {
            self.blocks[at] = None;
        } else {
            self.hint = at;
        }
    }

    /// Bytes of the cells ever made in regions that were not given back: those that were not made take no memory.
    pub(super) fn memory(&self) -> usize {
        let blocks = self.blocks.iter().enumerate();
        let made = blocks.filter_map(|(n, block)| Some((n, block.as_ref()?.made)));
        made.map(|(n, made)| Region::<Cell>::memory(made, n == 0)).sum::<usize>()
            + self.blocks.capacity() * size_of::<Option<Block>>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_go_when_their_last_cell_does_and_gaps_can_be_closed() {
        let mut arena = Arena::default();
        let made: Vec<u32> = (0..4 * REGION_CELLS as u64).map(|n| arena.make(EntryId(n))).collect();
        assert!(!arena.has_gaps() && arena.blocks.len() == 4);
        let full = arena.memory();
        // Nine of ten go, and no region with them.
        let (kept, freed): (Vec<u32>, Vec<u32>) = made.iter().partition(|handle| **handle % 10 == 0);
        freed.into_iter().for_each(|handle| arena.free(handle));
        assert!(arena.has_gaps() && arena.memory() == full);
        let before: Vec<EntryId> = kept.iter().map(|handle| arena.get(*handle).before).collect();
        let moved: Vec<u32> = kept.iter().map(|handle| arena.move_down(*handle).unwrap_or(*handle)).collect();
        assert!(before.into_iter().eq(moved.iter().map(|handle| arena.get(*handle).before)));
        // One that is empty is kept, so that the next cells need no new one.
        assert!(arena.blocks.iter().flatten().count() == 2 && !arena.has_gaps());
        assert!(arena.memory() <= full / 2 + 1_024);
        moved.into_iter().for_each(|handle| arena.free(handle));
        assert!(arena.used == 0 && arena.blocks.iter().flatten().count() == 1);
        (0..3 * REGION_CELLS as u64).for_each(|n| _ = arena.make(EntryId(n)));
        assert_eq!(arena.blocks.iter().flatten().count(), 3);
    }
}
