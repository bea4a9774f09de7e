//! Owns the tests of single properties of the store.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::codec::Malformed;
use crate::fs::{ONCE_BYTES, RealFs};

/// A state of equal buckets.
fn equal(buckets: u64, length: usize) -> State {
    let buckets = (0..buckets).map(|number| ((0, number), vec![number as u8; length])).collect();
    State { index: 1, buckets, segments: Vec::new() }
}

#[test]
fn an_unchanged_state_writes_only_a_manifest() {
    let (fs, _, second) = two();
    let store = open_whole(&fs);
    let base = store.newest().unwrap();
    let before = names(&fs).len();
    let manifest = take(&store, Some((&base, &second)), &second).unwrap();
    assert_eq!(names(&fs).len(), before + 1);
    assert_eq!(manifest.buckets, base.buckets);
    let status = store.status();
    assert_eq!((status.whole, status.damaged, status.files), (3, 0, 7));
    assert_eq!((status.bucket_bytes, status.bucket_file_bytes, status.segment_bytes), (77, 77 + 2 * 24, 24));
    let written = fs.content(&path(&manifest.name())).unwrap().len() as u64;
    assert_eq!(status.written_bytes, written, "since it was opened");
}

#[test]
fn an_empty_state_is_a_snapshot_too() {
    let fs = FaultFs::new();
    let store = open_whole(&fs);
    assert!(store.newest().is_none());
    take(&store, None, &State::default()).unwrap();
    assert_eq!(names(&fs), ["0000000000000001.manifest"]);
    assert_eq!(load(&store, &open_whole(&fs).newest().unwrap()).unwrap(), State::default());
}

#[test]
fn a_file_that_is_mostly_out_of_use_is_emptied() {
    let fs = FaultFs::new();
    let store = open_whole(&fs);
    let mut state = equal(10, 100);
    let mut base = take(&store, None, &state).unwrap();
    for number in 0..6 {
        assert!(!store.begin(Some(&base)).must_write(0, 9), "{number} of ten are elsewhere");
        let before = state.clone();
        state.buckets.insert((0, number), vec![0xFF; 100]);
        base = take(&store, Some((&base, &before)), &state).unwrap();
    }
    assert_eq!(base.files.len(), 7);
    let writer = store.begin(Some(&base));
    assert!(writer.must_write(0, 9), "less than half of the file is in use");
    assert!(!writer.must_write(0, 0));
    drop(writer);
    let last = take(&store, Some((&base, &state)), &state).unwrap();
    assert!(!last.files.contains(&base.files[0]));
    assert_eq!(load(&store, &last).unwrap(), state);
}

#[test]
fn the_number_of_files_is_bounded_however_little_changes() {
    let fs = FaultFs::new();
    let store = open_whole(&fs);
    let mut state = equal(400, 10);
    let mut base = take(&store, None, &state).unwrap();
    for round in 0..400 {
        let before = state.clone();
        state.buckets.insert((0, round), vec![0xFF; 11]);
        base = take(&store, Some((&base, &before)), &state).unwrap();
        store.prune(NOTHING).unwrap();
        assert!(base.files.len() <= 65, "{}", base.files.len());
        assert!(names(&fs).len() < 140);
    }
    assert_eq!(load(&store, &base).unwrap(), state);
    let written = store.status().written_bytes;
    let manifests: u64 = 400 * 24 * 400;
    assert!(written < manifests + 400 * 11 * 30, "{written}: gathering costs little");
}

#[test]
fn large_and_small_buckets_are_paced_in_pieces_and_read_once() {
    let fs = FaultFs::new();
    let store = open_whole(&fs);
    let mut state = State::default();
    for (number, length) in
        [0, 1, (1 << 20) - 1, 1 << 20, 3 << 20, 5, 700_000, 700_000].into_iter().enumerate()
    {
        state.buckets.insert((3, number as u64), (0..length).map(|at| (at % 251) as u8).collect());
    }
    state.segments.push(make_segment(&fs, &store, &vec![8; (2 << 20) + 17]).unwrap());
    let (paced, most) = (AtomicU64::new(0), AtomicU64::new(0));
    let pace = |bytes| {
        paced.fetch_add(bytes, Ordering::Relaxed);
        most.fetch_max(bytes, Ordering::Relaxed);
    };
    let mut writer = store.begin(None);
    for ((section, number), bytes) in &state.buckets {
        writer.put(*section, *number, bytes, &pace).unwrap();
    }
    writer.list_segment(state.segments[0].clone());
    let manifest = writer.finish(0, b"meta 0".to_vec(), &pace).unwrap();
    assert_eq!(paced.swap(0, Ordering::Relaxed), store.status().written_bytes);
    assert!(most.swap(0, Ordering::Relaxed) <= 1 << 20);
    assert_eq!(load(&store, &manifest).unwrap(), state);
    store.verify(&manifest, None, &pace).unwrap();
    let bytes: u64 = manifest.named_files().map(|(_, bytes)| bytes).sum();
    assert_eq!((paced.into_inner(), most.into_inner()), (bytes, ONCE_BYTES as u64));
}

#[test]
fn only_what_is_new_is_verified_behind_a_verified_snapshot() {
    let (fs, ..) = two();
    let store = open_whole(&fs);
    let (newest, previous) = (store.newest().unwrap(), store.previous().unwrap());
    let read = AtomicU64::new(0);
    let pace = |bytes| _ = read.fetch_add(bytes, Ordering::Relaxed);
    store.verify(&newest, Some(&previous), &pace).unwrap();
    assert_eq!(read.into_inner(), 24 + 4 + 15, "the second bucket file and the second segment");
}

#[test]
fn a_bucket_that_its_reader_refuses_is_damage() {
    let (fs, first, _) = two();
    let store = open_whole(&fs);
    let newest = store.newest().unwrap();
    let refuse = Malformed { offset: 1, what: "something else" };
    let decode = |section, _, _: &[u8]| if section == 0 { Err(refuse) } else { Ok(()) };
    let error = store.load(&newest, decode, Ok).unwrap_err();
    assert!(matches!(error, SnapshotError::Malformed { section: 0, number: 9, offset: 24, .. }), "{error}");
    assert_eq!(load(&store, &store.newest().unwrap()).unwrap(), first, "the one before does not need it");
}

#[test]
fn what_a_reader_refuses_to_take_ends_the_load_of_many_buckets() {
    let fs = FaultFs::new();
    let store = open_whole(&fs);
    let buckets: Buckets = (0..3_000).map(|number| ((1, number), vec![number as u8; 4_096])).collect();
    let state = State { index: 1, buckets, segments: Vec::new() };
    take(&store, None, &state).unwrap();
    let store = open_whole(&fs);
    let newest = store.newest().unwrap();
    assert_eq!(load(&store, &newest).unwrap(), state);
    let mut taken = 0;
    let error = store.load(
        &newest,
        |_, number, _| Ok(number),
        |number| {
            taken += 1;
            if number == 1_234 { Err(Malformed { offset: 0, what: "not this one" }) } else { Ok(()) }
        },
    );
    assert!(matches!(error, Err(SnapshotError::Malformed { section: 1, number: 1_234, .. })), "{error:?}");
    assert!((1..3_000).contains(&taken), "{taken}");
}

#[test]
fn pinned_files_stay_while_the_pin_lives() {
    let (fs, first, second) = two();
    let store = open_whole(&fs);
    let oldest = store.previous().unwrap();
    let pin = store.pin(&oldest).unwrap();
    let state = State { index: 30, buckets: Buckets::new(), segments: Vec::new() };
    take(&store, None, &state).unwrap();
    take(&store, None, &state).unwrap();
    assert_eq!(store.prune(NOTHING).unwrap(), 3, "manifest, bucket file and segment of the second alone");
    assert_eq!(load(&store, pin.manifest()).unwrap(), first);
    assert!(store.pin(&oldest).is_some());
    let base = store.newest().unwrap();
    drop(pin);
    assert_eq!(store.prune(NOTHING).unwrap(), 3);
    assert!(store.pin(&oldest).is_none(), "it is gone");
    assert!(store.begin(Some(&oldest)).must_write(1, 0));
    take(&store, Some((&base, &state)), &second).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn what_a_writer_needs_stays_until_it_ends() {
    let (fs, first, _) = two();
    let store = open_whole(&fs);
    let base = store.previous().unwrap();
    let mut writer = store.begin(Some(&base));
    let segment = make_segment(&fs, &store, b"new").unwrap();
    writer.list_segment(segment.clone());
    writer.put(0, 0, b"zero", &no_pace).unwrap();
    for _ in 0..2 {
        take(&store, None, &State::default()).unwrap();
    }
    store.prune(NOTHING).unwrap();
    for (section, number) in first.buckets.keys() {
        writer.keep(*section, *number);
    }
    let manifest = writer.finish(40, b"meta 40".to_vec(), &no_pace).unwrap();
    store.prune(NOTHING).unwrap();
    let mut expected = State { index: 40, segments: vec![segment], ..first };
    expected.buckets.insert((0, 0), b"zero".to_vec());
    let store = open_whole(&fs);
    assert_eq!(load(&store, &manifest).unwrap(), expected);
    verify(&store, &manifest).unwrap();
}

#[test]
fn numbers_are_above_everything_that_was_there_and_unknown_files_stay() {
    let fs = FaultFs::new();
    fs.create_dir_all(Path::new(DIR)).unwrap();
    for name in ["0000000000000041.segment", "0000000000000050.new", "0000000000000047.other", "notes"] {
        fs.create(&path(name)).unwrap();
    }
    let store = open_whole(&fs);
    assert_eq!(names(&fs), ["0000000000000041.segment", "0000000000000047.other", "notes"]);
    assert_eq!(store.take_number(), 0x51);
    assert_eq!(store.prune(&|name| name == "0000000000000041.segment").unwrap(), 0, "in use");
    assert_eq!(store.prune(NOTHING).unwrap(), 1);
    assert_eq!(names(&fs), ["0000000000000047.other", "notes"]);
    let (one, other) = (store.clone(), store);
    let thread = std::thread::spawn(move || (0..1000).map(|_| one.take_number()).collect::<BTreeSet<_>>());
    let numbers: BTreeSet<u64> = (0..1000).map(|_| other.take_number()).collect();
    assert!(thread.join().unwrap().is_disjoint(&numbers));
}

#[test]
fn a_part_above_its_limit_is_refused() {
    let fs = FaultFs::new();
    let store = open_whole(&fs);
    let error = store.begin(None).finish(1, vec![0; (1 << 20) + 1], &no_pace).unwrap_err();
    assert!(matches!(error, SnapshotError::TooLarge { limit_bytes: 0x10_0000, .. }), "{error}");
    assert!(names(&fs).is_empty());
}

#[test]
fn it_works_on_the_files_of_the_machine() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("0001");
    let open = || SnapshotStore::open(Arc::new(RealFs), &dir, GROUP).unwrap().0;
    let store = open();
    let mut state = equal(20, 100_000);
    let mut base = take(&store, None, &state).unwrap();
    for round in 0..4 {
        let before = state.clone();
        state.buckets.insert((1, round), vec![1; 50_000]);
        base = take(&store, Some((&base, &before)), &state).unwrap();
        store.prune(NOTHING).unwrap();
    }
    drop(store);
    let store = open();
    assert_eq!(store.newest().unwrap(), base);
    verify(&store, &base).unwrap();
    assert_eq!(load(&store, &base).unwrap(), state);
    assert_eq!(store.status().whole, 2);
}
