//! Owns the check of a whole segment.

use super::layout::HEADER_BYTES;
use super::reader::Piece;
use super::record::Key;
use super::{Segment, SegmentError, SegmentInfo};
use crate::entry::Entry;
use crate::ids::{EntryId, Stamp};

impl Segment {
    /// Reads and checks every byte: each entry, that each index leads to it, and the checksum of the file. What is wrong with an entry
    /// is reported with its place.
    pub fn verify(&self) -> Result<(), SegmentError> {
        self.verify_telling(&|_| {})
    }

    /// The same; `read` is told how many bytes of entries were read since it was told last.
    pub fn verify_telling(&self, read: &dyn Fn(u64)) -> Result<(), SegmentError> {
        let found = self.verify_entries(read)?;
        if let Some(what) = found.difference(self.info()) {
            return Err(SegmentError::Foreign { path: self.path().to_path_buf(), what });
        }
        if self.checksum()? != self.info().checksum {
            return Err(self.flaw(0, "the file does not match its checksum"));
        }
        Ok(())
    }

    fn flaw(&self, offset: u64, what: &'static str) -> SegmentError {
        SegmentError::damaged(self.path(), offset, what)
    }

    /// What the entries add up to.
    fn verify_entries(&self, read: &dyn Fn(u64)) -> Result<SegmentInfo, SegmentError> {
        let mut found = SegmentInfo {
            entries: 0,
            lowest: EntryId::MAX,
            highest: EntryId::ZERO,
            expiry: None,
            expiring: 0,
            payload_bytes: 0,
            ..*self.info()
        };
        let (mut last, mut end) = (None::<Key>, HEADER_BYTES);
        let mut piece = Piece::of_all();
        for number in 0..self.index().timelines() {
            let (timeline, begin) = (self.timeline(number)?, end);
            if !self.may_hold(timeline.space, timeline.owner) {
                return Err(self.flaw(end as u64, "the filter does not know the timeline of the entry"));
            }
            for line in timeline.lines.clone() {
                let entry = piece.entry(self, &timeline, line, usize::MAX)?;
                if let Some(what) = self.misplaced(&entry, line, last)? {
                    return Err(self.flaw(end as u64, what));
                }
                add(&mut found, &entry);
                last = Some(Key::of(&entry));
                end = self.index().record(line).map_err(|flaw| flaw.at(self.path()))?.end;
            }
            read((end - begin) as u64);
        }
        if end as u64 == self.index().footer().data_end {
            Ok(found)
        } else {
            Err(self.flaw(end as u64, "there are bytes behind the last entry"))
        }
    }

    /// What is wrong with the place of an entry in the file and in the indexes, if something is.
    fn misplaced(
        &self,
        entry: &Entry,
        line: usize,
        last: Option<Key>,
    ) -> Result<Option<&'static str>, SegmentError> {
        if last.is_some_and(|last| !last.is_before(&Key::of(entry))) {
            return Ok(Some("the entry is out of order"));
        }
        let indexed = self.index().find(entry.id).map_err(|flaw| flaw.at(self.path()))?;
        if indexed.is_none_or(|(_, at)| at != line) {
            return Ok(Some("the index of ids does not lead to the entry"));
        }
        // There is no stamp before the first one that could be asked for.
        let before = entry.expiry.and_then(|expiry| expiry.0.checked_sub(1));
        if before.is_some_and(|before| self.next_expiry_after(Stamp(before)) != entry.expiry) {
            return Ok(Some("the index of expiries does not know the entry"));
        }
        Ok(None)
    }
}

fn add(found: &mut SegmentInfo, entry: &Entry) {
    found.entries += 1;
    found.lowest = found.lowest.min(entry.id);
    found.highest = found.highest.max(entry.id);
    found.payload_bytes += entry.payload.len() as u64;
    if let Some(expiry) = entry.expiry {
        let (first, last) = found.expiry.unwrap_or((expiry, expiry));
        found.expiry = Some((first.min(expiry), last.max(expiry)));
        found.expiring += 1;
    }
}
