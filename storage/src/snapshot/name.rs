//! Owns the names in the directory of a group.
//!
//! - A number is in one name only, whatever the kind of the file, and is never used twice.

/// Numbers are below this, so that counting on never ends.
pub(super) const NUMBER_MAX: u64 = 1 << 62;

/// What a file in the directory of a group is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Manifest,
    Buckets,
    Segment,
    /// A bucket file or a manifest, or a segment, which has its kind in the name as well.
    Unfinished,
}

/// The suffix of a segment that is not finished.
const UNFINISHED_SEGMENT: &str = "segment.new";

impl Kind {
    const ALL: [Self; 4] = [Self::Manifest, Self::Buckets, Self::Segment, Self::Unfinished];

    fn suffix(self) -> &'static str {
        match self {
            Self::Manifest => "manifest",
            Self::Buckets => "buckets",
            Self::Segment => "segment",
            Self::Unfinished => "new",
        }
    }

    /// The name of the file of this kind with a number.
    pub(super) fn name(self, number: u64) -> String {
        format!("{number:016x}.{}", self.suffix())
    }

    /// Reads a name; none for files that are not of this directory's kinds.
    pub(super) fn parse(name: &str) -> Option<(Self, u64)> {
        let (number, suffix) = numbered(name)?;
        if suffix == UNFINISHED_SEGMENT {
            return Some((Self::Unfinished, number));
        }
        Self::ALL.into_iter().find(|kind| kind.suffix() == suffix).map(|kind| (kind, number))
    }
}

/// The number and the suffix of a name with a number, whatever the suffix.
pub(super) fn numbered(name: &str) -> Option<(u64, &str)> {
    let (digits, suffix) = name.split_once('.')?;
    let lower = digits.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    if digits.len() != 16 || !lower {
        return None;
    }
    let number = u64::from_str_radix(digits, 16).ok().filter(|number| *number < NUMBER_MAX)?;
    Some((number, suffix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for kind in Kind::ALL {
            assert_eq!(Kind::parse(&kind.name(0xab)), Some((kind, 0xab)));
        }
        assert_eq!(Kind::Manifest.name(0xab), "00000000000000ab.manifest");
        assert_eq!(Kind::parse("00000000000000ab.segment.new"), Some((Kind::Unfinished, 0xab)));
        assert_eq!(numbered("00000000000000ab.other"), Some((0xab, "other")));
        for other in
            ["LOCK", "1.segment", "00000000000000AB.new", "ffffffffffffffff.new", "00000000000000ab.bucket"]
        {
            assert_eq!(Kind::parse(other), None, "{other}");
        }
    }
}
