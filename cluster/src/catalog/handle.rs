//! Owns the replica of the catalog on this node.

use std::sync::Arc;

use bytes::Bytes;

use super::command::CatalogOutcome;
use super::machine::CatalogMachine;
use crate::error::NodeError;
use crate::map::Whereabouts;
use crate::proposer::Proposer;
use crate::raft::Group;

/// The catalog on this node.
pub(crate) struct CatalogHandle {
    group: Group<CatalogMachine>,
    proposer: Proposer<CatalogOutcome>,
    whereabouts: Arc<Whereabouts>,
}

impl CatalogHandle {
    /// The catalog of this group and its proposer.
    pub fn new(
        group: Group<CatalogMachine>,
        proposer: Proposer<CatalogOutcome>,
        whereabouts: Arc<Whereabouts>,
    ) -> Self {
        Self { group, proposer, whereabouts }
    }

    /// Its Raft group.
    pub fn group(&self) -> &Group<CatalogMachine> {
        &self.group
    }

    /// Proposes an encoded command and waits until it is applied.
    pub async fn propose(&self, command: Bytes) -> Result<CatalogOutcome, NodeError> {
        let proposed = self.proposer.propose(command).await;
        let failed = |error| NodeError::from_proposal(None, &error, &self.whereabouts);
        Ok(proposed.map_err(failed)?.outcome)
    }
}
