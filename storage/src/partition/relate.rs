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
        let mut result = Ok(());
        for (owner, known) in owners.iter().copied().zip(known) {
            match self.add_follower((graph, owner), known, user, followed + new.len()) {
                Ok(None) => {}
                Ok(Some(index)) => {
                    new.push(Edge { owner: index, since: self.stamp });
                    if self.owners.get(index).followers.len() == 1 {
                        self.subscribe(index);
                    }
                }
                Err(Refusal::Blocked { .. }) => refused.push(owner),
                Err(refusal) => {
                    result = Err(refusal);
                    break;
                }
            }
        }
        let changed = new.len() as u32;
        new.sort_unstable_by_key(|edge| edge.owner);
        self.users.follow(user, graph, &new);
        self.fill_reader(graph, user, &new);
        self.release_user(user);
        // What was added before a limit was reached stays: asking again is harmless.
        result.map(|()| WriteResult::Related { changed, refused })
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

    /// The newest entries of an owner homed here, for each space of the graph that has any.
    pub(super) fn backfill(&self, graph: GraphId, owner: UserId) -> Vec<SpaceBackfill> {
        let spaces = self.spaces.values().filter(|space| space.graph == graph);
        let most = BACKFILL_DELIVERIES_MAX / spaces.clone().count().max(1);
        let filled = spaces.map(|space| {
            let cap = most.min(space.policy.feed_cap as usize);
            let entries = self.timelines.newest(space.id, owner, EntryId::MAX, self.stamp);
            let mut public = entries.filter(|e| e.audience != Audience::Private);
            let mut deliveries: Vec<_> = public.by_ref().take(cap).map(|entry| entry.delivery()).collect();
            deliveries.reverse();
            let floor = public.next().map_or(EntryId::ZERO, |entry| entry.id);
            SpaceBackfill { space: space.id, floor, deliveries }
        });
        filled.filter(|space| !space.deliveries.is_empty()).collect()
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

    /// Adds targets to one of the user's sets, up to the limit.
    fn relate(
        &mut self,
        user: UserId,
        targets: &[UserId],
        set: impl Fn(&mut Relations) -> &mut Targets,
    ) -> Result<WriteResult, Refusal> {
        self.check_home(user)?;
        let index = self.local_user(user)?;
        let limit = self.limits.mutes_max;
        let mut changed = 0;
        let full = self.users.relate(index, |relations| {
            let set = set(relations);
            for target in targets.iter().copied().filter(|target| *target != user) {
                if set.len() >= limit as usize && !set.contains(&target) {
                    return true;
                }
                changed += u32::from(set.insert(target));
            }
            false
        });
        self.release_user(index);
        if full {
            return Err(Refusal::LimitReached { what: Limited::Mutes, limit });
        }
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
