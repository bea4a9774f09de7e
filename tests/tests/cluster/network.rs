//! Owns what a network between nodes can do, whatever it is made of.

use std::net::IpAddr;

use fanfold_server::workload::fleet::Spot;
use fanfold_server::workload::node_process::NodeProcessOptions;

/// A node, as networks know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// Its id.
    pub node: u64,
    /// Its address.
    pub ip: IpAddr,
}

/// From one node to another.
pub type Way = (End, End);

/// A network that nodes are reached by, and that can be cut.
pub trait Network: Send + Sync {
    /// Places for more nodes.
    fn spots(&mut self, options: &NodeProcessOptions, count: usize) -> Vec<Spot>;

    /// Loses everything that is sent on these ways, beside those that are cut.
    fn cut(&mut self, ways: &[Way]);

    /// Ends all cuts. The connections that they concerned go on; or end, where that is for the network to say.
    fn heal(&mut self, connections_end: bool);

    /// Makes the addresses of nodes whose processes ended this machine's own.
    fn bring_home(&mut self);
}
