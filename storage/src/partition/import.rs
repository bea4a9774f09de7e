//! Owns the imports: edges and entries of long ago, at a cost per command and not per edge or follower.
//!
//! - An owner's first local follower subscribes as by a follow, but many owners in one event per partition, and the
//!   subscription is filled with floors alone: what there was before is asked of the timelines (R7, R9).
//! - An imported entry makes no row. The partitions that subscribed to its owner raise the floor of the owner's chain to the
//!   largest id that one command brought, so that the timeline is asked for all of them.
//! - No id to come is below an imported one, so that the rows of a chain still arrive in the order of their ids.

use std::collections::BTreeMap;

use super::Partition;
use super::owners::OwnerIndex;
use super::relate::leave_to_chain;
use super::users::Edge;
use super::write::Keyed;
use crate::command::{AppendResult, Refusal, TTL_MS_MAX, WriteResult};
use crate::entry::{Audience, Entry};
use crate::event::{Event, FilledOwner};
use crate::ids::{EntryId, Generation, GraphId, PartitionId, SlotIndex, SpaceId, Stamp, UserId};
use crate::import::{ImportEdge, ImportEntry, Lifetime, Place};

/// Edges whose memory is asked for together.
const EDGES_AHEAD: usize = 64;

/// Owners and floors of one event, so that it fits into a command.
const FLOORS_MAX: usize = 16_384;

/// Owners to subscribe to, by home.
type Subscriptions = BTreeMap<PartitionId, Vec<(UserId, Generation)>>;

/// The largest id imported, by timeline.
type Imported = BTreeMap<(SpaceId, UserId), EntryId>;

impl Partition {
    /// Adds edges with their times.
    pub(super) fn import_follows(
        &mut self,
        graph: GraphId,
        edges: &[ImportEdge],
    ) -> Result<WriteResult, Refusal> {
        if !self.knows_graph(graph) {
            return Err(Refusal::UnknownGraph);
        }
        let (mut changed, mut refused, mut new) = (0, Vec::new(), Subscriptions::new());
        let mut place = 0;
        for edges in edges.chunks(EDGES_AHEAD) {
            edges.iter().for_each(|edge| self.users.prefetch_index(edge.reader));
            let owners: Vec<UserId> = edges.iter().map(|edge| edge.owner).collect();
            let known = self.owners.find_all(graph, &owners);
            for edge in edges {
                self.users.prefetch_user(edge.reader);
            }
            let mut known = &known[..];
            for edges in edges.chunk_by(|a, b| a.reader == b.reader) {
                let (mine, rest) = known.split_at(edges.len());
                known = rest;
                changed += self.import_edges(graph, edges, mine, &mut new, |n, refusal| {
                    refused.push((place + n as u32, refusal));
                });
                place += edges.len() as u32;
            }
        }
        for (home, owners) in new {
            self.journal.record(self.stamp, [home], Event::SubscribeMany { graph, owners });
        }
        Ok(WriteResult::FollowsImported { changed, refused })
    }

    /// Adds edges of one reader; answers how many are new.
    fn import_edges(
        &mut self,
        graph: GraphId,
        edges: &[ImportEdge],
        known: &[Option<OwnerIndex>],
        subscriptions: &mut Subscriptions,
        mut refuse: impl FnMut(usize, Refusal),
    ) -> u32 {
        let reader = edges[0].reader;
        let user = match self.check_home(reader).and_then(|()| self.local_user(reader)) {
            Ok(user) => user,
            Err(refusal) => {
                (0..edges.len()).for_each(|n| refuse(n, refusal));
                return 0;
            }
        };
        let followed = self.users.get(user).edge_count(graph);
        let mut new = Vec::with_capacity(edges.len());
        for (n, (edge, known)) in edges.iter().zip(known).enumerate() {
            let since = edge.since.unwrap_or(self.stamp);
            let added = self
                .check_time(since)
                .and_then(|()| self.add_follower((graph, edge.owner), *known, user, followed + new.len()));
            match added {
                Ok(None) => {}
                Ok(Some(owner)) => {
                    new.push(Edge { owner, since });
                    if self.owners.get(owner).followers.len() == 1 {
                        self.subscribe_unfilled(owner, subscriptions);
                    } else {
                        self.leave_rows_to_chain(owner);
                    }
                }
                Err(refusal) => refuse(n, refusal),
            }
        }
        new.sort_unstable_by_key(|edge| edge.owner);
        self.users.follow(user, graph, &new);
        self.release_user(user);
        new.len() as u32
    }

    fn check_time(&self, time: Stamp) -> Result<(), Refusal> {
        if time <= self.stamp { Ok(()) } else { Err(Refusal::TimeAhead { now: self.stamp, time }) }
    }

    /// Begins a subscription that is not to bring entries.
    fn subscribe_unfilled(&mut self, index: OwnerIndex, subscriptions: &mut Subscriptions) {
        let (graph, owner, generation) = self.begin_subscription(index);
        let home = self.home_of(owner);
        if home == self.id {
            let floors = self.floors_of(&self.spaces_of(graph), owner);
            self.take_filled(graph, &FilledOwner { owner, generation, floors });
        } else {
            subscriptions.entry(home).or_default().push((owner, generation));
        }
    }

    /// Lets a new follower read the rows that are here from the chains, instead of storing them in its feeds.
    fn leave_rows_to_chain(&mut self, index: OwnerIndex) {
        let chains = self.owners.get(index).chains.iter().filter(|chain| chain.head.is_some());
        let spaces: Vec<SpaceId> = chains.map(|chain| chain.space).collect();
        for space in spaces {
            leave_to_chain(self.owners.chain_mut(index, space), &self.delivered);
            self.note_chain(index, space);
        }
    }

    /// The largest id of an owner homed here in each of the spaces that has any.
    fn floors_of(&self, spaces: &[SpaceId], owner: UserId) -> Vec<(SpaceId, EntryId)> {
        let newest = |space: &SpaceId| Some((*space, self.timelines.newest_id(*space, owner, self.stamp)?));
        spaces.iter().filter_map(newest).collect()
    }

    /// Takes subscriptions that want no entries, and answers them.
    pub(super) fn take_subscriptions(
        &mut self,
        source: PartitionId,
        graph: GraphId,
        owners: &[(UserId, Generation)],
    ) {
        let spaces = self.spaces_of(graph);
        let (mut filled, mut floors) = (Vec::new(), 0);
        for (n, (owner, generation)) in owners.iter().copied().enumerate() {
            self.reach.subscribe(graph, owner, source, generation);
            let answer = FilledOwner { owner, generation, floors: self.floors_of(&spaces, owner) };
            floors += 1 + answer.floors.len();
            filled.push(answer);
            if floors >= FLOORS_MAX || n + 1 == owners.len() {
                let event = Event::Filled { graph, owners: std::mem::take(&mut filled) };
                self.journal.record(self.stamp, [source], event);
                floors = 0;
            }
        }
    }

    /// Takes the answer to a subscription that wanted no entries.
    pub(super) fn take_filled(&mut self, graph: GraphId, filled: &FilledOwner) {
        let Some(index) = self.owners.find(graph, filled.owner) else { return };
        let known = self.owners.get(index);
        if known.generation != filled.generation || known.followers.len() == 0 {
            return;
        }
        self.set_filled(index, true);
        for (space, floor) in &filled.floors {
            self.raise_floor(index, *space, *floor);
        }
    }

    /// Asks an owner's timeline for all up to an id that was imported, from now on.
    pub(super) fn take_raise(&mut self, space: SpaceId, owner: UserId, id: EntryId) {
        let graph = self.spaces[&space].graph;
        let Some(index) = self.owners.find(graph, owner) else { return };
        let known = self.owners.get(index);
        // One that is not filled yet is filled with what holds for this entry too.
        if known.followers.len() > 0 && known.filled {
            self.raise_floor(index, space, id);
        }
    }

    fn raise_floor(&mut self, index: OwnerIndex, space: SpaceId, floor: EntryId) {
        let chain = self.owners.chain_mut(index, space);
        chain.floor = chain.floor.max(floor);
        self.note_chain(index, space);
    }

    /// Adds entries with their times.
    pub(super) fn import_entries(&mut self, entries: Vec<ImportEntry>) -> WriteResult {
        let mut imported = Imported::new();
        let items = entries.into_iter().map(|entry| match self.import_entry(entry, &mut imported) {
            Ok((id, duplicate)) => AppendResult::Made { id, duplicate },
            Err(refusal) => AppendResult::Refused { refusal },
        });
        let items = items.collect();
        self.publish_imported(imported);
        WriteResult::Appended { items }
    }

    fn import_entry(
        &mut self,
        item: ImportEntry,
        imported: &mut Imported,
    ) -> Result<(EntryId, bool), Refusal> {
        self.space_for_owner(item.space, item.owner)?;
        // A repetition gets the first answer, whatever the space takes by now.
        let key = match self.look_up_key((item.space, item.owner), item.key.as_ref(), &item)? {
            Keyed::Made(existing) => return Ok((existing, true)),
            Keyed::Free(key) => key,
        };
        let mut is_taken = false;
        if let Place::Id { id } = item.place
            && let Some(existing) = self.timelines.live(id, self.stamp)
        {
            if (existing.space, existing.owner) == (item.space, item.owner) {
                return Ok((id, true));
            }
            is_taken = true;
        }
        let policy = &self.writable_space(item.space, item.owner)?.policy;
        if item.payload.len() > policy.payload_bytes_max as usize {
            return Err(Refusal::PayloadTooLarge { limit: policy.payload_bytes_max });
        }
        let time = item.place.time();
        let expiry = match item.lifetime {
            Lifetime::SpaceDefault => {
                policy.default_ttl_ms.map(|ttl_ms| Stamp(time.0.saturating_add(ttl_ms)))
            }
            Lifetime::Never => None,
            Lifetime::Until { expiry } => Some(expiry),
        };
        self.check_time(time)?;
        if let Place::Id { id } = item.place {
            if id.slot() != SlotIndex::of(item.owner) {
                return Err(Refusal::NotTheOwner);
            }
            if id == EntryId::ZERO || is_taken {
                return Err(Refusal::IdTaken);
            }
        }
        match expiry {
            Some(expiry) if expiry <= self.stamp => {
                return Err(Refusal::ExpiredAlready { now: self.stamp, expiry });
            }
            Some(expiry) if expiry.0 - self.stamp.0 > TTL_MS_MAX => return Err(Refusal::TtlOutOfRange),
            _ => {}
        }
        let id = match item.place {
            Place::Time { stamp } => self.timelines.import_id(stamp, item.space, item.owner, self.stamp),
            Place::Id { id } => id,
        };
        if let Some((key, hash)) = key {
            self.keys.keep(self.stamp, key, id, hash);
        }
        let ImportEntry { space, owner, audience, version, reference, payload, .. } = item;
        let author = item.author.unwrap_or(owner);
        let version = version.max(1);
        self.note_for_horizon(space, id);
        let entry = Entry { id, space, owner, author, audience, version, expiry, reference, payload };
        self.timelines.import(entry, self.stamp);
        self.note_own(space, owner, id);
        if audience != Audience::Private {
            let largest = imported.entry((space, owner)).or_default();
            *largest = id.max(*largest);
        }
        Ok((id, false))
    }

    /// Makes every partition that follows, this one included, ask the timelines for what was imported.
    pub(super) fn publish_imported(&mut self, imported: Imported) {
        let mut raised: BTreeMap<PartitionId, Vec<_>> = BTreeMap::new();
        for ((space, owner), id) in imported {
            self.take_raise(space, owner, id);
            for destination in self.reach.of(self.spaces[&space].graph, owner) {
                raised.entry(destination).or_default().push((space, (owner, id)));
            }
        }
        for (destination, floors) in raised {
            self.journal.record(self.stamp, [destination], Event::Raise { floors });
        }
    }
}
