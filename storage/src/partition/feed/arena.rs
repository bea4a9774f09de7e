//! Owns the cells of all feeds of a space: an arena that grows without copying.
//!
//! - A handle names a cell until it is given back; handles never reach an image, so replicas may differ in them.
//! - Memory grows by chunks that are reserved at once and touched cell by cell; nothing is ever moved.

use super::cell::Cell;
use crate::ids::EntryId;

/// Cells of a chunk: 1 MiB.
const CHUNK_CELLS: usize = 8_192;

#[derive(Debug, Default)]
pub(super) struct Arena {
    chunks: Vec<Vec<Cell>>,
    /// The first free cell; the next one stands in its `next`. 0 ends the list.
    free: u32,
    /// Cells ever made.
    made: u32,
}

impl Arena {
    #[inline]
    pub(super) fn get(&self, handle: u32) -> &Cell {
        let at = handle as usize - 1;
        &self.chunks[at / CHUNK_CELLS][at % CHUNK_CELLS]
    }

    #[inline]
    pub(super) fn get_mut(&mut self, handle: u32) -> &mut Cell {
        let at = handle as usize - 1;
        &mut self.chunks[at / CHUNK_CELLS][at % CHUNK_CELLS]
    }

    /// A cell of its own, with the floor given; never 0.
    pub(super) fn make(&mut self, before: EntryId) -> u32 {
        let handle = self.free;
        if handle != 0 {
            let cell = self.get_mut(handle);
            let next = cell.next;
            cell.clear(before);
            self.free = next;
            return handle;
        }
        if (self.made as usize).is_multiple_of(CHUNK_CELLS) {
            self.chunks.push(Vec::with_capacity(CHUNK_CELLS));
        }
        let chunk = self.made as usize / CHUNK_CELLS;
        self.chunks[chunk].push(Cell::new(before));
        self.made =
            self.made.checked_add(1).expect("cells of 128 bytes fill the memory before the numbers end");
        self.made
    }

    /// Gives a cell back.
    pub(super) fn free(&mut self, handle: u32) {
        let first = self.free;
        self.get_mut(handle).next = first;
        self.free = handle;
    }

    /// Bytes of the cells ever made: those of a chunk that were not made take no memory.
    pub(super) fn memory(&self) -> usize {
        self.made as usize * size_of::<Cell>() + self.chunks.capacity() * size_of::<Vec<Cell>>()
    }
}
