//! Owns the merge of a part of a feed, newest first, from as little as will do.
//!
//! - It has four sources: the stored references above the feed's floor, the chains of owners whose rows are not all
//!   stored, all chains at or below the floor, and the reader's own timeline.
//! - Each source answers only above its own floor; for ids at or below it the answer names the owner to ask (R7).
//! - Stored references are read run by run, and their rows a few at a time: an id is given out once it is larger than
//!   everything older, by the bound of the run and that of the delivered table ([`Delivered::top`]). The chains at
//!   or below the floor are looked at only when all above it is not enough, and owners that are not special
//!   ([`special`](super::special)) only then.
//! - Reads that are asked together have their memory asked for together, step by step ([`prepare`](super::prepare)).
//! - Everything is filtered by the definition of a feed; a filter never makes a page short.
//!
//! [`Delivered::top`]: super::delivered::Delivered::top

use std::cell::Cell;

use super::Partition;
use super::chains::{Chains, Contender};
use super::delivered::Row;
use super::feed::Feeds;
use super::own::Own;
use super::owners::{Owner, OwnerIndex};
use super::prepare::{FirstRuns, ROWS_AHEAD, Runs};
use super::read::{FeedQuery, FeedSlice, RemoteSource};
use super::users::User;
use super::viewpoint::Viewpoint;
use crate::entry::Delivery;
use crate::ids::{EntryId, RowPosition, UserId};

thread_local! {
    /// Of the last read on this thread, so that a read need not allocate.
    static SCRATCH: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
}

/// Owners kept room for between two reads; more are rare, and their room is given back.
const SCRATCH_OWNERS_MAX: usize = 16_384;

/// Rows that are looked at together, so that their owners are asked for together.
const ROWS_AT_ONCE: usize = 8;

#[derive(Default)]
pub(super) struct Scratch {
    owners: Vec<OwnerIndex>,
    special: Vec<OwnerIndex>,
    /// The largest floor of those.
    special_floor: EntryId,
    /// The last run, largest position first.
    positions: Vec<RowPosition>,
    /// The first runs of reads that are asked together.
    pub(super) first_runs: FirstRuns,
    candidates: Vec<Candidate>,
    /// Chains that are about to be taken up.
    newest: Vec<Newest>,
    chains: Chains,
}

impl Scratch {
    /// That of this thread.
    pub(super) fn take() -> Box<Self> {
        SCRATCH.take().unwrap_or_default()
    }

    /// Leaves it to the next read.
    pub(super) fn give_back(mut self: Box<Self>) {
        let owners = self.owners.capacity().max(self.newest.capacity()).max(self.chains.capacity());
        if owners <= SCRATCH_OWNERS_MAX {
            self.clear();
            SCRATCH.set(Some(self));
        }
    }

    /// Takes up the first run of the read at this place.
    pub(super) fn begin(&mut self, place: usize) {
        std::mem::swap(&mut self.positions, &mut self.first_runs.positions[place]);
    }

    fn clear(&mut self) {
        self.candidates.clear();
        self.chains.clear();
        self.special_floor = EntryId::ZERO;
    }
}

/// Where an owner's chain begins.
struct Newest {
    owner: UserId,
    floor: EntryId,
    head: RowPosition,
}

/// A row that a stored reference names.
#[derive(Clone, Copy)]
struct Candidate {
    row: Row,
    position: RowPosition,
}

impl Candidate {
    #[inline]
    fn key(&self) -> (EntryId, RowPosition) {
        (self.row.id, self.position)
    }
}

/// What merges all sources but the reader's own timeline.
struct Merge<'v, 'a> {
    view: &'v Viewpoint<'a>,
    scratch: &'v mut Scratch,
    floor: Floor<'a>,
    below: EntryId,
    runs: Runs<'a>,
    /// Nothing that is no candidate yet has a larger id.
    bound: EntryId,
    /// The rows of the run before it were looked at.
    looked_at: usize,
    /// The candidates before it are given out.
    given: usize,
    /// Whether the chains are those at or below the floor.
    deep: bool,
}

impl<'v, 'a> Merge<'v, 'a> {
    /// The merge whose first run is in `scratch`.
    fn new(view: &'v Viewpoint<'a>, scratch: &'v mut Scratch, runs: Runs<'a>, below: EntryId) -> Self {
        let floor = Floor::new(view.index.and_then(|index| Some((view.feeds?, index.0))));
        scratch.clear();
        let (bound, looked_at, given, deep) = (EntryId::MAX, 0, 0, false);
        let mut merge = Self { view, scratch, floor, below, runs, bound, looked_at, given, deep };
        merge.take_special();
        merge
    }

    /// Takes up the chains of the special owners among those the reader follows, above the feed's floor, if their rows are not
    /// all stored.
    fn take_special(&mut self) {
        let Viewpoint { partition, user, graph, space, .. } = *self.view;
        self.scratch.special.clear();
        let Some(user) = user.filter(|_| self.view.has_special) else { return };
        partition.users.special_into(user, graph, &partition.special, &mut self.scratch.special);
        for n in 0..self.scratch.special.len() {
            let owner = self.view.owner(self.scratch.special[n]);
            let chain = owner.chain(space);
            self.scratch.special_floor = self.scratch.special_floor.max(owner.floor_of(chain));
            if chain.is_some_and(|chain| self.floor.is_below(chain.walk_to())) {
                self.look_up(owner);
            }
        }
        self.add_chains(self.below);
    }

    /// Looks up the newest row of an owner, and asks for it.
    fn look_up(&mut self, owner: &Owner) {
        let chain = owner.chain(self.view.space).filter(|_| owner.filled);
        if let Some((chain, head)) = chain.and_then(|chain| Some((chain, chain.head?))) {
            self.view.partition.delivered.prefetch(head);
            self.scratch.newest.push(Newest { owner: owner.id, floor: chain.floor, head });
        }
    }

    /// Adds the chains that were looked up, from below `below` on.
    fn add_chains(&mut self, below: EntryId) {
        let table = &self.view.partition.delivered;
        let Scratch { newest, chains, .. } = &mut *self.scratch;
        for Newest { owner, floor, head } in newest.drain(..) {
            // Nearly every first page begins with the newest row.
            let first = table.get(head).map(|row| (head, row)).filter(|(_, row)| row.id < below);
            let first = first.or_else(|| table.chain(Some(head)).find(|(_, row)| row.id < below));
            let is_left = |row: &Row| row.id > floor && (self.deep || self.floor.is_below(row.id));
            if let Some((position, row)) = first.filter(|(_, row)| is_left(row)) {
                chains.add(Contender { owner, floor, position, row: *row });
            }
        }
        chains.order();
    }

    /// Takes up all chains at and below the floor, when what is above it has ended.
    fn go_deep(&mut self) {
        self.deep = true;
        self.view.owners_into(&mut self.scratch.owners);
        self.scratch.chains.clear();
        for n in 0..self.scratch.owners.len() {
            self.look_up(self.view.owner(self.scratch.owners[n]));
        }
        self.add_chains(self.below.min(EntryId(self.floor.get().0.saturating_add(1))));
    }

    /// Looks at stored references until the next candidate is known; none at the end.
    fn candidate(&mut self) -> Option<EntryId> {
        loop {
            let next = self.scratch.candidates.get(self.given).map(|candidate| candidate.row.id);
            if next.is_some_and(|id| id > self.bound) {
                return next;
            }
            if self.looked_at < self.scratch.positions.len() {
                self.look();
            } else if self.runs.is_left() {
                self.runs.take(&self.view.partition.delivered, ROWS_AHEAD, &mut self.scratch.positions);
                self.looked_at = 0;
            } else {
                self.bound = EntryId::ZERO;
                return next;
            }
            self.bound = match self.scratch.positions.get(self.looked_at) {
                Some(position) => self.runs.older.max(self.view.partition.delivered.top(*position)),
                None => self.runs.older,
            };
            if !self.floor.is_below(self.bound) {
                // All that is left is not above the floor.
                self.bound = EntryId::ZERO;
                self.runs.end();
                self.scratch.positions.clear();
            }
        }
    }

    /// Makes candidates of the next rows of the run, keeping them by id, the largest first.
    fn look(&mut self) {
        let Partition { delivered: table, owners, .. } = self.view.partition;
        let Scratch { positions, candidates, .. } = &mut *self.scratch;
        let left = &positions[self.looked_at..];
        left.iter().skip(ROWS_AHEAD).take(ROWS_AT_ONCE).for_each(|position| table.prefetch(*position));
        let now = &left[..left.len().min(ROWS_AT_ONCE)];
        self.looked_at += now.len();
        for position in now {
            let Some(row) = table.get(*position) else { continue };
            if row.id >= self.below || !self.floor.is_below(row.id) {
                continue;
            }
            // Each row is of another owner, who is somewhere else in memory.
            owners.prefetch_id(row.owner);
            let candidate = Candidate { row: *row, position: *position };
            let waiting = &candidates[self.given..];
            // Nearly all come in the order of their ids.
            if waiting.last().is_none_or(|last| last.key() > candidate.key()) {
                candidates.push(candidate);
            } else {
                let place = waiting.partition_point(|waits| waits.key() > candidate.key());
                candidates.insert(self.given + place, candidate);
            }
        }
    }

    /// Adds the rows that are above all else there is, no id of another source being above `others`; answers whether there is
    /// one more than fit.
    fn give_sure(&mut self, others: EntryId, limit: usize, rows: &mut Vec<Delivery>) -> bool {
        loop {
            let stored = self.candidate().unwrap_or_default();
            let chained = self.scratch.chains.top();
            if stored > others.max(chained) {
                let least = others.max(chained).max(self.bound);
                let candidates = &self.scratch.candidates[self.given..];
                for Candidate { row, position } in candidates.iter().take_while(|sure| sure.row.id > least) {
                    self.given += 1;
                    self.view.show(*position, row, None, rows);
                    if rows.len() > limit {
                        return true;
                    }
                }
            } else if chained > others.max(stored) {
                while self.scratch.chains.top() > others.max(stored) {
                    self.give_of_chains(rows);
                    if rows.len() > limit {
                        return true;
                    }
                }
            } else {
                return false;
            }
        }
    }

    /// The largest id that is left. Whether the reader sees its row is not looked at.
    fn next_id(&mut self) -> Option<EntryId> {
        loop {
            let chained = Some(self.scratch.chains.top()).filter(|top| *top > EntryId::ZERO);
            let next = self.candidate().max(chained);
            if next.is_some() || self.deep {
                return next;
            }
            self.go_deep();
        }
    }

    /// Adds the row that [`Merge::next_id`] named, if the reader sees it.
    fn give(&mut self, rows: &mut Vec<Delivery>) {
        let Scratch { candidates, chains, .. } = &*self.scratch;
        // One at or below the bound is none yet: a larger id may follow.
        let stored = candidates.get(self.given).filter(|candidate| candidate.row.id > self.bound);
        if let Some(Candidate { row, position }) = stored.filter(|stored| stored.row.id >= chains.top()) {
            self.given += 1;
            self.view.show(*position, row, None, rows);
        } else {
            self.give_of_chains(rows);
        }
    }

    /// Adds the newest row of the chains, if the reader sees it; the next one of its chain takes its place.
    fn give_of_chains(&mut self, rows: &mut Vec<Delivery>) {
        let Some(Contender { owner, floor, position, row }) = self.scratch.chains.newest() else { return };
        self.view.show(*position, row, Some(*owner), rows);
        let table = &self.view.partition.delivered;
        let older = row.previous(*position).and_then(|older| Some((older, table.get(older)?)));
        let left = older.filter(|(_, row)| row.id > *floor && (self.deep || self.floor.is_below(row.id)));
        self.scratch.chains.go_on(left);
    }
}

/// The floor of a feed. It stands in the oldest cell, so it is looked up only when an id is near it.
struct Floor<'a> {
    feed: Option<(&'a Feeds, u32)>,
    /// The floor is not below it.
    at_least: EntryId,
    /// The floor is not above it.
    at_most: EntryId,
    exact: Cell<Option<EntryId>>,
}

impl<'a> Floor<'a> {
    fn new(feed: Option<(&'a Feeds, u32)>) -> Self {
        let (at_least, at_most) =
            feed.map_or((EntryId::ZERO, EntryId::ZERO), |(feeds, user)| feeds.floor_range(user));
        Self { feed, at_least, at_most, exact: Cell::new(None) }
    }

    /// Whether an id is above it.
    #[inline]
    fn is_below(&self, id: EntryId) -> bool {
        id > self.at_most || id > self.at_least && id > self.get()
    }

    fn get(&self) -> EntryId {
        if let Some(exact) = self.exact.get() {
            return exact;
        }
        let exact = self.feed.map_or(EntryId::ZERO, |(feeds, user)| feeds.floor(user));
        self.exact.set(Some(exact));
        exact
    }
}

impl Viewpoint<'_> {
    /// Replaces what `slice` holds by a part of the feed: at most `limit` rows with ids below `below`.
    pub(super) fn slice_into(
        &self,
        FeedQuery { below, limit, .. }: FeedQuery,
        runs: Runs<'_>,
        slice: &mut FeedSlice,
        scratch: &mut Scratch,
    ) {
        slice.rows.clear();
        slice.remote.clear();
        slice.active = self.user.map(User::active);
        slice.rows.reserve(limit.min(64) + 1);
        let others = Merge::new(self, scratch, runs, below);
        slice.more = self.merge(below, limit, &mut slice.rows, others);
        self.find_remote(below, limit, slice, scratch);
    }

    /// Adds the rows; answers whether there is one more.
    fn merge(
        &self,
        below: EntryId,
        limit: usize,
        rows: &mut Vec<Delivery>,
        mut others: Merge<'_, '_>,
    ) -> bool {
        let mut own = Own::new(self, below);
        while !others.give_sure(own.bound(), limit, rows) {
            let next_other = others.next_id();
            // Own entries are looked at, and for, only when their turn has come: most pages end before.
            if let Some(id) = own.next_above(next_other) {
                let entry = own.entry(id).map(|entry| entry.delivery());
                let is_new = rows.last().is_none_or(|last| last.id != id);
                rows.extend(entry.filter(|delivery| is_new && self.admits(delivery)));
            } else if next_other.is_some() {
                others.give(rows);
            } else {
                return false;
            }
            if rows.len() > limit {
                break;
            }
        }
        // The one too many says that there is more.
        rows.pop();
        true
    }

    /// Names the owners whose timelines are to be asked before the page is complete down to its last row.
    fn find_remote(&self, below: EntryId, limit: usize, slice: &mut FeedSlice, scratch: &mut Scratch) {
        let full = slice.rows.len() == limit;
        let bottom = slice.rows.last().filter(|_| full).map_or(EntryId::ZERO, |row| row.id);
        // Above what left the window, only the special owners can have a floor.
        let owners = if slice.more && bottom > self.left_window {
            if bottom >= scratch.special_floor {
                return;
            }
            &scratch.special
        } else {
            self.owners_into(&mut scratch.owners);
            &scratch.owners
        };
        for index in owners {
            let owner = self.owner(*index);
            let floor = owner.floor(self.space);
            let source =
                RemoteSource { owner: owner.id, below: below.min(EntryId(floor.0.saturating_add(1))) };
            if source.below > EntryId(bottom.0.saturating_add(1)) {
                slice.remote.push(source);
            } else {
                slice.more |= source.below > EntryId(1);
            }
        }
    }
}
