//! Owns the tests of the snapshot store, and the plain state that they compare with.

mod crash;
mod damage;
mod golden;
mod property;
mod transfer;
mod whole;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Found, Listed, Manifest, SnapshotError, SnapshotStore};
use crate::fs::{FaultFs, File, FileSystem, PowerLoss};
use crate::log::GroupId;

const DIR: &str = "/groups/0007";
const GROUP: GroupId = GroupId(7);
const NOTHING: &dyn Fn(&str) -> bool = &|_| false;

/// The buckets of a state.
type Buckets = BTreeMap<(u8, u64), Vec<u8>>;

/// What a snapshot is to hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct State {
    index: u64,
    buckets: Buckets,
    segments: Vec<Listed>,
}

fn open(fs: &FaultFs) -> (SnapshotStore, Vec<Found>) {
    SnapshotStore::open(Arc::new(fs.clone()), Path::new(DIR), GROUP).unwrap()
}

/// Opens a directory in which everything must be whole.
fn open_whole(fs: &FaultFs) -> SnapshotStore {
    let (store, found) = open(fs);
    for found in found {
        found.manifest.unwrap();
    }
    store
}

fn path(name: &str) -> PathBuf {
    Path::new(DIR).join(name)
}

/// The names of all files.
fn names(fs: &FaultFs) -> Vec<String> {
    fs.list(Path::new(DIR)).unwrap()
}

fn no_pace(_: u64) {}

/// Writes a state as a snapshot; `base` is the one to build on, with the state that it holds.
fn take(
    store: &SnapshotStore,
    base: Option<(&Manifest, &State)>,
    state: &State,
) -> Result<Arc<Manifest>, SnapshotError> {
    let mut writer = store.begin(base.map(|(manifest, _)| manifest));
    for ((section, number), bytes) in &state.buckets {
        let before = base.and_then(|(_, before)| before.buckets.get(&(*section, *number)));
        if before != Some(bytes) || writer.must_write(*section, *number) {
            writer.put(*section, *number, bytes, &no_pace)?;
        } else {
            writer.keep(*section, *number);
        }
    }
    for segment in &state.segments {
        writer.list_segment(segment.clone());
    }
    writer.finish(state.index, format!("meta {}", state.index).into_bytes(), &no_pace)
}

/// What a snapshot holds.
fn load(store: &SnapshotStore, manifest: &Manifest) -> Result<State, SnapshotError> {
    assert_eq!(manifest.meta, format!("meta {}", manifest.index).as_bytes());
    let mut buckets = Buckets::new();
    let decode = |section, number, bytes: &[u8]| Ok(((section, number), bytes.to_vec()));
    store.load(manifest, decode, |(key, bytes)| {
        assert!(buckets.insert(key, bytes).is_none(), "each bucket once");
        Ok(())
    })?;
    Ok(State { index: manifest.index, buckets, segments: manifest.segments.clone() })
}

fn verify(store: &SnapshotStore, manifest: &Manifest) -> Result<(), SnapshotError> {
    store.verify(manifest, None, &no_pace)
}

/// Makes a segment file as its owner does.
fn make_segment(fs: &FaultFs, store: &SnapshotStore, content: &[u8]) -> std::io::Result<Listed> {
    let number = store.take_number();
    let unfinished = path(&format!("{number:016x}.new"));
    let name = format!("{number:016x}.segment");
    let file: Arc<dyn File> = fs.create(&unfinished)?;
    file.write_at(0, content)?;
    file.sync_data()?;
    fs.rename(&unfinished, &path(&name))?;
    fs.sync_dir(Path::new(DIR))?;
    let checksum = crc32fast::hash(content);
    Ok(Listed { name, bytes: content.len() as u64, checksum, detail: vec![number as u8] })
}

/// Two snapshots of one bucket file and one segment each; the second needs the files of the first.
fn two() -> (FaultFs, State, State) {
    let fs = FaultFs::new();
    let store = open_whole(&fs);
    let first = State {
        index: 10,
        buckets: Buckets::from([((1, 0), b"one".to_vec()), ((1, 5), vec![5; 70])]),
        segments: vec![make_segment(&fs, &store, b"a segment").unwrap()],
    };
    let base = take(&store, None, &first).unwrap();
    let mut second = State { index: 20, ..first.clone() };
    second.buckets.insert((0, 9), b"nine".to_vec());
    second.segments.push(make_segment(&fs, &store, b"another segment").unwrap());
    take(&store, Some((&base, &first)), &second).unwrap();
    (fs, first, second)
}
