//! Owns what `fanfold cluster health` says is wrong, a line each, with what to do.

use fanfold_client::{
    ByNode, ClusterNode, ClusterView, GroupHealth, GroupName, GroupView, NodeId, NodeState, NodeStatus,
    ReplicaRole,
};
use fanfold_cluster::catalog::MOVED;

use super::change::group_text;
use super::lost::lost;
use super::output::duration;
use crate::zones::is_crowded;

/// Groups that are named whose replicas share zones in vain.
const CROWDED_NAMED_MAX: usize = 8;

/// Whose stamps do not follow the wall clock.
pub(super) fn held_clocks(statuses: &ByNode<NodeStatus>) -> impl Iterator<Item = String> {
    let held = |(node, status): &(NodeId, Result<NodeStatus, _>)| {
        let ms = status.as_ref().ok()?.clock_held_ms?;
        Some(format!(
            "node {node} holds its clock, which is {ms} ms from the time that it goes on from; if it is right now, `fanfold clock accept`, see ClockHeld in RUNBOOK.md"
        ))
    };
    statuses.iter().filter_map(held)
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
            GroupHealth::Lost => Some(lost(view, group)),
        }
    });
    let unfit = view.nodes.iter().filter(|node| node.is_alive).flat_map(|node| unfit(view, node));
    let replicas = view.groups.iter().flat_map(|group| {
        let name = group_text(group.group);
        let differ = group
            .is_diverged
            .then(|| format!("the replicas of {name} differ; see ReplicasDiffer in RUNBOOK.md"));
        let closed = group.replicas.iter().filter(|replica| replica.is_closed).map(move |replica| {
            format!(
                "the replica of {name} on node {} is damaged; `fanfold verify` with the address of that node names file and offset",
                replica.node
            )
        });
        differ.into_iter().chain(closed)
    });
    nodes.chain(unfit).chain(groups).chain(replicas).chain(few_replicas(view)).chain(crowded(view)).collect()
}

/// Why a node that is alive leads nothing, or is about to refuse writes.
fn unfit(view: &ClusterView, node: &ClusterNode) -> Vec<String> {
    let (id, address) = (node.node, &node.address);
    // Where nobody else can lead it goes on as well as it can.
    let leads = view.groups.iter().any(|group| group.leader == Some(id));
    let slow_disk = format!(
        "has a disk that does not get on{}; see DiskStalled in RUNBOOK.md",
        if leads { "" } else { ", and leads nothing" }
    );
    let said = |is_so: bool, what: &str| is_so.then(|| format!("node {id} at {address} {what}"));
    let slow = node.is_disk_slow && !node.is_disk_full;
    let moved = node.address.starts_with(MOVED) || node.peer_address.starts_with(MOVED);
    [
        said(moved, "listens where the cluster knows another node, and leads nothing; start it with addresses of its own"),
        said(node.is_clock_off, "has a clock that is off, and leads nothing; see ClockSkew in RUNBOOK.md"),
        said(slow, &slow_disk),
        said(node.is_disk_full, "has no room for its log; make some on the disk of its data directory"),
        said(node.is_over_memory, "is over its memory budget; see MemoryOverBudget in RUNBOOK.md"),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// What is said if partitions have fewer replicas than they should have because there are too few nodes.
fn few_replicas(view: &ClusterView) -> Option<String> {
    let members = || view.nodes.iter().filter(|node| node.state != NodeState::Removed);
    // Nobody can join a node that listens to no others: it is meant to be alone.
    if members().all(|node| node.peer_address.is_empty()) {
        return None;
    }
    let wanted = view.settings.replicas as usize;
    let partitions = view.groups.iter().filter(|group| group.group != GroupName::Catalog);
    let placed = |group: &GroupView| {
        group.replicas.iter().filter(|replica| replica.role != ReplicaRole::Going).count()
    };
    let few: Vec<usize> = partitions.map(placed).filter(|placed| *placed < wanted).collect();
    let least = few.iter().min()?;
    let active = members().filter(|node| node.state == NodeState::Active && node.is_alive).count();
    // With enough of them the replicas come by themselves.
    let (count, least) =
        (few.len(), if *least == 1 { "1 replica".to_owned() } else { format!("{least} replicas") });
    (active < wanted).then(|| {
        format!(
            "{count} partitions have {least} instead of {wanted}: too few nodes ({active} active and alive); start more with \
             `fanfold start --join`"
        )
    })
}

/// What is said if replicas share a zone while another one has room for them.
fn crowded(view: &ClusterView) -> Option<String> {
    let crowded = view.groups.iter().filter(|group| is_crowded(view, group));
    let names: Vec<_> = crowded.map(|group| group_text(group.group)).collect();
    let (named, more) = names.split_at(names.len().min(CROWDED_NAMED_MAX));
    let more = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
    (!names.is_empty()).then(|| {
        format!(
            "replicas of {}{more} share a zone while another one has room for them; `fanfold cluster balance` spreads them",
            named.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_that_share_a_zone_in_vain_are_a_problem_that_a_balance_mends() {
        let zones = ["a", "a", "b", "c"];
        assert_eq!(problems(&crate::zones::tests::view(&zones, &[&[1, 3, 4]])), [""; 0]);
        let said = problems(&crate::zones::tests::view(&zones, &[&[1, 2, 3], &[1, 3, 4], &[1, 2, 4]]));
        let [said] = &said[..] else { panic!("{said:?}") };
        assert!(said.contains("partition 0, partition 2 share a zone"), "{said}");
        assert!(said.contains("`fanfold cluster balance`"), "{said}");
        let many = problems(&crate::zones::tests::view(&zones, &[&[1, 2, 3][..]; 10]));
        assert!(many[0].contains("partition 7 and 2 more share"), "{many:?}");
    }
}
