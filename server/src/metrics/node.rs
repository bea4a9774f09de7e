//! Owns the metrics that come from the node's status, made anew each time they are asked.
//!
//! - Streams between partitions are many (the square of the partitions); only those with undelivered events are named, by the
//!   leader of their source. A leader without a majority may be none any more: it names none.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::units::{Seconds, gauge, put, put_seconds, seconds, seconds_of};
use crate::names::part_name;
use fanfold_protocol::PartitionId;
use fanfold_protocol::message::{
    ClusterView, GroupHealth, GroupName, MemoryBudget, MemoryState, NodeStatus, PartitionStatus,
};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PartitionLabel {
    partition: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProcessLabel {
    part: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PinLabel {
    partition: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StreamLabels {
    source: u16,
    destination: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PartLabels {
    partition: u16,
    part: &'static str,
}

/// What is told of each partition: name, help, value.
type PartitionMetric = (&'static str, &'static str, fn(&PartitionStatus) -> u64);

const PARTITION_METRICS: [PartitionMetric; 14] = [
    ("partition_log_bytes", "Bytes of the log that the partition holds", |p| p.log_bytes),
    ("snapshot_bytes", "Bytes of the newest snapshot without segments", |p| p.snapshot_bytes),
    ("segment_bytes", "Bytes of the segments with entries", |p| p.segment_bytes),
    ("applied_index", "Last log index applied", |p| p.applied),
    ("log_last_index", "Last log index written", |p| p.log_last),
    ("entries", "Live entries", |p| p.entries),
    ("feeds", "Feeds held", |p| p.feeds),
    ("users", "Users homed in the partition", |p| p.users),
    ("edges", "Edges of readers homed in the partition", |p| p.edges),
    ("rows", "Rows of the delivered table", |p| p.rows),
    ("sessions", "Open sessions", |p| p.sessions),
    ("pending_slices", "Slices of large fan-outs not applied yet", |p| p.pending_slices),
    ("undelivered_events", "Events that some destination has not acknowledged, told by the leader", |p| {
        p.undelivered_events
    }),
    ("journal_events", "Events the journal holds", |p| p.journal_next.saturating_sub(p.journal_first)),
];

/// The metrics of `status`, of a node with this view of its cluster.
pub(super) fn registry(status: &NodeStatus, view: Option<&ClusterView>) -> Registry {
    let mut registry = Registry::with_prefix("fanfold");
    node(&mut registry, status);
    for (name, help, value) in PARTITION_METRICS {
        let family = Family::<PartitionLabel, Gauge>::default();
        for partition in &status.partitions {
            let label = PartitionLabel { partition: partition.partition.0 };
            family.get_or_create(&label).set(gauge(value(partition)));
        }
        registry.register(name, help, family);
    }
    let deliveries = Family::<PartitionLabel, Counter>::default();
    for partition in &status.partitions {
        let label = PartitionLabel { partition: partition.partition.0 };
        deliveries.get_or_create(&label).inc_by(partition.deliveries);
    }
    registry.register("deliveries", "References stored in feeds", deliveries);
    streams(&mut registry, status, view);
    memory(&mut registry, status);
    budget(&mut registry, status.memory);
    registry
}

fn node(registry: &mut Registry, status: &NodeStatus) {
    let (held, log) = (status.clock_held_ms, &status.log);
    put_seconds(registry, "uptime_seconds", "Time since the node started", seconds_of(status.uptime_ms));
    let help = "1 while stamps are held because the wall clock jumped";
    put(registry, "clock_held", help, i64::from(held.is_some()));
    let help = "Time by which the wall clock is ahead of held stamps";
    put_seconds(registry, "clock_skew_seconds", help, seconds(held.unwrap_or(0)));
    put(registry, "log_segments", "Segments of the write-ahead log on disk", gauge(log.segments));
    put(registry, "log_bytes", "Bytes of the write-ahead log in use", gauge(log.bytes));
    put(registry, "log_position", "Position behind the last record of the log", gauge(log.last_position));
    let pinned = Family::<PinLabel, Gauge>::default();
    if let Some(group) = log.pinned_by {
        let partition = match group {
            GroupName::Catalog => "catalog".to_owned(),
            GroupName::Partition(partition) => partition.0.to_string(),
        };
        pinned.get_or_create(&PinLabel { partition }).set(1);
    }
    let help = "1 for the partition that keeps the log's oldest segment, or `catalog`";
    registry.register("log_pinned", help, pinned);
}

/// Without a budget nothing of it is passed.
fn budget(registry: &mut Registry, memory: Option<MemoryBudget>) {
    let state = memory.map_or(MemoryState::Within, |memory| memory.state);
    let help = "1 while the node is above its memory budget and nothing is left that can give way";
    put(registry, "memory_over_budget", help, i64::from(state != MemoryState::Within));
    let help = "1 while the node refuses writes that need more memory";
    put(registry, "memory_refusing_writes", help, i64::from(state == MemoryState::Refusing));
    let Some(memory) = memory else { return };
    put(registry, "memory_budget_bytes", "The memory budget of the node", gauge(memory.budget_bytes));
    let help = "Resident size of the process, which the budget is for";
    put(registry, "memory_resident_bytes", help, gauge(memory.resident_bytes));
}

/// Whether a node leads a partition, with a majority.
fn is_led(view: &ClusterView, partition: PartitionId) -> bool {
    let group = view.groups.iter().find(|group| group.group == GroupName::Partition(partition));
    group.is_some_and(|group| group.leader == Some(view.by) && group.health != GroupHealth::Lost)
}

fn streams(registry: &mut Registry, status: &NodeStatus, view: Option<&ClusterView>) {
    let events = Family::<StreamLabels, Gauge>::default();
    let ages = Family::<StreamLabels, Seconds>::default();
    for partition in &status.partitions {
        if view.is_some_and(|view| !is_led(view, partition.partition)) {
            continue;
        }
        for stream in partition.streams.iter().filter(|s| s.pending_events > 0) {
            let labels = StreamLabels { source: partition.partition.0, destination: stream.destination.0 };
            events.get_or_create(&labels).set(gauge(stream.pending_events));
            ages.get_or_create(&labels).set(seconds_of(stream.oldest_age_ms));
        }
    }
    registry.register("stream_pending_events", "Events not acknowledged, by source and destination", events);
    registry.register("stream_oldest_age_seconds", "Age of the oldest event not acknowledged", ages);
}

fn memory(registry: &mut Registry, status: &NodeStatus) {
    let family = Family::<PartLabels, Gauge>::default();
    for partition in &status.partitions {
        for used in &partition.memory {
            let labels = PartLabels { partition: partition.partition.0, part: part_name(used.part) };
            family.get_or_create(&labels).set(gauge(used.bytes));
        }
    }
    registry.register("memory_bytes", "Memory of the state machine, by partition and part", family);
    let Some(process) = &status.process else { return };
    let help = "Resident size of the process";
    put(registry, "process_resident_bytes", help, gauge(process.resident_bytes));
    let family = Family::<ProcessLabel, Gauge>::default();
    for used in &process.parts {
        family.get_or_create(&ProcessLabel { part: part_name(used.part) }).set(gauge(used.bytes));
    }
    registry.register(
        "process_memory_bytes",
        "Memory of the process that is of no partition, by part",
        family,
    );
}

#[cfg(test)]
mod tests {
    use fanfold_protocol::message::{ClusterSettings, GroupView, LogStatus, StreamStatus};
    use fanfold_protocol::{ClusterId, NodeId, Stamp};
    use prometheus_client::encoding::text::encode;

    use super::*;

    /// A partition of which events wait for partition 9.
    fn source(partition: u16) -> PartitionStatus {
        let waits = StreamStatus {
            destination: PartitionId(9),
            pending_events: 4,
            oldest_age_ms: 31_500,
            acknowledged: 1,
        };
        PartitionStatus {
            partition: PartitionId(partition),
            is_leader: true,
            term: 1,
            applied: 1,
            log_last: 1,
            stamp: Stamp(1),
            entries: 0,
            feeds: 0,
            users: 0,
            edges: 0,
            owners_here: 0,
            rows: 0,
            deliveries: 0,
            undelivered_events: 4,
            pending_slices: 0,
            journal_first: 2,
            journal_next: 6,
            sessions: 0,
            log_bytes: 0,
            snapshot: 0,
            snapshot_bytes: 0,
            segments: 0,
            segment_bytes: 0,
            memory: Vec::new(),
            streams: vec![waits],
        }
    }

    fn group(partition: u16, leader: u64, health: GroupHealth) -> GroupView {
        GroupView {
            group: GroupName::Partition(PartitionId(partition)),
            leader: Some(NodeId(leader)),
            term: 1,
            preferred: None,
            health,
            is_diverged: false,
            replicas: Vec::new(),
        }
    }

    #[test]
    fn late_deliveries_are_told_by_who_leads_their_source_with_a_majority() {
        let status = NodeStatus {
            node: NodeId(1),
            cluster: ClusterId(1),
            version: String::new(),
            uptime_ms: 0,
            clock_held_ms: None,
            partitions: vec![source(0), source(1), source(2)],
            log: LogStatus { segments: 1, ..LogStatus::default() },
            damaged: Vec::new(),
            kept_by_damaged: Vec::new(),
            memory: None,
            process: None,
        };
        let view = ClusterView {
            cluster: ClusterId(1),
            by: NodeId(1),
            epoch: 1,
            feature_level: 2,
            settings: ClusterSettings { replicas: 3, repair_after_ms: 0 },
            nodes: Vec::new(),
            groups: vec![
                group(0, 1, GroupHealth::Degraded),
                group(1, 2, GroupHealth::Whole),
                group(2, 1, GroupHealth::Lost),
            ],
        };
        let mut text = String::new();
        encode(&mut text, &registry(&status, Some(&view))).unwrap();
        let told: Vec<_> = text.lines().filter(|line| line.starts_with("fanfold_stream_")).collect();
        let labels = r#"{source="0",destination="9"}"#;
        let expected = [
            format!("fanfold_stream_pending_events{labels} 4"),
            format!("fanfold_stream_oldest_age_seconds{labels} 31.5"),
        ];
        assert_eq!(told, expected, "{text}");
    }
}
