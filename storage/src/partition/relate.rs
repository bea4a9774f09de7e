//! Owns the edges, mutes and blocks of the users homed here, and the subscriptions that follow from the edges.
//!
//! - The first local follower of an owner subscribes, the last one's leaving ends it (R9).
//! - A follow across a block is refused, in either direction (R14).

use super::Partition;
use super::delivered::RowState;
use super::fan_out::Place;
use super::owners::{Chain, OwnerIndex};
use super::relations::Relations;
use super::users::{Edge, User, UserIndex};
use crate::command::{Limited, Refusal, WriteResult};
use crate::entry::Audience;
use crate::event::{Event, SpaceBackfill};
use crate::ids::{EntryId, Generation, GraphId, PartitionId, UserId};

/// The most deliveries of one backfill, so that it fits into a command; what is left out is asked of the timeline.
const BACKFILL_DELIVERIES_MAX: usize = 8_192;

/// Entries of a timeline that a backfill looks at for each delivery it may have: many may be private, and whoever follows must
/// not make the partition walk down all of them at once.
const LOOKED_AT_PER_DELIVERY: usize = 4;

type Targets = std::collections::BTreeSet<UserId>;

impl Partition {
    pub(super) fn local_user(&mut self, id: UserId) -> Result<UserIndex, Refusal> {
        let limit = self.limits.users_max;
        if self.users.find(id).is_none() && self.users.len() >= limit as usize {
            return Err(Refusal::LimitReached { what: Limited::Users, limit });
        }
        Ok(self.users.intern(id, self.stamp.day()))
    }

    pub(super) fn release_user(&mut self, index: UserIndex) {
        if self.users.release_if_idle(index) {
            for feeds in self.feeds.values_mut() {
                feeds.clear(index.0);
            }
        }
    }

    pub(super) fn follow(
        &mut self,
        graph: GraphId,
        reader: UserId,
        owners: &[UserId],
    ) -> Result<WriteResult, Refusal> {
        self.check_home(reader)?;
        if !self.knows_graph(graph) {
            return Err(Refusal::UnknownGraph);
        }
        let user = self.local_user(reader)?;
        let known = self.owners.find_all(graph, owners);
        let (mut new, mut refused) = (Vec::with_capacity(owners.len()), Vec::new());
        let followed = self.users.get(user).edge_count(graph);
        let limit = self.limits.followees_max;
        let may_exceed = followed + owners.len() > limit as usize;
        if may_exceed && followed + self.new_owners(graph, user, owners, &known) > limit as usize {
            self.release_user(user);
            return Err(Refusal::LimitReached { what: Limited::Followees, limit });
        }
        for (owner, known) in owners.iter().copied().zip(known) {
            match self.add_follower((graph, owner), known, user, followed + new.len()) {
                Ok(None) => {}
                Ok(Some(index)) => {
                    new.push(Edge { owner: index, since: self.stamp });
                    if self.owners.get(index).followers.len() == 1 {
                        self.subscribe(index);
                    }
                }
                // A block is in the way: the limit is not.
                Err(_) => refused.push(owner),
            }
        }
        let changed = new.len() as u32;
        new.sort_unstable_by_key(|edge| edge.owner);
        self.users.follow(user, graph, &new);
        self.fill_reader(graph, user, &new);
        self.release_user(user);
        Ok(WriteResult::Related { changed, refused })
    }

    /// How many of some owners a user would newly follow. `known` is where they are.
    fn new_owners(
        &self,
        graph: GraphId,
        index: UserIndex,
        owners: &[UserId],
        known: &[Option<OwnerIndex>],
    ) -> usize {
        let user = self.users.get(index);
        let is_new = |(owner, known): &(UserId, &Option<OwnerIndex>)| {
            let is_followed = known.is_some_and(|known| user.follows(graph, known));
            *owner != user.id && !is_followed && user.block_with(*owner).is_none()
        };
        let new = owners.iter().copied().zip(known).filter(is_new);
        new.map(|(owner, _)| owner).collect::<Targets>().len()
    }

    /// Puts a user, who follows `followed` owners, into the followers of an owner; none if that changes nothing. `known` is
    /// where the owner was before this command.
    pub(super) fn add_follower(
        &mut self,
        (graph, owner): (GraphId, UserId),
        known: Option<OwnerIndex>,
        index: UserIndex,
        followed: usize,
    ) -> Result<Option<OwnerIndex>, Refusal> {
        let user = self.users.get(index);
        if owner == user.id {
            return Ok(None);
        }
        if let Some((blocker, blocked)) = user.block_with(owner) {
            return Err(Refusal::Blocked { blocker, blocked });
        }
        let limit = self.limits.followees_max;
        if followed >= limit as usize {
            // The owner may have become known by this very command.
            let known = known.or_else(|| self.owners.find(graph, owner));
            if known.is_some_and(|known| self.owners.get(known).followers.contains(index.0)) {
                return Ok(None);
            }
            return Err(Refusal::LimitReached { what: Limited::Followees, limit });
        }
        let owner = known.unwrap_or_else(|| self.owners.intern(graph, owner));
        Ok(self.owners.add_follower(owner, index.0).then_some(owner))
    }

    /// Begins a subscription under a new generation, with nothing filled.
    pub(super) fn begin_subscription(&mut self, index: OwnerIndex) -> (GraphId, UserId, Generation) {
        self.last_generation += 1;
        let owner = self.owners.get_mut(index);
        owner.generation = Generation(self.last_generation);
        let begun = (owner.graph, owner.id, owner.generation);
        self.set_filled(index, false);
        begun
    }

    /// Begins a subscription: filled at once from a local timeline, by a backfill from a remote one.
    fn subscribe(&mut self, index: OwnerIndex) {
        let (graph, id, generation) = self.begin_subscription(index);
        let home = self.home_of(id);
        if home == self.id {
            let spaces = self.backfill(graph, id);
            self.take_backfill(graph, id, generation, &spaces);
        } else {
            self.journal.record(self.stamp, [home], Event::Subscribe { graph, owner: id, generation });
        }
    }

    /// The newest entries of an owner homed here, for each space of the graph that has any. What is looked at is counted in
    /// entries that live, so that every replica ends at the same one.
    pub(super) fn backfill(&self, graph: GraphId, owner: UserId) -> Vec<SpaceBackfill> {
        let spaces = self.spaces.values().filter(|space| space.graph == graph);
        let most = BACKFILL_DELIVERIES_MAX / spaces.clone().count().max(1);
        let filled = spaces.map(|space| {
            let cap = most.min(space.policy.feed_cap as usize);
            let entries = self.timelines.newest(space.id, owner, EntryId::MAX, self.stamp);
            let (mut deliveries, mut floor) = (Vec::new(), EntryId::ZERO);
            for (looked_at, entry) in entries.enumerate() {
                let is_public = entry.audience != Audience::Private;
                if looked_at >= cap * LOOKED_AT_PER_DELIVERY || (is_public && deliveries.len() == cap) {
                    floor = entry.id;
                    break;
                }
                if is_public {
                    deliveries.push(entry.delivery());
                }
            }
            deliveries.reverse();
            SpaceBackfill { space: space.id, floor, deliveries }
        });
        filled.filter(|space| !space.deliveries.is_empty() || space.floor > EntryId::ZERO).collect()
    }

    pub(super) fn unfollow(
        &mut self,
        graph: GraphId,
        reader: UserId,
        owners: &[UserId],
    ) -> Result<WriteResult, Refusal> {
        self.check_home(reader)?;
        if !self.knows_graph(graph) {
            return Err(Refusal::UnknownGraph);
        }
        let Some(user) = self.users.find(reader) else { return Ok(unchanged()) };
        let mut known: Vec<OwnerIndex> = self.owners.find_all(graph, owners).into_iter().flatten().collect();
        known.sort_unstable();
        known.dedup();
        // All at once: taking them out one by one would copy a long list each time.
        let removed = self.users.unfollow(user, graph, &known);
        for index in &removed {
            self.owners.remove_follower(*index, user.0);
            if self.owners.get(*index).followers.len() == 0 {
                self.unsubscribe(*index);
            }
        }
        if !removed.is_empty() {
            self.release_user(user);
        }
        Ok(WriteResult::Related { changed: removed.len() as u32, refused: Vec::new() })
    }

    fn unsubscribe(&mut self, index: OwnerIndex) {
        self.kill_rows(index);
        let owner = self.owners.get(index);
        let (graph, id, generation) = (owner.graph, owner.id, owner.generation);
        let home = self.home_of(id);
        if home != self.id {
            self.journal.record(self.stamp, [home], Event::Unsubscribe { graph, owner: id, generation });
        }
        self.owners.release_if_idle(index);
    }

    /// Begins all subscriptions at `home` anew, because events from or to it were lost (R10, R11).
    pub(super) fn renew_subscriptions(&mut self, home: PartitionId) {
        let subscribed = self.owners.iter().filter(|(_, o)| o.followers.len() > 0);
        let lost: Vec<_> = subscribed.filter(|(_, o)| self.home_of(o.id) == home).map(|(i, _)| i).collect();
        self.journal.record(self.stamp, [home], Event::ForgetSubscriptions);
        for index in lost {
            self.kill_rows(index);
            self.subscribe(index);
        }
    }

    /// Fills what a new reader's feed is to hold of owners whose rows were here before it came.
    fn fill_reader(&mut self, graph: GraphId, user: UserIndex, edges: &[Edge]) {
        for space in self.spaces_of(graph) {
            let cap = self.spaces[&space].policy.feed_cap as usize;
            let (mut rows, mut refused) = (Vec::new(), EntryId::ZERO);
            for Edge { owner, .. } in edges {
                let chains = &mut self.owners.get_mut(*owner).chains;
                let Some(chain) = chains.iter_mut().find(|chain| chain.space == space) else { continue };
                if chain.pulled {
                    leave_to_chain(chain, &self.delivered);
                    self.note_chain(*owner, space);
                    continue;
                }
                let live = self.delivered.chain(chain.head).filter(|(_, row)| row.state() != RowState::Dead);
                let mut ids = live.map(|(position, row)| (position, row.id));
                rows.extend(ids.by_ref().take(cap));
                refused = refused.max(ids.next().map_or(EntryId::ZERO, |(_, id)| id));
            }
            self.fill_feed(Place { space, user }, &rows, refused);
        }
    }

    pub(super) fn mute(&mut self, user: UserId, targets: &[UserId]) -> Result<WriteResult, Refusal> {
        self.relate(user, targets, |relations| &mut relations.mutes)
    }

    /// Adds targets to one of the user's sets, if they are within the limit.
    fn relate(
        &mut self,
        user: UserId,
        targets: &[UserId],
        set: impl Fn(&mut Relations) -> &mut Targets,
    ) -> Result<WriteResult, Refusal> {
        self.check_home(user)?;
        let index = self.local_user(user)?;
        let limit = self.limits.mutes_max;
        let targets: Targets = targets.iter().copied().filter(|target| *target != user).collect();
        let changed = self.users.relate(index, |relations| {
            let set = set(relations);
            let new = targets.difference(set).count();
            if set.len() + new > limit as usize && new > 0 {
                return None;
            }
            set.extend(&targets);
            Some(new as u32)
        });
        self.release_user(index);
        let changed = changed.ok_or(Refusal::LimitReached { what: Limited::Mutes, limit })?;
        Ok(WriteResult::Related { changed, refused: Vec::new() })
    }

    pub(super) fn unmute(&mut self, user: UserId, targets: &[UserId]) -> Result<WriteResult, Refusal> {
        self.check_home(user)?;
        let Some(index) = self.users.find(user) else { return Ok(unchanged()) };
        let changed = self.users.relate(index, |relations| {
            targets.iter().filter(|target| relations.mutes.remove(target)).count() as u32
        });
        self.release_user(index);
        Ok(WriteResult::Related { changed, refused: Vec::new() })
    }

    pub(super) fn block(&mut self, user: UserId, targets: &[UserId]) -> Result<WriteResult, Refusal> {
        self.check_home(user)?;
        let blocked = self.users.by_id(user).and_then(User::relations).map(|known| known.blocks.clone());
        let blocked = blocked.unwrap_or_default();
        let result = self.relate(user, targets, |relations| &mut relations.blocks);
        for target in targets.iter().copied().filter(|target| *target != user) {
            let now = self.users.by_id(user).and_then(User::relations);
            if now.is_some_and(|now| now.blocks.contains(&target)) && !blocked.contains(&target) {
                self.tell_of_block(user, target, true);
            }
        }
        result
    }

    pub(super) fn unblock(&mut self, user: UserId, targets: &[UserId]) -> Result<WriteResult, Refusal> {
        self.check_home(user)?;
        let mut changed = 0;
        for target in targets {
            let Some(index) = self.users.find(user) else { break };
            if self.users.relate(index, |relations| relations.blocks.remove(target)) {
                changed += 1;
                self.tell_of_block(user, *target, false);
                self.release_user(index);
            }
        }
        Ok(WriteResult::Related { changed, refused: Vec::new() })
    }

    fn tell_of_block(&mut self, blocker: UserId, blocked: UserId, begins: bool) {
        let home = self.home_of(blocked);
        if home == self.id {
            self.note_block(blocker, blocked, begins);
        } else if begins {
            self.journal.record(self.stamp, [home], Event::Block { blocker, blocked });
        } else {
            self.journal.record(self.stamp, [home], Event::Unblock { blocker, blocked });
        }
    }

    /// Notes at the blocked user's home that a block begins or ends.
    pub(super) fn note_block(&mut self, blocker: UserId, blocked: UserId, begins: bool) {
        if begins {
            let index = self.users.intern(blocked, self.stamp.day());
            self.users.relate(index, |relations| relations.blocked_by.insert(blocker));
        } else if let Some(index) = self.users.find(blocked) {
            self.users.relate(index, |relations| relations.blocked_by.remove(&blocker));
            self.release_user(index);
        }
    }

    /// Replaces all blocks by users homed at `source` with `blocks`.
    pub(super) fn replace_blocks(&mut self, source: PartitionId, blocks: &[(UserId, UserId)]) {
        let partitions = self.partitions;
        let elsewhere = |blocker: &UserId| PartitionId::of_user(*blocker, partitions) != source;
        let blocked = |user: &User| user.relations().is_some_and(|known| !known.blocked_by.is_empty());
        let all: Vec<_> = self.users.iter().filter(|(_, u)| blocked(u)).map(|(index, _)| index).collect();
        for index in &all {
            self.users.relate(*index, |known| known.blocked_by.retain(elsewhere));
        }
        for (blocker, blocked) in blocks {
            self.note_block(*blocker, *blocked, true);
        }
        for index in all {
            self.release_user(index);
        }
    }

    /// All blocks by users homed here that concern users homed at `destination`.
    pub(super) fn blocks_towards(&self, destination: PartitionId) -> Vec<(UserId, UserId)> {
        let all = self.users.iter().filter_map(|(_, user)| Some((user.id, user.relations()?)));
        let all = all.flat_map(|(id, known)| known.blocks.iter().map(move |blocked| (id, *blocked)));
        all.filter(|(_, blocked)| self.home_of(*blocked) == destination).collect()
    }
}

fn unchanged() -> WriteResult {
    WriteResult::Related { changed: 0, refused: Vec::new() }
}

/// Lets a feed that does not hold a chain's rows read them from the chain.
pub(super) fn leave_to_chain(chain: &mut Chain, table: &super::Delivered) {
    let newest = table.chain(chain.head).next().map_or(EntryId::ZERO, |(_, row)| row.id);
    chain.unpushed = chain.unpushed.max(newest);
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::command::{Append, Command, Limits, Ttl, Write, WriteTag, encode_batch};
    use crate::ids::{Sequence, SessionId, SpaceId, Stamp};
    use crate::partition::{FeedQuery, RemoteSource};
    use crate::space::{SpaceDefinition, SpacePolicy};

    const GRAPH: GraphId = GraphId(1);
    const SPACE: SpaceId = SpaceId(1);
    const CAP: usize = 3;

    fn apply(partition: &mut Partition, command: &Command) {
        let batch = encode_batch(Stamp(1_000_000), &[command.to_bytes()]);
        partition.apply(partition.applied() + 1, &batch).unwrap();
    }

    fn write(partition: &mut Partition, sequence: u64, write: Write) {
        let sequence = Sequence(sequence);
        let tag = WriteTag { session: SessionId(1), sequence, lowest_unanswered: sequence };
        apply(partition, &Command::Write { tag, write });
    }

    /// The feed of a new follower of an owner with two public entries below so many private ones.
    fn followed(private: usize) -> (Vec<EntryId>, Vec<RemoteSource>, Vec<EntryId>) {
        let (owner, reader) = (UserId(1), UserId(2));
        let mut partition = Partition::new(PartitionId(0), 1);
        let policy = SpacePolicy { feed_cap: CAP as u32, ..SpacePolicy::default() };
        let (name, graph_name) = ("posts".into(), "follows".into());
        let definition = SpaceDefinition { id: SPACE, name, graph: GRAPH, graph_name, version: 1, policy };
        apply(&mut partition, &Command::Configure { limits: Limits::default() });
        apply(&mut partition, &Command::DefineSpace { definition });
        apply(&mut partition, &Command::OpenSession);
        let item = |audience| Append {
            space: SPACE,
            owner,
            author: None,
            audience,
            ttl: Ttl::SpaceDefault,
            key: None,
            reference: None,
            payload: Bytes::new(),
        };
        let mut items = vec![item(Audience::Public); 2];
        items.resize(2 + private, item(Audience::Private));
        write(&mut partition, 1, Write::Append { items });
        write(&mut partition, 2, Write::Follow { graph: GRAPH, reader, owners: vec![owner] });
        let query = FeedQuery { space: SPACE, reader, below: EntryId::MAX, limit: 10 };
        let slice = partition.feed_slice(&query).unwrap();
        let all = partition.timeline(SPACE, owner, EntryId::MAX, 100).entries;
        let ids = all.iter().map(|entry| entry.id).collect();
        (slice.rows.iter().map(|row| row.id).collect(), slice.remote, ids)
    }

    #[test]
    fn a_backfill_looks_at_so_many_private_entries_and_the_rest_is_asked_for() {
        let most = CAP * LOOKED_AT_PER_DELIVERY;
        // Both public ones are among those that are looked at, and nothing is left.
        let (shown, remote, all) = followed(most - 2);
        assert_eq!((shown, remote), (all[most - 2..].to_vec(), vec![]));
        let (shown, remote, all) = followed(most - 1);
        let below = EntryId(all[most].0 + 1);
        assert_eq!((shown, remote), (vec![all[most - 1]], vec![RemoteSource { owner: UserId(1), below }]));
        let (shown, remote, all) = followed(most + 5);
        let below = EntryId(all[most].0 + 1);
        assert_eq!((shown, remote), (vec![], vec![RemoteSource { owner: UserId(1), below }]));
    }
}
