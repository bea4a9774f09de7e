//! Owns what health says of a group that cannot serve: who is missing, and what to do.

use std::collections::BTreeSet;

use fanfold_client::{ClusterView, GroupName, GroupView, NodeId, NodeState, PartitionId, ReplicaRole};

use super::change::group_text;

/// Why a group cannot serve, and what to do. Nodes that were removed must never run again.
pub(super) fn lost(view: &ClusterView, group: &GroupView) -> String {
    let members = group.replicas.iter().filter(|replica| replica.role != ReplicaRole::Coming);
    let members: BTreeSet<NodeId> = members.map(|replica| replica.node).collect();
    let known = |node: &NodeId| view.nodes.iter().find(|known| known.node == *node);
    let is_removed = |node: &NodeId| known(node).is_none_or(|node| node.state == NodeState::Removed);
    let is_silent = |node: &NodeId| known(node).is_some_and(|node| !node.is_alive);
    let (removed, members): (Vec<_>, Vec<_>) = members.into_iter().partition(is_removed);
    let is_damaged = |node: &NodeId| {
        !is_silent(node) && group.replicas.iter().any(|replica| replica.node == *node && replica.is_closed)
    };
    let damaged: Vec<_> = members.iter().copied().filter(is_damaged).collect();
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
            "{name} has no majority, so that nothing of the cluster can change: {}",
            missing(&silent, &damaged, &catalog_way_out(&silent, &damaged))
        ),
        GroupName::Partition(partition) => {
            let recover = format!(
                "see what `fanfold partition recover {partition} --dry-run --from` with each node that is left says"
            );
            let way_out =
                if damaged.is_empty() { recover } else { save_first(partition, &damaged, &recover) };
            format!("{name} cannot serve: {}", missing(&silent, &damaged, &way_out))
        }
    }
}

/// Who takes no part and why, and what to do if that stays so.
fn missing(silent: &[NodeId], damaged: &[NodeId], way_out: &str) -> String {
    let start = format!("{} silent; start them or, if they are gone for good, {way_out}", are(silent));
    let damage = format!("what {} of it is damaged", have(damaged));
    match (silent.is_empty(), damaged.is_empty()) {
        (_, true) => start,
        (true, false) => format!("{damage}; {way_out}"),
        (false, false) => format!("{damage}, and {start}"),
    }
}

/// What may save a partition whose replicas are damaged, before anything else is tried with it.
fn save_first(partition: PartitionId, damaged: &[NodeId], recover: &str) -> String {
    format!(
        "stop {} and see what `fanfold partition salvage {partition} --data-dir DIR --dry-run` can save there, or take \
         the partition from a backup (`fanfold backup restore --partition`); if other nodes have more of it, {recover}",
        nodes(damaged)
    )
}

/// How the catalog goes on with one replica.
fn catalog_way_out(silent: &[NodeId], damaged: &[NodeId]) -> String {
    let option = |name: &str, nodes: &[NodeId]| {
        let names: Vec<_> = nodes.iter().map(NodeId::to_string).collect();
        if names.is_empty() { String::new() } else { format!(" --{name} {}", names.join(",")) }
    };
    if damaged.is_empty() {
        return "see `fanfold cluster recover --help`".to_owned();
    }
    format!(
        "stop a node whose replica is whole, and `fanfold cluster recover{}{} --data-dir DIR --dry-run` there",
        option("catalog-damaged", damaged),
        option("gone", silent)
    )
}

fn nodes(all: &[NodeId]) -> String {
    let names: Vec<_> = all.iter().map(NodeId::to_string).collect();
    format!("{} {}", if all.len() == 1 { "node" } else { "nodes" }, names.join(", "))
}

fn have(all: &[NodeId]) -> String {
    format!("{} {}", nodes(all), if all.len() == 1 { "has" } else { "have" })
}

fn are(all: &[NodeId]) -> String {
    format!("{} {}", nodes(all), if all.len() == 1 { "is" } else { "are" })
}

#[cfg(test)]
mod tests {
    use fanfold_client::{ClusterId, ClusterNode, ClusterSettings, GroupHealth, ReplicaView};

    use super::*;

    /// What is said of a group on three nodes of which these are silent, and these were removed.
    fn said(group: GroupName, silent: &[u64], removed: &[u64]) -> String {
        said_of(group, silent, removed, &[])
    }

    /// The same, of which these are damaged.
    fn said_of(group: GroupName, silent: &[u64], removed: &[u64], damaged: &[u64]) -> String {
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
            is_over_memory: false,
            replicas: 0,
            leads: 0,
        };
        let replica = |node| ReplicaView {
            replica: node,
            node: NodeId(node),
            role: ReplicaRole::Voter,
            lag: None,
            is_closed: damaged.contains(&node),
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
            feature_level: 2,
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
    fn what_is_damaged_is_not_called_silent() {
        let text = said_of(GroupName::Catalog, &[], &[], &[2, 3]);
        assert!(text.contains("what nodes 2, 3 have of it is damaged") && !text.contains("silent"), "{text}");
        assert!(text.contains("cluster recover --catalog-damaged 2,3 --data-dir"), "{text}");
        let text = said_of(GroupName::Catalog, &[3], &[], &[2]);
        assert!(text.contains("node 3 is silent") && text.contains("--catalog-damaged 2 --gone 3"), "{text}");
        let text = said_of(GroupName::Partition(PartitionId(3)), &[], &[], &[2, 3]);
        assert!(text.contains("partition recover 3 ") && !text.contains("silent"), "{text}");
        let (salvage, recover) = (text.find("partition salvage 3 "), text.find("partition recover 3 "));
        assert!(
            salvage.is_some() && salvage < recover && text.contains("backup restore --partition"),
            "{text}"
        );
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
