//! Owns what the store, its writers and its pins share: which snapshots there are, and which files must stay.
//!
//! - A name is held before its file is there, and until a manifest that names it is known.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::error::OrFail;
use super::name::NUMBER_MAX;
use super::{Manifest, SnapshotError};
use crate::fs::FileSystem;
use crate::log::{GroupId, Operation};

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) fs: Arc<dyn FileSystem>,
    pub(super) dir: PathBuf,
    pub(super) group: GroupId,
    pub(super) next_number: AtomicU64,
    pub(super) written_bytes: AtomicU64,
    pub(super) read_back_bytes: AtomicU64,
    pub(super) state: Mutex<State>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    /// Whole snapshots by number.
    pub(super) whole: BTreeMap<u64, Arc<Manifest>>,
    /// Numbers of manifests that are damaged, or need a file that is.
    pub(super) damaged: BTreeSet<u64>,
    /// Names of files that must stay, and how often.
    pub(super) held: BTreeMap<String, usize>,
}

impl State {
    /// The newest whole snapshots, at most two.
    pub(super) fn newest_two(&self) -> impl Iterator<Item = &Arc<Manifest>> {
        self.whole.values().rev().take(2)
    }

    /// Whether a damaged manifest is newer than the second newest whole one: then every file may still be wanted.
    pub(super) fn keeps_all(&self) -> bool {
        let second = self.newest_two().nth(1).map(|manifest| manifest.number);
        self.damaged.last().is_some_and(|damaged| second.is_none_or(|second| second < *damaged))
    }
}

impl Shared {
    pub(super) fn take_number(&self) -> u64 {
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        assert!(number < NUMBER_MAX, "a directory has fewer files than that");
        number
    }

    pub(super) fn sync_dir(&self) -> Result<(), SnapshotError> {
        self.fs.sync_dir(&self.dir).or_fail(Operation::SyncDirectory, &self.dir)
    }

    /// Counts every snapshot that needs what an error found as damaged.
    pub(super) fn condemn(&self, error: &SnapshotError, manifest: &Manifest) {
        let Some((path, offset)) = error.place() else { return };
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let bucket = manifest
            .buckets
            .iter()
            .find(|bucket| Some(bucket.offset) == offset && bucket.length > 0 && bucket.file_name() == name);
        let needs = |other: &Manifest| match bucket {
            Some(bucket) => other.bucket(bucket.section, bucket.number) == Some(bucket),
            None => other.names().any(|other| other == name),
        };
        let mut state = self.state.lock();
        let (damaged, whole) =
            std::mem::take(&mut state.whole).into_iter().partition(|(_, other)| needs(other));
        state.whole = whole;
        let damaged: BTreeMap<u64, Arc<Manifest>> = damaged;
        state.damaged.extend(damaged.into_keys());
    }
}

/// Files that must stay while this lives.
#[derive(Debug)]
pub(super) struct Hold {
    shared: Arc<Shared>,
    names: Vec<String>,
}

impl Hold {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        Self { shared: Arc::clone(shared), names: Vec::new() }
    }

    /// Holds the files of a snapshot if it is whole.
    pub(super) fn snapshot(shared: &Arc<Shared>, number: u64) -> (Self, Option<Arc<Manifest>>) {
        let mut hold = Self::new(shared);
        let mut state = shared.state.lock();
        let manifest = state.whole.get(&number).cloned();
        for name in manifest.iter().flat_map(|manifest| manifest.names()) {
            hold.add_to(&mut state, name);
        }
        drop(state);
        (hold, manifest)
    }

    pub(super) fn add(&mut self, name: String) {
        let shared = Arc::clone(&self.shared);
        self.add_to(&mut shared.state.lock(), name);
    }

    fn add_to(&mut self, state: &mut State, name: String) {
        *state.held.entry(name.clone()).or_default() += 1;
        self.names.push(name);
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        for name in &self.names {
            if let Some(holds) = state.held.get_mut(name) {
                *holds -= 1;
                if *holds == 0 {
                    state.held.remove(name);
                }
            }
        }
    }
}
