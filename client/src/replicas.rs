//! Owns which replica gets a read that any replica may answer.
//!
//! Invariants:
//! - What is about one slot goes to one replica as long as that answers: reads of many users share its frames, and a
//!   reader's pages do not jump back and forth between replicas of different age.
//! - Replicas in the client's zone come first; one that failed comes last for a while.
//! - After `REPLICA_ATTEMPTS` the leader is asked, whose answer is good enough for every consistency.

use std::collections::HashMap;
use std::sync::Mutex;

use fanfold_protocol::message::{ClusterView, GroupName, GroupView, ReplicaRole};
use fanfold_protocol::{NodeId, PartitionId, SlotIndex};
use tokio::time::Instant;

use crate::defaults;
use crate::lock::lock;

/// Where the replicas of each partition are.
#[derive(Debug)]
pub(crate) struct Replicas {
    /// Of the map that this belongs to.
    pub epoch: u64,
    fetched: Instant,
    /// By partition; those in the client's zone first.
    nodes: HashMap<PartitionId, Vec<Candidate>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Candidate {
    node: NodeId,
    is_near: bool,
}

impl Replicas {
    /// What a view says, for a client in this zone.
    pub fn new(view: &ClusterView, zone: Option<&str>) -> Self {
        let zones: HashMap<NodeId, &str> =
            view.nodes.iter().map(|node| (node.node, node.zone.as_str())).collect();
        let candidates = |group: &GroupView| {
            // A node that has not heard from a group's leader yet knows only who should be there.
            let has_voters = group.replicas.iter().any(|replica| replica.role == ReplicaRole::Voter);
            let role = if has_voters { ReplicaRole::Voter } else { ReplicaRole::Coming };
            let is_alive = |node| view.nodes.iter().any(|other| other.node == node && other.is_alive);
            let serving = group.replicas.iter().filter(|r| r.role == role && is_alive(r.node));
            let candidate = |node: NodeId| Candidate {
                node,
                is_near: zone.is_some_and(|zone| zones.get(&node).is_some_and(|other| *other == zone)),
            };
            let mut all: Vec<_> = serving.map(|replica| candidate(replica.node)).collect();
            all.sort_by_key(|candidate| (!candidate.is_near, candidate.node));
            all.dedup();
            all
        };
        let nodes = view.groups.iter().filter_map(|group| match group.group {
            GroupName::Catalog => None,
            GroupName::Partition(partition) => Some((partition, candidates(group))),
        });
        Self { epoch: view.epoch, fetched: Instant::now(), nodes: nodes.collect() }
    }

    /// Whether it is of the map of this epoch, and not so old that it should be looked at again.
    pub fn is_current(&self, epoch: u64) -> bool {
        self.epoch >= epoch && self.fetched.elapsed() < defaults::REPLICAS_AGE_MAX
    }

    /// The node to ask about a slot at an attempt; none if it is the leader's turn.
    pub fn choose(
        &self,
        slot: SlotIndex,
        partition: PartitionId,
        attempt: usize,
        doubts: &Doubts,
    ) -> Option<NodeId> {
        if attempt >= defaults::REPLICA_ATTEMPTS {
            return None;
        }
        let all = self.nodes.get(&partition)?;
        let near = all.iter().take_while(|candidate| candidate.is_near).count();
        let (near, far) = all.split_at(near);
        // Each zone's replicas share its slots.
        let rotated = |part: &[Candidate]| -> Vec<NodeId> {
            let from = usize::from(slot.0) % part.len().max(1);
            part[from..].iter().chain(&part[..from]).map(|candidate| candidate.node).collect()
        };
        let mut order = [rotated(near), rotated(far)].concat();
        order.sort_by_key(|node| doubts.has(*node));
        order.get(attempt % order.len().max(1)).copied()
    }
}

/// The nodes that failed to answer for others lately.
#[derive(Debug, Default)]
pub(crate) struct Doubts(Mutex<HashMap<NodeId, Instant>>);

impl Doubts {
    /// A node did not answer a read as a replica.
    pub fn note(&self, node: NodeId) {
        lock(&self.0).insert(node, Instant::now());
    }

    fn has(&self, node: NodeId) -> bool {
        let mut doubts = lock(&self.0);
        let holds = doubts.get(&node).is_some_and(|at| at.elapsed() < defaults::REPLICA_DOUBT);
        if !holds {
            doubts.remove(&node);
        }
        holds
    }
}

#[cfg(test)]
mod tests {
    use fanfold_protocol::ClusterId;
    use fanfold_protocol::message::{ClusterNode, ClusterSettings, GroupHealth, NodeState, ReplicaView};

    use super::*;

    fn view(zones: &[&str]) -> ClusterView {
        let node = |(zone, node): (&&str, u64)| ClusterNode {
            node: NodeId(node),
            address: format!("node-{node}:1"),
            peer_address: String::new(),
            zone: (*zone).to_owned(),
            state: NodeState::Active,
            replicas: 1,
            leads: 0,
            is_alive: true,
            heard_ms: None,
            clock_ahead_ms: None,
            is_clock_off: false,
            is_disk_slow: false,
            is_disk_full: false,
            is_over_memory: false,
        };
        let replica = |node: u64, role| ReplicaView {
            replica: node,
            node: NodeId(node),
            role,
            lag: None,
            is_closed: false,
        };
        let voters = (1..=zones.len() as u64).map(|node| replica(node, ReplicaRole::Voter));
        let replicas = voters.chain([replica(9, ReplicaRole::Learner)]).collect();
        let group = |group, replicas| GroupView {
            group,
            health: GroupHealth::Whole,
            is_diverged: false,
            term: 1,
            leader: None,
            preferred: None,
            replicas,
        };
        ClusterView {
            cluster: ClusterId(1),
            by: NodeId(1),
            epoch: 5,
            feature_level: 2,
            settings: ClusterSettings { replicas: 3, repair_after_ms: 0 },
            nodes: zones.iter().zip(1..).map(node).collect(),
            groups: vec![
                group(GroupName::Catalog, Vec::new()),
                group(GroupName::Partition(PartitionId(0)), replicas),
            ],
        }
    }

    fn chosen(replicas: &Replicas, slot: u16, doubts: &Doubts) -> Vec<u64> {
        let choose = |attempt| replicas.choose(SlotIndex(slot), PartitionId(0), attempt, doubts);
        (0..defaults::REPLICA_ATTEMPTS).filter_map(choose).map(|node| node.0).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn slots_are_spread_over_the_replicas_and_stay_there() {
        let (replicas, doubts) = (Replicas::new(&view(&["", "", ""]), None), Doubts::default());
        let first: Vec<_> = (0..6).map(|slot| chosen(&replicas, slot, &doubts)[0]).collect();
        assert_eq!(first, [1, 2, 3, 1, 2, 3]);
        assert_eq!(chosen(&replicas, 1, &doubts), [2, 3], "then another, then the leader");
        assert!(replicas.choose(SlotIndex(1), PartitionId(0), 2, &doubts).is_none());
        assert!(replicas.choose(SlotIndex(1), PartitionId(7), 0, &doubts).is_none());
        doubts.note(NodeId(2));
        assert_eq!(chosen(&replicas, 1, &doubts), [3, 1]);
        tokio::time::advance(defaults::REPLICA_DOUBT).await;
        assert_eq!(chosen(&replicas, 1, &doubts), [2, 3]);
    }

    #[test]
    fn replicas_in_the_own_zone_come_first() {
        let doubts = Doubts::default();
        let replicas = Replicas::new(&view(&["a", "b", "b"]), Some("b"));
        let first: Vec<_> = (0..4).map(|slot| chosen(&replicas, slot, &doubts)[0]).collect();
        assert_eq!(first, [2, 3, 2, 3]);
        let nobody = Replicas::new(&view(&["a", "b", "b"]), Some("c"));
        assert_eq!(chosen(&nobody, 0, &doubts), [1, 2]);
    }
}
