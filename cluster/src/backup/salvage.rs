//! Owns what a partition goes on with that is damaged on the only node that has it.
//!
//! - All of it is read first. If the log is whole, and a snapshot that reaches to where it begins, nothing is lost. Else the
//!   partition goes on from the newest whole snapshot, or with nothing.
//! - Nothing is touched before that was accepted; other partitions stay as they are.
//! - A stop at any point leaves a note with which no node starts, and the same can be done again.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fanfold_storage::fs::{FileSystem, RealFs};
use fanfold_storage::ids::PartitionId;
use fanfold_storage::log::{GroupId, GroupState, Image, Record};
use fanfold_storage::snapshot::{Found, Manifest, SnapshotStore};

use super::error::{At, BackupError};
use super::restore::{note, open_log, refuse_unstarted, submit};
use crate::identity::{DataDir, LOG_DIR};
use crate::lock::DirLock;
use crate::map::group_of;
use crate::meter::{Meter, Phase};
use crate::raft::{self, ReplicaId, group_dir};
use crate::verify::{Finding, Report};

/// What a partition goes on with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begins {
    /// With everything.
    Whole,
    /// With the state of a snapshot.
    Snapshot {
        /// The last Raft index that it includes.
        index: u64,
    },
    /// With nothing.
    Empty,
}

/// What is left of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Salvage {
    /// What it goes on with.
    pub begins: Begins,
    /// The last Raft index that the log knows of.
    pub last: Option<u64>,
    /// What is damaged of it.
    pub findings: Vec<Finding>,
}

/// Lets a partition of a stopped node that is alone go on with what is whole of it, from the next start on and under a new
/// incarnation (R11); none is the catalog, which goes on with everything or not at all. A dry run only says with what.
pub fn salvage(
    data_dir: &Path,
    partition: Option<PartitionId>,
    is_dry_run: bool,
    meter: &Meter,
) -> Result<Salvage, BackupError> {
    let fs: Arc<dyn FileSystem> = Arc::new(RealFs);
    salvage_on(&fs, data_dir, partition, is_dry_run, meter)
}

/// Like [`salvage`], on another file system.
pub(super) fn salvage_on(
    fs: &Arc<dyn FileSystem>,
    data_dir: &Path,
    partition: Option<PartitionId>,
    is_dry_run: bool,
    meter: &Meter,
) -> Result<Salvage, BackupError> {
    let fs = fs.clone();
    let _lock = DirLock::take(data_dir)?;
    let dir = DataDir::at(data_dir);
    let stored = dir.peek()?.filter(|stored| stored.founded);
    let stored = stored.ok_or_else(|| BackupError::NoNode { data_dir: data_dir.to_owned() })?;
    let partitions = stored.partitions;
    if let Some(partition) = partition.filter(|partition| partition.0 >= partitions) {
        return Err(BackupError::NoPartition { partition, partitions });
    }
    if dir.load_catalog().is_some_and(|state| state.nodes.len() > 1) {
        return Err(BackupError::OneOfSeveral);
    }
    refuse_unstarted(&*fs, data_dir)?;
    let group = group_of(partition);
    let place = Place { fs: fs.clone(), dir: group_dir(data_dir, group), group };
    let replica = ReplicaId(dir.load_replicas().and_then(|all| all.get(&group.0).copied()).unwrap_or(1));
    let (salvage, newest) = place.look(&data_dir.join(LOG_DIR), replica, meter)?;
    if partition.is_none() && salvage.begins != Begins::Whole {
        return Err(BackupError::CatalogDamaged { findings: salvage.findings });
    }
    if is_dry_run {
        return Ok(salvage);
    }
    let failed = |source| BackupError::Snapshot { group: group.0, source };
    let kept: BTreeSet<String> = newest.iter().flat_map(|manifest| manifest.names()).collect();
    let Some(partition) = partition else {
        // Nothing is lost, wherever that stops.
        place.remove_others(&kept)?;
        raft::write_note(&*fs, &place.dir, group, replica).map_err(failed)?;
        return Ok(salvage);
    };
    let mut restored = note(&*fs, partition, data_dir)?;
    restored.store(&*fs, data_dir)?;
    place.remove_others(&kept)?;
    raft::write_note(&*fs, &place.dir, group, replica).map_err(failed)?;
    if salvage.begins != Begins::Whole {
        let mut records = vec![Record::Forget { group }];
        if let Some(manifest) = &newest {
            records.extend(raft::records_behind(manifest).map_err(failed)?);
        }
        let log = open_log(fs.clone(), &data_dir.join(LOG_DIR), 0)?;
        submit(&log, records)?;
        log.close()?;
    }
    restored.empty.retain(|empty| *empty != partition.0);
    if salvage.begins == Begins::Empty {
        restored.empty.push(partition.0);
    }
    restored.is_finished = true;
    restored.store(&*fs, data_dir)?;
    Ok(salvage)
}

/// Where a partition is.
struct Place {
    fs: Arc<dyn FileSystem>,
    dir: PathBuf,
    group: GroupId,
}

impl Place {
    /// Reads all that there is of it; the newest snapshot that is whole.
    fn look(
        &self,
        log_dir: &Path,
        replica: ReplicaId,
        meter: &Meter,
    ) -> Result<(Salvage, Option<Arc<Manifest>>), BackupError> {
        let Self { fs, dir, group } = self;
        let mut report = Report::default();
        meter.enter(Phase::Log);
        let image = Image::read(&**fs, log_dir, None, &|bytes| meter.take_or_end(bytes));
        meter.check()?;
        let image = image?;
        let is_log_whole = !image.recovered().damaged.iter().any(|damage| damage.concerns(*group));
        report.log_of_groups(&image, &[*group]);
        report.note(&**fs, dir, *group, Some(replica));
        meter.enter(Phase::Groups);
        let (store, found) = SnapshotStore::look(fs.clone(), dir, *group)
            .map_err(|error| BackupError::Damaged { findings: Report::of(&error, dir) })?;
        let mut newest = None;
        for Found { number, manifest } in found {
            let whole = manifest.as_ref().ok().cloned();
            let mut of_it = Report::default();
            of_it.group(&store, dir, vec![Found { number, manifest }], meter)?;
            if of_it.findings.is_empty() && newest.is_none() {
                newest = whole;
            }
            of_it.findings.retain(|finding| !report.findings.contains(finding));
            report.findings.extend(of_it.findings);
        }
        let GroupState { purged, last, .. } = image.group_state(*group);
        let purged = purged.map(|(index, _)| index);
        let index = newest.as_ref().map(|manifest| manifest.index);
        let begins = match index {
            _ if is_log_whole && index >= purged && (index.is_some() || last.is_some()) => Begins::Whole,
            Some(index) => Begins::Snapshot { index },
            None => Begins::Empty,
        };
        Ok((Salvage { begins, last, findings: report.findings }, newest))
    }

    /// Removes all files with other names, manifests first.
    fn remove_others(&self, kept: &BTreeSet<String>) -> Result<(), BackupError> {
        let Self { fs, dir, .. } = self;
        fs.create_dir_all(dir).at(dir)?;
        let names = fs.list(dir).at(dir)?;
        let (manifests, others): (Vec<_>, Vec<_>) =
            names.iter().filter(|name| !kept.contains(*name)).partition(|name| name.ends_with(".manifest"));
        for names in [manifests, others] {
            for name in names {
                let path = dir.join(name);
                fs.remove(&path).at(&path)?;
            }
            fs.sync_dir(dir).at(dir)?;
        }
        Ok(())
    }
}
