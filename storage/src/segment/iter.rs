//! Owns the iterators over a segment.

use std::ops::Range;

use super::index::{Index, Timeline};
use super::reader::Piece;
use super::{Segment, SegmentError};
use crate::entry::Entry;
use crate::ids::EntryId;

/// Bytes of records that are read in one go when those of a timeline are asked for, of which often a page is wanted.
const TIMELINE_PIECE_BYTES: usize = 8 << 10;

/// Entries of a segment in the order of the file.
#[derive(Debug, Clone)]
pub struct Entries<'a> {
    segment: &'a Segment,
    /// The timeline of which entries come now; none before the first.
    timeline: Option<Timeline>,
    /// The numbers of the timelines that follow it.
    timelines: Range<usize>,
    /// What was read ahead.
    piece: Piece,
    failed: Option<SegmentError>,
}

impl<'a> Entries<'a> {
    pub(super) fn all(segment: &'a Segment) -> Self {
        let timelines = 0..segment.index().timelines();
        Self { segment, timeline: None, timelines, piece: Piece::of_all(), failed: None }
    }

    pub(super) fn of_timeline(
        segment: &'a Segment,
        timeline: Result<Option<Timeline>, SegmentError>,
    ) -> Self {
        let (timeline, failed) =
            timeline.map_or_else(|error| (None, Some(error)), |timeline| (timeline, None));
        Self { segment, timeline, timelines: 0..0, piece: Piece::of_bytes(TIMELINE_PIECE_BYTES), failed }
    }

    /// The id of the next entry of a timeline; nothing is read of its record.
    pub(crate) fn next_id(&self) -> Option<EntryId> {
        let lines = &self.timeline.as_ref()?.lines;
        (!lines.is_empty()).then(|| self.segment.index().id(lines.start))
    }

    /// Passes over the next entry of a timeline; nothing is read of its record.
    pub(crate) fn skip_one(&mut self) {
        if let Some(timeline) = &mut self.timeline {
            timeline.lines.next();
        }
    }

    /// Why the timeline could not be found, once.
    pub(crate) fn take_failed(&mut self) -> Option<SegmentError> {
        self.failed.take()
    }

    /// The next line, with the timeline that it is of.
    fn advance(&mut self) -> Result<Option<Entry>, SegmentError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        loop {
            if let Some(timeline) = &mut self.timeline
                && let Some(line) = timeline.lines.next()
            {
                // Those of other timelines are wanted only if all are.
                let last = if self.timelines.is_empty() { timeline.lines.end - 1 } else { usize::MAX };
                return self.piece.entry(self.segment, timeline, line, last).map(Some);
            }
            let Some(number) = self.timelines.next() else { return Ok(None) };
            self.timeline = Some(self.segment.timeline(number)?);
        }
    }
}

impl Iterator for Entries<'_> {
    type Item = Result<Entry, SegmentError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.advance();
        if next.is_err() {
            (self.timeline, self.timelines) = (None, 0..0);
        }
        next.transpose()
    }
}

/// Ids of one timeline, descending.
#[derive(Debug, Clone)]
pub struct Ids<'a> {
    index: &'a Index,
    lines: Range<usize>,
    failed: Option<SegmentError>,
}

impl<'a> Ids<'a> {
    pub(super) fn new(index: &'a Index, timeline: Result<Option<Timeline>, SegmentError>) -> Self {
        let (timeline, failed) =
            timeline.map_or_else(|error| (None, Some(error)), |timeline| (timeline, None));
        Self { index, lines: timeline.map_or(0..0, |timeline| timeline.lines), failed }
    }
}

impl Iterator for Ids<'_> {
    type Item = Result<EntryId, SegmentError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.failed.take() {
            Some(error) => Some(Err(error)),
            None => self.lines.next().map(|line| Ok(self.index.id(line))),
        }
    }
}
