//! Owns the name of a segment and what others keep of it to open it again.

use std::fmt;

use crate::codec::{Encoded, Malformed, Reader, encoded_struct};
use crate::ids::{EntryId, Stamp};

const SUFFIX: &str = ".segment";

/// The number of a segment, never used twice in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentNumber(pub u64);

impl SegmentNumber {
    /// The name of the finished file: 16 lower-case hexadecimal digits and `.segment`.
    pub fn file_name(self) -> String {
        format!("{self}{SUFFIX}")
    }

    /// The name of the file while it is being written.
    pub(super) fn unfinished_name(self) -> String {
        format!("{self}{SUFFIX}.new")
    }

    /// The number that the name of a finished file carries; none for every other name.
    pub fn of_file_name(name: &str) -> Option<Self> {
        let number = Self(u64::from_str_radix(name.strip_suffix(SUFFIX)?, 16).ok()?);
        (number.file_name() == name).then_some(number)
    }
}

impl fmt::Display for SegmentNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Encoded for SegmentNumber {
    fn encode(&self, out: &mut Vec<u8>) {
        self.0.encode(out);
    }
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        from.u64().map(Self)
    }
}

/// What a finished segment holds; made by the writer, expected by whoever opens the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Its number.
    pub number: SegmentNumber,
    /// How many entries it holds, at least one.
    pub entries: u64,
    /// The lowest id.
    pub lowest: EntryId,
    /// The highest id.
    pub highest: EntryId,
    /// The first and the last expiry; none if no entry expires. Others may stay for ever.
    pub expiry: Option<(Stamp, Stamp)>,
    /// How many entries have an expiry; if all have one, nothing is left of the segment after the last.
    pub expiring: u64,
    /// The sum of the payloads' lengths.
    pub payload_bytes: u64,
    /// The length of the file.
    pub bytes: u64,
    /// CRC-32 over the whole file.
    pub checksum: u32,
}

encoded_struct!(SegmentInfo {
    number,
    entries,
    lowest,
    highest,
    expiry,
    expiring,
    payload_bytes,
    bytes,
    checksum
});

impl SegmentInfo {
    /// What the first difference to `other` is; none if there is none.
    pub(super) fn difference(&self, other: &Self) -> Option<&'static str> {
        let differences = [
            (self.number != other.number, "the number"),
            (self.bytes != other.bytes, "the length"),
            (self.entries != other.entries, "the number of entries"),
            (self.lowest != other.lowest, "the lowest id"),
            (self.highest != other.highest, "the highest id"),
            (self.expiring != other.expiring, "the number of expiring entries"),
            (self.expiry != other.expiry, "the first or the last expiry"),
            (self.payload_bytes != other.payload_bytes, "the length of the payloads"),
            (self.checksum != other.checksum, "the checksum"),
        ];
        differences.into_iter().find_map(|(differs, what)| differs.then_some(what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_name_of_a_finished_file_is_one() {
        let number = SegmentNumber(0xBEEF);
        assert_eq!(number.file_name(), "000000000000beef.segment");
        assert_eq!(SegmentNumber::of_file_name("000000000000beef.segment"), Some(number));
        for other in [
            "000000000000BEEF.segment",
            "beef.segment",
            "+00000000000beef.segment",
            "000000000000beef.segment.new",
        ] {
            assert_eq!(SegmentNumber::of_file_name(other), None, "{other}");
        }
    }
}
