//! Owns what health says of a group that cannot serve: who is missing, and what to do.

use std::collections::BTreeSet;

use fanfold_client::{ClusterView, GroupName, GroupView, NodeId, NodeState, ReplicaRole};

use super::change::group_text;

/// Why a group cannot serve, and what to do. Nodes that were removed must never run again.
pub(super) fn lost(view: &ClusterView, group: &GroupView) -> String {
    let members = group.replicas.iter().filter(|replica| replica.role != ReplicaRole::Coming);
    let members: BTreeSet<NodeId> = members.map(|replica| replica.node).collect();
    let known = |node: &NodeId| view.nodes.iter().find(|known| known.node == *node);
    let is_removed = |node: &NodeId| known(node).is_none_or(|node| node.state == NodeState::Removed);
    let is_silent = |node: &NodeId| known(node).is_some_and(|node| !node.is_alive);
    let (removed, members): (Vec<_>, Vec<_>) = members.into_iter().partition(is_removed);
    let silent: Vec<_> = members.into_iter().filter(is_silent).collect();
    let name = group_text(group.group);
    let start = if silent.is_empty() { String::new() } else { format!("; start {}", nodes(&silent)) };
    match group.group {
        _ if !removed.is_empty() => format!(
            "{name} cannot serve yet: {} had replicas of it and {} removed for ever; it goes on by itself with what is \
             left of it, once all other nodes were heard{start}",
            nodes(&removed),
            if removed.len() == 1 { "was" } else { "were" }
        ),
        GroupName::Catalog => format!(
            "{name} has no majority, so that nothing of the cluster can change: {} silent; start them or, if they are \
             gone for good, see `fanfold cluster recover --help`",
            are(&silent)
        ),
        GroupName::Partition(partition) => format!(
            "{name} cannot serve: {} silent; start them or, if they are gone for good, see what `fanfold partition \
             recover {partition} --dry-run --from` with each node that is left says",
            are(&silent)
        ),
    }
}

fn nodes(all: &[NodeId]) -> String {
    let names: Vec<_> = all.iter().map(NodeId::to_string).collect();
    format!("{} {}", if all.len() == 1 { "node" } else { "nodes" }, names.join(", "))
}

fn are(all: &[NodeId]) -> String {
    format!("{} {}", nodes(all), if all.len() == 1 { "is" } else { "are" })
}

#[cfg(test)]
mod tests {
    use fanfold_client::{ClusterId, ClusterNode, ClusterSettings, GroupHealth, PartitionId, ReplicaView};

    use super::*;

    /// What is said of a group on three nodes of which these are silent, and these were removed.
    fn said(group: GroupName, silent: &[u64], removed: &[u64]) -> String {
        let node = |node: u64| ClusterNode {
            node: NodeId(node),
            address: String::new(),
            peer_address: String::new(),
            zone: String::new(),
            state: if removed.contains(&node) { NodeState::Removed } else { NodeState::Active },
            heard_ms: None,
            is_alive: !silent.contains(&node) && !removed.contains(&node),
            clock_ahead_ms: None,
            is_clock_off: false,
            is_disk_slow: false,
            is_disk_full: false,
            replicas: 0,
            leads: 0,
        };
        let replica = |node| ReplicaView {
            replica: node,
            node: NodeId(node),
            role: ReplicaRole::Voter,
            lag: None,
            is_closed: false,
        };
        let group = GroupView {
            group,
            leader: None,
            term: 0,
            preferred: None,
            health: GroupHealth::Lost,
            is_diverged: false,
            replicas: (1..=3).map(replica).collect(),
        };
        let view = ClusterView {
            cluster: ClusterId(1),
            by: NodeId(1),
            epoch: 1,
            settings: ClusterSettings { replicas: 3, repair_after_ms: 0 },
            nodes: (1..=3).map(node).collect(),
            groups: vec![group.clone()],
        };
        lost(&view, &group)
    }

    #[test]
    fn each_group_is_told_the_command_that_is_for_it() {
        let partition = GroupName::Partition(PartitionId(3));
        let text = said(partition, &[1, 3], &[]);
        assert!(text.contains("nodes 1, 3 are silent") && text.contains("partition recover 3 "), "{text}");
        let text = said(GroupName::Catalog, &[1, 3], &[]);
        assert!(text.contains("fanfold cluster recover") && !text.contains("partition recover"), "{text}");
    }

    #[test]
    fn nobody_is_told_to_start_what_was_removed() {
        let partition = GroupName::Partition(PartitionId(3));
        let text = said(partition, &[], &[1, 3]);
        assert!(text.contains("removed for ever") && !text.contains("start"), "{text}");
        let text = said(partition, &[2], &[1, 3]);
        assert!(text.contains("start node 2") && !text.contains("start nodes"), "{text}");
    }
}
