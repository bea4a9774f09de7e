//! Owns the snapshots of one group, in one directory: manifests, bucket files, and which segments they need.
//!
//! - A snapshot is there when its manifest has its name; until then the one before is the newest.
//! - No manifest ever names a file that was removed before it.
//! - Files do not change once they have their name. Nothing is removed but by [`SnapshotStore::prune`] and what is
//!   unfinished by [`SnapshotStore::open`].
//! - While a damaged manifest is newer than the second newest whole one, nothing is removed.
//!
//! The bytes on disk are specified in `storage/FORMAT.md`, "Snapshots".

mod base;
mod bucket_file;
mod error;
mod header;
mod manifest;
mod name;
mod open;
mod output;
mod prune;
mod read;
mod receive;
mod send;
mod shared;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

pub use error::SnapshotError;
pub use manifest::{BUCKET_BYTES_MAX, BucketFile, Listed, META_BYTES_MAX, Manifest, Placed};
pub use receive::{Announced, Renumber, SnapshotReceiver, StreamPosition};
pub use send::SnapshotSender;
pub use writer::{PreparedSnapshot, SnapshotWriter};

use crate::codec::Malformed;
use crate::fs::FileSystem;
use crate::log::GroupId;
use open::Use;
use shared::{Hold, Shared};

/// Called with each number of bytes before they are written or read; may block to keep to a rate.
pub type Pace<'a> = &'a (dyn Fn(u64) + Send + Sync);

/// A manifest that was found at open.
#[derive(Debug)]
pub struct Found {
    /// Its number.
    pub number: u64,
    /// What it says, or why it cannot be used.
    pub manifest: Result<Arc<Manifest>, SnapshotError>,
}

/// Figures of a store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SnapshotStatus {
    /// Snapshots that are whole.
    pub whole: u64,
    /// Manifests known to be damaged, or to need a file that is.
    pub damaged: u64,
    /// Files of the whole snapshots, manifests included.
    pub files: u64,
    /// Bytes of the buckets of the newest snapshot.
    pub bucket_bytes: u64,
    /// Bytes of the bucket files that it refers to.
    pub bucket_file_bytes: u64,
    /// Bytes of its segments.
    pub segment_bytes: u64,
    /// Bytes written to bucket files and manifests since the store was opened.
    pub written_bytes: u64,
    /// Bytes read by [`SnapshotStore::verify`] since the store was opened.
    pub read_back_bytes: u64,
}

/// Keeps the files of a snapshot from being removed while it lives.
#[derive(Debug)]
pub struct Pin {
    manifest: Arc<Manifest>,
    _hold: Hold,
}

/// Keeps files of a directory from being removed while it lives.
#[derive(Debug)]
pub struct FileHold {
    _hold: Hold,
}

impl Pin {
    /// The snapshot.
    pub fn manifest(&self) -> &Arc<Manifest> {
        &self.manifest
    }
}

/// The snapshots of one group. Clones share it. At most one writer at a time.
#[derive(Debug, Clone)]
pub struct SnapshotStore {
    shared: Arc<Shared>,
}

impl SnapshotStore {
    /// Opens or makes the directory of a group. Unfinished files are removed; manifests are returned newest first.
    /// One is whole if it can be read and every file that it names is there with its length; contents are read by
    /// [`Self::load`] and [`Self::verify`]. Nobody else may use the directory.
    pub fn open(
        fs: Arc<dyn FileSystem>,
        dir: &Path,
        group: GroupId,
    ) -> Result<(Self, Vec<Found>), SnapshotError> {
        let (shared, found) = open::open(fs, dir, group, Use::Own)?;
        Ok((Self { shared: Arc::new(shared) }, found))
    }

    /// Looks at a directory that others may use, and changes nothing: for whoever only reads. Manifests are read past the cache and
    /// returned newest first; the files that they name are not looked at.
    pub fn look(
        fs: Arc<dyn FileSystem>,
        dir: &Path,
        group: GroupId,
    ) -> Result<(Self, Vec<Found>), SnapshotError> {
        let (shared, found) = open::open(fs, dir, group, Use::Look)?;
        Ok((Self { shared: Arc::new(shared) }, found))
    }

    /// All whole snapshots, the newest first.
    pub fn whole(&self) -> Vec<Arc<Manifest>> {
        self.shared.state.lock().whole.values().rev().cloned().collect()
    }

    /// A number for a new file of the directory, segments included. None is given twice.
    pub fn take_number(&self) -> u64 {
        self.shared.take_number()
    }

    /// Counts a snapshot that its reader cannot use as damaged: it is no base and no fallback, and nothing is removed while it
    /// may be wanted.
    pub fn refuse(&self, manifest: &Manifest) {
        let mut state = self.shared.state.lock();
        if state.whole.remove(&manifest.number).is_some() {
            state.damaged.insert(manifest.number);
        }
    }

    /// The newest whole snapshot.
    pub fn newest(&self) -> Option<Arc<Manifest>> {
        self.shared.state.lock().newest_two().next().cloned()
    }

    /// The newest whole snapshot but one.
    pub fn previous(&self) -> Option<Arc<Manifest>> {
        self.shared.state.lock().newest_two().nth(1).cloned()
    }

    /// Begins a snapshot. `base` is the one since which changes were counted: what is unchanged is taken from it.
    /// Without one, or if it is not there whole any more, everything must be written.
    pub fn begin(&self, base: Option<&Manifest>) -> SnapshotWriter {
        SnapshotWriter::new(&self.shared, base)
    }

    /// Decodes all buckets, each checked before, on some threads of its own, and hands over what came of them, in any order. They
    /// are read ahead in large pieces. What is found damaged is neither [`Self::newest`] nor the base of a snapshot any more.
    pub fn load<T>(
        &self,
        manifest: &Manifest,
        decode: impl Fn(u8, u64, &[u8]) -> Result<T, Malformed> + Sync,
        take: impl FnMut(T) -> Result<(), Malformed> + Send,
    ) -> Result<(), SnapshotError> {
        let _hold = Hold::snapshot(&self.shared, manifest.number);
        let loaded = read::load(&self.shared, manifest, decode, take);
        loaded.inspect_err(|error| self.shared.condemn(error, manifest))
    }

    /// Reads every bucket and segment of a snapshot from the disk, past the cache, and checks it, except what
    /// `verified` refers to as well. `pace` hears of all bytes read, so that it can show progress.
    pub fn verify(
        &self,
        manifest: &Manifest,
        verified: Option<&Manifest>,
        pace: Pace<'_>,
    ) -> Result<(), SnapshotError> {
        let _hold = Hold::snapshot(&self.shared, manifest.number);
        let counted = |bytes| {
            self.shared.read_back_bytes.fetch_add(bytes, Ordering::Relaxed);
            pace(bytes);
        };
        let checked = read::verify(&self.shared, manifest, verified, &counted);
        checked.inspect_err(|error| self.shared.condemn(error, manifest))
    }

    /// Reads what a snapshot refers to in the file of that name, past the cache, and hands over everything that is wrong
    /// with it. `pace` hears of all bytes read. A snapshot that needs a damaged bucket is neither [`Self::newest`] nor a base any more,
    /// so that the next one writes the bucket again; a segment is written again by nobody.
    pub fn check_file(
        &self,
        manifest: &Manifest,
        name: &str,
        pace: Pace<'_>,
        found: &mut dyn FnMut(SnapshotError),
    ) {
        let _hold = Hold::snapshot(&self.shared, manifest.number);
        let is_segment = manifest.segments.iter().any(|segment| segment.name == name);
        read::check_file(&self.shared, manifest, name, pace, &mut |error| {
            if !is_segment {
                self.shared.condemn(&error, manifest);
            }
            found(error);
        });
    }

    /// Checks a segment of the directory that need not be in any snapshot, past the cache. `pace` hears of all bytes read.
    pub fn check_segment(&self, segment: &Listed, pace: Pace<'_>) -> Result<(), SnapshotError> {
        read::check_segment(&self.shared, segment, pace)
    }

    /// Keeps files of these names from being removed while it lives. Which of them were there before must be asked again.
    pub fn hold(&self, names: impl Iterator<Item = String>) -> FileHold {
        let mut hold = Hold::new(&self.shared);
        names.for_each(|name| hold.add(name));
        FileHold { _hold: hold }
    }

    /// The numbers of manifests that are known to be damaged, or to need a file that is.
    pub fn damaged(&self) -> BTreeSet<u64> {
        self.shared.state.lock().damaged.clone()
    }

    /// Whether a damaged snapshot is newer than the second newest whole one: then nothing is removed, and another whole one is
    /// needed.
    pub fn lacks_whole(&self) -> bool {
        self.shared.state.lock().keeps_all()
    }

    /// Removes files that neither the two newest whole snapshots nor a pin nor a writer needs; returns how many.
    /// `in_use` is asked about segments and bucket files, by name; one that was made but is in no manifest yet is in use.
    pub fn prune(&self, in_use: &dyn Fn(&str) -> bool) -> Result<u64, SnapshotError> {
        self.prune_before(u64::MAX, in_use)
    }

    /// Like [`Self::prune`], and keeps the whole snapshots whose number is `number` or larger too, because the second newest
    /// may not be what it should.
    pub fn prune_before(&self, number: u64, in_use: &dyn Fn(&str) -> bool) -> Result<u64, SnapshotError> {
        prune::prune(&self.shared, number, in_use)
    }

    /// Removes everything that a store has in a directory, and makes that durable; returns how many files. A directory
    /// that is not there is empty. Nobody may use it.
    pub fn clear(fs: &dyn FileSystem, dir: &Path) -> Result<u64, SnapshotError> {
        prune::clear(fs, dir)
    }

    /// Keeps the files of a snapshot while the pin lives. None if it is not there whole any more.
    pub fn pin(&self, manifest: &Manifest) -> Option<Pin> {
        let (hold, manifest) = Hold::snapshot(&self.shared, manifest.number);
        manifest.map(|manifest| Pin { manifest, _hold: hold })
    }

    /// Figures.
    pub fn status(&self) -> SnapshotStatus {
        let state = self.shared.state.lock();
        let names: BTreeSet<String> = state.whole.values().flat_map(|manifest| manifest.names()).collect();
        let newest = state.newest_two().next();
        SnapshotStatus {
            whole: state.whole.len() as u64,
            damaged: state.damaged.len() as u64,
            files: names.len() as u64,
            bucket_bytes: newest.map_or(0, |newest| newest.bucket_bytes()),
            bucket_file_bytes: newest.map_or(0, |newest| newest.files.iter().map(|file| file.bytes).sum()),
            segment_bytes: newest.map_or(0, |newest| newest.segment_bytes()),
            written_bytes: self.shared.written_bytes.load(Ordering::Relaxed),
            read_back_bytes: self.shared.read_back_bytes.load(Ordering::Relaxed),
        }
    }
}
