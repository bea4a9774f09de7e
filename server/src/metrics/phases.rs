//! Owns the metrics of how long the phases of requests take, and of what waits: queues, log and disk.

use std::sync::{Mutex, PoisonError};

use fanfold_cluster::phases::{BOUNDS_US, PhaseTimes};
use fanfold_cluster::status::NodeFigures;
use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::Registry;

use super::units::{gauge, put, put_total};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PhaseLabel {
    phase: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PartitionLabel {
    partition: u16,
}

/// A histogram that was counted elsewhere.
#[derive(Debug, Default)]
struct Counted(Mutex<Option<PhaseTimes>>);

impl TypedMetric for Counted {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Counted {
    fn encode(&self, mut encoder: MetricEncoder) -> std::fmt::Result {
        let times = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(times) = &*times else { return Ok(()) };
        let bounds = BOUNDS_US.iter().map(|bound| *bound as f64 / 1e6).chain([f64::MAX]);
        let buckets: Vec<(f64, u64)> = bounds.zip(times.buckets).collect();
        let count = times.buckets.iter().sum();
        encoder.encode_histogram::<NoLabelSet>(times.sum_us as f64 / 1e6, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

/// The metrics of `figures`.
pub(super) fn registry(figures: &NodeFigures) -> Registry {
    let mut registry = Registry::with_prefix("fanfold");
    let phases = Family::<PhaseLabel, Counted>::default();
    for times in &figures.phases {
        let counted = phases.get_or_create(&PhaseLabel { phase: times.phase.name() });
        *counted.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(times.clone());
    }
    registry.register(
        "phase_seconds",
        "Time that a phase took: queue, commit and apply for each batch of writes, fsync for each of the log, merge and \
         hydrate for each page",
        phases,
    );
    let queued = Family::<PartitionLabel, Gauge>::default();
    for (partition, commands) in &figures.queued {
        queued.get_or_create(&PartitionLabel { partition: partition.0 }).set(gauge(*commands));
    }
    registry.register("queued_commands", "Writes that wait to be proposed, by partition", queued);
    let diverged = Family::<PartitionLabel, Gauge>::default();
    for (partition, _) in &figures.queued {
        let differs = figures.diverged.contains(partition);
        diverged.get_or_create(&PartitionLabel { partition: partition.0 }).set(i64::from(differs));
    }
    registry.register(
        "replica_checksum_mismatch",
        "1 if replicas of the partition came to different states at one index",
        diverged,
    );
    let log = &figures.log;
    put(
        &mut registry,
        "log_queued_bytes",
        "Bytes that wait to be durable in the log",
        gauge(log.queued_bytes),
    );
    put(&mut registry, "log_full", "1 while the log refuses entries for want of room", i64::from(log.full));
    put(
        &mut registry,
        "disk_stalled",
        "1 if the disk did not get on within the last seconds; the node leads nothing then",
        i64::from(figures.is_disk_stalled),
    );
    let damaged = Family::<PartitionLabel, Gauge>::default();
    let here = figures.queued.iter().map(|(partition, _)| partition);
    for partition in here.chain(&figures.damaged) {
        let is_damaged = figures.damaged.contains(partition);
        damaged.get_or_create(&PartitionLabel { partition: partition.0 }).set(i64::from(is_damaged));
    }
    registry.register("replica_damaged", "1 while this node's replica of the partition is damaged", damaged);
    let kept = Family::<PartitionLabel, Gauge>::default();
    let none = figures.queued.iter().map(|(partition, _)| (*partition, 0));
    for (partition, bytes) in none.chain(figures.kept_by_damaged.iter().copied()) {
        kept.get_or_create(&PartitionLabel { partition: partition.0 }).set(gauge(bytes));
    }
    registry.register(
        "log_kept_by_damaged_bytes",
        "Bytes of the log from the oldest place on that a damaged partition keeps",
        kept,
    );
    put_total(
        &mut registry,
        "damaged_replicas",
        "Replicas on this node that were found damaged; others may have replaced them",
        figures.damaged_replicas,
    );
    put(
        &mut registry,
        "verify_findings",
        "How much the last check of this node's files found to be wrong; 0 before the first",
        gauge(figures.verify_findings),
    );
    put_total(&mut registry, "log_syncs", "Fsyncs of the log", log.syncs);
    put_total(
        &mut registry,
        "log_written_bytes",
        "Bytes written to the log, padding included",
        log.written_bytes,
    );
    if let Some(free) = figures.disk_free_bytes {
        put(&mut registry, "disk_free_bytes", "Bytes that the disk still has for this node", gauge(free));
    }
    registry
}

#[cfg(test)]
mod tests {
    use fanfold_cluster::phases::{Phases, RequestPhase};
    use fanfold_storage::ids::PartitionId;
    use fanfold_storage::log::LogStatus;
    use prometheus_client::encoding::text::encode;
    use std::time::Duration;

    use super::*;

    #[test]
    fn phases_are_histograms_in_seconds() {
        let phases = Phases::default();
        phases.note(RequestPhase::Fsync, Duration::from_micros(300));
        phases.note(RequestPhase::Fsync, Duration::from_micros(900));
        let figures = NodeFigures {
            phases: phases.times(),
            queued: vec![(PartitionId(3), 17), (PartitionId(4), 0)],
            log: LogStatus { syncs: 5, full: true, ..LogStatus::default() },
            diverged: vec![PartitionId(3)],
            disk_free_bytes: Some(1_000),
            is_disk_stalled: true,
            damaged: vec![PartitionId(4), PartitionId(9)],
            damaged_replicas: 2,
            verify_findings: 3,
            kept_by_damaged: vec![(PartitionId(9), 5_000)],
        };
        let mut text = String::new();
        encode(&mut text, &registry(&figures)).unwrap();
        for line in [
            "# TYPE fanfold_phase_seconds histogram",
            r#"fanfold_phase_seconds_bucket{le="0.00025",phase="fsync"} 0"#,
            r#"fanfold_phase_seconds_bucket{le="0.0005",phase="fsync"} 1"#,
            r#"fanfold_phase_seconds_bucket{le="+Inf",phase="fsync"} 2"#,
            r#"fanfold_phase_seconds_sum{phase="fsync"} 0.0012"#,
            r#"fanfold_phase_seconds_count{phase="merge"} 0"#,
            r#"fanfold_queued_commands{partition="3"} 17"#,
            r#"fanfold_replica_checksum_mismatch{partition="3"} 1"#,
            "fanfold_disk_stalled 1",
            r#"fanfold_replica_damaged{partition="3"} 0"#,
            r#"fanfold_replica_damaged{partition="9"} 1"#,
            "fanfold_damaged_replicas_total 2",
            r#"fanfold_log_kept_by_damaged_bytes{partition="3"} 0"#,
            r#"fanfold_log_kept_by_damaged_bytes{partition="9"} 5000"#,
            "fanfold_verify_findings 3",
            "fanfold_log_syncs_total 5",
            "fanfold_log_full 1",
            "fanfold_disk_free_bytes 1000",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }
}
