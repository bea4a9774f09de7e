//! Owns the tests of whole segments: what a writer refuses, what opening refuses, what entries cost.

use std::sync::Mutex;

use super::*;
use crate::codec::{Encoded, Reader};
use crate::fs::RealFs;

#[test]
fn what_is_out_of_order_is_refused_and_what_is_in_order_goes_on() {
    let fs = machine();
    let mut writer = SegmentWriter::create(&fs, dir(), NUMBER, &|_| {}).unwrap();
    let first = entry(2, 5, 100, b"first");
    writer.add(&first).unwrap();
    let wrong = [entry(2, 5, 100, b""), entry(2, 5, 101, b""), entry(2, 4, 99, b""), entry(1, 9, 99, b"")];
    for wrong in wrong {
        let refused = writer.add(&wrong).unwrap_err();
        assert!(matches!(refused, SegmentError::OutOfOrder { id, .. } if id == wrong.id), "{refused}");
    }
    let right = [entry(2, 5, 99, b"below"), entry(2, 6, 200, b"next owner"), entry(3, 1, 300, b"next space")];
    right.iter().for_each(|entry| writer.add(entry).unwrap());
    assert_eq!(writer.entries(), 4);
    let info = writer.finish().unwrap();
    let segment = Segment::open(&fs, dir(), &info).unwrap();
    assert_eq!(all(&segment).unwrap(), [&[first], &right[..]].concat());
}

#[test]
fn an_id_is_in_one_timeline_only() {
    let fs = machine();
    let refused = write(&fs, dir(), &[entry(1, 1, 7, b""), entry(1, 2, 7, b"")]).unwrap_err();
    assert!(matches!(refused, SegmentError::OutOfOrder { id: EntryId(7), .. }), "{refused}");
    assert_eq!(fs.paths(), Vec::<PathBuf>::new());
}

#[test]
fn no_entries_are_no_segment() {
    let fs = machine();
    assert!(matches!(write(&fs, dir(), &[]), Err(SegmentError::Empty { .. })));
    drop(SegmentWriter::create(&fs, dir(), NUMBER, &|_| {}).unwrap());
    assert_eq!(fs.paths(), Vec::<PathBuf>::new());
}

#[test]
fn a_number_is_used_once() {
    let (fs, segment) = segment(&every_kind());
    assert!(matches!(write(&fs, dir(), &every_kind()), Err(SegmentError::Exists { .. })));
    assert_eq!(all(&segment).unwrap(), every_kind());
}

#[test]
fn another_segment_than_the_expected_one_is_refused_with_what_differs() {
    let (fs, segment) = segment(&every_kind());
    let info = *segment.info();
    let others = [
        (SegmentInfo { entries: 6, ..info }, "the number of entries"),
        (SegmentInfo { lowest: EntryId(1), ..info }, "the lowest id"),
        (SegmentInfo { highest: EntryId(1), ..info }, "the highest id"),
        (SegmentInfo { expiry: None, ..info }, "the first or the last expiry"),
        (SegmentInfo { expiring: 3, ..info }, "the number of expiring entries"),
        (SegmentInfo { payload_bytes: 1, ..info }, "the length of the payloads"),
        (SegmentInfo { bytes: 1, ..info }, "the length"),
    ];
    for (other, expected) in others {
        match Segment::open(&fs, dir(), &other) {
            Err(SegmentError::Foreign { what, .. }) => assert_eq!(what, expected),
            opened => panic!("{expected}: {opened:?}"),
        }
    }
    let moved = SegmentInfo { number: SegmentNumber(0x20), ..info };
    assert!(matches!(Segment::open(&fs, dir(), &moved), Err(SegmentError::Missing { .. })));
    fs.rename(&path(), &dir().join(moved.number.file_name())).unwrap();
    let opened = Segment::open(&fs, dir(), &moved);
    assert!(matches!(opened, Err(SegmentError::Foreign { what: "the number", .. })), "{opened:?}");
    assert!(matches!(Segment::open(&fs, dir(), &info), Err(SegmentError::Missing { .. })));
}

#[test]
fn another_version_is_named() {
    let (fs, segment) = segment(&every_kind());
    let mut content = fs.content(&path()).unwrap();
    content[4] = 2;
    let crc = layout::crc_around(&content[..layout::HEADER_BYTES], 8);
    content[8..12].copy_from_slice(&crc.to_le_bytes());
    fs.damage(&path(), &content);
    let opened = Segment::open(&fs, dir(), segment.info());
    assert!(matches!(opened, Err(SegmentError::Version { version: 2, supported: 1, .. })), "{opened:?}");
}

#[test]
fn verify_knows_a_whole_file_that_is_another_one() {
    let (fs, segment) = segment(&every_kind());
    let other = SegmentInfo { checksum: segment.info().checksum ^ 1, ..*segment.info() };
    let opened = Segment::open(&fs, dir(), &other).unwrap();
    assert!(matches!(opened.verify(), Err(SegmentError::Damaged { offset: 0, .. })));
}

#[test]
fn info_returns_from_its_encoding() {
    let (_, segment) = segment(&every_kind());
    let mut out = Vec::new();
    segment.info().encode(&mut out);
    let mut reader = Reader::new(&out);
    assert_eq!(SegmentInfo::decode(&mut reader).unwrap(), *segment.info());
    reader.end().unwrap();
}

#[test]
fn every_byte_is_announced_before_it_is_written() {
    let fs = machine();
    let announced = Mutex::new(Vec::new());
    let pace = |bytes| {
        let written: usize = fs.paths().iter().filter_map(|path| fs.content(path)).map(|c| c.len()).sum();
        let mut announced = announced.lock().unwrap();
        assert_eq!(written as u64, announced.iter().sum::<u64>());
        announced.push(bytes);
    };
    let mut writer = SegmentWriter::create(&fs, dir(), NUMBER, &pace).unwrap();
    for id in (1..=6).rev() {
        writer.add(&entry(1, 1, id, &vec![1; 700_000])).unwrap();
    }
    let info = writer.finish().unwrap();
    let announced = announced.into_inner().unwrap();
    assert_eq!(announced.iter().sum::<u64>(), info.bytes);
    assert!(announced.iter().all(|bytes| *bytes <= 1 << 20), "{announced:?}");
}

#[test]
fn a_payload_outlives_the_segment_and_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let payload = vec![0xA5; 3_000_000];
    let entries = [entry(1, 1, 9, &payload), entry(1, 1, 8, b"small")];
    let info = write(&RealFs, dir.path(), &entries).unwrap();
    let segment = Segment::open(&RealFs, dir.path(), &info).unwrap();
    segment.verify().unwrap();
    let read = segment.get(EntryId(9)).unwrap().unwrap();
    segment.forget_pages();
    assert_eq!(all(&segment).unwrap(), entries);
    RealFs.remove(segment.path()).unwrap();
    drop(segment);
    assert_eq!(read.payload, payload);
}

#[test]
fn a_segment_costs_little_beyond_its_payloads() {
    // Ten entries of 500 bytes for each of 2,000 owners, made over ten minutes.
    let payload = vec![7; 500];
    let mut entries = Vec::new();
    for owner in 0..2_000u64 {
        let ids = (0..10u64).rev().map(|n| (848_000_000_000 + 60_000 * n + owner * 29) << 22 | owner);
        entries.extend(ids.map(|id| entry(1, owner * 1_000_003, id, &payload)));
    }
    let (_, segment) = segment(&entries);
    let info = segment.info();
    let cost = (info.bytes - info.payload_bytes) as f64 / info.payload_bytes as f64;
    assert!(cost < 0.055, "{cost}");
}

#[test]
fn a_segment_with_another_number_is_the_same_and_its_old_one_is_refused() {
    let (fs, old) = segment(&every_kind());
    let (unfinished, number) = (dir().join("0000000000000077.new"), SegmentNumber(0x77));
    fs.rename(&path(), &unfinished).unwrap();
    let info = renumber(&fs, &unfinished, old.info(), number, &|_| {}).unwrap();
    assert_ne!((info.number, info.checksum), (old.info().number, old.info().checksum));
    fs.rename(&unfinished, &dir().join(number.file_name())).unwrap();
    let renumbered = Segment::open(&fs, dir(), &info).unwrap();
    assert_eq!(all(&renumbered).unwrap(), every_kind());
    assert_eq!(Segment::open_alone(&fs, &dir().join(number.file_name())).unwrap().info(), &info);
    assert!(Segment::open(&fs, dir(), &SegmentInfo { number: old.info().number, ..info }).is_err());
}

#[test]
fn a_damaged_segment_gets_no_other_number() {
    let (fs, old) = segment(&every_kind());
    let content = fs.content(&path()).unwrap();
    for bit in 0..content.len() * 8 {
        let mut flipped = content.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        fs.damage(&path(), &flipped);
        let refused = renumber(&fs, &path(), old.info(), SegmentNumber(0x77), &|_| {});
        assert!(refused.is_err(), "bit {bit}");
        assert_eq!(fs.content(&path()).unwrap(), flipped, "and stays as it is");
    }
}
