//! Owns the owners that local users follow: their local followers, and the chains of their rows.
//!
//! - An owner is known once per graph, under a dense local index, freed when neither an edge nor a row of the
//!   window uses it (R4).
//! - A subscription has a generation; until it is filled, the owner's own timeline is asked (R9).
//! - A chain answers for ids above its floor (R7).

use super::map::IdMap;
use super::posting::PostingList;
use crate::ids::{EntryId, Generation, GraphId, RowPosition, SpaceId, UserId};

/// The local index of an owner in a graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct OwnerIndex(pub(super) u32);

/// The rows of one owner in one space.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chain {
    pub(super) space: SpaceId,
    pub(super) head: Option<RowPosition>,
    /// The largest id of which this chain does not know whether it is there.
    pub(super) floor: EntryId,
    /// Whether new rows are left to be read from the chain instead of being stored in the feeds.
    pub(super) pulled: bool,
    /// The largest id that was not stored in every follower's feed; above it the feeds say all.
    pub(super) unpushed: EntryId,
    /// Rows whose slices are not done, and the largest id among them.
    pub(super) slicing: u32,
    pub(super) slicing_id: EntryId,
}

impl Chain {
    pub(super) fn new(space: SpaceId) -> Self {
        Self {
            space,
            head: None,
            floor: EntryId::ZERO,
            pulled: false,
            unpushed: EntryId::ZERO,
            slicing: 0,
            slicing_id: EntryId::ZERO,
        }
    }

    /// The largest id for which a feed may lack this owner's row, so that the chain must be read above the floor.
    pub(super) fn walk_to(&self) -> EntryId {
        if self.slicing > 0 { self.unpushed.max(self.slicing_id) } else { self.unpushed }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Owner {
    pub(super) graph: GraphId,
    pub(super) id: UserId,
    pub(super) generation: Generation,
    /// Whether the rows are there; until then the owner's timeline is asked.
    pub(super) filled: bool,
    pub(super) followers: PostingList,
    /// Rows of the window that name this owner, whatever their state.
    pub(super) rows: u32,
    pub(super) chains: Vec<Chain>,
}

impl Owner {
    pub(super) fn chain(&self, space: SpaceId) -> Option<&Chain> {
        self.chains.iter().find(|chain| chain.space == space)
    }

    pub(super) fn chain_mut(&mut self, space: SpaceId) -> &mut Chain {
        let at = self.chains.iter().position(|chain| chain.space == space).unwrap_or_else(|| {
            self.chains.push(Chain::new(space));
            self.chains.len() - 1
        });
        &mut self.chains[at]
    }

    /// The floor of its rows in `space`: everything, while they are not there.
    pub(super) fn floor(&self, space: SpaceId) -> EntryId {
        if self.filled { self.chain(space).map_or(EntryId::ZERO, |chain| chain.floor) } else { EntryId::MAX }
    }
}

#[derive(Debug, Default)]
pub(super) struct Owners {
    pub(super) slots: Vec<Option<Owner>>,
    pub(super) free: Vec<u32>,
    index: IdMap<(GraphId, UserId), OwnerIndex>,
}

impl Owners {
    pub(super) fn find(&self, graph: GraphId, id: UserId) -> Option<OwnerIndex> {
        self.index.get(&(graph, id)).copied()
    }

    pub(super) fn get(&self, index: OwnerIndex) -> &Owner {
        self.slots[index.0 as usize].as_ref().expect("a local index in use names an owner")
    }

    pub(super) fn get_mut(&mut self, index: OwnerIndex) -> &mut Owner {
        self.slots[index.0 as usize].as_mut().expect("a local index in use names an owner")
    }

    pub(super) fn by_id(&self, graph: GraphId, id: UserId) -> Option<&Owner> {
        self.find(graph, id).map(|index| self.get(index))
    }

    pub(super) fn intern(&mut self, graph: GraphId, id: UserId) -> OwnerIndex {
        if let Some(index) = self.find(graph, id) {
            return index;
        }
        let owner = Owner {
            graph,
            id,
            generation: Generation(0),
            filled: false,
            followers: PostingList::default(),
            rows: 0,
            chains: Vec::new(),
        };
        let index = if let Some(index) = self.free.pop() {
            self.slots[index as usize] = Some(owner);
            OwnerIndex(index)
        } else {
            self.slots.push(Some(owner));
            OwnerIndex((self.slots.len() - 1) as u32)
        };
        self.index.insert((graph, id), index);
        index
    }

    /// Frees the index of an owner that neither an edge nor a row uses.
    pub(super) fn release_if_idle(&mut self, index: OwnerIndex) {
        let owner = self.get(index);
        if owner.rows > 0 || owner.followers.len() > 0 {
            return;
        }
        let key = (owner.graph, owner.id);
        self.index.remove(&key);
        self.slots[index.0 as usize] = None;
        self.free.push(index.0);
    }

    /// All owners with their local indexes, in the order of those.
    pub(super) fn iter(&self) -> impl Iterator<Item = (OwnerIndex, &Owner)> {
        self.slots.iter().enumerate().filter_map(|(n, o)| o.as_ref().map(|o| (OwnerIndex(n as u32), o)))
    }

    /// Rebuilds the map of ids from the slots.
    pub(super) fn reindex(&mut self) {
        self.index = self.iter().map(|(index, owner)| ((owner.graph, owner.id), index)).collect();
    }

    /// Bytes of memory it holds.
    pub(super) fn memory(&self) -> usize {
        self.slots.capacity() * size_of::<Option<Owner>>()
            + self.index.capacity() * (size_of::<((GraphId, UserId), OwnerIndex)>() + 1)
            + self
                .iter()
                .map(|(_, o)| o.followers.memory() + o.chains.capacity() * size_of::<Chain>())
                .sum::<usize>()
    }
}
