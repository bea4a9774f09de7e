//! Owns the queue of references that wait while their feeds' cache lines come.
//!
//! - First in, first out: the order of the references of a feed is that of the calls.
//! - It is empty between Raft entries.

use crate::ids::{EntryId, RowPosition};

/// How far ahead of its use a head is asked for; a bare loop over heads, without cells, ran fastest at 32.
const LOOKAHEAD: usize = 32;

/// One reference for one feed.
#[derive(Clone, Copy, Debug)]
pub(in crate::partition) struct Store {
    /// The local index of the user.
    pub(in crate::partition) user: u32,
    /// How many references the feed keeps.
    pub(in crate::partition) cap: u32,
    /// The row.
    pub(in crate::partition) position: RowPosition,
    /// Its entry.
    pub(in crate::partition) id: EntryId,
}

const NOTHING: Store = Store { user: 0, cap: 0, position: RowPosition(0), id: EntryId(0) };

#[derive(Debug)]
pub(super) struct Ahead {
    waiting: [Store; LOOKAHEAD],
    /// Counts all that ever went in and out.
    came: usize,
    went: usize,
}

impl Default for Ahead {
    fn default() -> Self {
        Self { waiting: [NOTHING; LOOKAHEAD], came: 0, went: 0 }
    }
}

impl Ahead {
    pub(super) fn is_empty(&self) -> bool {
        self.came == self.went
    }

    /// Takes one in; if the queue is full, its first one comes out.
    #[inline]
    pub(super) fn exchange(&mut self, store: Store) -> Option<Store> {
        let first = if self.came - self.went == LOOKAHEAD { self.pop() } else { None };
        self.waiting[self.came % LOOKAHEAD] = store;
        self.came += 1;
        first
    }

    #[inline]
    pub(super) fn pop(&mut self) -> Option<Store> {
        if self.is_empty() {
            return None;
        }
        let first = self.waiting[self.went % LOOKAHEAD];
        self.went += 1;
        Some(first)
    }

    /// The user of the one in the middle of the queue, whose head should be here by now.
    #[inline]
    pub(super) fn half_way(&self) -> Option<u32> {
        let at = self.came.checked_sub(LOOKAHEAD / 2)?;
        (at >= self.went).then(|| self.waiting[at % LOOKAHEAD].user)
    }
}
