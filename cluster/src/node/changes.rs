//! Owns the changes to spaces: made in the catalog, answered when every partition has applied them.

use std::time::Duration;

use fanfold_storage::space::{SpaceDefinition, SpacePolicy};

use super::survey::Control;
use super::{Node, tasks};
use crate::catalog::SpaceChanges;
use crate::error::NodeError;

/// How long the partitions that other nodes lead are waited for.
pub(super) const OTHERS_WAIT: Duration = Duration::from_secs(5);

impl Node {
    /// Makes a space. Its graph is made if there is none of that name; without a name it is `follows`.
    pub async fn create_space(
        &self,
        name: &str,
        graph: Option<&str>,
        policy: SpacePolicy,
    ) -> Result<SpaceDefinition, NodeError> {
        let _pass = self.enter()?;
        let definition = self.catalog.create_space(name, graph, policy).await?;
        self.applied_everywhere(definition).await
    }

    /// Changes the policy of a space.
    pub async fn alter_space(&self, name: &str, changes: SpaceChanges) -> Result<SpaceDefinition, NodeError> {
        let _pass = self.enter()?;
        let definition = self.catalog.alter_space(name, changes).await?;
        self.applied_everywhere(definition).await
    }

    async fn applied_everywhere(&self, definition: SpaceDefinition) -> Result<SpaceDefinition, NodeError> {
        tokio::select! {
            applied = self.distributor.wait_for(definition.id, definition.version) => applied?,
            () = self.stopping.cancelled() => return Err(NodeError::CatalogUnavailable { may_have_applied: true }),
        }
        if let Some(peers) = &self.peers {
            // Who does not answer in time learns of it before it takes anything that names it (R3).
            let (space, version) = (definition.id, definition.version);
            tasks::await_space(peers, Control::AwaitSpace { space, version }, OTHERS_WAIT).await;
        }
        Ok(definition)
    }
}
