//! Owns the way to the catalog: proposing changes, and reading what it holds.

use fanfold_storage::command::Limits;
use fanfold_storage::ids::{GraphId, SpaceId};
use fanfold_storage::space::{SpaceDefinition, SpacePolicy};

use super::command::{CatalogCommand, CatalogOutcome, CatalogRefusal, SpaceChanges};
use super::machine::CatalogMachine;
use super::policy::name_refusal;
use super::state::{CatalogState, DEFAULT_GRAPH, SPACES_MAX};
use crate::error::NodeError;
use crate::proposer::Proposer;
use crate::raft::Group;

/// The catalog on this node.
pub(crate) struct CatalogHandle {
    group: Group<CatalogMachine>,
    proposer: Proposer<CatalogOutcome>,
}

impl CatalogHandle {
    /// The catalog of this group and its proposer.
    pub fn new(group: Group<CatalogMachine>, proposer: Proposer<CatalogOutcome>) -> Self {
        Self { group, proposer }
    }

    /// Its Raft group.
    pub fn group(&self) -> &Group<CatalogMachine> {
        &self.group
    }

    /// Reads what is applied here now.
    pub fn read<T>(&self, read: impl FnOnce(&CatalogState) -> T) -> T {
        self.group.read(|machine| read(machine.state()))
    }

    /// Makes a space.
    pub async fn create_space(
        &self,
        name: &str,
        graph: Option<&str>,
        policy: SpacePolicy,
    ) -> Result<SpaceDefinition, NodeError> {
        let graph = graph.unwrap_or(DEFAULT_GRAPH);
        if let Some(refusal) = name_refusal(name).or_else(|| name_refusal(graph)) {
            return Err(refusal);
        }
        let (name, graph) = (name.to_owned(), graph.to_owned());
        self.space(&CatalogCommand::CreateSpace { name, graph, policy }).await
    }

    /// Changes a space.
    pub async fn alter_space(&self, name: &str, changes: SpaceChanges) -> Result<SpaceDefinition, NodeError> {
        self.space(&CatalogCommand::AlterSpace { name: name.to_owned(), changes }).await
    }

    /// Says where a node listens, if the catalog says otherwise.
    pub async fn set_address(&self, node: u64, address: &str) -> Result<(), NodeError> {
        if self.read(|state| state.nodes.get(&node).is_some_and(|known| known.address == address)) {
            return Ok(());
        }
        let address = address.to_owned();
        self.propose(&CatalogCommand::SetNodeAddress { node, address }).await.map(|_| ())
    }

    /// Sets the limits of every partition, if the catalog has others.
    pub async fn set_limits(&self, limits: &Limits) -> Result<(), NodeError> {
        if self.read(|state| state.limits == *limits) {
            return Ok(());
        }
        self.propose(&CatalogCommand::SetLimits { limits: limits.clone() }).await.map(|_| ())
    }

    /// Proposes a command and waits until it is applied.
    pub async fn propose(&self, command: &CatalogCommand) -> Result<CatalogOutcome, NodeError> {
        let proposed = self.proposer.propose(command.to_bytes()).await;
        let outcome = proposed.map_err(|error| NodeError::from_proposal(None, &error))?.outcome;
        match outcome {
            CatalogOutcome::Refused(refusal) => Err(self.refused(refusal)),
            outcome => Ok(outcome),
        }
    }

    async fn space(&self, command: &CatalogCommand) -> Result<SpaceDefinition, NodeError> {
        match self.propose(command).await? {
            CatalogOutcome::Space(definition) => Ok(definition),
            _ => Err(NodeError::CatalogUnavailable { may_have_applied: true }),
        }
    }

    fn refused(&self, refusal: CatalogRefusal) -> NodeError {
        match refusal {
            CatalogRefusal::UnknownSpace => NodeError::UnknownSpace { known: self.known_spaces() },
            CatalogRefusal::SpaceExists => NodeError::SpaceExists,
            CatalogRefusal::Exhausted => NodeError::SpacesExhausted { limit: SPACES_MAX },
            CatalogRefusal::Policy(refusal) => refusal.into(),
            CatalogRefusal::Founded | CatalogRefusal::Malformed => {
                NodeError::CatalogUnavailable { may_have_applied: false }
            }
        }
    }

    /// The spaces by id.
    pub fn known_spaces(&self) -> Vec<(SpaceId, String)> {
        self.read(|state| state.spaces.values().map(|space| (space.id, space.name.clone())).collect())
    }

    /// The graphs by id.
    pub fn known_graphs(&self) -> Vec<(GraphId, String)> {
        self.read(|state| state.graphs.iter().map(|(id, name)| (*id, name.clone())).collect())
    }
}
