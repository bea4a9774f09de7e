//! Owns the mapping of jobs.

use std::path::PathBuf;

use fanfold_cluster::jobs as stored;
use fanfold_cluster::meter::Phase;
use fanfold_cluster::verify::Finding;
use fanfold_protocol::message as wire;

/// What a job is to do, from the wire.
pub fn job_kind(kind: wire::JobKind) -> stored::JobKind {
    match kind {
        wire::JobKind::Verify => stored::JobKind::Verify,
        wire::JobKind::Backup { dir, leaves_out_damaged } => {
            stored::JobKind::Backup { dir: PathBuf::from(dir), leaves_out_damaged }
        }
    }
}

fn kind_to_wire(kind: stored::JobKind) -> wire::JobKind {
    match kind {
        stored::JobKind::Verify => wire::JobKind::Verify,
        stored::JobKind::Backup { dir, leaves_out_damaged } => {
            wire::JobKind::Backup { dir: dir.display().to_string(), leaves_out_damaged }
        }
    }
}

/// What is wrong on disk, to the wire.
pub fn finding(finding: &Finding) -> wire::JobFinding {
    let Finding { path, offset, what } = finding;
    wire::JobFinding { path: path.display().to_string(), offset: *offset, what: what.clone() }
}

/// What a long piece of work is at, to the wire.
pub fn phase(phase: Phase) -> wire::JobPhase {
    match phase {
        Phase::Begins => wire::JobPhase::Begins,
        Phase::Snapshots => wire::JobPhase::Snapshots,
        Phase::Groups => wire::JobPhase::Groups,
        Phase::Log => wire::JobPhase::Log,
    }
}

/// A job, to the wire.
pub fn job(status: stored::JobStatus) -> wire::JobStatus {
    let state = match status.state {
        stored::JobState::Running => wire::JobState::Running,
        stored::JobState::Done => wire::JobState::Done,
        stored::JobState::Failed(said) => wire::JobState::Failed(said),
        stored::JobState::Cancelled => wire::JobState::Cancelled,
    };
    wire::JobStatus {
        job: status.id,
        state,
        phase: phase(status.progress.phase),
        done_bytes: status.progress.done_bytes,
        total_bytes: status.progress.total_bytes,
        found: status.findings.len() as u64,
        findings: status.findings.iter().take(wire::JOB_FINDINGS_MAX).map(finding).collect(),
        kind: Some(kind_to_wire(status.kind)),
    }
}
