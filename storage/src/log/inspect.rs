//! Owns the offline look into a log: every segment, batch and record, checksums verified, nothing changed.
//!
//! - It shows what stands in the files, also what no longer counts (old batches in reused segments do not fit and
//!   are not shown); which batches count is decided at open.

use std::path::Path;

use super::batch::Kind;
use super::failure::OrFail;
use super::scan::{Scanned, used_bytes};
use super::segment::{Name, path_of};
use super::{GroupId, OpenError, Operation};
use crate::fs::FileSystem;

/// What a look into a log comes across, in the order of the files.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Inspected<'a> {
    /// The start of a segment.
    Segment(InspectedSegment<'a>),
    /// A segment that is not there although a newer one is.
    MissingSegment {
        /// The file that should be there.
        path: &'a Path,
    },
    /// A segment that cannot be read.
    UnreadableSegment {
        /// The file.
        path: &'a Path,
        /// Why.
        error: &'a OpenError,
    },
    /// A batch with a good header.
    Batch(InspectedBatch),
    /// A record of the batch before.
    Record(InspectedRecord<'a>),
    /// Bytes between the batches, or after the last one, that are neither a batch nor zeros: damage, a torn tail, or
    /// what was in a reused file before.
    Unknown {
        /// The file.
        path: &'a Path,
        /// Where, in bytes.
        offset: u64,
        /// How many.
        bytes: u64,
        /// Whether the file was in use before, so that old bytes are to be expected after the last batch.
        reused: bool,
        /// Whether a batch follows in the same segment: then it is damage.
        before_batch: bool,
    },
}

/// A segment's header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InspectedSegment<'a> {
    /// The file.
    pub path: &'a Path,
    /// Its number.
    pub sequence: u64,
    /// Absolute position of its first byte.
    pub start: u64,
    /// Its length.
    pub bytes: u64,
    /// The run of the log that made it.
    pub incarnation: u64,
    /// Where one of the two header copies is damaged.
    pub damaged_copy: Option<u64>,
}

/// A batch's header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InspectedBatch {
    /// Where it starts in the file.
    pub offset: u64,
    /// Absolute position.
    pub position: u64,
    /// Its number.
    pub number: u64,
    /// Its length without padding.
    pub bytes: u64,
    /// How many records it has.
    pub records: u64,
    /// Whether it is a mark.
    pub mark: bool,
    /// The oldest segment needed once it was durable.
    pub keep_from: u64,
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InspectedRecord<'a> {
    /// Its group.
    pub group: GroupId,
    /// What it does: `vote`, `append`, `truncate-after`, `truncate-all`, `purge`, `committed` or `forget`.
    pub kind: &'static str,
    /// The index, for kinds that have one.
    pub index: Option<u64>,
    /// Where the payload starts in the file.
    pub offset: u64,
    /// Length of the payload.
    pub bytes: u64,
    /// The payload; none if its checksum is wrong.
    pub payload: Option<&'a [u8]>,
}

/// The sequence numbers of the segments in a directory, ascending.
pub(super) fn segments_in(fs: &dyn FileSystem, dir: &Path) -> Result<Vec<u64>, OpenError> {
    let names = fs.list(dir).or_fail(Operation::ListDirectory, dir)?;
    let sequence = |name: &String| match Name::parse(name) {
        Some(Name::Segment(sequence)) => Some(sequence),
        _ => None,
    };
    let mut sequences: Vec<u64> = names.iter().filter_map(sequence).collect();
    sequences.sort_unstable();
    Ok(sequences)
}

/// Shows everything that stands in a log's directory. Only an error of the directory itself ends it early; `pace` hears of
/// what is read.
pub fn inspect(
    fs: &dyn FileSystem,
    dir: &Path,
    pace: &dyn Fn(u64),
    visit: &mut dyn FnMut(&Inspected<'_>),
) -> Result<(), OpenError> {
    let sequences = segments_in(fs, dir)?;
    let mut before = None;
    for sequence in sequences {
        if before.is_some_and(|before| before + 1 != sequence) {
            visit(&Inspected::MissingSegment { path: &path_of(dir, sequence - 1) });
        }
        before = Some(sequence);
        let path = path_of(dir, sequence);
        let pace = |bytes| {
            pace(bytes);
            Ok(())
        };
        match Scanned::read_paced(fs, &path, &pace, Vec::new()) {
            Ok(segment) => inspect_segment(&segment, visit),
            Err(error) => visit(&Inspected::UnreadableSegment { path: &path, error: &error }),
        }
    }
    Ok(())
}

fn inspect_segment(segment: &Scanned, visit: &mut dyn FnMut(&Inspected<'_>)) {
    let header = &segment.header;
    visit(&Inspected::Segment(InspectedSegment {
        path: &segment.path,
        sequence: header.sequence,
        start: header.start,
        bytes: header.bytes,
        incarnation: header.incarnation,
        damaged_copy: segment.damaged_copy,
    }));
    let mut end = super::BLOCK_BYTES;
    for batch in &segment.batches {
        inspect_gap(segment, end, batch.offset, true, visit);
        end = batch.offset + batch.head.padded_bytes();
        let fields = &batch.head.header;
        visit(&Inspected::Batch(InspectedBatch {
            offset: batch.offset,
            position: fields.position,
            number: fields.number,
            bytes: batch.head.bytes,
            records: batch.head.lines.len() as u64,
            mark: fields.mark,
            keep_from: fields.keep_from,
        }));
        let bytes = segment.bytes_of(batch);
        for line in &batch.head.lines {
            let indexed = matches!(line.kind, Kind::Append | Kind::TruncateAfter | Kind::Purge);
            visit(&Inspected::Record(InspectedRecord {
                group: line.group,
                kind: line.kind.name(),
                index: indexed.then_some(line.index),
                offset: batch.offset + line.offset,
                bytes: u64::from(line.bytes),
                payload: line.payload(bytes),
            }));
        }
    }
    inspect_gap(segment, end, header.bytes, false, visit);
}

fn inspect_gap(
    segment: &Scanned,
    from: u64,
    to: u64,
    before_batch: bool,
    visit: &mut dyn FnMut(&Inspected<'_>),
) {
    let gap = &segment.bytes[from as usize..to as usize];
    let used = used_bytes(gap);
    if used == 0 && !(before_batch && to > from) {
        return;
    }
    visit(&Inspected::Unknown {
        path: &segment.path,
        offset: from,
        bytes: if before_batch { to - from } else { used },
        reused: segment.header.reused,
        before_batch,
    });
}
