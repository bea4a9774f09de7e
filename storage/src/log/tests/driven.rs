//! A log whose work is done step by step.

use std::sync::atomic::{AtomicU64, Ordering};

use super::super::{Driver, Due};
use super::*;
use crate::fs::PowerLoss;

fn open_driven(fs: &FaultFs, options: LogOptions) -> (Log, Driver, Arc<AtomicU64>) {
    let woken = Arc::new(AtomicU64::new(0));
    let wake = {
        let woken = woken.clone();
        move || {
            woken.fetch_add(1, Ordering::Relaxed);
        }
    };
    let opened = Log::open_driven(Arc::new(fs.clone()), Path::new(DIR), options, wake);
    let (log, driver, _) = opened.expect("the directory is whole");
    (log, driver, woken)
}

#[test]
fn nothing_is_durable_or_answered_before_a_step() {
    let fs = FaultFs::new();
    let (log, mut driver, woken) = open_driven(&fs, unmarked());
    assert_eq!(driver.due(), Due::WhenWoken);
    let syncs = fs.syncs();
    let first = submit(&log, vec![vote(A, "one")]).unwrap();
    let second = submit(&log, vec![vote(B, "two")]).unwrap();
    assert_eq!((driver.due(), woken.load(Ordering::Relaxed), fs.syncs()), (Due::Now, 2, syncs));
    assert!(first.try_recv().is_err());
    assert!(driver.step(false));
    assert_eq!(fs.syncs(), syncs + 1, "one sync for both");
    assert!(matches!((first.try_recv(), second.try_recv()), (Ok(Ok(())), Ok(Ok(())))));
    let lost = submit(&log, vec![vote(C, "three")]).unwrap();
    let (log, _, _) = open_driven(&fs.lose_power(PowerLoss::LoseAll), unmarked());
    assert!(lost.try_recv().is_err());
    assert_eq!(log.group_state(B).unwrap().vote, Some(bytes("two")));
    assert_eq!(log.group_state(C).unwrap().vote, None);
}

#[test]
fn the_mark_is_written_when_nothing_came_for_a_while_and_at_the_end() {
    let fs = FaultFs::new();
    let (log, mut driver, _) = open_driven(&fs, unmarked());
    let done = submit(&log, vec![vote(A, "one")]).unwrap();
    assert!(driver.step(false));
    done.try_recv().unwrap().unwrap();
    let (due, batches) = (driver.due(), log.status().batches);
    assert_eq!(due, Due::WhenQuietFor(unmarked().idle_mark_after));
    assert!(driver.step(false));
    assert_eq!(log.status().batches, batches, "it was not quiet");
    assert!(driver.step(true));
    assert_eq!((log.status().batches, driver.due()), (batches + 1, Due::WhenWoken));
    let last = submit(&log, vec![vote(A, "two")]).unwrap();
    log.clone().close().unwrap();
    while driver.step(false) {}
    last.try_recv().unwrap().unwrap();
    assert!(matches!(log.submit(vec![vote(A, "three")], None), Err(LogError::Closed)));
}

#[test]
fn segments_follow_each_other_and_a_full_disk_refuses_without_blocking() {
    let fs = FaultFs::new();
    let (log, mut driver, _) = open_driven(&fs, unmarked());
    let data = Bytes::from(vec![7; 6 << 10]);
    let append = |index| Record::Append { group: A, index, data: data.clone() };
    for index in 0..20 {
        let done = submit(&log, vec![append(index)]).unwrap();
        assert!(driver.step(false));
        done.try_recv().unwrap().unwrap();
    }
    assert!(log.status().segments > 3);
    fs.set_room_bytes(Some(0));
    let (mut index, mut refused) = (20, false);
    while !refused && index < 60 {
        refused = matches!(log.submit(vec![append(index)], None), Err(LogError::DiskFull { .. }));
        assert!(driver.step(false));
        index += u64::from(!refused);
    }
    assert!(refused && driver.due() != Due::Now, "{driver:?}");
    fs.set_room_bytes(None);
    assert!(driver.step(true));
    let done = submit(&log, vec![append(index)]).unwrap();
    assert!(driver.step(false));
    done.try_recv().unwrap().unwrap();
}

#[test]
fn a_log_that_waits_for_room_leaves_the_room_there_is_to_others() {
    let fs = FaultFs::new();
    let (log, mut driver, _) = open_driven(&fs, unmarked());
    let used =
        |fs: &FaultFs| fs.paths().iter().map(|path| fs.content(path).unwrap().len() as u64).sum::<u64>();
    let mut last = 0;
    while !log.status().full {
        fs.set_room_bytes(Some(used(&fs) + unmarked().segment_bytes() - 1));
        last += 1;
        let done = submit(&log, vec![append(A, last, vec![1; 3000])]).unwrap();
        assert!(driver.step(false));
        done.try_recv().unwrap().unwrap();
    }
    // The mark of the pause.
    assert!(driver.step(true));
    let (before, operations) = (fs.paths(), fs.operations());
    assert!(
        before.iter().all(|path| path.extension().is_some_and(|extension| extension == "log")),
        "{before:?}"
    );
    for _ in 0..5 {
        assert!(driver.step(true));
    }
    assert!(log.status().full);
    assert_eq!((fs.paths(), fs.operations()), (before, operations), "it asks, and takes nothing");
}

#[test]
fn what_was_promised_room_has_it_when_the_disk_is_full() {
    let fs = FaultFs::new();
    let (log, mut driver, _) = open_driven(&fs, unmarked());
    let mut last = 0;
    let mut append = |driver: &mut Driver| {
        last += 1;
        let done = submit(&log, vec![super::append(A, last, vec![1; 3000])]).unwrap();
        assert!(driver.step(false));
        done.try_recv().unwrap().unwrap();
    };
    append(&mut driver);
    fs.set_room_bytes(Some(0));
    while !log.status().full {
        append(&mut driver);
    }
    assert!(log.accepts_appends());
    assert!(log.promise_room(unmarked().segment_bytes()).is_none(), "more than is left");
    let mut promised = Vec::new();
    while let Some(room) = log.promise_room(3000) {
        promised.push(room);
        assert!(promised.len() < 100, "more than there can be room for");
    }
    assert!(!promised.is_empty() && !log.accepts_appends());
    promised.iter().for_each(|_| append(&mut driver));
    promised.clear();
    assert!(log.promise_room(3000).is_none(), "it is full now");
    fs.set_room_bytes(None);
    assert!(driver.step(true));
    assert!(log.promise_room(3000).is_some());
}

#[test]
fn a_failed_sync_ends_the_log() {
    let fs = FaultFs::new();
    let (log, mut driver, _) = open_driven(&fs, unmarked());
    fs.fail_sync_after(0, PowerLoss::LoseAll);
    let (one, two) =
        (submit(&log, vec![vote(A, "one")]).unwrap(), submit(&log, vec![vote(A, "two")]).unwrap());
    assert!(!driver.step(false));
    assert!(one.try_recv().unwrap().is_err() && two.try_recv().unwrap().is_err());
    assert!(log.submit(vec![vote(A, "three")], None).is_err());
    assert!(!driver.step(false));
}
