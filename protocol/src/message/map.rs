//! Owns the map: which nodes there are and which of them leads each partition.

use crate::error::BodyError;
use crate::field::Field;
use crate::ids::{ClusterId, NodeId};
use crate::wire::{Reader, Writer};

/// Which nodes there are and which of them leads each partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Map {
    /// The cluster.
    pub cluster: ClusterId,
    /// Changes with every change of the map.
    pub epoch: u64,
    /// Number of partitions, a power of two up to 4,096.
    pub partitions: u16,
    /// The nodes.
    pub nodes: Vec<NodeAddress>,
    /// The leader of each partition, by partition id; as many as there are partitions. [`Map::NO_LEADER`] stands for
    /// a partition that has none that the node knows of.
    pub leaders: Vec<NodeId>,
}

/// A node and where it listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeAddress {
    /// The node.
    pub node: NodeId,
    /// Its address, `host:port`, at most 256 bytes.
    pub address: String,
}

/// Most partitions, and so most leaders.
const PARTITIONS_MAX: usize = 4_096;
/// Most nodes.
const NODES_MAX: usize = 4_096;

impl Map {
    /// Stands in `leaders` for a partition without a known leader; no node has this id.
    pub const NO_LEADER: NodeId = NodeId(0);

    pub(crate) fn encode(&self, w: &mut Writer) {
        w.fixed128(self.cluster.0);
        w.number(self.epoch);
        w.number(self.partitions);
        w.count(self.nodes.len());
        for node in &self.nodes {
            w.number(node.node.0);
            w.string(&node.address);
        }
        w.count(self.leaders.len());
        for leader in &self.leaders {
            w.number(leader.0);
        }
    }

    pub(crate) fn decode(r: &mut Reader) -> Result<Self, BodyError> {
        let cluster = ClusterId(r.fixed128(Field::ClusterId)?);
        let epoch = r.number(Field::Epoch)?;
        let partitions = r.number16(Field::Partition)?;
        let count = r.count(Field::Nodes, 2, NODES_MAX)?;
        let nodes = r.items(count, NodeAddress::decode)?;
        let count = r.count(Field::Leaders, 1, PARTITIONS_MAX)?;
        let leaders = r.items(count, |r| r.number(Field::Leaders).map(NodeId))?;
        Ok(Self { cluster, epoch, partitions, nodes, leaders })
    }
}

impl NodeAddress {
    fn decode(r: &mut Reader) -> Result<Self, BodyError> {
        Ok(Self { node: NodeId(r.number(Field::Nodes)?), address: r.string(Field::Address)? })
    }
}
