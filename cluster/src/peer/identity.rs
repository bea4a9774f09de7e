//! Owns who a node is to other nodes, and where they find each other.

/// Who a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerIdentity {
    /// The cluster.
    pub cluster: u128,
    /// The node.
    pub node: u64,
}

/// Where the nodes listen for each other. Asked often: it must be quick.
pub trait Addresses: Send + Sync + 'static {
    /// Where a node listens for nodes, `host:port`; none if it is not known or was removed.
    fn peer_address(&self, node: u64) -> Option<String>;

    /// All other nodes that are to be pinged.
    fn peers(&self) -> Vec<u64>;
}
