//! Owns the figures of the timelines: where the bytes are, and how many were written.

use super::Timelines;
use super::held::Held;
use crate::segment::SegmentInfo;

/// What a payload counts at least where writes are bounded by payloads, so that tiny entries are merged too.
const PAYLOAD_BYTES_MIN: u64 = 64;

/// Bytes written since the partition was opened.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Written {
    /// Payloads of the entries that were flushed, small ones as [`PAYLOAD_BYTES_MIN`].
    pub(super) payload: u64,
    pub(super) flushed: u64,
    pub(super) merged: u64,
}

impl Written {
    pub(super) fn note_flush(&mut self, info: &SegmentInfo) {
        self.payload += info.payload_bytes.max(info.entries * PAYLOAD_BYTES_MIN);
        self.flushed += info.bytes;
    }
}

/// Where the bytes of a partition's timelines are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimelineSizes {
    /// Memory of the table that is written to.
    pub active_bytes: u64,
    /// Memory of frozen tables that are to be flushed.
    pub unflushed_bytes: u64,
    /// Memory of tables that are kept as a cache of segments.
    pub cached_bytes: u64,
    /// Memory of dead marks.
    pub marks_bytes: u64,
    /// How many segments there are.
    pub segments: u64,
    /// Bytes of their files.
    pub segment_bytes: u64,
    /// About how many of those are of entries that are dead.
    pub dead_bytes: u64,
    /// Bytes of segments written by flushes since the partition was opened.
    pub flushed_bytes: u64,
    /// Bytes of segments written by merges since the partition was opened.
    pub merged_bytes: u64,
}

impl Timelines {
    pub(super) fn sizes(&self) -> TimelineSizes {
        let frozen = |flushed: bool| {
            let tables = self.frozen.iter().filter(move |frozen| frozen.flushed == flushed);
            tables.map(|frozen| frozen.table.memory() as u64).sum()
        };
        let marks = self.frozen.iter().map(|frozen| &frozen.dead);
        let marks = marks.chain(self.segments.iter().map(|held| &held.dead));
        TimelineSizes {
            active_bytes: self.active.memory() as u64,
            unflushed_bytes: frozen(false),
            cached_bytes: frozen(true),
            marks_bytes: marks.map(|dead| dead.memory() as u64).sum(),
            segments: self.segments.len() as u64,
            segment_bytes: self.segments.iter().map(|held| held.segment.info().bytes).sum(),
            dead_bytes: self.segments.iter().map(|held| held.dead_bytes).sum(),
            flushed_bytes: self.written.flushed,
            merged_bytes: self.written.merged,
        }
    }

    /// Bytes of memory they hold.
    pub(in crate::partition) fn memory(&self) -> usize {
        let sizes = self.sizes();
        let tables = sizes.active_bytes + sizes.unflushed_bytes + sizes.cached_bytes;
        let held = self.segments.capacity() * size_of::<Held>();
        let spreads = self.segments.iter().filter_map(|held| held.spread.as_ref());
        (tables + sizes.marks_bytes) as usize + held + spreads.map(|spread| spread.memory()).sum::<usize>()
    }

    /// Entries that are not deleted. Of the expired it counts those that were not swept yet, and those whose segment is there.
    pub(in crate::partition) fn len(&self) -> u64 {
        let unflushed = self.frozen.iter().filter(|frozen| !frozen.flushed).map(super::Frozen::len);
        let segments = self.segments.iter().map(Held::len);
        self.active.entries.len() as u64 + unflushed.chain(segments).sum::<u64>()
    }
}
