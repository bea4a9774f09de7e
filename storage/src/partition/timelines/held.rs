//! Owns what a partition keeps of its frozen tables and segments: what died in them, and which of them answers.
//!
//! - What lies in a cached table and in a segment is one and the same: whoever marks it in one marks it in the other.
//! - A segment answers only up to an id; all that it holds above it is in cached tables too, which are asked first.

use std::sync::Arc;

use super::marks::Marks;
use super::spread::{Expiries, Spread};
use super::table::Table;
use crate::entry::Entry;
use crate::ids::{EntryId, Stamp};
use crate::segment::{Segment, SegmentError};

/// What an entry takes in a segment besides its payload, about.
const RECORD_BYTES: u64 = 32;

/// An end so near that a segment is better waited for, in milliseconds.
const SOON_MS: u64 = 60_000;

/// What an entry takes in a segment, about.
pub(super) fn record_bytes(entry: &Entry) -> u64 {
    RECORD_BYTES + entry.payload.len() as u64
}

/// A table that changes no more.
#[derive(Debug)]
pub(super) struct Frozen {
    pub(super) table: Arc<Table>,
    pub(super) dead: Marks,
    /// Whether its entries are in segments too: it is a cache of them then.
    pub(super) flushed: bool,
    /// The stamp when it was flushed.
    pub(super) flushed_at: Stamp,
    /// The largest id in it and in all older tables.
    pub(super) top: EntryId,
}

impl Frozen {
    /// The entry, unless it is dead here.
    pub(super) fn get(&self, id: EntryId) -> Option<&Entry> {
        self.table.get(id).filter(|_| !self.dead.contains(id))
    }

    /// The entries that are not dead.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.table.entries.values().filter(|entry| !self.dead.contains(entry.id))
    }

    /// The next expiry after `stamp` of an entry that is not dead.
    pub(super) fn next_expiry_after(&self, stamp: Stamp) -> Option<Stamp> {
        let mut expiries = self.table.expiries_after(stamp);
        expiries.find(|(_, id)| !self.dead.contains(*id)).map(|(expiry, _)| expiry)
    }

    pub(super) fn highest(&self) -> EntryId {
        self.table.entries.range().map_or(EntryId::ZERO, |(_, highest)| highest)
    }

    /// Entries that are not dead.
    pub(super) fn len(&self) -> u64 {
        (self.table.entries.len() as u64).saturating_sub(self.dead.len())
    }
}

/// A segment with its dead marks.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) segment: Arc<Segment>,
    pub(super) dead: Marks,
    /// What the dead take in the file, about.
    pub(super) dead_bytes: u64,
    /// What it holds above is in cached tables too.
    pub(super) answers_to: EntryId,
    /// What of it expires when; none if that was not measured since it was opened.
    pub(super) spread: Option<Arc<Spread>>,
}

impl Held {
    /// A segment that answers alone.
    pub(super) fn new(segment: Arc<Segment>) -> Self {
        Self { segment, dead: Marks::default(), dead_bytes: 0, answers_to: EntryId::MAX, spread: None }
    }

    /// The same of one that was just written, of entries with these expiries.
    pub(super) fn written(segment: Segment, expiries: &Expiries) -> Self {
        Self { spread: Some(Arc::new(expiries.spread())), ..Self::new(Arc::new(segment)) }
    }

    /// Whether this is how that segment stands.
    pub(super) fn is_of(&self, segment: &Arc<Segment>) -> bool {
        Arc::ptr_eq(&self.segment, segment)
    }

    /// Nothing that it answers has a larger id.
    pub(super) fn top(&self) -> EntryId {
        self.segment.info().highest.min(self.answers_to)
    }

    fn may_hold_id(&self, id: EntryId) -> bool {
        let info = self.segment.info();
        info.lowest <= id && id <= info.highest && !self.dead.contains(id)
    }

    /// The entry, unless it is dead here.
    pub(super) fn get(&self, id: EntryId) -> Result<Option<Entry>, SegmentError> {
        if self.may_hold_id(id) { self.segment.get(id) } else { Ok(None) }
    }

    /// Whether it holds the entry, not dead; the record is not looked at.
    pub(super) fn holds(&self, id: EntryId) -> Result<bool, SegmentError> {
        if self.may_hold_id(id) { self.segment.holds(id) } else { Ok(false) }
    }

    /// Notes that an entry it holds is dead.
    pub(super) fn mark(&mut self, entry: &Entry) {
        if self.dead.insert(entry.id) {
            self.dead_bytes += record_bytes(entry);
        }
    }

    /// Notes that cached tables with ids up to `highest` are no longer there to answer for it.
    ///
    /// Which tables its entries came from is not known. To answer for more than needed does no harm.
    pub(super) fn uncover(&mut self, highest: EntryId) {
        if self.segment.info().lowest <= highest {
            self.answers_to = self.answers_to.max(highest);
        }
    }

    /// Whether all it holds has expired.
    pub(super) fn expired(&self, stamp: Stamp) -> bool {
        let info = self.segment.info();
        info.expiring == info.entries && info.expiry.is_some_and(|(_, last)| last <= stamp)
    }

    /// Whether all it holds expires soon, or has: it is not worth a write.
    pub(super) fn ends_soon(&self, stamp: Stamp) -> bool {
        self.expired(Stamp(stamp.0.saturating_add(SOON_MS)))
    }

    /// Whether some of it may have expired.
    pub(super) fn has_expired(&self, stamp: Stamp) -> bool {
        self.segment.info().expiry.is_some_and(|(first, _)| first <= stamp)
    }

    /// Bytes of it that are known to be dead or to have expired, about.
    pub(super) fn lost_bytes(&self, stamp: Stamp) -> u64 {
        let expired = self.spread.as_ref().map_or(0, |spread| spread.expired(stamp));
        (self.dead_bytes + expired).min(self.segment.info().bytes)
    }

    /// Whether an entry with this expiry, of the table that was flushed to it and others, is in this one.
    pub(super) fn takes(&self, expiry: Option<Stamp>) -> bool {
        match (self.segment.info().expiry, expiry) {
            (Some((first, last)), Some(expiry)) => first <= expiry && expiry <= last,
            (own, expiry) => own.is_none() && expiry.is_none(),
        }
    }

    /// Entries that are not dead.
    pub(super) fn len(&self) -> u64 {
        self.segment.info().entries.saturating_sub(self.dead.len())
    }
}
