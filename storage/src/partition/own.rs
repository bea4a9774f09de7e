//! Owns the reader's own timeline as a source of the merge: it is looked for only when its newest entry may be in the page.
//!
//! - The user holds an id that no own entry in one space is above ([`AtMost`]): an append raises it, and a first page that had to
//!   look lowers it to what it found. Most pages end above it, and never touch the timeline.
//! - It is in no image, and of one space: the first page after a start looks, and the first after one of another space.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Partition;
use super::timelines::Walk;
use super::viewpoint::Viewpoint;
use crate::entry::Entry;
use crate::ids::{EntryId, SpaceId, UserId};

/// The bits of a word that name the space; those of the id that they take are as if they were set.
const SPACE_BITS: u64 = u16::MAX as u64;

/// An id that no live entry of a user in one space is above: in that of which a first page looked last.
///
/// One word, so that readers in two spaces at once never mix them up.
#[derive(Debug)]
pub(super) struct AtMost(AtomicU64);

impl Default for AtMost {
    /// Nothing is known.
    fn default() -> Self {
        Self(AtomicU64::new(u64::MAX))
    }
}

impl AtMost {
    /// The id; the largest there is if nothing is known of this space.
    #[inline]
    pub(super) fn get(&self, space: SpaceId) -> EntryId {
        let word = self.0.load(Ordering::Relaxed);
        EntryId(if word & SPACE_BITS == u64::from(space.0) { word | SPACE_BITS } else { u64::MAX })
    }

    /// Notes what a read found of all entries in this space.
    fn set(&self, space: SpaceId, newest: EntryId) {
        self.0.store(newest.0 & !SPACE_BITS | u64::from(space.0), Ordering::Relaxed);
    }

    /// Notes a new entry.
    fn raise(&mut self, space: SpaceId, id: EntryId) {
        let known = self.get(space);
        // Of another space, or of none, it goes on to say nothing about this one.
        if known.0 < u64::MAX && id > known {
            self.set(space, id);
        }
    }
}

/// What is left of the reader's own timeline.
pub(super) struct Own<'v, 'a> {
    view: &'v Viewpoint<'a>,
    below: EntryId,
    /// No own entry below `below` is above it.
    at_most: EntryId,
    /// Once it was looked for.
    walk: Option<Walk<'a>>,
    /// The first id that came.
    newest: Option<EntryId>,
}

impl<'v, 'a> Own<'v, 'a> {
    /// The own entries below `below`.
    #[inline]
    pub(super) fn new(view: &'v Viewpoint<'a>, below: EntryId) -> Self {
        let known = view.user.map_or(EntryId::MAX, |user| user.own.get(view.space));
        let at_most = known.min(EntryId(below.0.saturating_sub(1)));
        Self { view, below, at_most, walk: None, newest: None }
    }

    fn look(&self) -> Walk<'a> {
        let Viewpoint { partition, space, reader, .. } = *self.view;
        partition.timelines.newest(space, reader, self.below, partition.stamp)
    }

    /// Whether no live entry is above the bound. What has expired may come back into the walk, where a merge wrote it anew.
    fn holds(&self) -> bool {
        let mut walk = self.look();
        while let Some(id) = walk.next_above(Some(self.at_most)) {
            if walk.entry(id).is_some() {
                return false;
            }
        }
        true
    }

    /// No id that is left is larger.
    #[inline]
    pub(super) fn bound(&self) -> EntryId {
        self.walk.as_ref().map_or(self.at_most, Walk::bound)
    }

    /// The next id, if it is larger than `than`. Whether its entry has expired is not looked at.
    #[inline]
    pub(super) fn next_above(&mut self, than: Option<EntryId>) -> Option<EntryId> {
        if self.walk.is_none() && Some(self.at_most) <= than {
            return None;
        }
        if self.walk.is_none() {
            self.walk = Some(self.look());
        }
        let next = self.walk.as_mut()?.next_above(than);
        self.newest = self.newest.or(next);
        next
    }

    /// Takes the entry whose id [`Own::next_above`] named; none if it has expired.
    pub(super) fn entry(&mut self, id: EntryId) -> Option<Cow<'a, Entry>> {
        self.walk.as_mut()?.entry(id)
    }
}

/// Leaves what was found to the next read.
impl Drop for Own<'_, '_> {
    #[inline]
    fn drop(&mut self) {
        debug_assert!(
            self.walk.is_some() || self.holds(),
            "an entry of {:?} is above {:?}",
            self.view.reader,
            self.at_most
        );
        if let (Some(walk), Some(user), EntryId::MAX) = (&self.walk, self.view.user, self.below) {
            user.own.set(self.view.space, self.newest.unwrap_or_else(|| walk.bound()));
        }
    }
}

impl Partition {
    /// Notes an entry that came to a timeline homed here.
    pub(super) fn note_own(&mut self, space: SpaceId, owner: UserId, id: EntryId) {
        if let Some(index) = self.users.find(owner) {
            self.users.own_mut(index).raise(space, id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_of_one_space_and_never_too_small() {
        let (space, other) = (SpaceId(7), SpaceId(8));
        let mut at_most = AtMost::default();
        at_most.raise(space, EntryId(1 << 40));
        assert_eq!(at_most.get(space), EntryId::MAX, "older ones are not known");
        for id in [0, 1, 0xFFFF, 0x1_0000, 0x1234_5678_9ABC_DEF0, u64::MAX].map(EntryId) {
            at_most.set(space, id);
            assert!(at_most.get(space) >= id && at_most.get(space).0 - id.0 <= SPACE_BITS, "{id:?}");
            assert_eq!(at_most.get(other), EntryId::MAX);
        }
        at_most.set(space, EntryId(5 << 16));
        at_most.raise(other, EntryId(9 << 16));
        assert_eq!(at_most.get(space), EntryId((6 << 16) - 1));
        at_most.raise(space, EntryId(4 << 16));
        assert_eq!(at_most.get(space), EntryId((6 << 16) - 1));
        at_most.raise(space, EntryId(9 << 16));
        assert_eq!(at_most.get(space), EntryId((10 << 16) - 1));
    }
}
