//! Owns what the commands that change the cluster have in common: the change or its dry run, what is shown of it, and the wait
//! until its replicas are where they should be.

use std::io::{self, IsTerminal};
use std::time::Duration;

use clap::Args;
use fanfold_client::{
    ChangeStep, Client, ClusterChange, ClusterChanged, ClusterNode, ClusterSettings, ClusterView,
    GroupHealth, GroupName, GroupView, NodeId, NodeState, ReplicaRole, ReplicaView,
};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::error::CliError;
use super::output::{duration, id};
use super::remote::Remote;

/// How often the cluster is looked at while its replicas move.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Of how many groups it is said what they wait for.
const WAITS_SHOWN: usize = 3;

/// How often a line is written where there is no bar.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// How a change is made.
#[derive(Debug, Clone, Args)]
pub(super) struct How {
    /// Only say what would change.
    #[arg(long)]
    pub dry_run: bool,
    /// Wait until all nodes are as the change wants them, at most so long, such as `10m`; 1 h if nothing is said.
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

/// What is left of a change.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Left {
    /// How many replicas or groups are not yet as the change wants them.
    count: usize,
    /// What the first of them wait for.
    waits: Vec<String>,
}

/// Makes a change, shows what it does, and waits for it if that is wanted.
pub(super) async fn run(how: How, change: ClusterChange) -> Result<(), CliError> {
    let remote = how.remote.clone();
    remote
        .with_client(async |client| {
            let before = match change {
                ClusterChange::Settings { .. } => {
                    let view = client.cluster().await.map_err(|error| remote.failed(error))?;
                    Some(view.settings)
                }
                _ => None,
            };
            let settings = before.map_or_else(Vec::new, |before| settings_text(before, &change));
            let asked = client.change_cluster(change.clone(), how.dry_run).await;
            let changed = asked.map_err(|error| remote.failed(error))?;
            remote.output.show(
                || changed_json(&changed, before.map(|before| (before, &change)), how.dry_run),
                || changed_text(&changed, settings, how.dry_run),
            )?;
            if let ClusterChange::Settings { replicas: Some(wanted), .. } = change {
                tell_of_replicas(&remote, client, wanted).await?;
            }
            match how.wait {
                Some(most) => wait(&remote, client, most, |view| left(view, &change, &changed)).await,
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

/// What is not yet as a change wants it, of which the catalog said what it does.
fn left(view: &ClusterView, change: &ClusterChange, changed: &ClusterChanged) -> Result<Left, CliError> {
    if view.epoch < changed.epoch {
        let waits = vec![format!("node {} has not heard of the change yet", view.by)];
        return Ok(Left { count: 1, waits });
    }
    let group = |name: &GroupName| {
        let found = view.groups.iter().find(|group| group.group == *name);
        found.ok_or_else(|| no_such_group(view, *name))
    };
    let held = |node: &NodeId| waiting(view, |group| group.replicas.iter().any(|r| r.node == *node));
    Ok(match change {
        ClusterChange::Drain { node } => {
            let is_active = |known: &ClusterNode| known.node == *node && known.state == NodeState::Active;
            if view.nodes.iter().any(is_active) {
                return Err(CliError::Undrained { node: node.0 });
            }
            held(node)
        }
        ClusterChange::Remove { node } => held(node),
        ClusterChange::Replace { node, .. } => {
            let has = |group: &GroupView| group.replicas.iter().any(|replica| replica.node == *node);
            waiting(view, |group| has(group) || !is_settled(group))
        }
        ClusterChange::TransferLeader { group: name, to } => {
            let leads = group(name)?.leader == Some(*to);
            waiting(view, |group| group.group == *name && !leads)
        }
        ClusterChange::Move { group: name, from, to } => {
            let group = group(name)?;
            let has = group.replicas.iter().any(|replica| replica.node == *from);
            let is_voter = |role| role == ReplicaRole::Voter;
            let votes = group.replicas.iter().any(|replica| replica.node == *to && is_voter(replica.role));
            let count = usize::from(has) + usize::from(!votes);
            Left { count, ..waiting(view, |other| other.group == *name && count > 0) }
        }
        // The catalog has it, and nothing moves.
        ClusterChange::Upgrade { .. } => Left::default(),
        ClusterChange::Recover { group: name, .. } => {
            group(name)?;
            waiting(view, |group| !is_settled(group))
        }
        _ => waiting(view, |group| {
            !is_settled(group) || changed.steps.iter().any(|step| !is_done(step, group))
        }),
    })
}

/// Whether a group is as a step wants it; one of another group, or of none, is nothing to it.
fn is_done(step: &ChangeStep, group: &GroupView) -> bool {
    let has = |node: &NodeId, is: fn(ReplicaRole) -> bool| {
        group.replicas.iter().any(|replica| replica.node == *node && is(replica.role))
    };
    match step {
        ChangeStep::AddReplica { group: name, to } if *name == group.group => {
            has(to, |role| role == ReplicaRole::Voter)
        }
        ChangeStep::RemoveReplica { group: name, from } if *name == group.group => !has(from, |_| true),
        ChangeStep::MoveLeader { group: name, to } if *name == group.group => group.leader == Some(*to),
        _ => true,
    }
}

/// The groups of which this is so, and what they wait for.
fn waiting(view: &ClusterView, is_so: impl Fn(&GroupView) -> bool) -> Left {
    let groups: Vec<_> = view.groups.iter().filter(|group| is_so(group)).collect();
    let waits = groups.iter().take(WAITS_SHOWN).map(|group| waits_for(view, group)).collect();
    Left { count: groups.len(), waits }
}

/// What a group waits for whose replicas are on their way.
fn waits_for(view: &ClusterView, group: &GroupView) -> String {
    let name = group_text(group.group);
    if group.health == GroupHealth::Lost {
        return format!("{name} has no majority, see `fanfold cluster health`");
    }
    let comes = |replica: &&ReplicaView| matches!(replica.role, ReplicaRole::Coming | ReplicaRole::Learner);
    let Some(coming) = group.replicas.iter().find(comes) else { return format!("{name} waits for its turn") };
    let is_silent = view.nodes.iter().any(|node| node.node == coming.node && !node.is_alive);
    let (node, lag) = (coming.node, coming.lag.filter(|lag| *lag > 0));
    match lag {
        _ if is_silent => format!("{name} waits for node {node}, which is silent"),
        Some(lag) => format!("{name} waits for node {node}, which lacks {lag} Raft entries"),
        None => format!("{name} waits for node {node}"),
    }
}

/// The nodes that were not removed.
pub(super) fn members(view: &ClusterView) -> Vec<NodeId> {
    let nodes = view.nodes.iter().filter(|node| node.state != NodeState::Removed);
    nodes.map(|node| node.node).collect()
}

/// A node that was named, if it is one of these.
pub(super) fn one_of(members: &[NodeId], node: NodeId) -> Result<NodeId, CliError> {
    if members.contains(&node) {
        return Ok(node);
    }
    let known = members.iter().map(ToString::to_string).collect();
    Err(CliError::NoSuch { what: "node", asked: node.to_string(), known })
}

/// The refusal of a group that does not exist.
pub(super) fn no_such_group(view: &ClusterView, name: GroupName) -> CliError {
    let known = view.groups.iter().map(|group| group.group.to_string()).collect();
    CliError::NoSuch { what: "partition", asked: name.to_string(), known }
}

/// Whether a group has the replicas that it should have, as far as their nodes are alive.
fn is_settled(group: &GroupView) -> bool {
    matches!(group.health, GroupHealth::Whole | GroupHealth::Degraded)
}

/// Looks at the cluster until nothing is left to do, with a bar on a terminal and a line now and then elsewhere, and says when
/// it is done.
async fn wait(
    remote: &Remote,
    client: &Client,
    most: Duration,
    left: impl Fn(&ClusterView) -> Result<Left, CliError>,
) -> Result<(), CliError> {
    let style = ProgressStyle::with_template("replicas moved {wide_bar} {pos}/{len} {elapsed} {msg}");
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
    let bar = bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let (begun, mut looks, mut total) = (Instant::now(), interval(LOOK_EVERY), 0);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (end, mut next_line, mut last) = (begun + most, begun, None);
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    loop {
        tokio::select! {
            _ = looks.tick() => {}
            _ = &mut interrupted => {
                bar.finish_and_clear();
                return Err(CliError::NoLongerAwaited { left: last });
            }
        }
        let Left { count, waits } = match client.cluster().await {
            Ok(view) => left(&view).inspect_err(|_| bar.finish_and_clear())?,
            // A node that just goes away is asked again: another one answers then.
            Err(error) if error.is_retryable() && Instant::now() < end => continue,
            Err(error) => return Err(remote.failed(error)),
        };
        total = total.max(count);
        last = Some(count);
        bar.set_length(total as u64);
        bar.set_position((total - count) as u64);
        bar.set_message(waits.first().cloned().unwrap_or_default());
        if count == 0 {
            bar.finish_and_clear();
            let took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
            eprintln!("done: 0 of {total} left after {}", duration(took_ms / 100 * 100));
            return Ok(());
        }
        let now = Instant::now();
        if now >= end {
            bar.finish_and_clear();
            return Err(CliError::NotYet { left: count, waits, waited: most });
        }
        if !io::stderr().is_terminal() && now >= next_line {
            let waits = if waits.is_empty() { String::new() } else { format!(": {}", waits.join(", ")) };
            eprintln!("{count} of {total} left{waits}");
            next_line = now + LINE_EVERY;
        }
    }
}

/// Each setting that a change names, as it is then and as it was.
fn settings_text(before: ClusterSettings, change: &ClusterChange) -> Vec<String> {
    let ClusterChange::Settings { replicas, repair_after_ms } = change else { return Vec::new() };
    let line = |name: &str, then: String, was: String, so: &str| {
        if then == was {
            format!("{name}: {then}, as it was")
        } else {
            format!("{name}: {then} (was {was}){so}")
        }
    };
    let bears = |replicas: u32| {
        format!(", so that a partition bears the loss of {} of its nodes", (replicas - 1) / 2)
    };
    let replicas = replicas.map(|then| {
        let so = if then < before.replicas { bears(then) } else { String::new() };
        line("replicas", then.to_string(), before.replicas.to_string(), &so)
    });
    let repair_after =
        repair_after_ms.map(|then| line("repair-after", after(then), after(before.repair_after_ms), ""));
    replicas.into_iter().chain(repair_after).collect()
}

/// The silence after which a node's replicas go to others.
pub(super) fn after(ms: u64) -> String {
    if ms == 0 { "never".to_owned() } else { duration(ms) }
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
        ChangeStep::RaiseLevel { from, to } if from == to => {
            format!("feature level: {to}, as it was; no program of those that answer has more")
        }
        ChangeStep::RaiseLevel { from, to } => {
            format!("feature level: {to} (was {from}), and programs that have less are refused from then on")
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

fn changed_text(changed: &ClusterChanged, settings: Vec<String>, dry_run: bool) -> String {
    let has_settings = !settings.is_empty();
    let mut lines = settings;
    lines.extend(changed.steps.iter().map(step_text));
    lines.extend(
        changed.losses.iter().map(|loss| format!("LOST of {}: {}", group_text(loss.group), loss.what)),
    );
    let is_still = |step: &ChangeStep| matches!(step, ChangeStep::RaiseLevel { from, to } if from == to);
    if dry_run && !lines.is_empty() && !changed.steps.iter().any(is_still) {
        lines.insert(0, "this would change (--dry-run):".to_owned());
    }
    if changed.steps.is_empty() && changed.losses.is_empty() {
        lines.push(
            match (dry_run, has_settings) {
                (true, _) => "no replica would move",
                (false, true) => "no replica has to move",
                (false, false) => "done; no replica has to move",
            }
            .to_owned(),
        );
    }
    lines.join("\n")
}

fn changed_json(
    changed: &ClusterChanged,
    settings: Option<(ClusterSettings, &ClusterChange)>,
    dry_run: bool,
) -> Value {
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
        ChangeStep::RaiseLevel { from, to } => json!({ "what": "raise_level", "from": from, "to": to }),
    };
    let losses =
        changed.losses.iter().map(|loss| json!({ "partition": group_json(loss.group), "what": loss.what }));
    let mut said = json!({
        "dry_run": dry_run,
        "epoch": changed.epoch,
        "steps": changed.steps.iter().map(step).collect::<Vec<_>>(),
        "losses": losses.collect::<Vec<_>>(),
    });
    if let Some((before, ClusterChange::Settings { replicas, repair_after_ms })) = settings {
        said["settings"] = json!({
            "replicas": replicas.unwrap_or(before.replicas),
            "repair_after_ms": repair_after_ms.unwrap_or(before.repair_after_ms),
        });
    }
    said
}

#[cfg(test)]
mod tests {
    use fanfold_client::{ClusterId, PartitionId};

    use super::*;

    fn node(node: u64, state: NodeState, is_alive: bool) -> ClusterNode {
        ClusterNode {
            node: NodeId(node),
            address: String::new(),
            peer_address: String::new(),
            zone: String::new(),
            state,
            heard_ms: None,
            is_alive,
            clock_ahead_ms: None,
            is_clock_off: false,
            is_disk_slow: false,
            is_disk_full: false,
            is_over_memory: false,
            replicas: 0,
            leads: 0,
        }
    }

    /// One partition, with replicas on these nodes.
    fn view(nodes: Vec<ClusterNode>, replicas: &[(u64, ReplicaRole)]) -> ClusterView {
        let replica = |(node, role): &(u64, ReplicaRole)| ReplicaView {
            replica: *node,
            node: NodeId(*node),
            role: *role,
            lag: None,
            is_closed: false,
        };
        let partition = GroupView {
            group: GroupName::Partition(PartitionId(0)),
            leader: Some(NodeId(1)),
            term: 1,
            preferred: None,
            health: GroupHealth::Changing,
            is_diverged: false,
            replicas: replicas.iter().map(replica).collect(),
        };
        ClusterView {
            cluster: ClusterId(1),
            by: NodeId(1),
            epoch: 5,
            feature_level: 2,
            settings: ClusterSettings { replicas: 3, repair_after_ms: 600_000 },
            nodes,
            groups: vec![partition],
        }
    }

    /// What the catalog said of a change at an epoch.
    fn at(epoch: u64) -> ClusterChanged {
        ClusterChanged { epoch, steps: Vec::new(), losses: Vec::new() }
    }

    #[test]
    fn a_wait_sees_to_every_step_before_anybody_has_begun() {
        let mut view =
            view(Vec::new(), &[(1, ReplicaRole::Voter), (2, ReplicaRole::Voter), (3, ReplicaRole::Voter)]);
        view.groups[0].health = GroupHealth::Whole;
        let group = view.groups[0].group;
        let count = |view: &ClusterView, step: ChangeStep| {
            let changed = ClusterChanged { steps: vec![step], ..at(5) };
            left(view, &ClusterChange::Balance, &changed).unwrap().count
        };
        let remove = ChangeStep::RemoveReplica { group, from: NodeId(3) };
        let add = ChangeStep::AddReplica { group, to: NodeId(4) };
        let lead = ChangeStep::MoveLeader { group, to: NodeId(2) };
        let other = ChangeStep::RemoveReplica { group: GroupName::Catalog, from: NodeId(3) };
        let all = [remove, add, lead, other];
        assert_eq!(all.map(|step| count(&view, step)), [1, 1, 1, 0]);
        view.groups[0].replicas[2].node = NodeId(4);
        view.groups[0].leader = Some(NodeId(2));
        assert_eq!(all.map(|step| count(&view, step)), [0; 4]);
    }

    #[test]
    fn a_wait_for_a_partition_that_does_not_exist_ends() {
        let (view, group) = (view(Vec::new(), &[]), GroupName::Partition(PartitionId(99)));
        for change in [
            ClusterChange::Move { group, from: NodeId(1), to: NodeId(4) },
            ClusterChange::TransferLeader { group, to: NodeId(4) },
            ClusterChange::Recover { group, from: NodeId(4) },
        ] {
            let ended = left(&view, &change, &at(5));
            assert!(matches!(ended, Err(CliError::NoSuch { what: "partition", .. })), "{ended:?}");
        }
    }

    #[test]
    fn a_wait_for_a_drain_ends_with_the_drain_and_says_who_holds_it_up() {
        let replicas = [(2, ReplicaRole::Going), (3, ReplicaRole::Voter), (5, ReplicaRole::Coming)];
        let of = |state, is_alive| {
            let nodes = vec![node(2, state, true), node(5, NodeState::Active, is_alive)];
            left(&view(nodes, &replicas), &ClusterChange::Drain { node: NodeId(2) }, &at(5))
        };
        let waits = |text: &str| Left { count: 1, waits: vec![text.to_owned()] };
        let silent = of(NodeState::Draining, false).unwrap();
        assert_eq!(silent, waits("partition 0 waits for node 5, which is silent"));
        assert_eq!(of(NodeState::Draining, true).unwrap(), waits("partition 0 waits for node 5"));
        let undrained = of(NodeState::Active, true);
        assert!(matches!(undrained, Err(CliError::Undrained { node: 2 })), "{undrained:?}");
        // Who has not heard of the drain does not know of an end of it either.
        let old = view(vec![node(2, NodeState::Active, true)], &replicas);
        assert_eq!(left(&old, &ClusterChange::Drain { node: NodeId(2) }, &at(6)).unwrap().count, 1);
    }

    #[test]
    fn what_was_set_is_said() {
        let before = ClusterSettings { replicas: 3, repair_after_ms: 600_000 };
        let change = ClusterChange::Settings { replicas: Some(1), repair_after_ms: Some(0) };
        let said = changed_text(&ClusterChanged::default(), settings_text(before, &change), false);
        let lines: Vec<_> = said.lines().collect();
        assert_eq!(
            lines,
            [
                "replicas: 1 (was 3), so that a partition bears the loss of 0 of its nodes",
                "repair-after: never (was 10m)",
                "no replica has to move"
            ]
        );
        let json = changed_json(&ClusterChanged::default(), Some((before, &change)), false);
        assert_eq!(json["settings"], json!({ "replicas": 1, "repair_after_ms": 0 }));
    }
}
