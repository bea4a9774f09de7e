//! Owns the distributor: it brings the limits and the spaces of the catalog into each partition's log (R3).
//!
//! - A partition is told of what it does not have yet, at start and after every change.
//! - A change counts as made once every partition that serves here has applied it.

use std::sync::Arc;
use std::time::Duration;

use fanfold_storage::command::Command;
use fanfold_storage::ids::{PartitionId, SpaceId};
use fanfold_storage::partition::Partition;
use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;

use super::handle::CatalogHandle;
use super::state::CatalogState;
use crate::error::NodeError;
use crate::partition::PartitionHandle;

/// How long after a failure it is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// Brings the catalog's definitions into the partitions.
#[derive(Clone)]
pub(crate) struct Distributor {
    catalog: Arc<CatalogHandle>,
    partitions: Arc<[Option<Arc<PartitionHandle>>]>,
}

impl Distributor {
    /// The distributor of a catalog to the partitions of this node.
    pub fn new(catalog: Arc<CatalogHandle>, partitions: Arc<[Option<Arc<PartitionHandle>>]>) -> Self {
        Self { catalog, partitions }
    }

    /// Runs until it is stopped.
    pub async fn run(self, stop: CancellationToken) {
        let mut applied = self.catalog.group().watch_applied();
        loop {
            applied.borrow_and_update();
            let retry = match self.distribute().await {
                Ok(()) => None,
                Err(error) => {
                    tracing::warn!(%error, "a partition has not taken the catalog's definitions; trying again");
                    Some(RETRY_AFTER)
                }
            };
            let again = async {
                match retry {
                    Some(delay) => tokio::time::sleep(delay).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                changed = applied.changed() => if changed.is_err() { return },
                () = again => {}
            }
        }
    }

    /// Brings every partition up to the catalog; the first error, after all were tried.
    pub async fn distribute(&self) -> Result<(), NodeError> {
        let all = self.partitions.iter().flatten().map(|partition| self.update(partition));
        join_all(all).await.into_iter().collect()
    }

    /// Waits until every partition knows a version of a space.
    pub async fn wait_for(&self, space: SpaceId, version: u64) -> Result<(), NodeError> {
        let all = self.partitions.iter().flatten().map(|partition| async move {
            let mut applied = partition.group().watch_applied();
            loop {
                applied.borrow_and_update();
                if partition.read(|p| p.space(space).is_some_and(|known| known.version >= version))? {
                    return Ok(());
                }
                applied.changed().await.map_err(|_| stopped(partition.id()))?;
            }
        });
        join_all(all).await.into_iter().collect()
    }

    async fn update(&self, partition: &PartitionHandle) -> Result<(), NodeError> {
        let wanted = self.catalog.read(Clone::clone);
        // A damaged partition serves nobody, so there is nothing to bring it.
        let Ok(commands) = partition.read(|state| missing(&wanted, state)) else { return Ok(()) };
        // Submitted at once, so that they share a Raft entry.
        let proposed = join_all(commands.iter().map(|command| partition.propose(command))).await;
        proposed.into_iter().try_for_each(|proposed| proposed.map(|_| ()))
    }
}

/// What a partition has to be told.
fn missing(wanted: &CatalogState, state: &Partition) -> Vec<Command> {
    let mut commands = Vec::new();
    if *state.limits() != wanted.limits {
        commands.push(Command::Configure { limits: wanted.limits.clone() });
    }
    let is_missing = |id, version| state.space(id).is_none_or(|known| known.version < version);
    let spaces = wanted.spaces.values().filter(|space| is_missing(space.id, space.version));
    commands.extend(spaces.map(|space| Command::DefineSpace { definition: space.clone() }));
    commands
}

fn stopped(partition: PartitionId) -> NodeError {
    NodeError::Unavailable { partition, may_have_applied: true }
}
