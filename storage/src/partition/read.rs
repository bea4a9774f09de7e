//! Owns the reads: timelines, entries, edges, and the merged feed.
//!
//! - A feed is merged from four sources: the stored references above the feed's floor, the chains of owners whose
//!   rows are not all stored, all chains at or below the floor, and the reader's own timeline.
//! - Each source answers only above its own floor; for ids at or below it the answer names the owner to ask (R7).
//! - Everything is filtered by the definition of a feed; a filter never makes a page short.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use super::Partition;
use super::delivered::{Chain, Row, RowState};
use super::owners::Owner;
use super::users::{Edge, User};
use crate::command::Refusal;
use crate::entry::{Audience, Delivery, Entry};
use crate::ids::{EntryId, GraphId, PartitionId, RowPosition, SpaceId, Stamp, UserId};

/// A page of a timeline.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TimelineSlice {
    /// Newest first.
    pub entries: Vec<Entry>,
    /// Whether there are more below.
    pub more: bool,
}

/// What a viewer is checked against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The graph of the entry's space.
    pub graph: GraphId,
    /// Whose timeline it is in.
    pub owner: UserId,
    /// Who wrote it.
    pub author: UserId,
    /// The owner of the entry it refers to.
    pub referenced_owner: Option<UserId>,
    /// Who may see it.
    pub audience: Audience,
}

/// Which part of which feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedQuery {
    /// The space.
    pub space: SpaceId,
    /// The reader; homed in this partition.
    pub reader: UserId,
    /// Only ids below it.
    pub below: EntryId,
    /// At most so many rows.
    pub limit: usize,
}

/// An owner whose timeline is to be asked, because what is here does not reach so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoteSource {
    /// Whose timeline.
    pub owner: UserId,
    /// For entries with ids below it.
    pub below: EntryId,
}

/// What this partition knows of a part of a feed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FeedSlice {
    /// Newest first.
    pub rows: Vec<Delivery>,
    /// Owners to ask before the page is complete down to its last row.
    pub remote: Vec<RemoteSource>,
    /// Whether there may be more rows below.
    pub more: bool,
}

/// A reader in a space, with what filters its feed.
pub(super) struct Viewpoint<'a> {
    pub(super) partition: &'a Partition,
    pub(super) space: SpaceId,
    pub(super) reader: UserId,
    pub(super) user: Option<&'a User>,
    pub(super) edges: &'a [Edge],
}

impl<'a> Viewpoint<'a> {
    pub(super) fn owners(&self) -> impl Iterator<Item = &'a Owner> {
        let owners = &self.partition.owners;
        self.edges.iter().map(move |edge| owners.get(edge.owner))
    }

    /// Whether the definition of a feed admits it, edges aside.
    pub(super) fn admits(&self, delivery: &Delivery) -> bool {
        let partition = self.partition;
        let expired = delivery.expiry.is_some_and(|expiry| expiry <= partition.stamp);
        !expired && !partition.below_horizon(self.space, delivery.id) && !self.hides(delivery)
    }

    pub(super) fn hides(&self, delivery: &Delivery) -> bool {
        self.user.is_some_and(|user| {
            user.hides_somebody()
                && (user.hides(delivery.owner)
                    || user.hides(delivery.author)
                    || delivery.referenced_owner.is_some_and(|owner| user.hides(owner)))
        })
    }

    /// The row as the reader sees it, if the definition admits it.
    pub(super) fn visible(&self, position: RowPosition, row: &Row, owner: UserId) -> Option<Delivery> {
        if row.state != RowState::Live {
            return None;
        }
        let delivery = self.partition.delivered.delivery(position, row, owner);
        self.admits(&delivery).then_some(delivery)
    }

    fn own(&self, below: EntryId) -> impl Iterator<Item = Delivery> {
        let partition = self.partition;
        let own = partition.timelines.newest(self.space, self.reader, below, partition.stamp);
        own.map(Entry::delivery).filter(|delivery| self.admits(delivery))
    }

    /// Below it, stored references are not trusted to be all.
    fn floor(&self) -> EntryId {
        let stored = self.user.and_then(|user| self.partition.users.find(user.id));
        let stored = stored.and_then(|user| self.partition.stored_feed(self.space, user.0));
        stored.map_or(EntryId::ZERO, |feed| feed.floor)
    }

    /// The stored references with ids above `floor` and below `below`.
    fn stored(&self, floor: EntryId, below: EntryId) -> BTreeMap<EntryId, Delivery> {
        let mut found = BTreeMap::new();
        let within = |id: EntryId| id > floor && id < below;
        let stored = self.user.and_then(|user| self.partition.users.find(user.id));
        if let (Some(index), Some(user)) = (stored, self.user)
            && let Some(feed) = self.partition.stored_feed(self.space, index.0)
        {
            let graph = self.partition.spaces[&self.space].graph;
            for position in feed.positions() {
                let Some(row) = self.partition.delivered.get(position).filter(|row| within(row.id)) else {
                    continue;
                };
                if user.edge(graph, row.owner).is_none() {
                    continue;
                }
                let owner = self.partition.owners.get(row.owner).id;
                found.extend(self.visible(position, row, owner).map(|delivery| (row.id, delivery)));
            }
        }
        found
    }

    /// The rows with ids above `floor` and below `below` of the chains that say more than the stored references, newest
    /// first: a merge that goes only as far as it is asked.
    fn chains_above(&self, floor: EntryId, below: EntryId) -> Merge<'_, 'a> {
        self.merge(below, |chain| (chain.walk_to() > floor).then_some(chain.floor.max(floor)))
    }

    /// The rows of all chains with ids below `below`, newest first.
    fn chains_up_to(&self, below: EntryId) -> Merge<'_, 'a> {
        self.merge(below, |chain| Some(chain.floor))
    }

    fn merge(
        &self,
        below: EntryId,
        floor: impl Fn(&super::owners::Chain) -> Option<EntryId>,
    ) -> Merge<'_, 'a> {
        let chains = self.owners().filter(|owner| owner.filled).filter_map(|owner| {
            let chain = owner.chain(self.space)?;
            let rows = self.partition.delivered.chain(chain.head);
            Some(Source { owner, rows, floor: floor(chain)?, below })
        });
        let mut sources: Vec<_> = chains.collect();
        let heads = sources.iter_mut().enumerate();
        let heap = heads.filter_map(|(n, source)| source.next().map(|(p, id)| (id, Reverse(n), p))).collect();
        Merge { viewpoint: self, sources, heap }
    }
}

struct Source<'a> {
    owner: &'a Owner,
    rows: Chain<'a>,
    floor: EntryId,
    below: EntryId,
}

impl Source<'_> {
    fn next(&mut self) -> Option<(RowPosition, EntryId)> {
        let (position, row) = self.rows.by_ref().find(|(_, row)| row.id < self.below)?;
        (row.id > self.floor).then_some((position, row.id))
    }
}

struct Merge<'v, 'a> {
    viewpoint: &'v Viewpoint<'a>,
    sources: Vec<Source<'a>>,
    heap: BinaryHeap<(EntryId, Reverse<usize>, RowPosition)>,
}

impl Iterator for Merge<'_, '_> {
    type Item = Delivery;

    fn next(&mut self) -> Option<Delivery> {
        loop {
            let (_, Reverse(n), position) = self.heap.pop()?;
            let source = &mut self.sources[n];
            if let Some((position, id)) = source.next() {
                self.heap.push((id, Reverse(n), position));
            }
            let row = self.viewpoint.partition.delivered.get(position)?;
            if let Some(delivery) = self.viewpoint.visible(position, row, source.owner.id) {
                return Some(delivery);
            }
        }
    }
}

impl Partition {
    /// The live entries of a timeline with ids below `below`, newest first; everything, whoever views it.
    pub fn timeline(&self, space: SpaceId, owner: UserId, below: EntryId, limit: usize) -> TimelineSlice {
        let mut newest = self.timelines.newest(space, owner, below, self.stamp);
        let entries = newest.by_ref().take(limit).cloned().collect();
        TimelineSlice { entries, more: newest.next().is_some() }
    }

    /// The live ones among entries homed here, in the order asked.
    pub fn entries(&self, ids: &[EntryId]) -> Vec<Option<Entry>> {
        ids.iter().map(|id| self.timelines.live(*id, self.stamp).cloned()).collect()
    }

    pub(super) fn stored_feed(&self, space: SpaceId, user: u32) -> Option<&super::Feed> {
        self.feeds.get(&space)?.get(user as usize)
    }

    pub(super) fn viewpoint(&self, space: SpaceId, reader: UserId) -> Result<Viewpoint<'_>, Refusal> {
        self.check_home(reader)?;
        let graph = self.spaces.get(&space).ok_or(Refusal::UnknownSpace)?.graph;
        let user = self.users.by_id(reader);
        let edges = user.map_or(&[][..], |user| user.edges(graph));
        Ok(Viewpoint { partition: self, space, reader, user, edges })
    }

    /// For each subject, whether `viewer` (homed here) may see it: audience, mutes and blocks. Everybody may see what
    /// is its own.
    pub fn admits(&self, viewer: UserId, subjects: &[Subject]) -> Vec<bool> {
        let user = self.users.by_id(viewer);
        let hides = |other: UserId| user.is_some_and(|user| user.hides(other));
        let follows = |graph: GraphId, owner: UserId| {
            let index = self.owners.find(graph, owner);
            index.is_some_and(|index| user.is_some_and(|user| user.edge(graph, index).is_some()))
        };
        let admits = |s: &Subject| {
            let audience = match s.audience {
                Audience::Public => true,
                Audience::Followers => s.owner == viewer || follows(s.graph, s.owner),
                Audience::Private => s.owner == viewer,
            };
            audience && !hides(s.owner) && !hides(s.author) && !s.referenced_owner.is_some_and(hides)
        };
        subjects.iter().map(admits).collect()
    }

    /// A part of a feed from all that is here.
    ///
    /// # Errors
    /// The space is unknown, or the reader is homed elsewhere.
    pub fn feed_slice(&self, query: &FeedQuery) -> Result<FeedSlice, Refusal> {
        let view = self.viewpoint(query.space, query.reader)?;
        let (limit, floor) = (query.limit, view.floor());
        let stored = view.stored(floor, query.below).into_values().rev();
        let above = newest_first(stored, view.chains_above(floor, query.below));
        let beneath = query.below.min(EntryId(floor.0.saturating_add(1)));
        // The merge at and below the floor is prepared only when the page is not full without it.
        let below_floor =
            std::iter::once(()).flat_map(|()| view.chains_up_to(beneath).collect_up_to(limit + 1));
        let mut others = above.chain(below_floor).peekable();
        let mut own = view.own(query.below).peekable();
        let mut rows: Vec<Delivery> = Vec::with_capacity(limit.min(64));
        let mut more = false;
        while let Some(next) = newer(&mut others, &mut own) {
            if rows.last().is_some_and(|last| last.id == next.id) {
                continue;
            }
            if rows.len() == limit {
                more = true;
                break;
            }
            rows.push(next);
        }
        let full = rows.len() == limit;
        let bottom = rows.last().filter(|_| full).map_or(EntryId::ZERO, |row| row.id);
        let sources = view.owners().map(|owner| {
            let floor = owner.floor(query.space);
            RemoteSource { owner: owner.id, below: query.below.min(EntryId(floor.0.saturating_add(1))) }
        });
        let (mut remote, mut deeper) = (Vec::new(), false);
        for source in sources.filter(|source| source.below > EntryId(1)) {
            let reaches = source.below > EntryId(bottom.0.saturating_add(1));
            deeper |= !reaches;
            remote.extend(reaches.then_some(source));
        }
        Ok(FeedSlice { rows, remote, more: more || deeper })
    }

    /// Which of the entries read from the owners' timelines belong into a feed.
    ///
    /// # Errors
    /// As for [`Partition::feed_slice`].
    pub fn admits_feed(
        &self,
        space: SpaceId,
        reader: UserId,
        deliveries: &[Delivery],
    ) -> Result<Vec<bool>, Refusal> {
        let view = self.viewpoint(space, reader)?;
        let graph = self.spaces[&space].graph;
        let follows = |owner: UserId| {
            let index = self.owners.find(graph, owner);
            index.is_some_and(|index| view.user.is_some_and(|user| user.edge(graph, index).is_some()))
        };
        let admitted = deliveries.iter().map(|d| (d.owner == reader || follows(d.owner)) && view.admits(d));
        Ok(admitted.collect())
    }

    /// How many owners a reader follows.
    pub fn followee_count(&self, graph: GraphId, reader: UserId) -> u64 {
        self.users.by_id(reader).map_or(0, |user| user.edges(graph).len() as u64)
    }

    /// How many readers homed here follow an owner.
    pub fn follower_count_here(&self, graph: GraphId, owner: UserId) -> u64 {
        self.owners.by_id(graph, owner).map_or(0, |owner| u64::from(owner.followers.len()))
    }

    /// The partitions that have followers of an owner homed here, ascending.
    pub fn reach(&self, graph: GraphId, owner: UserId) -> Vec<PartitionId> {
        let remote = self.reach.get(&(graph, owner)).into_iter().flat_map(|reach| reach.keys().copied());
        let here = (self.follower_count_here(graph, owner) > 0).then_some(self.id);
        let mut all: Vec<_> = remote.chain(here).collect();
        all.sort_unstable();
        all
    }

    /// Owners a reader follows, above `after` by user id, each with the time of the follow.
    pub fn followees(
        &self,
        graph: GraphId,
        reader: UserId,
        after: Option<UserId>,
        limit: usize,
    ) -> Vec<(UserId, Stamp)> {
        let edges = self.users.by_id(reader).map_or(&[][..], |user| user.edges(graph));
        first_by_id(edges.iter().map(|edge| (self.owners.get(edge.owner).id, edge.since)), after, limit)
    }

    /// Readers homed here that follow an owner, above `after` by user id, each with the time of the follow.
    pub fn followers_here(
        &self,
        graph: GraphId,
        owner: UserId,
        after: Option<UserId>,
        limit: usize,
    ) -> Vec<(UserId, Stamp)> {
        let Some(index) = self.owners.find(graph, owner) else { return Vec::new() };
        let followers = self.owners.get(index).followers.iter().map(|follower| {
            let user = self.users.get(super::users::UserIndex(follower));
            (user.id, user.edge(graph, index).map_or(Stamp(0), |edge| edge.since))
        });
        first_by_id(followers, after, limit)
    }
}

impl Merge<'_, '_> {
    fn collect_up_to(self, most: usize) -> Vec<Delivery> {
        self.take(most).collect()
    }
}

/// Merges two lists, each newest first.
fn newest_first(
    a: impl Iterator<Item = Delivery>,
    b: impl Iterator<Item = Delivery>,
) -> impl Iterator<Item = Delivery> {
    let (mut a, mut b) = (a.peekable(), b.peekable());
    std::iter::from_fn(move || newer(&mut a, &mut b))
}

/// The newer of the heads of two lists.
fn newer(
    a: &mut std::iter::Peekable<impl Iterator<Item = Delivery>>,
    b: &mut std::iter::Peekable<impl Iterator<Item = Delivery>>,
) -> Option<Delivery> {
    match (a.peek(), b.peek()) {
        (Some(x), Some(y)) if x.id >= y.id => a.next(),
        (Some(_), None) => a.next(),
        _ => b.next(),
    }
}

fn first_by_id(
    all: impl Iterator<Item = (UserId, Stamp)>,
    after: Option<UserId>,
    limit: usize,
) -> Vec<(UserId, Stamp)> {
    let mut users: Vec<_> = all.filter(|(id, _)| after.is_none_or(|after| *id > after)).collect();
    if users.len() > limit {
        users.select_nth_unstable(limit);
        users.truncate(limit);
    }
    users.sort_unstable();
    users
}
