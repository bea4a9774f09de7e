//! Owns the mapping of a node's figures and its map.

use fanfold_cluster::map::ClusterMap;
use fanfold_cluster::{ProcessSize, ResidentSize, status as stored};
use fanfold_protocol::ids::{ClusterId, NodeId};
use fanfold_protocol::message as wire;
use fanfold_storage::partition::MemoryPart;

use super::{partition_id_to_wire, stamp_to_wire};
use crate::allocator;

/// The map, to the wire.
pub fn map(map: ClusterMap) -> wire::Map {
    let address = |node: fanfold_cluster::map::NodeAddress| wire::NodeAddress {
        node: NodeId(node.node),
        address: node.address,
    };
    wire::Map {
        cluster: ClusterId(map.cluster_id),
        epoch: map.epoch,
        partitions: map.partitions,
        nodes: map.nodes.into_iter().map(address).collect(),
        leaders: map.leaders.into_iter().map(|leader| leader.map_or(wire::Map::NO_LEADER, NodeId)).collect(),
    }
}

/// The figures of a node, to the wire.
pub fn node_status(status: &stored::NodeStatus) -> wire::NodeStatus {
    wire::NodeStatus {
        node: NodeId(status.node_id),
        cluster: ClusterId(status.cluster_id),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime_ms: status.uptime_ms,
        clock_held_ms: status.clock_held_ms,
        partitions: status.partitions.iter().map(partition).collect(),
        log: wire::LogStatus {
            segments: status.log.segments,
            bytes: status.log.bytes,
            last_position: status.log.durable_position,
            pinned_by: status.log_pinned_by.map(|pin| match pin.partition {
                None => wire::GroupName::Catalog,
                Some(id) => wire::GroupName::Partition(partition_id_to_wire(id)),
            }),
            pinned_for: status.log_pinned_by.and_then(|pin| pin.for_node).map(NodeId),
            kept_by_job: status.log_kept_by_job,
        },
        damaged: damaged(status),
        kept_by_damaged: status
            .kept_by_damaged
            .iter()
            .map(|(id, bytes)| wire::KeptLog { partition: partition_id_to_wire(*id), bytes: *bytes })
            .collect(),
        memory: status.memory.map(memory_budget),
        process: process_memory(status),
    }
}

/// What the process takes beside the partitions.
fn process_memory(status: &stored::NodeStatus) -> Option<wire::ProcessMemory> {
    let resident = ProcessSize.now()?;
    let unused = allocator::unused_bytes().map(|bytes| (wire::MemoryPart::Allocator, bytes));
    let parts = [
        (wire::MemoryPart::Log, status.log.recent_bytes),
        (wire::MemoryPart::Program, resident.mapped_bytes),
        (wire::MemoryPart::Other, status.kept_entry_bytes),
    ];
    let parts = parts.into_iter().chain(unused).map(|(part, bytes)| wire::MemoryUse { part, bytes });
    Some(wire::ProcessMemory { resident_bytes: resident.bytes, parts: parts.collect() })
}

fn memory_budget(status: stored::MemoryStatus) -> wire::MemoryBudget {
    let stored::MemoryStatus { budget_bytes, resident_bytes, is_over, refuses_writes } = status;
    let state = match (is_over, refuses_writes) {
        (_, true) => wire::MemoryState::Refusing,
        (true, false) => wire::MemoryState::Over,
        (false, false) => wire::MemoryState::Within,
    };
    wire::MemoryBudget { budget_bytes, resident_bytes, state }
}

/// The partitions that refuse service here, opened or not.
fn damaged(status: &stored::NodeStatus) -> Vec<fanfold_protocol::PartitionId> {
    let opened = status.partitions.iter().filter(|partition| partition.is_damaged);
    let mut damaged: Vec<_> = opened.map(|partition| partition.partition).collect();
    damaged.extend(&status.damaged);
    damaged.sort_unstable();
    damaged.into_iter().map(partition_id_to_wire).collect()
}

fn partition(status: &stored::PartitionStatus) -> wire::PartitionStatus {
    let usage = &status.usage;
    let memory =
        usage.memory.iter().map(|(part, bytes)| wire::MemoryUse { part: memory_part(*part), bytes: *bytes });
    wire::PartitionStatus {
        partition: partition_id_to_wire(status.partition),
        is_leader: status.is_leader,
        term: status.term,
        applied: status.applied,
        log_last: status.log_last.unwrap_or(0),
        stamp: stamp_to_wire(status.stamp),
        entries: usage.entries,
        feeds: usage.feeds,
        users: usage.users,
        edges: usage.edges,
        owners_here: usage.owners,
        rows: usage.rows,
        deliveries: usage.deliveries_stored,
        undelivered_events: status.undelivered_events,
        pending_slices: usage.slices,
        journal_first: status.journal_next.0.saturating_sub(status.journal_len),
        journal_next: status.journal_next.0,
        sessions: usage.sessions,
        log_bytes: status.log_bytes,
        snapshot: status.snapshot.map_or(0, |snapshot| snapshot.index),
        snapshot_bytes: status.snapshot.map_or(0, |snapshot| snapshot.bytes),
        segments: status.segments,
        segment_bytes: status.segment_bytes,
        memory: memory.collect(),
        streams: status.streams.iter().map(stream).collect(),
    }
}

fn stream(status: &stored::StreamStatus) -> wire::StreamStatus {
    wire::StreamStatus {
        destination: partition_id_to_wire(status.destination),
        pending_events: status.pending_events,
        oldest_age_ms: status.oldest_age_ms,
        acknowledged: status.acknowledged.map_or(0, |position| position.0),
    }
}

fn memory_part(part: MemoryPart) -> wire::MemoryPart {
    match part {
        MemoryPart::Timelines => wire::MemoryPart::Timelines,
        MemoryPart::Following => wire::MemoryPart::Following,
        MemoryPart::FollowersHere => wire::MemoryPart::FollowersHere,
        MemoryPart::Reach => wire::MemoryPart::Reach,
        MemoryPart::Delivered => wire::MemoryPart::DeliveredTable,
        MemoryPart::Feeds => wire::MemoryPart::Feeds,
        MemoryPart::Journal => wire::MemoryPart::Journal,
        MemoryPart::Sessions => wire::MemoryPart::Sessions,
    }
}
