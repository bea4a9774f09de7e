//! Owns the mapping of the cluster's view and of changes of it.

use std::fmt::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use fanfold_cluster::catalog::{NodeState, ReplicaRecord};
use fanfold_cluster::change::{AcceptedLoss, PlacementChange};
use fanfold_cluster::view::{GroupHealth, GroupView, NodeView};
use fanfold_cluster::{ClusterChanged, ClusterRefusal, ClusterView};
use fanfold_protocol::Status;
use fanfold_protocol::ids::{ClusterId, NodeId, Stamp};
use fanfold_protocol::message as wire;
use fanfold_storage::ids as stored;

use super::partition_id_to_wire;

/// A group, to the wire.
pub fn group_to_wire(partition: Option<stored::PartitionId>) -> wire::GroupName {
    partition.map_or(wire::GroupName::Catalog, |id| wire::GroupName::Partition(partition_id_to_wire(id)))
}

/// A group, from the wire: none is the catalog.
pub fn group(group: wire::GroupName) -> Option<stored::PartitionId> {
    match group {
        wire::GroupName::Catalog => None,
        wire::GroupName::Partition(id) => Some(stored::PartitionId(id.0)),
    }
}

/// The view of a cluster, to the wire.
pub fn cluster_view(view: ClusterView) -> wire::ClusterView {
    wire::ClusterView {
        cluster: ClusterId(view.cluster_id),
        by: NodeId(view.told_by),
        epoch: view.epoch,
        feature_level: view.feature_level,
        settings: wire::ClusterSettings {
            replicas: view.settings.replicas.into(),
            repair_after_ms: view.settings.repair_after_ms,
        },
        nodes: view.nodes.into_iter().map(node).collect(),
        groups: view.groups.iter().map(group_view).collect(),
    }
}

fn node(node: NodeView) -> wire::ClusterNode {
    wire::ClusterNode {
        node: NodeId(node.node),
        address: node.address,
        peer_address: node.peer_address,
        zone: node.zone,
        state: state_to_wire(node.state),
        heard_ms: node.silent_ms,
        is_alive: node.is_alive,
        clock_ahead_ms: node.clock_ahead_ms,
        is_clock_off: node.is_clock_off,
        is_disk_slow: node.is_disk_slow,
        is_disk_full: node.is_disk_full,
        is_over_memory: node.is_over_memory,
        replicas: node.replicas,
        leads: node.leads,
    }
}

fn state_to_wire(state: NodeState) -> wire::NodeState {
    match state {
        NodeState::Active => wire::NodeState::Active,
        NodeState::Draining => wire::NodeState::Draining,
        NodeState::Removed => wire::NodeState::Removed,
    }
}

fn group_view(view: &GroupView) -> wire::GroupView {
    let replicas = replicas(view);
    wire::GroupView {
        group: group_to_wire(view.partition),
        leader: view.leader.map(NodeId),
        term: view.term,
        preferred: view.wanted.first().map(|replica| NodeId(replica.node)),
        health: match view.health {
            GroupHealth::Whole => wire::GroupHealth::Whole,
            GroupHealth::Changing => wire::GroupHealth::Changing,
            GroupHealth::Degraded => wire::GroupHealth::Degraded,
            GroupHealth::Lost => wire::GroupHealth::Lost,
            _ => wire::GroupHealth::Electing,
        },
        is_diverged: view.is_diverged,
        replicas,
    }
}

/// The members, then those that are wanted and are none yet.
fn replicas(view: &GroupView) -> Vec<wire::ReplicaView> {
    let is_wanted = |replica: &ReplicaRecord| view.wanted.contains(replica);
    let role =
        |replica: &ReplicaRecord, role| if is_wanted(replica) { role } else { wire::ReplicaRole::Going };
    let voters = view.voters.iter().map(|replica| (replica, role(replica, wire::ReplicaRole::Voter)));
    let learners = view.learners.iter().map(|replica| (replica, role(replica, wire::ReplicaRole::Learner)));
    let is_member =
        |replica: &&ReplicaRecord| view.voters.contains(replica) || view.learners.contains(replica);
    let coming = view.wanted.iter().filter(|replica| !is_member(replica));
    // A leader that has not said who its members are leaves what is wanted as the best that is known.
    let unknown = if view.voters.is_empty() { wire::ReplicaRole::Voter } else { wire::ReplicaRole::Coming };
    let all = voters.chain(learners).chain(coming.map(|replica| (replica, unknown)));
    let lag =
        |replica: &ReplicaRecord| view.lag.iter().find(|(of, _)| of == replica).and_then(|(_, lag)| *lag);
    all.map(|(replica, role)| wire::ReplicaView {
        replica: replica.replica,
        node: NodeId(replica.node),
        role,
        lag: lag(replica),
        is_closed: view.closed.contains(replica),
    })
    .collect()
}

/// What a change did, to the wire.
pub fn cluster_changed(changed: ClusterChanged) -> wire::ClusterChanged {
    let nodes = changed
        .nodes
        .into_iter()
        .map(|(node, state)| wire::ChangeStep::SetNode { node: NodeId(node), state: state_to_wire(state) });
    let mut steps: Vec<_> = nodes.collect();
    steps.extend(changed.level.map(|(from, to)| wire::ChangeStep::RaiseLevel { from, to }));
    for placement in &changed.placement {
        placement_steps(placement, &mut steps);
    }
    steps.truncate(wire::CHANGE_STEPS_MAX);
    let emptied = changed.emptied.iter().map(|(partition, node)| emptied(*partition, *node));
    let losses = changed.losses.iter().map(loss).chain(emptied).collect();
    wire::ClusterChanged { epoch: changed.epoch, steps, losses }
}

fn loss(loss: &AcceptedLoss) -> wire::ChangeLoss {
    let nodes: Vec<_> = loss.given_up.iter().map(u64::to_string).collect();
    let nodes = nodes.join(", ");
    let what = format!(
        "every write that nodes {nodes} acknowledged and that had not reached the replica on node {}, and these \
         replicas; {}",
        loss.kept,
        remains(loss)
    );
    wire::ChangeLoss { group: group_to_wire(Some(loss.partition)), what }
}

/// How far each replica has come that is left, the furthest first.
fn remains(loss: &AcceptedLoss) -> String {
    let kept = loss.left.iter().find(|left| left.node == loss.kept);
    let ends = loss.left.iter().map(|left| {
        let (term, index) = left.last;
        let mut said = format!("node {} has it up to term {term}, index {index}", left.node);
        let applied = UNIX_EPOCH + Duration::from_millis(Stamp(left.applied.0).to_unix_ms());
        // Times after the year 9999 have no such form.
        let mut time = String::new();
        if left.applied != stored::Stamp(0)
            && write!(time, ", applied up to {}", humantime::format_rfc3339_millis(applied)).is_ok()
        {
            said += &time;
        }
        said
    });
    let mut said: Vec<String> = ends.collect();
    match (kept, loss.left.first()) {
        (None, _) => said.push(format!("how far node {} has come is not known yet, look again", loss.kept)),
        (Some(kept), Some(furthest)) if kept.last == furthest.last => {
            said.push("no replica that is left has more".to_owned());
        }
        (Some(_), Some(furthest)) => {
            said.push(format!(
                "node {} is the furthest: `--from {}` loses less",
                furthest.node, furthest.node
            ));
        }
        _ => {}
    }
    said.join("; ")
}

fn emptied(partition: stored::PartitionId, node: u64) -> wire::ChangeLoss {
    let what = format!(
        "everything: the posts, follows and feeds of all users whose home it is. It begins empty on node {node}; others' \
         follows of them stay, and show what they post from now on"
    );
    wire::ChangeLoss { group: group_to_wire(Some(partition)), what }
}

fn placement_steps(change: &PlacementChange, steps: &mut Vec<wire::ChangeStep>) {
    let group = group_to_wire(change.partition);
    let (from, to) = (&change.from, &change.to);
    let added = to.iter().filter(|node| !from.contains(node));
    let removed = from.iter().filter(|node| !to.contains(node));
    steps.extend(added.map(|node| wire::ChangeStep::AddReplica { group, to: NodeId(*node) }));
    steps.extend(removed.map(|node| wire::ChangeStep::RemoveReplica { group, from: NodeId(*node) }));
    if let Some(leader) = to.first().filter(|leader| from.first() != Some(leader)) {
        steps.push(wire::ChangeStep::MoveLeader { group, to: NodeId(*leader) });
    }
}

/// The status of a refused change.
pub fn cluster_refusal(refused: &ClusterRefusal) -> Status {
    let refusal = match refused {
        ClusterRefusal::UnknownNode { .. } => wire::ChangeRefusal::UnknownNode,
        ClusterRefusal::UnknownPartition { .. } => wire::ChangeRefusal::UnknownGroup,
        ClusterRefusal::NodeRemoved { .. } | ClusterRefusal::NodeDraining { .. } => {
            wire::ChangeRefusal::NodeState
        }
        ClusterRefusal::NodeSilent { .. } | ClusterRefusal::LevelUnknown { .. } => {
            wire::ChangeRefusal::NodeSilent
        }
        ClusterRefusal::LastVoter { .. } => wire::ChangeRefusal::LastVoter,
        ClusterRefusal::BelowReplicas { .. } => wire::ChangeRefusal::TooFewNodes,
        ClusterRefusal::NotDrained { .. } => wire::ChangeRefusal::HoldsReplicas,
        ClusterRefusal::QuorumLost { .. }
        | ClusterRefusal::NothingLeft { .. }
        | ClusterRefusal::HasQuorum { .. } => wire::ChangeRefusal::Majority,
        ClusterRefusal::NoReplica { .. } => wire::ChangeRefusal::NoReplica,
        ClusterRefusal::HasReplica { .. } | ClusterRefusal::ReplicaLeft { .. } => {
            wire::ChangeRefusal::HasReplica
        }
        ClusterRefusal::CannotLead { .. } => wire::ChangeRefusal::NotCaughtUp,
        _ => wire::ChangeRefusal::Other,
    };
    Status::ChangeRefused { refusal, said: refused.to_string() }
}

#[cfg(test)]
mod tests {
    use fanfold_cluster::change::Remains;
    use fanfold_storage::ids as stored;

    use super::*;

    #[test]
    fn a_loss_names_the_ends_of_what_is_left_and_which_is_the_furthest() {
        let remains = |node, last| Remains { node, last, applied: stored::Stamp(60_000) };
        let what = |kept, left: &[Remains]| {
            let (partition, given_up, left) = (stored::PartitionId(3), vec![1], left.to_vec());
            loss(&AcceptedLoss { partition, kept, given_up, left }).what
        };
        let both = [remains(4, (6, 90)), remains(2, (5, 120))];
        let behind = what(2, &both);
        assert!(
            behind.contains("node 2 has it up to term 5, index 120, applied up to 2000-01-01T00:01:00"),
            "{behind}"
        );
        assert!(behind.contains("node 4 is the furthest"), "{behind}");
        assert!(what(4, &both).contains("no replica that is left has more"));
        assert!(what(2, &both[..1]).contains("not known yet"));
    }
}
