//! Owns the jobs that a node does on its own files while it serves: checks and backups.

use std::path::Path;
use std::sync::Arc;

use fanfold_storage::ids::PartitionId;
use fanfold_storage::log::LogHold;

use super::Node;
use crate::backup::{self, BackupError, Contents, GroupOf, Source};
use crate::blocking::blocking;
use crate::error::{NodeError, because};
use crate::identity::Known;
use crate::jobs::{Job, JobError, JobKind, JobStatus};
use crate::map::group_of;
use crate::meter::{Meter, Phase};
use crate::raft::{FileError, Group, Machine, StoredSnapshot, Turn, group_dir};
use crate::verify::{Finding, Held, HeldGroup, Report, verify_held};

impl Node {
    /// Starts a job that reads, and writes, at most so many bytes a second; one runs at a time: while it does, the answer is of a job
    /// without a number, that failed and says which runs.
    pub fn start_job(
        self: &Arc<Self>,
        kind: JobKind,
        bytes_per_second: Option<u64>,
    ) -> Result<JobStatus, NodeError> {
        let _pass = self.enter()?;
        let job = match self.jobs.begin(kind, bytes_per_second) {
            Ok(job) => job,
            Err(refused) => return Ok(refused),
        };
        let (node, started) = (self.clone(), job.status());
        self.tasks.spawn(async move {
            let work = node.run(&job);
            tokio::pin!(work);
            let result = tokio::select! {
                result = &mut work => result,
                () = node.stopping.cancelled() => {
                    job.meter().cancel();
                    work.await
                }
            };
            job.end(result);
        });
        Ok(started)
    }

    /// How a job is, the newest for 0; none if it is not known, or no more.
    pub fn job(&self, id: u64) -> Option<JobStatus> {
        Some(self.jobs.get(id)?.status())
    }

    /// Ends a job soon; none if it is not known, or no more.
    pub fn cancel_job(&self, id: u64) -> Option<JobStatus> {
        let job = self.jobs.get(id)?;
        job.meter().cancel();
        Some(job.status())
    }

    async fn run(&self, job: &Job) -> Result<Report, JobError> {
        let meter = job.meter().clone();
        match job.kind() {
            JobKind::Verify => {
                let held = self.held(&meter);
                let verified = blocking(move || verify_held(held, &meter)).await;
                let report = verified.map_err(|_| JobError::Panicked)??;
                self.jobs.note_wrong(report.findings.len() as u64);
                Ok(report)
            }
            JobKind::Backup { dir, leaves_out_damaged } => {
                let contents = self.back_up(dir, *leaves_out_damaged, meter).await?;
                let left_out =
                    contents.left_out.iter().map(|partition| self.left_out(PartitionId(*partition)));
                Ok(Report { findings: left_out.collect(), files: contents.files.len() as u64 })
            }
        }
    }

    /// What is said of a partition that is not in a backup.
    fn left_out(&self, id: PartitionId) -> Finding {
        let damage = self.partitions.damage(id);
        let (path, offset) = damage.as_deref().map(|damage| (damage.path.clone(), damage.offset)).unzip();
        let path = path.flatten().unwrap_or_else(|| group_dir(&self.data_dir, group_of(Some(id))));
        let why = because(damage.as_deref());
        let what = format!("partition {id} is damaged and is not in the backup: {why}");
        Finding { path, offset: offset.flatten(), what }
    }

    /// What is on disk now, kept there.
    fn held(&self, meter: &Arc<Meter>) -> Held {
        let mut groups: Vec<_> =
            self.catalog.here().into_iter().map(|here| HeldGroup::of(here.group())).collect();
        groups.extend(self.partitions.all().map(|partition| HeldGroup::of(partition.group())));
        let is_alone = self.catalog.state().nodes.len() <= 1;
        // Nobody waits long for it, and who has it writes right now.
        let epoch = self.host.persisted.try_lock().map_or(0, |epoch| *epoch);
        let known = Known {
            identity: self.identity,
            replicas: self.host.replicas.lock().clone(),
            epoch: if is_alone { 0 } else { epoch },
        };
        Held {
            fs: self.fs.clone(),
            dir: self.host.dir.clone(),
            known,
            groups,
            refusing: (self.partitions.damaged())
                .map(|id| (group_of(Some(id)), self.partitions.damage(id)))
                .collect(),
            log: self.hold_log(meter),
        }
    }

    /// Holds the log for a job, which ends when that would keep too much.
    fn hold_log(&self, meter: &Arc<Meter>) -> LogHold {
        let told = meter.clone();
        self.log.hold(self.host.means.options.log_bytes_max, Box::new(move || told.let_go()))
    }

    async fn back_up(
        &self,
        dir: &Path,
        leaves_out_damaged: bool,
        meter: Arc<Meter>,
    ) -> Result<Contents, JobError> {
        let prepared = backup::prepare(dir, &self.data_dir)?;
        let source = match self.source(leaves_out_damaged, &meter).await {
            Ok(source) => source,
            Err(error) => {
                prepared.undo();
                return Err(error.into());
            }
        };
        let written = blocking(move || backup::write(prepared, source, &meter)).await;
        Ok(written.map_err(|_| JobError::Panicked)??)
    }

    /// Brings the state of every group to disk and chooses the position of the log.
    pub(crate) async fn source(
        &self,
        leaves_out_damaged: bool,
        meter: &Arc<Meter>,
    ) -> Result<Source, BackupError> {
        meter.enter(Phase::Snapshots);
        let made_unix_ms = self.clock.wall_unix_ms().max(0) as u64;
        // Nobody purges between the first snapshot and the position: what is behind each snapshot is in the log.
        let (mut turns, mut snapshots, mut groups) = (Vec::new(), Vec::new(), Vec::new());
        if let Some(here) = self.catalog.here().filter(|here| !self.has_left(here.group())) {
            let turn = here.group().turn().await;
            snapshots.extend(snapshot(here.group(), &turn).await?);
            groups.push(self.described(here.group()));
            turns.push(turn);
        }
        let mut left_out: Vec<_> = self.partitions.damaged().collect();
        for handle in self.partitions.all() {
            meter.check()?;
            if self.has_left(handle.group()) {
                continue;
            }
            if handle.group().read(Machine::is_damaged) {
                left_out.push(handle.id());
                continue;
            }
            let turn = handle.group().turn().await;
            match snapshot(handle.group(), &turn).await {
                Err(BackupError::Snapshot { source: FileError::Damaged, .. }) => {
                    left_out.push(handle.id());
                    continue;
                }
                taken => snapshots.extend(taken?),
            }
            groups.push(self.described(handle.group()));
            turns.push(turn);
        }
        if let Some(partition) = left_out.first().copied().filter(|_| !leaves_out_damaged) {
            return Err(BackupError::Refusing { partition, damage: self.partitions.damage(partition) });
        }
        let log = self.hold_log(meter);
        drop::<Vec<Turn>>(turns);
        // One that is still to be filled has nothing to restore.
        groups.retain(|group: &GroupOf| group.index > 0);
        let mut contents = Contents::begin(self.identity, self.partition_count, made_unix_ms, log.position());
        let nodes = self.catalog.state().nodes.len() as u64;
        contents.nodes = Some(nodes);
        contents.is_of_cluster = nodes > 1;
        contents.groups = groups;
        for partition in left_out {
            contents.leave_out(group_of(Some(partition)));
        }
        let log = Arc::new(log);
        Ok(Source { fs: self.fs.clone(), snapshots, log, contents, leaves_out_damaged })
    }

    /// Whether a group went on without the replica here, which is about to be retired: what came since is not in it.
    fn has_left<M: Machine>(&self, group: &Group<M>) -> bool {
        let (state, replica) = (self.whereabouts.view.current(), group.replica().0);
        let is_wanted = state.wanted(group.id().0).iter().any(|record| record.replica == replica);
        !is_wanted && self.host.survey.of(group.id()).is_some_and(|report| !report.has(replica))
    }

    /// How far a group is on this node.
    fn described<M: Machine>(&self, group: &Group<M>) -> GroupOf {
        let (replica, index) = (group.replica().0, group.applied_index());
        let state = self.whereabouts.view.current();
        let since = state.given_up_before.get(&group.id().0).copied().unwrap_or_default();
        GroupOf { group: group.id().0, replica, index, is_led: group.is_leader(), since }
    }
}

/// The state of a group as it is now, on disk.
async fn snapshot<M: Machine>(group: &Group<M>, turn: &Turn) -> Result<Option<StoredSnapshot>, BackupError> {
    let failed = |source| BackupError::Snapshot { group: group.id().0, source };
    let newest = group.newest_snapshot().map(|newest| newest.manifest.index);
    if newest < Some(group.applied_index()) {
        match group.snapshot(turn).await {
            Err(FileError::Stopped) => return Err(BackupError::Stopping),
            taken => taken.map_err(failed)?,
        };
    }
    Ok(group.newest_snapshot())
}
