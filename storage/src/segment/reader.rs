//! Owns the reading of a segment.
//!
//! - Records are read from the file, never mapped: a fault maps the whole folio of the page cache, a megabyte or more, around a record.
//! - Small indexes are kept in memory, for the same reason; large ones are mapped, and their pages can be forgotten. They are checked
//!   by reads before that, so that a disk which does not give them makes an error.

use std::io::ErrorKind;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use crc32fast::Hasher;

use super::error::{Flaw, OrFail};
use super::index::{Index, Timeline};
use super::layout::{FOOTER_BYTES, Footer, HEADER_BYTES, NotThis, Section, VERSION, check_header, is_marked};
use super::record::{self, Key};
use super::{Entries, Ids, SegmentError, SegmentInfo, SegmentNumber};
use crate::entry::Entry;
use crate::fs::{File, FileSystem, Mapped, ONCE_BYTES};
use crate::ids::{EntryId, SpaceId, Stamp, UserId};
use crate::log::Operation;

/// Indexes of at most so many bytes are kept in memory: mapped, they would take more.
const KEPT_INDEX_BYTES_MAX: u64 = 64 << 10;

/// An open segment.
#[derive(Debug)]
pub struct Segment {
    path: PathBuf,
    info: SegmentInfo,
    file: Arc<dyn File>,
    index: Index,
    /// The file, if its index is large.
    mapped: Option<Mapped>,
}

impl Segment {
    /// Opens the segment that `info` describes. Header, footer, indexes and the length are checked, the entries are not; nor is the
    /// file's checksum, which [`Segment::verify`] compares.
    pub fn open(fs: &dyn FileSystem, dir: &Path, info: &SegmentInfo) -> Result<Self, SegmentError> {
        let mut segment = Self::open_file(fs, dir.join(info.number.file_name()), Some(info.number))?;
        let found = SegmentInfo { checksum: info.checksum, ..segment.info };
        if let Some(what) = found.difference(info) {
            return Err(SegmentError::Foreign { path: segment.path, what });
        }
        segment.info = found;
        Ok(segment)
    }

    /// Opens a segment by its file alone. What it holds is as the file says, with the checksum that it has now, so
    /// that only [`Segment::verify`] tells whether entries are damaged.
    pub fn open_alone(fs: &dyn FileSystem, path: &Path) -> Result<Self, SegmentError> {
        let mut segment = Self::open_file(fs, path.to_path_buf(), None)?;
        segment.info.checksum = segment.checksum()?;
        Ok(segment)
    }

    /// Opens a file and checks header, footer and indexes; any number will do if none is expected.
    fn open_file(
        fs: &dyn FileSystem,
        path: PathBuf,
        number: Option<SegmentNumber>,
    ) -> Result<Self, SegmentError> {
        let file = match fs.open_read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(SegmentError::Missing { path }),
            file => file.or_fail(Operation::Open, &path)?,
        };
        let bytes = file.len().or_fail(Operation::Read, &path)?;
        let footer_at = bytes.checked_sub(FOOTER_BYTES as u64).filter(|at| *at >= HEADER_BYTES as u64);
        let Some(footer_at) = footer_at else {
            if number.is_none() {
                return Err(SegmentError::NotASegment { path });
            }
            return Err(SegmentError::damaged(&path, bytes, "it ends before a segment can"));
        };
        let mut edges = ([0; HEADER_BYTES], [0; FOOTER_BYTES]);
        file.read_at(0, &mut edges.0).or_fail(Operation::Read, &path)?;
        file.read_at(footer_at, &mut edges.1).or_fail(Operation::Read, &path)?;
        if number.is_none() && !is_marked(&edges.0, &edges.1) {
            return Err(SegmentError::NotASegment { path });
        }
        let header = |number| {
            check_header(&edges.0, number).map_err(|not_this| match not_this {
                NotThis::Flaw(flaw) => flaw.at(&path),
                NotThis::Version(version) => {
                    SegmentError::Version { path: path.clone(), version, supported: VERSION }
                }
                NotThis::Number => SegmentError::Foreign { path: path.clone(), what: "the number" },
            })
        };
        number.map_or(Ok(()), header)?;
        let footer = Footer::decode(&edges.1, footer_at).map_err(|flaw| flaw.at(&path))?;
        let wrong = Flaw { offset: footer_at, what: "the footer does not describe a file of this length" };
        let sections = footer.sections(bytes).ok_or(wrong).map_err(|flaw| flaw.at(&path))?;
        let (info, base) = (footer.info, footer.data_end);
        let (index, mapped) = if bytes - base <= KEPT_INDEX_BYTES_MAX {
            let mut index = vec![0; (bytes - base) as usize];
            file.read_at(base, &mut index).or_fail(Operation::Read, &path)?;
            (Index::new(index.into(), base as usize, footer, sections), None)
        } else {
            let mapped = file.map().or_fail(Operation::Map, &path)?;
            if mapped.bytes().len() as u64 != bytes {
                return Err(SegmentError::damaged(&path, bytes, "its length changes"));
            }
            (Index::new(mapped.bytes().clone(), 0, footer, sections), Some(mapped))
        };
        header(info.number)?;
        let segment = Self { path, info, file, index, mapped };
        segment.check_index()?;
        Ok(segment)
    }

    /// What it holds.
    pub fn info(&self) -> &SegmentInfo {
        &self.info
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it may hold entries of `owner` in `space`: no is certain, yes is wrong for less than 1 % of the others.
    pub fn may_hold(&self, space: SpaceId, owner: UserId) -> bool {
        self.index.may_hold(space, owner)
    }

    /// Whether it holds the entry; only indexes are touched.
    pub fn holds(&self, id: EntryId) -> Result<bool, SegmentError> {
        Ok(self.find(id)?.is_some())
    }

    /// The entry of that id.
    pub fn get(&self, id: EntryId) -> Result<Option<Entry>, SegmentError> {
        self.find(id)?.map(|(timeline, line)| self.entry(&timeline, line)).transpose()
    }

    /// The entries of a timeline with ids below `below`, newest first. Nothing follows an error.
    pub fn newest(&self, space: SpaceId, owner: UserId, below: EntryId) -> Entries<'_> {
        Entries::of_timeline(self, self.timeline_below(space, owner, below))
    }

    /// The ids of a timeline below `below`, newest first; only indexes are touched. Nothing follows an error.
    pub fn ids(&self, space: SpaceId, owner: UserId, below: EntryId) -> Ids<'_> {
        Ids::new(&self.index, self.timeline_below(space, owner, below))
    }

    /// All entries in the order of the file: space, owner, descending id. Nothing follows an error.
    pub fn iter(&self) -> Entries<'_> {
        Entries::all(self)
    }

    /// The first expiry of an entry after `stamp`, exact to the millisecond; of entries that others count as dead, too.
    pub fn next_expiry_after(&self, stamp: Stamp) -> Option<Stamp> {
        self.index.next_expiry_after(stamp)
    }

    /// Takes the pages that were read out of the process's resident size; they come back when they are touched.
    pub fn forget_pages(&self) {
        // It is an advice; a refused one costs memory and nothing else.
        let _refused = self.mapped.as_ref().map(Mapped::forget_pages);
    }

    fn find(&self, id: EntryId) -> Result<Option<(Timeline, usize)>, SegmentError> {
        self.index.find(id).map_err(|flaw| flaw.at(&self.path))
    }

    /// A timeline with its lines from the first below `below` on.
    fn timeline_below(
        &self,
        space: SpaceId,
        owner: UserId,
        below: EntryId,
    ) -> Result<Option<Timeline>, SegmentError> {
        if !self.may_hold(space, owner) {
            return Ok(None);
        }
        let found = self.index.find_timeline(space, owner).map_err(|flaw| flaw.at(&self.path))?;
        Ok(found.map(|mut timeline| {
            timeline.lines.start = self.index.first_below(&timeline, below);
            timeline
        }))
    }

    pub(super) fn index(&self) -> &Index {
        &self.index
    }

    pub(super) fn timeline(&self, number: usize) -> Result<Timeline, SegmentError> {
        self.index.timeline(number).map_err(|flaw| flaw.at(&self.path))
    }

    /// Reads and checks the entry of a line of that timeline.
    fn entry(&self, timeline: &Timeline, line: usize) -> Result<Entry, SegmentError> {
        Piece::of_bytes(0).entry(self, timeline, line, line)
    }

    fn record(&self, line: usize) -> Result<Range<usize>, SegmentError> {
        self.index.record(line).map_err(|flaw| flaw.at(&self.path))
    }

    /// Reads a part of the file, which the index says is there.
    fn read(&self, place: Range<usize>, is_once: bool) -> Result<Bytes, SegmentError> {
        if is_once {
            let read = self.file.read_once(place.start as u64..place.end as u64);
            return read.or_fail(Operation::Read, &self.path);
        }
        let mut bytes = vec![0; place.len()];
        self.file.read_at(place.start as u64, &mut bytes).or_fail(Operation::Read, &self.path)?;
        Ok(bytes.into())
    }

    /// Compares each section of the index with its CRC. What is mapped is read from the file for that: a page that the disk does not
    /// give is an error then, and no signal.
    fn check_index(&self) -> Result<(), SegmentError> {
        for section in Section::ALL {
            let place = self.index.place(section);
            let crc = if self.mapped.is_some() {
                self.crc(place.clone(), false)?
            } else {
                crc32fast::hash(self.index.section(section))
            };
            if crc != self.index.footer().crcs[section as usize] {
                return Err(SegmentError::damaged(&self.path, place.start as u64, section.damage()));
            }
        }
        Ok(())
    }

    /// The CRC of all bytes of the file.
    pub(super) fn checksum(&self) -> Result<u32, SegmentError> {
        self.crc(0..self.info.bytes as usize, true)
    }

    /// The CRC of a part of the file.
    fn crc(&self, part: Range<usize>, is_once: bool) -> Result<u32, SegmentError> {
        let (mut hasher, mut kept) = (Hasher::new(), Vec::new());
        for begin in part.clone().step_by(ONCE_BYTES) {
            let piece = begin..part.end.min(begin + ONCE_BYTES);
            if is_once {
                hasher.update(&self.read(piece, true)?);
                continue;
            }
            kept.resize(piece.len(), 0);
            self.file.read_at(begin as u64, &mut kept).or_fail(Operation::Read, &self.path)?;
            hasher.update(&kept);
        }
        Ok(hasher.finalize())
    }
}

/// A part of a segment's records, read in one go.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    start: usize,
    bytes: Bytes,
    most: usize,
    /// Nobody reads the same again soon.
    is_once: bool,
}

impl Piece {
    /// Nothing yet; reads at most so many bytes at a time, or one record.
    pub(super) fn of_bytes(most: usize) -> Self {
        Self { start: 0, bytes: Bytes::new(), most, is_once: false }
    }

    /// The same of records that are all read, one after the other.
    pub(super) fn of_all() -> Self {
        Self { is_once: true, ..Self::of_bytes(ONCE_BYTES) }
    }

    /// Reads and checks the entry of a line; if it is not in the piece, the piece becomes one that begins with it and goes on up to
    /// the line `last`, which may be behind all.
    pub(super) fn entry(
        &mut self,
        segment: &Segment,
        timeline: &Timeline,
        line: usize,
        last: usize,
    ) -> Result<Entry, SegmentError> {
        let place = segment.record(line)?;
        if place.start < self.start || place.end > self.start + self.bytes.len() {
            let behind = if last as u64 >= segment.info.entries {
                segment.index.footer().data_end as usize
            } else {
                segment.record(last)?.end
            };
            let end = place.end.max(behind.min(place.start.saturating_add(self.most)));
            (self.start, self.bytes) = (place.start, segment.read(place.start..end, self.is_once)?);
        }
        let record = self.bytes.slice(place.start - self.start..place.end - self.start);
        let key = Key { space: timeline.space, owner: timeline.owner, id: segment.index.id(line) };
        record::decode(key, record)
            .map_err(|what| Flaw { offset: place.start as u64, what }.at(&segment.path))
    }
}

impl<'a> IntoIterator for &'a Segment {
    type Item = Result<Entry, SegmentError>;
    type IntoIter = Entries<'a>;

    fn into_iter(self) -> Entries<'a> {
        self.iter()
    }
}
