//! Owns the tests of damaged files: nothing panics, nothing wrong is answered, and what is wrong is found.

use proptest::prelude::*;

use super::*;
use crate::log::Operation;
use crate::segment::error::Flaw;
use crate::segment::layout::{CRCS_AT, FOOTER_BYTES, FOOTER_CRC_AT, Footer, HEADER_BYTES, crc_around};

/// Asks everything that can be asked; gives how many answers were errors. `right` says what else an answer may be.
fn read_all(segment: &Segment, right: impl Fn(&Entry) -> bool) -> usize {
    let mut errors = 0;
    let mut look = |read: Result<Entry, SegmentError>| match read {
        Ok(entry) => assert!(right(&entry), "{entry:?} was never written"),
        Err(error) => {
            assert!(matches!(error, SegmentError::Damaged { .. }), "{error}");
            errors += 1;
        }
    };
    segment.iter().for_each(&mut look);
    for entry in every_kind() {
        segment.get(entry.id).transpose().into_iter().for_each(&mut look);
        segment.newest(entry.space, entry.owner, EntryId::MAX).for_each(&mut look);
        segment.newest(entry.space, entry.owner, entry.id).for_each(&mut look);
        let _ids = segment.ids(entry.space, entry.owner, EntryId::MAX).count();
        let _next = segment.next_expiry_after(entry.expiry.unwrap_or_default());
    }
    errors
}

#[test]
fn every_flipped_bit_is_found_and_no_read_answers_what_was_not_written() {
    let (fs, segment) = segment(&every_kind());
    let info = *segment.info();
    let whole = fs.content(&path()).unwrap();
    let (mut refused, mut readable) = (0, 0);
    for bit in 0..whole.len() * 8 {
        let mut content = whole.clone();
        content[bit / 8] ^= 1 << (bit % 8);
        assert!(fs.damage(&path(), &content));
        match Segment::open(&fs, dir(), &info) {
            Err(SegmentError::Damaged { path: named, offset, .. }) => {
                assert_eq!(named, path());
                assert!(offset < whole.len() as u64);
                refused += 1;
            }
            Err(error) => panic!("bit {bit}: {error}"),
            Ok(segment) => {
                assert!(segment.verify().is_err(), "bit {bit}");
                assert!(read_all(&segment, |entry| every_kind().contains(entry)) > 0, "bit {bit}");
                readable += 1;
            }
        }
    }
    let payloads = info.payload_bytes as usize * 8;
    assert!(refused > 0 && readable > payloads, "entries are not read at open: {refused}, {readable}");
}

#[test]
fn an_index_that_the_disk_does_not_give_is_an_error_at_the_open_also_if_it_is_mapped() {
    // So many lines are far more than is kept in memory.
    let entries: Vec<_> = (0..20_000).map(|n| entry(1, 7, 100_000 - n, b"an entry")).collect();
    let (fs, segment) = segment(&entries);
    let info = *segment.info();
    let index = segment.index().footer().data_end;
    assert!(info.bytes - index > 90_000);
    for bad in [index..index + 1, info.bytes - 600..info.bytes - 500] {
        assert!(fs.fail_reads_of(&path(), bad.clone()));
        let refused = Segment::open(&fs, dir(), &info).map(drop);
        assert!(
            matches!(&refused, Err(SegmentError::Io { operation: Operation::Read, path: named, .. }) if *named == path()),
            "{bad:?}: {refused:?}"
        );
    }
    assert!(fs.fail_reads(&path(), false));
    assert_eq!(all(&Segment::open(&fs, dir(), &info).unwrap()).unwrap(), entries);
}

#[test]
fn a_damaged_entry_hides_no_other() {
    let (fs, segment) = segment(&every_kind());
    let mut content = fs.content(&path()).unwrap();
    content[HEADER_BYTES + 7] ^= 1;
    fs.damage(&path(), &content);
    let segment = Segment::open(&fs, dir(), segment.info()).unwrap();
    let [first, rest @ ..] = &every_kind()[..] else { panic!("there are some") };
    let error = segment.get(first.id).unwrap_err();
    let expected = format!("segment {:?} is damaged at offset 32: the record does not match its CRC", path());
    assert_eq!(error.to_string(), expected);
    assert!(rest.iter().all(|entry| segment.get(entry.id).unwrap().as_ref() == Some(entry)));
    let mut newest = segment.newest(first.space, first.owner, EntryId::MAX);
    assert!(newest.next().unwrap().is_err());
    assert!(newest.next().is_none(), "nothing follows an error");
}

#[test]
fn a_file_that_was_cut_anywhere_or_grew_is_refused() {
    let (fs, segment) = segment(&every_kind());
    let whole = fs.content(&path()).unwrap();
    for bytes in 0..whole.len() {
        fs.damage(&path(), &whole[..bytes]);
        for expected in [*segment.info(), SegmentInfo { bytes: bytes as u64, ..*segment.info() }] {
            let refused = Segment::open(&fs, dir(), &expected).unwrap_err();
            assert!(matches!(refused, SegmentError::Damaged { .. }), "{bytes}: {refused}");
        }
    }
    fs.damage(&path(), &[&whole[..], &[0]].concat());
    assert!(matches!(Segment::open(&fs, dir(), segment.info()), Err(SegmentError::Damaged { .. })));
}

/// Entries whose places take two bytes, so that wrong ones may lead out of the file.
fn spread() -> Vec<Entry> {
    let mut entries = every_kind();
    entries.push(entry(2, 8, 0x0002_0000_0008, &[8; 300]));
    entries
}

fn footer_of(content: &[u8]) -> Result<Footer, Flaw> {
    let (before, footer) = content.split_last_chunk::<FOOTER_BYTES>().unwrap();
    Footer::decode(footer, before.len() as u64)
}

/// Gives a file whose indexes and footer were changed the CRCs that fit.
fn seal(content: &mut [u8]) {
    for _ in 0..2 {
        let at = content.len() - FOOTER_BYTES;
        let crc = crc_around(&content[at..], FOOTER_CRC_AT);
        content[at + FOOTER_CRC_AT..at + FOOTER_CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        let sections = footer_of(content).ok().and_then(|footer| footer.sections(content.len() as u64));
        for (number, section) in sections.into_iter().flatten().enumerate() {
            let crc = crc32fast::hash(&content[section]);
            let at = at + CRCS_AT + 4 * number;
            content[at..at + 4].copy_from_slice(&crc.to_le_bytes());
        }
    }
}

#[test]
fn indexes_that_lie_are_found_by_verify_unless_every_answer_stays_right() {
    let (fs, segment) = segment(&spread());
    let mut info = *segment.info();
    let whole = fs.content(&path()).unwrap();
    let footer = footer_of(&whole).unwrap();
    let (mut opened, mut harmless) = (0, 0);
    for at in footer.data_end as usize..whole.len() {
        let mut content = whole.clone();
        content[at] ^= 1;
        seal(&mut content);
        if content == whole {
            continue;
        }
        fs.damage(&path(), &content);
        // Even if the checksum of the whole file was made for it.
        info.checksum = crc32fast::hash(&content);
        let Ok(segment) = Segment::open(&fs, dir(), &info) else { continue };
        opened += 1;
        let errors = read_all(&segment, |entry| spread().contains(entry));
        if segment.verify().is_ok() {
            harmless += 1;
            assert_eq!(errors, 0, "byte {at}");
            assert_eq!(all(&segment).unwrap(), spread());
            assert!(spread().iter().all(|entry| segment.get(entry.id).unwrap().as_ref() == Some(entry)));
        }
    }
    // One more bit in the filter, or a group that begins below its first id.
    assert!(opened > 100 && harmless < 80, "{opened} opened, {harmless} were harmless");
}

#[test]
fn a_footer_with_another_length_is_refused_even_if_that_is_expected() {
    let (fs, segment) = segment(&every_kind());
    let mut content = fs.content(&path()).unwrap();
    let at = content.len() - FOOTER_BYTES + 112;
    content[at] ^= 1;
    seal(&mut content);
    fs.damage(&path(), &content);
    let expected = SegmentInfo { bytes: segment.info().bytes ^ 1, ..*segment.info() };
    assert!(matches!(Segment::open(&fs, dir(), &expected), Err(SegmentError::Damaged { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn no_bytes_make_a_read_panic(changes in prop::collection::vec((0usize..700, any::<u8>()), 1..12)) {
        let (fs, segment) = segment(&spread());
        let mut content = fs.content(&path()).unwrap();
        for (back, byte) in changes {
            let at = content.len().saturating_sub(back + 1);
            content[at] = byte;
        }
        seal(&mut content);
        fs.damage(&path(), &content);
        let info = match footer_of(&content) {
            Ok(footer) => SegmentInfo { number: NUMBER, ..footer.info },
            Err(_) => *segment.info(),
        };
        if let Ok(segment) = Segment::open(&fs, dir(), &info) {
            let _verified = segment.verify();
            read_all(&segment, |entry| spread().contains(entry));
        }
    }
}
