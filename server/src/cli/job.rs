//! Owns the watching of a job on a node: started, shown until it ends, cancelled by Ctrl-C.

use fanfold_client::Client;
use fanfold_protocol::message::{JobFinding, JobKind, JobState, JobStatus, StartJob};
use serde_json::{Value, json};
use tokio::time::interval;

use super::error::CliError;
use super::output::Output;
use super::progress::{LOOK_EVERY, Shown};
use super::remote::Remote;

/// Runs a job on the node to its end.
pub(super) async fn run(
    remote: &Remote,
    client: &Client,
    kind: JobKind,
    bytes_per_second: Option<u64>,
) -> Result<JobStatus, CliError> {
    let failed = |error| remote.failed(error);
    let map = client.map().await.map_err(failed)?;
    // The node that was named, if the cluster knows it by that name; of a single one the name does not matter.
    let named = map.nodes.iter().find(|node| node.address == remote.address);
    let node = named.or(map.nodes.first()).map_or(fanfold_protocol::NodeId(1), |node| node.node);
    let start = StartJob { kind, bytes_per_second };
    let mut status = client.start_job(node, start).await.map_err(failed)?;
    let (mut shown, mut looks) = (Shown::new(), interval(LOOK_EVERY));
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    let mut is_cancelled = false;
    while status.state == JobState::Running {
        shown.at(status.phase, status.done_bytes, status.total_bytes);
        status = tokio::select! {
            _ = looks.tick() => client.job(node, status.job).await.map_err(failed)?,
            _ = &mut interrupted, if !is_cancelled => {
                is_cancelled = true;
                client.cancel_job(node, status.job).await.map_err(failed)?
            }
        };
    }
    shown.end();
    match &status.state {
        JobState::Failed(said) => Err(CliError::Job { address: remote.address.clone(), said: said.clone() }),
        JobState::Cancelled => Err(CliError::Cancelled),
        _ => Ok(status),
    }
}

/// Shows what is wrong, one line each; an error if anything is.
pub(super) fn report(
    output: Output,
    about: &Value,
    found: u64,
    findings: &[JobFinding],
) -> Result<(), CliError> {
    let item = |finding: &JobFinding| json!({ "file": finding.path, "offset": finding.offset, "what": finding.what });
    output.show(
        || {
            let findings: Vec<_> = findings.iter().map(item).collect();
            json!({ "about": about, "found": found, "findings": findings })
        },
        || {
            let offset = |at: Option<u64>| at.map_or_else(String::new, |at| format!(" at offset {at}"));
            let lines = findings.iter().map(|f| format!("WRONG {}{}: {}", f.path, offset(f.offset), f.what));
            let mut lines: Vec<_> = lines.collect();
            if found == 0 {
                lines.push("everything is as it was written".to_owned());
            }
            lines.join("\n")
        },
    )?;
    if found == 0 { Ok(()) } else { Err(CliError::Wrong { found }) }
}
