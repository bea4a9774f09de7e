//! Owns the tests of holding a log that is written, and of reading one without opening it.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::fs::FileSystem;
use crate::log::{Image, LogHold};

/// Appends to two groups and purges the first, so that segments come and go.
fn load(log: &Log, entries: std::ops::Range<u64>) {
    for index in entries {
        let mut records = vec![append(A, index, vec![1; 3000]), append(B, index, vec![2; 100])];
        if index % 10 == 0 {
            records.extend([purge(A, index - 5), purge(B, index - 5)]);
        }
        submit_and_wait(log, records).unwrap();
    }
}

/// Holds the log, whatever that keeps.
fn hold(log: &Log) -> LogHold {
    log.hold(u64::MAX, Box::new(|| {}))
}

/// The files of a hold, as a log of their own.
fn copied(hold: &LogHold) -> FaultFs {
    let fs = FaultFs::new();
    fs.create_dir_all(Path::new(DIR)).unwrap();
    for segment in hold.segments() {
        let mut content = vec![0; segment.bytes as usize];
        segment.file.read_at(0, &mut content).unwrap();
        fs.create(segment.path).unwrap().write_at(0, &content).unwrap();
    }
    fs
}

#[test]
fn what_is_held_is_the_log_of_that_moment_while_others_go_on() {
    let fs = FaultFs::new();
    let (log, _) = open(&fs, small()).unwrap();
    submit_and_wait(&log, vec![vote(A, "va"), append(A, 1, bytes("1")), append(B, 1, bytes("1"))]).unwrap();
    load(&log, 2..30);
    let (hold, model) = (hold(&log), Model::of(&log).unwrap());
    let recycled = log.status().recycled_segments;
    load(&log, 30..120);
    assert_eq!(log.status().recycled_segments, recycled, "nothing is used again while it is held");
    let copy = copied(&hold);
    let (opened, recovered) = open(&copy, small()).unwrap();
    assert!(recovered.damaged.is_empty() && recovered.torn.is_none(), "{recovered:?}");
    assert_eq!(Model::of(&opened).unwrap(), model);
    let image = hold.read(None, &|_| Ok(())).unwrap();
    assert!(image.recovered().damaged.is_empty() && image.recovered().torn.is_none());
    drop(hold);
    load(&log, 120..125);
    eventually(|| log.status().recycled_segments > recycled);
}

#[test]
fn a_hold_that_keeps_too_much_is_let_go_of() {
    let fs = FaultFs::new();
    let (log, _) = open(&fs, small()).unwrap();
    submit_and_wait(&log, vec![append(A, 1, bytes("1")), append(B, 1, bytes("1"))]).unwrap();
    load(&log, 2..30);
    let told = Arc::new(AtomicBool::new(false));
    let teller = told.clone();
    let most_bytes = 5 * small().segment_bytes;
    let held = log.hold(most_bytes, Box::new(move || teller.store(true, Ordering::Relaxed)));
    let other = hold(&log);
    // Few enough for a slow machine, on which each is followed by the mark of a pause.
    load(&log, 30..40);
    assert!(held.is_kept() && !told.load(Ordering::Relaxed), "{:?}", log.status());
    load(&log, 40..200);
    eventually(|| told.load(Ordering::Relaxed));
    assert!(!held.is_kept() && other.is_kept());
    assert!(log.status().held_bytes > most_bytes, "the other one keeps all");
    drop(other);
    // The last of these let go of those before.
    load(&log, 200..213);
    eventually(|| log.status().bytes < most_bytes);
    assert_eq!(log.status().held_bytes, 0);
    drop(held);
    // Whoever holds it anew keeps what is there now.
    let again = hold(&log);
    load(&log, 213..300);
    assert!(again.is_kept() && again.read(None, &|_| Ok(())).unwrap().recovered().damaged.is_empty());
}

#[test]
fn a_full_disk_lets_a_hold_go() {
    let fs = FaultFs::new();
    let (log, _) = open(&fs, small()).unwrap();
    submit_and_wait(&log, vec![append(A, 1, bytes("1")), append(B, 1, bytes("1"))]).unwrap();
    load(&log, 2..30);
    let held = hold(&log);
    load(&log, 30..100);
    assert!(held.is_kept());
    // A file may be named anew between the two looks; then it is looked again.
    let used = loop {
        let contents: Option<Vec<_>> = fs.paths().iter().map(|path| fs.content(path)).collect();
        if let Some(contents) = contents {
            break contents.iter().map(|content| content.len() as u64).sum();
        }
    };
    fs.set_room_bytes(Some(used));
    // Entries are refused for no longer than it takes to let go of what only the hold keeps.
    for index in 100..140 {
        let records = || vec![append(A, index, vec![1; 3000])];
        eventually(|| submit_and_wait(&log, records()).is_ok());
    }
    assert!(!held.is_kept());
}

#[test]
fn a_log_is_read_without_a_change_and_as_an_open_finds_it() {
    let fs = FaultFs::new();
    let (log, _) = open(&fs, small()).unwrap();
    submit_and_wait(&log, vec![vote(A, "va"), append(A, 1, bytes("1")), append(B, 1, bytes("1"))]).unwrap();
    load(&log, 2..30);
    drop(log);
    let fs = fs.kill();
    let operations = fs.operations();
    let image = Image::read(&fs, Path::new(DIR), Some(A), &|_| Ok(())).unwrap();
    assert_eq!(fs.operations(), operations, "no file was touched");
    let (opened, _) = open(&fs, small()).unwrap();
    for group in [A, B, C] {
        assert_eq!(image.group_state(group), opened.group_state(group).unwrap());
    }
    let entries: Vec<_> = image.entries(A).collect();
    let first = opened.group_state(A).unwrap().first;
    assert!(!entries.is_empty() && entries == opened.read(A, first..u64::MAX, u64::MAX).unwrap());
    assert_eq!(image.entries(B).count(), 0);
}

#[test]
fn damage_is_found_where_it_is_held() {
    let fs = FaultFs::new();
    let (log, _) = open(&fs, unmarked()).unwrap();
    submit_and_wait(&log, vec![append(A, 1, bytes("1")), append(B, 1, bytes("1"))]).unwrap();
    load(&log, 2..9);
    let hold = hold(&log);
    load(&log, 9..12);
    let segment = hold.segments().last().unwrap();
    let mut content = fs.content(segment.path).unwrap();
    // The payload of the last batch that is held: one page of the log each.
    let at = segment.bytes as usize - 2000;
    content[at] ^= 1;
    assert!(fs.damage(segment.path, &content));
    let image = hold.read(None, &|_| Ok(())).unwrap();
    let damaged = &image.recovered().damaged;
    assert!(damaged.len() == 1 && damaged[0].path == *segment.path, "{damaged:?}");
    assert!(damaged[0].groups.contains(A) && !damaged[0].groups.contains(B));
}
