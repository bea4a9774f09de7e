//! Owns the merge of a part of a feed, newest first, from as little as will do.
//!
//! - It has four sources: the stored references above the feed's floor, the chains of owners whose rows are not all
//!   stored, all chains at or below the floor, and the reader's own timeline.
//! - Each source answers only above its own floor; for ids at or below it the answer names the owner to ask (R7).
//! - Stored references are read run by run: an id is given out once it is larger than everything older. The chains at
//!   or below the floor are looked at only when all above it is not enough, and owners that are not special
//!   ([`special`](super::special)) only then.
//! - Everything is filtered by the definition of a feed; a filter never makes a page short.

use std::cell::Cell;
use std::collections::BinaryHeap;

use super::feed::Walk;
use super::owners::OwnerIndex;
use super::read::{FeedSlice, RemoteSource};
use super::viewpoint::Viewpoint;
use crate::entry::{Delivery, Entry};
use crate::ids::{EntryId, RowPosition, UserId};

thread_local! {
    /// Of the last read on this thread, so that a read need not allocate.
    static SCRATCH: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
}

/// Owners kept room for between two reads; more are rare, and their room is given back.
const SCRATCH_OWNERS_MAX: usize = 16_384;

/// Owners of candidates that are asked for ahead: those of a usual page.
const OWNERS_AHEAD: usize = 24;

#[derive(Default)]
struct Scratch {
    owners: Vec<OwnerIndex>,
    special: Vec<OwnerIndex>,
    positions: Vec<RowPosition>,
    candidates: Vec<(EntryId, RowPosition)>,
    sources: Vec<Source>,
    heap: BinaryHeap<(EntryId, RowPosition, u32)>,
}

impl Scratch {
    fn take() -> Box<Self> {
        SCRATCH.take().unwrap_or_default()
    }

    fn give_back(mut self: Box<Self>) {
        if self.owners.capacity() <= SCRATCH_OWNERS_MAX {
            self.candidates.clear();
            self.sources.clear();
            self.heap.clear();
            SCRATCH.set(Some(self));
        }
    }
}

/// An owner's chain in the merge.
struct Source {
    owner: UserId,
    floor: EntryId,
}

/// What merges all sources but the reader's own timeline.
struct Merge<'v, 'a> {
    view: &'v Viewpoint<'a>,
    scratch: &'v mut Scratch,
    /// The feed's floor.
    floor: EntryId,
    below: EntryId,
    walk: Option<Walk<'a>>,
    /// Nothing that the walk has not reached has a larger id.
    bound: EntryId,
    /// The candidates before it are given out.
    given: usize,
    /// Whether the chains at or below the floor are in the heap.
    deep: bool,
}

impl<'v, 'a> Merge<'v, 'a> {
    fn new(view: &'v Viewpoint<'a>, scratch: &'v mut Scratch, below: EntryId) -> Self {
        let feeds = view.partition.feeds.get(&view.space);
        let stored = view.index.and_then(|index| Some((feeds?, index.0)));
        let floor = stored.map_or(EntryId::ZERO, |(feeds, user)| feeds.floor(user));
        let walk = stored.map(|(feeds, user)| feeds.walk(user));
        let bound = if walk.is_some() { EntryId::MAX } else { EntryId::ZERO };
        let mut merge = Self { view, scratch, floor, below, walk, bound, given: 0, deep: false };
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
        let marked = partition.special.owners(self.view.space);
        self.scratch.special.clear();
        if marked.is_empty() {
            return;
        }
        self.view.owners_into(&mut self.scratch.owners);
        let special = self.scratch.owners.iter().filter(|owner| marked.contains(**owner));
        self.scratch.special.extend(special);
        for owner in &self.scratch.special {
            if let Some(head) = self.view.owner(*owner).chain(self.view.space).and_then(|chain| chain.head) {
                partition.delivered.prefetch(head);
            }
        }
    }

    /// Takes up the chain of an owner: above the feed's floor, if its rows are not all stored, or up to it.
    fn add_chain(&mut self, index: OwnerIndex, above: bool) {
        let owner = self.view.owner(index);
        let Some(chain) = owner.chain(self.view.space).filter(|_| owner.filled) else { return };
        if above && chain.walk_to() <= self.floor {
            return;
        }
        let (below, floor) = if above {
            (self.below, chain.floor.max(self.floor))
        } else {
            (self.below.min(EntryId(self.floor.0.saturating_add(1))), chain.floor)
        };
        let mut rows = self.view.partition.delivered.chain(chain.head);
        if let Some((position, row)) = rows.find(|(_, row)| row.id < below)
            && row.id > floor
        {
            self.scratch.heap.push((row.id, position, self.scratch.sources.len() as u32));
            self.scratch.sources.push(Source { owner: owner.id, floor });
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

    /// Reads runs of stored references until the next candidate is known; none at the end.
    fn candidate(&mut self) -> Option<EntryId> {
        loop {
            let next = self.scratch.candidates.get(self.given).map(|(id, _)| *id);
            if next.is_some_and(|id| id > self.bound) {
                return next;
            }
            let Some(bound) = self.walk.as_mut().and_then(|walk| walk.next_run(&mut self.scratch.positions))
            else {
                self.walk = None;
                self.bound = EntryId::ZERO;
                return next;
            };
            self.bound = bound;
            self.take_run();
            if bound <= self.floor {
                self.walk = None;
                self.bound = EntryId::ZERO;
            }
        }
    }

    /// Makes candidates of a run of positions, keeping them by id, the largest first.
    fn take_run(&mut self) {
        let table = &self.view.partition.delivered;
        let Scratch { positions, candidates, .. } = &mut *self.scratch;
        positions.iter().for_each(|position| table.prefetch(*position));
        let mut ordered = true;
        let mut last = candidates.last().map_or(EntryId::MAX, |(id, _)| *id);
        for position in positions.drain(..) {
            let Some(row) = table.get(position) else { continue };
            if row.id > self.floor && row.id < self.below {
                ordered &= row.id <= last;
                last = row.id;
                candidates.push((row.id, position));
            }
        }
        if !ordered {
            candidates[self.given..].sort_by(|a, b| b.cmp(a));
        }
        // Each row is of another owner, who is somewhere else in memory.
        for (_, position) in candidates[self.given..].iter().take(OWNERS_AHEAD) {
            if let Some(row) = table.get(*position) {
                self.view.partition.owners.prefetch(row.owner);
            }
        }
    }

    fn next(&mut self) -> Option<Delivery> {
        loop {
            let stored = self.candidate();
            let chained = self.scratch.heap.peek().map(|(id, ..)| *id);
            if stored.is_none() && chained.is_none() && !self.deep {
                self.go_deep();
                continue;
            }
            let found = if stored >= chained {
                let (_, position) = *self.scratch.candidates.get(self.given)?;
                self.given += 1;
                self.view.visible_stored(position)
            } else {
                self.next_of_chains()
            };
            if found.is_some() {
                return found;
            }
        }
    }

    /// The newest row of the chains, if the reader sees it; the next one of its chain takes its place.
    fn next_of_chains(&mut self) -> Option<Delivery> {
        let Scratch { heap, sources, .. } = &mut *self.scratch;
        let mut newest = heap.peek_mut()?;
        let (_, position, source) = *newest;
        let Source { owner, floor } = sources[source as usize];
        let table = &self.view.partition.delivered;
        let row = table.get(position);
        let older =
            row.and_then(|row| row.previous(position)).and_then(|older| Some((older, table.get(older)?)));
        match older.filter(|(_, row)| row.id > floor) {
            Some((older, row)) => *newest = (row.id, older, source),
            None => {
                std::collections::binary_heap::PeekMut::pop(newest);
            }
        }
        self.view.visible(position, row?, owner)
    }
}

impl Viewpoint<'_> {
    /// A part of the feed: at most `limit` rows with ids below `below`.
    pub(super) fn slice(&self, below: EntryId, limit: usize) -> FeedSlice {
        let mut scratch = Scratch::take();
        let mut slice = self.merge(below, limit, &mut scratch);
        self.find_remote(below, limit, &mut slice, &mut scratch);
        scratch.give_back();
        slice
    }

    /// The rows, and whether there is one more.
    fn merge(&self, below: EntryId, limit: usize, scratch: &mut Scratch) -> FeedSlice {
        let partition = self.partition;
        let mut own = partition.timelines.ids(self.space, self.reader, below);
        let mut others = Merge::new(self, scratch, below);
        let (mut own_id, mut next_other) = (own.next(), others.next());
        let mut rows: Vec<Delivery> = Vec::with_capacity(limit.min(64));
        loop {
            let other_id = next_other.map(|d| d.id);
            let next = if other_id >= own_id {
                next_other.take()
            } else {
                // An own entry is looked at only when its turn has come: most pages end before.
                let entry = own_id.and_then(|id| partition.timelines.live(id, partition.stamp));
                own_id = own.next();
                let own = entry.map(Entry::delivery).filter(|delivery| self.admits(delivery));
                if own.is_none() {
                    continue;
                }
                own
            };
            let Some(next) = next else { return FeedSlice { rows, remote: Vec::new(), more: false } };
            if rows.last().is_none_or(|last| last.id != next.id) {
                if rows.len() == limit {
                    return FeedSlice { rows, remote: Vec::new(), more: true };
                }
                rows.push(next);
            }
            if other_id.is_some() && next_other.is_none() {
                next_other = others.next();
            }
        }
    }

    /// Names the owners whose timelines are to be asked before the page is complete down to its last row.
    fn find_remote(&self, below: EntryId, limit: usize, slice: &mut FeedSlice, scratch: &mut Scratch) {
        let full = slice.rows.len() == limit;
        let bottom = slice.rows.last().filter(|_| full).map_or(EntryId::ZERO, |row| row.id);
        // Above what left the window, only the special owners can have a floor.
        let owners = if slice.more && bottom > self.partition.special.left(self.space) {
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
