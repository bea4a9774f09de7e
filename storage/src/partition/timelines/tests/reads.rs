//! What reads look into, and what they say of damage.

use super::*;
use std::path::PathBuf;

#[test]
fn a_page_of_the_newest_looks_into_no_segment() {
    let mut store = Store::new();
    for _ in 0..4 {
        for n in 0..50 {
            store.append(n % 2, None, vec![0; 50]);
        }
        store.flush();
    }
    let opened = |walk: &Walk<'_>| 4 - walk.segments;
    // All that is asked for is in cached tables.
    let mut walk = store.timelines.newest(SPACE, UserId(1), EntryId::MAX, store.stamp);
    assert_eq!(walk.by_ref().take(100).count(), 100);
    assert_eq!(opened(&walk), 0);
    // Two of four are cached: the third segment is needed from the 51st on, the fourth from the 76th.
    let half = store.timelines.sizes().cached_bytes / 2 + 1;
    assert_eq!(store.timelines.drop_cached(half).len(), 2);
    for (count, segments) in [(50, 0), (51, 1), (75, 1), (76, 2)] {
        let mut walk = store.timelines.newest(SPACE, UserId(1), EntryId::MAX, store.stamp);
        assert_eq!(walk.by_ref().take(count).count(), count);
        assert_eq!(opened(&walk), segments, "{count} entries");
    }
    // What an owner has not, is not looked for in what is older than the page.
    let newest = store.append(2, None, Vec::new());
    let mut walk = store.timelines.newest(SPACE, UserId(3), EntryId::MAX, store.stamp);
    assert_eq!(walk.next_above(Some(newest)), None);
    assert_eq!(opened(&walk), 0);
}

/// Each part that is open holds a few KiB that were read ahead, and the walk nothing else.
#[test]
fn a_walk_to_the_beginning_of_a_long_timeline_has_few_segments_open() {
    const SEGMENTS: usize = 60;
    let mut store = Store::new();
    for _ in 0..SEGMENTS {
        for n in 0..100 {
            store.append(n % 3, None, vec![0; 50]);
        }
        store.flush();
    }
    drop(store.timelines.drop_cached(0));
    assert_eq!(store.timelines.segments.len(), SEGMENTS);
    let mut walk = store.timelines.newest(SPACE, UserId(1), EntryId::MAX, store.stamp);
    let (mut most, mut count) = (0, 0);
    while walk.next().is_some() {
        (most, count) = (most.max(walk.parts.len()), count + 1);
    }
    assert_eq!((count, walk.segments), (33 * SEGMENTS, 0));
    assert!(most <= 2, "{most} segments at once");
}

#[test]
fn entries_that_a_merge_mixed_come_once() {
    let mut store = Store::new();
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.extend((0..10).map(|n| store.append(n % 2, None, vec![0; 50])));
        store.flush();
    }
    // The output holds what is cached and what is not.
    drop(store.timelines.drop_cached(store.timelines.sizes().cached_bytes / 2 + 1));
    drop(store.merge(&ANYTHING));
    assert_eq!(store.timelines.segments.len(), 1);
    for cached in [u64::MAX, store.timelines.sizes().cached_bytes / 2 + 1, 0] {
        drop(store.timelines.drop_cached(cached));
        assert_eq!(store.timeline(0).len(), 20);
        assert_eq!(store.timelines.len(), 40);
    }
    store.timelines.remove(ids[39]).unwrap();
    assert_eq!(store.timeline(1).len(), 19);
}

/// The file of the only segment with one byte of the payload changed.
fn damaged() -> (Store, EntryId) {
    let mut store = Store::new();
    let id = store.append(1, None, b"a payload that is easy to find".to_vec());
    store.append(1, None, b"another".to_vec());
    store.timelines.begin_cut(store.stamp);
    let flushed = store.write(store.timelines.flush_work(store.stamp).unwrap());
    store.install_flush(flushed);
    let path: PathBuf = store.timelines.segments[0].segment.path().to_path_buf();
    let mut content = store.fs.content(&path).unwrap();
    let at = content.windows(6).position(|bytes| bytes == b"is eas").unwrap();
    content[at] ^= 1;
    assert!(store.fs.damage(&path, &content));
    let (image, infos) = store.timelines.cut_image().unwrap().encode();
    store.timelines = Timelines::restore(&image, &store.open(&infos)).unwrap();
    assert!(store.timelines.damage.get().is_none());
    (store, id)
}

#[test]
fn damage_that_a_read_or_a_write_meets_is_reported() {
    let meet: [fn(&mut Store, EntryId); 4] = [
        |store, id| assert_eq!(store.live(id), None),
        |store, _| assert_eq!(store.timeline(1).len(), 1),
        |store, id| assert_eq!(store.timelines.amend(id, Bytes::new()), None),
        |store, _| {
            let given = store.timelines.each(store.stamp, |_| Ok::<_, SegmentError>(()));
            assert!(matches!(given, Err(SegmentError::Damaged { .. })), "{given:?}");
        },
    ];
    for meet in meet {
        let (mut store, id) = damaged();
        meet(&mut store, id);
        let damage = store.timelines.damage.get().unwrap();
        assert!(matches!(damage, SegmentError::Damaged { .. }), "{damage}");
    }
}
