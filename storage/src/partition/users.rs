//! Owns the local users: whom each follows, mutes, blocks and is blocked by.
//!
//! - A user has a dense local index while anything here speaks of it; a freed index is used again (R4).
//! - The usual user follows in one graph and hides nobody; what else there is lies in a box of its own.
//! - A user has the last day of activity, which is logged, and a mark if the feeds are freed.
//! - What reads have seen of a user's special owners is kept with the user until that user follows others.
//! - Changes go through [`Users`], which counts edges and bytes as they come and go, and tells a cut before.

use super::following::Following;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::cut::Tracked;
use super::heap::{HeapBytes, allocated};
use super::index::Index;
use super::map::hash;
use super::own::AtMost;
use super::owners::OwnerIndex;
use super::prefetch::prefetch_whole;
use super::relations::Relations;
use super::slots::{Extent, Slot, Slots};
use super::special::{Seen, Special};
use crate::codec::{Encoded, Malformed, Reader, put_bytes, put_u64};
use crate::ids::{Day, GraphId, Stamp, UserId};

/// The local index of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct UserIndex(pub(super) u32);

/// One followed owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Edge {
    pub(super) owner: OwnerIndex,
    pub(super) since: Stamp,
}

#[derive(Debug)]
pub(super) struct User {
    pub(super) id: UserId,
    /// The edges in `graph`; those in other graphs are with the relations.
    following: Following,
    relations: Option<Box<Relations>>,
    graph: GraphId,
    unfollowed: bool,
    /// Whether the feeds were freed because the user stayed away.
    freed: bool,
    /// The last day of activity.
    active: Day,
    /// Found by reads, and in no image.
    seen: Mutex<Seen>,
    /// Of the newest own entry: found by reads, raised by what is written, and in no image.
    pub(super) own: AtMost,
}

impl User {
    fn new(id: UserId, active: Day) -> Self {
        Self {
            id,
            following: Following::default(),
            relations: None,
            graph: GraphId(0),
            unfollowed: false,
            freed: false,
            active,
            seen: Mutex::default(),
            own: AtMost::default(),
        }
    }

    /// The last day of activity; the first there is for one whose feeds are freed, so that every other is later.
    pub(super) fn active(&self) -> Day {
        if self.freed { Day(0) } else { self.active }
    }

    fn list(&self, graph: GraphId) -> Option<&Following> {
        if self.graph == graph {
            return Some(&self.following);
        }
        let others = &self.relations.as_ref()?.following;
        others.iter().find(|(other, _)| *other == graph).map(|(_, list)| list)
    }

    /// All its edges by graph; a graph without any is not among them.
    pub(super) fn lists(&self) -> impl Iterator<Item = (GraphId, &Following)> {
        let others = self.relations.as_ref().map_or(&[][..], |relations| &relations.following);
        let first = (self.following.len() > 0).then_some((self.graph, &self.following));
        first.into_iter().chain(others.iter().map(|(graph, list)| (*graph, list)))
    }

    /// How many owners it follows in `graph`.
    pub(super) fn edge_count(&self, graph: GraphId) -> usize {
        self.list(graph).map_or(0, Following::len)
    }

    /// Whether it follows `owner` now.
    pub(super) fn follows(&self, graph: GraphId, owner: OwnerIndex) -> bool {
        self.list(graph).is_some_and(|list| list.contains(owner))
    }

    /// The edge to `owner`.
    pub(super) fn edge(&self, graph: GraphId, owner: OwnerIndex) -> Option<Edge> {
        self.list(graph)?.edge(owner)
    }

    /// Its edges, owners ascending.
    pub(super) fn edges(&self, graph: GraphId) -> impl Iterator<Item = Edge> {
        self.list(graph).into_iter().flat_map(Following::iter)
    }

    /// The owners it follows in `graph`, ascending.
    #[inline]
    pub(super) fn owners(&self, graph: GraphId) -> impl Iterator<Item = OwnerIndex> {
        self.list(graph).into_iter().flat_map(Following::owners)
    }

    /// Replaces what `owners` holds by the owners it follows in `graph`, ascending.
    pub(super) fn owners_into(&self, graph: GraphId, owners: &mut Vec<OwnerIndex>) {
        owners.clear();
        owners.reserve(self.edge_count(graph));
        owners.extend(self.owners(graph));
    }

    /// Asks for the special owners that were seen, or for the beginning of the list of all.
    #[inline]
    pub(super) fn prefetch_owners(&self, special: &Special, graph: GraphId) {
        match self.seen.lock().get(special, graph) {
            Some(seen) => prefetch_whole(seen),
            None => self.following.prefetch(),
        }
    }

    /// Whether it ever unfollowed somebody, so that rows of owners it does not follow may be in its feeds.
    pub(super) fn has_unfollowed(&self) -> bool {
        self.unfollowed
    }

    /// Its relations, if it has any.
    pub(super) fn relations(&self) -> Option<&Relations> {
        self.relations.as_deref()
    }

    /// Whether this user is not to see what `other` owns, wrote or is referred to by.
    pub(super) fn hides(&self, other: UserId) -> bool {
        self.relations().is_some_and(|relations| relations.mutes.contains(&other)) || self.blocked(other)
    }

    /// Whether one of the two blocks the other.
    pub(super) fn blocked(&self, other: UserId) -> bool {
        self.block_with(other).is_some()
    }

    /// The block (blocker, blocked) between the two, if there is one.
    pub(super) fn block_with(&self, other: UserId) -> Option<(UserId, UserId)> {
        let relations = self.relations()?;
        let by_user = relations.blocks.contains(&other).then_some((self.id, other));
        by_user.or(relations.blocked_by.contains(&other).then_some((other, self.id)))
    }

    /// Whether there is anybody whose entries it is not to see.
    pub(super) fn hides_somebody(&self) -> bool {
        self.relations().is_some_and(Relations::hides_somebody)
    }

    fn is_idle(&self) -> bool {
        self.following.len() == 0 && self.relations.is_none()
    }

    /// The list of a graph, made if there is none.
    fn list_mut(&mut self, graph: GraphId) -> &mut Following {
        if self.graph == graph || self.following.len() == 0 && self.list(graph).is_none() {
            self.graph = graph;
            return &mut self.following;
        }
        let others = &mut self.relations.get_or_insert_default().following;
        let at = others.iter().position(|(other, _)| *other == graph).unwrap_or_else(|| {
            others.push((graph, Following::default()));
            others.len() - 1
        });
        &mut others[at].1
    }

    /// Drops what is empty, and lets another graph take the first place if that became free.
    fn tidy(&mut self) {
        let Some(relations) = &mut self.relations else { return };
        relations.following.retain(|(_, list)| list.len() > 0);
        if self.following.len() == 0 && !relations.following.is_empty() {
            (self.graph, self.following) = relations.following.remove(0);
        }
        if relations.is_empty() {
            self.relations = None;
        }
    }

    /// The largest local index of an owner it follows.
    pub(super) fn last_owner(&self) -> Option<OwnerIndex> {
        self.lists().filter_map(|(_, list)| list.last()).max()
    }

    fn relations_memory(&self) -> usize {
        self.relations().map_or(0, Relations::memory)
    }

    /// Bytes of memory it holds.
    fn memory(&self) -> usize {
        self.relations_memory() + self.lists().map(|(_, list)| allocated(list.bytes())).sum::<usize>()
    }
}

// A free slot takes no room of its own.
const _: () = assert!(size_of::<Slot<User>>() == size_of::<User>());

/// Users of a bucket, as a power of two.
pub(super) const BUCKET_SHIFT: u32 = 10;

#[derive(Debug)]
pub(super) struct Users {
    slots: Slots<User>,
    /// Users by local index.
    pub(super) tracked: Tracked,
    index: Index,
    edges: u64,
    /// Users whose feeds are freed.
    freed: usize,
    heap: HeapBytes,
    /// Bytes of what reads have seen.
    seen: AtomicUsize,
}

impl Default for Users {
    fn default() -> Self {
        Self {
            slots: Slots::default(),
            tracked: Tracked::new(BUCKET_SHIFT),
            index: Index::default(),
            edges: 0,
            freed: 0,
            heap: HeapBytes::default(),
            seen: AtomicUsize::new(0),
        }
    }
}

impl Users {
    /// The users of an image.
    pub(super) fn restore(slots: Slots<User>) -> Self {
        let mut users = Self { slots, ..Self::default() };
        for (index, user) in users.slots.iter() {
            users.index.insert(hash(&user.id), index);
            users.edges += user.lists().map(|(_, list)| list.len() as u64).sum::<u64>();
            users.freed += usize::from(user.freed);
            users.heap.replace(0, user.memory());
        }
        users
    }

    pub(super) fn extent(&self) -> Extent {
        self.slots.extent()
    }

    /// Writes the slot of a local index as a bucket holds it.
    pub(super) fn encode_slot(&self, index: u32, out: &mut Vec<u8>) {
        encode_slot(&self.slots, index, out);
    }

    /// Tells a cut that a slot is about to change.
    fn touch(&mut self, index: u32) {
        let Self { slots, tracked, .. } = self;
        tracked.touch(u64::from(index), |out| encode_slot(slots, index, out));
    }

    pub(super) fn len(&self) -> usize {
        self.slots.used()
    }

    /// The edges of all users.
    pub(super) fn edges(&self) -> u64 {
        self.edges
    }

    pub(super) fn find(&self, id: UserId) -> Option<UserIndex> {
        let same = |index| self.slots.get(index).is_some_and(|user| user.id == id);
        self.index.find(hash(&id), same).map(UserIndex)
    }

    /// Asks for what tells where a user is.
    #[inline]
    pub(super) fn prefetch_index(&self, id: UserId) {
        self.index.prefetch(hash(&id));
    }

    /// Asks for a user, once the above is there; answers where it is, most likely.
    #[inline]
    pub(super) fn prefetch_user(&self, id: UserId) -> Option<UserIndex> {
        let index = self.index.find(hash(&id), |_| true)?;
        self.slots.prefetch(index);
        Some(UserIndex(index))
    }

    /// Where a user is, most likely there.
    #[inline]
    pub(super) fn find_at(&self, id: UserId, likely: Option<UserIndex>) -> Option<UserIndex> {
        let is_there = |index: &UserIndex| self.slots.get(index.0).is_some_and(|user| user.id == id);
        likely.filter(is_there).or_else(|| self.find(id))
    }

    #[inline]
    pub(super) fn get(&self, index: UserIndex) -> &User {
        self.slots.get(index.0).expect("a local index in use names a user")
    }

    fn get_mut(&mut self, index: UserIndex) -> &mut User {
        self.slots.get_mut(index.0).expect("a local index in use names a user")
    }

    /// What is known of the newest entry of a user.
    pub(super) fn own_mut(&mut self, index: UserIndex) -> &mut AtMost {
        // No image holds it.
        &mut self.get_mut(index).own
    }

    pub(super) fn by_id(&self, id: UserId) -> Option<&User> {
        self.find(id).map(|index| self.get(index))
    }

    /// The local index of a user, who begins to be known, and counts as active, on the day `today`.
    pub(super) fn intern(&mut self, id: UserId, today: Day) -> UserIndex {
        if let Some(index) = self.find(id) {
            return index;
        }
        self.touch(self.slots.next());
        let index = self.slots.insert(User::new(id, today));
        self.index.insert(hash(&id), index);
        UserIndex(index)
    }

    /// Replaces what `found` holds by the special owners that a user follows in `graph`.
    pub(super) fn special_into(
        &self,
        user: &User,
        graph: GraphId,
        special: &Special,
        found: &mut Vec<OwnerIndex>,
    ) {
        found.clear();
        let mut seen = user.seen.lock();
        if let Some(owners) = seen.get(special, graph) {
            debug_assert!(
                user.owners(graph)
                    .filter(|owner| special.contains(*owner))
                    .all(|owner| owners.contains(&owner)),
                "an owner became special, and {:?} was not made to look again",
                user.id,
            );
            found.extend_from_slice(owners);
            return;
        }
        found.extend(user.owners(graph).filter(|owner| special.contains(*owner)));
        let before = seen.memory();
        seen.set(special, graph, found);
        // Wrapping, so that less is added the same way as more.
        self.seen.fetch_add(seen.memory().wrapping_sub(before), Ordering::Relaxed);
    }

    /// Makes the next read look again at whom a user follows.
    pub(super) fn forget_seen(&mut self, index: UserIndex) {
        let seen = std::mem::take(self.get_mut(index).seen.get_mut());
        *self.seen.get_mut() -= seen.memory();
    }

    /// Frees the index of a user of whom nothing is known any more; true if it did.
    pub(super) fn release_if_idle(&mut self, index: UserIndex) -> bool {
        let user = self.get(index);
        if !user.is_idle() {
            return false;
        }
        let (hash, freed) = (hash(&user.id), user.freed);
        self.freed -= usize::from(freed);
        self.forget_seen(index);
        self.touch(index.0);
        self.index.remove(hash, index.0);
        self.slots.remove(index.0);
        true
    }

    /// Adds edges that are not there, owners ascending.
    pub(super) fn follow(&mut self, index: UserIndex, graph: GraphId, edges: &[Edge]) {
        if edges.is_empty() {
            return;
        }
        self.edges += edges.len() as u64;
        self.forget_seen(index);
        self.touch(index.0);
        let mut heap = self.heap;
        let user = self.get_mut(index);
        let before = user.relations_memory();
        user.list_mut(graph).add(edges, &mut heap);
        heap.replace(before, user.relations_memory());
        self.heap = heap;
    }

    /// Takes edges away; `owners` ascending, each once. Answers those that were there.
    pub(super) fn unfollow(
        &mut self,
        index: UserIndex,
        graph: GraphId,
        owners: &[OwnerIndex],
    ) -> Vec<OwnerIndex> {
        if self.get(index).list(graph).is_none() {
            return Vec::new();
        }
        self.forget_seen(index);
        self.touch(index.0);
        let mut heap = self.heap;
        let user = self.get_mut(index);
        let before = user.relations_memory();
        let removed = user.list_mut(graph).remove_all(owners, &mut heap);
        user.unfollowed |= !removed.is_empty();
        user.tidy();
        heap.replace(before, user.relations_memory());
        self.heap = heap;
        self.edges -= removed.len() as u64;
        removed
    }

    /// Changes whom a user mutes, blocks and is blocked by.
    pub(super) fn relate<R>(&mut self, index: UserIndex, change: impl FnOnce(&mut Relations) -> R) -> R {
        self.touch(index.0);
        let mut heap = self.heap;
        let user = self.get_mut(index);
        let before = user.relations_memory();
        let result = change(user.relations.get_or_insert_default());
        user.tidy();
        heap.replace(before, user.relations_memory());
        self.heap = heap;
        result
    }

    /// Notes activity on a day, and that the feeds are not freed any more; true if they were.
    pub(super) fn note_active(&mut self, index: UserIndex, day: Day) -> bool {
        let User { active, freed, .. } = *self.get(index);
        if !freed && active >= day {
            return false;
        }
        self.touch(index.0);
        let user = self.get_mut(index);
        (user.active, user.freed) = (active.max(day), false);
        self.freed -= usize::from(freed);
        freed
    }

    /// Notes that the feeds are freed of a user who follows somebody, and was not active since `before`; true if they were not.
    pub(super) fn note_freed(&mut self, index: u32, before: Day) -> bool {
        let away = |user: &User| !user.freed && user.active < before && user.lists().next().is_some();
        if !self.slots.get(index).is_some_and(away) {
            return false;
        }
        self.touch(index);
        self.get_mut(UserIndex(index)).freed = true;
        self.freed += 1;
        true
    }

    /// The users whose feeds are freed.
    pub(super) fn freed(&self) -> impl Iterator<Item = UserIndex> {
        self.iter().filter(|(_, user)| user.freed).map(|(index, _)| index).take(self.freed)
    }

    /// All users with their local indexes, in the order of those.
    pub(super) fn iter(&self) -> impl Iterator<Item = (UserIndex, &User)> {
        self.slots.iter().map(|(index, user)| (UserIndex(index), user))
    }

    /// Bytes of memory it holds.
    pub(super) fn memory(&self) -> usize {
        self.slots.memory()
            + self.index.memory()
            + self.heap.get()
            + self.seen.load(Ordering::Relaxed)
            + self.tracked.memory()
    }
}

fn encode_slot(slots: &Slots<User>, index: u32, out: &mut Vec<u8>) {
    if let Some(slot) = slots.slot(index) {
        slot.encode(out, User::encode);
    }
}

impl Encoded for User {
    fn encode(&self, out: &mut Vec<u8>) {
        self.id.encode(out);
        self.unfollowed.encode(out);
        self.freed.encode(out);
        self.active.encode(out);
        self.graph.encode(out);
        put_bytes(out, self.following.raw());
        self.relations.is_some().encode(out);
        let Some(relations) = &self.relations else { return };
        let Relations { mutes, blocks, blocked_by, following } = &**relations;
        [mutes, blocks, blocked_by].into_iter().for_each(|set| set.encode(out));
        put_u64(out, following.len() as u64);
        for (graph, list) in following {
            graph.encode(out);
            put_bytes(out, list.raw());
        }
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let list = |from: &mut Reader<'_>| {
            let raw = from.bytes()?;
            Following::from_raw(raw).ok_or(from.malformed("list of owners"))
        };
        let (id, unfollowed, freed) = (UserId::decode(from)?, from.flag()?, from.flag()?);
        let (active, graph) = (Day::decode(from)?, GraphId::decode(from)?);
        let following = list(from)?;
        let relations = from.option(|from| {
            let (mutes, blocks, blocked_by) =
                (Encoded::decode(from)?, Encoded::decode(from)?, Encoded::decode(from)?);
            let following = from.list(|from| Ok((GraphId::decode(from)?, list(from)?)))?;
            Ok(Box::new(Relations { mutes, blocks, blocked_by, following }))
        })?;
        let (seen, own) = (Mutex::default(), AtMost::default());
        Ok(Self { id, following, relations, graph, unfollowed, freed, active, seen, own })
    }
}
