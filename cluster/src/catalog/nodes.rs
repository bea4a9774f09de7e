//! Owns what the catalog holds of nodes and of the replicas that are wanted on them, and the commands that change it.
//!
//! - Ids of nodes and replicas count up and are never used twice; a removed node keeps its record.
//! - A directory is one node for ever: who asks twice with the same directory gets the same id.
//! - An edit names the epoch that it was made for, so that no two edits are made of the same state.

use fanfold_storage::codec::{Encoded, Malformed, Reader};

use super::command::{CatalogOutcome, CatalogRefusal};
use super::state::CatalogState;

/// Replicas that a group should have, if nothing else is set.
pub const REPLICAS_DEFAULT: u8 = 3;

/// The most replicas of a group.
pub const REPLICAS_MAX: u8 = 7;

/// What the address of a node begins with that gave it up and has no other one yet. Nobody can take it for an address.
pub const MOVED: &str = "moved:";

/// How long a node may be silent before its replicas go elsewhere, if nothing else is set, in milliseconds.
pub const REPAIR_AFTER_MS_DEFAULT: u64 = 10 * 60 * 1_000;

/// What a node is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NodeState {
    /// It holds replicas and takes more.
    Active,
    /// Its replicas go elsewhere.
    Draining,
    /// It is no part of the cluster any more, and never again.
    Removed,
}

/// A node as the catalog knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRecord {
    /// Where it listens for clients, `host:port`.
    pub address: String,
    /// Where it listens for other nodes; empty if it does not.
    pub peer_address: String,
    /// What may fail together with others of the same name.
    pub zone: String,
    /// What it is for.
    pub state: NodeState,
    /// Its data directory; 0 if it has not said yet.
    pub directory_id: u128,
}

/// A replica that a group should have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaRecord {
    /// The replica.
    pub replica: u64,
    /// Its node.
    pub node: u64,
}

/// What holds for the whole cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClusterSettings {
    /// Replicas that each group should have, as far as there are nodes.
    pub replicas: u8,
    /// How long a node may be silent before its replicas go elsewhere, in milliseconds; 0: for ever.
    pub repair_after_ms: u64,
}

impl Default for ClusterSettings {
    fn default() -> Self {
        Self { replicas: REPLICAS_DEFAULT, repair_after_ms: REPAIR_AFTER_MS_DEFAULT }
    }
}

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeFacts {
    /// Its data directory.
    pub directory_id: u128,
    /// Where it listens for clients.
    pub address: String,
    /// Where it listens for other nodes.
    pub peer_address: String,
    /// Its zone.
    pub zone: String,
}

/// Where a replica is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// On this node.
    pub node: u64,
    /// Under a new id, even if there is one.
    pub is_new: bool,
}

/// Changes of nodes and placement, made of the state of one epoch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Edit {
    /// The epoch that it was made for; any other state refuses it.
    pub epoch: u64,
    /// New states of nodes.
    pub nodes: Vec<(u64, NodeState)>,
    /// By group: where its replicas are wanted, the preferred leader first.
    pub groups: Vec<(u32, Vec<Place>)>,
    /// New settings.
    pub settings: Option<ClusterSettings>,
    /// Groups that go on with nothing but what this node has of them.
    pub recover: Vec<(u32, u64)>,
    /// Groups that do.
    pub recovered: Vec<u32>,
    /// Groups that nobody has anything of, and that begin with nothing on this node.
    pub empty: Vec<(u32, u64)>,
}

impl Edit {
    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        let Self { nodes, groups, settings, recover, recovered, empty, epoch: _ } = self;
        let is_still = groups.is_empty() && recover.is_empty() && recovered.is_empty() && empty.is_empty();
        is_still && nodes.is_empty() && settings.is_none()
    }
}

impl CatalogState {
    /// The wanted replicas of a group.
    pub fn wanted(&self, group: u32) -> &[ReplicaRecord] {
        self.groups.get(group as usize).map_or(&[], Vec::as_slice)
    }

    /// Whether a replica was given up when its group was recovered: it votes and answers nowhere any more.
    pub fn is_given_up(&self, group: u32, replica: u64) -> bool {
        self.given_up_before.get(&group).is_some_and(|first| replica < *first)
    }

    /// The nodes that take replicas.
    pub fn active_nodes(&self) -> impl Iterator<Item = u64> + '_ {
        self.nodes.iter().filter(|(_, node)| node.state == NodeState::Active).map(|(id, _)| *id)
    }

    /// The nodes that were not removed.
    pub fn present_nodes(&self) -> impl Iterator<Item = u64> + '_ {
        self.nodes.iter().filter(|(_, node)| node.state != NodeState::Removed).map(|(id, _)| *id)
    }

    pub(super) fn add_node(&mut self, facts: NodeFacts) -> CatalogOutcome {
        if self.cluster_id.is_none() || facts.directory_id == 0 {
            return CatalogOutcome::Refused(CatalogRefusal::NotFounded);
        }
        let known = self.nodes.iter().find(|(_, node)| node.directory_id == facts.directory_id);
        if let Some((&node, record)) = known {
            if record.state == NodeState::Removed {
                return CatalogOutcome::Refused(CatalogRefusal::NodeRemoved { node });
            }
            return self.update_node(node, facts);
        }
        if let Some(node) = self.holder_of(&facts, None) {
            return CatalogOutcome::Refused(CatalogRefusal::AddressTaken { node });
        }
        let node = self.nodes.keys().next_back().copied().unwrap_or(0) + 1;
        self.nodes.insert(node, facts.into_record(NodeState::Active));
        CatalogOutcome::Node { node }
    }

    pub(super) fn update_node(&mut self, node: u64, facts: NodeFacts) -> CatalogOutcome {
        let Some(known) = self.nodes.get(&node) else {
            return CatalogOutcome::Refused(CatalogRefusal::UnknownNode { node });
        };
        if known.state == NodeState::Removed {
            return CatalogOutcome::Refused(CatalogRefusal::NodeRemoved { node });
        }
        if known.directory_id != 0 && known.directory_id != facts.directory_id {
            return CatalogOutcome::Refused(CatalogRefusal::OtherDirectory { node });
        }
        if let Some(holder) = self.holder_of(&facts, Some(node)) {
            return CatalogOutcome::Refused(CatalogRefusal::AddressTaken { node: holder });
        }
        let state = known.state;
        self.nodes.insert(node, facts.into_record(state));
        CatalogOutcome::Node { node }
    }

    /// The node, other than `but`, that listens where a node wants to.
    fn holder_of(&self, facts: &NodeFacts, but: Option<u64>) -> Option<u64> {
        let holds = |record: &NodeRecord| {
            let is_same = !facts.peer_address.is_empty() && record.peer_address == facts.peer_address;
            record.state != NodeState::Removed && (is_same || record.address == facts.address)
        };
        self.nodes.iter().find(|(id, record)| Some(**id) != but && holds(record)).map(|(id, _)| *id)
    }

    /// The state with an edit made.
    pub(crate) fn edited(&self, edit: &Edit) -> Self {
        let mut state = self.clone();
        state.edit(Edit { epoch: self.epoch, ..edit.clone() });
        state
    }

    /// Whether everything is as an edit makes it.
    pub(crate) fn shows(&self, edit: &Edit) -> bool {
        let is_so = |(node, state): &(u64, NodeState)| {
            self.nodes.get(node).is_some_and(|record| record.state == *state)
        };
        let is_placed = |(group, places): &(u32, Vec<Place>)| {
            self.wanted(*group).iter().map(|record| record.node).eq(places.iter().map(|place| place.node))
        };
        let is_kept = |(group, node): &(u32, u64)| self.wanted(*group).iter().all(|held| held.node == *node);
        edit.nodes.iter().all(is_so)
            && edit.groups.iter().all(is_placed)
            && edit.settings.is_none_or(|settings| settings == self.settings)
            && edit.recover.iter().chain(&edit.empty).all(is_kept)
            && edit.recovered.iter().all(|group| !self.recovering.contains_key(group))
    }

    pub(super) fn edit(&mut self, edit: Edit) -> CatalogOutcome {
        if edit.epoch != self.epoch {
            return CatalogOutcome::Refused(CatalogRefusal::Stale);
        }
        let unknown = |node: &u64| !self.nodes.contains_key(node);
        let placed = || {
            let recovered = edit.recover.iter().chain(&edit.empty).map(|(_, node)| *node);
            edit.groups.iter().flat_map(|(_, places)| places.iter().map(|place| place.node)).chain(recovered)
        };
        let node = edit.nodes.iter().map(|(node, _)| *node).chain(placed()).find(unknown);
        if let Some(node) = node {
            return CatalogOutcome::Refused(CatalogRefusal::UnknownNode { node });
        }
        // What would leave a group without a replica is a mistake of who made it.
        let is_sound =
            |(group, places): &(u32, Vec<Place>)| (*group as usize) < self.groups.len() && !places.is_empty();
        let is_group = |(group, _): &(u32, u64)| (*group as usize) < self.groups.len();
        if !edit.groups.iter().all(is_sound) || !edit.recover.iter().chain(&edit.empty).all(is_group) {
            return CatalogOutcome::Refused(CatalogRefusal::Malformed);
        }
        for (node, state) in edit.nodes {
            if let Some(record) = self.nodes.get_mut(&node)
                && record.state != NodeState::Removed
            {
                record.state = state;
            }
        }
        for (group, places) in edit.groups {
            let mut wanted: Vec<ReplicaRecord> = Vec::with_capacity(places.len());
            for Place { node, is_new } in places {
                let known = self.groups[group as usize].iter().find(|known| known.node == node && !is_new);
                let record = known.copied().unwrap_or_else(|| {
                    self.last_replica += 1;
                    ReplicaRecord { replica: self.last_replica, node }
                });
                if !wanted.iter().any(|placed| placed.node == node) {
                    wanted.push(record);
                }
            }
            self.groups[group as usize] = wanted;
        }
        for (group, node) in edit.recover {
            self.begin_recovery(group, node);
            self.begins_empty.remove(&group);
        }
        for (group, node) in edit.empty {
            let replica = self.begin_recovery(group, node);
            self.begins_empty.insert(group, replica);
        }
        for group in edit.recovered {
            self.recovering.remove(&group);
            self.begins_empty.remove(&group);
        }
        self.settings = edit.settings.unwrap_or(self.settings);
        CatalogOutcome::Done
    }

    /// Lets a group go on with a new replica on one node; those before it are given up.
    fn begin_recovery(&mut self, group: u32, node: u64) -> u64 {
        self.last_replica += 1;
        let replica = self.last_replica;
        self.groups[group as usize] = vec![ReplicaRecord { replica, node }];
        self.recovering.insert(group, replica);
        self.given_up_before.insert(group, replica);
        replica
    }
}

impl NodeFacts {
    /// Whether the record says the same.
    pub fn agree(&self, record: &NodeRecord) -> bool {
        *record == self.clone().into_record(record.state)
    }

    fn into_record(self, state: NodeState) -> NodeRecord {
        let Self { directory_id, address, peer_address, zone } = self;
        NodeRecord { address, peer_address, zone, state, directory_id }
    }
}

impl Encoded for NodeState {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(match self {
            Self::Active => 1,
            Self::Draining => 2,
            Self::Removed => 3,
        });
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(match from.byte()? {
            1 => Self::Active,
            2 => Self::Draining,
            3 => Self::Removed,
            _ => return Err(from.malformed("state of a node")),
        })
    }
}

impl Encoded for NodeRecord {
    fn encode(&self, out: &mut Vec<u8>) {
        self.address.encode(out);
        self.peer_address.encode(out);
        self.zone.encode(out);
        self.state.encode(out);
        self.directory_id.encode(out);
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            address: from.string()?,
            peer_address: from.string()?,
            zone: from.string()?,
            state: NodeState::decode(from)?,
            directory_id: from.u128()?,
        })
    }
}

impl Encoded for ReplicaRecord {
    fn encode(&self, out: &mut Vec<u8>) {
        self.replica.encode(out);
        self.node.encode(out);
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self { replica: from.u64()?, node: from.u64()? })
    }
}

impl Encoded for ClusterSettings {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.replicas);
        self.repair_after_ms.encode(out);
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self { replicas: from.byte()?, repair_after_ms: from.u64()? })
    }
}

impl Encoded for NodeFacts {
    fn encode(&self, out: &mut Vec<u8>) {
        self.directory_id.encode(out);
        self.address.encode(out);
        self.peer_address.encode(out);
        self.zone.encode(out);
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            directory_id: from.u128()?,
            address: from.string()?,
            peer_address: from.string()?,
            zone: from.string()?,
        })
    }
}

impl Encoded for Place {
    fn encode(&self, out: &mut Vec<u8>) {
        self.node.encode(out);
        self.is_new.encode(out);
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self { node: from.u64()?, is_new: from.flag()? })
    }
}

/// Groups that begin empty stand behind it, and the command has another number then.
impl Encoded for Edit {
    fn encode(&self, out: &mut Vec<u8>) {
        self.epoch.encode(out);
        self.nodes.encode(out);
        self.groups.encode(out);
        self.settings.encode(out);
        self.recover.encode(out);
        self.recovered.encode(out);
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            epoch: from.u64()?,
            nodes: Encoded::decode(from)?,
            groups: Encoded::decode(from)?,
            settings: Encoded::decode(from)?,
            recover: Encoded::decode(from)?,
            recovered: Encoded::decode(from)?,
            empty: Vec::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(directory_id: u128, port: u16) -> NodeFacts {
        let (address, peer_address) = (format!("h:{port}"), format!("p:{port}"));
        NodeFacts { directory_id, address, peer_address, zone: String::new() }
    }

    fn founded() -> CatalogState {
        let first = ReplicaRecord { replica: 1, node: 1 };
        CatalogState {
            cluster_id: Some(5),
            nodes: [(1, facts(11, 1).into_record(NodeState::Active))].into(),
            groups: vec![vec![first]; 3],
            last_replica: 1,
            ..CatalogState::default()
        }
    }

    #[test]
    fn a_directory_is_one_node_for_ever() {
        let mut state = founded();
        assert_eq!(state.add_node(facts(22, 2)), CatalogOutcome::Node { node: 2 });
        assert_eq!(state.add_node(facts(22, 9)), CatalogOutcome::Node { node: 2 }, "it moved");
        assert_eq!(state.nodes[&2].address, "h:9");
        let taken = state.add_node(facts(33, 9));
        assert_eq!(taken, CatalogOutcome::Refused(CatalogRefusal::AddressTaken { node: 2 }));
        let other = state.update_node(2, facts(33, 8));
        assert_eq!(other, CatalogOutcome::Refused(CatalogRefusal::OtherDirectory { node: 2 }));
        state.nodes.get_mut(&2).unwrap().state = NodeState::Removed;
        assert_eq!(
            state.add_node(facts(22, 2)),
            CatalogOutcome::Refused(CatalogRefusal::NodeRemoved { node: 2 })
        );
        assert_eq!(
            state.add_node(facts(33, 9)),
            CatalogOutcome::Node { node: 3 },
            "the address is free again"
        );
    }

    #[test]
    fn an_edit_keeps_the_replicas_that_stay_and_never_reuses_an_id() {
        let mut state = founded();
        state.add_node(facts(22, 2));
        let place = |node, is_new| Place { node, is_new };
        let edit = |state: &CatalogState, places| Edit {
            epoch: state.epoch,
            groups: vec![(1, places)],
            ..Edit::default()
        };
        let both = edit(&state, vec![place(2, false), place(1, false)]);
        assert_eq!(state.edit(both.clone()), CatalogOutcome::Done);
        let (first, second) = (ReplicaRecord { replica: 1, node: 1 }, ReplicaRecord { replica: 2, node: 2 });
        assert_eq!(state.wanted(1), [second, first]);
        state.edit(edit(&state, vec![place(1, false)]));
        state.edit(edit(&state, vec![place(1, true), place(2, false)]));
        let again = [ReplicaRecord { replica: 3, node: 1 }, ReplicaRecord { replica: 4, node: 2 }];
        assert_eq!(state.wanted(1), again);
        assert_eq!(state.wanted(2), [first], "others stay");
        state.epoch += 1;
        assert_eq!(state.edit(both), CatalogOutcome::Refused(CatalogRefusal::Stale));
        for places in [Vec::new(), vec![place(7, false)]] {
            assert!(matches!(state.edit(edit(&state, places)), CatalogOutcome::Refused(_)));
            assert_eq!(state.wanted(1), again);
        }
    }
}
