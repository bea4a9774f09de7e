//! What changes while a table is flushed or segments are merged.

use super::*;
use crate::fs::PowerLoss;

/// What is done to one entry each, and what must be there of it afterwards: version, payload, expiry.
type Left = Option<(u32, &'static [u8], Option<Stamp>)>;

/// Entries that live for ever and entries that do not, and each change to one of each.
pub(super) struct Changes {
    pub(super) ids: Vec<EntryId>,
}

const CHANGES: usize = 7;

impl Changes {
    pub(super) fn append(store: &mut Store) -> Self {
        let ids = (0..2 * CHANGES).map(|n| {
            let ttl_ms = (n >= CHANGES).then(|| HOUR_MS * (n - CHANGES + 1) as u64);
            store.append(n as u64 % 3, ttl_ms, b"first".to_vec())
        });
        Self { ids: ids.collect() }
    }

    pub(super) fn apply(&self, timelines: &mut Timelines) {
        for ids in self.ids.chunks(CHANGES) {
            let [_, deleted, amended, twice, amended_and_deleted, kept, shortened] = *ids else {
                panic!("seven entries")
            };
            timelines.remove(deleted).unwrap();
            timelines.amend(amended, Bytes::from_static(b"second")).unwrap();
            timelines.amend(twice, Bytes::from_static(b"second")).unwrap();
            timelines.amend(twice, Bytes::from_static(b"third")).unwrap();
            timelines.amend(amended_and_deleted, Bytes::from_static(b"second")).unwrap();
            timelines.remove(amended_and_deleted).unwrap();
            timelines.set_expiry(kept, None).unwrap();
            timelines.set_expiry(shortened, Some(Stamp(START.0 + 1_000))).unwrap();
        }
    }

    fn left(n: usize) -> Left {
        let ttl = (n >= CHANGES).then(|| Stamp(START.0 + HOUR_MS * (n as u64 - CHANGES as u64 + 1)));
        match n % CHANGES {
            0 => Some((1, b"first", ttl)),
            2 => Some((2, b"second", ttl)),
            3 => Some((3, b"third", ttl)),
            5 => Some((1, b"first", None)),
            6 => Some((1, b"first", Some(Stamp(START.0 + 1_000)))),
            _ => None,
        }
    }

    /// Looks for each by its id, alone and together.
    pub(super) fn check_ids(&self, store: &Store) {
        let newest_first: Vec<EntryId> = self.ids.iter().rev().copied().collect();
        for ids in [&self.ids, &newest_first] {
            let alone: Vec<_> = ids.iter().map(|id| store.live(*id)).collect();
            assert_eq!(store.live_all(ids), alone);
        }
        for (n, id) in self.ids.iter().enumerate() {
            let entry = store.live(*id);
            let expected = Self::left(n).filter(|(.., expiry)| expiry.is_none_or(|at| at > store.stamp));
            let left = entry.as_ref().map(|entry| (entry.version, &entry.payload[..], entry.expiry));
            assert_eq!(left, expected, "entry {n} by its id");
        }
    }

    fn check(&self, store: &Store) {
        self.check_ids(store);
        for (n, id) in self.ids.iter().enumerate() {
            let entry = store.live(*id);
            let timeline = store.timeline(n as u64 % 3);
            assert!(timeline.is_sorted_by(|newer, older| newer.id > older.id), "an entry comes twice");
            assert_eq!(
                timeline.iter().find(|entry| entry.id == *id),
                entry.as_ref(),
                "entry {n} in a timeline"
            );
        }
        assert!(store.timelines.damage.get().is_none());
        if store.stamp == START {
            let sum = all(&store.timelines, START).iter().map(hash_of).fold(0, u128::wrapping_add);
            assert_eq!(store.timelines.sum, sum);
        }
    }

    /// Looks everywhere again after each thing that can happen to tables and segments.
    fn check_for_ever(&self, store: &mut Store) {
        let live = store.timelines.len();
        self.check(store);
        drop(store.timelines.drop_cached(0));
        self.check(store);
        store.flush();
        self.check(store);
        assert_eq!(store.timelines.len(), live);
        let sum = store.timelines.sum;
        store.timelines = store.restored();
        assert_eq!((store.timelines.sum, store.timelines.len()), (sum, live));
        self.check(store);
        drop(store.merge(&ANYTHING));
        self.check(store);
        store.stamp = Stamp(START.0 + HOUR_MS);
        drop(store.timelines.drop_expired(store.stamp));
        self.check(store);
        store.stamp = Stamp(START.0 + 24 * HOUR_MS);
        drop(store.timelines.drop_expired(store.stamp));
        self.check(store);
        assert!(store.timelines.segments.iter().all(|held| held.segment.info().expiry.is_none()));
    }
}

#[test]
fn nothing_deleted_returns_when_it_died_in_a_frozen_table() {
    let mut store = Store::new();
    let changes = Changes::append(&mut store);
    store.timelines.freeze();
    changes.apply(&mut store.timelines);
    changes.check(&store);
    let flushed = store.write(store.timelines.flush_work(store.stamp).unwrap());
    store.install_flush(flushed);
    changes.check_for_ever(&mut store);
}

#[test]
fn nothing_deleted_returns_when_it_died_during_a_flush() {
    let mut store = Store::new();
    let changes = Changes::append(&mut store);
    let work = store.flush_work();
    changes.apply(&mut store.timelines);
    let flushed = store.write(work);
    changes.check(&store);
    store.install_flush(flushed);
    changes.check_for_ever(&mut store);
}

#[test]
fn nothing_deleted_returns_when_it_died_in_a_cached_table() {
    let mut store = Store::new();
    let changes = Changes::append(&mut store);
    store.flush();
    changes.apply(&mut store.timelines);
    changes.check_for_ever(&mut store);
}

#[test]
fn nothing_deleted_returns_when_it_died_in_a_segment() {
    let mut store = Store::new();
    let changes = Changes::append(&mut store);
    store.flush();
    drop(store.timelines.drop_cached(0));
    changes.apply(&mut store.timelines);
    changes.check_for_ever(&mut store);
}

#[test]
fn nothing_deleted_returns_when_it_died_during_a_merge() {
    for (cached, merges) in [(u64::MAX, 0), (u64::MAX, 2), (0, 0), (0, 1), (0, 2), (0, 3)] {
        let mut store = Store::new();
        let others = Changes::append(&mut store);
        store.flush();
        let changes = Changes::append(&mut store);
        store.flush();
        drop(store.timelines.drop_cached(cached));
        // Segments of each window are merged, and in the middle of one merge everything changes.
        for n in 0.. {
            let Some(work) = store.timelines.merge_work(&ANYTHING, store.stamp) else {
                assert!(n > merges);
                break;
            };
            if n == merges {
                changes.apply(&mut store.timelines);
            }
            let merged = store.write_merge(work);
            store.install_merge(merged);
        }
        assert!(others.ids.iter().all(|id| store.live(*id).is_some()));
        others.apply(&mut store.timelines);
        changes.check(&store);
        changes.check_for_ever(&mut store);
    }
}

#[test]
fn a_merge_of_every_version_keeps_the_last() {
    let mut store = Store::new();
    let id = store.append(1, None, vec![0; 10]);
    let gone = store.append(1, None, vec![0; 10]);
    for n in 1..6 {
        store.timelines.amend(id, Bytes::from(vec![n; 10])).unwrap();
        store.timelines.amend(gone, Bytes::from(vec![n; 10])).unwrap();
        for _ in 0..9 {
            store.append(2, None, vec![0; 200]);
        }
        store.flush();
    }
    store.timelines.remove(gone).unwrap();
    drop(store.timelines.drop_cached(0));
    drop(store.merge(&MergePolicy { dead_divisor: 0, ..ANYTHING }));
    assert_eq!(store.timelines.segments.len(), 1);
    assert_eq!(store.timelines.segments[0].dead.len(), 0);
    assert_eq!(store.live(id).map(|entry| (entry.version, entry.payload[0])), Some((6, 5)));
    assert_eq!(store.live(gone), None);
    assert_eq!(store.timeline(1).len(), 1);
}

#[test]
fn a_work_of_timelines_that_were_replaced_changes_nothing() {
    let mut store = Store::new();
    for owner in 0..3 {
        store.append(owner, None, vec![1; 100]);
        store.flush();
    }
    let merge = store.timelines.merge_work(&ANYTHING, store.stamp).unwrap();
    let restored = store.restored();
    let id = store.append(1, None, vec![2; 100]);
    let work = store.flush_work();
    let (flushed, merged) = (store.write(work), store.write_merge(merge));
    store.timelines = restored;
    store.install_flush(flushed);
    store.install_merge(merged);
    assert_eq!(store.live(id), None);
    assert_eq!(store.timelines.segments.len(), 3);
    assert_eq!(store.timeline(1).len(), 1);
}

#[test]
fn a_flush_that_fails_leaves_no_files() {
    for syncs in 0..4 {
        let mut store = Store::new();
        for ttl_ms in [None, Some(HOUR_MS), Some(100 * HOUR_MS)] {
            store.append(1, ttl_ms, vec![1; 10_000]);
        }
        let files = || store.fs.list(Store::dir()).unwrap();
        let before = files();
        store.timelines.freeze();
        let work = || store.timelines.flush_work(store.stamp).unwrap();
        let write = |work: FlushWork| work.write(&store.fs, Store::dir(), &|| store.number(), &|_| {});
        store.fs.fail_sync_after(syncs, PowerLoss::KeepAll);
        let failed = write(work()).is_err();
        assert_eq!(failed, syncs < 3, "there are three windows");
        assert_eq!(files().len() - before.len(), if failed { 0 } else { 3 });
        let flushed = if failed { write(work()).unwrap() } else { continue };
        store.install_flush(flushed);
        assert_eq!(store.timeline(1).len(), 3);
    }
}

/// Two segments that are merged, or one of which half has expired and that is split.
fn mergeable(is_split: bool) -> Store {
    let mut store = Store::new();
    for n in 0..120 {
        let spread_ms = if n % 2 == 0 { 0 } else { HOUR_MS + n * 1_000_000 };
        store.append(n % 3, is_split.then_some(480 * HOUR_MS + spread_ms), vec![1; 10_000]);
        if n == 59 && !is_split {
            store.flush();
        }
    }
    store.flush();
    store.stamp.0 += 480 * HOUR_MS;
    store
}

#[test]
fn a_merge_that_fails_leaves_no_files() {
    let faults: [fn(&FaultFs, u64); 3] = [
        |fs, after| fs.fail_write_after(after, 1_000),
        |fs, after| fs.fail_sync_after(after, PowerLoss::KeepAll),
        FaultFs::fail_dir_sync_after,
    ];
    for (is_split, fault) in
        [false, true].into_iter().flat_map(|is_split| faults.map(|fault| (is_split, fault)))
    {
        for after in 0.. {
            let mut store = mergeable(is_split);
            let files = || store.fs.list(Store::dir()).unwrap();
            let (before, there) = (files(), (0..3).map(|owner| store.timeline(owner)).collect::<Vec<_>>());
            let work = || store.timelines.merge_work(&ANYTHING, store.stamp).unwrap();
            let write = || work().write(&store.fs, Store::dir(), &|| store.number(), &|_| {});
            fault(&store.fs, after);
            if write().is_ok() {
                let made = files().len() - before.len();
                assert_eq!(made > 1, is_split, "{made}");
                assert!(after >= made as u64, "each of {made} outputs may fail");
                break;
            }
            assert_eq!(files(), before, "after {after}, split: {is_split}");
            let merged = write().unwrap();
            store.install_merge(merged);
            drop(store.timelines.drop_cached(0));
            assert!((0..3).map(|owner| store.timeline(owner)).eq(there));
        }
    }
}

/// A cut is of one log index: what is applied behind it will be applied again.
#[test]
fn a_cut_has_what_died_after_it() {
    for early in [false, true] {
        let mut store = Store::new();
        let died_before = store.append(1, None, b"x".to_vec());
        let ids = [None, Some(HOUR_MS)].map(|ttl_ms| store.append(1, ttl_ms, b"x".to_vec()));
        let expires = store.append(1, Some(1_000), b"x".to_vec());
        // A flush that is under way when the cut begins, or one that begins later.
        let work = early.then(|| store.flush_work());
        store.timelines.remove(died_before).unwrap();
        let sum = store.timelines.sum;
        store.timelines.begin_cut(store.stamp);
        assert!(store.timelines.cut_image().is_none(), "a table of the cut is not flushed");
        store.timelines.remove(ids[0]).unwrap();
        store.timelines.amend(ids[1], Bytes::from_static(b"y")).unwrap();
        store.stamp.0 += 2_000;
        let work = work.unwrap_or_else(|| store.timelines.flush_work(store.stamp).unwrap());
        let flushed = store.write(work);
        store.install_flush(flushed);
        let _still_on_disk = store.merge(&MergePolicy { dead_divisor: u64::MAX, ..ANYTHING });
        let (image, infos) = store.timelines.cut_image().unwrap().encode();
        let restored = Timelines::restore(&image, &store.open(&infos)).unwrap();
        let there = |id| restored.live(id, START).map(|entry| (entry.version, entry.payload.to_vec()));
        assert_eq!(ids.map(there), [Some((1, b"x".to_vec())), Some((1, b"x".to_vec()))]);
        assert!(there(expires).is_some(), "it had not expired at the cut");
        assert_eq!(there(died_before), None);
        assert_eq!(restored.sum, sum);
        drop(store.timelines.drop_cached(0));
        assert_eq!(store.live(ids[0]), None);
        assert_eq!(store.live(ids[1]).unwrap().version, 2);
    }
}
