//! Owns how long requests took until they were answered: a histogram that is counted without a lock.
//!
//! - Network threads and partitions' threads count into the same one; each count is exact, and what a reader sees of several
//!   may be a moment apart.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::{MetricType, TypedMetric};

/// The upper bounds of the buckets, in microseconds; one more bucket has no bound.
const BOUNDS_US: [u64; 14] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000, 5_000_000,
    30_000_000,
];

const BUCKETS: usize = BOUNDS_US.len() + 1;

/// Times are added up in tenths of a microsecond: exact enough for the shortest, and no sum of a node's life is too large.
const TICK_NS: u128 = 100;

const TICKS_PER_SECOND: f64 = 1e7;

/// The bucket of a time.
fn bucket_of(took: Duration) -> usize {
    // Nearly all are in one of the first.
    BOUNDS_US.iter().position(|bound| took <= Duration::from_micros(*bound)).unwrap_or(BOUNDS_US.len())
}

fn ticks(took: Duration) -> u64 {
    u64::try_from(took.as_nanos() / TICK_NS).unwrap_or(u64::MAX)
}

/// Times that are counted together.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    buckets: [u64; BUCKETS],
    count: u64,
    sum: Duration,
}

impl Tally {
    /// Notes a time.
    pub(crate) fn note(&mut self, took: Duration) {
        self.buckets[bucket_of(took)] += 1;
        self.count += 1;
        self.sum = self.sum.saturating_add(took);
    }

    /// How many were noted.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }
}

#[derive(Debug, Default)]
struct Counts {
    /// Not cumulative.
    buckets: [AtomicU64; BUCKETS],
    /// In tenths of a microsecond.
    sum: AtomicU64,
}

/// A histogram of times; its clones are one and the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Latency(Arc<Counts>);

impl Latency {
    /// Counts a time.
    pub(super) fn observe(&self, took: Duration) {
        self.0.buckets[bucket_of(took)].fetch_add(1, Ordering::Relaxed);
        self.0.sum.fetch_add(ticks(took), Ordering::Relaxed);
    }

    /// Counts times that were noted together.
    pub(super) fn add(&self, tally: &Tally) {
        for (bucket, more) in self.0.buckets.iter().zip(tally.buckets).filter(|(_, more)| *more > 0) {
            bucket.fetch_add(more, Ordering::Relaxed);
        }
        self.0.sum.fetch_add(ticks(tally.sum), Ordering::Relaxed);
    }
}

impl TypedMetric for Latency {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Latency {
    fn encode(&self, mut encoder: MetricEncoder) -> std::fmt::Result {
        let counts = self.0.buckets.each_ref().map(|count| count.load(Ordering::Relaxed));
        let bounds = BOUNDS_US.iter().map(|bound| *bound as f64 / 1e6).chain([f64::MAX]);
        let buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
        let seconds = self.0.sum.load(Ordering::Relaxed) as f64 / TICKS_PER_SECOND;
        encoder.encode_histogram::<NoLabelSet>(seconds, counts.iter().sum(), &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use prometheus_client::metrics::histogram::Histogram;
    use prometheus_client::registry::Registry;

    use super::*;

    fn text(histogram: impl prometheus_client::registry::Metric) -> String {
        let (mut registry, mut text) = (Registry::default(), String::new());
        registry.register("request_seconds", "Times", histogram);
        encode(&mut text, &registry).unwrap();
        text
    }

    #[test]
    fn what_is_told_is_that_of_the_usual_histogram() {
        let took_us = [0, 99, 100, 101, 4_000, 29_999_999, 30_000_000, 30_000_001, 70_000_000];
        let usual = Histogram::new([
            0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0,
        ]);
        let (one_by_one, together, mut tally) = (Latency::default(), Latency::default(), Tally::default());
        for took in took_us.map(Duration::from_micros) {
            usual.observe(took.as_secs_f64());
            one_by_one.observe(took);
            tally.note(took);
        }
        together.add(&tally);
        assert_eq!(tally.count(), took_us.len() as u64);
        let expected = text(usual);
        assert!(expected.contains("request_seconds_bucket{le=\"0.0001\"} 3"), "{expected}");
        assert_eq!(text(one_by_one), expected);
        assert_eq!(text(together), expected);
    }
}
