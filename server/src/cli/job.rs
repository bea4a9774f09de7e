//! Owns the watching of a job on a node: started, shown until it ends, cancelled by Ctrl-C.

use fanfold_client::{Client, Error};
use fanfold_protocol::NodeId;
use fanfold_protocol::message::{JobFinding, JobKind, JobPhase, JobState, JobStatus, NodeAddress, StartJob};
use futures_util::future::join_all;
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
    let node = node(remote, client).await?;
    let mut ended = run_all(client, vec![(node, kind)], bytes_per_second).await;
    match ended.pop().map(|(_, ended)| ended) {
        Some(Ok(status)) => match &status.state {
            JobState::Failed(said) => {
                Err(CliError::Job { address: remote.address.clone(), said: said.clone() })
            }
            JobState::Cancelled => Err(CliError::Cancelled),
            _ => Ok(status),
        },
        Some(Err(error)) => Err(remote.failed(error)),
        None => Err(CliError::Cancelled),
    }
}

/// The node that was named. Of several the cluster must know it by that name, or it might be another one that answers.
pub(super) async fn node(remote: &Remote, client: &Client) -> Result<NodeId, CliError> {
    let map = client.map().await.map_err(|error| remote.failed(error))?;
    named(&remote.address, &map.nodes)
}

fn named(address: &str, nodes: &[NodeAddress]) -> Result<NodeId, CliError> {
    let named = nodes.iter().find(|node| node.address == address);
    match (named, nodes) {
        (Some(node), _) | (None, [node]) => Ok(node.node),
        (None, []) => Ok(NodeId(1)),
        (None, nodes) => {
            let known = nodes.iter().map(|node| node.address.clone()).collect();
            Err(CliError::NoSuch { what: "node that calls itself", asked: address.to_owned(), known })
        }
    }
}

/// Runs jobs on several nodes at the same time, each to its end; Ctrl-C cancels all.
pub(super) async fn run_all(
    client: &Client,
    jobs: Vec<(NodeId, JobKind)>,
    bytes_per_second: Option<u64>,
) -> Vec<(NodeId, Result<JobStatus, Error>)> {
    let start = |(node, kind)| async move {
        (node, client.start_job(node, StartJob { kind, bytes_per_second }).await)
    };
    let mut all = join_all(jobs.into_iter().map(start)).await;
    let (mut shown, mut looks) = (Shown::new(), interval(LOOK_EVERY));
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    let mut is_cancelled = false;
    while let Some(phase) = all.iter().filter_map(|(_, job)| phase(job)).min_by_key(|phase| *phase as u8) {
        let known = || all.iter().filter_map(|(_, job)| job.as_ref().ok());
        let done = known().map(|status| status.done_bytes).sum();
        shown.at(phase, done, known().map(|status| status.total_bytes).sum());
        tokio::select! {
            _ = looks.tick() => {}
            _ = &mut interrupted, if !is_cancelled => is_cancelled = true,
        }
        let look = |(node, job): (NodeId, Result<JobStatus, Error>)| async move {
            match job {
                Ok(status) if status.state == JobState::Running && is_cancelled => {
                    (node, client.cancel_job(node, status.job).await)
                }
                Ok(status) if status.state == JobState::Running => (node, client.job(node, status.job).await),
                job => (node, job),
            }
        };
        all = join_all(all.into_iter().map(look)).await;
    }
    shown.end();
    all
}

/// What a job is at, while it runs.
fn phase(job: &Result<JobStatus, Error>) -> Option<JobPhase> {
    job.as_ref().ok().filter(|status| status.state == JobState::Running).map(|status| status.phase)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_node_without_others_is_meant_by_any_address() {
        let node = |id, address: &str| NodeAddress { node: NodeId(id), address: address.to_owned() };
        let (first, second) = (node(1, "10.0.0.1:7117"), node(2, "10.0.0.2:7117"));
        let alone = named("localhost:7117", std::slice::from_ref(&first));
        assert!(matches!(alone, Ok(NodeId(1))), "{alone:?}");
        let nodes = [first, second];
        assert!(matches!(named("10.0.0.2:7117", &nodes), Ok(NodeId(2))));
        let refused = named("localhost:7117", &nodes).unwrap_err().to_string();
        let parts = ["localhost:7117", "10.0.0.1:7117", "10.0.0.2:7117"];
        assert!(parts.iter().all(|part| refused.contains(part)), "{refused}");
    }
}
