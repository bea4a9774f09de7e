//! Owns the restoring of backups into data directories that no node uses.
//!
//! - Everything is checked before anything is touched.
//! - A stop at any point leaves a note ([`Restored`]) with which no node starts, and the same restore can be run again.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::channel;

use bytes::Bytes;
use fanfold_storage::fs::FileSystem;
use fanfold_storage::ids::PartitionId;
use fanfold_storage::log::{BLOCK_BYTES, GroupId, GroupState, Image, Log, LogError, LogOptions, Record};

use super::contents::{Backup, FileOf};
use super::error::{At, BackupError};
use super::files::{copy, link};
use super::marker::{self, Alone, Restored};
use crate::identity::{DataDir, IDENTITY_DIR, Identity, LOG_DIR, StoredIdentity};
use crate::lock::{DirLock, LOCK_FILE};
use crate::meter::{Meter, Phase};
use crate::raft::{group_dir, groups_dir};

/// The node that founds a cluster.
const FIRST_NODE: u64 = 1;

/// Bytes of entries that are written to the log at a time.
const ENTRIES_BYTES: usize = 1 << 20;

/// What a segment has besides one entry, at most: its header, and the batch's with its padding.
const SEGMENT_REST_BYTES: u64 = 4 * BLOCK_BYTES;

/// Makes a data directory of a backup. It must not be there, or be empty, or be left over by this restore.
pub fn restore(backup: &Backup, data_dir: &Path, meter: &Meter) -> Result<(), BackupError> {
    restore_all(std::slice::from_ref(backup), false, data_dir, meter).map(|_| ())
}

/// What is taken from which of several backups.
struct Parts<'a> {
    /// From this one everything else.
    base: &'a Backup,
    others: Vec<(GroupId, &'a Backup)>,
    /// Partitions that are in none.
    missing: Vec<u16>,
}

impl<'a> Parts<'a> {
    /// Of each group the backup that goes furthest; what was given up when the group was recovered only if there is nothing
    /// else.
    fn of(backups: &'a [Backup]) -> Result<Self, BackupError> {
        let furthest = |group: GroupId| {
            let since = backups.iter().map(|backup| backup.contents.since(group)).max().unwrap_or_default();
            let having = backups.iter().filter_map(|backup| {
                let contents = &backup.contents;
                Some(((contents.counts(group, since), contents.index_of(group)?), backup))
            });
            // Of equals the first.
            having.rev().max_by_key(|(far, _)| *far).map(|(_, backup)| backup)
        };
        let base = furthest(GroupId(0)).ok_or(BackupError::NoCatalog)?;
        let is_same = |backup: &&Backup| {
            let (one, other) = (&backup.contents, &base.contents);
            one.identity().cluster_id == other.identity().cluster_id && one.partitions == other.partitions
        };
        if let Some(stranger) = backups.iter().find(|backup| !is_same(backup)) {
            return Err(BackupError::OtherCluster { path: stranger.dir.clone() });
        }
        let (mut others, mut missing) = (Vec::new(), Vec::new());
        for partition in 0..base.contents.partitions {
            let group = GroupId(u32::from(partition) + 1);
            match furthest(group) {
                Some(backup) if backup.dir == base.dir => {}
                Some(backup) => others.push((group, backup)),
                None => missing.push(partition),
            }
        }
        Ok(Self { base, others, missing })
    }

    /// Whether a file of the base is taken.
    fn is_taken(&self, file: &FileOf) -> bool {
        !self.others.iter().any(|(group, _)| file.is_of(*group))
    }

    /// Brings the groups that are not taken from the base. Of those that are in no backup the log of the base may have
    /// records all the same, of a replica that was leaving.
    fn bring_others(&self, data_dir: &Path, meter: &Meter) -> Result<(), BackupError> {
        let missing: Vec<_> =
            self.missing.iter().map(|partition| GroupId(u32::from(*partition) + 1)).collect();
        if !missing.is_empty() {
            let log = open_log(self.base.fs.clone(), &data_dir.join(LOG_DIR), 0)?;
            missing.into_iter().try_for_each(|group| log.forget(group))?;
            log.close()?;
        }
        for (group, backup) in &self.others {
            bring(backup, &|file| file.is_of(*group), &|file| data_dir.join(&file.path), meter)?;
            let fs = &*backup.fs;
            let image = Image::read(fs, &backup.dir.join(LOG_DIR), Some(*group), &|_| Ok(()))?;
            write_log(self.base.fs.clone(), &data_dir.join(LOG_DIR), *group, &image)?;
        }
        Ok(())
    }
}

/// Like [`restore`], of backups of several nodes of one cluster, none of which needs to have every partition. Which partitions
/// are in none, and begin empty if that is accepted.
pub fn restore_all(
    backups: &[Backup],
    accepts_loss: bool,
    data_dir: &Path,
    meter: &Meter,
) -> Result<Vec<u16>, BackupError> {
    let parts = Parts::of(backups)?;
    if !parts.missing.is_empty() && !accepts_loss {
        return Err(BackupError::Missing { partitions: parts.missing });
    }
    let backup = parts.base;
    let fs = &*backup.fs;
    let empty = |name: &str| name == LOCK_FILE || name.starts_with(marker::FILE);
    if data_dir.is_dir() {
        let is_ours = Restored::load(fs, data_dir)?.is_some_and(|found| found.is_whole && !found.is_finished);
        for item in std::fs::read_dir(data_dir).at(data_dir)? {
            let name = item.at(data_dir)?.file_name();
            if !is_ours && !name.to_str().is_some_and(empty) {
                return Err(BackupError::NotEmpty { path: data_dir.to_owned() });
            }
        }
    }
    for backup in backups {
        backup.check(&|_| true, meter)?;
    }
    std::fs::create_dir_all(data_dir).at(data_dir)?;
    fs.create_dir_all(data_dir).at(data_dir)?;
    let _lock = DirLock::take(data_dir)?;
    let Backup { contents, .. } = backup;
    let mut restored = Restored::begin((0..contents.partitions).collect(), true);
    let replicas: BTreeMap<u32, u64> = contents.groups.iter().map(|of| (of.group, of.replica)).collect();
    if contents.is_of_cluster {
        let known = backups.iter().flat_map(|backup| &backup.contents.groups).map(|of| of.replica);
        let replica = restored.unused_replica(known.max().unwrap_or_default());
        let (gone, empty) = (Vec::new(), parts.missing.clone());
        restored.alone = Some(Alone {
            replica,
            founds: true,
            gone,
            damaged: Vec::new(),
            empty,
            is_catalog_anew: false,
            is_begun: false,
        });
    }
    restored.store(fs, data_dir)?;
    // What an earlier attempt left.
    empty_dir(fs, &data_dir.join(LOG_DIR))?;
    for group in (0..=u32::from(contents.partitions)).map(GroupId) {
        empty_dir(fs, &group_dir(data_dir, group))?;
    }
    for part in [LOG_DIR, IDENTITY_DIR, "groups"] {
        remove_all(&data_dir.join(part))?;
    }
    meter.enter(Phase::Log);
    bring(backup, &|file| parts.is_taken(file), &|file| data_dir.join(&file.path), meter)?;
    parts.bring_others(data_dir, meter)?;
    let dir = DataDir::at(data_dir);
    let partitions = contents.partitions;
    let (identity, directory_id) = if contents.is_of_cluster {
        // The old cluster may still run, and must not take this node for one of its own.
        (Identity { cluster_id: rand::random(), node_id: FIRST_NODE }, rand::random())
    } else {
        if !replicas.is_empty() {
            dir.store_replicas(&replicas)?;
        }
        (contents.identity(), 0)
    };
    dir.store(&StoredIdentity { identity, partitions, founded: true, directory_id })?;
    restored.is_finished = true;
    restored.store(fs, data_dir)?;
    Ok(parts.missing)
}

/// Puts one partition of a data directory back to what it was when the backup was made; the others stay as they are.
pub fn restore_partition(
    backup: &Backup,
    partition: PartitionId,
    data_dir: &Path,
    meter: &Meter,
) -> Result<(), BackupError> {
    let Backup { contents, .. } = backup;
    let fs = &*backup.fs;
    if partition.0 >= contents.partitions {
        return Err(BackupError::NoPartition { partition, partitions: contents.partitions });
    }
    let _lock = DirLock::take(data_dir)?;
    let same = |stored: &StoredIdentity| {
        stored.identity == contents.identity() && stored.partitions == contents.partitions
    };
    let dir = DataDir::at(data_dir);
    if !dir.peek()?.as_ref().is_some_and(same) {
        return Err(BackupError::OtherNode { data_dir: data_dir.to_owned() });
    }
    if contents.had_others() || dir.load_catalog().is_some_and(|state| state.nodes.len() > 1) {
        return Err(BackupError::Replicated);
    }
    if contents.left_out.contains(&partition.0) {
        return Err(BackupError::LeftOut { partition });
    }
    refuse_unstarted(fs, data_dir)?;
    let mut restored = note(fs, partition, data_dir)?;
    let group = GroupId(u32::from(partition.0) + 1);
    backup.check(&|file| file.is_log() || file.is_of(group), meter)?;
    meter.enter(Phase::Log);
    let image = Image::read(fs, &backup.dir.join(LOG_DIR), Some(group), &|_| Ok(()))?;
    // All of it is there before what was there goes.
    let (place, staged) = (group_dir(data_dir, group), group_dir(data_dir, group).with_extension("new"));
    empty_dir(fs, &staged)?;
    fs.create_dir_all(&staged).at(&staged)?;
    let name = |file: &FileOf| staged.join(file.path.file_name().unwrap_or_default());
    bring(backup, &|file| file.is_of(group), &name, meter)?;
    restored.store(fs, data_dir)?;
    empty_dir(fs, &place)?;
    fs.create_dir_all(&place).at(&place)?;
    for name in fs.list(&staged).at(&staged)? {
        let (from, to) = (staged.join(&name), place.join(&name));
        fs.rename(&from, &to).at(&to)?;
    }
    fs.sync_dir(&place).at(&place)?;
    fs.sync_dir(&staged).at(&staged)?;
    remove_all(&staged)?;
    fs.sync_dir(&groups_dir(data_dir)).at(&place)?;
    write_log(backup.fs.clone(), &data_dir.join(LOG_DIR), group, &image)?;
    restored.is_finished = true;
    restored.store(fs, data_dir)
}

/// What goes on alone from its next start on is finished by that.
pub(super) fn refuse_unstarted(fs: &dyn FileSystem, data_dir: &Path) -> Result<(), BackupError> {
    match Restored::load(fs, data_dir)? {
        Some(Restored { is_finished: true, alone: Some(_), .. }) => {
            Err(BackupError::NotStarted { data_dir: data_dir.to_owned() })
        }
        _ => Ok(()),
    }
}

/// The note of this restore, with what an earlier one still has to do.
pub(super) fn note(
    fs: &dyn FileSystem,
    partition: PartitionId,
    data_dir: &Path,
) -> Result<Restored, BackupError> {
    let mut restored = Restored::begin(vec![partition.0], false);
    if let Some(earlier) = Restored::load(fs, data_dir)? {
        if !earlier.is_finished && (earlier.is_whole || earlier.partitions.last() != Some(&partition.0)) {
            return Err(BackupError::Unfinished { data_dir: data_dir.to_owned() });
        }
        // The one that is being restored is the last.
        restored.partitions.splice(..0, earlier.partitions.into_iter().filter(|known| *known != partition.0));
        restored.incarnation = restored.incarnation.max(earlier.incarnation + 1);
        restored.empty = earlier.empty;
        // What is put back now is not.
        restored.empty.retain(|empty| *empty != partition.0);
    }
    Ok(restored)
}

/// Removes the files in a directory, if it is there.
fn empty_dir(fs: &dyn FileSystem, dir: &Path) -> Result<(), BackupError> {
    let names = match fs.list(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        names => names.at(dir)?,
    };
    names.iter().map(|name| dir.join(name)).try_for_each(|path| fs.remove(&path).at(&path))
}

fn remove_all(dir: &Path) -> Result<(), BackupError> {
    match std::fs::remove_dir_all(dir) {
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
    let (fs, mut dirs) = (&*backup.fs, BTreeSet::new());
    for file in backup.contents.files.iter().filter(|file| wanted(file)) {
        let (from, to) = (backup.dir.join(&file.path), place(file));
        if let Some(dir) = to.parent()
            && dirs.insert(dir.to_owned())
        {
            fs.create_dir_all(dir).at(dir)?;
        }
        if file.is_log() {
            meter.expect(file.bytes);
            let opened = fs.open_read(&from).at(&from)?;
            copy(fs, &*opened, file.bytes, &to, meter).map_err(|error| error.of(&to))?;
        } else {
            link(fs, &from, &to, meter).map_err(|error| error.of(&to))?;
        }
    }
    dirs.iter().try_for_each(|dir| fs.sync_dir(dir).at(dir))
}

/// Voids what the log of a data directory holds of a group, and writes what the backup's holds instead.
fn write_log(fs: Arc<dyn FileSystem>, dir: &Path, group: GroupId, image: &Image) -> Result<(), BackupError> {
    let GroupState { vote, committed, purged, .. } = image.group_state(group);
    let largest = image.entries(group).map(|(_, data)| data.len() as u64).max().unwrap_or_default();
    let log = open_log(fs, dir, largest)?;
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
    submit(&log, records)?;
    Ok(log.close()?)
}

/// Writes records and waits until they are durable.
pub(super) fn submit(log: &Log, records: Vec<Record>) -> Result<(), LogError> {
    let (tell, told) = channel();
    let done = move |result| {
        // Whoever asks waits below.
        let _ = tell.send(result);
    };
    log.submit(records, Some(Box::new(done)))?;
    told.recv().unwrap_or(Err(LogError::Closed))
}

/// The log in a directory, with segments as large as those that are there, if an entry of `largest` bytes fits.
pub(super) fn open_log(fs: Arc<dyn FileSystem>, dir: &Path, largest: u64) -> Result<Log, BackupError> {
    let lengths = fs.list(dir).at(dir)?.into_iter().map(|name| {
        let path = dir.join(name);
        fs.open_read(&path).and_then(|file| file.len()).at(&path)
    });
    let there = lengths.collect::<Result<Vec<_>, _>>()?.into_iter().max().unwrap_or_default();
    let segment_bytes = there.max(largest + SEGMENT_REST_BYTES);
    Ok(Log::open(fs, dir, LogOptions { create: false, segment_bytes, ..LogOptions::default() })?.0)
}

#[cfg(test)]
mod tests {
    use fanfold_storage::fs::RealFs;

    use super::super::contents::{Contents, GroupOf};
    use super::*;

    /// An image with groups: number, replica, index, and the first replica that counts.
    fn image(node: u64, groups: &[(u32, u64, u64, u64)]) -> Backup {
        let mut contents = Contents::begin(Identity { cluster_id: 5, node_id: node }, 2, 0, 0);
        contents.is_of_cluster = true;
        let group = |(group, replica, index, since): &(u32, u64, u64, u64)| GroupOf {
            group: *group,
            replica: *replica,
            index: *index,
            is_led: true,
            since: *since,
        };
        contents.groups = groups.iter().map(group).collect();
        Backup { dir: PathBuf::from(node.to_string()), contents, fs: Arc::new(RealFs) }
    }

    #[test]
    fn what_a_recovery_gave_up_is_not_taken_however_far_it_went() {
        let before = image(1, &[(0, 1, 20, 0), (1, 2, 900, 0), (2, 3, 70, 0)]);
        let after = image(2, &[(0, 4, 30, 0), (1, 9, 500, 9), (2, 5, 60, 0)]);
        let behind = image(3, &[(1, 10, 450, 9)]);
        let backups = [before, behind, after];
        let parts = Parts::of(&backups).unwrap();
        assert_eq!(parts.base.contents.node, 2);
        let others: Vec<_> = parts.others.iter().map(|(group, from)| (group.0, from.contents.node)).collect();
        assert_eq!(others, [(2, 1)], "the first partition was recovered, the second only moved");
        // It is better than nothing.
        let parts = Parts::of(&backups[..1]).unwrap();
        assert!(parts.others.is_empty() && parts.missing.is_empty());
    }

    #[test]
    fn a_survivors_catalog_is_taken() {
        let before = image(1, &[(0, 1, 900, 0), (1, 2, 1, 0), (2, 3, 1, 0)]);
        let after = image(2, &[(0, 77, 30, 77)]);
        let backups = [before, after];
        assert_eq!(Parts::of(&backups).unwrap().base.contents.node, 2);
    }
}
