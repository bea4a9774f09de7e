//! Owns what few users have: mutes, blocks, and edges in more than one graph.

use std::collections::BTreeSet;

use super::following::Following;
use super::heap::allocated;
use crate::ids::{GraphId, UserId};

/// What is kept apart from the user, because most have none of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Relations {
    pub(super) mutes: BTreeSet<UserId>,
    pub(super) blocks: BTreeSet<UserId>,
    pub(super) blocked_by: BTreeSet<UserId>,
    /// Edges in other graphs than the user's first.
    pub(super) following: Vec<(GraphId, Following)>,
}

impl Relations {
    pub(super) fn is_empty(&self) -> bool {
        !self.hides_somebody() && self.following.is_empty()
    }

    /// Whether there is anybody whose entries are not to be seen.
    pub(super) fn hides_somebody(&self) -> bool {
        !(self.mutes.is_empty() && self.blocks.is_empty() && self.blocked_by.is_empty())
    }

    /// Bytes of memory it holds, but for the edges.
    pub(super) fn memory(&self) -> usize {
        // A node of the standard tree holds up to 11 keys and is about two thirds full.
        let set = |set: &BTreeSet<UserId>| set.len().div_ceil(8) * allocated(11 * size_of::<UserId>() + 16);
        allocated(size_of::<Self>())
            + allocated(self.following.capacity() * size_of::<(GraphId, Following)>())
            + [&self.mutes, &self.blocks, &self.blocked_by].into_iter().map(set).sum::<usize>()
    }
}
