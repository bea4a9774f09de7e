//! Owns the metrics that come from the node's view of its cluster, made anew each time they are asked.
//!
//! - A partition is told of by the node that leads it, so that a sum over the nodes counts it once; that nobody leads it is
//!   told by all.
//! - The catalog is the partition `catalog`.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use fanfold_protocol::message::{ClusterView, GroupHealth, GroupName, GroupView, NodeState, ReplicaRole};

use super::units::{Seconds, gauge, seconds, seconds_of};
use crate::zones::is_crowded;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct GroupLabel {
    partition: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReplicaLabels {
    partition: String,
    node: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NodeLabel {
    node: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HealthLabels {
    partition: String,
    health: &'static str,
}

/// The metrics of `view`.
pub(super) fn registry(view: &ClusterView) -> Registry {
    let mut registry = Registry::with_prefix("fanfold");
    groups(&mut registry, view);
    peers(&mut registry, view);
    let epoch: Gauge = Gauge::default();
    epoch.set(gauge(view.epoch));
    registry.register("cluster_epoch", "Epoch of the catalog that this node knows", epoch);
    registry
}

fn groups(registry: &mut Registry, view: &ClusterView) {
    let leads = Family::<GroupLabel, Gauge>::default();
    let terms = Family::<GroupLabel, Gauge>::default();
    let healths = Family::<HealthLabels, Gauge>::default();
    let voters = Family::<GroupLabel, Gauge>::default();
    let missing = Family::<GroupLabel, Gauge>::default();
    let crowded = Family::<GroupLabel, Gauge>::default();
    let lags = Family::<ReplicaLabels, Gauge>::default();
    for group in &view.groups {
        let partition = group.group.to_string();
        let label = GroupLabel { partition: partition.clone() };
        let is_led_here = group.leader == Some(view.by);
        leads.get_or_create(&label).set(i64::from(is_led_here));
        let is_bad = matches!(group.health, GroupHealth::Electing | GroupHealth::Lost);
        if !is_led_here && !is_bad {
            continue;
        }
        let health = health(group.health);
        healths.get_or_create(&HealthLabels { partition: partition.clone(), health }).set(1);
        if !is_led_here {
            continue;
        }
        terms.get_or_create(&label).set(gauge(group.term));
        let votes = group.replicas.iter().filter(|replica| replica.role == ReplicaRole::Voter).count();
        voters.get_or_create(&label).set(gauge(votes as u64));
        crowded.get_or_create(&label).set(i64::from(is_crowded(view, group)));
        if group.group != GroupName::Catalog {
            missing.get_or_create(&label).set(gauge(replicas_missing(view, group)));
        }
        for replica in &group.replicas {
            if let Some(lag) = replica.lag {
                let labels = ReplicaLabels { partition: partition.clone(), node: replica.node.0 };
                lags.get_or_create(&labels).set(gauge(lag));
            }
        }
    }
    registry.register("partition_leader", "1 if this node leads the partition", leads);
    registry.register("partition_term", "Raft term of a partition that this node leads", terms);
    registry.register(
        "partition_health",
        "1 for the health that a partition is in, told by its leader",
        healths,
    );
    registry.register(
        "partition_replicas_missing",
        "Replicas that a partition led by this node has no place for, because there are too few nodes",
        missing,
    );
    registry.register(
        "partition_crowded",
        "1 if replicas of a partition led by this node share a zone while another one has room for them",
        crowded,
    );
    registry.register("partition_voters", "Voters of a partition that this node leads", voters);
    registry.register("replica_lag", "Raft entries that a replica lacks, told by its leader", lags);
}

/// Replicas that a partition should have and that are placed nowhere; none where nobody can join.
fn replicas_missing(view: &ClusterView, group: &GroupView) -> u64 {
    if view.nodes.iter().all(|node| node.peer_address.is_empty()) {
        return 0;
    }
    let placed = group.replicas.iter().filter(|replica| replica.role != ReplicaRole::Going).count() as u64;
    u64::from(view.settings.replicas).saturating_sub(placed)
}

fn peers(registry: &mut Registry, view: &ClusterView) {
    let alive = Family::<NodeLabel, Gauge>::default();
    let silent = Family::<NodeLabel, Seconds>::default();
    let ahead = Family::<NodeLabel, Seconds>::default();
    let members = view.nodes.iter().filter(|node| node.state != NodeState::Removed && node.node != view.by);
    for node in members {
        let label = NodeLabel { node: node.node.0 };
        alive.get_or_create(&label).set(i64::from(node.is_alive));
        if let Some(heard_ms) = node.heard_ms {
            silent.get_or_create(&label).set(seconds_of(heard_ms));
        }
        if let Some(ahead_ms) = node.clock_ahead_ms {
            ahead.get_or_create(&label).set(seconds(ahead_ms));
        }
    }
    registry.register("peer_alive", "1 if this node hears of the other one", alive);
    registry.register("peer_silent_seconds", "Time since the other node was last heard of", silent);
    registry.register("peer_clock_ahead_seconds", "Time that the other node's wall clock is ahead", ahead);
}

fn health(health: GroupHealth) -> &'static str {
    match health {
        GroupHealth::Whole => "whole",
        GroupHealth::Changing => "changing",
        GroupHealth::Degraded => "degraded",
        GroupHealth::Electing => "electing",
        GroupHealth::Lost => "lost",
    }
}

#[cfg(test)]
mod tests {
    use fanfold_protocol::message::{ClusterNode, ClusterSettings, ReplicaView};
    use fanfold_protocol::{ClusterId, NodeId, PartitionId};
    use prometheus_client::encoding::text::encode;

    use super::*;

    fn group(partition: u16, leader: Option<u64>, health: GroupHealth) -> GroupView {
        let voter = |node, lag| ReplicaView {
            replica: node,
            node: NodeId(node),
            role: ReplicaRole::Voter,
            lag,
            is_closed: false,
        };
        GroupView {
            group: GroupName::Partition(PartitionId(partition)),
            leader: leader.map(NodeId),
            term: 4,
            preferred: None,
            health,
            is_diverged: false,
            replicas: vec![voter(1, Some(0)), voter(2, Some(7))],
        }
    }

    #[test]
    fn partition_is_told_of_by_its_leader_and_a_lost_one_by_all() {
        let other = ClusterNode {
            node: NodeId(2),
            address: "a:1".to_owned(),
            peer_address: "a:2".to_owned(),
            zone: String::new(),
            state: NodeState::Active,
            heard_ms: Some(4_000),
            is_alive: false,
            clock_ahead_ms: Some(-12),
            is_clock_off: false,
            is_disk_slow: false,
            is_disk_full: false,
            is_over_memory: false,
            replicas: 3,
            leads: 1,
        };
        let view = ClusterView {
            cluster: ClusterId(1),
            by: NodeId(1),
            epoch: 9,
            feature_level: 2,
            settings: ClusterSettings { replicas: 3, repair_after_ms: 0 },
            nodes: vec![other],
            groups: vec![
                group(0, Some(1), GroupHealth::Degraded),
                group(1, Some(2), GroupHealth::Whole),
                group(2, None, GroupHealth::Lost),
            ],
        };
        let mut text = String::new();
        encode(&mut text, &registry(&view)).unwrap();
        for line in [
            r#"fanfold_partition_leader{partition="0"} 1"#,
            r#"fanfold_partition_leader{partition="1"} 0"#,
            r#"fanfold_partition_health{partition="0",health="degraded"} 1"#,
            r#"fanfold_partition_health{partition="2",health="lost"} 1"#,
            r#"fanfold_replica_lag{partition="0",node="2"} 7"#,
            r#"fanfold_partition_replicas_missing{partition="0"} 1"#,
            r#"fanfold_peer_alive{node="2"} 0"#,
            r#"fanfold_peer_silent_seconds{node="2"} 4.0"#,
            r#"fanfold_peer_clock_ahead_seconds{node="2"} -0.012"#,
            "fanfold_cluster_epoch 9",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
        assert!(!text.contains(r#"partition_health{partition="1""#), "{text}");
    }

    #[test]
    fn the_leader_tells_whether_replicas_share_a_zone_in_vain() {
        let view = crate::zones::tests::view(&["a", "a", "b", "c"], &[&[1, 2, 3], &[1, 3, 4]]);
        let mut text = String::new();
        encode(&mut text, &registry(&view)).unwrap();
        for line in
            [r#"fanfold_partition_crowded{partition="0"} 1"#, r#"fanfold_partition_crowded{partition="1"} 0"#]
        {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }
}
