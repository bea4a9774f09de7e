//! Owns what the commands that change the cluster have in common: the change or its dry run, what is shown of it, and the wait
//! until its replicas are where they should be.

use std::io::{self, IsTerminal};
use std::time::Duration;

use clap::Args;
use fanfold_client::{
    ChangeStep, Client, ClusterChange, ClusterChanged, ClusterView, GroupHealth, GroupName, NodeId,
    NodeState, ReplicaRole,
};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::error::CliError;
use super::output::id;
use super::remote::Remote;

/// How often the cluster is looked at while its replicas move.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// How often a line is written where there is no bar.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// How a change is made.
#[derive(Debug, Clone, Args)]
pub(super) struct How {
    /// Only say what would change.
    #[arg(long)]
    pub dry_run: bool,
    /// Wait until the replicas are where they should be, at most so long, such as `10m`; 1 h if nothing is said.
    #[arg(
        long,
        value_name = "DURATION",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "1h",
        value_parser = humantime::parse_duration,
        conflicts_with = "dry_run"
    )]
    pub wait: Option<Duration>,
    #[command(flatten)]
    pub remote: Remote,
}

/// Makes a change, shows what it does, and waits for it if that is wanted.
pub(super) async fn run(how: How, change: ClusterChange) -> Result<(), CliError> {
    let remote = how.remote.clone();
    remote
        .with_client(async |client| {
            let asked = client.change_cluster(change.clone(), how.dry_run).await;
            let changed = asked.map_err(|error| remote.failed(error))?;
            remote
                .output
                .show(|| changed_json(&changed, how.dry_run), || changed_text(&changed, how.dry_run))?;
            if let ClusterChange::Settings { replicas: Some(wanted), .. } = change {
                tell_of_replicas(&remote, client, wanted).await?;
            }
            match how.wait {
                Some(most) => wait(&remote, client, most, |view| left(view, &change)).await,
                None => Ok(()),
            }
        })
        .await
}

/// Says on stderr if there are not enough nodes for the replicas that are wanted.
async fn tell_of_replicas(remote: &Remote, client: &Client, wanted: u32) -> Result<(), CliError> {
    let view = client.cluster().await.map_err(|error| remote.failed(error))?;
    let active = view.nodes.iter().filter(|node| node.state == NodeState::Active).count();
    if active < wanted as usize {
        eprintln!(
            "fanfold: only {active} nodes are active: groups have as many replicas as there are nodes for, an odd number, \
             until there are {wanted} (`fanfold start --join`)"
        );
    }
    Ok(())
}

/// How many replicas are not yet as a change wants them.
fn left(view: &ClusterView, change: &ClusterChange) -> usize {
    let held = |node: &NodeId| {
        let replicas = view.groups.iter().flat_map(|group| &group.replicas);
        replicas.filter(|replica| replica.node == *node).count()
    };
    let group = |name: &GroupName| view.groups.iter().find(|group| group.group == *name);
    match change {
        ClusterChange::Drain { node } | ClusterChange::Remove { node } => held(node),
        ClusterChange::Replace { node, .. } => held(node) + unsettled(view),
        ClusterChange::TransferLeader { group: name, to } => {
            usize::from(group(name).is_none_or(|group| group.leader != Some(*to)))
        }
        ClusterChange::Move { group: name, from, to } => {
            let Some(group) = group(name) else { return 1 };
            let has = |node: &NodeId| group.replicas.iter().any(|replica| replica.node == *node);
            let votes = |node: &NodeId| {
                let is_voter = |role| role == ReplicaRole::Voter;
                group.replicas.iter().any(|replica| replica.node == *node && is_voter(replica.role))
            };
            usize::from(has(from)) + usize::from(!votes(to))
        }
        _ => unsettled(view),
    }
}

/// Groups whose replicas are on their way.
fn unsettled(view: &ClusterView) -> usize {
    let settled = |health: GroupHealth| matches!(health, GroupHealth::Whole | GroupHealth::Degraded);
    view.groups.iter().filter(|group| !settled(group.health)).count()
}

/// Looks at the cluster until nothing is left to do, with a bar on a terminal and a line now and then elsewhere.
pub(super) async fn wait(
    remote: &Remote,
    client: &Client,
    most: Duration,
    left: impl Fn(&ClusterView) -> usize,
) -> Result<(), CliError> {
    let style = ProgressStyle::with_template("replicas moved {wide_bar} {pos}/{len} {elapsed}");
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
    let bar = bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let (end, mut looks, mut total) = (Instant::now() + most, interval(LOOK_EVERY), 0);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut next_line = Instant::now();
    loop {
        looks.tick().await;
        let remaining = match client.cluster().await {
            Ok(view) => left(&view),
            // A node that just goes away is asked again: another one answers then.
            Err(error) if error.is_retryable() && Instant::now() < end => continue,
            Err(error) => return Err(remote.failed(error)),
        };
        total = total.max(remaining);
        bar.set_length(total as u64);
        bar.set_position((total - remaining) as u64);
        if remaining == 0 {
            bar.finish_and_clear();
            return Ok(());
        }
        let now = Instant::now();
        if now >= end {
            bar.finish_and_clear();
            return Err(CliError::NotYet { left: remaining, waited: most });
        }
        if !io::stderr().is_terminal() && now >= next_line {
            eprintln!("{remaining} of {total} left");
            next_line = now + LINE_EVERY;
        }
    }
}

fn step_text(step: &ChangeStep) -> String {
    match step {
        ChangeStep::AddReplica { group, to } => format!("{} gets a replica on node {to}", group_text(*group)),
        ChangeStep::RemoveReplica { group, from } => {
            format!("{} leaves node {from}", group_text(*group))
        }
        ChangeStep::MoveLeader { group, to } => format!("{} is led by node {to}", group_text(*group)),
        ChangeStep::SetNode { node, state } => {
            format!("node {node} is {}", super::cluster::state_name(*state))
        }
    }
}

/// A group for people.
pub(super) fn group_text(group: GroupName) -> String {
    match group {
        GroupName::Catalog => "the catalog".to_owned(),
        GroupName::Partition(partition) => format!("partition {partition}"),
    }
}

/// A group for programs: a number, or `catalog`.
pub(super) fn group_json(group: GroupName) -> Value {
    match group {
        GroupName::Catalog => "catalog".into(),
        GroupName::Partition(partition) => partition.0.into(),
    }
}

fn changed_text(changed: &ClusterChanged, dry_run: bool) -> String {
    let mut lines: Vec<_> = changed.steps.iter().map(step_text).collect();
    lines.extend(
        changed.losses.iter().map(|loss| format!("LOST of {}: {}", group_text(loss.group), loss.what)),
    );
    if lines.is_empty() {
        lines.push(if dry_run { "no replica would move" } else { "done; no replica has to move" }.to_owned());
    } else if dry_run {
        lines.insert(0, "this would change (--dry-run):".to_owned());
    }
    lines.join("\n")
}

fn changed_json(changed: &ClusterChanged, dry_run: bool) -> Value {
    let step = |step: &ChangeStep| match step {
        ChangeStep::AddReplica { group, to } => {
            json!({ "what": "add_replica", "partition": group_json(*group), "node": id(to) })
        }
        ChangeStep::RemoveReplica { group, from } => {
            json!({ "what": "remove_replica", "partition": group_json(*group), "node": id(from) })
        }
        ChangeStep::MoveLeader { group, to } => {
            json!({ "what": "move_leader", "partition": group_json(*group), "node": id(to) })
        }
        ChangeStep::SetNode { node, state } => {
            json!({ "what": "set_node", "node": id(node), "state": super::cluster::state_name(*state) })
        }
    };
    let losses =
        changed.losses.iter().map(|loss| json!({ "partition": group_json(loss.group), "what": loss.what }));
    json!({
        "dry_run": dry_run,
        "epoch": changed.epoch,
        "steps": changed.steps.iter().map(step).collect::<Vec<_>>(),
        "losses": losses.collect::<Vec<_>>(),
    })
}
