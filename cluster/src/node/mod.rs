//! Owns a running node: the log, the catalog, the partitions, and the tasks that keep them going.
//!
//! - Everything that is asked of it enters through a [`Pass`], so that a stop waits for what has begun.
//! - A wait ends when the node stops; nothing waits for ever on a node that is going away.
//! - Dropping a node without closing it leaves what a killed process would leave.

mod addresses;
mod anew;
mod changes;
mod clocks;
mod cluster;
mod converge;
mod figures;
mod hand_over;
mod held;
mod host;
mod jobs;
mod join;
mod keeper;
mod member;
mod newcomers;
mod open;
mod opening;
mod paused;
mod peers;
mod plan;
mod reads;
mod report;
mod rest;
mod settle;
mod slow;
mod succeed;
mod survey;
mod tasks;
#[cfg(test)]
mod tests;
mod upgrade;
mod wait;
mod write;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use fanfold_storage::fs::FileSystem;
use fanfold_storage::ids::{GraphId, PartitionId, UserId};
use fanfold_storage::log::{Log, LogError};
use fanfold_storage::partition::Partition;
use fanfold_storage::space::SpaceDefinition;
use futures_util::future::join_all;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::blocking::blocking;
use crate::catalog::{Catalog, Distributor, NodeState};
use crate::clock::{Clock, Stamps};
use crate::error::{NodeError, NodeFailure};
use crate::identity::Identity;
use crate::jobs::Jobs;
use crate::lock::DirLock;
use crate::map::{ClusterMap, NodeAddress, Whereabouts, group_of};
use crate::pacer::Pacer;
use crate::partition::{PartitionHandle, Partitions};
use crate::peer::PeerNetwork;

use host::Host;
pub use open::WrapStreams;
pub(crate) use settle::groups_here;
pub use write::{WriteLane, WriteSink, Written};

/// The replica that every group of a founding node has.
const FIRST_REPLICA: u64 = 1;

/// How long a stop waits for what has begun before what waits for other nodes is ended.
const REQUESTS_WAIT: Duration = Duration::from_secs(5);

/// A running node.
pub struct Node {
    identity: Identity,
    partition_count: u16,
    catalog: Arc<Catalog>,
    distributor: Distributor,
    partitions: Arc<Partitions>,
    host: Arc<Host>,
    /// None: it has none.
    peers: Option<PeerNetwork>,
    /// Where it listens for other nodes.
    peer_address: Option<SocketAddr>,
    opened_at: Instant,
    whereabouts: Arc<Whereabouts>,
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
        self.partitions.all().map(|partition| partition.incarnation()).collect()
    }

    /// The home of a user.
    pub fn partition_of(&self, user: UserId) -> PartitionId {
        PartitionId::of_user(user, self.partition_count)
    }

    /// Which nodes there are and which of them leads each partition, as far as this node knows. Every leader is one of the
    /// nodes, and was heard of lately.
    pub fn map(&self) -> ClusterMap {
        let state = self.catalog.state();
        let is_listed = |node: &u64| state.nodes.get(node).is_some_and(|at| at.state != NodeState::Removed);
        let leaders = (0..self.partition_count).map(|n| {
            let hosted = self.partitions.hosted(PartitionId(n));
            let here = hosted.and_then(|partition| partition.group().leader_of_term());
            self.whereabouts.node_leading(group_of(Some(PartitionId(n))), here).filter(is_listed)
        });
        let leaders = leaders.collect();
        let nodes = state.nodes.iter().filter(|(node, _)| is_listed(node));
        ClusterMap {
            cluster_id: self.identity.cluster_id,
            epoch: state.epoch,
            partitions: self.partition_count,
            nodes: nodes
                .map(|(node, known)| NodeAddress { node: *node, address: known.address.clone() })
                .collect(),
            leaders,
        }
    }

    /// The spaces, by id.
    pub fn spaces(&self) -> Vec<SpaceDefinition> {
        self.catalog.state().spaces.values().cloned().collect()
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
            for partition in self.partitions.all() {
                partition.proposer().kick();
            }
        }
        accepted
    }

    /// Resolves when the process must end: the log failed, or a Raft group or work on its files panicked. A restart is safe.
    pub async fn failed(&self) -> NodeFailure {
        let mut failure = self.host.failure.subscribe();
        let replicas = async {
            match failure.wait_for(Option::is_some).await.map(|failure| failure.clone()) {
                Ok(Some(failure)) => failure,
                // Whoever would tell is there as long as the node.
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            failure = replicas => failure,
            group = self.host.means.ended.wait_panicked() => NodeFailure::Upkeep { group: group.0 },
        }
    }

    /// Where this node listens for other nodes; none if it does not.
    pub fn peer_address(&self) -> Option<SocketAddr> {
        self.peer_address
    }

    /// Hands over what it leads, and takes nothing back; it serves as before. To be called before its clients are sent away.
    pub async fn leave(&self) {
        hand_over::leave(&self.host).await;
    }

    /// Stops: hands over what it leads, refuses what comes, waits for what has begun, and marks the log as cleanly closed.
    pub async fn close(self: Arc<Self>) -> Result<(), LogError> {
        self.leave().await;
        self.stop(REQUESTS_WAIT).await;
        let log = self.log.clone();
        // Closing waits for the disk.
        blocking(move || log.close()).await.unwrap_or(Err(LogError::Closed))
    }

    /// Stops as a killed process would, as far as that can be done from inside: nothing is marked. For tests.
    pub async fn abandon(self: Arc<Self>) {
        let wait = if self.peers.is_some() { Duration::ZERO } else { REQUESTS_WAIT };
        self.stop(wait).await;
    }

    /// Stops. What has begun gets some time; what waits for other nodes then ends without an answer from them.
    async fn stop(&self, wait: Duration) {
        self.stopping.cancel();
        self.pacer.stop();
        self.requests.close();
        let _ = timeout(wait, self.requests.wait()).await;
        if let Some(peers) = &self.peers {
            peers.stop();
        }
        let members = self.host.members();
        let shut_down = join_all(members.iter().map(|member| member.shutdown()));
        if self.peers.is_some() {
            // Tasks may wait for other nodes too.
            shut_down.await;
            self.requests.wait().await;
            self.host.end_tasks().await;
            self.end_tasks().await;
        } else {
            self.requests.wait().await;
            self.end_tasks().await;
            self.host.end_tasks().await;
            shut_down.await;
        }
    }

    async fn end_tasks(&self) {
        self.tasks.close();
        self.tasks.wait().await;
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
    fn partition(&self, id: PartitionId) -> Result<Arc<PartitionHandle>, NodeError> {
        self.partitions.get(id)
    }

    /// The home of a user.
    fn home(&self, user: UserId) -> Result<Arc<PartitionHandle>, NodeError> {
        self.partition(self.partition_of(user))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stopping.cancel();
    }
}
