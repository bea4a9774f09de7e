//! Owns one segment file: its name, its header, and the open file behind them.
//!
//! - The header stands twice, in different 4 KiB-block halves, so that one damaged sector does not cost the segment.
//! - A segment covers the absolute positions from its start for as many bytes as the file has.
//!
//! Format: `storage/FORMAT.md`, "Segment".

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::batch::{get_u32, get_u64};
use super::options::BLOCK_BYTES;
use crate::fs::File;

/// Bytes of a segment's header.
pub(super) const HEADER_BYTES: usize = 64;
/// Where the two copies of the header start.
pub(super) const COPIES_AT: [usize; 2] = [0, 2048];
/// The version of the format that this program reads and writes.
pub(super) const VERSION: u16 = 1;

const MAGIC: [u8; 4] = *b"FFLS";
const FLAG_REUSED: u16 = 1;
const FLAG_MADE_AT_OPEN: u16 = 2;
const CRC_AT: usize = 8;

const _: () =
    assert!(COPIES_AT[1] + HEADER_BYTES <= BLOCK_BYTES as usize && COPIES_AT[1].is_multiple_of(512));

/// What a segment says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    /// Its number; the file is named after it.
    pub(super) sequence: u64,
    /// Absolute position of the file's first byte.
    pub(super) start: u64,
    /// Length of the file.
    pub(super) bytes: u64,
    /// The run of the log that made it; its batches must have the same.
    pub(super) incarnation: u64,
    /// Part of every checksum of this log.
    pub(super) salt: u64,
    /// Every batch up to this number was durable when the segment was made.
    pub(super) durable_number: u64,
    /// Whether the file had been in use before, so that what follows the last batch may be old.
    pub(super) reused: bool,
    /// Whether it was made at open: then it replaces every later batch of older segments.
    pub(super) made_at_open: bool,
}

/// Why a header copy was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeaderFault {
    /// Wrong magic, checksum or length.
    Damaged,
    /// A version that this program does not read.
    Version(u16),
}

impl SegmentHeader {
    pub(super) fn end(&self) -> u64 {
        self.start.saturating_add(self.bytes)
    }

    /// The first block of the file, with both copies.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut copy = [0; HEADER_BYTES];
        let flags =
            if self.reused { FLAG_REUSED } else { 0 } | if self.made_at_open { FLAG_MADE_AT_OPEN } else { 0 };
        copy[0..4].copy_from_slice(&MAGIC);
        copy[4..6].copy_from_slice(&VERSION.to_le_bytes());
        copy[6..8].copy_from_slice(&flags.to_le_bytes());
        let fields =
            [self.sequence, self.start, self.bytes, self.incarnation, self.salt, self.durable_number];
        for (number, field) in fields.iter().enumerate() {
            copy[16 + number * 8..24 + number * 8].copy_from_slice(&field.to_le_bytes());
        }
        let crc = header_crc(&copy);
        copy[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        let mut block = vec![0; BLOCK_BYTES as usize];
        for at in COPIES_AT {
            block[at..at + HEADER_BYTES].copy_from_slice(&copy);
        }
        block
    }

    /// Reads one copy of the header from the file's first block.
    pub(super) fn decode(block: &[u8], at: usize) -> Result<Self, HeaderFault> {
        let copy = block.get(at..at + HEADER_BYTES).ok_or(HeaderFault::Damaged)?;
        if copy[..4] != MAGIC || get_u32(copy, CRC_AT) != Some(header_crc(copy)) {
            return Err(HeaderFault::Damaged);
        }
        let version = u16::from_le_bytes([copy[4], copy[5]]);
        if version != VERSION {
            return Err(HeaderFault::Version(version));
        }
        let flags = u16::from_le_bytes([copy[6], copy[7]]);
        let field = |number: usize| get_u64(copy, 16 + number * 8).ok_or(HeaderFault::Damaged);
        Ok(Self {
            sequence: field(0)?,
            start: field(1)?,
            bytes: field(2)?,
            incarnation: field(3)?,
            salt: field(4)?,
            durable_number: field(5)?,
            reused: flags & FLAG_REUSED != 0,
            made_at_open: flags & FLAG_MADE_AT_OPEN != 0,
        })
    }
}

fn header_crc(copy: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&copy[..CRC_AT]);
    hasher.update(&copy[CRC_AT + 4..HEADER_BYTES]);
    hasher.finalize()
}

/// The name of a segment in use.
pub(super) fn path_of(dir: &Path, sequence: u64) -> PathBuf {
    dir.join(format!("{sequence:016x}.log"))
}

/// The name of a file that waits to be used again.
pub(super) fn spare_path_of(dir: &Path, sequence: u64) -> PathBuf {
    dir.join(format!("{sequence:016x}.spare"))
}

/// The name of a file that is not a segment yet.
pub(super) fn unfinished_path_of(dir: &Path, sequence: u64) -> PathBuf {
    dir.join(format!("{sequence:016x}.new"))
}

/// What a name in the log's directory stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    Segment(u64),
    Spare(u64),
    Unfinished,
}

impl Name {
    /// Reads a name; none for files that are not the log's.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let (digits, suffix) = name.split_once('.')?;
        let lower = digits.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        if digits.len() != 16 || !lower {
            return None;
        }
        let sequence = u64::from_str_radix(digits, 16).ok()?;
        match suffix {
            "log" => Some(Self::Segment(sequence)),
            "spare" => Some(Self::Spare(sequence)),
            "new" => Some(Self::Unfinished),
            _ => None,
        }
    }
}

/// An open segment.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) header: SegmentHeader,
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn File>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_copy_of_the_header_is_enough_and_no_flipped_bit_passes() {
        let header = SegmentHeader {
            sequence: 4,
            start: 65_536,
            bytes: 16_384,
            incarnation: 2,
            salt: 9,
            durable_number: 7,
            reused: true,
            made_at_open: true,
        };
        let mut block = header.encode();
        assert_eq!(block.len() as u64, BLOCK_BYTES);
        for bit in 0..HEADER_BYTES * 8 {
            block[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::decode(&block, COPIES_AT[0]).is_err(), "bit {bit}");
            assert_eq!(SegmentHeader::decode(&block, COPIES_AT[1]), Ok(header));
            block[bit / 8] ^= 1 << (bit % 8);
        }
        assert_eq!(SegmentHeader::decode(&block, COPIES_AT[0]), Ok(header));
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        let dir = Path::new("");
        for (path, name) in [
            (path_of(dir, 0xab), Name::Segment(0xab)),
            (spare_path_of(dir, 3), Name::Spare(3)),
            (unfinished_path_of(dir, 3), Name::Unfinished),
        ] {
            assert_eq!(Name::parse(path.to_str().unwrap()), Some(name));
        }
        for other in ["lock", "1.log", "00000000000000AB.log", "00000000000000ab.lo", "+0000000000000ab.log"]
        {
            assert_eq!(Name::parse(other), None, "{other}");
        }
    }
}
