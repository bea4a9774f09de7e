//! Owns the tests of holding a log that is written, and of reading one without opening it.

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
    let (hold, model) = (log.hold(), Model::of(&log).unwrap());
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
    let hold = log.hold();
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
