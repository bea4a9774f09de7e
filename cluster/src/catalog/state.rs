//! Owns the state of the catalog: a deterministic function of its log.

use std::collections::BTreeMap;

use fanfold_storage::codec::{Encoded, Malformed, Reader};
use fanfold_storage::command::Limits;
use fanfold_storage::ids::{GraphId, SpaceId};
use fanfold_storage::space::{SpaceDefinition, SpacePolicy};

use super::command::{CatalogCommand, CatalogOutcome, CatalogRefusal, Founding, SpaceChanges};
use super::policy::policy_refusal;

/// The graph of spaces that name none.
pub(super) const DEFAULT_GRAPH: &str = "follows";

/// How long entries of `stories` live: a day, in milliseconds.
const STORIES_TTL_MS: u64 = 24 * 3_600 * 1_000;

/// The most spaces, and the most graphs, of a cluster.
pub(crate) const SPACES_MAX: u16 = 4_096;

/// A node as the catalog knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRecord {
    /// Where it listens, `host:port`.
    pub address: String,
}

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
    /// The nodes that hold a replica of each partition, by partition.
    pub placement: Vec<Vec<u64>>,
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
                self.nodes.insert(node, NodeRecord { address });
                CatalogOutcome::Done
            }
            CatalogCommand::CreateSpace { name, graph, policy } => self.create(name, graph, policy),
            CatalogCommand::AlterSpace { name, changes } => self.alter(&name, &changes),
            CatalogCommand::SetLimits { limits } => {
                self.limits = limits;
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
        self.nodes.insert(founding.node, NodeRecord { address: founding.address });
        self.placement = vec![vec![founding.node]; usize::from(founding.partitions)];
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
        self.placement.encode(out);
        let graphs: Vec<_> = self.graphs.iter().map(|(id, name)| (*id, name.clone())).collect();
        graphs.encode(out);
        let spaces: Vec<_> = self.spaces.values().cloned().collect();
        spaces.encode(out);
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            epoch: from.u64()?,
            cluster_id: from.option(Reader::u128)?,
            partitions: from.u16()?,
            feature_level: from.u32()?,
            limits: Limits::decode(from)?,
            nodes: Vec::<(u64, String)>::decode(from)?
                .into_iter()
                .map(|(id, address)| (id, NodeRecord { address }))
                .collect(),
            placement: Encoded::decode(from)?,
            graphs: Vec::<(GraphId, String)>::decode(from)?.into_iter().collect(),
            spaces: Vec::<SpaceDefinition>::decode(from)?.into_iter().map(|s| (s.id, s)).collect(),
        })
    }
}
