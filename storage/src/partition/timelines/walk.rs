//! Owns the walk down one timeline: newest first, over the tables and segments that hold parts of it.
//!
//! - A table or segment is looked into only when its largest id could be the next one.
//! - Ids come from indexes: of a segment only the records of entries that are given out are read.
//! - What a cached table and a segment both hold comes once.

use std::borrow::Cow;

use super::Timelines;
use super::held::{Frozen, Held};
use super::id_list::Descending;
use crate::entry::Entry;
use crate::ids::{EntryId, SpaceId, Stamp, UserId};
use crate::segment;

/// What one frozen table or segment has left.
#[derive(Debug)]
pub(super) enum Part<'a> {
    Table { frozen: &'a Frozen, id: EntryId, rest: Descending<'a> },
    Segment { held: &'a Held, id: EntryId, rest: Box<segment::Entries<'a>> },
}

impl Part<'_> {
    fn id(&self) -> EntryId {
        match self {
            Self::Table { id, .. } | Self::Segment { id, .. } => *id,
        }
    }
}

/// The entries of a timeline, newest first.
#[derive(Debug)]
pub(in crate::partition) struct Walk<'a> {
    timelines: &'a Timelines,
    space: SpaceId,
    owner: UserId,
    stamp: Stamp,
    /// All that was not given out is below it.
    below: EntryId,
    /// The next id in the active table, and those behind it.
    active: Option<EntryId>,
    rest: Descending<'a>,
    /// Those that were looked into and have something left.
    pub(super) parts: Vec<Part<'a>>,
    /// How many frozen tables and segments were not looked into: the first ones.
    tables: usize,
    pub(super) segments: usize,
    /// No id in those is larger.
    unopened: Option<EntryId>,
}

impl<'a> Walk<'a> {
    /// The entries below `below`.
    #[inline]
    pub(super) fn new(
        timelines: &'a Timelines,
        (space, owner): (SpaceId, UserId),
        below: EntryId,
        stamp: Stamp,
    ) -> Self {
        let mut rest = timelines.active.ids(space, owner, below);
        let active = rest.next();
        let (tables, segments) = (timelines.frozen.len(), timelines.segments.len());
        let parts = Vec::new();
        let mut walk = Self {
            timelines,
            space,
            owner,
            stamp,
            below,
            active,
            rest,
            parts,
            tables,
            segments,
            unopened: None,
        };
        walk.bound_unopened();
        walk
    }

    #[inline]
    fn bound_unopened(&mut self) {
        let table = self.timelines.frozen[..self.tables].last().map(|frozen| frozen.top);
        let segment = self.timelines.segments[..self.segments].last().map(Held::top);
        // Nothing at or above `below` is asked for.
        let limit = EntryId(self.below.0.saturating_sub(1));
        self.unopened = table.max(segment).map(|bound| bound.min(limit));
    }

    /// No id that is left is larger.
    #[inline]
    pub(in crate::partition) fn bound(&self) -> EntryId {
        let parts = self.parts.iter().map(Part::id).max();
        self.active.max(parts).max(self.unopened).unwrap_or_default()
    }

    /// The next id, if it is larger than `than`. Whether its entry has expired is not looked at.
    #[inline]
    pub(in crate::partition) fn next_above(&mut self, than: Option<EntryId>) -> Option<EntryId> {
        if self.parts.is_empty() && self.active.max(self.unopened) <= than {
            // The usual case: what is newest here is older.
            return None;
        }
        loop {
            let parts = self.parts.iter().map(Part::id).max();
            let next = self.active.max(parts);
            if self.unopened <= next.max(than) {
                return next.filter(|next| Some(*next) > than);
            }
            self.open();
        }
    }

    /// Looks into the table or segment that has the largest id of those not looked into.
    #[cold]
    fn open(&mut self) {
        let Timelines { frozen, segments, .. } = self.timelines;
        let table = frozen[..self.tables].last();
        let segment = segments[..self.segments].last();
        match (table, segment) {
            (Some(frozen), segment) if segment.is_none_or(|segment| segment.top() <= frozen.top) => {
                self.tables -= 1;
                let rest = frozen.table.ids(self.space, self.owner, self.below);
                self.add_table(frozen, rest);
            }
            (_, Some(held)) => {
                self.segments -= 1;
                let below = self.below.min(EntryId(held.answers_to.0.saturating_add(1)));
                if held.segment.info().lowest < below && held.segment.may_hold(self.space, self.owner) {
                    let rest = Box::new(held.segment.newest(self.space, self.owner, below));
                    self.add_segment(held, rest);
                }
            }
            _ => {}
        }
        self.bound_unopened();
    }

    fn add_table(&mut self, frozen: &'a Frozen, mut rest: Descending<'a>) {
        if let Some(id) = rest.by_ref().find(|id| !frozen.dead.contains(*id)) {
            self.parts.push(Part::Table { frozen, id, rest });
        }
    }

    fn add_segment(&mut self, held: &'a Held, mut rest: Box<segment::Entries<'a>>) {
        if let Some(error) = rest.take_failed() {
            self.timelines.note_damage(error);
            return;
        }
        while let Some(id) = rest.next_id() {
            if !held.dead.contains(id) {
                self.parts.push(Part::Segment { held, id, rest });
                return;
            }
            rest.skip_one();
        }
    }

    /// Takes the entry whose id [`Walk::next_above`] named; none if it has expired.
    #[inline]
    pub(in crate::partition) fn entry(&mut self, id: EntryId) -> Option<Cow<'a, Entry>> {
        self.below = id;
        let mut found = None;
        if self.active == Some(id) {
            self.active = self.rest.next();
            found = self.timelines.active.get(id).map(Cow::Borrowed);
        }
        if !self.parts.is_empty() {
            found = self.take_of_parts(id).or(found);
        }
        found.filter(|entry| !entry.expired(self.stamp))
    }

    fn take_of_parts(&mut self, id: EntryId) -> Option<Cow<'a, Entry>> {
        let mut found = None;
        let mut n = 0;
        while n < self.parts.len() {
            if self.parts[n].id() != id {
                n += 1;
                continue;
            }
            match self.parts.swap_remove(n) {
                Part::Table { frozen, rest, .. } => {
                    found = frozen.table.get(id).map(Cow::Borrowed);
                    self.add_table(frozen, rest);
                }
                Part::Segment { held, mut rest, .. } => {
                    if found.is_some() {
                        rest.skip_one();
                    } else {
                        found = self.read(&mut rest).map(Cow::Owned);
                    }
                    self.add_segment(held, rest);
                }
            }
        }
        found
    }

    /// The next entry of a segment; a damaged one is noted, and absent.
    fn read(&self, rest: &mut segment::Entries<'a>) -> Option<Entry> {
        match rest.next()? {
            Ok(entry) => Some(entry),
            Err(error) => {
                self.timelines.note_damage(error);
                None
            }
        }
    }
}

/// Those that have not expired.
impl<'a> Iterator for Walk<'a> {
    type Item = Cow<'a, Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let id = self.next_above(None)?;
            let entry = self.entry(id);
            if entry.is_some() {
                return entry;
            }
        }
    }
}
