//! Owns segments: immutable, checksummed files of entries. The format is in `storage/FORMAT.md`.
//!
//! - A file with the name of a segment is whole and durable: it is written under another name, synced and renamed.
//! - Entries are ordered by space, owner and descending id. Each carries its own CRC, so that a read checks what it reads;
//!   the indexes are checked when the file is opened.
//! - All searches go on in the bytes of the indexes. What tells ids apart stands away from the payloads: only whoever reads an entry reads
//!   payloads.
//! - Whatever bytes a file has, reading it gives an error and never a panic, and nothing is allocated for a length that was not
//!   checked.
//! - A payload that was read may be a slice of a few KiB that were read with it. An open segment can be read after its removal.

mod error;
mod filter;
mod index;
mod index_writer;
mod info;
mod iter;
mod layout;
mod output;
mod packed;
mod reader;
mod record;
mod renumber;
#[cfg(test)]
mod tests;
mod verify;
mod writer;

pub use error::SegmentError;
pub use info::{SegmentInfo, SegmentNumber};
pub use iter::{Entries, Ids};
pub use reader::Segment;
pub use renumber::renumber;
pub use writer::{Pace, SegmentWriter};

use crate::ids::EntryId;

/// The mark by which the index of ids tells ids of one group apart, nearly always.
fn mark(id: EntryId) -> u64 {
    id.0.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 48
}
