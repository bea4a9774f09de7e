//! Owns the restoring of backups into data directories that no node uses.
//!
//! - Everything is checked before anything is touched.
//! - A stop at any point leaves a note ([`Restored`]) with which no node starts, and the same restore can be run again.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::channel;

use bytes::Bytes;
use fanfold_storage::fs::{FileSystem, RealFs};
use fanfold_storage::ids::PartitionId;
use fanfold_storage::log::{GroupId, GroupState, Image, Log, LogError, LogOptions, Record};

use super::contents::{Backup, FileOf};
use super::error::{At, BackupError};
use super::files::{copy, link};
use super::marker::{self, Restored};
use crate::identity::{DataDir, IDENTITY_DIR, LOG_DIR, StoredIdentity};
use crate::lock::{DirLock, LOCK_FILE};
use crate::meter::{Meter, Phase};
use crate::raft::{group_dir, groups_dir};

/// Bytes of entries that are written to the log at a time.
const ENTRIES_BYTES: usize = 1 << 20;

/// Makes a data directory of a backup. It must not be there, or be empty, or be left over by this restore.
pub fn restore(backup: &Backup, data_dir: &Path, meter: &Meter) -> Result<(), BackupError> {
    let empty = |name: &str| name == LOCK_FILE || name.starts_with(marker::FILE);
    if data_dir.is_dir() {
        let is_ours = Restored::load(data_dir)?.is_some_and(|found| found.is_whole && !found.is_finished);
        for item in fs::read_dir(data_dir).at(data_dir)? {
            let name = item.at(data_dir)?.file_name();
            if !is_ours && !name.to_str().is_some_and(empty) {
                return Err(BackupError::NotEmpty { path: data_dir.to_owned() });
            }
        }
    }
    backup.check(&|_| true, meter)?;
    RealFs.create_dir_all(data_dir).at(data_dir)?;
    let _lock = DirLock::take(data_dir)?;
    let Backup { contents, .. } = backup;
    let mut restored = Restored::begin((0..contents.partitions).collect(), true);
    restored.store(data_dir)?;
    for part in [LOG_DIR, IDENTITY_DIR, "groups"] {
        remove_all(&data_dir.join(part))?;
    }
    meter.enter(Phase::Log);
    bring(backup, &|_| true, &|file| data_dir.join(&file.path), meter)?;
    let stored =
        StoredIdentity { identity: contents.identity(), partitions: contents.partitions, founded: true };
    DataDir::at(data_dir).store(&stored)?;
    restored.is_finished = true;
    restored.store(data_dir)
}

/// Puts one partition of a data directory back to what it was when the backup was made; the others stay as they are.
pub fn restore_partition(
    backup: &Backup,
    partition: PartitionId,
    data_dir: &Path,
    meter: &Meter,
) -> Result<(), BackupError> {
    let Backup { contents, .. } = backup;
    if partition.0 >= contents.partitions {
        return Err(BackupError::NoPartition { partition, partitions: contents.partitions });
    }
    let _lock = DirLock::take(data_dir)?;
    let same = |stored: &StoredIdentity| {
        stored.identity == contents.identity() && stored.partitions == contents.partitions
    };
    if !DataDir::at(data_dir).peek()?.as_ref().is_some_and(same) {
        return Err(BackupError::OtherNode { data_dir: data_dir.to_owned() });
    }
    let mut restored = note(partition, data_dir)?;
    let group = GroupId(u32::from(partition.0) + 1);
    backup.check(&|file| file.is_log() || file.is_of(group), meter)?;
    meter.enter(Phase::Log);
    let image = Image::read(&RealFs, &backup.dir.join(LOG_DIR), Some(group), &|_| {})?;
    // All of it is there before what was there goes.
    let (place, staged) = (group_dir(data_dir, group), group_dir(data_dir, group).with_extension("new"));
    remove_all(&staged)?;
    RealFs.create_dir_all(&staged).at(&staged)?;
    let name = |file: &FileOf| staged.join(file.path.file_name().unwrap_or_default());
    bring(backup, &|file| file.is_of(group), &name, meter)?;
    restored.store(data_dir)?;
    remove_all(&place)?;
    fs::rename(&staged, &place).at(&place)?;
    RealFs.sync_dir(&groups_dir(data_dir)).at(&place)?;
    write_log(&data_dir.join(LOG_DIR), group, &image)?;
    restored.is_finished = true;
    restored.store(data_dir)
}

/// The note of this restore, with what an earlier one still has to do.
fn note(partition: PartitionId, data_dir: &Path) -> Result<Restored, BackupError> {
    let mut restored = Restored::begin(vec![partition.0], false);
    if let Some(earlier) = Restored::load(data_dir)? {
        if !earlier.is_finished && (earlier.is_whole || earlier.partitions.last() != Some(&partition.0)) {
            return Err(BackupError::Unfinished { data_dir: data_dir.to_owned() });
        }
        // The one that is being restored is the last.
        restored.partitions.splice(..0, earlier.partitions.into_iter().filter(|known| *known != partition.0));
        restored.incarnation = restored.incarnation.max(earlier.incarnation + 1);
    }
    Ok(restored)
}

fn remove_all(dir: &Path) -> Result<(), BackupError> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error).at(dir),
        _ => Ok(()),
    }
}

/// Brings files of a backup to their places, durable: those that never change by a second name if that can be done.
fn bring(
    backup: &Backup,
    wanted: &dyn Fn(&FileOf) -> bool,
    place: &dyn Fn(&FileOf) -> PathBuf,
    meter: &Meter,
) -> Result<(), BackupError> {
    let mut dirs = BTreeSet::new();
    for file in backup.contents.files.iter().filter(|file| wanted(file)) {
        let (from, to) = (backup.dir.join(&file.path), place(file));
        if let Some(dir) = to.parent()
            && dirs.insert(dir.to_owned())
        {
            RealFs.create_dir_all(dir).at(dir)?;
        }
        if file.is_log() {
            meter.expect(file.bytes);
            let opened = RealFs.open_read(&from).at(&from)?;
            copy(&RealFs, &*opened, file.bytes, &to, meter).map_err(|error| error.of(&to))?;
        } else {
            link(&RealFs, &from, &to, meter).map_err(|error| error.of(&to))?;
        }
    }
    dirs.iter().try_for_each(|dir| RealFs.sync_dir(dir).at(dir))
}

/// Voids what the log of a data directory holds of a group, and writes what the backup's holds instead.
fn write_log(dir: &Path, group: GroupId, image: &Image) -> Result<(), BackupError> {
    let GroupState { vote, committed, purged, .. } = image.group_state(group);
    let (log, _) = Log::open(Arc::new(RealFs), dir, LogOptions { create: false, ..LogOptions::default() })?;
    let mut records = vec![Record::Forget { group }];
    records.extend(vote.map(|data| Record::Vote { group, data }));
    records.extend(purged.map(|(index, data)| Record::Purge { group, index, data }));
    let mut bytes = 0;
    for (index, data) in image.entries(group) {
        bytes += data.len();
        records.push(Record::Append { group, index, data });
        if bytes > ENTRIES_BYTES {
            log.submit(std::mem::take(&mut records), None)?;
            bytes = 0;
        }
    }
    records.extend(committed.map(|data: Bytes| Record::Committed { group, data }));
    let (tell, told) = channel();
    let done = move |result| {
        // Whoever asks waits below.
        let _ = tell.send(result);
    };
    log.submit(records, Some(Box::new(done)))?;
    told.recv().unwrap_or(Err(LogError::Closed))?;
    Ok(log.close()?)
}
