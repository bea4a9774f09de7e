//! Owns the commands about partitions: list, show, move, transfer-leader, recover, salvage.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Subcommand};
use fanfold_client::{ClusterChange, GroupName, NodeId, PartitionId};
use fanfold_cluster::backup::{Begins, Salvage, salvage};
use fanfold_cluster::meter::Meter;
use serde_json::{Value, json};

use super::change::{self, How, group_text};
use super::cluster::{groups_text, partition_json, view};
use super::error::CliError;
use super::output::Output;
use super::progress::shown;
use super::remote::Remote;
use crate::translate;

#[derive(Debug, Args)]
pub(super) struct PartitionArgs {
    #[command(subcommand)]
    command: PartitionCommand,
}

/// A partition as it is named in a command: a number, or `catalog`.
#[derive(Debug, Clone, Copy)]
struct Named(GroupName);

impl FromStr for Named {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "catalog" {
            return Ok(Self(GroupName::Catalog));
        }
        let number = text.parse().map_err(|_| "a partition is a number below 4096, or `catalog`")?;
        Ok(Self(GroupName::Partition(PartitionId(number))))
    }
}

#[derive(Debug, Subcommand)]
enum PartitionCommand {
    /// Lists the partitions, with their leaders and replicas.
    #[command(after_help = "Example:\n  fanfold partition list")]
    List {
        #[command(flatten)]
        remote: Remote,
    },
    /// Shows one partition.
    #[command(
        after_help = "Examples:\n  fanfold partition show 3\n  fanfold partition show catalog --output json"
    )]
    Show {
        /// The partition.
        partition: Named,
        #[command(flatten)]
        remote: Remote,
    },
    /// Moves a replica from one node to another.
    #[command(after_help = "Example:\n  fanfold partition move 3 --from 1 --to 4 --wait")]
    Move {
        /// The partition.
        partition: Named,
        /// The node that has the replica.
        #[arg(long, value_name = "NODE")]
        from: u64,
        /// The node that gets it.
        #[arg(long, value_name = "NODE")]
        to: u64,
        #[command(flatten)]
        how: How,
    },
    /// Hands the leadership to the replica on a node.
    #[command(after_help = "Example:\n  fanfold partition transfer-leader 3 --to 2")]
    TransferLeader {
        /// The partition.
        partition: Named,
        /// The node that leads from then on.
        #[arg(long, value_name = "NODE")]
        to: u64,
        #[command(flatten)]
        how: How,
    },
    /// Lets a partition that has lost most of its replicas for good go on with one of them, or empty if nothing is left; says
    /// what is lost.
    #[command(
        after_help = "Examples:\n  fanfold partition recover 3 --from 2 --dry-run\n  fanfold partition recover 3 --from 2 --accept-loss\n  fanfold partition recover 3 --empty --to 2 --accept-loss    # all nodes that had a replica are gone"
    )]
    Recover {
        /// The partition.
        partition: Named,
        /// The node whose replica it goes on with.
        #[arg(long, value_name = "NODE", required_unless_present = "empty", conflicts_with = "empty")]
        from: Option<u64>,
        /// It begins with nothing: no node that is left has a replica of it.
        #[arg(long, requires = "to")]
        empty: bool,
        /// The node that it begins on.
        #[arg(long, value_name = "NODE", requires = "empty")]
        to: Option<u64>,
        /// What only the lost replicas had is given up.
        #[arg(long)]
        accept_loss: bool,
        #[command(flatten)]
        how: How,
    },
    /// Lets a partition that is damaged on a stopped node that is alone go on with what is whole of it; says what that loses.
    #[command(
        after_help = "Examples:\n  fanfold partition salvage 3 --data-dir ./fanfold-data --dry-run\n  fanfold partition salvage 3 --data-dir ./fanfold-data --accept-loss\n\nThe partition begins with everything if its log and a snapshot are whole, else with its newest whole snapshot, else with nothing, and under a new incarnation, so that feeds are right for what is left. A backup that is newer than that is better: `fanfold backup restore --partition`."
    )]
    Salvage {
        /// The partition.
        partition: Named,
        /// The node's directory; no node may run on it.
        #[arg(long, value_name = "DIR")]
        data_dir: PathBuf,
        /// Only say what would be lost.
        #[arg(long)]
        dry_run: bool,
        /// What is damaged is given up.
        #[arg(long)]
        accept_loss: bool,
        /// How the result is shown.
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
}

impl PartitionArgs {
    pub(super) fn is_offline(&self) -> bool {
        matches!(self.command, PartitionCommand::Salvage { .. })
    }
}

/// Salvages.
pub(super) fn offline(args: &PartitionArgs) -> Result<(), CliError> {
    let PartitionCommand::Salvage { partition: Named(group), data_dir, dry_run, accept_loss, output } =
        &args.command
    else {
        return Ok(());
    };
    if !dry_run && !accept_loss {
        return Err(CliError::AcceptLoss);
    }
    if !data_dir.is_dir() {
        return Err(super::inspect::InspectError::NoDirectory { path: data_dir.clone() }.into());
    }
    let id = match group {
        GroupName::Catalog => None,
        GroupName::Partition(partition) => Some(fanfold_storage::ids::PartitionId(partition.0)),
    };
    let (target, is_dry_run, partition) = (data_dir.clone(), *dry_run, group.to_string());
    let salvage = shown(Meter::new(None), move |meter| salvage(&target, id, is_dry_run, meter))?;
    let Salvage { begins, last, findings } = &salvage;
    let known = last.map_or_else(String::new, |last| format!(", of {last} that the log knows of"));
    let (name, index, lost) = match begins {
        Begins::Whole => ("whole", None, "with everything; nothing is lost".to_owned()),
        Begins::Snapshot { index } => (
            "snapshot",
            Some(*index),
            format!(
                "with its newest whole snapshot, of Raft index {index}{known}; what came after it is LOST"
            ),
        ),
        Begins::Empty => ("empty", None, "with nothing; ALL that it had is LOST".to_owned()),
    };
    let findings: Vec<_> = findings.iter().map(translate::finding).collect();
    let wrong: Vec<_> = findings
        .iter()
        .map(|finding| json!({ "file": finding.path, "offset": finding.offset, "what": finding.what }))
        .collect();
    output.show(
        || json!({ "partition": partition, "begins": name, "index": index, "last_known_index": last, "done": !dry_run, "damaged": wrong }),
        || {
            let mut lines: Vec<_> = findings.iter().map(|f| format!("WRONG {}: {}", f.path, f.what)).collect();
            let would = if *dry_run { "would begin" } else { "begins at the next start" };
            lines.push(format!("{} {would} {lost}", group_text(*group)));
            lines.join("\n")
        },
    )
}

/// Runs a command about partitions.
pub(super) async fn run(args: PartitionArgs) -> Result<(), CliError> {
    match args.command {
        PartitionCommand::List { remote } => {
            let view = view(&remote).await?;
            remote.output.show(
                || Value::Array(view.groups.iter().map(partition_json).collect()),
                || groups_text(&view.groups),
            )
        }
        PartitionCommand::Show { partition: Named(group), remote } => show(&remote, group).await,
        PartitionCommand::Move { partition: Named(group), from, to, how } => {
            change::run(how, ClusterChange::Move { group, from: NodeId(from), to: NodeId(to) }).await
        }
        PartitionCommand::TransferLeader { partition: Named(group), to, how } => {
            change::run(how, ClusterChange::TransferLeader { group, to: NodeId(to) }).await
        }
        PartitionCommand::Salvage { .. } => Ok(()),
        PartitionCommand::Recover { accept_loss: false, how: How { dry_run: false, .. }, .. } => {
            Err(CliError::AcceptLoss)
        }
        PartitionCommand::Recover { partition: Named(group), from, to, how, .. } => {
            // The arguments are one or the other.
            let change = match (from, to) {
                (Some(from), _) => ClusterChange::Recover { group, from: NodeId(from) },
                (None, to) => ClusterChange::BeginEmpty { group, to: NodeId(to.unwrap_or_default()) },
            };
            change::run(how, change).await
        }
    }
}

async fn show(remote: &Remote, name: GroupName) -> Result<(), CliError> {
    let view = view(remote).await?;
    let Some(group) = view.groups.iter().find(|group| group.group == name) else {
        return Err(change::no_such_group(&view, name));
    };
    remote.output.show(|| partition_json(group), || groups_text(std::slice::from_ref(group)))
}
