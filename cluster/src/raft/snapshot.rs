//! Owns the snapshots of a group: taking one beside the applies, offering it to openraft, and letting the log go behind it.
//!
//! - The cut is made between two Raft entries, on the task that applies them; its buckets are taken under the lock in
//!   short pieces, and written on a blocking thread.
//! - openraft is told of a snapshot only when it is durable, so that nothing of ours can fail inside it.
//! - The log is purged up to the second newest snapshot (R20), and only then are files removed.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use fanfold_storage::snapshot::{Announced, Manifest, Pin, SnapshotReceiver, SnapshotSender};

use super::codec::{SnapshotMetaBytes, decode, encode};
use super::files::{FileError, GroupFiles};
use super::keep::Turn;
use super::machine::{Bucket, Machine, Shared};
use super::receive::ReceivedSnapshot;
use super::transfer::CHUNK_BYTES_MAX;
use super::types::SnapshotMeta;

/// A snapshot on this node's disk, kept there while this is held.
#[derive(Debug, Clone)]
pub struct StoredSnapshot {
    /// What it consists of.
    pub manifest: Arc<Manifest>,
    /// Where it is.
    pub files: GroupFiles,
    _pin: Option<Arc<Pin>>,
}

impl StoredSnapshot {
    pub(super) fn new(files: &GroupFiles, manifest: Arc<Manifest>) -> Self {
        let pin = files.snapshots.pin(&manifest).map(Arc::new);
        Self { manifest, files: files.clone(), _pin: pin }
    }

    /// What Raft noted with it.
    pub(super) fn meta(&self) -> Result<SnapshotMeta, FileError> {
        Ok(decode::<SnapshotMetaBytes>(&self.manifest.meta.clone().into())?.try_into()?)
    }
}

/// The newest snapshot of a group and the one before; what openraft knows is never newer.
#[derive(Debug, Default)]
pub(super) struct Current(Mutex<Option<(StoredSnapshot, SnapshotMeta)>>);

impl Current {
    pub fn get(&self) -> Option<(StoredSnapshot, SnapshotMeta)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set(&self, snapshot: StoredSnapshot, meta: SnapshotMeta) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((snapshot, meta));
    }
}

/// Ends a cut that was not finished.
struct Cut<'a, M: Machine> {
    shared: &'a Shared<M>,
    taken: bool,
}

impl<M: Machine> Drop for Cut<'_, M> {
    fn drop(&mut self) {
        let taken = self.taken;
        drop(self.shared.change(|state| state.machine.end_cut(taken)));
    }
}

/// Writes the snapshot of a cut that was begun; `base` is the one since which changes were counted. Blocks; the machine is
/// locked for short pieces only.
pub(super) fn write_cut<M: Machine>(
    shared: &Shared<M>,
    files: &GroupFiles,
    base: Option<&Manifest>,
    meta: &SnapshotMeta,
) -> Result<Arc<Manifest>, FileError> {
    let mut cut = Cut { shared, taken: false };
    let noted = encode(&SnapshotMetaBytes::from(meta))?;
    let index = meta.last_log_id.map_or(0, |log_id| log_id.index);
    let mut writer = files.snapshots.begin(base);
    loop {
        let must_write = |section, number| writer.must_write(section, number);
        match shared.change(|state| state.machine.next_bucket(&must_write)) {
            Some(Bucket::Changed { section, number, bytes }) => {
                writer.put(section, number, &bytes, &*files.pace)?;
            }
            Some(Bucket::Unchanged { section, number }) => writer.keep(section, number),
            Some(Bucket::Unfinished) => {}
            None => break,
        }
    }
    // What the state refers to is durable before the snapshot that says so.
    while let Some(work) = shared.change(|state| state.machine.cut_work()) {
        let install = work(files)?;
        drop(shared.change(|state| install(&mut state.machine)));
    }
    let last = shared.change(|state| state.machine.last_bucket()).ok_or(FileError::Damaged)?();
    writer.put(last.section, last.number, &last.bytes, &*files.pace)?;
    last.segments.into_iter().for_each(|segment| writer.list_segment(segment));
    let manifest = writer.finish(index, noted.to_vec(), &*files.pace)?;
    cut.taken = true;
    Ok(manifest)
}

/// A snapshot as openraft passes it on.
#[derive(Debug, Clone)]
pub(super) enum SnapshotData {
    /// On this node's disk, or, in tests, on another's.
    Stored(StoredSnapshot),
    /// As a peer sent it; whoever puts it in place takes it.
    Received(Arc<Mutex<Option<ReceivedSnapshot>>>),
}

impl SnapshotData {
    /// A snapshot that came from a peer.
    pub fn received(received: ReceivedSnapshot) -> Self {
        Self::Received(Arc::new(Mutex::new(Some(received))))
    }

    /// Makes the snapshot the newest one of this directory, and returns it with what must not end before it is in use.
    /// Blocks.
    pub fn adopt<M: Machine>(self, files: &GroupFiles) -> Result<(Arc<Manifest>, Option<Turn>), FileError> {
        match self {
            Self::Received(received) => {
                let received = received.lock().unwrap_or_else(PoisonError::into_inner).take();
                let ReceivedSnapshot { prepared, turn } = received.ok_or(FileError::Stopped)?;
                Ok((prepared.install()?, Some(turn)))
            }
            Self::Stored(stored) if stored.files.dir == files.dir => Ok((stored.manifest, None)),
            Self::Stored(stored) => {
                let sender = SnapshotSender::new(&stored.files.snapshots, &stored.manifest);
                let mut sender = sender.ok_or(FileError::Stopped)?;
                let announced = Announced {
                    number: stored.manifest.number,
                    manifest_bytes: sender.encoded().len() as u64,
                    manifest_crc: crc32fast::hash(sender.encoded()),
                };
                let mut receiver = SnapshotReceiver::new(&files.snapshots, announced)?;
                let renumber = |path: &Path, listed: &_, number| M::renumber(files, path, listed, number);
                while let Some(position) = receiver.wants() {
                    let bytes = sender.read(position, CHUNK_BYTES_MAX as u64)?;
                    receiver.take(&bytes, &renumber, &*files.pace)?;
                }
                Ok((receiver.prepare(&*files.pace)?.install()?, None))
            }
        }
    }
}
