//! Owns what a group keeps on disk beside the log: the directory of its snapshots and of the files they list.

use std::any::Any;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fanfold_storage::codec::Malformed;
use fanfold_storage::fs::FileSystem;
use fanfold_storage::log::GroupId;
use fanfold_storage::segment::SegmentError;
use fanfold_storage::snapshot::{Found, SnapshotError, SnapshotStore};
use thiserror::Error;
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinHandle};

use super::codec::CodecError;
use super::error::{OpenError, StopReason};
use super::fills::Fills;
use super::machine::{Damage, Machine, Shared};
use super::note::Note;
use super::snapshot::{Current, StoredSnapshot};
use super::types::SnapshotMeta;
use crate::blocking::blocking;

/// Called with a number of bytes before they are written in the background; may wait.
pub type Pace = Arc<dyn Fn(u64) + Send + Sync>;

/// A group's directory.
#[derive(Clone)]
pub struct GroupFiles {
    /// What files are read and written through.
    pub fs: Arc<dyn FileSystem>,
    /// The directory.
    pub dir: PathBuf,
    /// The snapshots in it.
    pub snapshots: SnapshotStore,
    /// How fast files are written.
    pub pace: Pace,
    /// Whose turn it is to be filled by a peer, of all groups of the node.
    pub fills: Fills,
}

impl fmt::Debug for GroupFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupFiles").field("dir", &self.dir).finish_non_exhaustive()
    }
}

/// The directory of a group in a data directory.
pub fn group_dir(data_dir: &Path, group: GroupId) -> PathBuf {
    groups_dir(data_dir).join(format!("{:04}", group.0))
}

/// Where the directories of the groups are in a data directory.
pub fn groups_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("groups")
}

/// Why a group's files could not be written or read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FileError {
    /// A snapshot's.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// A segment's.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// What Raft notes with a snapshot.
    #[error("what Raft notes with a snapshot: {0}")]
    Meta(#[from] CodecError),
    /// The state in a snapshot.
    #[error("the state in a snapshot is malformed: {0}")]
    State(#[from] Malformed),
    /// The note that says which replica a directory is of.
    #[error("{} is damaged: it does not say which replica this directory is of; with others the replica is filled anew by them, alone \
         `fanfold partition salvage` writes it again without loss", path.display())]
    Note {
        /// The file.
        path: PathBuf,
    },
    /// The machine refuses service, so its state is not to be kept.
    #[error("the state is damaged")]
    Damaged,
    /// The group no longer runs.
    #[error("the group was stopped")]
    Stopped,
    /// Work in the background panicked; the node's log says where.
    #[error("work on its files panicked")]
    Panicked,
}

impl FileError {
    /// Whether the disk has no room; it may have some later.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Snapshot(error) => error.is_full(),
            Self::Segment(error) => error.is_full(),
            _ => false,
        }
    }

    /// The file that it is about, and where in it, as far as that can be said.
    fn place(&self) -> Option<(&Path, Option<u64>)> {
        match self {
            Self::Snapshot(SnapshotError::Io { path, .. }) | Self::Io { path, .. } | Self::Note { path } => {
                Some((path, None))
            }
            Self::Snapshot(error) => error.place(),
            Self::Segment(error) => error.place(),
            _ => None,
        }
    }

    /// What is damaged by it.
    pub(super) fn damage(&self) -> Damage {
        let (path, offset) = self.place().unzip();
        let (path, offset) = (path.map(Path::to_owned), offset.flatten());
        Damage { path, offset, what: self.to_string(), is_unread: false }
    }
}

/// What is not needed any more and takes time to free: dropped off the lock.
pub type Garbage = Box<dyn Any + Send>;

/// What is done to a machine, under its lock, once a piece of work on its files is done.
pub type Install<M> = Box<dyn FnOnce(&mut M) -> Installed<M> + Send>;

/// What came of that.
pub enum Installed<M> {
    /// It is done, and this is not needed any more.
    Done(Garbage),
    /// It would have taken too long under the lock: there is more work, off it, to be done and installed first. That ends, whatever
    /// is applied meanwhile.
    Behind(FileWork<M>),
}

/// Work on a machine's files, which runs beside it on a thread of its own.
pub type FileWork<M> = Box<dyn FnOnce(&GroupFiles) -> Result<Install<M>, FileError> + Send>;

/// What reads the state of a snapshot, beside a machine; what that is then given, under its lock, answers the state before.
pub type RestoreWork<M> =
    Box<dyn FnOnce(&GroupFiles) -> Result<Box<dyn FnOnce(&mut M) -> Garbage + Send>, FileError> + Send>;

/// What a machine's work on its files goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileSettings {
    /// Bytes of new entries that a partition keeps in memory before they are written to a segment.
    pub table_bytes: u64,
    /// Bytes of entries that wait in memory to be written to segments, at most, about; applying waits at that.
    pub unflushed_bytes_max: u64,
    /// Bytes of a segment that is merged with others, at most.
    pub segment_bytes_max: u64,
    /// Bytes of entries that are on disk already and are kept in memory for reads, of each partition.
    pub cache_bytes: u64,
    /// Bytes of memory for what changes while a snapshot is cut; applying waits for the snapshot at that.
    pub cut_bytes_max: u64,
}

/// Where a group's files are, before they are looked at.
#[derive(Clone)]
pub struct GroupDirectory {
    /// What files are read and written through.
    pub fs: Arc<dyn FileSystem>,
    /// The directory; made if there is none.
    pub dir: PathBuf,
    /// How fast files are written.
    pub pace: Pace,
    /// Whose turn it is to be filled by a peer, of all groups of the node.
    pub fills: Fills,
}

/// What was found in a group's directory.
pub(super) struct Restored<M: Machine> {
    pub shared: Arc<Shared<M>>,
    pub files: GroupFiles,
    pub current: Arc<Current>,
}

impl GroupDirectory {
    /// Opens the directory: what is in it, newest snapshot first.
    pub(crate) fn files(self, group: GroupId) -> Result<(GroupFiles, Vec<Found>), SnapshotError> {
        let Self { fs, dir, pace, fills } = self;
        let (snapshots, found) = SnapshotStore::open(fs.clone(), &dir, group)?;
        Ok((GroupFiles { fs, dir, snapshots, pace, fills }, found))
    }

    /// Begins to open the directory and to restore `machine`, which is new, from the newest snapshot that is whole, on a thread of
    /// its own: the log may be opened meanwhile.
    pub fn load<M: Machine>(self, group: GroupId, machine: M) -> Loading<M> {
        self.load_in_turn(group, machine, Arc::new(Semaphore::new(1)))
    }

    /// The same once it has one of these turns: a snapshot is read by several threads, and each takes memory for that.
    pub fn load_in_turn<M: Machine>(self, group: GroupId, machine: M, turns: Arc<Semaphore>) -> Loading<M> {
        let directory = self.clone();
        let loaded = tokio::spawn(async move {
            // Nobody closes them.
            let _turn = turns.acquire().await;
            blocking(move || self.load_now(group, machine)).await
        });
        Loading { directory, loaded, flushes: None }
    }

    fn load_now<M: Machine>(self, group: GroupId, mut machine: M) -> Result<Loaded<M>, OpenError> {
        if matches!(Note::read(&*self.fs, &self.dir, group)?, Some(Note { is_retired: true, .. })) {
            // What is left of a replica that was retired is not the next one's.
            SnapshotStore::clear(&*self.fs, &self.dir).map_err(FileError::from)?;
        }
        let (files, found) = self.files(group).map_err(FileError::from)?;
        let (mut snapshot, mut damage) = (None, None);
        let mut found = found.into_iter();
        for Found { number, manifest } in found.by_ref() {
            let manifest = match manifest {
                Ok(manifest) => manifest,
                // It is not for a program to decide that what it held is not needed.
                Err(error @ SnapshotError::Missing { .. }) => return Err(FileError::from(error).into()),
                Err(error) => {
                    tracing::error!(dir = ?files.dir, number, %error, "a snapshot is damaged; the one before it is used");
                    damage.get_or_insert_with(|| Box::new(FileError::from(error).damage()));
                    continue;
                }
            };
            let stored = StoredSnapshot::new(&files, manifest);
            match stored.meta().and_then(|meta| machine.restore(&files, &stored.manifest).map(|()| meta)) {
                Ok(meta) => {
                    snapshot = Some((stored, meta));
                    break;
                }
                Err(error) => {
                    tracing::error!(dir = ?files.dir, number, %error, "a snapshot is damaged; the one before it is used");
                    damage.get_or_insert_with(|| Box::new(error.damage()));
                    files.snapshots.refuse(&stored.manifest);
                }
            }
        }
        for Found { number, manifest } in found {
            if let Err(error) = manifest {
                tracing::error!(dir = ?files.dir, number, %error, "a snapshot before the one in use is damaged; the log stays until two are whole");
            }
        }
        Ok(Loaded { machine, files, snapshot, damage })
    }
}

/// A group's directory that is being read.
pub struct Loading<M> {
    pub(super) directory: GroupDirectory,
    loaded: JoinHandle<Result<Result<Loaded<M>, OpenError>, JoinError>>,
    /// By what settings is flushed what the log that is replayed fills.
    pub(super) flushes: Option<FileSettings>,
}

impl<M> Loading<M> {
    /// Has what the log fills, while it is replayed, flushed by these settings.
    #[must_use]
    pub fn flushing(self, settings: FileSettings) -> Self {
        Self { flushes: Some(settings), ..self }
    }

    /// Waits until nobody reads the directory any more.
    pub(crate) async fn abandoned(self) {
        let _ = self.loaded.await;
    }

    pub(super) async fn finish(self) -> Result<Loaded<M>, OpenError> {
        self.loaded.await.flatten().map_err(|_| OpenError::Stopped { reason: StopReason::Panicked })?
    }
}

/// A group's directory that was read. Nothing of it was removed yet, since only the log tells what is missing.
pub(super) struct Loaded<M> {
    machine: M,
    files: GroupFiles,
    snapshot: Option<(StoredSnapshot, SnapshotMeta)>,
    /// Of the newest snapshot that is damaged.
    damage: Option<Box<Damage>>,
}

impl<M: Machine> Loaded<M> {
    /// Joins it with a log that has the entries behind index `purged` up to `last`. Blocks.
    pub fn join(self, purged: Option<u64>, last: Option<u64>) -> Result<Restored<M>, OpenError> {
        let Self { mut machine, files, snapshot, damage } = self;
        let index = snapshot.as_ref().map(|(stored, _)| stored.manifest.index);
        if index < purged {
            let (dir, purged) = (files.dir, purged.unwrap_or_default());
            return Err(OpenError::NoSnapshot { dir, index, purged, damage });
        }
        machine.replay_until(last.unwrap_or_default());
        let current = Current::default();
        // The log went up to a snapshot only once that had been read back; the newest never was.
        let mut older = files.snapshots.whole().into_iter().skip(1);
        let read_back = older.find(|older| purged.is_some_and(|purged| older.index <= purged));
        read_back.into_iter().for_each(|verified| current.set_verified(verified));
        // What an earlier run wrote and no snapshot came to name.
        let in_use = machine.files_in_use();
        let is_used = |name: &str| in_use.iter().any(|(used, _)| used == name);
        let needed_from = current.needed_from(files.snapshots.previous().as_deref());
        if let Err(error) = files.snapshots.prune_before(needed_from, &is_used) {
            tracing::warn!(dir = ?files.dir, %error, "files that nothing needs could not be removed");
        }
        let shared = Shared::new(machine);
        if let Some((stored, meta)) = snapshot {
            shared.begin_at(&meta);
            current.set(stored, meta);
        }
        Ok(Restored { shared: Arc::new(shared), files, current: Arc::new(current) })
    }
}
