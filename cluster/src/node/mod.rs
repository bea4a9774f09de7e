//! Owns a running node: the log, the catalog, the partitions, and the tasks that keep them going.
//!
//! - Everything that is asked of it enters through a [`Pass`], so that a stop waits for what has begun.
//! - A wait ends when the node stops; nothing waits for ever on a node that is going away.
//! - Dropping a node without closing it leaves what a killed process would leave.

mod changes;
mod jobs;
mod open;
mod reads;
mod report;
mod wait;
mod write;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use fanfold_storage::fs::FileSystem;
use fanfold_storage::ids::{GraphId, PartitionId, UserId};
use fanfold_storage::log::{Log, LogError};
use fanfold_storage::partition::Partition;
use fanfold_storage::space::SpaceDefinition;
use futures_util::future::join_all;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::catalog::{CatalogHandle, Distributor};
use crate::clock::{Clock, Stamps};
use crate::error::{NodeError, NodeFailure};
use crate::identity::Identity;
use crate::jobs::Jobs;
use crate::lock::DirLock;
use crate::map::{ClusterMap, NodeAddress};
use crate::pacer::Pacer;
use crate::partition::PartitionHandle;
use crate::raft::StopReason;

pub use open::WrapStreams;
pub use write::{WriteLane, WriteSink};

/// A running node.
pub struct Node {
    identity: Identity,
    partition_count: u16,
    catalog: Arc<CatalogHandle>,
    distributor: Distributor,
    /// By number; none where one is damaged.
    partitions: Arc<[Option<Arc<PartitionHandle>>]>,
    stamps: Arc<Stamps>,
    clock: Arc<dyn Clock>,
    started_ms: u64,
    log: Log,
    pacer: Arc<Pacer>,
    data_dir: PathBuf,
    fs: Arc<dyn FileSystem>,
    jobs: Jobs,
    /// Requests that have begun.
    requests: TaskTracker,
    /// Tickers, dispatchers, the distributor.
    tasks: TaskTracker,
    stopping: CancellationToken,
    _lock: DirLock,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("identity", &self.identity).finish_non_exhaustive()
    }
}

/// Held by a request while it runs.
struct Pass {
    _token: TaskTrackerToken,
}

impl Node {
    /// Which node of which cluster this is.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// The number of partitions.
    pub fn partitions(&self) -> u16 {
        self.partition_count
    }

    /// The incarnations of the partitions that run here.
    pub fn incarnations(&self) -> Vec<u64> {
        self.partitions.iter().flatten().map(|partition| partition.incarnation()).collect()
    }

    /// The home of a user.
    pub fn partition_of(&self, user: UserId) -> PartitionId {
        PartitionId::of_user(user, self.partition_count)
    }

    /// Which nodes there are and which of them leads each partition, as far as this node knows.
    pub fn map(&self) -> ClusterMap {
        let leaders = self.partitions.iter().map(|partition| {
            let hint = partition.as_ref()?.group().leader_hint()?;
            Some(hint.replica.0)
        });
        let leaders = leaders.collect();
        self.catalog.read(|state| ClusterMap {
            cluster_id: self.identity.cluster_id,
            epoch: state.epoch,
            partitions: self.partition_count,
            nodes: state
                .nodes
                .iter()
                .map(|(node, known)| NodeAddress { node: *node, address: known.address.clone() })
                .collect(),
            leaders,
        })
    }

    /// The spaces, by id.
    pub fn spaces(&self) -> Vec<SpaceDefinition> {
        self.catalog.read(|state| state.spaces.values().cloned().collect())
    }

    /// The graphs, by id.
    pub fn graphs(&self) -> Vec<(GraphId, String)> {
        self.catalog.known_graphs()
    }

    /// Accepts a held jump of the wall clock (R2), and says how large it was, in milliseconds; none if none was held.
    pub fn accept_clock(&self) -> Option<i64> {
        let accepted = self.stamps.accept();
        if let Some(jump_ms) = accepted {
            tracing::warn!(jump_ms, "the operator accepted a jump of the wall clock");
            for partition in self.partitions.iter().flatten() {
                partition.proposer().kick();
            }
        }
        accepted
    }

    /// Resolves when the process must end: the log failed, or a Raft group panicked. A restart is safe.
    pub async fn failed(&self) -> NodeFailure {
        let mut stopped = FuturesUnordered::new();
        let watch =
            |group: u32, reason: StopReason| (reason != StopReason::Shutdown).then_some((group, reason));
        let catalog = self.catalog.group();
        stopped.push(futures_util::FutureExt::boxed(async move { watch(0, catalog.stopped().await) }));
        for partition in self.partitions.iter().flatten() {
            stopped.push(futures_util::FutureExt::boxed(async move {
                let group = partition.group();
                watch(group.id().0, group.stopped().await)
            }));
        }
        while let Some(stopped) = stopped.next().await {
            if let Some((group, reason)) = stopped {
                return NodeFailure::Group { group, reason };
            }
        }
        // Every group was shut down, which is no failure.
        std::future::pending().await
    }

    /// Stops: refuses what comes, waits for what has begun, and marks the log as cleanly closed.
    pub async fn close(self: Arc<Self>) -> Result<(), LogError> {
        self.stop().await;
        let log = self.log.clone();
        // Closing waits for the disk.
        tokio::task::spawn_blocking(move || log.close()).await.unwrap_or(Err(LogError::Closed))
    }

    /// Stops as a killed process would, as far as that can be done from inside: nothing is marked. For tests.
    pub async fn abandon(self: Arc<Self>) {
        self.stop().await;
    }

    async fn stop(&self) {
        self.stopping.cancel();
        self.pacer.stop();
        self.requests.close();
        self.requests.wait().await;
        self.tasks.close();
        self.tasks.wait().await;
        let partitions = self.partitions.iter().flatten().map(|partition| partition.group().shutdown());
        join_all(partitions).await;
        self.catalog.group().shutdown().await;
    }

    /// Lets a request begin, unless the node is stopping.
    fn enter(&self) -> Result<Pass, NodeError> {
        let token = self.requests.token();
        if self.stopping.is_cancelled() { Err(NodeError::ShuttingDown) } else { Ok(Pass { _token: token }) }
    }

    /// Reads all of a partition at one position. `read` runs under its read lock, so that nothing is applied meanwhile.
    pub fn read_partition<T>(
        &self,
        id: PartitionId,
        read: impl FnOnce(&Partition) -> T,
    ) -> Result<T, NodeError> {
        let _pass = self.enter()?;
        self.partition(id)?.read(read)
    }

    /// The partition of this number.
    fn partition(&self, id: PartitionId) -> Result<&Arc<PartitionHandle>, NodeError> {
        match self.partitions.get(usize::from(id.0)) {
            Some(Some(partition)) => Ok(partition),
            Some(None) => Err(NodeError::Damaged { partition: id }),
            None => Err(NodeError::UnknownPartition { partition: id }),
        }
    }

    /// The home of a user.
    fn home(&self, user: UserId) -> Result<&Arc<PartitionHandle>, NodeError> {
        self.partition(self.partition_of(user))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stopping.cancel();
    }
}
