//! Owns a workload's way to a node: the client with the space and graph it works on.

use std::time::Duration;

use fanfold_client::{Client, Graph, Space};
use fanfold_protocol::message::SpaceChanges;
use fanfold_storage::space::SpaceDefinition;

use super::error::WorkloadError;
use super::words::stored_space;

/// The space every workload uses.
const SPACE: &str = "posts";
/// How long a fan-out may take to drain.
const DRAIN_DEADLINE: Duration = Duration::from_secs(600);

/// A client with the space and graph that a workload uses.
#[derive(Debug, Clone)]
pub struct Access {
    /// The client.
    pub client: Client,
    /// The space `posts`.
    pub space: Space,
    /// The graph of that space.
    pub graph: Graph,
}

impl Access {
    /// Connects to the node at `address`; calls are repeated within `deadline`, outages of the node included.
    pub async fn connect(address: &str, deadline: Duration) -> Result<Self, WorkloadError> {
        let prepare = |source| WorkloadError::Prepare { source };
        let client = Client::builder(address).deadline(deadline).connect().await.map_err(prepare)?;
        Self::of(client).await
    }

    /// The same with a client that is connected.
    pub async fn of(client: Client) -> Result<Self, WorkloadError> {
        let prepare = |source| WorkloadError::Prepare { source };
        let info = client.spaces().show(SPACE).await.map_err(prepare)?;
        let (space, graph) = (client.space(SPACE), client.graph(info.graph_name));
        Ok(Self { client, space, graph })
    }

    /// Changes the rules of the space.
    pub async fn alter(&self, changes: SpaceChanges) -> Result<(), WorkloadError> {
        let altered = self.client.spaces().alter(SPACE, changes).await;
        altered.map(drop).map_err(|source| WorkloadError::Prepare { source })
    }

    /// The space as the node describes it.
    pub async fn definition(&self) -> Result<SpaceDefinition, WorkloadError> {
        let info = self.client.spaces().show(SPACE).await;
        info.map(stored_space).map_err(|source| WorkloadError::Prepare { source })
    }

    /// Waits until everything acknowledged has reached every feed.
    pub async fn wait_drained(&self) -> Result<(), WorkloadError> {
        self.client
            .wait_drained()
            .deadline(DRAIN_DEADLINE)
            .await
            .map_err(|source| WorkloadError::Drain { source })
    }

    /// What the leaders of the partitions count, in sum.
    pub async fn totals(&self) -> Result<Totals, WorkloadError> {
        let nodes = self.client.status().await.map_err(|source| WorkloadError::Drain { source })?;
        let leading = nodes.iter().flat_map(|node| &node.partitions).filter(|partition| partition.is_leader);
        Ok(leading.fold(Totals::default(), |sum, partition| Totals {
            entries: sum.entries + partition.entries,
            edges: sum.edges + partition.edges,
            deliveries: sum.deliveries + partition.deliveries,
        }))
    }
}

/// Sums over the partitions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Live entries.
    pub entries: u64,
    /// Edges.
    pub edges: u64,
    /// References stored in feeds since the data directory was made.
    pub deliveries: u64,
}
