//! Owns the jobs that a node does on its own files while it serves: checks and backups.

use std::path::Path;
use std::sync::Arc;

use super::Node;
use crate::backup::{self, BackupError, Contents, GroupOf, Source};
use crate::blocking::blocking;
use crate::error::NodeError;
use crate::jobs::{Job, JobError, JobKind, JobStatus};
use crate::map::group_of;
use crate::meter::{Meter, Phase};
use crate::raft::{FileError, Group, Machine, StoredSnapshot, Turn};
use crate::verify::{Held, Report, verify_held};

/// When to try again to start a job while another runs.
const BUSY_DELAY_MS: u64 = 1_000;

impl Node {
    /// Starts a job that reads, and writes, at most so many bytes a second; one runs at a time.
    pub fn start_job(
        self: &Arc<Self>,
        kind: JobKind,
        bytes_per_second: Option<u64>,
    ) -> Result<JobStatus, NodeError> {
        let _pass = self.enter()?;
        let job = self.jobs.begin(kind, bytes_per_second);
        let job = job.ok_or(NodeError::Busy { delay_ms: BUSY_DELAY_MS })?;
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

    /// How a job is; none if it is not known, or no more.
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
                let held = self.held();
                let verified = blocking(move || verify_held(&held, &meter)).await;
                Ok(verified.map_err(|_| JobError::Panicked)??)
            }
            JobKind::Backup { dir } => {
                self.back_up(dir, meter).await?;
                Ok(Report::default())
            }
        }
    }

    /// What is on disk now, kept there.
    fn held(&self) -> Held {
        let mut snapshots: Vec<_> =
            self.catalog.here().into_iter().flat_map(|here| here.group().kept_snapshots()).collect();
        snapshots.extend(self.partitions.all().flat_map(|p| p.group().kept_snapshots()));
        Held {
            data_dir: self.data_dir.clone(),
            fs: self.fs.clone(),
            snapshots,
            refusing: self.partitions.damaged().map(|id| group_of(Some(id))).collect(),
            log: self.log.hold(),
        }
    }

    async fn back_up(&self, dir: &Path, meter: Arc<Meter>) -> Result<Contents, JobError> {
        backup::prepare(dir)?;
        let source = self.source(&meter).await?;
        let dir = dir.to_owned();
        let written = blocking(move || backup::write(&dir, &source, &meter)).await;
        Ok(written.map_err(|_| JobError::Panicked)??)
    }

    /// Brings the state of every group to disk and chooses the position of the log.
    pub(crate) async fn source(&self, meter: &Meter) -> Result<Source, BackupError> {
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
        if let Some(partition) = self.partitions.damaged().next() {
            return Err(BackupError::Refusing { partition });
        }
        for handle in self.partitions.all() {
            meter.check()?;
            if self.has_left(handle.group()) {
                continue;
            }
            let turn = handle.group().turn().await;
            snapshots.extend(snapshot(handle.group(), &turn).await?);
            groups.push(self.described(handle.group()));
            turns.push(turn);
        }
        let log = self.log.hold();
        drop::<Vec<Turn>>(turns);
        // One that is still to be filled has nothing to restore.
        groups.retain(|group: &GroupOf| group.index > 0);
        let mut contents = Contents::begin(self.identity, self.partition_count, made_unix_ms, log.position());
        contents.is_of_cluster = self.catalog.state().nodes.len() > 1;
        contents.groups = groups;
        Ok(Source { fs: self.fs.clone(), snapshots, log, contents })
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
