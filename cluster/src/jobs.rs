//! Owns the jobs of a node: long pieces of work that are started, looked at and cancelled by requests.
//!
//! - One runs at a time; the last few are remembered until the node stops.
//! - Numbers count up from 1; 0 is that of one that was not begun, and, when asked for, the newest.

use std::collections::VecDeque;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::backup::BackupError;
use crate::meter::{Cancelled, Meter, Progress};
use crate::verify::{Finding, Report};

/// How many jobs are remembered.
const REMEMBERED_MAX: usize = 16;

/// What is said of a job whose hold on the log was let go of.
const LET_GO: &str = "it kept more of the log than `log_bytes_max`, or the disk is full, so the log was let go of; make room, or \
     start it again with a higher --rate";

/// What a job does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobKind {
    /// Reads and checks everything on disk.
    Verify,
    /// Makes a backup in a directory of the node's machine.
    Backup {
        /// The directory, absolute; empty or not there.
        dir: PathBuf,
        /// Partitions that are damaged here are left out, and listed.
        leaves_out_damaged: bool,
    },
}

impl fmt::Display for JobKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Verify => f.write_str("a check of everything on disk"),
            Self::Backup { dir, .. } => write!(f, "a backup to {}", dir.display()),
        }
    }
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
            Err(_) if self.meter.was_let_go() => (JobState::Failed(LET_GO.to_owned()), Vec::new()),
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

    fn runs(&self) -> bool {
        self.ended.lock().is_none()
    }

    pub fn status(&self) -> JobStatus {
        let (state, findings) = self.ended.lock().clone().unwrap_or((JobState::Running, Vec::new()));
        let Self { id, kind, meter, .. } = self;
        JobStatus { id: *id, kind: kind.clone(), state, progress: meter.progress(), findings }
    }
}

/// The jobs of a node.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    /// The last number, and the jobs.
    remembered: Mutex<(u64, VecDeque<Arc<Job>>)>,
    /// How much the last check that came to its end found to be wrong.
    wrong: AtomicU64,
}

impl Jobs {
    /// A new job; while one runs, what is to be said instead.
    pub fn begin(&self, kind: JobKind, bytes_per_second: Option<u64>) -> Result<Arc<Job>, JobStatus> {
        let (last, jobs) = &mut *self.remembered.lock();
        if let Some(runs) = jobs.iter().find(|job| job.runs()) {
            let (id, what) = (runs.id, &runs.kind);
            let said = format!(
                "job {id} runs, {what}, and one runs at a time; wait for it, or end it with `fanfold job cancel {id}`"
            );
            let (state, progress, findings) = (JobState::Failed(said), Progress::default(), Vec::new());
            return Err(JobStatus { id: 0, kind, state, progress, findings });
        }
        *last += 1;
        let meter = Arc::new(Meter::new(bytes_per_second));
        let job = Arc::new(Job { id: *last, kind, meter, ended: Mutex::new(None) });
        jobs.push_back(job.clone());
        if jobs.len() > REMEMBERED_MAX {
            jobs.pop_front();
        }
        Ok(job)
    }

    /// The job of this number, if it is remembered; the newest for 0.
    pub fn get(&self, id: u64) -> Option<Arc<Job>> {
        let (last, jobs) = &*self.remembered.lock();
        let id = if id == 0 { *last } else { id };
        jobs.iter().find(|job| job.id == id).cloned()
    }

    /// Notes how much a check that came to its end found to be wrong.
    pub fn note_wrong(&self, findings: u64) {
        self.wrong.store(findings, Ordering::Relaxed);
    }

    /// How much the last check that came to its end found to be wrong; 0 before the first.
    pub fn wrong(&self) -> u64 {
        self.wrong.load(Ordering::Relaxed)
    }

    /// The number of the one that runs.
    pub fn running(&self) -> Option<u64> {
        self.remembered.lock().1.iter().find(|job| job.runs()).map(|job| job.id)
    }
}
