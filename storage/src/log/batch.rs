//! Owns the bytes of a batch: the header, the table of its records, and their payloads.
//!
//! - The header's checksum covers the header and the table, the table holds a checksum per payload: together every
//!   byte but the padding is covered, and a damaged payload still tells whose it was.
//! - A batch is decoded only with the salt of its log; the caller compares position and incarnation.
//!
//! Format: `storage/FORMAT.md`, "Batch".

use bytes::Bytes;

use super::options::BLOCK_BYTES;
use super::{GroupId, Record};

/// Bytes of a batch's header.
pub(super) const HEADER_BYTES: usize = 80;
/// Bytes of a record's line in the table.
pub(super) const LINE_BYTES: usize = 24;

const MAGIC: [u8; 4] = *b"FFLB";
pub(super) const VERSION: u16 = 1;
const FLAG_MARK: u16 = 1;
const CRC_AT: usize = 8;

const _: () = assert!(HEADER_BYTES.is_multiple_of(8) && LINE_BYTES.is_multiple_of(8));
const _: () = assert!(BLOCK_BYTES as usize > HEADER_BYTES);

/// The fields of a batch's header that do not follow from its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BatchHeader {
    /// Whether it was written only to show that everything before it is durable.
    pub(super) mark: bool,
    /// Absolute position of its first byte.
    pub(super) position: u64,
    /// The run of the log that wrote it.
    pub(super) incarnation: u64,
    /// One more than the batch before.
    pub(super) number: u64,
    /// Everything before this position was durable when it was written.
    pub(super) durable: u64,
    /// One bit for each group (its number modulo 64) with records in the batch before.
    pub(super) previous_groups: u64,
    /// The oldest segment still needed once this batch is durable.
    pub(super) keep_from: u64,
}

/// What a record does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Vote = 1,
    Append = 2,
    TruncateAfter = 3,
    TruncateAll = 4,
    Purge = 5,
    Committed = 6,
    Forget = 7,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Vote,
            2 => Self::Append,
            3 => Self::TruncateAfter,
            4 => Self::TruncateAll,
            5 => Self::Purge,
            6 => Self::Committed,
            7 => Self::Forget,
            _ => return None,
        })
    }
}

impl Kind {
    /// Its name in the output of commands.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Vote => "vote",
            Self::Append => "append",
            Self::TruncateAfter => "truncate-after",
            Self::TruncateAll => "truncate-all",
            Self::Purge => "purge",
            Self::Committed => "committed",
            Self::Forget => "forget",
        }
    }
}

/// A record's line in the table, and where its payload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) kind: Kind,
    pub(super) group: GroupId,
    pub(super) index: u64,
    /// Length of the payload.
    pub(super) bytes: u32,
    /// Checksum of the payload.
    pub(super) crc: u32,
    /// Where the payload starts, from the batch's first byte.
    pub(super) offset: u64,
}

impl Line {
    /// The payload inside the batch's bytes; none if its checksum is wrong.
    pub(super) fn payload<'a>(&self, batch: &'a [u8]) -> Option<&'a [u8]> {
        let from = usize::try_from(self.offset).ok()?;
        let payload = batch.get(from..from.checked_add(self.bytes as usize)?)?;
        (crc32fast::hash(payload) == self.crc).then_some(payload)
    }

    /// The record with the given payload.
    pub(super) fn record(&self, data: Bytes) -> Record {
        let (group, index) = (self.group, self.index);
        match self.kind {
            Kind::Vote => Record::Vote { group, data },
            Kind::Append => Record::Append { group, index, data },
            Kind::TruncateAfter => Record::TruncateAfter { group, index: Some(index) },
            Kind::TruncateAll => Record::TruncateAfter { group, index: None },
            Kind::Purge => Record::Purge { group, index, data },
            Kind::Committed => Record::Committed { group, data },
            Kind::Forget => Record::Forget { group },
        }
    }
}

/// A batch's header and table, checksum verified; the payloads are not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BatchHead {
    pub(super) header: BatchHeader,
    pub(super) lines: Vec<Line>,
    /// Length of header, table and payloads.
    pub(super) bytes: u64,
}

impl BatchHead {
    /// Length including the padding up to the next boundary.
    pub(super) fn padded_bytes(&self) -> u64 {
        self.bytes.next_multiple_of(BLOCK_BYTES)
    }

    /// One bit for each group with records in this batch.
    pub(super) fn groups_mask(&self) -> u64 {
        self.lines.iter().fold(0, |mask, line| mask | group_bit(line.group))
    }

    /// Whether every payload inside the batch's bytes has its checksum.
    pub(super) fn is_intact(&self, batch: &[u8]) -> bool {
        self.lines.iter().all(|line| line.payload(batch).is_some())
    }
}

/// A group's bit in a mask of groups.
pub(super) fn group_bit(group: GroupId) -> u64 {
    1 << (group.0 % 64)
}

/// Bytes that a record takes in a batch.
pub(super) fn record_bytes(record: &Record) -> u64 {
    LINE_BYTES as u64 + record.data().len() as u64
}

/// Bytes that a batch takes on disk with records of that many bytes ([`record_bytes`]).
pub(super) fn padded_bytes(records_bytes: u64) -> u64 {
    (HEADER_BYTES as u64 + records_bytes).next_multiple_of(BLOCK_BYTES)
}

/// A batch ready to be written, and its lines in the order of its records.
#[derive(Debug)]
pub(super) struct Encoded {
    pub(super) bytes: Vec<u8>,
    pub(super) lines: Vec<Line>,
}

/// Lays out a batch, padding included. The caller has checked that it fits into a segment.
pub(super) fn encode<'a>(
    salt: u64,
    header: &BatchHeader,
    records: impl Iterator<Item = &'a Record> + Clone,
) -> Encoded {
    let count = records.clone().count();
    let table_end = HEADER_BYTES + count * LINE_BYTES;
    let used = table_end + records.clone().map(|record| record.data().len()).sum::<usize>();
    assert!(u32::try_from(used).is_ok(), "submissions are split long before a batch has 4 GiB");
    let mut bytes = Vec::with_capacity(used.next_multiple_of(BLOCK_BYTES as usize));
    bytes.resize(table_end, 0);
    let mut lines = Vec::with_capacity(count);
    for (number, record) in records.enumerate() {
        let line = line_of(record, bytes.len() as u64);
        put_line(&mut bytes[HEADER_BYTES + number * LINE_BYTES..][..LINE_BYTES], &line);
        bytes.extend_from_slice(record.data());
        lines.push(line);
    }
    assert_eq!(bytes.len(), used, "the layout is what was computed");
    put_header(&mut bytes[..HEADER_BYTES], header, count as u32, used as u32);
    let crc = head_crc(salt, &bytes[..table_end]);
    put(&mut bytes, CRC_AT, &crc.to_le_bytes());
    bytes.resize(used.next_multiple_of(BLOCK_BYTES as usize), 0);
    Encoded { bytes, lines }
}

fn line_of(record: &Record, offset: u64) -> Line {
    let (kind, index) = match record {
        Record::Vote { .. } => (Kind::Vote, 0),
        Record::Append { index, .. } => (Kind::Append, *index),
        Record::TruncateAfter { index: Some(index), .. } => (Kind::TruncateAfter, *index),
        Record::TruncateAfter { index: None, .. } => (Kind::TruncateAll, 0),
        Record::Purge { index, .. } => (Kind::Purge, *index),
        Record::Committed { .. } => (Kind::Committed, 0),
        Record::Forget { .. } => (Kind::Forget, 0),
    };
    let data = record.data();
    Line { kind, group: record.group(), index, bytes: data.len() as u32, crc: crc32fast::hash(data), offset }
}

fn put(bytes: &mut [u8], at: usize, field: &[u8]) {
    bytes[at..at + field.len()].copy_from_slice(field);
}

fn put_line(bytes: &mut [u8], line: &Line) {
    put(bytes, 0, &[line.kind as u8]);
    put(bytes, 4, &line.group.0.to_le_bytes());
    put(bytes, 8, &line.index.to_le_bytes());
    put(bytes, 16, &line.bytes.to_le_bytes());
    put(bytes, 20, &line.crc.to_le_bytes());
}

fn put_header(bytes: &mut [u8], header: &BatchHeader, count: u32, used: u32) {
    put(bytes, 0, &MAGIC);
    put(bytes, 4, &VERSION.to_le_bytes());
    put(bytes, 6, &(if header.mark { FLAG_MARK } else { 0 }).to_le_bytes());
    put(bytes, 12, &count.to_le_bytes());
    put(bytes, 16, &used.to_le_bytes());
    put(bytes, 24, &header.position.to_le_bytes());
    put(bytes, 32, &header.incarnation.to_le_bytes());
    put(bytes, 40, &header.number.to_le_bytes());
    put(bytes, 48, &header.durable.to_le_bytes());
    put(bytes, 56, &header.previous_groups.to_le_bytes());
    put(bytes, 64, &header.keep_from.to_le_bytes());
}

/// The checksum of header and table, without the checksum's own field. The salt goes first.
fn head_crc(salt: u64, head: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&salt.to_le_bytes());
    hasher.update(&head[..CRC_AT]);
    hasher.update(&head[CRC_AT + 4..]);
    hasher.finalize()
}

pub(super) fn get_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

pub(super) fn get_u64(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// The position and length that the first bytes claim, without any check: only to describe an unfinished batch.
pub(super) fn claims(bytes: &[u8]) -> Option<(u64, u64)> {
    let found = bytes.starts_with(&MAGIC);
    found.then(|| Some((get_u64(bytes, 24)?, u64::from(get_u32(bytes, 16)?))))?
}

/// Reads header and table from the bytes between a boundary and the segment's end; none if they are no batch.
///
/// Nothing is allocated before the checksum was verified over bytes that are there.
pub(super) fn decode(salt: u64, bytes: &[u8]) -> Option<BatchHead> {
    if !bytes.starts_with(&MAGIC) || bytes.len() < HEADER_BYTES || bytes[4..6] != VERSION.to_le_bytes() {
        return None;
    }
    let count = get_u32(bytes, 12)? as usize;
    let used = get_u32(bytes, 16)? as usize;
    let table_end = count.checked_mul(LINE_BYTES)?.checked_add(HEADER_BYTES)?;
    if used > bytes.len() || table_end > used {
        return None;
    }
    if head_crc(salt, &bytes[..table_end]) != get_u32(bytes, CRC_AT)? {
        return None;
    }
    let header = BatchHeader {
        mark: bytes[6..8] == FLAG_MARK.to_le_bytes(),
        position: get_u64(bytes, 24)?,
        incarnation: get_u64(bytes, 32)?,
        number: get_u64(bytes, 40)?,
        durable: get_u64(bytes, 48)?,
        previous_groups: get_u64(bytes, 56)?,
        keep_from: get_u64(bytes, 64)?,
    };
    let mut lines = Vec::with_capacity(count);
    let mut offset = table_end as u64;
    for line in bytes[HEADER_BYTES..table_end].chunks_exact(LINE_BYTES) {
        let payload_bytes = get_u32(line, 16)?;
        lines.push(Line {
            kind: Kind::from_byte(line[0])?,
            group: GroupId(get_u32(line, 4)?),
            index: get_u64(line, 8)?,
            bytes: payload_bytes,
            crc: get_u32(line, 20)?,
            offset,
        });
        offset += u64::from(payload_bytes);
    }
    (offset == used as u64).then_some(BatchHead { header, lines, bytes: used as u64 })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: u64 = 77;

    fn records() -> Vec<Record> {
        let group = GroupId(65);
        vec![
            Record::Vote { group, data: Bytes::from_static(b"vote") },
            Record::Append { group: GroupId(3), index: 9, data: Bytes::from(vec![5; 5000]) },
            Record::TruncateAfter { group, index: Some(4) },
            Record::TruncateAfter { group, index: None },
            Record::Purge { group, index: 8, data: Bytes::from_static(b"id") },
            Record::Committed { group, data: Bytes::new() },
            Record::Forget { group },
        ]
    }

    fn header() -> BatchHeader {
        BatchHeader {
            mark: false,
            position: 8192,
            incarnation: 3,
            number: 11,
            durable: 8192,
            previous_groups: 6,
            keep_from: 2,
        }
    }

    #[test]
    fn a_batch_decodes_to_what_was_encoded() {
        let encoded = encode(SALT, &header(), records().iter());
        assert_eq!(encoded.bytes.len(), 8192);
        let total = records().iter().map(record_bytes).sum();
        assert_eq!(padded_bytes(total), 8192);
        let head = decode(SALT, &encoded.bytes).unwrap();
        assert_eq!(head.header, header());
        assert_eq!(head.lines, encoded.lines);
        assert_eq!(head.groups_mask(), 0b1010);
        assert!(head.is_intact(&encoded.bytes));
        let back: Vec<Record> = head
            .lines
            .iter()
            .map(|line| line.record(Bytes::copy_from_slice(line.payload(&encoded.bytes).unwrap())))
            .collect();
        assert_eq!(back, records());
    }

    #[test]
    fn a_batch_of_another_log_or_cut_short_is_none() {
        let encoded = encode(SALT, &header(), records().iter());
        assert!(decode(SALT + 1, &encoded.bytes).is_none());
        for cut in 0..5200 {
            assert!(decode(SALT, &encoded.bytes[..cut]).is_none(), "cut at {cut}");
        }
    }

    #[test]
    fn no_flipped_bit_goes_unseen() {
        let mut bytes = encode(SALT, &header(), records().iter()).bytes;
        let used = decode(SALT, &bytes).unwrap().bytes as usize;
        for bit in 0..used * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            let seen = decode(SALT, &bytes).is_none_or(|head| !head.is_intact(&bytes));
            assert!(seen, "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }
}
