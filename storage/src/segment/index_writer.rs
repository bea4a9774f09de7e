//! Owns what the writer of a segment remembers of the entries, and makes indexes and footer of it.

use super::layout::{
    FILTER_BLOCK_BYTES, FOOTER_BYTES, Footer, GROUP_LINES, HEADER_BYTES, MARK_BYTES, Section, TIMELINE_BYTES,
    Widths,
};
use super::output::Output;
use super::packed::{put, width};
use super::{SegmentError, SegmentInfo, SegmentNumber, filter, mark};
use crate::entry::Entry;
use crate::ids::{EntryId, SpaceId, Stamp, UserId};

/// A timeline, and the number of the line behind its last one.
#[derive(Debug)]
struct Timeline {
    space: SpaceId,
    owner: UserId,
    end: u32,
}

#[derive(Debug)]
pub(super) struct IndexWriter {
    number: SegmentNumber,
    timelines: Vec<Timeline>,
    /// Of all entries, in the order of the file: the id, and where in the file the record ends.
    lines: Vec<(EntryId, u64)>,
    expiries: Vec<Stamp>,
    payload_bytes: u64,
}

/// The bytes of one section at a time, on their way to the file.
struct Sections<'o, 'a> {
    output: &'o mut Output<'a>,
    crcs: Vec<u32>,
}

impl Sections<'_, '_> {
    /// Writes a section line by line.
    fn write<T>(
        &mut self,
        section: Section,
        lines: impl IntoIterator<Item = T>,
        mut line_of: impl FnMut(&mut Vec<u8>, T),
    ) -> Result<(), SegmentError> {
        assert_eq!(Section::ALL[self.crcs.len()], section, "sections are written in their order");
        let (mut line, mut crc) = (Vec::new(), crc32fast::Hasher::new());
        for item in lines {
            line.clear();
            line_of(&mut line, item);
            crc.update(&line);
            self.output.append(&line)?;
        }
        self.crcs.push(crc.finalize());
        Ok(())
    }
}

impl IndexWriter {
    pub(super) fn new(number: SegmentNumber) -> Self {
        Self { number, timelines: Vec::new(), lines: Vec::new(), expiries: Vec::new(), payload_bytes: 0 }
    }

    pub(super) fn entries(&self) -> u64 {
        self.lines.len() as u64
    }

    /// Notes an entry whose record ends at `end` of the file.
    pub(super) fn add(&mut self, entry: &Entry, end: u64) {
        self.lines.push((entry.id, end));
        let lines = self.lines.len() as u32;
        match self.timelines.last_mut() {
            Some(last) if (last.space, last.owner) == (entry.space, entry.owner) => last.end = lines,
            _ => self.timelines.push(Timeline { space: entry.space, owner: entry.owner, end: lines }),
        }
        self.expiries.extend(entry.expiry);
        self.payload_bytes += entry.payload.len() as u64;
    }

    /// The ids, ascending, each with the number of its timeline.
    fn by_id(&self, output: &Output<'_>) -> Result<Vec<(EntryId, u32)>, SegmentError> {
        let mut ids = Vec::with_capacity(self.lines.len());
        for (number, timeline) in self.timelines.iter().enumerate() {
            let lines = &self.lines[ids.len()..timeline.end as usize];
            ids.extend(lines.iter().map(|(id, _)| (*id, number as u32)));
        }
        ids.sort_unstable();
        match ids.windows(2).find(|two| two[0].0 == two[1].0) {
            Some(two) => Err(SegmentError::OutOfOrder { path: output.path().to_path_buf(), id: two[0].0 }),
            None => Ok(ids),
        }
    }

    /// Writes everything behind the entries, of which there is at least one; the info lacks the checksum.
    pub(super) fn write(mut self, output: &mut Output<'_>) -> Result<SegmentInfo, SegmentError> {
        let data_end = output.bytes();
        let ids = self.by_id(output)?;
        let (lowest, highest) = (ids[0].0, ids[ids.len() - 1].0);
        let expiring = self.expiries.len() as u64;
        self.expiries.sort_unstable();
        self.expiries.dedup();
        let expiry = self.expiries.first().copied().zip(self.expiries.last().copied());
        let widths = Widths {
            id: width(highest.0 - lowest.0),
            place: width(data_end - HEADER_BYTES as u64),
            timeline: width(self.timelines.len() as u64 - 1),
            expiry: expiry.map_or(1, |(first, last)| width(last.0 - first.0)),
        };

        let mut sections = Sections { output, crcs: Vec::new() };
        sections.write(Section::Timelines, &self.timelines, |line, timeline| {
            line.extend_from_slice(&timeline.space.0.to_le_bytes());
            line.extend_from_slice(&timeline.owner.0.to_le_bytes());
            line.extend_from_slice(&timeline.end.to_le_bytes());
            assert_eq!(line.len(), TIMELINE_BYTES);
        })?;
        sections.write(Section::Lines, &self.lines, |line, (id, end)| {
            put(line, id.0 - lowest.0, widths.id);
            put(line, end - HEADER_BYTES as u64, widths.place);
        })?;
        sections
            .write(Section::Groups, ids.iter().step_by(GROUP_LINES), |line, (id, _)| put(line, id.0, 8))?;
        sections.write(Section::Ids, &ids, |line, (id, timeline)| {
            put(line, mark(*id), MARK_BYTES);
            put(line, u64::from(*timeline), widths.timeline);
        })?;
        sections.write(Section::Expiries, &self.expiries, |line, stamp| {
            put(line, stamp.0 - expiry.map_or(0, |(first, _)| first.0), widths.expiry);
        })?;
        let filter_blocks = filter::blocks(self.timelines.len() as u64);
        let mut filter = vec![0; filter_blocks as usize * FILTER_BLOCK_BYTES];
        self.timelines
            .iter()
            .for_each(|timeline| filter::insert(&mut filter, timeline.space, timeline.owner));
        sections.write(Section::Filter, [filter], |line, filter| *line = filter)?;

        let crcs = sections.crcs.try_into().expect("each section was written");
        let info = SegmentInfo {
            number: self.number,
            entries: self.entries(),
            lowest,
            highest,
            expiry,
            expiring,
            payload_bytes: self.payload_bytes,
            bytes: output.bytes() + FOOTER_BYTES as u64,
            checksum: 0,
        };
        let (timelines, expiries) = (self.timelines.len() as u64, self.expiries.len() as u64);
        let footer = Footer { info, timelines, expiries, filter_blocks, data_end, widths, crcs };
        assert!(footer.sections(info.bytes).is_some(), "what is written can be opened");
        output.append(&footer.encode())?;
        Ok(info)
    }
}
