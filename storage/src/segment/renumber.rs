//! Owns the passage of a segment to another directory, where it needs another number.
//!
//! - Only header and footer name the number; whatever else stands in the file is read, checked and left as it is.

use std::path::Path;

use super::error::OrFail;
use super::layout::{self, FOOTER_BYTES, Footer, HEADER_BYTES, NotThis};
use super::{Pace, SegmentError, SegmentInfo, SegmentNumber};
use crate::fs::{File, FileSystem};
use crate::log::Operation;

/// Bytes read at a time.
const PIECE_BYTES: u64 = 1 << 20;

/// Gives a segment, whose file has a name for unfinished ones, another number, and makes that durable; what it is then.
/// `info` is what it must be before.
pub fn renumber(
    fs: &dyn FileSystem,
    path: &Path,
    info: &SegmentInfo,
    number: SegmentNumber,
    pace: Pace<'_>,
) -> Result<SegmentInfo, SegmentError> {
    let file = fs.open_rw(path).or_fail(Operation::Open, path)?;
    let bytes = file.len().or_fail(Operation::Read, path)?;
    let ends = (HEADER_BYTES + FOOTER_BYTES) as u64;
    if bytes != info.bytes || bytes < ends {
        return Err(SegmentError::damaged(path, bytes, "it has another length than it should"));
    }
    let (mut own_header, mut own_footer) = ([0; HEADER_BYTES], [0; FOOTER_BYTES]);
    file.read_at(0, &mut own_header).or_fail(Operation::Read, path)?;
    file.read_at(bytes - FOOTER_BYTES as u64, &mut own_footer).or_fail(Operation::Read, path)?;
    layout::check_header(&own_header, info.number).map_err(|not_this| match not_this {
        NotThis::Flaw(flaw) => flaw.at(path),
        NotThis::Version(version) => {
            SegmentError::Version { path: path.to_path_buf(), version, supported: layout::VERSION }
        }
        NotThis::Number => SegmentError::Foreign { path: path.to_path_buf(), what: "the number" },
    })?;
    let mut named = Footer::decode(&own_footer, bytes - FOOTER_BYTES as u64).map_err(|flaw| flaw.at(path))?;
    if let Some(what) = (SegmentInfo { checksum: info.checksum, ..named.info }).difference(info) {
        return Err(SegmentError::Foreign { path: path.to_path_buf(), what });
    }
    named.info.number = number;
    let (header, footer) = (layout::encode_header(number), named.encode());
    let body = Body { file: &*file, path, end: bytes - FOOTER_BYTES as u64 };
    let checksum = body.checksums([&own_header, &own_footer], [&header, &footer], info.checksum, pace)?;
    file.write_at(0, &header).or_fail(Operation::Write, path)?;
    file.write_at(body.end, &footer).or_fail(Operation::Write, path)?;
    file.sync_data().or_fail(Operation::Sync, path)?;
    Ok(SegmentInfo { number, checksum, ..*info })
}

/// What stands between header and footer.
struct Body<'a> {
    file: &'a dyn File,
    path: &'a Path,
    end: u64,
}

impl Body<'_> {
    /// Checks the checksum of the file with its own edges, and computes that with other ones.
    fn checksums(
        &self,
        [own_header, own_footer]: [&[u8]; 2],
        [header, footer]: [&[u8]; 2],
        expected: u32,
        pace: Pace<'_>,
    ) -> Result<u32, SegmentError> {
        let (mut before, mut after) = (crc32fast::Hasher::new(), crc32fast::Hasher::new());
        before.update(own_header);
        after.update(header);
        let mut piece = Vec::new();
        for offset in (HEADER_BYTES as u64..self.end).step_by(PIECE_BYTES as usize) {
            piece.resize(PIECE_BYTES.min(self.end - offset) as usize, 0);
            pace(piece.len() as u64);
            self.file.read_at(offset, &mut piece).or_fail(Operation::Read, self.path)?;
            before.update(&piece);
            after.update(&piece);
        }
        before.update(own_footer);
        after.update(footer);
        if before.finalize() != expected {
            return Err(SegmentError::damaged(self.path, 0, "the file does not match its CRC"));
        }
        Ok(after.finalize())
    }
}
