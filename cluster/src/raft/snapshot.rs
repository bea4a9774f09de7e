//! Owns the snapshots of a group: taking one beside the applies, offering it to openraft, and letting the log go behind it.
//!
//! - The cut is made between two Raft entries, on the task that applies them; its buckets are taken under the lock in
//!   short steps, on the thread that applies, and written on another one, which never has the lock: it gives way to all
//!   others, and applying would wait for it until the system lets it run.
//! - openraft is told of a snapshot only when it is durable, so that nothing of ours can fail inside it.
//! - The log is purged up to the second newest snapshot once that was read back (R20), and only then are files removed.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use fanfold_storage::log::Record;
use fanfold_storage::snapshot::{Announced, Manifest, Pin, SnapshotReceiver, SnapshotSender, SnapshotWriter};

use super::codec::{LogIdBytes, SnapshotMetaBytes, VoteBytes, decode, encode};
use super::files::{FileError, Garbage, GroupFiles};
use super::keep::{Turn, beside};
use super::machine::{Bucket, Machine, Shared};
use super::receive::ReceivedSnapshot;
use super::transfer::CHUNK_BYTES_MAX;
use super::types::{SnapshotMeta, Vote};

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

/// What the log has to hold of a group that goes on from a snapshot alone.
pub fn records_behind(manifest: &Manifest) -> Result<Vec<Record>, FileError> {
    let group = manifest.group;
    let meta: SnapshotMeta = decode::<SnapshotMetaBytes>(&manifest.meta.clone().into())?.try_into()?;
    let last = meta.last_log_id.ok_or(FileError::Damaged)?;
    let vote = Vote { leader_id: last.leader_id, committed: false };
    Ok(vec![
        Record::Vote { group, data: encode(&VoteBytes::from(&vote))? },
        Record::Purge { group, index: last.index, data: encode(&LogIdBytes::from(&last))? },
    ])
}

/// The newest snapshot of a group and the one before; what openraft knows is never newer.
#[derive(Debug, Default)]
pub(super) struct Current {
    newest: Mutex<Option<(StoredSnapshot, SnapshotMeta)>>,
    /// The last one that was read back.
    verified: Mutex<Option<Arc<Manifest>>>,
}

impl Current {
    pub fn get(&self) -> Option<(StoredSnapshot, SnapshotMeta)> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set(&self, snapshot: StoredSnapshot, meta: SnapshotMeta) {
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner) = Some((snapshot, meta));
    }

    pub fn verified(&self) -> Option<Arc<Manifest>> {
        self.verified.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The number of the oldest snapshot that is needed besides the two newest: unless the second newest was read back, the last one
    /// that was, for the log begins behind it.
    pub fn needed_from(&self, previous: Option<&Manifest>) -> u64 {
        let verified = self.verified().map(|verified| verified.number);
        match previous {
            Some(previous) if verified != Some(previous.number) => verified.unwrap_or(0),
            _ => u64::MAX,
        }
    }

    pub fn set_verified(&self, manifest: Arc<Manifest>) {
        *self.verified.lock().unwrap_or_else(PoisonError::into_inner) = Some(manifest);
    }
}

/// Bytes of buckets that are handed over to be written together, about: applying may wait for so many.
const WRITTEN_TOGETHER_BYTES: usize = 256 << 10;

/// A cut under way, which counts as not taken if it is dropped.
struct Cut<'a, M: Machine>(Option<&'a Shared<M>>);

impl<M: Machine> Cut<'_, M> {
    /// Ends it; what it held takes time to free.
    async fn end(mut self, taken: bool) -> Option<Garbage> {
        let shared = self.0.take()?;
        Some(shared.keep_up("end cut", |state| state.machine.end_cut(taken)).await)
    }
}

impl<M: Machine> Drop for Cut<'_, M> {
    fn drop(&mut self) {
        if let Some(shared) = self.0.take() {
            drop(shared.keep_up_at_once("end cut", |state| state.machine.end_cut(false)));
        }
    }
}

/// Writes the snapshot of a cut that was begun; `base` is the one since which changes were counted. The machine is locked
/// for short steps only, between which this yields.
pub(super) async fn write_cut<M: Machine>(
    shared: &Shared<M>,
    files: &GroupFiles,
    base: Option<Arc<Manifest>>,
    meta: &SnapshotMeta,
) -> Result<Arc<Manifest>, FileError> {
    let cut = Cut(Some(shared));
    let noted = encode(&SnapshotMetaBytes::from(meta))?.to_vec();
    let index = meta.last_log_id.map_or(0, |log_id| log_id.index);
    let written = write_buckets(shared, files, base).await;
    let manifest = match written {
        Ok(writer) => {
            let pace = shared.pace(files);
            beside(move || Ok(writer.finish(index, noted, &*pace)?)).await
        }
        Err(error) => Err(error),
    };
    let garbage = cut.end(manifest.is_ok()).await;
    // Nothing waits for that, and it cannot fail.
    let free = move || {
        drop(garbage);
        Ok(())
    };
    let _freed = beside(free).await;
    manifest
}

/// Writes everything that the cut consists of.
async fn write_buckets<M: Machine>(
    shared: &Shared<M>,
    files: &GroupFiles,
    base: Option<Arc<Manifest>>,
) -> Result<SnapshotWriter, FileError> {
    let snapshots = files.snapshots.clone();
    let mut writer = beside(move || Ok(snapshots.begin(base.as_deref()))).await?;
    let mut goes_on = true;
    while goes_on {
        // To go to another thread and back takes as long as some steps, so several go together.
        let (mut changed, mut bytes) = (Vec::new(), 0);
        while goes_on && bytes < WRITTEN_TOGETHER_BYTES {
            let mut kept = Vec::new();
            let found = |bucket: Bucket| {
                bytes += bucket.bytes();
                match bucket {
                    Bucket::Changed { section, number, bytes } => changed.push((section, number, bytes)),
                    Bucket::Unchanged { section, number } => kept.push((section, number)),
                    Bucket::Unfinished => {}
                }
            };
            goes_on = shared.next_buckets(&|section, number| writer.must_write(section, number), found).await;
            kept.into_iter().for_each(|(section, number)| writer.keep(section, number));
            tokio::task::yield_now().await;
        }
        let pace = shared.pace(files);
        let put = move || {
            for (section, number, bytes) in changed {
                writer.put(section, number, &bytes, &*pace)?;
            }
            Ok(writer)
        };
        writer = beside(put).await?;
    }
    // What the state refers to is durable before the snapshot that says so.
    let flushing = shared.flushing.lock().await;
    while let Some(work) = shared.keep_up("cut work", |state| state.machine.cut_work()).await {
        shared.work(files, work).await?;
    }
    drop(flushing);
    let last =
        shared.keep_up("last bucket", |state| state.machine.last_bucket()).await.ok_or(FileError::Damaged)?;
    let pace = shared.pace(files);
    beside(move || {
        let last = last();
        writer.put(last.section, last.number, &last.bytes, &*pace)?;
        last.segments.into_iter().for_each(|segment| writer.list_segment(segment));
        Ok(writer)
    })
    .await
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
