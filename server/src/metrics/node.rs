//! Owns the metrics that come from the node's status, made anew each time they are asked.
//!
//! - Streams between partitions are many (the square of the partitions); only those with undelivered events are named.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::units::{Seconds, gauge, put, put_seconds, seconds, seconds_of};
use crate::names::part_name;
use fanfold_protocol::message::{MemoryBudget, MemoryState, NodeStatus, PartitionStatus};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PartitionLabel {
    partition: u16,
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
    ("undelivered_events", "Events in the journal that some destination has not acknowledged", |p| {
        p.undelivered_events
    }),
    ("journal_events", "Events the journal holds", |p| p.journal_next.saturating_sub(p.journal_first)),
];

/// The metrics of `status`.
pub(super) fn registry(status: &NodeStatus) -> Registry {
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
    streams(&mut registry, status);
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
    let pinned = Family::<PartitionLabel, Gauge>::default();
    if let Some(partition) = log.pinned_by {
        pinned.get_or_create(&PartitionLabel { partition: partition.0 }).set(1);
    }
    registry.register("log_pinned", "1 for the partition that keeps the log's oldest segment", pinned);
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

fn streams(registry: &mut Registry, status: &NodeStatus) {
    let events = Family::<StreamLabels, Gauge>::default();
    let ages = Family::<StreamLabels, Seconds>::default();
    for partition in &status.partitions {
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
}
