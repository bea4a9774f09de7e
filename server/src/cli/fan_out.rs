//! Owns the commands that pause the fan-out of an owner and let it go on.

use std::collections::BTreeSet;

use clap::{Args, Subcommand};
use fanfold_client::{ClusterView, GroupName, GroupView, NodeId, ReplicaRole, ReplicaView, UserId};
use serde_json::{Value, json};

use super::error::CliError;
use super::output::id;
use super::remote::{Remote, answered};

#[derive(Debug, Args)]
pub(super) struct FanOutArgs {
    #[command(subcommand)]
    command: FanOutCommand,
}

#[derive(Debug, Subcommand)]
enum FanOutCommand {
    /// Keeps an owner's new entries out of feeds; they are in its timeline at once.
    #[command(after_help = "Example:\n  fanfold hot --by fanout\n  fanfold fan-out pause 1001")]
    Pause {
        /// The owner.
        owner: u64,
        #[command(flatten)]
        remote: Remote,
    },
    /// Lets the fan-out go on; what was kept back is in the feeds from then on.
    #[command(after_help = "Example:\n  fanfold fan-out resume 1001")]
    Resume {
        /// The owner.
        owner: u64,
        #[command(flatten)]
        remote: Remote,
    },
    /// Lists the owners whose fan-out is paused.
    #[command(after_help = "Example:\n  fanfold fan-out list")]
    List {
        #[command(flatten)]
        remote: Remote,
    },
}

/// Runs a command about fan-out.
pub(super) async fn run(args: FanOutArgs) -> Result<(), CliError> {
    match args.command {
        FanOutCommand::Pause { owner, remote } => set(&remote, UserId(owner), true).await,
        FanOutCommand::Resume { owner, remote } => set(&remote, UserId(owner), false).await,
        FanOutCommand::List { remote } => {
            let list = async |client: &fanfold_client::Client| {
                let (lists, left_out) = answered(&remote, client.paused_by_node().await)?;
                let nodes: BTreeSet<_> = lists.iter().map(|(node, _)| *node).collect();
                let owners: BTreeSet<_> = lists.into_iter().flat_map(|(_, owners)| owners).collect();
                remote.output.show(
                    || Value::Array(owners.iter().map(id).collect()),
                    || {
                        let owners: Vec<_> = owners.iter().map(ToString::to_string).collect();
                        if owners.is_empty() { "nobody is paused".to_owned() } else { owners.join("\n") }
                    },
                )?;
                if left_out.is_empty() {
                    return Ok(());
                }
                let view = client.cluster().await.map_err(|error| remote.failed(error))?;
                let partitions = unseen(&view, &nodes);
                if partitions.is_empty() { Ok(()) } else { Err(CliError::Unanswered { partitions }) }
            };
            remote.with_client(list).await
        }
    }
}

/// The partitions of which none of these nodes has a replica that votes.
fn unseen(view: &ClusterView, nodes: &BTreeSet<NodeId>) -> Vec<u64> {
    let has = |replica: &ReplicaView| replica.role == ReplicaRole::Voter && nodes.contains(&replica.node);
    let unseen = view.groups.iter().filter(|group| !group.replicas.iter().any(has));
    let partition = |group: &GroupView| match group.group {
        GroupName::Catalog => None,
        GroupName::Partition(partition) => Some(partition.0.into()),
    };
    unseen.filter_map(partition).collect()
}

async fn set(remote: &Remote, owner: UserId, paused: bool) -> Result<(), CliError> {
    let set = async |client: &fanfold_client::Client| {
        client.pause_fan_out(owner, paused).await.map_err(|error| remote.failed(error))?;
        remote.output.show(
            || json!({ "owner": id(owner), "paused": paused }),
            || format!("the fan-out of {owner} {}", if paused { "is paused" } else { "goes on" }),
        )
    };
    remote.with_client(set).await
}
