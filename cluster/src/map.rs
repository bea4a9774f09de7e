//! Owns the map: which nodes there are and which of them leads each partition.

/// Which nodes there are and which of them leads each partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterMap {
    /// The cluster.
    pub cluster_id: u128,
    /// Changes with every change of the catalog.
    pub epoch: u64,
    /// Number of partitions, a power of two up to 4,096.
    pub partitions: u16,
    /// The nodes, by id.
    pub nodes: Vec<NodeAddress>,
    /// The node that leads each partition, by partition; none if nobody is known to.
    pub leaders: Vec<Option<u64>>,
}

/// A node and where it listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeAddress {
    /// The node.
    pub node: u64,
    /// Its address, `host:port`.
    pub address: String,
}
