//! Owns the state of the catalog: a deterministic function of its log.

use std::collections::BTreeMap;

use fanfold_storage::codec::{Encoded, Malformed, Reader};
use fanfold_storage::command::Limits;
use fanfold_storage::ids::{GraphId, SpaceId};
use fanfold_storage::space::{SpaceDefinition, SpacePolicy};

use super::command::{CatalogCommand, CatalogOutcome, CatalogRefusal, Founding, SpaceChanges};
use super::nodes::{ClusterSettings, NodeRecord, NodeState, ReplicaRecord};
use super::policy::policy_refusal;

/// The graph of spaces that name none.
pub(super) const DEFAULT_GRAPH: &str = "follows";

/// How long entries of `stories` live: a day, in milliseconds.
const STORIES_TTL_MS: u64 = 24 * 3_600 * 1_000;

/// The most spaces, and the most graphs, of a cluster.
pub(crate) const SPACES_MAX: u16 = 4_096;

/// The replica that every group of a new cluster has.
const FIRST_REPLICA: u64 = 1;

/// The version of what stands behind the end of the first version of the encoding.
const EXTENSION: u8 = 2;

/// What the whole cluster agrees on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CatalogState {
    /// Counts the changes.
    pub epoch: u64,
    /// The cluster's id; none before it is founded.
    pub cluster_id: Option<u128>,
    /// The number of partitions.
    pub partitions: u16,
    /// What all nodes can do.
    pub feature_level: u32,
    /// The limits of every partition.
    pub limits: Limits,
    /// The nodes by id.
    pub nodes: BTreeMap<u64, NodeRecord>,
    /// The replicas wanted of each group, by number: 0 is the catalog, partition `n` is the group after it. The first
    /// is the preferred leader.
    pub groups: Vec<Vec<ReplicaRecord>>,
    /// Groups that lost their majority for good, and the replica that is to go on with what its node has.
    pub recovering: BTreeMap<u32, u64>,
    /// By group that was recovered: the replicas before this one are given up, and never count again.
    pub given_up_before: BTreeMap<u32, u64>,
    /// Of the groups that are being recovered, those that nobody has anything of: the replica begins with nothing.
    pub begins_empty: BTreeMap<u32, u64>,
    /// The last replica id that was given.
    pub last_replica: u64,
    /// What holds for the whole cluster.
    pub settings: ClusterSettings,
    /// The graphs by id.
    pub graphs: BTreeMap<GraphId, String>,
    /// The spaces by id.
    pub spaces: BTreeMap<SpaceId, SpaceDefinition>,
}

impl CatalogState {
    /// Applies one command.
    pub(super) fn apply(&mut self, command: CatalogCommand) -> CatalogOutcome {
        let outcome = match command {
            CatalogCommand::Found(founding) => self.found(founding),
            CatalogCommand::SetNodeAddress { node, address } => {
                // Of a time when a cluster had one node.
                if let Some(known) = self.nodes.get_mut(&node) {
                    known.address = address;
                }
                CatalogOutcome::Done
            }
            CatalogCommand::CreateSpace { name, graph, policy } => self.create(name, graph, policy),
            CatalogCommand::AlterSpace { name, changes } => self.alter(&name, &changes),
            CatalogCommand::SetLimits { limits } => {
                self.limits = limits;
                CatalogOutcome::Done
            }
            CatalogCommand::AddNode(facts) => self.add_node(facts),
            CatalogCommand::UpdateNode { node, facts } => self.update_node(node, facts),
            CatalogCommand::Edit(edit) => self.edit(edit),
            CatalogCommand::TakeOver(taken) => self.take_over(taken),
            CatalogCommand::RaiseLevel { epoch, .. } if epoch != self.epoch => {
                CatalogOutcome::Refused(CatalogRefusal::Stale)
            }
            CatalogCommand::RaiseLevel { level, .. } if level <= self.feature_level => {
                CatalogOutcome::Refused(CatalogRefusal::Malformed)
            }
            CatalogCommand::RaiseLevel { level, .. } => {
                self.feature_level = level;
                CatalogOutcome::Done
            }
        };
        if !matches!(outcome, CatalogOutcome::Refused(_)) {
            self.epoch += 1;
        }
        outcome
    }

    /// The space of that name.
    pub fn space(&self, name: &str) -> Option<&SpaceDefinition> {
        self.spaces.values().find(|space| space.name == name)
    }

    fn found(&mut self, founding: Founding) -> CatalogOutcome {
        if self.cluster_id.is_some() {
            return CatalogOutcome::Refused(CatalogRefusal::Founded);
        }
        self.cluster_id = Some(founding.cluster_id);
        self.partitions = founding.partitions;
        self.feature_level = founding.feature_level;
        self.limits = founding.limits;
        self.nodes.insert(founding.node, plain_node(founding.address));
        let first = ReplicaRecord { replica: FIRST_REPLICA, node: founding.node };
        self.groups = vec![vec![first]; usize::from(founding.partitions) + 1];
        self.last_replica = FIRST_REPLICA;
        let stories = SpacePolicy { default_ttl_ms: Some(STORIES_TTL_MS), ..SpacePolicy::default() };
        self.create("posts".to_owned(), DEFAULT_GRAPH.to_owned(), SpacePolicy::default());
        self.create("stories".to_owned(), DEFAULT_GRAPH.to_owned(), stories);
        CatalogOutcome::Done
    }

    fn create(&mut self, name: String, graph_name: String, policy: SpacePolicy) -> CatalogOutcome {
        if self.space(&name).is_some() {
            return CatalogOutcome::Refused(CatalogRefusal::SpaceExists);
        }
        if let Some(refusal) = policy_refusal(&policy) {
            return CatalogOutcome::Refused(CatalogRefusal::Policy(refusal));
        }
        // Neither spaces nor graphs are ever removed, so the last number is the count.
        if self.spaces.len() >= usize::from(SPACES_MAX) {
            return CatalogOutcome::Refused(CatalogRefusal::Exhausted);
        }
        let id = SpaceId(self.spaces.len() as u16 + 1);
        let known = self.graphs.iter().find(|(_, known)| **known == graph_name).map(|(id, _)| *id);
        let graph = known.unwrap_or(GraphId(self.graphs.len() as u16 + 1));
        self.graphs.insert(graph, graph_name.clone());
        let definition = SpaceDefinition { id, name, graph, graph_name, version: 1, policy };
        self.spaces.insert(id, definition.clone());
        CatalogOutcome::Space(definition)
    }

    fn alter(&mut self, name: &str, changes: &SpaceChanges) -> CatalogOutcome {
        let Some(space) = self.spaces.values_mut().find(|space| space.name == name) else {
            return CatalogOutcome::Refused(CatalogRefusal::UnknownSpace);
        };
        let policy = changes.apply(&space.policy);
        if let Some(refusal) = policy_refusal(&policy) {
            return CatalogOutcome::Refused(CatalogRefusal::Policy(refusal));
        }
        space.policy = policy;
        space.version += 1;
        CatalogOutcome::Space(space.clone())
    }
}

/// A node that has only said where it listens.
pub(super) fn plain_node(address: String) -> NodeRecord {
    let (peer_address, zone) = (String::new(), String::new());
    NodeRecord { address, peer_address, zone, state: NodeState::Active, directory_id: 0 }
}

impl Encoded for CatalogState {
    fn encode(&self, out: &mut Vec<u8>) {
        self.epoch.encode(out);
        out.push(u8::from(self.cluster_id.is_some()));
        if let Some(cluster_id) = self.cluster_id {
            out.extend_from_slice(&cluster_id.to_le_bytes());
        }
        self.partitions.encode(out);
        self.feature_level.encode(out);
        self.limits.encode(out);
        let nodes: Vec<_> = self.nodes.iter().map(|(id, node)| (*id, node.address.clone())).collect();
        nodes.encode(out);
        let nodes_of = |wanted: &Vec<ReplicaRecord>| wanted.iter().map(|r| r.node).collect::<Vec<_>>();
        self.groups.iter().skip(1).map(nodes_of).collect::<Vec<_>>().encode(out);
        let graphs: Vec<_> = self.graphs.iter().map(|(id, name)| (*id, name.clone())).collect();
        graphs.encode(out);
        let spaces: Vec<_> = self.spaces.values().cloned().collect();
        spaces.encode(out);
        out.push(EXTENSION);
        let nodes: Vec<_> = self.nodes.iter().map(|(id, node)| (*id, node.clone())).collect();
        nodes.encode(out);
        self.groups.encode(out);
        self.last_replica.encode(out);
        self.settings.encode(out);
        self.recovering.encode(out);
        // It was not there at first.
        if !self.given_up_before.is_empty() {
            self.given_up_before.encode(out);
        }
        // Nor was this; what begins empty was given up.
        if !self.begins_empty.is_empty() {
            self.begins_empty.encode(out);
        }
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut state = Self {
            epoch: from.u64()?,
            cluster_id: from.option(Reader::u128)?,
            partitions: from.u16()?,
            feature_level: from.u32()?,
            limits: Limits::decode(from)?,
            nodes: Vec::<(u64, String)>::decode(from)?
                .into_iter()
                .map(|(id, address)| (id, plain_node(address)))
                .collect(),
            groups: {
                // Whoever wrote no more than this had one replica of every group, and the catalog where they are.
                let placement = Vec::<Vec<u64>>::decode(from)?;
                let first = |node: &u64| ReplicaRecord { replica: FIRST_REPLICA, node: *node };
                let catalog = placement.first().cloned().into_iter();
                catalog.chain(placement).map(|nodes| nodes.iter().map(first).collect()).collect()
            },
            recovering: BTreeMap::new(),
            given_up_before: BTreeMap::new(),
            begins_empty: BTreeMap::new(),
            last_replica: FIRST_REPLICA,
            settings: ClusterSettings::default(),
            graphs: Vec::<(GraphId, String)>::decode(from)?.into_iter().collect(),
            spaces: Vec::<SpaceDefinition>::decode(from)?.into_iter().map(|s| (s.id, s)).collect(),
        };
        if from.left() > 0 {
            if from.byte()? != EXTENSION {
                return Err(from.malformed("extension of the catalog"));
            }
            state.nodes = Vec::<(u64, NodeRecord)>::decode(from)?.into_iter().collect();
            state.groups = Encoded::decode(from)?;
            state.last_replica = from.u64()?;
            state.settings = ClusterSettings::decode(from)?;
            state.recovering = Encoded::decode(from)?;
            if from.left() > 0 {
                state.given_up_before = Encoded::decode(from)?;
            }
            if from.left() > 0 {
                state.begins_empty = Encoded::decode(from)?;
            }
        }
        Ok(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_before_there_were_several_nodes_is_read() {
        let founding = Founding {
            cluster_id: 7,
            partitions: 4,
            node: 1,
            address: "here:1".into(),
            limits: Limits::default(),
            feature_level: 1,
        };
        let mut state = CatalogState::default();
        assert_eq!(state.apply(CatalogCommand::Found(founding)), CatalogOutcome::Done);
        let mut bytes = Vec::new();
        state.encode(&mut bytes);
        assert_eq!(CatalogState::decode(&mut Reader::new(&bytes)).unwrap(), state);
        let mut extension = Vec::new();
        let nodes: Vec<_> = state.nodes.iter().map(|(id, node)| (*id, node.clone())).collect();
        nodes.encode(&mut extension);
        state.groups.encode(&mut extension);
        state.last_replica.encode(&mut extension);
        state.settings.encode(&mut extension);
        state.recovering.encode(&mut extension);
        bytes.truncate(bytes.len() - extension.len() - 1);
        assert_eq!(CatalogState::decode(&mut Reader::new(&bytes)).unwrap(), state);
    }
}
