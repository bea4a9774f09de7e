//! Owns the bytes that manifests and bucket files begin with.
//!
//! Format: `storage/FORMAT.md`, "Snapshots".

use super::error::Fault;
use crate::log::GroupId;

/// Bytes of the header.
pub(super) const HEADER_BYTES: usize = 24;
/// The version of the format that this program reads and writes.
pub(super) const VERSION: u16 = 1;

const CRC_AT: usize = 8;

/// The header of a file, still without its checksum.
pub(super) fn begin(magic: [u8; 4], group: GroupId, number: u64) -> Vec<u8> {
    let mut bytes = vec![0; HEADER_BYTES];
    bytes[0..4].copy_from_slice(&magic);
    bytes[4..6].copy_from_slice(&VERSION.to_le_bytes());
    bytes[12..16].copy_from_slice(&group.0.to_le_bytes());
    bytes[16..24].copy_from_slice(&number.to_le_bytes());
    bytes
}

/// Puts the checksum of all the bytes into their header.
pub(super) fn seal(bytes: &mut [u8]) {
    let crc = crc(bytes);
    bytes[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
}

/// Whether sealed bytes are what was written, and under the right name.
pub(super) fn check(bytes: &[u8], magic: [u8; 4], group: GroupId, number: u64) -> Result<(), Fault> {
    if bytes.len() < HEADER_BYTES {
        return Err(Fault::Damaged { offset: 0, what: "length" });
    }
    if bytes[0..4] != magic {
        return Err(Fault::Damaged { offset: 0, what: "magic number" });
    }
    if bytes[CRC_AT..CRC_AT + 4] != crc(bytes).to_le_bytes() {
        return Err(Fault::Damaged { offset: 0, what: "checksum" });
    }
    let version = u16::from_le_bytes([bytes[4], bytes[5]]);
    if version != VERSION {
        return Err(Fault::Version(version));
    }
    if bytes[6..8] != [0; 2] {
        return Err(Fault::Damaged { offset: 6, what: "flags" });
    }
    if bytes[12..16] != group.0.to_le_bytes() || bytes[16..24] != number.to_le_bytes() {
        return Err(Fault::Foreign);
    }
    Ok(())
}

fn crc(bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[..CRC_AT]);
    hasher.update(&bytes[CRC_AT + 4..]);
    hasher.finalize()
}
