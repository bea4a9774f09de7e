//! Owns the walk over a feed: run by run, newest arrival first, each with a bound of all that is older.
//!
//! - The head and the newest cell are one run, because only a cell knows what is before it.

use super::arena::Arena;
use super::head::Head;
use crate::ids::{EntryId, RowPosition};
use crate::partition::prefetch::prefetch;

/// Where a walk stands.
#[derive(Clone, Debug)]
pub(in crate::partition) struct Walk<'a> {
    cells: &'a Arena,
    head: Option<&'a Head>,
    /// The cell to read next; 0 if there is none.
    next: u32,
    /// The oldest cell; 0 before the newest was read.
    oldest: u32,
}

impl<'a> Walk<'a> {
    pub(super) fn new(head: Option<&'a Head>, cells: &'a Arena) -> Self {
        let next = head.map_or(0, |head| head.newest);
        Self { cells, head, next, oldest: 0 }
    }

    /// Asks for the newest cell, which the first run ends with.
    #[inline]
    pub(in crate::partition) fn prefetch(&self) {
        if self.next != 0 {
            self.cells.get(self.next).prefetch();
        }
    }

    /// Appends the positions of the next run, newest arrival first, and answers a bound: no older reference has a
    /// larger id. None at the end.
    pub(in crate::partition) fn next_run(&mut self, positions: &mut Vec<RowPosition>) -> Option<EntryId> {
        let head = self.head.take();
        if let Some(head) = head {
            head.positions().append_to(positions);
        }
        if self.next == 0 {
            return head.map(|_| EntryId::ZERO);
        }
        let cell = self.cells.get(self.next);
        cell.positions().append_to(positions);
        if self.oldest == 0 {
            self.oldest = cell.next;
        }
        self.next = if self.next == self.oldest { 0 } else { cell.previous };
        if self.next != 0 {
            prefetch(self.cells.get(self.next));
        }
        Some(cell.before)
    }
}
