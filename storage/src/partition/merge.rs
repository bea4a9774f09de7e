//! Owns the merge of a part of a feed, newest first, from as little as will do.
//!
//! - It has four sources: the stored references above the feed's floor, the chains of owners whose rows are not all
//!   stored, all chains at or below the floor, and the reader's own timeline.
//! - Each source answers only above its own floor; for ids at or below it the answer names the owner to ask (R7).
//! - Stored references are read run by run, and their rows a few at a time: an id is given out once it is larger than
//!   everything older, by the bound of the run and that of the delivered table ([`Delivered::top`]). The chains at
//!   or below the floor are looked at only when all above it is not enough, and owners that are not special
//!   ([`special`](super::special)) only then.
//! - Reads that are asked together have their memory asked for together, step by step ([`Partition::look_ahead_feeds`]).
//! - Everything is filtered by the definition of a feed; a filter never makes a page short.
//!
//! [`Delivered::top`]: super::delivered::Delivered::top

use std::cell::Cell;
use std::collections::BinaryHeap;

use super::Partition;
use super::delivered::Row;
use super::feed::{Feeds, Walk};
use super::own::Own;
use super::owners::OwnerIndex;
use super::read::{FeedQuery, FeedSlice, RemoteSource};
use super::users::User;
use super::viewpoint::{LastScope, Viewpoint};
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

/// Rows of a run that are asked for ahead: those of a usual page.
const ROWS_AHEAD: usize = 32;

#[derive(Default)]
pub(super) struct Scratch {
    owners: Vec<OwnerIndex>,
    special: Vec<OwnerIndex>,
    /// The largest floor of those.
    special_floor: EntryId,
    /// The last run, largest position first.
    positions: Vec<RowPosition>,
    candidates: Vec<Candidate>,
    sources: Vec<Source>,
    heap: BinaryHeap<(EntryId, RowPosition, u32)>,
}

impl Scratch {
    /// That of this thread.
    pub(super) fn take() -> Box<Self> {
        SCRATCH.take().unwrap_or_default()
    }

    /// Leaves it to the next read.
    pub(super) fn give_back(mut self: Box<Self>) {
        if self.owners.capacity() <= SCRATCH_OWNERS_MAX {
            self.clear();
            SCRATCH.set(Some(self));
        }
    }

    fn clear(&mut self) {
        self.positions.clear();
        self.candidates.clear();
        self.sources.clear();
        self.heap.clear();
        self.special_floor = EntryId::ZERO;
    }
}

/// An owner's chain in the merge; it ends at its own floor, and above the feed's unless all above that is given out.
struct Source {
    owner: UserId,
    floor: EntryId,
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
    walk: Option<Walk<'a>>,
    /// Nothing that the walk has not reached has a larger id.
    older: EntryId,
    /// Nothing that is no candidate yet has a larger id.
    bound: EntryId,
    /// The rows of the run before it were looked at.
    looked_at: usize,
    /// The candidates before it are given out.
    given: usize,
    /// Whether the chains at or below the floor are in the heap.
    deep: bool,
}

impl<'v, 'a> Merge<'v, 'a> {
    fn new(view: &'v Viewpoint<'a>, scratch: &'v mut Scratch, below: EntryId) -> Self {
        let stored = view.index.and_then(|index| Some((view.feeds?, index.0)));
        let floor = Floor::new(stored);
        let walk = stored.map(|(feeds, user)| feeds.walk(user));
        let bound = if walk.is_some() { EntryId::MAX } else { EntryId::ZERO };
        scratch.clear();
        let (looked_at, given, deep) = (0, 0, false);
        let mut merge =
            Self { view, scratch, floor, below, walk, older: bound, bound, looked_at, given, deep };
        merge.find_special();
        for n in 0..merge.scratch.special.len() {
            let owner = merge.scratch.special[n];
            merge.add_chain(owner, true);
        }
        merge
    }

    /// Finds the special owners among those the reader follows.
    fn find_special(&mut self) {
        let partition = self.view.partition;
        self.scratch.special.clear();
        let Some(user) = self.view.user.filter(|_| !partition.special.is_empty()) else { return };
        partition.users.special_into(user, self.view.graph, &partition.special, &mut self.scratch.special);
        for owner in &self.scratch.special {
            if let Some(head) = self.view.owner(*owner).chain(self.view.space).and_then(|chain| chain.head) {
                partition.delivered.prefetch(head);
            }
        }
    }

    /// Takes up the chain of an owner: above the feed's floor, if its rows are not all stored, or up to it.
    fn add_chain(&mut self, index: OwnerIndex, above: bool) {
        let owner = self.view.owner(index);
        let chain = owner.chain(self.view.space);
        if above {
            self.scratch.special_floor = self.scratch.special_floor.max(owner.floor_of(chain));
        }
        let Some(chain) = chain.filter(|_| owner.filled) else { return };
        if above && !self.floor.is_below(chain.walk_to()) {
            return;
        }
        let below =
            if above { self.below } else { self.below.min(EntryId(self.floor.get().0.saturating_add(1))) };
        let table = &self.view.partition.delivered;
        // Nearly every first page begins with the newest row.
        let newest = chain.head.and_then(|head| Some((head, table.get(head)?)));
        let is_below = |(_, row): &(RowPosition, &Row)| row.id < below;
        if let Some((position, row)) =
            newest.filter(is_below).or_else(|| table.chain(chain.head).find(is_below))
            && row.id > chain.floor
            && (!above || self.floor.is_below(row.id))
        {
            self.scratch.heap.push((row.id, position, self.scratch.sources.len() as u32));
            self.scratch.sources.push(Source { owner: owner.id, floor: chain.floor });
        }
    }

    /// Takes up all chains at and below the floor, when what is above it has ended.
    fn go_deep(&mut self) {
        self.deep = true;
        self.view.owners_into(&mut self.scratch.owners);
        self.scratch.sources.clear();
        for n in 0..self.scratch.owners.len() {
            let owner = self.scratch.owners[n];
            self.add_chain(owner, false);
        }
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
            } else if self.walk.is_some() {
                self.take_run();
            } else {
                self.bound = EntryId::ZERO;
                return next;
            }
            self.bound = match self.scratch.positions.get(self.looked_at) {
                Some(position) => self.older.max(self.view.partition.delivered.top(*position)),
                None => self.older,
            };
            if !self.floor.is_below(self.bound) {
                // All that is left is not above the floor.
                self.bound = EntryId::ZERO;
                self.walk = None;
                self.scratch.positions.clear();
            }
        }
    }

    /// Takes the positions of the next run.
    fn take_run(&mut self) {
        let table = &self.view.partition.delivered;
        let positions = &mut self.scratch.positions;
        positions.clear();
        self.looked_at = 0;
        if let Some(older) = self.walk.as_mut().and_then(|walk| walk.next_run(positions)) {
            self.older = older;
        } else {
            self.walk = None;
            self.older = EntryId::ZERO;
        }
        positions.iter().take(ROWS_AHEAD).for_each(|position| table.prefetch(*position));
        // Slices and backfills store what arrived earlier.
        if !positions.is_sorted_by(|newer, older| newer >= older) {
            positions.sort_unstable_by(|a, b| b.cmp(a));
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
            candidates.push(candidate);
            // Nearly all come in the order of their ids.
            let waiting = &mut candidates[self.given..];
            let mut place = waiting.len() - 1;
            while place > 0 && waiting[place - 1].key() < candidate.key() {
                waiting[place] = waiting[place - 1];
                place -= 1;
            }
            waiting[place] = candidate;
        }
    }

    /// Adds the stored rows that are above all else there is: chains, and `others`; answers whether there is one more than fit.
    fn give_sure(&mut self, others: EntryId, limit: usize, rows: &mut Vec<Delivery>) -> bool {
        let chained = self.scratch.heap.peek().map_or(EntryId::ZERO, |(id, ..)| *id);
        let others = others.max(chained);
        while self.candidate().is_some_and(|id| id > others) {
            let least = others.max(self.bound);
            let sure = self.scratch.candidates[self.given..].iter().take_while(|sure| sure.row.id > least);
            for Candidate { row, position } in sure {
                self.given += 1;
                self.view.show(*position, row, None, rows);
                if rows.len() > limit {
                    return true;
                }
            }
        }
        false
    }

    /// The largest id that is left. Whether the reader sees its row is not looked at.
    fn next_id(&mut self) -> Option<EntryId> {
        loop {
            let next = self.candidate().max(self.scratch.heap.peek().map(|(id, ..)| *id));
            if next.is_some() || self.deep {
                return next;
            }
            self.go_deep();
        }
    }

    /// Adds the row that [`Merge::next_id`] named, if the reader sees it.
    fn give(&mut self, rows: &mut Vec<Delivery>) {
        let Scratch { candidates, heap, .. } = &*self.scratch;
        // One at or below the bound is none yet: a larger id may follow.
        let stored = candidates.get(self.given).filter(|candidate| candidate.row.id > self.bound);
        let is_stored = stored.map(|candidate| candidate.row.id) >= heap.peek().map(|(id, ..)| *id);
        if let Some(Candidate { row, position }) = stored.filter(|_| is_stored) {
            self.given += 1;
            self.view.show(*position, row, None, rows);
        } else {
            self.give_of_chains(rows);
        }
    }

    /// Adds the newest row of the chains, if the reader sees it; the next one of its chain takes its place.
    fn give_of_chains(&mut self, rows: &mut Vec<Delivery>) {
        let Scratch { heap, sources, .. } = &mut *self.scratch;
        let Some(mut newest) = heap.peek_mut() else { return };
        let (_, position, source) = *newest;
        let Source { owner, floor } = sources[source as usize];
        let table = &self.view.partition.delivered;
        let row = table.get(position);
        let older =
            row.and_then(|row| row.previous(position)).and_then(|older| Some((older, table.get(older)?)));
        match older.filter(|(_, row)| row.id > floor && (self.deep || self.floor.is_below(row.id))) {
            Some((older, row)) => *newest = (row.id, older, source),
            None => {
                std::collections::binary_heap::PeekMut::pop(newest);
            }
        }
        if let Some(row) = row {
            self.view.show(position, row, Some(owner), rows);
        }
    }
}

/// The floor of a feed. It stands in the oldest cell, so it is looked up only when an id is near it.
struct Floor<'a> {
    feed: Option<(&'a Feeds, u32)>,
    /// At least the floor.
    at_most: EntryId,
    exact: Cell<Option<EntryId>>,
}

impl<'a> Floor<'a> {
    fn new(feed: Option<(&'a Feeds, u32)>) -> Self {
        let at_most = feed.map_or(EntryId::ZERO, |(feeds, user)| feeds.floor_at_most(user));
        Self { feed, at_most, exact: Cell::new(None) }
    }

    /// Whether an id is above it.
    #[inline]
    fn is_below(&self, id: EntryId) -> bool {
        id > self.at_most || id > self.get()
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
    /// A part of the feed: at most `limit` rows with ids below `below`.
    pub(super) fn slice(&self, below: EntryId, limit: usize) -> FeedSlice {
        let mut slice = FeedSlice::default();
        let mut scratch = Scratch::take();
        self.slice_into(below, limit, &mut slice, &mut scratch);
        scratch.give_back();
        slice
    }

    /// Replaces what `slice` holds by a part of the feed.
    pub(super) fn slice_into(
        &self,
        below: EntryId,
        limit: usize,
        slice: &mut FeedSlice,
        scratch: &mut Scratch,
    ) {
        slice.rows.clear();
        slice.remote.clear();
        slice.active = self.user.map(User::active);
        slice.rows.reserve(limit.min(64) + 1);
        slice.more = self.merge(below, limit, &mut slice.rows, scratch);
        self.find_remote(below, limit, slice, scratch);
    }

    /// Adds the rows; answers whether there is one more.
    fn merge(&self, below: EntryId, limit: usize, rows: &mut Vec<Delivery>, scratch: &mut Scratch) -> bool {
        let mut own = Own::new(self, below);
        let mut others = Merge::new(self, scratch, below);
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
        let owners = if slice.more && bottom > self.partition.special.left(self.space) {
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

impl Partition {
    /// Asks for the memory that reads of these feeds begin with: the misses of many wait together.
    pub(super) fn look_ahead_feeds(&self, queries: &[FeedQuery], scope: &mut LastScope<'_>) {
        queries.iter().for_each(|query| self.users.prefetch_index(query.reader));
        let users = queries.iter().map(|query| {
            let user = self.users.prefetch_user(query.reader);
            if let Some((feeds, user)) = scope.of(query.space).and_then(|scope| scope.feeds).zip(user) {
                feeds.prefetch_head(user.0);
            }
            user
        });
        let users: Vec<_> = users.collect();
        let mut with_own = Vec::new();
        for (query, user) in queries.iter().zip(users) {
            let Some((user, scope)) = user.zip(scope.of(query.space)) else { continue };
            let (index, user) = (user, self.users.get(user));
            if !self.special.is_empty() {
                user.prefetch_owners(&self.special, scope.graph);
            }
            let mut oldest = None;
            if let Some(feeds) = scope.feeds {
                feeds.prefetch_newest(index.0, |position| {
                    self.delivered.prefetch(position);
                    oldest = Some(position);
                });
            }
            if user.own.get(query.space) > oldest.map_or(EntryId::ZERO, |oldest| self.delivered.top(oldest)) {
                with_own.push((query.space, query.reader));
            }
        }
        // An own entry is in few pages.
        if !with_own.is_empty() {
            self.timelines.look_ahead_of_newest(&with_own);
        }
    }
}
