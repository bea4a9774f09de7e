//! Owns the commands about the whole cluster: init, status, health, settings, balance.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use fanfold_client::{
    ClusterChange, ClusterNode, ClusterView, GroupHealth, GroupView, InitCluster, NodeState, ReplicaRole,
    ReplicaView,
};
use fanfold_cluster::catalog::REPLICAS_MAX;
use fanfold_cluster::survivor::survive;
use serde_json::{Value, json};

use super::change::{self, How, group_json, group_text};
use super::error::CliError;
use super::output::{Output, duration, id, table, text};
use super::remote::Remote;

#[derive(Debug, Args)]
pub(super) struct ClusterArgs {
    #[command(subcommand)]
    command: ClusterCommand,
}

#[derive(Debug, Subcommand)]
enum ClusterCommand {
    /// Founds a cluster on a node that waits for one (`fanfold start --join`); the nodes that are to join it find it.
    #[command(
        after_help = "Example:\n  fanfold cluster init --replicas 3 --partitions 16 --address 10.0.0.1:7117"
    )]
    Init {
        /// Replicas of each partition, once there are as many nodes.
        #[arg(long, value_name = "N", default_value_t = 3, value_parser = replicas)]
        replicas: u8,
        /// Number of partitions, a power of two up to 4096; it never changes.
        #[arg(long, value_name = "N", default_value_t = 16)]
        partitions: u16,
        #[command(flatten)]
        remote: Remote,
    },
    /// Shows nodes and partitions as the node that answers sees them.
    #[command(after_help = "Example:\n  fanfold cluster status --output json")]
    Status {
        #[command(flatten)]
        remote: Remote,
    },
    /// Says what is not as it should be; the exit code is 1 if anything is not.
    #[command(after_help = "Example:\n  fanfold cluster health || page-somebody")]
    Health {
        #[command(flatten)]
        remote: Remote,
    },
    /// Shows the settings of the cluster, or changes those that are named.
    #[command(
        after_help = "Examples:\n  fanfold cluster settings\n  fanfold cluster settings --replicas 5 --dry-run\n  fanfold cluster settings --repair-after 30m"
    )]
    Settings {
        /// Replicas that every partition should have: 1, 3, 5 or 7.
        #[arg(long, value_name = "N", value_parser = replicas)]
        replicas: Option<u8>,
        /// How long a node may be silent before its replicas go to others, such as `10m`, or `never`.
        #[arg(long, value_name = "DURATION", value_parser = repair_after)]
        repair_after: Option<Duration>,
        #[command(flatten)]
        how: How,
    },
    /// Lets this machine's stopped node go on when the majority of the catalog is gone for good: the next start makes its
    /// replica of the catalog the only one, removes the nodes that are gone, and lets partitions that lost their majority go on
    /// with one replica that is left.
    #[command(
        after_help = "Example:\n  fanfold cluster recover --gone 2,3 --data-dir ./fanfold-data --dry-run\n  fanfold cluster recover --gone 2,3 --data-dir ./fanfold-data --accept-loss\n\nThe nodes that are gone must never run again: what they answered and this node never got is lost. Do it on one node only."
    )]
    Recover {
        /// The nodes that are gone.
        #[arg(long, value_name = "NODE,…", required = true, value_delimiter = ',')]
        gone: Vec<u64>,
        /// The data directory of the node that goes on.
        #[arg(long, value_name = "DIR")]
        data_dir: PathBuf,
        /// What only the nodes that are gone had is given up.
        #[arg(long)]
        accept_loss: bool,
        /// Only say what would be lost.
        #[arg(long)]
        dry_run: bool,
        /// How the result is shown.
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
    /// Spreads replicas and leaders evenly over the active nodes.
    #[command(after_help = "Example:\n  fanfold cluster balance --dry-run")]
    Balance {
        #[command(flatten)]
        how: How,
    },
}

impl ClusterArgs {
    pub(super) fn is_offline(&self) -> bool {
        matches!(self.command, ClusterCommand::Recover { .. })
    }
}

/// Lets a stopped node go on without the others.
pub(super) fn offline(args: &ClusterArgs) -> Result<(), CliError> {
    let ClusterCommand::Recover { gone, data_dir, accept_loss, dry_run, output } = &args.command else {
        return Ok(());
    };
    if !accept_loss && !dry_run {
        return Err(CliError::AcceptLoss);
    }
    let survival = survive(data_dir, gone, *dry_run)?;
    let kept: Vec<_> = survival
        .kept
        .iter()
        .map(|(partition, nodes)| json!({ "partition": partition.0, "nodes": nodes }))
        .collect();
    let lost: Vec<_> = survival.lost.iter().map(|partition| partition.0).collect();
    let said = || {
        let mut lines = vec![format!(
            "node {} {} with its replica of the catalog; removed: {:?}; changes of the catalog that it never got are lost",
            survival.node,
            if *dry_run { "would go on" } else { "goes on at its next start" },
            survival.gone
        )];
        lines.extend(survival.kept.iter().map(|(partition, nodes)| {
            format!(
                "partition {partition}: goes on with what one of {nodes:?} has, when all nodes that are left run; \
                 writes that only the others had are lost"
            )
        }));
        lines.extend(survival.lost.iter().map(|partition| {
            format!("partition {partition}: LOST, no node that is left has it; only a backup brings it back")
        }));
        lines.join("\n")
    };
    output.show(
        || json!({ "node": survival.node, "gone": survival.gone, "kept": kept, "lost": lost, "dry_run": dry_run }),
        said,
    )
}

/// Of an even number of replicas one would not be made.
fn replicas(text: &str) -> Result<u8, String> {
    let is_possible = |got: &u8| *got <= REPLICAS_MAX && !got.is_multiple_of(2);
    text.parse().ok().filter(is_possible).ok_or_else(|| "choose 1, 3, 5 or 7".to_owned())
}

/// Zero stands for never.
fn repair_after(text: &str) -> Result<Duration, String> {
    if text == "never" {
        return Ok(Duration::ZERO);
    }
    humantime::parse_duration(text).map_err(|error| format!("{error}; say for example `10m`, or `never`"))
}

/// Runs a command about the cluster.
pub(super) async fn run(args: ClusterArgs) -> Result<(), CliError> {
    match args.command {
        ClusterCommand::Init { replicas, partitions, remote } => {
            let init = InitCluster { replicas: replicas.into(), partitions };
            let founded = fanfold_client::init_cluster(&remote.address, init, remote.deadline).await;
            founded.map_err(|error| remote.failed(error))?;
            remote.output.show(
                || json!({ "founded": true, "replicas": replicas, "partitions": partitions }),
                || format!("founded with {partitions} partitions and {replicas} replicas of each once there are nodes"),
            )
        }
        ClusterCommand::Status { remote } => {
            let view = view(&remote).await?;
            remote.output.show(|| view_json(&view), || view_text(&view))
        }
        ClusterCommand::Health { remote } => {
            let view = view(&remote).await?;
            let problems = problems(&view);
            remote.output.show(
                || json!({ "healthy": problems.is_empty(), "problems": problems }),
                || if problems.is_empty() { "healthy".to_owned() } else { problems.join("\n") },
            )?;
            if problems.is_empty() { Ok(()) } else { Err(CliError::Unhealthy { problems: problems.len() }) }
        }
        ClusterCommand::Settings { replicas: None, repair_after: None, how } => {
            let settings = view(&how.remote).await?.settings;
            how.remote.output.show(
                || json!({ "replicas": settings.replicas, "repair_after_ms": settings.repair_after_ms }),
                || {
                    let mut rows = table(["setting", "value"]);
                    rows.add_row(["replicas".to_owned(), settings.replicas.to_string()]);
                    rows.add_row(["repair-after".to_owned(), after(settings.repair_after_ms)]);
                    text(&rows)
                },
            )
        }
        ClusterCommand::Settings { replicas, repair_after, how } => {
            let repair_after_ms =
                repair_after.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
            let replicas = replicas.map(u32::from);
            change::run(how, ClusterChange::Settings { replicas, repair_after_ms }).await
        }
        ClusterCommand::Recover { .. } => Ok(()),
        ClusterCommand::Balance { how } => change::run(how, ClusterChange::Balance).await,
    }
}

/// The cluster as a node sees it.
pub(super) async fn view(remote: &Remote) -> Result<ClusterView, CliError> {
    let mut seen = None;
    let look = async |client: &fanfold_client::Client| {
        seen = Some(client.cluster().await.map_err(|error| remote.failed(error))?);
        Ok(())
    };
    remote.with_client(look).await?;
    seen.ok_or(CliError::Cancelled)
}

fn after(ms: u64) -> String {
    if ms == 0 { "never".to_owned() } else { duration(ms) }
}

/// What is wrong, a line each.
pub(super) fn problems(view: &ClusterView) -> Vec<String> {
    let silent = view.nodes.iter().filter(|node| node.state != NodeState::Removed && !node.is_alive);
    let nodes = silent.map(|node| {
        let since = node.heard_ms.map_or_else(
            || "was not heard of yet".to_owned(),
            |ms| format!("is silent since {}", duration(ms / 1_000 * 1_000)),
        );
        format!(
            "node {} at {} {since}; start it, or see `fanfold node replace --help`",
            node.node, node.address
        )
    });
    let groups = view.groups.iter().filter_map(|group| {
        let name = group_text(group.group);
        match group.health {
            GroupHealth::Whole => None,
            GroupHealth::Changing => Some(format!("{name} is moving replicas")),
            GroupHealth::Degraded => Some(format!("{name} serves with a replica too few")),
            GroupHealth::Electing => Some(format!("{name} has no leader at the moment")),
            GroupHealth::Lost => Some(format!(
                "{name} cannot serve: most of its replicas are on silent nodes; start them, or see \
                 `fanfold partition recover --help`"
            )),
        }
    });
    nodes.chain(groups).collect()
}

/// The name of a node's state.
pub(super) fn state_name(state: NodeState) -> &'static str {
    match state {
        NodeState::Active => "active",
        NodeState::Draining => "draining",
        NodeState::Removed => "removed",
    }
}

/// The name of a group's health.
pub(super) fn health_name(health: GroupHealth) -> &'static str {
    match health {
        GroupHealth::Whole => "whole",
        GroupHealth::Changing => "changing",
        GroupHealth::Degraded => "degraded",
        GroupHealth::Electing => "electing",
        GroupHealth::Lost => "lost",
    }
}

/// The name of what a replica is.
pub(super) fn role_name(role: ReplicaRole) -> &'static str {
    match role {
        ReplicaRole::Voter => "voter",
        ReplicaRole::Learner => "learner",
        ReplicaRole::Coming => "coming",
        ReplicaRole::Going => "going",
    }
}

/// Nodes and partitions, for people.
pub(super) fn view_text(view: &ClusterView) -> String {
    let settings = view.settings;
    let head = format!(
        "cluster {}, epoch {}, as node {} sees it\nreplicas {}, repair after {}",
        view.cluster,
        view.epoch,
        view.by,
        settings.replicas,
        after(settings.repair_after_ms)
    );
    [head, nodes_text(&view.nodes), groups_text(&view.groups)].join("\n\n")
}

/// A table of nodes.
pub(super) fn nodes_text(nodes: &[ClusterNode]) -> String {
    let mut rows = table(["node", "address", "peers", "zone", "state", "heard", "replicas", "leads"]);
    for node in nodes {
        let heard = match (node.is_alive, node.heard_ms) {
            (true, _) => "alive".to_owned(),
            (false, Some(ms)) => format!("silent {}", duration(ms / 1_000 * 1_000)),
            (false, None) => "never".to_owned(),
        };
        let or_none = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
        rows.add_row([
            node.node.to_string(),
            node.address.clone(),
            or_none(&node.peer_address),
            or_none(&node.zone),
            state_name(node.state).to_owned(),
            if node.state == NodeState::Removed { "-".to_owned() } else { heard },
            node.replicas.to_string(),
            node.leads.to_string(),
        ]);
    }
    text(&rows)
}

/// A table of groups.
pub(super) fn groups_text(groups: &[GroupView]) -> String {
    let mut rows = table(["partition", "health", "leader", "term", "replicas"]);
    for group in groups {
        rows.add_row([
            group.group.to_string(),
            health_name(group.health).to_owned(),
            group.leader.map_or_else(|| "-".to_owned(), |leader| leader.to_string()),
            group.term.to_string(),
            group.replicas.iter().map(replica_text).collect::<Vec<_>>().join(" "),
        ]);
    }
    text(&rows)
}

/// A replica in a word: its node, and what is not usual about it.
fn replica_text(replica: &ReplicaView) -> String {
    let role = match replica.role {
        ReplicaRole::Voter => String::new(),
        role => format!(":{}", role_name(role)),
    };
    let lag = replica.lag.filter(|lag| *lag > 0).map_or_else(String::new, |lag| format!("(-{lag})"));
    format!("{}{role}{lag}", replica.node)
}

/// The view for programs.
pub(super) fn view_json(view: &ClusterView) -> Value {
    json!({
        "cluster": view.cluster.to_string(),
        "epoch": view.epoch,
        "by": id(view.by),
        "settings": {
            "replicas": view.settings.replicas,
            "repair_after_ms": view.settings.repair_after_ms,
        },
        "nodes": view.nodes.iter().map(node_json).collect::<Vec<_>>(),
        "partitions": view.groups.iter().map(partition_json).collect::<Vec<_>>(),
    })
}

/// A node for programs.
pub(super) fn node_json(node: &ClusterNode) -> Value {
    json!({
        "node": id(node.node),
        "address": node.address,
        "peer_address": node.peer_address,
        "zone": node.zone,
        "state": state_name(node.state),
        "alive": node.is_alive,
        "heard_ms": node.heard_ms,
        "clock_ahead_ms": node.clock_ahead_ms,
        "replicas": node.replicas,
        "leads": node.leads,
    })
}

/// A group for programs.
pub(super) fn partition_json(group: &GroupView) -> Value {
    let replica = |replica: &ReplicaView| {
        json!({
            "replica": id(replica.replica),
            "node": id(replica.node),
            "role": role_name(replica.role),
            "lag": replica.lag,
        })
    };
    json!({
        "partition": group_json(group.group),
        "health": health_name(group.health),
        "leader": group.leader.map(id),
        "preferred": group.preferred.map(id),
        "term": group.term,
        "replicas": group.replicas.iter().map(replica).collect::<Vec<_>>(),
    })
}
