//! Owns the backup of a whole cluster: one image of each node, side by side under one name.
//!
//! - The image of node `n` is in the directory `node-n` of the backup, on that node's machine.
//! - Together they are complete if every group is in at least one of them: a node that is gone takes nothing away as long
//!   as others have its partitions.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use fanfold_client::Client;
use fanfold_cluster::backup::{Backup, BackupError};
use fanfold_protocol::NodeId;
use fanfold_protocol::message::{ClusterView, GroupName, JobKind, JobState, JobStatus, ReplicaRole};
use serde_json::{Value, json};

use super::change::{members, one_of};
use super::error::CliError;
use super::job;
use super::remote::Remote;

/// What the directory of a node's image begins with.
const IMAGE: &str = "node-";

/// Makes an image of each node, or of one of them.
pub(super) async fn create(
    remote: &Remote,
    client: &Client,
    view: &ClusterView,
    only: Option<NodeId>,
    dir: &Path,
    leaves_out_damaged: bool,
    rate: Option<u64>,
) -> Result<(), CliError> {
    let members = members(view);
    if let Some(node) = only {
        one_of(&members, node)?;
    }
    let place = |node: NodeId| dir.join(format!("{IMAGE}{node}")).display().to_string();
    let asked = members.into_iter().filter(|node| only.is_none_or(|only| only == *node));
    let jobs = asked.map(|node| (node, JobKind::Backup { dir: place(node), leaves_out_damaged })).collect();
    let ended = job::run_all(client, jobs, rate).await;
    let (mut images, mut failed) = (Vec::new(), Vec::new());
    for (node, ended) in ended {
        match outcome(ended) {
            Ok(status) => images.push((node, status)),
            Err(said) => failed.push((node, said)),
        }
    }
    let made: BTreeSet<NodeId> = images.iter().map(|(node, _)| *node).collect();
    let missing = missing(view, &made);
    let left_out: Vec<_> = images
        .iter()
        .flat_map(|(node, status)| status.findings.iter().map(move |f| format!("node {node}: {}", f.what)))
        .collect();
    let json = json!({
        "backup": dir,
        "images": images.iter().map(|(node, status)| json!({
            "node": node.to_string(), "dir": place(*node), "read_and_written_bytes": status.done_bytes,
        })).collect::<Vec<_>>(),
        "failed": failed.iter().map(|(node, said)| json!({ "node": node.to_string(), "why": said }))
            .collect::<Vec<Value>>(),
        "is_complete": missing.is_empty(),
        "left_out": left_out,
        "missing_groups": missing,
    });
    remote.output.show(
        || json,
        || {
            let lines = images.iter().map(|(node, _)| format!("node {node}: {}", place(*node)));
            let mut lines: Vec<_> = lines.collect();
            lines.extend(failed.iter().map(|(node, said)| format!("node {node}: FAILED: {said}")));
            lines.extend(left_out.iter().map(|what| {
                format!("LEFT OUT: {what}; `fanfold backup list` says whether another image has it")
            }));
            lines.push(if missing.is_empty() {
                "together they have every partition; copy them to one place, and name its directory to restore them"
                    .to_owned()
            } else {
                format!("INCOMPLETE: {} are in none of them", missing.join(", "))
            });
            lines.join("\n")
        },
    )?;
    match failed.len() {
        0 if missing.is_empty() || only.is_some() => Ok(()),
        nodes => Err(CliError::Images { nodes, is_complete: missing.is_empty() }),
    }
}

/// The status of a job that is done, or what to tell of it.
fn outcome(ended: Result<JobStatus, fanfold_client::Error>) -> Result<JobStatus, String> {
    let status = ended.map_err(|error| error.to_string())?;
    match &status.state {
        JobState::Failed(said) => Err(said.clone()),
        JobState::Cancelled => Err("it was cancelled".to_owned()),
        _ => Ok(status),
    }
}

/// The groups that no node of these votes in.
fn missing(view: &ClusterView, made: &BTreeSet<NodeId>) -> Vec<String> {
    let is_there = |group: &&fanfold_protocol::message::GroupView| {
        let serving = [ReplicaRole::Voter, ReplicaRole::Going];
        group.replicas.iter().any(|r| serving.contains(&r.role) && made.contains(&r.node))
    };
    let lacking = view.groups.iter().filter(|group| !is_there(group));
    lacking
        .map(|group| match group.group {
            GroupName::Catalog => "the catalog".to_owned(),
            GroupName::Partition(partition) => format!("partition {partition}"),
        })
        .collect()
}

/// The images in a directory: those of a cluster's nodes, by name.
pub(super) fn in_dir(dir: &Path) -> Result<Vec<PathBuf>, CliError> {
    let items = std::fs::read_dir(dir).map_err(|source| BackupError::Io { path: dir.to_owned(), source })?;
    let is_image = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        path.is_dir() && name.is_some_and(|name| name.starts_with(IMAGE))
    };
    let mut images: Vec<_> = items.flatten().map(|item| item.path()).filter(is_image).collect();
    images.sort_unstable();
    Ok(images)
}

/// The backups that a directory stands for: itself, or the images in it.
pub(super) fn named(dir: &Path) -> Result<Vec<Backup>, CliError> {
    match Backup::open(dir) {
        Err(error @ BackupError::NotABackup { .. }) => {
            let images = in_dir(dir).unwrap_or_default();
            if images.is_empty() {
                return Err(error.into());
            }
            images.iter().map(|image| Backup::open(image).map_err(CliError::from)).collect()
        }
        backup => Ok(vec![backup?]),
    }
}

/// The partitions that are in none of a cluster's images.
pub(super) fn missing_in<'b>(images: impl Iterator<Item = &'b Backup>) -> Vec<u16> {
    let missing = images.map(|image| image.contents.missing().into_iter().collect::<BTreeSet<u16>>());
    let in_none = missing.reduce(|all, image| &all & &image);
    in_none.unwrap_or_default().into_iter().collect()
}

#[cfg(test)]
mod tests {
    use fanfold_client::{ClusterId, PartitionId};
    use fanfold_protocol::message::{ClusterSettings, GroupHealth, GroupView, ReplicaView};

    use super::*;

    #[test]
    fn groups_without_an_image_are_named() {
        let group = |group, nodes: &[u64]| GroupView {
            group,
            health: GroupHealth::Whole,
            is_diverged: false,
            term: 1,
            leader: None,
            preferred: None,
            replicas: nodes
                .iter()
                .map(|node| ReplicaView {
                    replica: *node,
                    node: NodeId(*node),
                    role: if *node == 9 { ReplicaRole::Learner } else { ReplicaRole::Voter },
                    lag: None,
                    is_closed: false,
                })
                .collect(),
        };
        let view = ClusterView {
            cluster: ClusterId(1),
            by: NodeId(1),
            epoch: 1,
            feature_level: 2,
            settings: ClusterSettings { replicas: 1, repair_after_ms: 0 },
            nodes: Vec::new(),
            groups: vec![
                group(GroupName::Catalog, &[1, 2]),
                group(GroupName::Partition(PartitionId(0)), &[1]),
                group(GroupName::Partition(PartitionId(1)), &[2, 9]),
            ],
        };
        let of = |nodes: &[u64]| missing(&view, &nodes.iter().copied().map(NodeId).collect());
        assert_eq!(of(&[1, 2]), Vec::<String>::new());
        assert_eq!(of(&[1, 9]), ["partition 1"], "a learner's image may lack something");
        assert_eq!(of(&[]), ["the catalog", "partition 0", "partition 1"]);
    }
}
