//! Owns the messages about jobs: long pieces of work of a node on its own files.

use crate::error::BodyError;
use crate::field::Field;
use crate::wire::{Reader, Writer, bitmap};

/// Most bytes of the path of a job's directory.
pub const JOB_PATH_BYTES_MAX: usize = 4_096;
/// Most findings that a status carries.
pub const JOB_FINDINGS_MAX: usize = 256;

const FINDING_BYTES_MIN: usize = 3;

/// What a job does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobKind {
    /// Reads and checks everything that the node has on disk.
    Verify,
    /// Makes a backup.
    Backup {
        /// Where, on the node's machine: absolute, empty or not there; at most [`JOB_PATH_BYTES_MAX`] bytes.
        dir: String,
        /// Partitions that are damaged on the node are left out, and are the findings of the job.
        leaves_out_damaged: bool,
    },
}

/// Starts a job; one runs at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartJob {
    /// What it does.
    pub kind: JobKind,
    /// How many bytes it reads and writes in a second, at most; none: as many as go.
    pub bytes_per_second: Option<u64>,
}

/// What a job is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobPhase {
    /// It looks at what there is to do.
    Begins,
    /// Every group takes a snapshot.
    Snapshots,
    /// The files of the groups.
    Groups,
    /// The log.
    Log,
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

/// Something on disk that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobFinding {
    /// The file, on the node's machine.
    pub path: String,
    /// Where in it, in bytes, if that can be said.
    pub offset: Option<u64>,
    /// What is wrong, for people.
    pub what: String,
}

/// A job as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobStatus {
    /// Its number.
    pub job: u64,
    /// What became of it.
    pub state: JobState,
    /// What it is at, or was last.
    pub phase: JobPhase,
    /// Bytes that are done.
    pub done_bytes: u64,
    /// Bytes that there are, as far as is known.
    pub total_bytes: u64,
    /// How many things it found to be wrong.
    pub found: u64,
    /// The first of them, at most [`JOB_FINDINGS_MAX`].
    pub findings: Vec<JobFinding>,
    /// What it does; none from a node of a time when that was not said.
    pub kind: Option<JobKind>,
}

impl JobKind {
    fn encode(&self, w: &mut Writer) {
        match self {
            Self::Verify => w.byte(1),
            Self::Backup { dir, leaves_out_damaged } => {
                w.byte(if *leaves_out_damaged { 3 } else { 2 });
                w.string(dir);
            }
        }
    }

    fn decode(r: &mut Reader) -> Result<Self, BodyError> {
        let leaves_out_damaged = match r.byte(Field::Job)? {
            1 => return Ok(Self::Verify),
            2 => false,
            3 => true,
            _ => return Err(BodyError::Malformed { field: Field::Job }),
        };
        Ok(Self::Backup { dir: r.string(Field::Path)?, leaves_out_damaged })
    }
}

impl StartJob {
    pub(crate) fn encode(&self, w: &mut Writer) {
        w.byte(bitmap([self.bytes_per_second.is_some()]));
        self.kind.encode(w);
        if let Some(bytes) = self.bytes_per_second {
            w.number(bytes);
        }
    }

    pub(crate) fn decode(r: &mut Reader) -> Result<Self, BodyError> {
        let present = r.presence(0b1)?;
        let kind = JobKind::decode(r)?;
        let bytes_per_second = r.optional(present, 0, |r| r.number(Field::Job))?;
        Ok(Self { kind, bytes_per_second })
    }
}

impl JobStatus {
    pub(crate) fn encode(&self, w: &mut Writer) {
        w.number(self.job);
        match &self.state {
            JobState::Running => w.byte(1),
            JobState::Done => w.byte(2),
            JobState::Failed(said) => {
                w.byte(3);
                w.string(said);
            }
            JobState::Cancelled => w.byte(4),
        }
        w.byte(self.phase as u8 + 1);
        for number in [self.done_bytes, self.total_bytes, self.found] {
            w.number(number);
        }
        w.count(self.findings.len());
        for JobFinding { path, offset, what } in &self.findings {
            w.string(path);
            w.boolean(offset.is_some());
            if let Some(offset) = offset {
                w.number(*offset);
            }
            w.string(what);
        }
        if let Some(kind) = &self.kind {
            kind.encode(w);
        }
    }

    pub(crate) fn decode(r: &mut Reader) -> Result<Self, BodyError> {
        let at = Field::Job;
        let malformed = BodyError::Malformed { field: at };
        let job = r.number(at)?;
        let state = match r.byte(at)? {
            1 => JobState::Running,
            2 => JobState::Done,
            3 => JobState::Failed(r.string(at)?),
            4 => JobState::Cancelled,
            _ => return Err(malformed),
        };
        let phases = [JobPhase::Begins, JobPhase::Snapshots, JobPhase::Groups, JobPhase::Log];
        let phase = usize::from(r.byte(at)?).checked_sub(1).and_then(|phase| phases.get(phase));
        let phase = *phase.ok_or(malformed)?;
        let (done_bytes, total_bytes, found) = (r.number(at)?, r.number(at)?, r.number(at)?);
        let count = r.count(at, FINDING_BYTES_MIN, JOB_FINDINGS_MAX)?;
        let findings = r.items(count, |r| {
            let path = r.string(at)?;
            let offset = if r.boolean(at)? { Some(r.number(at)?) } else { None };
            Ok(JobFinding { path, offset, what: r.string(at)? })
        })?;
        let trailing = BodyError::Malformed { field: Field::Body };
        let kind = if r.remaining() > 0 { Some(JobKind::decode(r).map_err(|_| trailing)?) } else { None };
        Ok(Self { job, state, phase, done_bytes, total_bytes, found, findings, kind })
    }
}
