//! Owns the map: which nodes there are and which of them leads each partition.
//!
//! - Who leads is gossip: leaders say it of themselves, and of two who do, the one of the later term counts; what a replica here
//!   knows is a word like the others'.
//! - Nobody is told to ask a node that this one does not hear any more: a leader that is dead leads nothing.

use std::collections::{BTreeMap, BTreeSet};

use fanfold_storage::ids::PartitionId;
use fanfold_storage::log::GroupId;
use parking_lot::RwLock;

use crate::catalog::{CatalogView, NodeState};
use crate::error::LeaderAt;
use crate::raft::{LeaderHint, ReplicaAddress, ReplicaId};

/// Which nodes there are and which of them leads each partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterMap {
    /// The cluster.
    pub cluster_id: u128,
    /// Changes with every change of the catalog.
    pub epoch: u64,
    /// Number of partitions, a power of two up to 4,096.
    pub partitions: u16,
    /// The nodes, by id.
    pub nodes: Vec<NodeAddress>,
    /// The node that leads each partition, by partition; none if nobody is known to.
    pub leaders: Vec<Option<u64>>,
}

/// A node and where it listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeAddress {
    /// The node.
    pub node: u64,
    /// Its address, `host:port`.
    pub address: String,
}

/// How the address of a replica begins; behind it stands the node.
const NODE_PREFIX: &str = "node:";

/// The node of replicas whose address says something else: they are of a time when there was only this one.
const FIRST_NODE: u64 = 1;

/// The address of replicas on a node.
pub(crate) fn address_of(node: u64) -> ReplicaAddress {
    ReplicaAddress(format!("{NODE_PREFIX}{node}"))
}

/// The node of a replica with this address.
pub(crate) fn node_of(address: &ReplicaAddress) -> u64 {
    address.0.strip_prefix(NODE_PREFIX).and_then(|node| node.parse().ok()).unwrap_or(FIRST_NODE)
}

/// The group of a partition; of none, the catalog's.
pub(crate) fn group_of(partition: Option<PartitionId>) -> GroupId {
    GroupId(partition.map_or(0, |id| u32::from(id.0) + 1))
}

/// The partition of a group; none is the catalog's.
pub(crate) fn partition_of(group: GroupId) -> Option<PartitionId> {
    group.0.checked_sub(1).map(|n| PartitionId(n as u16))
}

/// Who leads which group, as far as is known here.
#[derive(Debug, Default)]
pub(crate) struct Leaders(RwLock<BTreeMap<GroupId, Known>>);

#[derive(Debug, Clone, Copy)]
struct Known {
    term: u64,
    /// None: the one known of this term leads no more.
    node: Option<u64>,
}

impl Leaders {
    /// Takes note that a node leads, or led, a group in a term.
    pub fn note(&self, group: GroupId, term: u64, node: u64) {
        let is_old = |known: &Known| known.term > term || (known.term, known.node) == (term, Some(node));
        if self.0.read().get(&group).is_some_and(is_old) {
            return;
        }
        let mut all = self.0.write();
        let known = all.entry(group).or_insert(Known { term, node: None });
        if known.term <= term {
            *known = Known { term, node: Some(node) };
        }
    }

    /// Takes note that a node does not lead a group any more.
    pub fn forget(&self, group: GroupId, node: u64) {
        if let Some(known) = self.0.write().get_mut(&group)
            && known.node == Some(node)
        {
            known.node = None;
        }
    }

    /// The latest term in which a group was led, as far as is known; 0 if nothing is.
    pub fn term(&self, group: GroupId) -> u64 {
        self.0.read().get(&group).map_or(0, |known| known.term)
    }

    /// The node that leads a group.
    pub fn of(&self, group: GroupId) -> Option<u64> {
        self.0.read().get(&group)?.node
    }

    /// The node that leads a group by the later of two words: what was heard, and what a replica here knows, a term and the
    /// node that leads in it.
    fn of_either(&self, group: GroupId, here: Option<(u64, u64)>) -> Option<u64> {
        let heard = self.0.read().get(&group).copied();
        match (heard, here) {
            (Some(heard), Some((term, _))) if heard.term > term => heard.node,
            (_, Some((_, node))) => Some(node),
            (heard, None) => heard?.node,
        }
    }

    /// The node that leads a group, and the term in which it does.
    pub fn led(&self, group: GroupId) -> Option<(u64, u64)> {
        let known = *self.0.read().get(&group)?;
        Some((known.node?, known.term))
    }
}

/// Where nodes are, and who leads what.
#[derive(Debug, Default)]
pub(crate) struct Whereabouts {
    /// What the catalog says of the nodes.
    pub view: CatalogView,
    /// Who leads.
    pub leaders: Leaders,
    /// The nodes whose clocks are too far from the others'.
    pub clocks_off: RwLock<BTreeSet<u64>>,
    /// By node: where it says itself that it listens for other nodes, and what the catalog said of that when it did.
    told: RwLock<BTreeMap<u64, (String, String)>>,
    /// The nodes whose processes have ended, or that fell silent.
    away: RwLock<BTreeSet<u64>>,
    /// The nodes whose disks do not get on.
    slow: RwLock<BTreeSet<u64>>,
    /// The nodes whose logs take no entries for want of room.
    full: RwLock<BTreeSet<u64>>,
}

/// Puts a node into a set, or takes it out; mostly nothing changes.
fn note(set: &RwLock<BTreeSet<u64>>, node: u64, is_in: bool) {
    if set.read().contains(&node) == is_in {
        return;
    }
    let mut set = set.write();
    if is_in {
        set.insert(node)
    } else {
        set.remove(&node)
    };
}

impl Whereabouts {
    /// Whether the clock of a node is too far from the others'.
    pub fn is_clock_off(&self, node: u64) -> bool {
        self.clocks_off.read().contains(&node)
    }

    /// Takes note of where a node says itself that it listens for other nodes.
    pub fn note_told_address(&self, node: u64, peer_address: String) {
        if let Some(record) = self.view.current().nodes.get(&node) {
            self.told.write().insert(node, (peer_address, record.peer_address.clone()));
        }
    }

    /// Where a node has said that it listens for other nodes, since the catalog says `recorded`.
    pub fn told_address(&self, node: u64, recorded: &str) -> Option<String> {
        let told = self.told.read();
        told.get(&node).filter(|(_, then)| then == recorded).map(|(peer_address, _)| peer_address.clone())
    }

    /// Takes note of the nodes whose processes have ended, or that fell silent; they answer nobody.
    pub fn note_away(&self, away: BTreeSet<u64>) {
        if *self.away.read() != away {
            *self.away.write() = away;
        }
    }

    fn is_away(&self, node: u64) -> bool {
        self.away.read().contains(&node)
    }

    /// Takes note whether the disk of a node gets on.
    pub fn note_slow(&self, node: u64, is_slow: bool) {
        note(&self.slow, node, is_slow);
    }

    /// Takes note whether the log of a node takes no entries for want of room.
    pub fn note_full(&self, node: u64, is_full: bool) {
        note(&self.full, node, is_full);
    }

    /// Whether the log of a node takes no entries for want of room.
    pub fn is_full(&self, node: u64) -> bool {
        self.full.read().contains(&node)
    }

    /// Whether the log of any node takes none.
    pub fn is_any_full(&self) -> bool {
        !self.full.read().is_empty()
    }

    /// Whether the disk of a node does not get on.
    pub fn is_slow(&self, node: u64) -> bool {
        self.slow.read().contains(&node)
    }

    /// Whether so many of a group's voters have room that entries can be committed.
    pub fn has_room(&self, voters: &BTreeMap<ReplicaId, ReplicaAddress>) -> bool {
        let full = self.full.read();
        let with_room = voters.values().filter(|address| !full.contains(&node_of(address))).count();
        2 * with_room > voters.len()
    }

    /// Whether a node should be given leaderships.
    pub fn is_fit(&self, node: u64) -> bool {
        !self.is_clock_off(node) && !self.is_slow(node)
    }

    /// The node that leads a group and can be asked; `here` is what a replica here knows of it, with the term.
    pub fn node_leading(&self, group: GroupId, here: Option<(u64, LeaderHint)>) -> Option<u64> {
        let here = here.map(|(term, hint)| (term, node_of(&hint.address)));
        self.leaders.of_either(group, here).filter(|node| !self.is_away(*node))
    }

    /// Where the leader of a group is, if anybody who can be asked is known to lead it.
    pub fn leader_of(&self, group: GroupId, here: Option<(u64, LeaderHint)>) -> Option<LeaderAt> {
        self.at(self.node_leading(group, here)?)
    }

    /// Where the leader is that a replica knows of, if it can be asked.
    pub fn of_hint(&self, hint: &LeaderHint) -> Option<LeaderAt> {
        self.at(node_of(&hint.address)).filter(|at| !self.is_away(at.node))
    }

    /// Where a node is, if it is known and was not removed.
    pub fn at(&self, node: u64) -> Option<LeaderAt> {
        let state = self.view.current();
        let at = state.nodes.get(&node).filter(|at| at.state != NodeState::Removed)?;
        let address = at.address.clone();
        Some(LeaderAt { node, address })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_leaders_the_later_term_counts() {
        let (leaders, group) = (Leaders::default(), GroupId(3));
        leaders.note(group, 5, 1);
        leaders.note(group, 4, 2);
        assert_eq!(leaders.of(group), Some(1));
        leaders.note(group, 6, 2);
        assert_eq!(leaders.of(group), Some(2));
        leaders.forget(group, 1);
        assert_eq!(leaders.of(group), Some(2));
        leaders.forget(group, 2);
        assert_eq!(leaders.of(group), None);
        leaders.note(group, 5, 1);
        assert_eq!(leaders.of(group), None, "that was before");
    }

    #[test]
    fn the_later_word_counts_and_nobody_who_is_away() {
        let (whereabouts, group) = (Whereabouts::default(), GroupId(3));
        let here = |term, node| Some((term, LeaderHint { replica: ReplicaId(9), address: address_of(node) }));
        assert_eq!(whereabouts.node_leading(group, here(5, 1)), Some(1));
        whereabouts.leaders.note(group, 6, 2);
        assert_eq!(whereabouts.node_leading(group, here(5, 1)), Some(2), "the replica here was left behind");
        assert_eq!(whereabouts.node_leading(group, here(6, 2)), Some(2));
        assert_eq!(whereabouts.node_leading(group, here(7, 3)), Some(3));
        whereabouts.note_away([2, 3].into());
        assert_eq!(whereabouts.node_leading(group, here(7, 3)), None);
        assert_eq!(whereabouts.node_leading(group, None), None);
        whereabouts.note_away([3].into());
        assert_eq!(whereabouts.node_leading(group, None), Some(2));
        whereabouts.leaders.forget(group, 2);
        assert_eq!(whereabouts.node_leading(group, here(5, 1)), None, "that was before");
    }

    #[test]
    fn an_address_names_a_node() {
        assert_eq!(node_of(&address_of(7)), 7);
        assert_eq!(node_of(&ReplicaAddress("127.0.0.1:7117".into())), FIRST_NODE);
    }
}
