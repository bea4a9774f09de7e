//! Owns the naive model of the whole system: what every feed and timeline holds once everything has been delivered.
//!
//! - No partitions, no fan-out, no caps, no floors: a feed is computed from its definition each time.
//! - Ids are given, as the system answered them; the model never makes one.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::entry::{Audience, Entry};
use crate::ids::{EntryId, GraphId, SpaceId, Stamp, UserId};
use crate::space::SpaceDefinition;

/// Pairs of users; for a graph (reader, owner), for mutes and blocks (who, whom).
type Pairs = HashMap<UserId, BTreeSet<UserId>>;

/// The naive model.
#[derive(Clone, Debug, Default)]
pub struct Oracle {
    now: Stamp,
    spaces: BTreeMap<SpaceId, SpaceDefinition>,
    entries: HashMap<EntryId, Entry>,
    timelines: HashMap<(SpaceId, UserId), BTreeSet<EntryId>>,
    graphs: HashMap<GraphId, Pairs>,
    mutes: Pairs,
    blocks: Pairs,
}

impl Oracle {
    /// A model in which nothing has happened.
    pub fn new() -> Self {
        Self::default()
    }

    /// A new or changed space.
    pub fn define_space(&mut self, definition: SpaceDefinition) {
        self.spaces.insert(definition.id, definition);
    }

    /// The time by which entries expire and pass the horizon.
    pub fn set_now(&mut self, now: Stamp) {
        self.now = now;
    }

    /// An appended entry.
    pub fn append(&mut self, entry: Entry) {
        self.timelines.entry((entry.space, entry.owner)).or_default().insert(entry.id);
        self.entries.insert(entry.id, entry);
    }

    /// An amended payload.
    pub fn amend(&mut self, id: EntryId, payload: bytes::Bytes) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.payload = payload;
            entry.version += 1;
        }
    }

    /// A deleted entry.
    pub fn delete(&mut self, id: EntryId) {
        if let Some(entry) = self.entries.remove(&id)
            && let Some(timeline) = self.timelines.get_mut(&(entry.space, entry.owner))
        {
            timeline.remove(&id);
        }
    }

    /// A set, changed or cleared expiry.
    pub fn set_expiry(&mut self, id: EntryId, expiry: Option<Stamp>) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.expiry = expiry;
        }
    }

    /// An edge that was accepted; none to oneself. Across a block ([`Oracle::blocked`]) there is none to accept.
    pub fn follow(&mut self, graph: GraphId, reader: UserId, owner: UserId) {
        insert(self.graphs.entry(graph).or_default(), reader, owner);
    }

    /// An edge taken away.
    pub fn unfollow(&mut self, graph: GraphId, reader: UserId, owner: UserId) {
        remove(self.graphs.entry(graph).or_default(), reader, owner);
    }

    /// A mute.
    pub fn mute(&mut self, user: UserId, target: UserId) {
        insert(&mut self.mutes, user, target);
    }

    /// A mute undone.
    pub fn unmute(&mut self, user: UserId, target: UserId) {
        remove(&mut self.mutes, user, target);
    }

    /// A block.
    pub fn block(&mut self, user: UserId, target: UserId) {
        insert(&mut self.blocks, user, target);
    }

    /// A block undone.
    pub fn unblock(&mut self, user: UserId, target: UserId) {
        remove(&mut self.blocks, user, target);
    }

    /// An entry that is neither deleted nor expired.
    pub fn entry(&self, id: EntryId) -> Option<&Entry> {
        self.entries.get(&id).filter(|entry| !entry.expired(self.now))
    }

    /// The owners a reader follows.
    pub fn followees(&self, graph: GraphId, reader: UserId) -> impl Iterator<Item = UserId> {
        self.graphs.get(&graph).and_then(|graph| graph.get(&reader)).into_iter().flatten().copied()
    }

    /// Whether the reader follows the owner.
    pub fn follows(&self, graph: GraphId, reader: UserId, owner: UserId) -> bool {
        contains(self.graphs.get(&graph), reader, owner)
    }

    /// Whether one of the two blocks the other.
    pub fn blocked(&self, one: UserId, other: UserId) -> bool {
        contains(Some(&self.blocks), one, other) || contains(Some(&self.blocks), other, one)
    }

    fn hides(&self, viewer: UserId, entry: &Entry) -> bool {
        let hidden = |other| contains(Some(&self.mutes), viewer, other) || self.blocked(viewer, other);
        hidden(entry.owner) || hidden(entry.author) || entry.reference.is_some_and(|r| hidden(r.owner))
    }

    /// Whether an entry's audience, and the viewer's mutes and blocks, let the viewer see it.
    pub fn admits(&self, viewer: UserId, entry: &Entry) -> bool {
        let graph = self.spaces[&entry.space].graph;
        let audience = entry.owner == viewer
            || match entry.audience {
                Audience::Public => true,
                Audience::Followers => self.follows(graph, viewer, entry.owner),
                Audience::Private => false,
            };
        audience && !self.hides(viewer, entry)
    }

    /// The entries of a timeline that the viewer may see, newest first; without a viewer, all.
    pub fn timeline(&self, space: SpaceId, owner: UserId, viewer: Option<UserId>) -> Vec<EntryId> {
        let ids = self.timelines.get(&(space, owner)).into_iter().flatten().rev().copied();
        let live = ids.filter_map(|id| self.entry(id));
        live.filter(|e| viewer.is_none_or(|viewer| self.admits(viewer, e))).map(|e| e.id).collect()
    }

    /// A feed, by its definition, newest first.
    pub fn feed(&self, space: SpaceId, reader: UserId) -> Vec<EntryId> {
        let definition = &self.spaces[&space];
        let horizon_ms = definition.policy.horizon_ms;
        let old = |id: &EntryId| horizon_ms.is_some_and(|h| id.time().0 + h < self.now.0);
        let owners = self.followees(definition.graph, reader).chain([reader]);
        let timelines = owners.flat_map(|owner| self.timeline(space, owner, Some(reader)));
        let feed: BTreeSet<EntryId> = timelines.filter(|id| !old(id)).collect();
        feed.into_iter().rev().collect()
    }
}

fn insert(pairs: &mut Pairs, one: UserId, other: UserId) {
    if one != other {
        pairs.entry(one).or_default().insert(other);
    }
}

fn remove(pairs: &mut Pairs, one: UserId, other: UserId) {
    if let Some(others) = pairs.get_mut(&one) {
        others.remove(&other);
    }
}

fn contains(pairs: Option<&Pairs>, one: UserId, other: UserId) -> bool {
    pairs.and_then(|pairs| pairs.get(&one)).is_some_and(|others| others.contains(&other))
}
