//! Owns the marks of the owners at which a read must look one by one, so that it need not look at the others.
//!
//! - An owner without a mark is filled, its rows are all stored in its followers' feeds, and its floor is at most the
//!   largest id that left the window.
//! - An owner whom nobody follows needs no mark.
//! - A mark too many costs time; one too few would lose entries. Every change of a chain ends with a note here.

use std::collections::BTreeMap;

use super::Partition;
use super::owners::{Chain, OwnerIndex};
use crate::ids::{EntryId, SpaceId};

/// A set of local indexes with a bit for each.
#[derive(Debug, Default)]
struct Marks {
    words: Vec<u64>,
    count: u32,
}

impl Marks {
    #[inline]
    fn contains(&self, index: OwnerIndex) -> bool {
        let word = self.words.get(index.0 as usize / 64);
        word.is_some_and(|word| word >> (index.0 % 64) & 1 == 1)
    }

    fn set(&mut self, index: OwnerIndex, marked: bool) {
        if self.contains(index) == marked {
            return;
        }
        let at = index.0 as usize / 64;
        if self.words.len() <= at {
            self.words.resize(at + 1, 0);
        }
        self.words[at] ^= 1 << (index.0 % 64);
        self.count = if marked { self.count + 1 } else { self.count - 1 };
    }
}

#[derive(Debug, Default)]
struct InSpace {
    marks: Marks,
    /// The largest id that left the window and may be live still.
    left: EntryId,
}

/// Which owners are special, and how far the window reaches for the others.
#[derive(Debug, Default)]
pub(super) struct Special {
    unfilled: Marks,
    spaces: BTreeMap<SpaceId, InSpace>,
}

/// The special owners of one space.
#[derive(Clone, Copy, Debug)]
pub(super) struct SpecialOwners<'a> {
    unfilled: &'a Marks,
    marks: Option<&'a Marks>,
}

impl SpecialOwners<'_> {
    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.unfilled.count == 0 && self.marks.is_none_or(|marks| marks.count == 0)
    }

    #[inline]
    pub(super) fn contains(&self, index: OwnerIndex) -> bool {
        self.marks.is_some_and(|marks| marks.contains(index))
            || (self.unfilled.count > 0 && self.unfilled.contains(index))
    }
}

impl Special {
    /// The special owners of `space`.
    pub(super) fn owners(&self, space: SpaceId) -> SpecialOwners<'_> {
        SpecialOwners { unfilled: &self.unfilled, marks: self.spaces.get(&space).map(|space| &space.marks) }
    }

    /// The floor of every owner that is not special is at most this.
    pub(super) fn left(&self, space: SpaceId) -> EntryId {
        self.spaces.get(&space).map_or(EntryId::ZERO, |space| space.left)
    }

    /// Notes that a row that may be live left the window.
    pub(super) fn note_left(&mut self, space: SpaceId, id: EntryId) {
        let space = self.spaces.entry(space).or_default();
        space.left = space.left.max(id);
    }

    /// Notes whether the rows of an owner are there.
    pub(super) fn note_filled(&mut self, index: OwnerIndex, filled: bool) {
        self.unfilled.set(index, !filled);
    }

    /// Notes what a chain is like now; none if it is gone.
    pub(super) fn note_chain(&mut self, index: OwnerIndex, space: SpaceId, chain: Option<&Chain>) {
        let known = self.spaces.entry(space).or_default();
        let special = chain.is_some_and(|chain| {
            chain.pulled || chain.walk_to() > chain.floor || chain.slicing > 0 || chain.floor > known.left
        });
        known.marks.set(index, special);
    }

    /// What left the window, by space: the part that an image holds.
    pub(super) fn all_left(&self) -> BTreeMap<SpaceId, EntryId> {
        let left = self.spaces.iter().map(|(space, known)| (*space, known.left));
        left.filter(|(_, left)| *left > EntryId::ZERO).collect()
    }

    /// Bytes of memory it holds.
    pub(super) fn memory(&self) -> usize {
        let words = |marks: &Marks| marks.words.capacity() * size_of::<u64>();
        words(&self.unfilled) + self.spaces.values().map(|space| words(&space.marks)).sum::<usize>()
    }
}

impl Partition {
    /// Notes what the chain of an owner in `space` is like now.
    pub(super) fn note_chain(&mut self, index: OwnerIndex, space: SpaceId) {
        self.special.note_chain(index, space, self.owners.get(index).chain(space));
    }

    /// Notes whether the rows of an owner are there.
    pub(super) fn set_filled(&mut self, index: OwnerIndex, filled: bool) {
        self.owners.get_mut(index).filled = filled;
        self.special.note_filled(index, filled);
    }

    /// Notes all owners anew, when an image has been read.
    pub(super) fn note_all_owners(&mut self) {
        let known = self.owners.iter().map(|(index, o)| (index, o.graph, o.filled || o.followers.len() == 0));
        let known: Vec<_> = known.collect();
        for (index, graph, filled) in known {
            self.special.note_filled(index, filled);
            for space in self.spaces_of(graph) {
                self.note_chain(index, space);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_count_what_they_hold() {
        let mut marks = Marks::default();
        for index in [0, 63, 64, 1_000, 63] {
            marks.set(OwnerIndex(index), true);
        }
        marks.set(OwnerIndex(64), false);
        marks.set(OwnerIndex(5_000), false);
        assert_eq!(marks.count, 3);
        assert!([0, 63, 1_000].iter().all(|index| marks.contains(OwnerIndex(*index))));
        assert!([1, 64, 5_000].iter().all(|index| !marks.contains(OwnerIndex(*index))));
    }
}
