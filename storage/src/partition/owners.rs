//! Owns the owners that local users follow: their local followers, and the chains of their rows.
//!
//! - An owner is known once per graph, under a dense local index, freed when neither an edge nor a row of the
//!   window uses it (R4).
//! - A subscription has a generation; until it is filled, the owner's own timeline is asked (R9).
//! - A chain answers for ids above its floor (R7).
//! - Followers and chains are changed through [`Owners`], which counts bytes as they come and go, and tells a cut before.
//! - A cut writes who owns and who follows apart from all else: a list of followers may be long and seldom changes, while a
//!   chain changes at every entry.

use super::cut::Tracked;
use super::dense::DenseIds;
use super::heap::{HeapBytes, allocated};
use super::index::Index;
use super::map::hash;
use super::posting::PostingList;
use super::prefetch::prefetch;
use super::slots::{Extent, Slot, Slots};
use crate::codec::{Encoded, Malformed, Reader, encoded_struct};
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
    pub(super) id: UserId,
    pub(super) generation: Generation,
    pub(super) followers: PostingList,
    /// One per space that had rows; a boxed slice, because most owners have one or none.
    pub(super) chains: Box<[Chain]>,
    /// Rows of the window that name this owner, whatever their state.
    pub(super) rows: u32,
    pub(super) graph: GraphId,
    /// Whether the rows are there; until then the owner's timeline is asked.
    pub(super) filled: bool,
}

impl Owner {
    pub(super) fn chain(&self, space: SpaceId) -> Option<&Chain> {
        self.chains.iter().find(|chain| chain.space == space)
    }

    /// The floor of its rows in `space`: everything, while they are not there.
    pub(super) fn floor(&self, space: SpaceId) -> EntryId {
        self.floor_of(self.chain(space))
    }

    /// The same, by its chain in the space.
    pub(super) fn floor_of(&self, chain: Option<&Chain>) -> EntryId {
        if self.filled { chain.map_or(EntryId::ZERO, |chain| chain.floor) } else { EntryId::MAX }
    }
}

const _: () = assert!(size_of::<Slot<Owner>>() == size_of::<Owner>());

/// Owners of a bucket, as a power of two.
pub(super) const BUCKET_SHIFT: u32 = 9;

encoded_struct!(Chain { space, head, floor, pulled, unpushed, slicing, slicing_id });

/// What stands of an owner in a bucket of chains.
#[derive(Debug)]
pub(super) struct Chained {
    generation: Generation,
    filled: bool,
    rows: u32,
    chains: Box<[Chain]>,
}

encoded_struct!(Chained { generation, filled, rows, chains });

#[derive(Debug)]
pub(super) struct Owners {
    slots: Slots<Owner>,
    /// Who they are, once more.
    ids: DenseIds,
    /// Who owns and who follows, by local index.
    pub(super) tracked_followers: Tracked,
    /// All else, by local index.
    pub(super) tracked_chains: Tracked,
    index: Index,
    /// Owners with local followers.
    followed: u64,
    heap: HeapBytes,
}

impl Default for Owners {
    fn default() -> Self {
        Self {
            slots: Slots::default(),
            ids: DenseIds::default(),
            tracked_followers: Tracked::new(BUCKET_SHIFT),
            tracked_chains: Tracked::new(BUCKET_SHIFT),
            index: Index::default(),
            followed: 0,
            heap: HeapBytes::default(),
        }
    }
}

impl Owners {
    /// The owners of an image.
    pub(super) fn restore(slots: Slots<Owner>) -> Self {
        let mut owners = Self { slots, ..Self::default() };
        for (index, owner) in owners.slots.iter() {
            owners.index.insert(hash(&(owner.graph, owner.id)), index);
            owners.ids.set(index, owner.id);
            owners.followed += u64::from(owner.followers.len() > 0);
            let chains = allocated(owner.chains.len() * size_of::<Chain>());
            owners.heap.replace(0, owner.followers.memory() + chains);
        }
        owners
    }

    pub(super) fn extent(&self) -> Extent {
        self.slots.extent()
    }

    /// Writes the slot of a local index as a bucket of followers holds it.
    pub(super) fn encode_followers(&self, index: u32, out: &mut Vec<u8>) {
        encode_followers(&self.slots, index, out);
    }

    /// Writes the slot of a local index as a bucket of chains holds it.
    pub(super) fn encode_chains(&self, index: u32, out: &mut Vec<u8>) {
        encode_chains(&self.slots, index, out);
    }

    /// Tells a cut that the followers of an owner, or who it is, are about to change.
    #[inline]
    fn touch_followers(&mut self, index: u32) {
        let Self { slots, tracked_followers, .. } = self;
        tracked_followers.touch(u64::from(index), |out| encode_followers(slots, index, out));
    }

    /// Tells a cut that anything else of an owner is about to change.
    #[inline]
    fn touch_chains(&mut self, index: u32) {
        let Self { slots, tracked_chains, .. } = self;
        tracked_chains.touch(u64::from(index), |out| encode_chains(slots, index, out));
    }

    #[inline]
    pub(super) fn find(&self, graph: GraphId, id: UserId) -> Option<OwnerIndex> {
        self.find_hashed(hash(&(graph, id)), graph, id)
    }

    #[inline]
    fn find_hashed(&self, hash: u64, graph: GraphId, id: UserId) -> Option<OwnerIndex> {
        let same = |index| self.slots.get(index).is_some_and(|owner| owner.id == id && owner.graph == graph);
        self.index.find(hash, same).map(OwnerIndex)
    }

    /// The local indexes of many owners, as far as they are known; asks for the memory that following them changes.
    ///
    /// Each step is taken for all of them before the next, so that the waits for memory overlap.
    pub(super) fn find_all(&self, graph: GraphId, ids: &[UserId]) -> Vec<Option<OwnerIndex>> {
        if let [id] = ids {
            return vec![self.find(graph, *id)];
        }
        let hashes: Vec<u64> = ids.iter().map(|id| hash(&(graph, *id))).collect();
        hashes.iter().for_each(|hash| self.index.prefetch(*hash));
        for hash in &hashes {
            // The first with this hash is nearly always the one.
            if let Some(index) = self.index.find(*hash, |_| true) {
                self.slots.prefetch(index);
            }
        }
        let known = ids.iter().zip(&hashes).map(|(id, hash)| {
            let index = self.find_hashed(*hash, graph, *id)?;
            prefetch(&self.get(index).followers);
            Some(index)
        });
        let known: Vec<_> = known.collect();
        known.iter().flatten().for_each(|index| self.get(*index).followers.prefetch_end());
        known
    }

    /// Asks for what fanning out an entry of each of these owners reads, step by step as [`Owners::find_all`] does; answers
    /// the heads of their chains.
    pub(super) fn look_ahead(&self, owners: &[(GraphId, SpaceId, UserId)]) -> Vec<RowPosition> {
        let hashes: Vec<u64> = owners.iter().map(|(graph, _, id)| hash(&(*graph, *id))).collect();
        hashes.iter().for_each(|hash| self.index.prefetch(*hash));
        let indexes: Vec<Option<u32>> = hashes.iter().map(|hash| self.index.find(*hash, |_| true)).collect();
        indexes.iter().flatten().for_each(|index| self.slots.prefetch(*index));
        let known = || indexes.iter().flatten().filter_map(|index| self.slots.get(*index));
        for owner in known() {
            owner.followers.prefetch_start();
            if let Some(chain) = owner.chains.first() {
                prefetch(chain);
            }
        }
        let spaces =
            owners.iter().zip(&indexes).filter_map(|((_, space, _), index)| Some((*space, (*index)?)));
        let mut heads = Vec::with_capacity(owners.len());
        heads.extend(spaces.filter_map(|(space, index)| self.slots.get(index)?.chain(space)?.head));
        heads
    }

    /// Who is under a local index that is in use.
    #[inline]
    pub(super) fn id(&self, index: OwnerIndex) -> UserId {
        self.ids.get(index.0)
    }

    /// Asks for who that is.
    #[inline]
    pub(super) fn prefetch_id(&self, index: OwnerIndex) {
        self.ids.prefetch(index.0);
    }

    /// Asks for an owner who is about to be looked at.
    #[inline]
    pub(super) fn prefetch(&self, index: OwnerIndex) {
        self.slots.prefetch(index.0);
    }

    /// Asks for the chains of an owner, once the above is there.
    #[inline]
    pub(super) fn prefetch_chains(&self, index: OwnerIndex) {
        if let Some(chain) = self.slots.get(index.0).and_then(|owner| owner.chains.first()) {
            prefetch(chain);
        }
    }

    #[inline]
    pub(super) fn get(&self, index: OwnerIndex) -> &Owner {
        self.slots.get(index.0).expect("a local index in use names an owner")
    }

    /// Whether a local index is in use.
    pub(super) fn contains(&self, index: OwnerIndex) -> bool {
        self.slots.get(index.0).is_some()
    }

    /// An owner of whom anything but followers, graph and id is about to change.
    #[inline]
    pub(super) fn get_mut(&mut self, index: OwnerIndex) -> &mut Owner {
        self.touch_chains(index.0);
        self.slot_mut(index)
    }

    #[inline]
    fn slot_mut(&mut self, index: OwnerIndex) -> &mut Owner {
        self.slots.get_mut(index.0).expect("a local index in use names an owner")
    }

    /// The chain of an owner in `space`, made if there is none.
    pub(super) fn chain_mut(&mut self, index: OwnerIndex, space: SpaceId) -> &mut Chain {
        self.touch_chains(index.0);
        let mut heap = self.heap;
        let owner = self.slots.get_mut(index.0).expect("a local index in use names an owner");
        let at = owner.chains.iter().position(|chain| chain.space == space).unwrap_or_else(|| {
            let before = owner.chains.len();
            heap.resize(before * size_of::<Chain>(), (before + 1) * size_of::<Chain>());
            let mut chains = std::mem::take(&mut owner.chains).into_vec();
            chains.reserve_exact(1);
            chains.push(Chain::new(space));
            owner.chains = chains.into_boxed_slice();
            before
        });
        self.heap = heap;
        &mut owner.chains[at]
    }

    /// Takes all chains of an owner away.
    pub(super) fn take_chains(&mut self, index: OwnerIndex) -> Box<[Chain]> {
        let chains = std::mem::take(&mut self.get_mut(index).chains);
        self.heap.resize(chains.len() * size_of::<Chain>(), 0);
        chains
    }

    pub(super) fn by_id(&self, graph: GraphId, id: UserId) -> Option<&Owner> {
        self.find(graph, id).map(|index| self.get(index))
    }

    pub(super) fn intern(&mut self, graph: GraphId, id: UserId) -> OwnerIndex {
        if let Some(index) = self.find(graph, id) {
            return index;
        }
        let owner = Owner {
            id,
            generation: Generation(0),
            followers: PostingList::default(),
            chains: Box::default(),
            rows: 0,
            graph,
            filled: false,
        };
        self.touch_followers(self.slots.next());
        self.touch_chains(self.slots.next());
        let index = self.slots.insert(owner);
        self.ids.set(index, id);
        self.index.insert(hash(&(graph, id)), index);
        OwnerIndex(index)
    }

    /// Adds a follower; false if it was one.
    #[inline]
    pub(super) fn add_follower(&mut self, index: OwnerIndex, follower: u32) -> bool {
        self.touch_followers(index.0);
        let mut heap = self.heap;
        let followers = &mut self.slot_mut(index).followers;
        let added = followers.insert(follower, &mut heap);
        let first = added && followers.len() == 1;
        self.heap = heap;
        self.followed += u64::from(first);
        added
    }

    /// Takes a follower away; false if it was none.
    pub(super) fn remove_follower(&mut self, index: OwnerIndex, follower: u32) -> bool {
        self.touch_followers(index.0);
        let mut heap = self.heap;
        let followers = &mut self.slot_mut(index).followers;
        let removed = followers.remove(follower, &mut heap);
        let last = removed && followers.len() == 0;
        self.heap = heap;
        self.followed -= u64::from(last);
        removed
    }

    /// How many owners have local followers.
    pub(super) fn followed(&self) -> u64 {
        self.followed
    }

    /// Frees the index of an owner that neither an edge nor a row uses.
    pub(super) fn release_if_idle(&mut self, index: OwnerIndex) {
        let owner = self.get(index);
        if owner.rows > 0 || owner.followers.len() > 0 {
            return;
        }
        let hash = hash(&(owner.graph, owner.id));
        self.index.remove(hash, index.0);
        self.take_chains(index);
        self.touch_followers(index.0);
        self.slots.remove(index.0);
    }

    /// All owners with their local indexes, in the order of those.
    pub(super) fn iter(&self) -> impl Iterator<Item = (OwnerIndex, &Owner)> {
        self.slots.iter().map(|(index, owner)| (OwnerIndex(index), owner))
    }

    /// Bytes of memory it holds.
    pub(super) fn memory(&self) -> usize {
        self.slots.memory()
            + self.ids.memory()
            + self.index.memory()
            + self.heap.get()
            + self.tracked_followers.memory()
            + self.tracked_chains.memory()
    }
}

fn encode_followers(slots: &Slots<Owner>, index: u32, out: &mut Vec<u8>) {
    if let Some(slot) = slots.slot(index) {
        slot.encode(out, |owner, out| {
            (owner.graph, owner.id).encode(out);
            owner.followers.encode(out);
        });
    }
}

fn encode_chains(slots: &Slots<Owner>, index: u32, out: &mut Vec<u8>) {
    let owner = slots.get(index);
    owner.is_some().encode(out);
    if let Some(Owner { generation, filled, rows, chains, .. }) = owner {
        (*generation, *filled).encode(out);
        rows.encode(out);
        chains.encode(out);
    }
}

impl Owner {
    /// Reads who owns and who follows; all else is still to come.
    pub(super) fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (graph, id) = Encoded::decode(from)?;
        let followers = PostingList::decode(from)?;
        let (generation, chains) = (Generation(0), Box::default());
        Ok(Self { id, generation, followers, chains, rows: 0, graph, filled: false })
    }

    /// Takes over what stood in a bucket of chains.
    pub(super) fn set_chained(&mut self, chained: Chained) {
        Chained { generation: self.generation, filled: self.filled, rows: self.rows, chains: self.chains } =
            chained;
    }
}

impl Encoded for OwnerIndex {
    fn encode(&self, out: &mut Vec<u8>) {
        self.0.encode(out);
    }
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        from.u32().map(Self)
    }
}
