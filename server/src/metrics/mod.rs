//! Owns the metrics of a node: what the listener counts, and what the node's status says when asked.
//!
//! - Names and labels are for operators and stay; a label never holds a user, an entry or an address.
//! - Units are those of Prometheus: seconds and bytes; what only grows is a counter, and ends in `_total`.
//! - What the node knows itself is read when `/metrics` is asked, not counted twice.
//! - To count an answer takes no lock; answers of one moment are counted together.

mod apply;
mod cluster;
mod latency;
mod node;
mod phases;
mod units;

use std::fmt::Write as _;
use std::sync::OnceLock;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::names::{RequestKind, status_name};
use fanfold_cluster::ApplyTimes;
use fanfold_cluster::status::NodeFigures;
use fanfold_protocol::Status;
use fanfold_protocol::message::{ClusterView, NodeStatus};
use fanfold_storage::ids::PartitionId;
use latency::Latency;
pub(crate) use latency::Tally;

/// What came of requests of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    kind: &'static str,
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusLabel {
    status: &'static str,
}

/// What the listener counts. Shared by all connections.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    latency: Family<KindLabel, Latency>,
    /// The two above for what was answered well, by kind, so that a usual request looks nothing up.
    answered: [OnceLock<(Counter, Latency)>; RequestKind::COUNT],
    closed: Family<StatusLabel, Counter>,
    /// Connections open now.
    pub connections: Gauge,
    /// Requests read and not answered yet.
    pub in_flight: Gauge,
    /// Bytes read from clients.
    pub received_bytes: Counter,
    /// Bytes written to clients.
    pub sent_bytes: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Self {
            registry: Registry::with_prefix("fanfold"),
            requests: Family::default(),
            latency: Family::default(),
            answered: [const { OnceLock::new() }; RequestKind::COUNT],
            closed: Family::default(),
            connections: Gauge::default(),
            in_flight: Gauge::default(),
            received_bytes: Counter::default(),
            sent_bytes: Counter::default(),
        };
        metrics.registered()
    }
}

impl Metrics {
    fn registered(mut self) -> Self {
        let r = &mut self.registry;
        r.register("requests", "Requests answered, by kind and status", self.requests.clone());
        r.register(
            "request_seconds",
            "Time from the decoded request to its answer, by kind",
            self.latency.clone(),
        );
        r.register("connections_refused", "Connections closed by the node, by status", self.closed.clone());
        r.register("connections", "Client connections open now", self.connections.clone());
        r.register("requests_in_flight", "Requests read and not answered yet", self.in_flight.clone());
        r.register("received_bytes", "Bytes read from clients", self.received_bytes.clone());
        r.register("sent_bytes", "Bytes written to clients", self.sent_bytes.clone());
        self
    }

    /// Counts one answered request.
    pub fn answered(&self, kind: RequestKind, refused: Option<&Status>, took: Duration) {
        match refused {
            None => {
                let (requests, latency) = self.answered_well(kind);
                requests.inc();
                latency.observe(took);
            }
            Some(status) => {
                let (requests, latency) = self.find(kind, status_name(status));
                requests.inc();
                latency.observe(took);
            }
        }
    }

    /// Counts requests of one kind that were answered well.
    pub(crate) fn answered_together(&self, kind: RequestKind, tally: &Tally) {
        let (requests, latency) = self.answered_well(kind);
        requests.inc_by(tally.count());
        latency.add(tally);
    }

    fn answered_well(&self, kind: RequestKind) -> &(Counter, Latency) {
        self.answered[kind as usize].get_or_init(|| self.find(kind, "ok"))
    }

    fn find(&self, kind: RequestKind, status: &'static str) -> (Counter, Latency) {
        let kind = kind.name();
        let requests = self.requests.get_or_create(&RequestLabels { kind, status }).clone();
        (requests, self.latency.get_or_create(&KindLabel { kind }).clone())
    }

    /// Counts one connection that the node closed for a reason it told the client.
    pub fn closed(&self, status: &Status) {
        self.closed.get_or_create(&StatusLabel { status: status_name(status) }).inc();
    }

    /// Everything in the text format of Prometheus (OpenMetrics 1.0).
    pub fn text(
        &self,
        status: Option<&NodeStatus>,
        view: Option<&ClusterView>,
        figures: Option<&NodeFigures>,
        times: Vec<(PartitionId, ApplyTimes)>,
    ) -> String {
        let mut out = String::new();
        let write = || -> std::fmt::Result {
            encode_registry(&mut out, &self.registry)?;
            if let Some(status) = status {
                encode_registry(&mut out, &node::registry(status, view))?;
            }
            encode_registry(&mut out, &apply::registry(times))?;
            encode_registry(&mut out, &allocations())?;
            if let Some(view) = view {
                encode_registry(&mut out, &cluster::registry(view))?;
            }
            if let Some(figures) = figures {
                encode_registry(&mut out, &phases::registry(figures))?;
            }
            encode_eof(&mut out)
        };
        if write().is_err() {
            // Writing to a string cannot fail; an encoder that does says so in a comment.
            let _ = writeln!(out, "# the metrics could not be encoded");
        }
        out
    }
}

/// What the allocator was asked for.
fn allocations() -> Registry {
    let mut registry = Registry::with_prefix("fanfold");
    if let Some(asked) = crate::allocator::allocations() {
        let counter: Counter = Counter::default();
        counter.inc_by(asked);
        registry.register("allocations", "Pieces of memory that the process has asked for", counter);
    }
    registry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answered_requests_are_counted_by_kind_and_status() {
        let metrics = Metrics::default();
        metrics.answered(RequestKind::ReadFeed, None, Duration::from_micros(200));
        metrics.answered(RequestKind::ReadFeed, Some(&Status::BadCursor), Duration::from_micros(200));
        let text = metrics.text(None, None, None, Vec::new());
        assert!(text.contains(r#"fanfold_requests_total{kind="read_feed",status="ok"} 1"#), "{text}");
        assert!(text.contains(r#"fanfold_requests_total{kind="read_feed",status="bad_cursor"} 1"#), "{text}");
        assert!(text.contains(r#"fanfold_request_seconds_count{kind="read_feed"} 2"#), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
    }
}
