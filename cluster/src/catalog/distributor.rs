//! Owns the distributor: it brings the limits and the spaces of the catalog into each partition's log (R3).
//!
//! - A partition is told by the node that leads it of what it does not have yet, after every change of the catalog and of
//!   the leadership.
//! - A change counts as made once every partition that has a leader has applied it.

use std::sync::Arc;
use std::time::Duration;

use fanfold_storage::command::Command;
use fanfold_storage::ids::{PartitionId, SpaceId};
use fanfold_storage::partition::Partition;
use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;

use super::state::CatalogState;
use crate::error::NodeError;
use crate::map::Whereabouts;
use crate::partition::{PartitionHandle, Partitions};

/// How long after a failure it is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// Brings the catalog's definitions into the partitions.
#[derive(Clone)]
pub(crate) struct Distributor {
    whereabouts: Arc<Whereabouts>,
    partitions: Arc<Partitions>,
}

impl Distributor {
    /// The distributor to the partitions that this node leads.
    pub fn new(whereabouts: Arc<Whereabouts>, partitions: Arc<Partitions>) -> Self {
        Self { whereabouts, partitions }
    }

    /// Keeps one partition up to the catalog while this node leads it, until it is stopped.
    pub async fn run(self, partition: Arc<PartitionHandle>, stop: CancellationToken) {
        let mut view = self.whereabouts.view.subscribe();
        let mut leadership = partition.group().watch_leadership();
        loop {
            view.borrow_and_update();
            let updated = match leadership.led() {
                Some(_) => self.update(&partition).await,
                None => Ok(()),
            };
            let retry = match updated {
                Ok(()) | Err(NodeError::NotLeader { .. }) => None,
                Err(error) => {
                    let partition = partition.id().0;
                    tracing::warn!(partition, %error, "the catalog's definitions were not taken; trying again");
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
                changed = view.changed() => if changed.is_err() { return },
                changed = leadership.changed() => if !changed { return },
                () = again => {}
            }
        }
    }

    /// Brings every partition that this node leads up to the catalog; the first error, after all were tried.
    pub async fn distribute(&self) -> Result<(), NodeError> {
        let led = self.partitions.all().filter(|partition| partition.group().is_leader());
        let all = led.map(|partition| async move { self.update(&partition).await });
        join_all(all).await.into_iter().collect()
    }

    /// Waits until every partition that this node leads knows a version of a space.
    pub async fn wait_for(&self, space: SpaceId, version: u64) -> Result<(), NodeError> {
        let all = self.partitions.all().map(|partition| async move {
            let mut applied = partition.group().watch_applied();
            let mut leadership = partition.group().watch_leadership();
            while partition.group().is_leader() {
                applied.borrow_and_update();
                let knows = |p: &Partition| p.space(space).is_some_and(|known| known.version >= version);
                // Whoever leads a damaged one next is told.
                if partition.read(knows).unwrap_or(true) {
                    break;
                }
                tokio::select! {
                    changed = applied.changed() => changed.map_err(|_| stopped(partition.id()))?,
                    changed = leadership.changed() => if !changed { return Err(stopped(partition.id())) },
                }
            }
            Ok(())
        });
        join_all(all).await.into_iter().collect()
    }

    async fn update(&self, partition: &PartitionHandle) -> Result<(), NodeError> {
        let wanted = self.whereabouts.view.current();
        if wanted.cluster_id.is_none() {
            return Ok(());
        }
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
