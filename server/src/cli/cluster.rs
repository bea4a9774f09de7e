//! Owns the commands about the whole cluster: init, status, health, settings, balance.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use fanfold_client::{
    ByNode, ClusterChange, ClusterNode, ClusterView, GroupHealth, GroupView, InitCluster, NodeState,
    NodeStatus, ReplicaRole, ReplicaView,
};
use fanfold_cluster::catalog::REPLICAS_MAX;
use fanfold_cluster::survivor::{survive, withdraw};
use fanfold_protocol::message::{REPAIR_AFTER_MS_MAX, REPAIR_AFTER_MS_MIN};
use serde_json::{Value, json};

use super::change::{self, How, after, group_json};
use super::error::CliError;
use super::health::{held_clocks, problems};
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
        after_help = "Example:\n  fanfold cluster init --replicas 3 --partitions 16 --address 10.0.0.1:7117\n\nSay it to one node, once. That one asks all nodes of its `--join` list first, and refuses if one is silent, in a cluster, or\nwas told to found one too."
    )]
    Init {
        /// Replicas of each partition, once there are as many nodes.
        #[arg(long, value_name = "N", default_value_t = 3, value_parser = replicas)]
        replicas: u8,
        /// Number of partitions, a power of two up to 4096; it never changes.
        #[arg(long, value_name = "N", default_value_t = 16, value_parser = partitions)]
        partitions: u16,
        /// Also if nodes of the `--join` list are silent; they must not be in a cluster, or ever found another one.
        #[arg(long)]
        force: bool,
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
        after_help = "Examples:\n  fanfold cluster settings\n  fanfold cluster settings --replicas 5 --dry-run\n  fanfold cluster settings --replicas 1 --accept-less-redundancy\n  fanfold cluster settings --repair-after 30m"
    )]
    Settings {
        /// Replicas that every partition should have: 1, 3, 5 or 7.
        #[arg(long, value_name = "N", value_parser = replicas)]
        replicas: Option<u8>,
        /// How long a node may be silent before its replicas go to others, such as `10m`, or `never`.
        #[arg(long, value_name = "DURATION", value_parser = repair_after)]
        repair_after: Option<Duration>,
        /// Fewer replicas than now are meant: partitions bear the loss of fewer nodes from then on.
        #[arg(long, requires = "replicas")]
        accept_less_redundancy: bool,
        #[command(flatten)]
        how: How,
    },
    /// Lets this machine's stopped node go on when the majority of the catalog is gone for good: the next start makes its
    /// replica of the catalog the only one, removes the nodes that are gone, and lets partitions that lost their majority go on
    /// with one replica that is left.
    #[command(
        after_help = "Example:\n  fanfold cluster recover --gone 2,3 --data-dir ./fanfold-data --dry-run\n  fanfold cluster recover --gone 2,3 --data-dir ./fanfold-data --accept-loss\n  fanfold cluster recover --catalog-damaged 2,3 --data-dir ./fanfold-data --dry-run\n\nThe nodes that are gone must never run again: what they answered and this node never got is lost. Do it on one node only: the next start asks the\nothers, and refuses if one of them has such an order too, or has done it; `--withdraw` takes an order back."
    )]
    Recover {
        /// The nodes that are gone.
        #[arg(
            long,
            value_name = "NODE,…",
            required_unless_present_any = ["withdraw", "catalog_damaged"],
            conflicts_with = "withdraw",
            value_delimiter = ','
        )]
        gone: Vec<u64>,
        /// Nodes that stay, and whose replicas of the catalog are damaged, as `fanfold cluster health` says; they get new ones.
        #[arg(long, value_name = "NODE,…", conflicts_with = "withdraw", value_delimiter = ',')]
        catalog_damaged: Vec<u64>,
        /// The data directory of the node that goes on.
        #[arg(long, value_name = "DIR")]
        data_dir: PathBuf,
        /// What only the nodes that are gone had is given up.
        #[arg(long)]
        accept_loss: bool,
        /// Only say what would be lost.
        #[arg(long)]
        dry_run: bool,
        /// Take the order back that was given to this node, before it was started with it.
        #[arg(long, conflicts_with_all = ["accept_loss", "dry_run"])]
        withdraw: bool,
        /// How the result is shown.
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
    /// Lets the cluster use what a newer version of the program can do, once all nodes run it: raises the feature level.
    #[command(
        after_help = "Example:\n  fanfold cluster upgrade --dry-run\n\nRaises nothing while a node that was not removed runs an older version, or is silent. The level never falls: older versions of the program are\nrefused from then on."
    )]
    Upgrade {
        /// The feature level to go to; the highest that any node's program has if nothing is said.
        #[arg(long, value_name = "LEVEL", value_parser = clap::value_parser!(u32).range(1..))]
        to: Option<u32>,
        #[command(flatten)]
        how: How,
    },
    /// Spreads replicas over zones, then replicas and leaders evenly over the active nodes.
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
    let ClusterCommand::Recover {
        gone,
        catalog_damaged,
        data_dir,
        accept_loss,
        dry_run,
        withdraw: takes_back,
        output,
    } = &args.command
    else {
        return Ok(());
    };
    if *takes_back {
        withdraw(data_dir)?;
        return output.show(
            || json!({ "withdrawn": true }),
            || "the order is withdrawn; the node starts as one of the others".to_owned(),
        );
    }
    if !accept_loss && !dry_run {
        return Err(CliError::AcceptLoss);
    }
    let survival = survive(data_dir, gone, catalog_damaged, *dry_run)?;
    let kept: Vec<_> = survival
        .kept
        .iter()
        .map(|(partition, nodes)| json!({ "partition": partition.0, "nodes": ids(nodes) }))
        .collect();
    let lost: Vec<_> = survival.lost.iter().map(|partition| partition.0).collect();
    let said = || {
        let mut lines = vec![format!(
            "node {} {} with its replica of the catalog; removed: {}; changes of the catalog that it never got are lost",
            survival.node,
            if *dry_run { "would go on" } else { "goes on at its next start" },
            removed(&survival.gone)
        )];
        lines.extend(survival.catalog_of_epoch.map(|epoch| {
            format!(
                "nobody who is left has a replica of the catalog: it is made anew of what this node wrote down of it at epoch \
                 {epoch}, or of what others that run then know; nodes, spaces and moves of later epochs are lost"
            )
        }));
        lines.extend(survival.kept.iter().map(|(partition, nodes)| {
            format!(
                "partition {partition}: goes on with what one of {nodes:?} has, when all nodes that are left run; \
                 writes that only the others had are lost"
            )
        }));
        lines.extend(survival.lost.iter().map(|partition| {
            format!(
                "partition {partition}: LOST, no node that is left has it; only a backup brings it back, or let it begin \
                     empty then: `fanfold partition recover {partition} --empty --to {} --accept-loss`",
                survival.node
            )
        }));
        lines.push("do it on one node only; start it, then all others that are left".to_owned());
        lines.join("\n")
    };
    output.show(
        || {
            json!({
                "node": id(survival.node),
                "gone": ids(&survival.gone),
                "kept": kept,
                "lost": lost,
                "catalog_of_epoch": survival.catalog_of_epoch,
                "dry_run": dry_run,
            })
        },
        said,
    )
}

/// Nodes for programs.
fn ids(nodes: &[u64]) -> Vec<Value> {
    nodes.iter().map(id).collect()
}

/// The nodes that are removed, for people.
fn removed(gone: &[u64]) -> String {
    let names: Vec<_> = gone.iter().map(u64::to_string).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// Of an even number of replicas one would not be made.
fn replicas(text: &str) -> Result<u8, String> {
    let is_possible = |got: &u8| *got <= REPLICAS_MAX && !got.is_multiple_of(2);
    text.parse().ok().filter(is_possible).ok_or_else(|| "choose 1, 3, 5 or 7".to_owned())
}

fn partitions(text: &str) -> Result<u16, String> {
    let is_possible = |got: &u16| *got <= 4_096 && got.is_power_of_two();
    text.parse().ok().filter(is_possible).ok_or_else(|| "choose a power of two from 1 to 4096".to_owned())
}

/// Zero stands for never, and is what nobody means who says a time.
fn repair_after(text: &str) -> Result<Duration, String> {
    if text == "never" {
        return Ok(Duration::ZERO);
    }
    let parsed = humantime::parse_duration(text);
    let time = parsed.map_err(|error| format!("{error}; say for example `10m`, or `never`"))?;
    let possible = Duration::from_millis(REPAIR_AFTER_MS_MIN)..=Duration::from_millis(REPAIR_AFTER_MS_MAX);
    if possible.contains(&time) {
        return Ok(time);
    }
    let [min, max] = [possible.start(), possible.end()].map(|time| humantime::format_duration(*time));
    Err(format!("choose {min} to {max}, or `never` if replicas are to stay where they are"))
}

/// Runs a command about the cluster.
pub(super) async fn run(args: ClusterArgs) -> Result<(), CliError> {
    match args.command {
        ClusterCommand::Init { replicas, partitions, force, remote } => {
            let init = InitCluster { replicas: replicas.into(), partitions, force, asker: None };
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
            let (view, statuses) = seen(&remote).await?;
            let problems: Vec<_> = problems(&view).into_iter().chain(held_clocks(&statuses)).collect();
            remote.output.show(
                || json!({ "healthy": problems.is_empty(), "problems": problems }),
                || if problems.is_empty() { "healthy".to_owned() } else { problems.join("\n") },
            )?;
            if problems.is_empty() { Ok(()) } else { Err(CliError::Unhealthy { problems: problems.len() }) }
        }
        ClusterCommand::Settings { replicas: None, repair_after: None, how, .. } => {
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
        ClusterCommand::Settings { replicas, repair_after, accept_less_redundancy, how } => {
            if let Some(to) = replicas.map(u32::from).filter(|_| !accept_less_redundancy && !how.dry_run) {
                let from = view(&how.remote).await?.settings.replicas;
                if to < from {
                    return Err(CliError::LessRedundancy { from, to });
                }
            }
            let repair_after_ms =
                repair_after.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
            let replicas = replicas.map(u32::from);
            change::run(how, ClusterChange::Settings { replicas, repair_after_ms }).await
        }
        ClusterCommand::Recover { .. } => Ok(()),
        ClusterCommand::Upgrade { to, how } => change::run(how, ClusterChange::Upgrade { to }).await,
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

/// How long a node has to say how it is; which ones are silent the others know.
const STATUS_WAIT: Duration = Duration::from_secs(2);

/// The cluster as a node sees it, and what the nodes say of themselves.
async fn seen(remote: &Remote) -> Result<(ClusterView, ByNode<NodeStatus>), CliError> {
    let mut seen = None;
    let look = async |client: &fanfold_client::Client| {
        let view = client.cluster().await.map_err(|error| remote.failed(error))?;
        // Who says nothing of itself is silent in the view, which must be shown whatever fails besides.
        let statuses = client.statuses().deadline(remote.deadline.min(STATUS_WAIT)).await;
        seen = Some((view, statuses.unwrap_or_default()));
        Ok(())
    };
    remote.with_client(look).await?;
    seen.ok_or(CliError::Cancelled)
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
        "cluster {}, epoch {}, feature level {}, as node {} sees it\nreplicas {}, repair after {}",
        view.cluster,
        view.epoch,
        view.feature_level,
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
        "feature_level": view.feature_level,
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
        "clock_off": node.is_clock_off,
        "disk_slow": node.is_disk_slow,
        "disk_full": node.is_disk_full,
        "over_memory_budget": node.is_over_memory,
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
            "closed": replica.is_closed,
        })
    };
    json!({
        "partition": group_json(group.group),
        "health": health_name(group.health),
        "leader": group.leader.map(id),
        "preferred": group.preferred.map(id),
        "term": group.term,
        "diverged": group.is_diverged,
        "replicas": group.replicas.iter().map(replica).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_says_what_can_be_said_instead() {
        assert_eq!(repair_after("never"), Ok(Duration::ZERO));
        assert_eq!(repair_after("30m"), Ok(Duration::from_secs(1_800)));
        for text in ["0s", "1ms", "31d"] {
            let said = repair_after(text).unwrap_err();
            assert!(said.contains("choose 1s to 30days") && said.contains("never"), "{said}");
        }
        assert_eq!([partitions("8"), partitions("4096")], [Ok(8), Ok(4_096)]);
        for text in ["7", "0", "8192", "many"] {
            assert!(partitions(text).unwrap_err().contains("power of two"), "{text}");
        }
    }
}
