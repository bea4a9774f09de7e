//! Owns the strategies that draw a cluster and its changes.

use fanfold_protocol::message::{
    ChangeLoss, ChangeStep, ClusterChanged, ClusterNode, ClusterSettings, ClusterView, GroupHealth,
    GroupName, GroupView, NodeState, ReplicaRole, ReplicaView,
};
use fanfold_protocol::{ClusterId, NodeId};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::{number, number32, partition, text};

pub(super) fn node() -> impl Strategy<Value = NodeId> {
    number().prop_map(NodeId)
}

pub(super) fn group() -> impl Strategy<Value = GroupName> {
    prop_oneof![Just(GroupName::Catalog), partition().prop_map(GroupName::Partition)]
}

fn node_state() -> impl Strategy<Value = NodeState> {
    select(vec![NodeState::Active, NodeState::Draining, NodeState::Removed])
}

fn cluster_node() -> impl Strategy<Value = ClusterNode> {
    let names = (text(), text(), text());
    let life = (option::of(number()), any::<bool>(), option::of(any::<i64>()), any::<[bool; 4]>());
    (node(), names, node_state(), life, number32(), number32()).prop_map(
        |(
            node,
            (address, peer_address, zone),
            state,
            (heard_ms, is_alive, clock_ahead_ms, [is_clock_off, is_disk_slow, is_disk_full, is_over_memory]),
            replicas,
            leads,
        )| {
            ClusterNode {
                node,
                address,
                peer_address,
                zone,
                state,
                heard_ms,
                is_alive,
                clock_ahead_ms,
                is_clock_off,
                is_disk_slow,
                is_disk_full,
                is_over_memory,
                replicas,
                leads,
            }
        },
    )
}

pub(super) fn cluster() -> impl Strategy<Value = ClusterView> {
    let roles = vec![ReplicaRole::Voter, ReplicaRole::Learner, ReplicaRole::Coming, ReplicaRole::Going];
    let replica = (number(), node(), select(roles), option::of(number()), any::<bool>()).prop_map(
        |(replica, node, role, lag, is_closed)| ReplicaView { replica, node, role, lag, is_closed },
    );
    let leaders = (option::of(node()), option::of(node()));
    let health = select(GroupHealth::ALL.to_vec());
    let group = (group(), number(), leaders, (health, any::<bool>()), vec(replica, 0..4)).prop_map(
        |(group, term, (leader, preferred), (health, is_diverged), replicas)| GroupView {
            group,
            leader,
            term,
            preferred,
            health,
            is_diverged,
            replicas,
        },
    );
    let settings = (number32(), number())
        .prop_map(|(replicas, repair_after_ms)| ClusterSettings { replicas, repair_after_ms });
    (any::<u128>(), node(), (number(), number32()), settings, vec(cluster_node(), 0..4), vec(group, 0..4))
        .prop_map(|(cluster, by, (epoch, feature_level), settings, nodes, groups)| ClusterView {
            cluster: ClusterId(cluster),
            by,
            epoch,
            feature_level,
            settings,
            nodes,
            groups,
        })
}

pub(super) fn cluster_changed() -> impl Strategy<Value = ClusterChanged> {
    let step = prop_oneof![
        (group(), node()).prop_map(|(group, to)| ChangeStep::AddReplica { group, to }),
        (group(), node()).prop_map(|(group, from)| ChangeStep::RemoveReplica { group, from }),
        (group(), node()).prop_map(|(group, to)| ChangeStep::MoveLeader { group, to }),
        (node(), node_state()).prop_map(|(node, state)| ChangeStep::SetNode { node, state }),
        (number32(), number32()).prop_map(|(from, to)| ChangeStep::RaiseLevel { from, to }),
    ];
    let loss = (group(), text()).prop_map(|(group, what)| ChangeLoss { group, what });
    (number(), vec(step, 0..6), vec(loss, 0..3)).prop_map(|(epoch, steps, losses)| ClusterChanged {
        epoch,
        steps,
        losses,
    })
}
