//! Owns the reading of a segment.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::error::{Flaw, OrFail};
use super::index::{Index, Timeline};
use super::layout::{FOOTER_BYTES, HEADER_BYTES, NotThis, VERSION, check_header};
use super::record::{self, Key};
use super::{Entries, Ids, SegmentError, SegmentInfo, SegmentNumber};
use crate::entry::Entry;
use crate::fs::{FileSystem, Mapped};
use crate::ids::{EntryId, SpaceId, Stamp, UserId};
use crate::log::Operation;

/// An open segment.
#[derive(Debug)]
pub struct Segment {
    path: PathBuf,
    info: SegmentInfo,
    file: Mapped,
    index: Index,
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
        // A few bytes of it were read, for which the operating system may have mapped megabytes.
        segment.forget_pages();
        Ok(segment)
    }

    /// Opens a segment by its file alone. What it holds is as the file says, with the checksum that it has now, so
    /// that only [`Segment::verify`] tells whether entries are damaged.
    pub fn open_alone(fs: &dyn FileSystem, path: &Path) -> Result<Self, SegmentError> {
        let mut segment = Self::open_file(fs, path.to_path_buf(), None)?;
        segment.info.checksum = crc32fast::hash(segment.bytes());
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
        let file = file.map().or_fail(Operation::Map, &path)?;
        let bytes = file.bytes().len() as u64;
        if bytes < (HEADER_BYTES + FOOTER_BYTES) as u64 {
            return Err(SegmentError::damaged(&path, bytes, "it ends before a segment can"));
        }
        let header = |number| {
            check_header(file.bytes(), number).map_err(|not_this| match not_this {
                NotThis::Flaw(flaw) => flaw.at(&path),
                NotThis::Version(version) => {
                    SegmentError::Version { path: path.clone(), version, supported: VERSION }
                }
                NotThis::Number => SegmentError::Foreign { path: path.clone(), what: "the number" },
            })
        };
        number.map_or(Ok(()), header)?;
        let index = Index::open(file.bytes().clone()).map_err(|flaw| flaw.at(&path))?;
        let info = index.footer().info;
        header(info.number)?;
        Ok(Self { path, info, file, index })
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
        let _refused = self.file.forget_pages();
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
    pub(super) fn entry(&self, timeline: &Timeline, line: usize) -> Result<Entry, SegmentError> {
        let place = self.index.record(line).map_err(|flaw| flaw.at(&self.path))?;
        let offset = place.start as u64;
        let key = Key { space: timeline.space, owner: timeline.owner, id: self.index.id(line) };
        let record = self.file.bytes().slice(place);
        record::decode(key, &record).map_err(|what| Flaw { offset, what }.at(&self.path))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.file.bytes()
    }
}

impl<'a> IntoIterator for &'a Segment {
    type Item = Result<Entry, SegmentError>;
    type IntoIter = Entries<'a>;

    fn into_iter(self) -> Entries<'a> {
        self.iter()
    }
}
