//! Owns the reading of a whole segment: its header and every batch in it, wherever one starts.
//!
//! - Every boundary is looked at, also after a bad one, so that a batch behind damage is found.
//! - Only batches of this place and this run count: position, incarnation and salt must fit.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::batch::{self, BatchHead};
use super::failure::OrFail;
use super::image::ReadPace;
use super::options::{BLOCK_BYTES, SEGMENT_BYTES_MAX};
use super::segment::{COPIES_AT, HeaderFault, Segment, SegmentHeader, VERSION};
use super::{OpenError, Operation};
use crate::fs::{File, FileSystem};

/// Positions and numbers never come near these; larger ones are damage that a checksum did not see.
const POSITION_MAX: u64 = 1 << 62;
const NUMBER_MAX: u64 = 1 << 62;

/// Bytes read at a time.
const PIECE_BYTES: usize = 1 << 20;

/// A batch found in a segment.
#[derive(Debug)]
pub(super) struct Batch {
    /// Where it starts in the file.
    pub(super) offset: u64,
    pub(super) head: BatchHead,
}

/// A segment read from its file.
#[derive(Debug)]
pub(super) struct Scanned {
    pub(super) header: SegmentHeader,
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn File>,
    /// The whole file, filled with zeros where it is too short.
    pub(super) bytes: Vec<u8>,
    /// In the order of the file.
    pub(super) batches: Vec<Batch>,
    /// Where a copy of the header is damaged while the other is good.
    pub(super) damaged_copy: Option<u64>,
}

impl Scanned {
    /// Reads a segment into `buffer`, whatever that held; past the page cache if asked to, after its dirty pages were written.
    pub(super) fn read(
        fs: &dyn FileSystem,
        path: &Path,
        past_cache: bool,
        buffer: Vec<u8>,
    ) -> Result<Self, OpenError> {
        let file =
            if past_cache { fs.open_rw(path) } else { fs.open_read(path) }.or_fail(Operation::Open, path)?;
        if past_cache {
            file.sync_data().or_fail(Operation::Sync, path)?;
            file.drop_cache().or_fail(Operation::Read, path)?;
        }
        Self::of_file(file, path, &|_| Ok(()), buffer)
    }

    /// Reads a segment into `buffer` at a pace, past what is clean in the page cache.
    pub(super) fn read_paced(
        fs: &dyn FileSystem,
        path: &Path,
        pace: ReadPace<'_>,
        buffer: Vec<u8>,
    ) -> Result<Self, OpenError> {
        let file = fs.open_read(path).or_fail(Operation::Open, path)?;
        file.drop_cache().or_fail(Operation::Read, path)?;
        Self::of_file(file, path, pace, buffer)
    }

    fn of_file(
        file: Arc<dyn File>,
        path: &Path,
        pace: ReadPace<'_>,
        mut bytes: Vec<u8>,
    ) -> Result<Self, OpenError> {
        let file_bytes = file.len().or_fail(Operation::Read, path)?;
        if file_bytes > SEGMENT_BYTES_MAX {
            let (path, limit_bytes) = (path.to_path_buf(), SEGMENT_BYTES_MAX);
            return Err(OpenError::SegmentTooLarge { path, bytes: file_bytes, limit_bytes });
        }
        bytes.resize(file_bytes as usize, 0);
        for (number, piece) in bytes.chunks_mut(PIECE_BYTES).enumerate() {
            pace(piece.len() as u64).or_fail(Operation::Read, path)?;
            file.read_at((number * PIECE_BYTES) as u64, piece).or_fail(Operation::Read, path)?;
        }
        let (header, damaged_copy) = read_header(&bytes, path)?;
        let sane = (BLOCK_BYTES..=SEGMENT_BYTES_MAX).contains(&header.bytes) && header.start < POSITION_MAX;
        if !sane {
            return Err(OpenError::SegmentHeader { path: path.to_path_buf(), offset: 0 });
        }
        bytes.resize(header.bytes as usize, 0);
        let batches = find_batches(&header, &bytes);
        Ok(Self { header, path: path.to_path_buf(), file, bytes, batches, damaged_copy })
    }

    /// Leaves out what stands at an absolute position and behind it: it may be being written.
    pub(super) fn cut(&mut self, position: u64) {
        let end = position.saturating_sub(self.header.start).min(self.header.bytes);
        self.bytes[end as usize..].fill(0);
        self.batches.retain(|batch| batch.offset < end);
    }

    /// The bytes of a batch, padding included.
    pub(super) fn bytes_of(&self, batch: &Batch) -> &[u8] {
        let from = batch.offset as usize;
        let to = (batch.offset + batch.head.padded_bytes()).min(self.header.bytes) as usize;
        &self.bytes[from..to]
    }

    pub(super) fn is_intact(&self, batch: &Batch) -> bool {
        batch.head.is_intact(self.bytes_of(batch))
    }

    /// Where the first byte after the last batch is.
    pub(super) fn end_offset(&self) -> u64 {
        self.batches.last().map_or(BLOCK_BYTES, |batch| batch.offset + batch.head.padded_bytes())
    }

    /// How many bytes of something unfinished start at an offset; zero if nothing can be told apart from unused or
    /// reused space.
    pub(super) fn unfinished_bytes(&self, offset: u64) -> u64 {
        let rest = self.bytes.get(offset as usize..).unwrap_or_default();
        if !self.header.reused {
            return used_bytes(rest);
        }
        match batch::claims(rest) {
            Some((position, used)) if position == self.header.start + offset => used.min(rest.len() as u64),
            _ => 0,
        }
    }

    /// The segment without its content.
    pub(super) fn into_segment(self) -> Segment {
        self.into_parts().0
    }

    /// The segment, and the memory that its content was in.
    pub(super) fn into_parts(self) -> (Segment, Vec<u8>) {
        (Segment { header: self.header, path: self.path, file: self.file }, self.bytes)
    }
}

/// How many bytes there are up to the last one that is not zero.
pub(super) fn used_bytes(bytes: &[u8]) -> u64 {
    const ZEROS: [u8; BLOCK_BYTES as usize] = [0; BLOCK_BYTES as usize];
    let mut end = bytes.len();
    while end > 0 {
        let start = (end - 1) / ZEROS.len() * ZEROS.len();
        let block = &bytes[start..end];
        if *block != ZEROS[..block.len()] {
            return block.iter().rposition(|byte| *byte != 0).map_or(0, |last| (start + last) as u64 + 1);
        }
        end = start;
    }
    0
}

fn read_header(bytes: &[u8], path: &Path) -> Result<(SegmentHeader, Option<u64>), OpenError> {
    match COPIES_AT.map(|at| SegmentHeader::decode(bytes, at)) {
        [Ok(header), Ok(_)] => Ok((header, None)),
        [Ok(header), Err(_)] => Ok((header, Some(COPIES_AT[1] as u64))),
        [Err(_), Ok(header)] => Ok((header, Some(COPIES_AT[0] as u64))),
        [Err(HeaderFault::Version(version)), _] | [_, Err(HeaderFault::Version(version))] => {
            Err(OpenError::Version { path: path.to_path_buf(), version, supported: VERSION })
        }
        [Err(HeaderFault::Damaged), Err(HeaderFault::Damaged)] => {
            Err(OpenError::SegmentHeader { path: path.to_path_buf(), offset: 0 })
        }
    }
}

fn find_batches(header: &SegmentHeader, bytes: &[u8]) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    let mut offset = BLOCK_BYTES;
    while offset < header.bytes {
        let found = batch::decode(header.salt, &bytes[offset as usize..]).filter(|head| {
            head.header.position == header.start + offset
                && head.header.incarnation == header.incarnation
                && head.header.number < NUMBER_MAX
                && batches.last().is_none_or(|before| before.head.header.number < head.header.number)
        });
        match found {
            Some(head) => {
                let padded_bytes = head.padded_bytes();
                batches.push(Batch { offset, head });
                offset += padded_bytes;
            }
            None => offset += BLOCK_BYTES,
        }
    }
    batches
}
