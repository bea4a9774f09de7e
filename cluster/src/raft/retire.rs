//! Owns the end of a replica on a node, and the beginning of the next one of the same group there.
//!
//! - First it is noted that the replica is retired, then the log forgets it, then its files go. Whatever stops that in
//!   between, it is finished by the next attempt, and by whoever opens a later replica of the group.
//! - A retired replica is never opened again, and a later one begins with nothing.

use std::collections::BTreeMap;
use std::path::Path;

use fanfold_storage::fs::FileSystem;
use fanfold_storage::log::{GroupId, Log, LogError};
use fanfold_storage::snapshot::SnapshotStore;
use thiserror::Error;
use tokio::sync::oneshot;

use super::error::OpenError;
use super::files::{FileError, GroupDirectory, GroupFiles, group_dir};
use super::group::Group;
use super::log_store::LogStoreError;
use super::machine::Machine;
use super::note::Note;
use super::types::ReplicaId;
use crate::blocking::blocking;

/// Why a replica was not retired; the next attempt goes on where this one stopped.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RetireError {
    /// The log could not forget the group.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The group's files could not be marked or removed.
    #[error(transparent)]
    Files(#[from] FileError),
    /// It was stopped in between.
    #[error("the node stopped before the replica was retired")]
    Stopped,
}

impl<M: Machine> Group<M> {
    /// Ends this replica for good: stops Raft, and removes what the log and the directory have of it. Whoever works on
    /// its files has been stopped before; other handles answer as those of a stopped group.
    pub async fn retire(self) -> Result<(), RetireError> {
        // From here on nothing of it reaches the log: Raft hands over its last records before it has stopped.
        self.shutdown().await;
        let _turn = self.turn().await;
        let _flushing = self.inner.shared.flushing.lock().await;
        let (log, files, spec) = (self.inner.log.clone(), self.files(), &self.inner.spec);
        let GroupFiles { fs, dir, pace, fills, .. } = files.clone();
        let directory = GroupDirectory { fs, dir, pace, fills };
        retire_closed(log, spec.group, spec.replica, directory).await
    }
}

/// Like [`Group::retire`], of a replica that is not open, because its records are damaged, for instance. One that was
/// retired already, in part or whole, is no error.
pub async fn retire_closed(
    log: Log,
    group: GroupId,
    replica: ReplicaId,
    directory: GroupDirectory,
) -> Result<(), RetireError> {
    let noted = blocking({
        let GroupDirectory { fs, dir, .. } = directory.clone();
        move || {
            let noted = Note::read(&*fs, &dir, group);
            // A damaged note says nothing, and whoever is to be retired is known.
            if matches!(noted, Ok(Some(Note { is_retired: true, .. }))) {
                return Ok(());
            }
            Note { replica, is_retired: true }.write(&*fs, &dir, group)
        }
    });
    noted.await.map_err(|_| RetireError::Stopped)??;
    remove(log, group, directory).await
}

/// Removes what is left of a replica that is noted as retired.
async fn remove(log: Log, group: GroupId, directory: GroupDirectory) -> Result<(), RetireError> {
    let (done, forgotten) = oneshot::channel();
    // Who has given up waiting needs no answer.
    let asked = blocking(move || log.forget_then(group, Box::new(move |result| drop(done.send(result)))));
    asked.await.map_err(|_| RetireError::Stopped)??;
    forgotten.await.unwrap_or(Err(LogError::Closed))?;
    let cleared = blocking(move || SnapshotStore::clear(&*directory.fs, &directory.dir));
    cleared.await.map_err(|_| RetireError::Stopped)?.map_err(FileError::from)?;
    Ok(())
}

/// The replicas of these groups that a data directory holds and that were not retired, as the notes in it say; none
/// stands for one whose note is damaged. Blocks.
pub fn noted_replicas(
    fs: &dyn FileSystem,
    data_dir: &Path,
    groups: impl Iterator<Item = GroupId>,
) -> BTreeMap<GroupId, Option<ReplicaId>> {
    let noted = groups.filter_map(|group| match Note::read(fs, &group_dir(data_dir, group), group) {
        Ok(None | Some(Note { is_retired: true, .. })) => None,
        Ok(Some(note)) => Some((group, Some(note.replica))),
        Err(_) => Some((group, None)),
    });
    noted.collect()
}

/// Makes sure that what the log and the directory have is this replica's, or nothing.
pub(super) async fn claim(
    log: &Log,
    group: GroupId,
    replica: ReplicaId,
    directory: &GroupDirectory,
) -> Result<(), OpenError> {
    let panicked = |_| OpenError::from(FileError::Stopped);
    let GroupDirectory { fs, dir, .. } = directory.clone();
    let found = blocking(move || Note::read(&*fs, &dir, group)).await.map_err(panicked)??;
    match found {
        Some(note) if note == (Note { replica, is_retired: false }) => return Ok(()),
        Some(note) if note.replica == replica => return Err(OpenError::Retired { replica }),
        Some(Note { replica: found, is_retired: false }) => {
            return Err(OpenError::OtherReplica { replica, found });
        }
        Some(_) => remove(log.clone(), group, directory.clone()).await.map_err(|error| match error {
            RetireError::Log(error) => OpenError::from(LogStoreError::from(error)),
            RetireError::Files(error) => error.into(),
            RetireError::Stopped => OpenError::from(FileError::Stopped),
        })?,
        None => {}
    }
    let GroupDirectory { fs, dir, .. } = directory.clone();
    let noted = blocking(move || Note { replica, is_retired: false }.write(&*fs, &dir, group));
    Ok(noted.await.map_err(panicked)??)
}
