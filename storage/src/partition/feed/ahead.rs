//! Owns the references that wait while their feeds' cache lines come, and the full heads that wait for their cells'.
//!
//! - First in, first out: the order of the references of a feed is that of the calls.
//! - It is empty between Raft entries.

use crate::ids::{EntryId, RowPosition};

/// How many references wait: their heads are asked for so far ahead of their use.
pub(super) const LOOKAHEAD: u32 = 32;
const WAITING: u32 = 2 * LOOKAHEAD;

/// Room for full heads: those of three steps, each begun once it has [`FULL_STEP`], and of a part on top.
const FULL: u32 = 256;
pub(super) const FULL_STEP: u32 = 6;

/// A row that is to be stored in feeds.
#[derive(Clone, Copy, Debug)]
pub(in crate::partition) struct Store {
    /// How many references a feed keeps.
    pub(in crate::partition) cap: u32,
    /// The row.
    pub(in crate::partition) position: RowPosition,
    /// Its entry.
    pub(in crate::partition) id: EntryId,
}

const NOTHING: Store = Store { cap: 0, position: RowPosition(0), id: EntryId(0) };

/// A full head, and how many references its feed keeps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Full {
    pub(super) user: u32,
    pub(super) cap: u32,
}

/// Counters only grow and wrap; each is a place in its ring.
#[derive(Debug)]
pub(super) struct Ahead {
    /// The user, and the number of what is stored.
    waiting: [(u32, u32); WAITING as usize],
    came: u32,
    went: u32,
    stores: [Store; WAITING as usize],
    store: u32,
    full: [Full; FULL as usize],
    /// How many heads became full, and how many of those have had each step of [`Ahead::step`].
    filled: u32,
    stepped: [u32; STEPS],
}

/// Steps of a full head, the last of which seals it.
pub(super) const STEPS: usize = 4;

impl Default for Ahead {
    fn default() -> Self {
        Self {
            waiting: [(0, 0); WAITING as usize],
            came: 0,
            went: 0,
            stores: [NOTHING; WAITING as usize],
            store: 0,
            full: [Full { user: 0, cap: 0 }; FULL as usize],
            filled: 0,
            stepped: [0; STEPS],
        }
    }
}

impl Ahead {
    pub(super) fn is_empty(&self) -> bool {
        self.came == self.went && self.filled == self.stepped[STEPS - 1]
    }

    /// Begins a store; those who are to have it are added next.
    #[inline]
    pub(super) fn begin(&mut self, store: Store) {
        self.store = self.store.wrapping_add(1);
        self.stores[(self.store % WAITING) as usize] = store;
    }

    /// Adds a user who is to have what was begun last.
    #[inline]
    pub(super) fn add(&mut self, user: u32) {
        self.waiting[(self.came % WAITING) as usize] = (user, self.store);
        self.came = self.came.wrapping_add(1);
    }

    /// The first one, if more than `most` wait.
    #[inline]
    pub(super) fn next(&mut self, most: u32) -> Option<(u32, &Store)> {
        if self.came.wrapping_sub(self.went) <= most {
            return None;
        }
        let (user, store) = self.waiting[(self.went % WAITING) as usize];
        self.went = self.went.wrapping_add(1);
        Some((user, &self.stores[(store % WAITING) as usize]))
    }

    /// Notes a head if it is full, without a branch: nobody could foretell it.
    #[inline]
    pub(super) fn note_if(&mut self, full: bool, head: Full) {
        self.full[(self.filled % FULL) as usize] = head;
        self.filled = self.filled.wrapping_add(u32::from(full));
    }

    /// Full heads that have had no step.
    #[inline]
    pub(super) fn new_full(&self) -> u32 {
        self.filled.wrapping_sub(self.stepped[0])
    }

    /// The next full head to have a step: all those that have had the one before it, or are new, when `until` was taken
    /// from [`Ahead::steps`].
    #[inline]
    pub(super) fn step(&mut self, step: usize, until: u32) -> Option<Full> {
        let at = self.stepped[step];
        if at == until {
            return None;
        }
        self.stepped[step] = at.wrapping_add(1);
        Some(self.full[(at % FULL) as usize])
    }

    /// How far each step may go now.
    pub(super) fn steps(&self) -> [u32; STEPS] {
        let [first, second, third, _] = self.stepped;
        [self.filled, first, second, third]
    }
}
