//! Owns the jobs of a node: long pieces of work that are started, looked at and cancelled by requests.
//!
//! - One runs at a time; the last few are remembered until the node stops.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::backup::BackupError;
use crate::meter::{Cancelled, Meter, Progress};
use crate::verify::{Finding, Report};

/// How many jobs are remembered.
const REMEMBERED_MAX: usize = 16;

/// What a job does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobKind {
    /// Reads and checks everything on disk.
    Verify,
    /// Makes a backup in a directory of the node's machine.
    Backup {
        /// The directory, absolute; empty or not there.
        dir: PathBuf,
    },
}

/// What became of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobState {
    /// It goes on.
    Running,
    /// It came to its end.
    Done,
    /// It failed; what happened, for people.
    Failed(String),
    /// Somebody ended it.
    Cancelled,
}

/// A job as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobStatus {
    /// Its number.
    pub id: u64,
    /// What it does.
    pub kind: JobKind,
    /// What became of it.
    pub state: JobState,
    /// How far it has come.
    pub progress: Progress,
    /// What it found to be wrong; when it is done, that is all there is.
    pub findings: Vec<Finding>,
}

/// Why a job failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum JobError {
    #[error(transparent)]
    Backup(#[from] BackupError),
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    /// Its thread panicked.
    #[error("it ended badly; the node's log says more")]
    Panicked,
}

/// A job.
#[derive(Debug)]
pub(crate) struct Job {
    id: u64,
    kind: JobKind,
    meter: Arc<Meter>,
    ended: Mutex<Option<(JobState, Vec<Finding>)>>,
}

impl Job {
    pub fn meter(&self) -> &Arc<Meter> {
        &self.meter
    }

    pub fn kind(&self) -> &JobKind {
        &self.kind
    }

    /// Notes how it ended.
    pub fn end(&self, result: Result<Report, JobError>) {
        let (state, findings) = match result {
            Ok(report) => (JobState::Done, report.findings),
            Err(JobError::Cancelled(Cancelled) | JobError::Backup(BackupError::Cancelled(Cancelled))) => {
                (JobState::Cancelled, Vec::new())
            }
            Err(error) => {
                let said = error.to_string();
                let findings = match error {
                    JobError::Backup(BackupError::Damaged { findings }) => findings,
                    _ => Vec::new(),
                };
                (JobState::Failed(said), findings)
            }
        };
        tracing::info!(job = self.id, kind = ?self.kind, ?state, findings = findings.len(), "the job ended");
        *self.ended.lock() = Some((state, findings));
    }

    pub fn status(&self) -> JobStatus {
        let (state, findings) = self.ended.lock().clone().unwrap_or((JobState::Running, Vec::new()));
        let Self { id, kind, meter, .. } = self;
        JobStatus { id: *id, kind: kind.clone(), state, progress: meter.progress(), findings }
    }
}

/// The jobs of a node.
#[derive(Debug, Default)]
pub(crate) struct Jobs(Mutex<(u64, VecDeque<Arc<Job>>)>);

impl Jobs {
    /// A new job, if none runs.
    pub fn begin(&self, kind: JobKind, bytes_per_second: Option<u64>) -> Option<Arc<Job>> {
        let (last, jobs) = &mut *self.0.lock();
        if jobs.iter().any(|job| job.ended.lock().is_none()) {
            return None;
        }
        *last += 1;
        let meter = Arc::new(Meter::new(bytes_per_second));
        let job = Arc::new(Job { id: *last, kind, meter, ended: Mutex::new(None) });
        jobs.push_back(job.clone());
        if jobs.len() > REMEMBERED_MAX {
            jobs.pop_front();
        }
        Some(job)
    }

    /// The job of this number, if it is remembered.
    pub fn get(&self, id: u64) -> Option<Arc<Job>> {
        self.0.lock().1.iter().find(|job| job.id == id).cloned()
    }
}
