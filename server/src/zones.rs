//! Owns which groups' replicas could be further apart than they are: what a balance would mend.

use fanfold_cluster::zone::Zone;
use fanfold_protocol::NodeId;
use fanfold_protocol::message::{ClusterNode, ClusterView, GroupHealth, GroupView, NodeState, ReplicaRole};

/// Whether a replica of a group could move to a zone with at least two fewer of its replicas; not of one that cannot change.
pub fn is_crowded(view: &ClusterView, group: &GroupView) -> bool {
    let placed = group.replicas.iter().filter(|replica| replica.role != ReplicaRole::Going);
    let placed: Vec<NodeId> = placed.map(|replica| replica.node).collect();
    let active = view.nodes.iter().filter(|node| node.state == NodeState::Active);
    let (held, free): (Vec<_>, Vec<_>) = active.partition(|node| placed.contains(&node.node));
    let zones: Vec<_> = held.iter().map(|node| zone(node)).collect();
    let parts = |from: &ClusterNode, to: &ClusterNode| to.is_alive && zone(from).parts(zone(to), &zones);
    let could_move = |from: &ClusterNode| from.is_alive && free.iter().any(|to| parts(from, to));
    group.health != GroupHealth::Lost && held.iter().any(|from| could_move(from))
}

fn zone(node: &ClusterNode) -> Zone<'_> {
    Zone::of(node.node.0, &node.zone)
}

#[cfg(test)]
pub(crate) mod tests {
    use fanfold_protocol::message::{ClusterSettings, GroupName, ReplicaView};
    use fanfold_protocol::{ClusterId, PartitionId};

    use super::*;

    /// Active nodes by number with their zones, and partitions with replicas on these of them, led by the first.
    pub(crate) fn view(zones: &[&str], partitions: &[&[u64]]) -> ClusterView {
        let node = |(node, zone): (u64, &&str)| ClusterNode {
            node: NodeId(node),
            address: String::new(),
            peer_address: "a:2".to_owned(),
            zone: (*zone).to_owned(),
            state: NodeState::Active,
            heard_ms: Some(0),
            is_alive: true,
            clock_ahead_ms: None,
            is_clock_off: false,
            is_disk_slow: false,
            is_disk_full: false,
            is_over_memory: false,
            replicas: 0,
            leads: 0,
        };
        let voter = |node: &u64| ReplicaView {
            replica: *node,
            node: NodeId(*node),
            role: ReplicaRole::Voter,
            lag: None,
            is_closed: false,
        };
        let group = |(partition, nodes): (u16, &&[u64])| GroupView {
            group: GroupName::Partition(PartitionId(partition)),
            leader: Some(NodeId(1)),
            term: 1,
            preferred: None,
            health: GroupHealth::Whole,
            is_diverged: false,
            replicas: nodes.iter().map(voter).collect(),
        };
        ClusterView {
            cluster: ClusterId(1),
            by: NodeId(1),
            epoch: 1,
            feature_level: 2,
            settings: ClusterSettings { replicas: 3, repair_after_ms: 0 },
            nodes: (1..).zip(zones).map(node).collect(),
            groups: (0..).zip(partitions).map(group).collect(),
        }
    }

    #[test]
    fn replicas_are_crowded_only_if_one_could_go_to_a_zone_without() {
        let is_crowded = |view: &ClusterView| is_crowded(view, &view.groups[0]);
        for (zones, crowded) in [
            (&["a", "a", "b", "c"][..], true),
            (&["a", "a", "b", "b"], false),
            (&["a", "b", "c", "c"], false),
            (&["", "", "", ""], false),
            (&["a", "a", "b", ""], true),
        ] {
            assert_eq!(is_crowded(&view(zones, &[&[1, 2, 3]])), crowded, "{zones:?}");
        }
        let crowded = view(&["a", "a", "b", "c"], &[&[1, 2, 3]]);
        let but = |change: fn(&mut ClusterView)| {
            let mut view = crowded.clone();
            change(&mut view);
            view
        };
        for mended in [
            but(|view| view.nodes[3].is_alive = false),
            but(|view| view.nodes[3].state = NodeState::Draining),
            // What leaves by itself is not counted.
            but(|view| view.nodes[0].state = NodeState::Draining),
            but(|view| view.groups[0].health = GroupHealth::Lost),
            but(|view| view.groups[0].replicas[0].role = ReplicaRole::Going),
        ] {
            assert!(!is_crowded(&mended), "{mended:?}");
        }
    }
}
