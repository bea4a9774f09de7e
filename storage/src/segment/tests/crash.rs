//! Owns the crash tests: the machine stops at every single operation of the writer, syncs and writes fail, the disk runs full.

use super::*;
use crate::fs::PowerLoss;

/// Some writes' worth of entries.
fn large() -> Vec<Entry> {
    let mut entries = every_kind();
    entries.push(entry(3, 1, 9 << 12, &vec![3; 2_500_000]));
    entries.push(entry(3, 1, 8 << 12, &vec![4; 700_000]));
    entries.push(entry(3, 2, 7 << 12, &[5; 500]));
    entries
}

/// Whether there is a segment; then it is whole. Nothing else has a name that counts.
fn holds_whole(fs: &FaultFs, info: &SegmentInfo, entries: &[Entry], what: &str) -> bool {
    let unfinished = dir().join("000000000000001f.segment.new");
    assert!(
        fs.paths().iter().all(|found| *found == path() || *found == unfinished),
        "{what}: {:?}",
        fs.paths()
    );
    match Segment::open(fs, dir(), info) {
        Err(SegmentError::Missing { path: named }) => {
            assert_eq!(named, path());
            false
        }
        opened => {
            let segment = opened.unwrap_or_else(|error| panic!("{what}: {error}"));
            segment.verify().unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(all(&segment).unwrap(), entries, "{what}");
            true
        }
    }
}

#[test]
fn a_stop_at_any_operation_leaves_no_segment_or_a_whole_one() {
    let entries = large();
    let fs = machine();
    let info = write(&fs, dir(), &entries).unwrap();
    let operations = fs.operations();
    assert!(operations >= 8, "{operations}: making, four writes, sync, rename, sync of the directory");
    let mut whole = 0;
    for stop in 0..operations + 2 {
        let losses =
            [PowerLoss::LoseAll, PowerLoss::KeepAll, PowerLoss::Random(stop), PowerLoss::Random(stop + 777)];
        for loss in losses.map(Some).into_iter().chain([None]) {
            let what = format!("stop {stop}, {loss:?}");
            let fs = machine();
            fs.stop_after(stop);
            let finished = write(&fs, dir(), &entries);
            assert_eq!(finished.is_ok(), stop >= operations, "{what}");
            let after = loss.map_or_else(|| fs.kill(), |loss| fs.lose_power(loss));
            let there = holds_whole(&after, &info, &entries, &what);
            assert!(there || finished.is_err(), "{what}: a finished segment is durable");
            whole += u32::from(there && finished.is_err());
            if !there {
                // What is left over hinders nobody.
                assert_eq!(write(&after, dir(), &entries).unwrap(), info, "{what}");
                let after = after.lose_power(PowerLoss::LoseAll);
                assert!(holds_whole(&after, &info, &entries, &what), "{what}");
            }
        }
    }
    assert!(whole > 0, "some stops come behind the rename");
}

#[test]
fn a_write_or_sync_that_fails_leaves_nothing() {
    let entries = large();
    let info = write(&machine(), dir(), &entries).unwrap();
    for at in 0..4 {
        let fs = machine();
        if at == 3 {
            fs.fail_sync_after(0, PowerLoss::Random(at));
        } else {
            fs.fail_write_after(at, 1_000);
        }
        let error = write(&fs, dir(), &entries).unwrap_err();
        assert!(matches!(error, SegmentError::Io { .. }) && !error.is_full(), "{error}");
        assert_eq!(fs.paths(), Vec::<PathBuf>::new(), "the room is given back at once");
        assert!(!holds_whole(&fs, &info, &entries, "failed"));
    }
}

#[test]
fn a_long_segment_reaches_the_disk_on_the_way() {
    let fs = machine();
    let mut writer = SegmentWriter::create(&fs, dir(), NUMBER, &|_| {}).unwrap();
    for id in (1..=20).rev() {
        writer.add(&entry(1, 1, id, &vec![1; 1 << 20])).unwrap();
    }
    assert_eq!(fs.syncs(), 2);
    fs.fail_sync_after(0, PowerLoss::LoseAll);
    assert!(writer.add(&entry(1, 1, 0, &vec![1; 5 << 20])).is_err());
    assert!(writer.finish().is_err(), "what a failed sync lost is not synced by the next one");
}

#[test]
fn a_writer_that_failed_never_finishes() {
    let fs = machine();
    let mut writer = SegmentWriter::create(&fs, dir(), NUMBER, &|_| {}).unwrap();
    writer.add(&entry(1, 1, 2, b"whole")).unwrap();
    fs.fail_write_after(0, 0);
    assert!(writer.add(&entry(1, 1, 1, &vec![0; 2 << 20])).is_err());
    assert!(writer.finish().is_err(), "a part of the second entry is lost");
    assert_eq!(fs.paths(), Vec::<PathBuf>::new());
}

#[test]
fn a_full_disk_is_told_apart_and_gets_its_room_back() {
    let entries = large();
    let info = write(&machine(), dir(), &entries).unwrap();
    for room in (0..info.bytes).step_by(400_000).chain([info.bytes - 1]) {
        let fs = machine();
        fs.set_room_bytes(Some(room));
        let error = write(&fs, dir(), &entries).unwrap_err();
        assert!(error.is_full(), "{room}: {error}");
        assert_eq!(fs.paths(), Vec::<PathBuf>::new());
        fs.set_room_bytes(Some(info.bytes));
        assert_eq!(write(&fs, dir(), &entries).unwrap(), info);
    }
}
