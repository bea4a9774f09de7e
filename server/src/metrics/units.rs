//! Owns the passage of figures to metrics: what only grows, what is a time.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// A gauge of seconds.
pub(super) type Seconds = Gauge<f64, AtomicU64>;

/// Milliseconds in seconds.
pub(super) fn seconds(ms: i64) -> f64 {
    ms as f64 / 1_000.0
}

/// The same of what is never negative.
pub(super) fn seconds_of(ms: u64) -> f64 {
    ms as f64 / 1_000.0
}

/// A figure as a gauge holds it.
pub(super) fn gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Registers one gauge.
pub(super) fn put(registry: &mut Registry, name: &'static str, help: &'static str, value: i64) {
    let metric: Gauge = Gauge::default();
    metric.set(value);
    registry.register(name, help, metric);
}

/// Registers one gauge of seconds.
pub(super) fn put_seconds(registry: &mut Registry, name: &'static str, help: &'static str, value: f64) {
    let metric = Seconds::default();
    metric.set(value);
    registry.register(name, help, metric);
}

/// Registers one counter that stands at `value`.
pub(super) fn put_total(registry: &mut Registry, name: &'static str, help: &'static str, value: u64) {
    let metric: Counter = Counter::default();
    metric.inc_by(value);
    registry.register(name, help, metric);
}
