//! What dies in masses while a table is flushed or segments are merged: it is not looked up under the partition's lock.

use super::super::marks::{LOOKED_UP, LOOKED_UP_MAX};
use super::races::Changes;
use super::*;

/// Each of them marks twelve entries: too many to be looked up in one step.
const MANY: usize = LOOKED_UP_MAX as usize / 12 + 1;

const FEW: usize = MANY / 4;

/// What is to be installed.
enum Written {
    Flush(Flushed),
    Merge(Merged),
}

impl Written {
    fn install(&mut self, timelines: &mut Timelines) -> bool {
        match self {
            Self::Flush(flushed) => timelines.install_flush(flushed),
            Self::Merge(merged) => timelines.install_merge(merged),
        }
    }

    fn catch_up(&mut self) {
        match self {
            Self::Flush(flushed) => flushed.catch_up(),
            Self::Merge(merged) => merged.catch_up().unwrap(),
        }
    }
}

fn looked_up(work: impl FnOnce()) -> u64 {
    let before = LOOKED_UP.get();
    work();
    LOOKED_UP.get() - before
}

/// Installs as a partition does whose lock is held for one try at a time; `meanwhile` is called before each, with its number.
/// Answers how many there were.
fn tries(store: &mut Store, mut written: Written, mut meanwhile: impl FnMut(&mut Store, usize)) -> usize {
    for number in 0.. {
        meanwhile(store, number);
        let mut is_done = false;
        let locked = looked_up(|| is_done = written.install(&mut store.timelines));
        assert!(locked <= LOOKED_UP_MAX, "{locked} entries were looked up under the lock");
        if is_done {
            return number + 1;
        }
        assert_eq!(locked, 0, "who is too early looks for nothing");
        assert!(looked_up(|| written.catch_up()) > LOOKED_UP_MAX);
    }
    unreachable!()
}

/// The same while these parts of `changes` come, one before each try.
fn tries_during(store: &mut Store, written: Written, changes: &[Changes], parts: &[usize]) -> usize {
    let mut rest = changes;
    tries(store, written, |store, number| {
        let (part, others) = rest.split_at(parts.get(number).copied().unwrap_or(0));
        part.iter().for_each(|changes| changes.apply(&mut store.timelines));
        rest = others;
    })
}

/// Looks for everything again after each thing that can happen to tables and segments.
fn check(store: &mut Store, changes: &[Changes]) {
    let check = |store: &Store| {
        changes.iter().for_each(|changes| changes.check_ids(store));
        assert!(store.timelines.damage.get().is_none());
    };
    check(store);
    drop(store.timelines.drop_cached(0));
    check(store);
    let left = (store.timelines.sum, store.timelines.len());
    store.timelines = store.restored();
    assert_eq!((store.timelines.sum, store.timelines.len()), left);
    check(store);
    drop(store.merge(&MergePolicy { dead_divisor: u64::MAX, ..ANYTHING }));
    check(store);
    assert_eq!((store.timelines.sum, store.timelines.len()), left);
}

/// How many changes come before each try, and how many tries it takes.
const CASES: [(&[usize], usize); 4] =
    [(&[FEW], 1), (&[MANY], 2), (&[MANY, FEW], 2), (&[MANY, MANY, MANY, FEW], 4)];

#[test]
fn what_dies_in_masses_during_a_flush_is_looked_up_beside_the_lock() {
    for (parts, expected) in CASES {
        let mut store = Store::new();
        let changes: Vec<_> = (0..parts.iter().sum()).map(|_| Changes::append(&mut store)).collect();
        let work = store.flush_work();
        let written = Written::Flush(store.write(work));
        assert_eq!(tries_during(&mut store, written, &changes, parts), expected);
        check(&mut store, &changes);
    }
}

#[test]
fn what_dies_in_masses_during_a_merge_is_looked_up_beside_the_lock() {
    for (parts, expected) in CASES {
        for is_cached in [false, true] {
            let mut store = Store::new();
            // Half of what each of them marks lies in the segments without expiries, which are the largest.
            let append = |store: &mut Store| {
                let changes: Vec<_> = (0..parts.iter().sum()).map(|_| Changes::append(store)).collect();
                store.flush();
                changes
            };
            let (one, other) = (append(&mut store), append(&mut store));
            let changes: Vec<_> = one.into_iter().zip(other).flat_map(|(one, other)| [one, other]).collect();
            if !is_cached {
                drop(store.timelines.drop_cached(0));
            }
            let bytes = |held: &held::Held| held.segment.info().bytes;
            let most_bytes = store.timelines.segments.iter().map(bytes).max().unwrap();
            let largest = loop {
                let work = store.timelines.merge_work(&ANYTHING, store.stamp).unwrap();
                let is_largest = work.bytes() > most_bytes * 3 / 2;
                let merged = store.write_merge(work);
                if is_largest {
                    break Written::Merge(merged);
                }
                store.install_merge(merged);
            };
            let twice: Vec<usize> = parts.iter().map(|part| part * 2).collect();
            assert_eq!(tries_during(&mut store, largest, &changes, &twice), expected);
            check(&mut store, &changes);
        }
    }
}

#[test]
fn a_segment_that_expires_between_two_tries_of_its_merge_is_gone() {
    let mut store = Store::new();
    let mut ids = Vec::new();
    for last in [1, 3] {
        // One minute of expiries: they are of one window, and lie in segments that end apart.
        ids.push((0..=LOOKED_UP_MAX).map(|_| store.append(1, Some(HOUR_MS + last), vec![0; 10])).collect());
        store.flush();
    }
    drop(store.timelines.drop_cached(0));
    let work = store.timelines.merge_work(&ANYTHING, store.stamp).unwrap();
    let written = Written::Merge(store.write_merge(work));
    let lasting: Vec<EntryId> = ids.pop().unwrap();
    let count = tries(&mut store, written, |store, number| {
        if number == 0 {
            ids[0].iter().for_each(|id| drop(store.timelines.remove(*id).unwrap()));
        } else {
            store.timelines.remove(lasting[0]).unwrap();
            store.stamp.0 += HOUR_MS + 2;
            assert_eq!(store.timelines.drop_expired(store.stamp).len(), 1);
        }
    });
    assert_eq!(count, 2);
    assert!(ids[0].iter().chain(&lasting[..1]).all(|id| store.live(*id).is_none()));
    assert_eq!(store.timeline(1).len(), lasting.len() - 1);
}

/// A cut that begins before, between and behind tries has what was dead then, and no more.
#[test]
fn a_cut_has_what_died_after_it_in_masses() {
    for begins_at in 0..4 {
        let mut store = Store::new();
        let changes: Vec<_> = (0..4 * MANY).map(|_| Changes::append(&mut store)).collect();
        let work = store.flush_work();
        let written = Written::Flush(store.write(work));
        let mut sum = None;
        let count = tries(&mut store, written, |store, number| {
            let part = changes.chunks(MANY).nth(number).into_iter().flatten();
            // It begins in the middle of a part.
            for (n, changes) in part.enumerate() {
                if (number, n) == (begins_at, MANY / 2) {
                    sum = Some(store.timelines.sum);
                    store.timelines.begin_cut(store.stamp);
                }
                changes.apply(&mut store.timelines);
            }
        });
        assert_eq!(count, 5);
        while let Some(work) = store.timelines.flush_work(store.stamp) {
            let flushed = store.write(work);
            store.install_flush(flushed);
        }
        let (image, infos) = store.timelines.cut_image().unwrap().encode();
        let restored = Timelines::restore(&image, &store.open(&infos)).unwrap();
        assert_eq!(Some(restored.sum), sum);
        assert_eq!(all(&restored, START).iter().map(hash_of).fold(0, u128::wrapping_add), restored.sum);
        drop(store.timelines.end_cut());
        check(&mut store, &changes);
    }
}
