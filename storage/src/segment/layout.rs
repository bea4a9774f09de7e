//! Owns the fixed parts of a segment: header, footer, and where they say that everything else stands.

use std::ops::Range;

use crc32fast::Hasher;

use super::error::Flaw;
use super::packed::{get_u32, get_u64};
use super::{SegmentInfo, SegmentNumber};
use crate::ids::{EntryId, Stamp};

pub(super) const VERSION: u16 = 1;
pub(super) const HEADER_BYTES: usize = 32;
pub(super) const FOOTER_BYTES: usize = 144;
/// A line of the index of timelines: space, owner, end.
pub(super) const TIMELINE_BYTES: usize = 14;
/// Lines of the index of ids for which one first id stands.
pub(super) const GROUP_LINES: usize = 64;
/// The mark of an id in the index of ids.
pub(super) const MARK_BYTES: usize = 2;
/// A block of the filter.
pub(super) const FILTER_BLOCK_BYTES: usize = 64;

const MAGIC: [u8; 4] = *b"FFTS";
const FOOTER_MAGIC: [u8; 4] = *b"FFTE";
const CRC_AT: usize = 8;
pub(super) const FOOTER_CRC_AT: usize = 12;
pub(super) const CRCS_AT: usize = 120;

const _: () = assert!(CRCS_AT + 4 * Section::ALL.len() == FOOTER_BYTES);

/// The pieces between the entries and the footer, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Section {
    Timelines,
    Lines,
    Groups,
    Ids,
    Expiries,
    Filter,
}

impl Section {
    pub(super) const ALL: [Self; 6] =
        [Self::Timelines, Self::Lines, Self::Groups, Self::Ids, Self::Expiries, Self::Filter];

    pub(super) fn damage(self) -> &'static str {
        match self {
            Self::Timelines => "the index of timelines does not match its CRC",
            Self::Lines => "the lines of the entries do not match their CRC",
            Self::Groups => "the first ids do not match their CRC",
            Self::Ids => "the index of ids does not match its CRC",
            Self::Expiries => "the index of expiries does not match its CRC",
            Self::Filter => "the filter does not match its CRC",
        }
    }
}

/// The CRC of a fixed part, without the four bytes at `at` that hold it.
pub(super) fn crc_around(bytes: &[u8], at: usize) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(&bytes[..at]);
    hasher.update(&bytes[at + 4..]);
    hasher.finalize()
}

pub(super) fn encode_header(number: SegmentNumber) -> [u8; HEADER_BYTES] {
    let mut out = [0; HEADER_BYTES];
    out[..4].copy_from_slice(&MAGIC);
    out[4..6].copy_from_slice(&VERSION.to_le_bytes());
    out[16..24].copy_from_slice(&number.0.to_le_bytes());
    let crc = crc_around(&out, CRC_AT);
    out[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
    out
}

/// What a header that is not the expected one is.
#[derive(Debug)]
pub(super) enum NotThis {
    Flaw(Flaw),
    Version(u16),
    Number,
}

/// Whether a file begins or ends as a segment does.
pub(super) fn is_marked(header: &[u8; HEADER_BYTES], footer: &[u8; FOOTER_BYTES]) -> bool {
    header[..4] == MAGIC || footer[..4] == FOOTER_MAGIC
}

/// Checks the header.
pub(super) fn check_header(bytes: &[u8; HEADER_BYTES], number: SegmentNumber) -> Result<(), NotThis> {
    if bytes[..4] != MAGIC {
        return Err(NotThis::Flaw(Flaw { offset: 0, what: "it does not begin as a segment does" }));
    }
    if get_u32(bytes, CRC_AT) != crc_around(bytes, CRC_AT) {
        return Err(NotThis::Flaw(Flaw { offset: 0, what: "the header does not match its CRC" }));
    }
    // The version stands where every version has it, and so does the CRC of the header.
    let version = u16::from_le_bytes([bytes[4], bytes[5]]);
    if version != VERSION {
        return Err(NotThis::Version(version));
    }
    if get_u64(bytes, 16) == number.0 { Ok(()) } else { Err(NotThis::Number) }
}

/// What the last bytes of a segment say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Footer {
    /// All of it but the checksum, which is not in the file.
    pub(super) info: SegmentInfo,
    pub(super) timelines: u64,
    pub(super) expiries: u64,
    pub(super) filter_blocks: u64,
    /// Where the entries end and the indexes begin.
    pub(super) data_end: u64,
    pub(super) widths: Widths,
    pub(super) crcs: [u32; Section::ALL.len()],
}

/// How many bytes the numbers of the indexes have, 1 to 8 each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Widths {
    pub(super) id: usize,
    pub(super) place: usize,
    pub(super) timeline: usize,
    pub(super) expiry: usize,
}

impl Footer {
    pub(super) fn encode(&self) -> [u8; FOOTER_BYTES] {
        let mut out = [0; FOOTER_BYTES];
        out[..4].copy_from_slice(&FOOTER_MAGIC);
        out[4..6].copy_from_slice(&VERSION.to_le_bytes());
        let widths = [self.widths.id, self.widths.place, self.widths.timeline, self.widths.expiry];
        for (at, width) in widths.into_iter().enumerate() {
            out[6 + at] = width as u8;
        }
        let (first, last) = self.info.expiry.unwrap_or_default();
        let numbers = [
            self.info.number.0,
            self.info.entries,
            self.timelines,
            self.expiries,
            self.filter_blocks,
            self.data_end,
            self.info.lowest.0,
            self.info.highest.0,
            first.0,
            last.0,
            self.info.expiring,
            self.info.payload_bytes,
            self.info.bytes,
        ];
        for (at, number) in numbers.into_iter().enumerate() {
            out[16 + 8 * at..24 + 8 * at].copy_from_slice(&number.to_le_bytes());
        }
        for (at, crc) in self.crcs.into_iter().enumerate() {
            out[CRCS_AT + 4 * at..CRCS_AT + 4 + 4 * at].copy_from_slice(&crc.to_le_bytes());
        }
        let crc = crc_around(&out, FOOTER_CRC_AT);
        out[FOOTER_CRC_AT..FOOTER_CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads the footer that stands at `offset`; the info's checksum is left zero.
    pub(super) fn decode(bytes: &[u8; FOOTER_BYTES], offset: u64) -> Result<Self, Flaw> {
        if bytes[..4] != FOOTER_MAGIC || get_u32(bytes, FOOTER_CRC_AT) != crc_around(bytes, FOOTER_CRC_AT) {
            return Err(Flaw { offset, what: "the footer does not match its CRC" });
        }
        let width = |at: usize| usize::from(bytes[6 + at]);
        let widths = Widths { id: width(0), place: width(1), timeline: width(2), expiry: width(3) };
        let number = |at: usize| get_u64(bytes, 16 + 8 * at);
        let expiring = number(10);
        let info = SegmentInfo {
            number: SegmentNumber(number(0)),
            entries: number(1),
            lowest: EntryId(number(6)),
            highest: EntryId(number(7)),
            expiry: (expiring > 0).then(|| (Stamp(number(8)), Stamp(number(9)))),
            expiring,
            payload_bytes: number(11),
            bytes: number(12),
            checksum: 0,
        };
        let mut crcs = [0; Section::ALL.len()];
        for (at, crc) in crcs.iter_mut().enumerate() {
            *crc = get_u32(bytes, CRCS_AT + 4 * at);
        }
        let (timelines, expiries, filter_blocks, data_end) = (number(2), number(3), number(4), number(5));
        Ok(Self { info, timelines, expiries, filter_blocks, data_end, widths, crcs })
    }

    /// Where the sections stand in a file of `bytes` bytes; none if they would not fill it exactly.
    pub(super) fn sections(&self, bytes: u64) -> Option<[Range<usize>; Section::ALL.len()]> {
        let Widths { id, place, timeline, expiry } = self.widths;
        let entries = self.info.entries;
        let sane = [id, place, timeline, expiry].iter().all(|width| (1..=8).contains(width))
            && (1..=u64::from(u32::MAX)).contains(&entries)
            && (1..=entries).contains(&self.timelines)
            && self.expiries <= entries
            && self.filter_blocks > 0
            && (HEADER_BYTES as u64..bytes).contains(&self.data_end);
        let mut at = self.data_end;
        let mut sections: [Range<usize>; Section::ALL.len()] = Default::default();
        for (place_of, section) in sections.iter_mut().zip(Section::ALL) {
            let (lines, line_bytes) = match section {
                Section::Timelines => (self.timelines, TIMELINE_BYTES),
                Section::Lines => (entries, id.checked_add(place)?),
                Section::Groups => (entries.div_ceil(GROUP_LINES as u64), 8),
                Section::Ids => (entries, MARK_BYTES + timeline),
                Section::Expiries => (self.expiries, expiry),
                Section::Filter => (self.filter_blocks, FILTER_BLOCK_BYTES),
            };
            let end = at.checked_add(lines.checked_mul(line_bytes as u64)?)?;
            *place_of = usize::try_from(at).ok()?..usize::try_from(end).ok()?;
            at = end;
        }
        (sane && self.info.bytes == bytes && at.checked_add(FOOTER_BYTES as u64)? == bytes)
            .then_some(sections)
    }
}
