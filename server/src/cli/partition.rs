//! Owns the commands about partitions: list, show, move, transfer-leader, recover.

use std::str::FromStr;

use clap::{Args, Subcommand};
use fanfold_client::{ClusterChange, GroupName, NodeId, PartitionId};
use serde_json::Value;

use super::change::{self, How};
use super::cluster::{groups_text, partition_json, view};
use super::error::CliError;
use super::remote::Remote;

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
    /// Lets a partition that has lost most of its replicas for good go on with one of them; says what is lost.
    #[command(
        after_help = "Examples:\n  fanfold partition recover 3 --from 2 --dry-run\n  fanfold partition recover 3 --from 2 --accept-loss"
    )]
    Recover {
        /// The partition.
        partition: Named,
        /// The node whose replica it goes on with.
        #[arg(long, value_name = "NODE")]
        from: u64,
        /// What only the lost replicas had is given up.
        #[arg(long)]
        accept_loss: bool,
        #[command(flatten)]
        how: How,
    },
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
        PartitionCommand::Recover { accept_loss: false, how: How { dry_run: false, .. }, .. } => {
            Err(CliError::AcceptLoss)
        }
        PartitionCommand::Recover { partition: Named(group), from, how, .. } => {
            change::run(how, ClusterChange::Recover { group, from: NodeId(from) }).await
        }
    }
}

async fn show(remote: &Remote, name: GroupName) -> Result<(), CliError> {
    let view = view(remote).await?;
    let Some(group) = view.groups.iter().find(|group| group.group == name) else {
        let known = view.groups.iter().map(|group| group.group.to_string()).collect();
        return Err(CliError::NoSuch { what: "partition", asked: name.to_string(), known });
    };
    remote.output.show(|| partition_json(group), || groups_text(std::slice::from_ref(group)))
}
