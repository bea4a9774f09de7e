//! Owns the local users: whom each follows, mutes, blocks and is blocked by.
//!
//! - A user has a dense local index while anything here speaks of it; a freed index is used again (R4).
//! - The edges of a user are sorted by the local index of the owner.

use std::collections::BTreeSet;

use super::map::IdMap;
use super::owners::OwnerIndex;
use crate::ids::{GraphId, Stamp, UserId};

/// The local index of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct UserIndex(pub(super) u32);

/// One followed owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Edge {
    pub(super) owner: OwnerIndex,
    pub(super) since: Stamp,
}

#[derive(Clone, Debug)]
pub(super) struct User {
    pub(super) id: UserId,
    pub(super) following: Vec<(GraphId, Vec<Edge>)>,
    pub(super) mutes: BTreeSet<UserId>,
    pub(super) blocks: BTreeSet<UserId>,
    pub(super) blocked_by: BTreeSet<UserId>,
}

impl User {
    pub(super) fn new(id: UserId) -> Self {
        Self {
            id,
            following: Vec::new(),
            mutes: BTreeSet::new(),
            blocks: BTreeSet::new(),
            blocked_by: BTreeSet::new(),
        }
    }

    pub(super) fn edges(&self, graph: GraphId) -> &[Edge] {
        self.following.iter().find(|(g, _)| *g == graph).map_or(&[], |(_, edges)| edges)
    }

    fn edges_mut(&mut self, graph: GraphId) -> &mut Vec<Edge> {
        let at = self.following.iter().position(|(g, _)| *g == graph).unwrap_or_else(|| {
            self.following.push((graph, Vec::new()));
            self.following.len() - 1
        });
        &mut self.following[at].1
    }

    pub(super) fn edge(&self, graph: GraphId, owner: OwnerIndex) -> Option<&Edge> {
        let edges = self.edges(graph);
        edges.binary_search_by_key(&owner, |e| e.owner).ok().map(|at| &edges[at])
    }

    /// Adds an edge; false if it was there.
    pub(super) fn follow(&mut self, graph: GraphId, edge: Edge) -> bool {
        let edges = self.edges_mut(graph);
        let Err(at) = edges.binary_search_by_key(&edge.owner, |e| e.owner) else { return false };
        edges.insert(at, edge);
        true
    }

    /// Takes an edge away; false if it was not there.
    pub(super) fn unfollow(&mut self, graph: GraphId, owner: OwnerIndex) -> bool {
        let edges = self.edges_mut(graph);
        let Ok(at) = edges.binary_search_by_key(&owner, |e| e.owner) else { return false };
        edges.remove(at);
        self.following.retain(|(_, edges)| !edges.is_empty());
        true
    }

    /// Whether this user is not to see what `other` owns, wrote or is referred to by.
    pub(super) fn hides(&self, other: UserId) -> bool {
        self.mutes.contains(&other) || self.blocked(other)
    }

    /// Whether one of the two blocks the other.
    pub(super) fn blocked(&self, other: UserId) -> bool {
        self.blocks.contains(&other) || self.blocked_by.contains(&other)
    }

    /// Whether there is anybody whose entries it is not to see.
    pub(super) fn hides_somebody(&self) -> bool {
        !(self.mutes.is_empty() && self.blocks.is_empty() && self.blocked_by.is_empty())
    }

    fn is_idle(&self) -> bool {
        self.following.is_empty() && !self.hides_somebody()
    }
}

#[derive(Debug, Default)]
pub(super) struct Users {
    pub(super) slots: Vec<Option<User>>,
    pub(super) free: Vec<u32>,
    index: IdMap<UserId, UserIndex>,
}

impl Users {
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    pub(super) fn find(&self, id: UserId) -> Option<UserIndex> {
        self.index.get(&id).copied()
    }

    pub(super) fn get(&self, index: UserIndex) -> &User {
        self.slots[index.0 as usize].as_ref().expect("a local index in use names a user")
    }

    pub(super) fn get_mut(&mut self, index: UserIndex) -> &mut User {
        self.slots[index.0 as usize].as_mut().expect("a local index in use names a user")
    }

    pub(super) fn by_id(&self, id: UserId) -> Option<&User> {
        self.find(id).map(|index| self.get(index))
    }

    pub(super) fn intern(&mut self, id: UserId) -> UserIndex {
        if let Some(index) = self.find(id) {
            return index;
        }
        let index = if let Some(index) = self.free.pop() {
            self.slots[index as usize] = Some(User::new(id));
            UserIndex(index)
        } else {
            self.slots.push(Some(User::new(id)));
            UserIndex((self.slots.len() - 1) as u32)
        };
        self.index.insert(id, index);
        index
    }

    /// Frees the index of a user of whom nothing is known any more; true if it did.
    pub(super) fn release_if_idle(&mut self, index: UserIndex) -> bool {
        let user = self.get(index);
        if !user.is_idle() {
            return false;
        }
        let id = user.id;
        self.index.remove(&id);
        self.slots[index.0 as usize] = None;
        self.free.push(index.0);
        true
    }

    /// All users with their local indexes, in the order of those.
    pub(super) fn iter(&self) -> impl Iterator<Item = (UserIndex, &User)> {
        self.slots.iter().enumerate().filter_map(|(n, u)| u.as_ref().map(|u| (UserIndex(n as u32), u)))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (UserIndex, &mut User)> {
        self.slots.iter_mut().enumerate().filter_map(|(n, u)| u.as_mut().map(|u| (UserIndex(n as u32), u)))
    }

    /// Rebuilds the map of ids from the slots.
    pub(super) fn reindex(&mut self) {
        self.index = self.iter().map(|(index, user)| (user.id, index)).collect();
    }

    /// Bytes of memory it holds.
    pub(super) fn memory(&self) -> usize {
        let edges = |u: &User| {
            u.following.iter().map(|(_, e)| e.capacity() * size_of::<Edge>()).sum::<usize>()
                + u.following.capacity() * size_of::<(GraphId, Vec<Edge>)>()
                + (u.mutes.len() + u.blocks.len() + u.blocked_by.len()) * 2 * size_of::<UserId>()
        };
        self.slots.capacity() * size_of::<Option<User>>()
            + self.index.capacity() * (size_of::<(UserId, UserIndex)>() + 1)
            + self.iter().map(|(_, u)| edges(u)).sum::<usize>()
    }
}
