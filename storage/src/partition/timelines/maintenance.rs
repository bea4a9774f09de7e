//! Owns what the maintenance of a partition asks of its timelines. Nothing of it is logged: it changes where entries are, and
//! never what is read.
//!
//! - Works are made and installed under the partition's lock, and written off it. Between the two anything may be applied.
//! - A work that was not installed changes nothing; it is made anew.

use std::sync::Arc;

use super::held::Frozen;
use super::table::Table;
use super::{FlushWork, Flushed, MergePolicy, MergeWork, Merged, TimelineSizes, Timelines, TimelinesCut};
use crate::codec::Malformed;
use crate::ids::Stamp;
use crate::partition::Partition;
use crate::segment::{Segment, SegmentError};

/// Tables and segments that are not needed any more. To free them takes long: drop it off the partition's lock.
#[derive(Debug, Default)]
#[must_use = "to drop it under the partition's lock holds up the partition"]
pub struct Dropped {
    tables: Vec<Arc<Table>>,
    segments: Vec<Arc<Segment>>,
}

impl Dropped {
    /// How many tables.
    pub fn tables(&self) -> usize {
        self.tables.len()
    }

    /// The segments. Their files may be removed once no snapshot names them.
    pub fn segments(&self) -> &[Arc<Segment>] {
        &self.segments
    }
}

impl Timelines {
    /// Takes out the segments of which everything has expired at `stamp`.
    pub(super) fn drop_expired(&mut self, stamp: Stamp) -> Vec<Arc<Segment>> {
        let expired = self.segments.extract_if(.., |held| held.expired(stamp));
        expired.map(|held| held.segment).collect()
    }

    /// Takes out cached tables, the oldest first, until the others take at most `most_bytes`.
    pub(super) fn drop_cached(&mut self, most_bytes: u64) -> Vec<Arc<Table>> {
        let flushed = self.frozen.iter().take_while(|frozen| frozen.flushed);
        let sizes: Vec<u64> = flushed.map(|frozen| frozen.table.memory() as u64).collect();
        let mut left = sizes.iter().sum::<u64>();
        let too_many = |bytes: &&u64| {
            let is_over = left > most_bytes;
            left -= **bytes;
            is_over
        };
        let count = sizes.iter().take_while(too_many).count();
        let dropped: Vec<_> = self.frozen.drain(..count).collect();
        if let Some(highest) = dropped.iter().map(Frozen::highest).max() {
            self.segments.iter_mut().for_each(|held| held.uncover(highest));
            self.sort_segments();
        }
        dropped.into_iter().map(|frozen| frozen.table).collect()
    }
}

impl Partition {
    /// Freezes what the active table holds, so that it can be flushed; false if that is nothing.
    pub fn freeze_timelines(&mut self) -> bool {
        self.timelines.freeze()
    }

    /// The oldest frozen table that is to be flushed.
    pub fn flush_work(&self) -> Option<FlushWork> {
        self.timelines.flush_work(self.stamp)
    }

    /// The same of those that a cut waits for.
    pub fn cut_flush_work(&self) -> Option<FlushWork> {
        // They are older than all others.
        self.timelines.cut.as_ref().filter(|cut| cut.waits()).and_then(|_| self.flush_work())
    }

    /// Takes a flushed table's segments. The table stays as a cache of them. False, and nothing was done, if so much died since the
    /// work was made that looking it up takes long: then [`Flushed::catch_up`] does that beside the lock, before it is tried again.
    /// That ends, since nothing dies twice.
    #[must_use = "it may be too early"]
    pub fn install_flush(&mut self, flushed: &mut Flushed) -> bool {
        self.timelines.install_flush(flushed)
    }

    /// Segments that are better one.
    pub fn merge_work(&self, policy: &MergePolicy) -> Option<MergeWork> {
        self.timelines.merge_work(policy, self.stamp)
    }

    /// Puts a merged segment into the place of those it was made of, whose files may then be removed once no snapshot names them.
    /// False as [`Partition::install_flush`] is, and then [`Merged::catch_up`] is what goes before the next try. What was merged is to
    /// be dropped off the partition's lock.
    #[must_use = "it may be too early"]
    pub fn install_merge(&mut self, merged: &mut Merged) -> bool {
        self.timelines.install_merge(merged)
    }

    /// Takes out the segments of which everything has expired.
    pub fn drop_expired_segments(&mut self) -> Dropped {
        let segments = self.timelines.drop_expired(self.stamp);
        Dropped { segments, ..Dropped::default() }
    }

    /// Takes out cached tables, the oldest first, until the others take at most `most_bytes` of memory.
    pub fn drop_cached_tables(&mut self, most_bytes: u64) -> Dropped {
        let tables = self.timelines.drop_cached(most_bytes);
        Dropped { tables, ..Dropped::default() }
    }

    /// Bytes of memory of what is not flushed: of the table that is written to, and of those that are frozen. A table without entries
    /// counts nothing, for a flush would change nothing.
    pub fn unflushed_timeline_bytes(&self) -> (u64, u64) {
        let Table { entries, .. } = &self.timelines.active;
        let active_bytes = if entries.len() == 0 { 0 } else { self.timelines.active.memory() as u64 };
        let frozen = self.timelines.frozen.iter().rev().take_while(|frozen| !frozen.flushed);
        let frozen_bytes = frozen.map(|frozen| frozen.table.memory() as u64).sum();
        (active_bytes, frozen_bytes)
    }

    /// The cached tables, the oldest first: when each was flushed, and its bytes of memory.
    pub fn cached_tables(&self) -> impl Iterator<Item = (Stamp, u64)> {
        let cached = self.timelines.frozen.iter().take_while(|frozen| frozen.flushed);
        cached.map(|frozen| (frozen.flushed_at, frozen.table.memory() as u64))
    }

    /// Where the bytes of the timelines are.
    pub fn timeline_sizes(&self) -> TimelineSizes {
        self.timelines.sizes()
    }

    /// The segments in use, those of a cut included; one may come twice.
    pub fn segments(&self) -> impl Iterator<Item = &Arc<Segment>> {
        let cut = self.timelines.cut.iter().flat_map(super::Cut::segments);
        self.timelines.segments.iter().map(|held| &held.segment).chain(cut)
    }

    /// The first damaged record that was met. What was read or applied since may be wrong: the partition must serve no more.
    pub fn damage(&self) -> Option<&SegmentError> {
        self.timelines.damage.get()
    }

    /// Notes damage that was met elsewhere, as by a merge.
    pub fn note_damage(&self, error: SegmentError) {
        self.timelines.note_damage(error);
    }

    /// Begins the timelines' part of a cut.
    pub(in crate::partition) fn begin_cut_timelines(&mut self) {
        self.timelines.begin_cut(self.stamp);
    }

    /// The timelines' part of the cut, to be encoded off the partition's lock; none while a table of the cut is to be flushed.
    pub fn cut_timelines(&self) -> Option<TimelinesCut> {
        self.timelines.cut_image()
    }

    /// Takes over the timelines of a cut.
    ///
    /// # Errors
    /// The image is not one of [`Partition::cut_timelines`], or it needs another segment.
    pub(in crate::partition) fn restore_timelines(
        &mut self,
        image: &[u8],
        segments: &[Arc<Segment>],
    ) -> Result<(), Malformed> {
        self.timelines = Timelines::restore(image, segments)?;
        Ok(())
    }
}
