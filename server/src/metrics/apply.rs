//! Owns the metrics of applying: how long its pieces waited for a partition's lock, and how long they took.

use std::fmt;

use fanfold_cluster::{APPLY_TIME_BOUNDS, ApplyTimes, Times};
use fanfold_storage::ids::PartitionId;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

/// What is told of each partition: name, help, value.
type TimesMetric = (&'static str, &'static str, fn(&ApplyTimes) -> &Times);

const METRICS: [TimesMetric; 4] = [
    ("apply_wait_seconds", "Waits of applying for the lock of the state", |times| &times.waits),
    ("apply_piece_seconds", "Pieces of applying, with their waits for the lock", |times| &times.pieces),
    (
        "upkeep_held_seconds",
        "Times for which upkeep held the state or had to catch up, so that nothing was applied",
        |times| &times.held,
    ),
    (
        "upkeep_ran_seconds",
        "The same without the time in which the system let upkeep wait for a processor",
        |times| &times.ran,
    ),
];

#[derive(Debug)]
struct Applying(Vec<(PartitionId, ApplyTimes)>);

impl Collector for Applying {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        for (name, help, times) in METRICS {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
            for (partition, applying) in &self.0 {
                let label = [("partition", partition.0)];
                Shown(times(applying)).encode(metric.encode_family(&label)?)?;
            }
        }
        Ok(())
    }
}

/// Times as a histogram.
struct Shown<'a>(&'a Times);

impl EncodeMetric for Shown<'_> {
    fn encode(&self, mut encoder: prometheus_client::encoding::MetricEncoder) -> Result<(), fmt::Error> {
        let Times { counts, sum } = self.0;
        let bounds = APPLY_TIME_BOUNDS.iter().map(std::time::Duration::as_secs_f64).chain([f64::MAX]);
        let buckets: Vec<(f64, u64)> = bounds.zip(counts.iter().copied()).collect();
        let count = counts.iter().sum();
        encoder.encode_histogram::<NoLabelSet>(sum.as_secs_f64(), count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

/// The metrics of what applying took in each partition.
pub(super) fn registry(times: Vec<(PartitionId, ApplyTimes)>) -> Registry {
    let mut registry = Registry::with_prefix("fanfold");
    registry.register_collector(Box::new(Applying(times)));
    registry
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode_registry;

    use super::*;

    #[test]
    fn times_are_told_by_partition_and_bound() {
        let mut times = ApplyTimes::default();
        (times.waits.counts[0], times.waits.counts[6], times.waits.counts[13]) = (5, 2, 1);
        let mut text = String::new();
        encode_registry(&mut text, &registry(vec![(PartitionId(3), times)])).unwrap();
        for line in [
            r#"fanfold_apply_wait_seconds_bucket{le="0.005",partition="3"} 5"#,
            r#"fanfold_apply_wait_seconds_bucket{le="0.01",partition="3"} 7"#,
            r#"fanfold_apply_wait_seconds_bucket{le="+Inf",partition="3"} 8"#,
            r#"fanfold_apply_piece_seconds_count{partition="3"} 0"#,
        ] {
            assert!(text.contains(line), "{text}");
        }
    }
}
