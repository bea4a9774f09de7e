//! Owns the reads: timelines, entries, edges, and the parts of the merged feed.
//!
//! - What a part of a feed is made of, and when it is full, stands in [`merge`](super::merge).
//! - Reads answer for the applied stamp (R1) and change nothing.

use std::borrow::Cow;
use std::collections::BinaryHeap;

use super::Partition;
use super::merge::Scratch;
use super::prepare::Prepared;
use super::users::UserIndex;
use super::viewpoint::{LastScope, Scope, Viewpoint};
use crate::command::Refusal;
use crate::entry::{Audience, Delivery, Entry};
use crate::ids::{Day, EntryId, GraphId, PartitionId, SpaceId, Stamp, UserId};

/// Feeds whose memory is asked for together.
const FEEDS_AHEAD: usize = 16;

/// Users that a page of edges is given room for at first.
const USERS_AHEAD: usize = 1_024;

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
    /// The last day of the reader's activity that was logged; none if nothing here speaks of the reader. One whose feeds are
    /// freed was never active.
    pub active: Option<Day>,
}

impl Partition {
    /// The live entries of a timeline with ids below `below`, newest first; everything, whoever views it.
    pub fn timeline(&self, space: SpaceId, owner: UserId, below: EntryId, limit: usize) -> TimelineSlice {
        let mut newest = self.timelines.newest(space, owner, below, self.stamp);
        let entries = newest.by_ref().take(limit).map(Cow::into_owned).collect();
        TimelineSlice { entries, more: newest.next().is_some() }
    }

    /// The live ones among entries homed here, in the order asked.
    pub fn entries(&self, ids: &[EntryId]) -> Vec<Option<Entry>> {
        ids.iter().map(|id| self.timelines.live(*id, self.stamp).map(Cow::into_owned)).collect()
    }

    /// The live ones among entries homed here; `found` is told each with the place of its id.
    pub fn entries_into(&self, ids: &[EntryId], found: impl FnMut(usize, &Entry)) {
        self.timelines.live_all(ids, self.stamp, found);
    }

    pub(super) fn viewpoint(&self, space: SpaceId, reader: UserId) -> Result<Viewpoint<'_>, Refusal> {
        let scope = Scope::new(self, space);
        self.check_home(reader)?;
        Ok(Viewpoint::new(self, scope.ok_or(Refusal::UnknownSpace)?, reader, self.users.find(reader)))
    }

    /// For each subject, whether `viewer` (homed here) may see it: audience, mutes and blocks. Everybody may see what
    /// is its own.
    pub fn admits(&self, viewer: UserId, subjects: &[Subject]) -> Vec<bool> {
        let user = self.users.by_id(viewer);
        let hides = |other: UserId| user.is_some_and(|user| user.hides(other));
        let follows = |graph: GraphId, owner: UserId| {
            let index = self.owners.find(graph, owner);
            index.is_some_and(|index| user.is_some_and(|user| user.follows(graph, index)))
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
        let mut sliced = Ok(FeedSlice::default());
        self.feed_slices(std::slice::from_ref(query), |_, slice| sliced = slice.map(std::mem::take));
        sliced
    }

    /// Parts of many feeds, in the order asked; cheaper than one after the other. `found` is told each with the place
    /// of its query, and may take what it holds.
    pub fn feed_slices(
        &self,
        queries: &[FeedQuery],
        mut found: impl FnMut(usize, Result<&mut FeedSlice, Refusal>),
    ) {
        let mut slice = FeedSlice::default();
        let mut scratch = Scratch::take();
        let mut scope = LastScope::new(self);
        let mut prepared = Vec::with_capacity(queries.len().min(FEEDS_AHEAD));
        for (group, queries) in queries.chunks(FEEDS_AHEAD).enumerate() {
            self.prepare(queries, &mut scope, &mut scratch.first_runs, &mut prepared);
            for (n, (query, prepared)) in queries.iter().zip(prepared.drain(..)).enumerate() {
                let sliced = prepared.map(|Prepared { view, runs }| {
                    scratch.begin(n);
                    view.slice_into(*query, runs, &mut slice, &mut scratch);
                    &mut slice
                });
                found(group * FEEDS_AHEAD + n, sliced);
            }
        }
        scratch.give_back();
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
        let graph = view.graph;
        let follows = |owner: UserId| {
            let index = self.owners.find(graph, owner);
            index.is_some_and(|index| view.follows(index))
        };
        let admitted = deliveries.iter().map(|d| (d.owner == reader || follows(d.owner)) && view.admits(d));
        Ok(admitted.collect())
    }

    /// How many owners a reader follows.
    pub fn followee_count(&self, graph: GraphId, reader: UserId) -> u64 {
        self.users.by_id(reader).map_or(0, |user| user.edge_count(graph) as u64)
    }

    /// How many readers homed here follow an owner.
    pub fn follower_count_here(&self, graph: GraphId, owner: UserId) -> u64 {
        self.owners.by_id(graph, owner).map_or(0, |owner| u64::from(owner.followers.len()))
    }

    /// The partitions that have followers of an owner homed here, ascending.
    pub fn reach(&self, graph: GraphId, owner: UserId) -> Vec<PartitionId> {
        let here = (self.follower_count_here(graph, owner) > 0).then_some(self.id);
        let mut all: Vec<_> = self.reach.of(graph, owner).chain(here).collect();
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
        let edges = self.users.by_id(reader).into_iter().flat_map(|user| user.edges(graph));
        first_by_id(edges.map(|edge| (self.owners.get(edge.owner).id, edge.since)), after, limit)
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
        let followers = self.owners.get(index).followers.iter().map(UserIndex);
        let page = first_by_id(followers.map(|user| (self.users.get(user).id, user)), after, limit);
        let since =
            |user: UserIndex| self.users.get(user).edge(graph, index).map_or(Stamp(0), |edge| edge.since);
        page.into_iter().map(|(id, user)| (id, since(user))).collect()
    }
}

fn first_by_id<T: Ord>(
    all: impl Iterator<Item = (UserId, T)>,
    after: Option<UserId>,
    limit: usize,
) -> Vec<(UserId, T)> {
    // The largest kept is on top. What a page needs is kept, however many there are.
    let mut first = BinaryHeap::with_capacity(limit.min(USERS_AHEAD));
    for user in all.filter(|(id, _)| after.is_none_or(|after| *id > after)) {
        if first.len() < limit {
            first.push(user);
        } else if let Some(mut largest) = first.peek_mut().filter(|largest| user < **largest) {
            *largest = user;
        }
    }
    first.into_sorted_vec()
}
