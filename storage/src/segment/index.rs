//! Owns the search in the indexes of an open segment, right in their bytes.
//!
//! - The CRCs are checked when the file is opened (`reader.rs`). Numbers are checked all the same before they lead anywhere.

use std::ops::Range;

use bytes::Bytes;

use super::error::Flaw;
use super::layout::{Footer, GROUP_LINES, HEADER_BYTES, MARK_BYTES, Section, TIMELINE_BYTES};
use super::packed::{get, get_u32, get_u64, partition_point};
use super::record::RECORD_BYTES_MIN;
use super::{filter, mark};
use crate::ids::{EntryId, SpaceId, Stamp, UserId};

#[derive(Debug)]
pub(super) struct Index {
    /// Of the file, from `base` on.
    bytes: Bytes,
    base: usize,
    footer: Footer,
    sections: [Range<usize>; Section::ALL.len()],
}

/// A timeline and the lines of its entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Timeline {
    pub(super) space: SpaceId,
    pub(super) owner: UserId,
    pub(super) lines: Range<usize>,
}

impl Index {
    /// `bytes` are those of the file from `base` on, which is not behind the first section, to its end.
    pub(super) fn new(
        bytes: Bytes,
        base: usize,
        footer: Footer,
        sections: [Range<usize>; Section::ALL.len()],
    ) -> Self {
        Self { bytes, base, footer, sections }
    }

    pub(super) fn footer(&self) -> &Footer {
        &self.footer
    }

    /// Where a section stands in the file.
    pub(super) fn place(&self, section: Section) -> Range<usize> {
        self.sections[section as usize].clone()
    }

    pub(super) fn section(&self, section: Section) -> &[u8] {
        let Range { start, end } = self.place(section);
        &self.bytes[start - self.base..end - self.base]
    }

    pub(super) fn timelines(&self) -> usize {
        self.footer.timelines as usize
    }

    fn entries(&self) -> usize {
        self.footer.info.entries as usize
    }

    pub(super) fn may_hold(&self, space: SpaceId, owner: UserId) -> bool {
        filter::may_hold(self.section(Section::Filter), space, owner)
    }

    fn timeline_key(&self, number: usize) -> (SpaceId, UserId) {
        let line = &self.section(Section::Timelines)[number * TIMELINE_BYTES..];
        (SpaceId(get(line, 0, 2) as u16), UserId(get_u64(line, 2)))
    }

    fn timeline_end(&self, number: usize) -> usize {
        get_u32(self.section(Section::Timelines), number * TIMELINE_BYTES + 10) as usize
    }

    /// The timeline of that number.
    pub(super) fn timeline(&self, number: usize) -> Result<Timeline, Flaw> {
        let offset = (self.sections[Section::Timelines as usize].start + number * TIMELINE_BYTES) as u64;
        if number >= self.timelines() {
            let offset = self.sections[Section::Ids as usize].start as u64;
            return Err(Flaw { offset, what: "the index of ids names a timeline that is not there" });
        }
        let (space, owner) = self.timeline_key(number);
        let lines =
            number.checked_sub(1).map_or(0, |before| self.timeline_end(before))..self.timeline_end(number);
        if lines.is_empty() || lines.end > self.entries() {
            return Err(Flaw { offset, what: "the index of timelines names entries that are not there" });
        }
        Ok(Timeline { space, owner, lines })
    }

    /// The timeline of `owner` in `space`.
    pub(super) fn find_timeline(&self, space: SpaceId, owner: UserId) -> Result<Option<Timeline>, Flaw> {
        let at = partition_point(0..self.timelines(), |number| self.timeline_key(number) < (space, owner));
        if at == self.timelines() || self.timeline_key(at) != (space, owner) {
            return Ok(None);
        }
        self.timeline(at).map(Some)
    }

    /// The id in a line.
    pub(super) fn id(&self, line: usize) -> EntryId {
        let widths = self.footer.widths;
        let above = get(self.section(Section::Lines), line * (widths.id + widths.place), widths.id);
        EntryId(self.footer.info.lowest.0.saturating_add(above))
    }

    fn record_end(&self, line: usize) -> u64 {
        let widths = self.footer.widths;
        let at = line * (widths.id + widths.place) + widths.id;
        (HEADER_BYTES as u64).saturating_add(get(self.section(Section::Lines), at, widths.place))
    }

    /// Where the record of a line stands in the file: between header and indexes.
    pub(super) fn record(&self, line: usize) -> Result<Range<usize>, Flaw> {
        let start = line.checked_sub(1).map_or(HEADER_BYTES as u64, |before| self.record_end(before));
        let end = self.record_end(line);
        let line_bytes = self.footer.widths.id + self.footer.widths.place;
        let offset = (self.sections[Section::Lines as usize].start + line * line_bytes) as u64;
        if end > self.footer.data_end || end.saturating_sub(start) < RECORD_BYTES_MIN as u64 {
            return Err(Flaw { offset, what: "a line names a place that is none of an entry" });
        }
        Ok(start as usize..end as usize)
    }

    /// The first of the lines of a timeline whose id is below `below`.
    pub(super) fn first_below(&self, timeline: &Timeline, below: EntryId) -> usize {
        partition_point(timeline.lines.clone(), |line| self.id(line) >= below)
    }

    /// The timeline and the line of an id.
    pub(super) fn find(&self, id: EntryId) -> Result<Option<(Timeline, usize)>, Flaw> {
        let groups = self.section(Section::Groups);
        let behind = partition_point(0..groups.len() / 8, |group| EntryId(get_u64(groups, group * 8)) <= id);
        let Some(group) = behind.checked_sub(1) else { return Ok(None) };
        let (ids, width) = (self.section(Section::Ids), self.footer.widths.timeline);
        let last = ((group + 1) * GROUP_LINES).min(self.entries());
        for at in (group * GROUP_LINES..last).map(|line| line * (MARK_BYTES + width)) {
            if get(ids, at, MARK_BYTES) != mark(id) {
                continue;
            }
            // Another id may have the same mark.
            let timeline = self.timeline(get(ids, at + MARK_BYTES, width) as usize)?;
            let line = partition_point(timeline.lines.clone(), |line| self.id(line) > id);
            if line < timeline.lines.end && self.id(line) == id {
                return Ok(Some((timeline, line)));
            }
        }
        Ok(None)
    }

    /// The first expiry after `stamp`.
    pub(super) fn next_expiry_after(&self, stamp: Stamp) -> Option<Stamp> {
        let (first, _) = self.footer.info.expiry?;
        let (expiries, width) = (self.section(Section::Expiries), self.footer.widths.expiry);
        let expiry = |line: usize| Stamp(first.0.saturating_add(get(expiries, line * width, width)));
        let count = self.footer.expiries as usize;
        let at = partition_point(0..count, |line| expiry(line) <= stamp);
        (at < count).then(|| expiry(at))
    }
}
