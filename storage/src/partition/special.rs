//! Owns the marks of the owners at which a read must look one by one, so that it need not look at the others.
//!
//! - An owner without a mark is filled, its rows are all stored in its followers' feeds, and its floor is at most the
//!   largest id that left the window.
//! - An owner whom nobody follows needs no mark.
//! - A mark too many costs time; one too few would lose entries. Every change of a chain ends with a note here.
//! - What a user follows with a mark is remembered with the user ([`Seen`]), so that a read need not look at all the user
//!   follows. A new mark makes the followers look again: one by one if they are few, else all users.

use std::collections::BTreeMap;

use super::Partition;
use super::heap::allocated;
use super::owners::{Chain, OwnerIndex};
use super::users::UserIndex;
use crate::ids::{EntryId, GraphId, SpaceId};

/// Special owners that are remembered with a user; one who follows more has them looked for at every read.
const SEEN_OWNERS_MAX: usize = 256;

/// A new mark of an owner with so many local followers makes them look again one by one.
const FOLLOWERS_ONE_BY_ONE: u32 = 64;

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

/// The special owners that a user follows, in whatever space, as a read found them.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The version of the marks; 0 if nothing was found yet, or the user follows others since.
    version: u32,
    graph: GraphId,
    owners: Box<[OwnerIndex]>,
}

impl Seen {
    /// What was found, if it still says all.
    pub(super) fn get(&self, special: &Special, graph: GraphId) -> Option<&[OwnerIndex]> {
        (self.version == special.version && self.graph == graph).then_some(&self.owners)
    }

    /// Remembers what was found, unless it is too much.
    pub(super) fn set(&mut self, special: &Special, graph: GraphId, owners: &[OwnerIndex]) {
        if owners.len() <= SEEN_OWNERS_MAX && special.version < u32::MAX {
            *self = Self { version: special.version, graph, owners: owners.into() };
        }
    }

    /// Bytes of memory it holds.
    pub(super) fn memory(&self) -> usize {
        allocated(size_of_val::<[OwnerIndex]>(&self.owners))
    }
}

#[derive(Debug, Default)]
struct InSpace {
    marks: Marks,
    /// The largest id that left the window and may be live still.
    left: EntryId,
}

/// Which owners are special, and how far the window reaches for the others.
#[derive(Debug)]
pub(super) struct Special {
    unfilled: Marks,
    spaces: BTreeMap<SpaceId, InSpace>,
    /// Goes up when what was seen by all users may say too little.
    version: u32,
}

impl Default for Special {
    fn default() -> Self {
        Self { unfilled: Marks::default(), spaces: BTreeMap::new(), version: 1 }
    }
}

impl Special {
    /// Whether no owner is special.
    pub(super) fn is_empty(&self) -> bool {
        self.unfilled.count == 0 && self.spaces.values().all(|space| space.marks.count == 0)
    }

    /// Whether an owner is special in any space.
    #[inline]
    pub(super) fn contains(&self, index: OwnerIndex) -> bool {
        self.spaces.values().any(|space| space.marks.contains(index))
            || (self.unfilled.count > 0 && self.unfilled.contains(index))
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

    /// Notes what a chain is like now; none if it is gone. `large`: its rows are stored in slices. Answers whether that
    /// made the owner special.
    pub(super) fn note_chain(
        &mut self,
        index: OwnerIndex,
        space: SpaceId,
        chain: Option<&Chain>,
        large: bool,
    ) -> bool {
        let known = self.spaces.entry(space).or_default();
        let was = known.marks.contains(index);
        let special = chain.is_some_and(|chain| {
            let lags = chain.walk_to() > chain.floor || chain.slicing > 0;
            // One whose rows are stored in slices keeps its mark between them.
            chain.pulled || lags || chain.floor > known.left || (large && was)
        });
        known.marks.set(index, special);
        special && !was
    }

    /// Makes all users look again at whom they follow.
    fn forget_seen(&mut self) {
        // After the last version nothing is remembered any more.
        self.version = self.version.saturating_add(1);
    }

    /// What left the window, by space: the part that an image holds.
    pub(super) fn all_left(&self) -> BTreeMap<SpaceId, EntryId> {
        let left = self.spaces.iter().map(|(space, known)| (*space, known.left));
        left.filter(|(_, left)| *left > EntryId::ZERO).collect()
    }

    /// Bytes of memory it holds, besides what users have seen.
    pub(super) fn memory(&self) -> usize {
        let words = |marks: &Marks| marks.words.capacity() * size_of::<u64>();
        words(&self.unfilled) + self.spaces.values().map(|space| words(&space.marks)).sum::<usize>()
    }
}

impl Partition {
    /// Notes what the chain of an owner in `space` is like now.
    pub(super) fn note_chain(&mut self, index: OwnerIndex, space: SpaceId) {
        let owner = self.owners.get(index);
        let large = owner.followers.len() > self.limits.slice_followers;
        if self.special.note_chain(index, space, owner.chain(space), large) {
            self.forget_seen(index);
        }
    }

    /// Makes the followers of an owner who became special look again at whom they follow.
    fn forget_seen(&mut self, index: OwnerIndex) {
        let followers = &self.owners.get(index).followers;
        if followers.len() > FOLLOWERS_ONE_BY_ONE {
            self.special.forget_seen();
        } else {
            followers.iter().for_each(|user| self.users.forget_seen(UserIndex(user)));
        }
    }

    /// Notes whether the rows of an owner are there.
    pub(super) fn set_filled(&mut self, index: OwnerIndex, filled: bool) {
        self.owners.get_mut(index).filled = filled;
        self.special.note_filled(index, filled);
        if !filled {
            // It has followers already if its subscription is renewed.
            self.forget_seen(index);
        }
    }

    /// Notes all owners anew, when an image has been read and no user has seen anything.
    pub(super) fn note_all_owners(&mut self) {
        let Self { special, owners, limits, .. } = self;
        for (index, owner) in owners.iter() {
            special.note_filled(index, owner.filled || owner.followers.len() == 0);
            let large = owner.followers.len() > limits.slice_followers;
            for chain in &owner.chains {
                special.note_chain(index, chain.space, Some(chain), large);
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
