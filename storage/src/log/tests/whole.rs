//! Owns the tests of the log's promises without faults, or with one at a known place.

use std::sync::mpsc::channel;

use super::*;
use crate::fs::{PowerLoss, RealFs};
use crate::log::{Inspected, SEGMENT_BYTES_MIN, inspect};

fn expect(log: &Log, submissions: &[Vec<Record>]) {
    let mut model = Model::default();
    for records in submissions {
        model.apply(records);
    }
    assert_eq!(Model::of(log).unwrap(), model);
}

/// All kinds of records of three groups, in several segments.
fn script() -> Vec<Vec<Record>> {
    let mut all = vec![vec![vote(A, "a1"), vote(B, "b1")]];
    for index in 1..30 {
        all.push(vec![append(A, index, vec![index as u8; 700]), append(B, index + 5, vec![7; 50])]);
        if index % 7 == 0 {
            all.push(vec![truncate(A, index - 2), append(A, index - 1, bytes("again")), vote(A, "a2")]);
            all.push(vec![append(A, index, bytes("and again")), purge(B, index), committed(C, "c")]);
        }
    }
    all.push(vec![truncate(B, None), append(B, 29, bytes("new")), purge(A, 10)]);
    all
}

#[test]
fn everything_is_there_after_a_clean_stop() {
    let fs = FaultFs::new();
    let script = script();
    for (done, records) in script.iter().enumerate() {
        let (log, recovered) = open(&fs, small()).unwrap();
        assert_eq!((recovered.damaged, recovered.torn), (vec![], None));
        expect(&log, &script[..done]);
        submit_and_wait(&log, records.clone()).unwrap();
        expect(&log, &script[..=done]);
        log.close().unwrap();
    }
}

#[test]
fn entries_are_readable_before_they_are_durable_and_complete_in_order() {
    let fs = FaultFs::new();
    // One segment has room for the whole script: a next one could not be made while syncs are held.
    let (log, _) = open(&fs, LogOptions { segment_bytes: 1 << 20, ..small() }).unwrap();
    let script = script();
    let (tell, told) = channel();
    fs.hold_syncs(true);
    for (number, records) in script.iter().enumerate() {
        let tell = tell.clone();
        let done = move |result: Result<(), LogError>| tell.send((number, result.is_ok())).unwrap();
        log.submit(records.clone(), Some(Box::new(done))).unwrap();
    }
    expect(&log, &script);
    assert!(told.try_recv().is_err(), "nothing completes before its sync");
    fs.hold_syncs(false);
    let completed: Vec<_> = told.iter().take(script.len()).collect();
    assert_eq!(completed, (0..script.len()).map(|number| (number, true)).collect::<Vec<_>>());
    let status = log.status();
    assert!(status.batches < script.len() as u64 / 2, "submissions were gathered: {status:?}");
    assert_eq!((status.queued_bytes, status.syncs), (0, status.batches));
    drop(log);
    expect(&open(&fs, small()).unwrap().0, &script);
}

#[test]
fn old_segments_are_reused_once_purged_and_votes_are_copied_forward() {
    let fs = FaultFs::new();
    let (log, _) = open(&fs, small()).unwrap();
    submit_and_wait(&log, vec![vote(A, "va"), vote(B, "vb"), committed(C, "cc"), purge(C, 9)]).unwrap();
    for index in 1..400 {
        submit_and_wait(&log, vec![append(A, index, vec![index as u8; 3000])]).unwrap();
        if index % 10 == 0 {
            submit_and_wait(&log, vec![purge(A, index - 5)]).unwrap();
        }
    }
    submit_and_wait(&log, vec![purge(A, 398)]).unwrap();
    log.close().unwrap();
    assert!(fs.paths().len() < 12, "{:?}", fs.paths());
    let (log, recovered) = open(&fs, small()).unwrap();
    assert_eq!((recovered.damaged, recovered.torn), (vec![], None));
    let model = Model::of(&log).unwrap();
    assert_eq!(model.groups[&A].entries.keys().copied().collect::<Vec<_>>(), [399]);
    assert_eq!(model.groups[&A].vote, Some(bytes("va")));
    assert_eq!(model.groups[&B].vote, Some(bytes("vb")));
    assert_eq!(model.groups[&C].committed, Some(bytes("cc")));
    assert_eq!(model.groups[&C].purged, Some((9, bytes("id 9"))));
}

#[test]
fn a_group_that_is_not_purged_keeps_its_segments() {
    let fs = FaultFs::new();
    let (log, _) = open(&fs, small()).unwrap();
    submit_and_wait(&log, vec![append(B, 1, bytes("keep"))]).unwrap();
    for index in 1..100 {
        submit_and_wait(&log, vec![append(A, index, vec![1; 3000]), purge(A, index)]).unwrap();
    }
    assert_eq!(log.status().recycled_segments, 0);
    drop(log);
    let (log, _) = open(&fs, small()).unwrap();
    assert_eq!(log.read(B, 0..9, 100).unwrap(), [(1, bytes("keep"))]);
}

#[test]
fn restarts_do_not_use_up_a_segment_each() {
    let fs = FaultFs::new();
    let options = || LogOptions { segment_bytes: 256 << 10, ..small() };
    for _ in 0..40 {
        let (log, _) = open(&fs, options()).unwrap();
        let last = log.group_state(A).unwrap().last.unwrap_or(0);
        submit_and_wait(&log, vec![append(A, last + 1, bytes("x"))]).unwrap();
        log.close().unwrap();
    }
    let (log, _) = open(&fs, options()).unwrap();
    assert_eq!(log.group_state(A).unwrap().last, Some(40));
    assert!(log.status().segments <= 8, "{:?}", log.status());
}

#[test]
fn the_oldest_segment_may_hold_nothing_but_a_batch_that_was_written_again() {
    let fs = FaultFs::new();
    let (log, _) = open(&fs, unmarked()).unwrap();
    submit_and_wait(&log, vec![append(A, 1, vec![1; 20_000])]).unwrap();
    submit_and_wait(&log, vec![append(A, 2, vec![2; 9000]), purge(A, 1)]).unwrap();
    eventually(|| log.status().recycled_segments > 0);
    let mut fs = fs;
    let mut log = Some(log);
    for _ in 0..3 {
        fs = fs.kill();
        drop(log.take());
        let (opened, recovered) = open(&fs, unmarked()).unwrap();
        assert_eq!((recovered.damaged, recovered.torn), (vec![], None));
        assert_eq!(opened.read(A, 0..9, 1).unwrap(), [(2, Bytes::from(vec![2; 9000]))]);
        log = Some(opened);
    }
}

#[test]
fn an_idle_log_writes_one_mark_and_then_nothing() {
    let fs = FaultFs::new();
    let (log, _) = open(&fs, small()).unwrap();
    submit_and_wait(&log, vec![vote(A, "v")]).unwrap();
    // Closing waits for the mark if it is still to come; a second one would show in the counter.
    let before = log.status().batches;
    assert!((1..=2).contains(&before));
    log.close().unwrap();
    let mut marks = 0;
    let mut count =
        |found: &Inspected<'_>| marks += u32::from(matches!(found, Inspected::Batch(b) if b.mark));
    inspect(&fs, Path::new(DIR), &|_| {}, &mut count).unwrap();
    assert_eq!(marks, 2, "one at creation, one after the vote");
}

#[test]
fn a_committed_position_alone_forces_no_sync() {
    let fs = FaultFs::new();
    let (log, _) = open(&fs, unmarked()).unwrap();
    log.submit(vec![committed(A, "1")], None).unwrap();
    assert_eq!(log.group_state(A).unwrap().committed, Some(bytes("1")));
    submit_and_wait(&log, vec![vote(A, "v")]).unwrap();
    assert_eq!(log.status().batches, 1);
    log.submit(vec![committed(A, "2")], None).unwrap();
    log.close().unwrap();
    assert_eq!(open(&fs, small()).unwrap().0.group_state(A).unwrap().committed, Some(bytes("2")));
}

#[test]
fn what_does_not_fit_together_is_refused_as_a_whole() {
    let fs = FaultFs::new();
    let (log, _) = open(&fs, small()).unwrap();
    let refused =
        submit(&log, vec![append(A, 5, bytes("a")), append(B, 1, bytes("b")), append(A, 7, bytes("c"))]);
    assert!(matches!(refused, Err(LogError::Gap { group: A, index: 7, expected: 6 })));
    assert_eq!(Model::of(&log).unwrap(), Model::default());
    let large = submit(&log, vec![append(A, 5, vec![0; 32 << 10])]);
    assert!(matches!(large, Err(LogError::RecordTooLarge { .. })));
    let large = submit(&log, vec![Record::Vote { group: A, data: Bytes::from(vec![0; 5000]) }]);
    assert!(matches!(large, Err(LogError::RecordTooLarge { limit_bytes: 4096, .. })));
    let largest = (32 << 10) - 4096 - 80 - 24;
    submit_and_wait(&log, vec![append(A, 5, vec![9; largest])]).unwrap();
    assert!(submit(&log, vec![append(A, 6, vec![9; largest + 1])]).is_err());
    let other = log.clone();
    log.close().unwrap();
    assert!(matches!(submit(&other, vec![vote(A, "v")]), Err(LogError::Closed)));
    let (log, _) = open(&fs, small()).unwrap();
    assert_eq!(log.read(A, 5..6, 0).unwrap(), [(5, Bytes::from(vec![9; largest]))]);
}

#[test]
fn a_large_submission_is_cut_into_batches_and_completes_once() {
    let fs = FaultFs::new();
    let (log, _) = open(&fs, small()).unwrap();
    let records: Vec<Record> = (1..100).map(|index| append(A, index, vec![index as u8; 2000])).collect();
    submit_and_wait(&log, records.clone()).unwrap();
    assert!(log.status().batches >= 99 * 2000 / (16 << 10));
    expect(&log, &[records]);
}

#[test]
fn a_full_queue_makes_submitters_wait() {
    let fs = FaultFs::new();
    let options = LogOptions { queue_bytes_max: 4000, ..small() };
    let (log, _) = open(&fs, options).unwrap();
    fs.hold_syncs(true);
    submit(&log, vec![append(A, 1, vec![0; 3000])]).unwrap();
    let (tell, told) = channel();
    let waiting = log.clone();
    let thread = std::thread::spawn(move || {
        let result = submit(&waiting, vec![append(A, 2, vec![0; 3000])]);
        tell.send(()).unwrap();
        result.unwrap().recv().unwrap().unwrap();
    });
    assert!(told.recv_timeout(Duration::from_millis(20)).is_err(), "it waits");
    fs.hold_syncs(false);
    thread.join().unwrap();
    assert_eq!(log.group_state(A).unwrap().last, Some(2));
}

#[test]
fn a_full_disk_refuses_entries_and_takes_them_again_when_there_is_room() {
    let fs = FaultFs::new();
    let (log, _) = open(&fs, small()).unwrap();
    // Room for what there is, and nothing more.
    let used =
        |fs: &FaultFs| fs.paths().iter().map(|path| fs.content(path).unwrap().len() as u64).sum::<u64>();
    submit_and_wait(&log, vec![vote(A, "v")]).unwrap();
    fs.set_room_bytes(Some(used(&fs)));
    let mut last = 0;
    let refused = loop {
        match submit_and_wait(&log, vec![append(A, last + 1, vec![1; 3000])]) {
            Ok(()) => last += 1,
            Err(error) => break error,
        }
        assert!(last < 100, "the disk has no room for so many");
    };
    assert!(matches!(refused, LogError::DiskFull { .. }), "{refused}");
    assert!(!refused.is_fatal() && !log.accepts_appends() && log.status().full);
    submit_and_wait(&log, vec![purge(A, last)]).unwrap();
    assert_eq!(log.group_state(A).unwrap().last, None);
    fs.set_room_bytes(None);
    eventually(|| log.accepts_appends());
    submit_and_wait(&log, vec![append(A, last + 1, vec![2; 3000])]).unwrap();
    log.close().unwrap();
    let (log, _) = open(&fs, small()).unwrap();
    assert_eq!(log.read(A, 0..u64::MAX, 1).unwrap(), [(last + 1, Bytes::from(vec![2; 3000]))]);
}

#[test]
fn a_failed_sync_fails_everything_and_nothing_is_durable_later_unless_rewritten() {
    for kept in [PowerLoss::LoseAll, PowerLoss::KeepAll, PowerLoss::Random(3)] {
        let fs = FaultFs::new();
        let (log, _) = open(&fs, unmarked()).unwrap();
        submit_and_wait(&log, vec![append(A, 1, bytes("good"))]).unwrap();
        eventually(|| fs.paths().contains(&segment_path(2)));
        fs.fail_sync_after(0, kept);
        let failed = submit_and_wait(&log, vec![append(A, 2, bytes("bad"))]).unwrap_err();
        assert!(failed.is_fatal() && failed.to_string().contains(".log"), "{failed}");
        assert!(submit(&log, vec![append(A, 3, bytes("later"))]).unwrap_err().is_fatal());
        assert!(!log.accepts_appends());
        assert!(log.close().unwrap_err().is_fatal());
        // The page cache shows the batch, the disk may not have it. What the next run reports must survive.
        let next = fs.kill();
        let (log, recovered) = open(&next, unmarked()).unwrap();
        assert_eq!(recovered.damaged, []);
        let reported = Model::of(&log).unwrap();
        assert_eq!(log.read(A, 1..2, 100).unwrap(), [(1, bytes("good"))]);
        drop(log);
        let (log, _) = open(&next.lose_power(PowerLoss::LoseAll), unmarked()).unwrap();
        assert_eq!(Model::of(&log).unwrap(), reported);
    }
}

#[test]
fn a_short_write_ends_the_log() {
    let fs = FaultFs::new();
    let (log, _) = open(&fs, unmarked()).unwrap();
    submit_and_wait(&log, vec![append(A, 1, bytes("good"))]).unwrap();
    eventually(|| fs.paths().contains(&segment_path(2)));
    fs.fail_write_after(0, 100);
    assert!(submit_and_wait(&log, vec![append(A, 2, vec![8; 6000])]).unwrap_err().is_fatal());
    let (log, recovered) = open(&fs.kill(), unmarked()).unwrap();
    assert_eq!(log.group_state(A).unwrap().last, Some(1));
    assert_eq!(recovered.torn.unwrap().offset, 4096 * 3);
}

#[test]
fn a_missing_log_or_segment_is_named() {
    let fs = FaultFs::new();
    let must_exist = LogOptions { create: false, ..small() };
    assert!(matches!(open(&fs, must_exist.clone()), Err(OpenError::MissingLog { .. })));
    let (log, _) = open(&fs, small()).unwrap();
    for index in 1..40 {
        submit_and_wait(&log, vec![append(A, index, vec![1; 3000])]).unwrap();
    }
    log.close().unwrap();
    for sequence in 1..=3 {
        let fs = fs.duplicate();
        crate::fs::FileSystem::remove(&fs, &segment_path(sequence)).unwrap();
        let error = open(&fs, must_exist.clone()).unwrap_err();
        assert!(
            matches!(&error, OpenError::MissingSegment { path } if *path == segment_path(sequence)),
            "{error}"
        );
    }
    let other = FaultFs::new();
    open(&other, LogOptions { salt: 6, ..small() }).unwrap().0.close().unwrap();
    assert!(fs.damage(&segment_path(2), &other.content(&segment_path(1)).unwrap()));
    assert!(matches!(open(&fs, must_exist), Err(OpenError::ForeignSegment { .. })));
}

#[test]
fn the_log_works_on_the_file_system_of_the_machine() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Log::open(Arc::new(RealFs), &dir.path().join("log"), small()).unwrap();
    let script = script();
    for half in [0..script.len() / 2, script.len() / 2..script.len()] {
        let (log, recovered) = open();
        assert_eq!(recovered.damaged, []);
        for records in &script[half] {
            submit_and_wait(&log, records.clone()).unwrap();
        }
    }
    expect(&open().0, &script);
}

#[test]
fn sizes_may_change_between_two_opens() {
    let fs = FaultFs::new();
    let script = script();
    let sizes = [32 << 10, SEGMENT_BYTES_MIN, 128 << 10];
    for (done, records) in script.iter().enumerate() {
        let (log, _) = open(&fs, LogOptions { segment_bytes: sizes[done % 3], ..small() }).unwrap();
        submit_and_wait(&log, records.clone()).unwrap();
    }
    expect(&open(&fs, small()).unwrap().0, &script);
}

#[test]
fn an_inspection_shows_every_record() {
    let fs = FaultFs::new();
    let (log, _) = open(&fs, small()).unwrap();
    let mut script = script();
    // An entry that is never purged keeps all segments.
    script.insert(0, vec![append(C, 1, bytes("keep"))]);
    for records in &script {
        submit_and_wait(&log, records.clone()).unwrap();
    }
    log.close().unwrap();
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    let mut segments = 0;
    let mut visit = |found: &Inspected<'_>| match found {
        Inspected::Segment(_) => segments += 1,
        Inspected::Record(record) => {
            assert!(record.payload.is_some());
            *kinds.entry(record.kind).or_default() += 1;
        }
        Inspected::Batch(_) => {}
        other => panic!("{other:?}"),
    };
    inspect(&fs, Path::new(DIR), &|_| {}, &mut visit).unwrap();
    assert!(segments > 3);
    let appended = script.iter().flatten().filter(|record| matches!(record, Record::Append { .. })).count();
    assert_eq!(kinds["append"], appended);
    assert_eq!((kinds["truncate-after"], kinds["truncate-all"]), (4, 1));
}
