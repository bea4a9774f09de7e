//! Owns the tests of segments, and what they share.

use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::*;
use crate::entry::{Audience, Entry, EntryRef};
use crate::fs::{FaultFs, FileSystem};
use crate::ids::{SpaceId, Stamp, UserId};

mod crash;
mod damage;
mod golden;
mod property;
mod whole;

const DIR: &str = "/groups/0001";
const NUMBER: SegmentNumber = SegmentNumber(0x1F);

fn dir() -> &'static Path {
    Path::new(DIR)
}

fn path() -> PathBuf {
    dir().join(NUMBER.file_name())
}

fn machine() -> FaultFs {
    let fs = FaultFs::new();
    fs.create_dir_all(dir()).unwrap();
    fs
}

fn entry(space: u16, owner: u64, id: u64, payload: &[u8]) -> Entry {
    Entry {
        id: EntryId(id),
        space: SpaceId(space),
        owner: UserId(owner),
        author: UserId(owner),
        audience: Audience::Public,
        version: 1,
        expiry: None,
        reference: None,
        payload: Bytes::copy_from_slice(payload),
    }
}

/// Every field in every shape, in the order of a segment.
fn every_kind() -> Vec<Entry> {
    let reference =
        Some(EntryRef { owner: UserId(0x0807_0605_0403_0201), id: EntryId(0x1817_1615_1413_1211) });
    vec![
        Entry { audience: Audience::Followers, ..entry(1, 7, 0x0003_0000_1007, b"third") },
        Entry { expiry: Some(Stamp(848_000_086_400)), ..entry(1, 7, 0x0002_0000_0007, b"") },
        Entry { author: UserId(9), version: 2, ..entry(1, 7, 0x0001_0000_0007, b"by somebody else") },
        Entry {
            audience: Audience::Private,
            author: UserId(0x2827_2625_2423_2221),
            version: 0x0403_0201,
            expiry: Some(Stamp(848_000_000_001)),
            reference,
            ..entry(1, u64::MAX, 0x0002_0000_0FFF, b"with everything")
        },
        Entry { reference, ..entry(2, 7, 0x0002_0040_0007, b"elsewhere") },
    ]
}

fn write(fs: &dyn FileSystem, dir: &Path, entries: &[Entry]) -> Result<SegmentInfo, SegmentError> {
    let mut writer = SegmentWriter::create(fs, dir, NUMBER, &|_| {})?;
    for entry in entries {
        writer.add(entry)?;
    }
    writer.finish()
}

/// A segment of those entries, and the machine it is on.
fn segment(entries: &[Entry]) -> (FaultFs, Segment) {
    let fs = machine();
    let info = write(&fs, dir(), entries).unwrap();
    let segment = Segment::open(&fs, dir(), &info).unwrap();
    (fs, segment)
}

fn all(segment: &Segment) -> Result<Vec<Entry>, SegmentError> {
    segment.iter().collect()
}
