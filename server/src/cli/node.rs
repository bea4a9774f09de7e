//! Owns the commands about nodes: list, show, drain, undrain, remove, replace.

use clap::{Args, Subcommand};
use fanfold_client::{ClusterChange, ClusterView, NodeId};
use serde_json::{Value, json};

use super::change::{self, How};
use super::cluster::{groups_text, node_json, nodes_text, partition_json, view};
use super::error::CliError;
use super::remote::Remote;

#[derive(Debug, Args)]
pub(super) struct NodeArgs {
    #[command(subcommand)]
    command: NodeCommand,
}

#[derive(Debug, Subcommand)]
enum NodeCommand {
    /// Lists the nodes, removed ones too.
    #[command(after_help = "Example:\n  fanfold node list")]
    List {
        #[command(flatten)]
        remote: Remote,
    },
    /// Shows a node and the partitions that it has replicas of.
    #[command(after_help = "Example:\n  fanfold node show 2")]
    Show {
        /// The node.
        node: u64,
        #[command(flatten)]
        remote: Remote,
    },
    /// Moves the replicas of a node to others, and gives it no new ones.
    #[command(
        after_help = "Examples:\n  fanfold node drain 2 --dry-run\n  fanfold node drain 2 --wait\n\nWhen it has none it can be removed: `fanfold node remove 2`."
    )]
    Drain {
        /// The node.
        node: u64,
        #[command(flatten)]
        how: How,
    },
    /// Lets a node that drains hold replicas again.
    #[command(after_help = "Example:\n  fanfold node undrain 2")]
    Undrain {
        /// The node.
        node: u64,
        #[command(flatten)]
        how: How,
    },
    /// Takes a node out for ever: one that was drained, or one that is gone.
    #[command(
        after_help = "Example:\n  fanfold node remove 2\n\nIts data directory is refused from then on; an empty one joins as a new node."
    )]
    Remove {
        /// The node.
        node: u64,
        #[command(flatten)]
        how: How,
    },
    /// Gives all replicas of a node to another one, for instance to the one that was started in the place of a lost one.
    #[command(
        after_help = "Example:\n  fanfold start --join 10.0.0.1:7117 --listen 10.0.0.4:7117 …    # joins as node 4\n  fanfold node replace 2 --by 4 --wait"
    )]
    Replace {
        /// The node that goes.
        node: u64,
        /// The node that takes its place.
        #[arg(long, value_name = "NODE")]
        by: u64,
        #[command(flatten)]
        how: How,
    },
}

/// Runs a command about nodes.
pub(super) async fn run(args: NodeArgs) -> Result<(), CliError> {
    match args.command {
        NodeCommand::List { remote } => {
            let view = view(&remote).await?;
            remote
                .output
                .show(|| Value::Array(view.nodes.iter().map(node_json).collect()), || nodes_text(&view.nodes))
        }
        NodeCommand::Show { node, remote } => show(&remote, NodeId(node)).await,
        NodeCommand::Drain { node, how } => {
            change::run(how, ClusterChange::Drain { node: NodeId(node) }).await
        }
        NodeCommand::Undrain { node, how } => {
            change::run(how, ClusterChange::Undrain { node: NodeId(node) }).await
        }
        NodeCommand::Remove { node, how } => {
            change::run(how, ClusterChange::Remove { node: NodeId(node) }).await
        }
        NodeCommand::Replace { node, by, how } => {
            change::run(how, ClusterChange::Replace { node: NodeId(node), by: NodeId(by) }).await
        }
    }
}

async fn show(remote: &Remote, node: NodeId) -> Result<(), CliError> {
    let view: ClusterView = view(remote).await?;
    let Some(known) = view.nodes.iter().find(|known| known.node == node) else {
        let known = view.nodes.iter().map(|known| known.node.to_string()).collect();
        return Err(CliError::NoSuch { what: "node", asked: node.to_string(), known });
    };
    let has_replica = |replicas: &[fanfold_client::ReplicaView]| replicas.iter().any(|r| r.node == node);
    let groups: Vec<_> = view.groups.iter().filter(|group| has_replica(&group.replicas)).cloned().collect();
    remote.output.show(
        || {
            let partitions: Vec<_> = groups.iter().map(partition_json).collect();
            json!({ "node": node_json(known), "partitions": partitions })
        },
        || [nodes_text(std::slice::from_ref(known)), groups_text(&groups)].join("\n\n"),
    )
}
