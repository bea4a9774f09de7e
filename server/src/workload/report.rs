//! Owns the report of a workload: the figures, with everything that is needed to read them.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::compare::Comparison;
use super::machine::Machine;
use super::mirror::Mirror;
use super::reads::ReadFigures;

/// What a workload did, how fast, and what differs from the oracle.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// What ran: `demo` or `replay`.
    pub workload: &'static str,
    /// Users that any operation named.
    pub users: u64,
    /// Edges at the end.
    pub edges: u64,
    /// Operations acknowledged, follows included.
    pub operations: u64,
    /// Entries appended.
    pub posts: u64,
    /// Entries times the followers their owners had in the order of the run, by the oracle's count; private entries
    /// and readers' own entries are not counted.
    pub deliveries: u64,
    /// What the partitions count as stored in feeds; less where owners are pulled, more where late followers were
    /// filled. None if the node was not asked.
    pub deliveries_stored: Option<u64>,
    /// From the first operation after the graph until the fan-out had drained; restarts included.
    pub seconds: f64,
    /// `deliveries` by `seconds`.
    pub deliveries_per_second: f64,
    /// `posts` by `seconds`.
    pub posts_per_second: f64,
    /// What making the graph took, until it was acknowledged.
    pub graph_seconds: f64,
    /// Edges of the graph by that.
    pub graph_edges_per_second: f64,
    /// First pages of feeds.
    pub reads: Option<ReadFigures>,
    /// First pages of feeds with payloads and references.
    pub hydrated_reads: Option<ReadFigures>,
    /// Feeds read in full and compared.
    pub feeds_checked: u64,
    /// Of them, those that differ.
    pub feeds_mismatched: u64,
    /// Entries in the feeds compared.
    pub feed_entries: u64,
    /// Timelines read in full and compared, payloads included.
    pub timelines_checked: u64,
    /// Of them, those that differ.
    pub timelines_mismatched: u64,
    /// Users whose counts of followers or followees differ.
    pub counts_mismatched: u64,
    /// Answers to operations that were not what the operation should have done.
    pub answers_mismatched: u64,
    /// Pages of the comparison that were short of something (R15) and were continued.
    pub pages_short: u64,
    /// What the comparison took.
    pub check_seconds: f64,
    /// How often the node was killed and started again.
    pub restarts: u64,
    /// The longest restart, from the new process to its readiness.
    pub recovery_seconds_max: Option<f64>,
    /// Main memory that the node's process holds at the end, if the system tells.
    pub node_memory_bytes: Option<u64>,
    /// What the run was asked to do.
    pub parameters: serde_json::Value,
    /// Where it ran.
    pub machine: Machine,
}

impl Report {
    /// An empty one.
    pub fn new(workload: &'static str, parameters: serde_json::Value) -> Self {
        Self {
            workload,
            users: 0,
            edges: 0,
            operations: 0,
            posts: 0,
            deliveries: 0,
            deliveries_stored: None,
            seconds: 0.0,
            deliveries_per_second: 0.0,
            posts_per_second: 0.0,
            graph_seconds: 0.0,
            graph_edges_per_second: 0.0,
            reads: None,
            hydrated_reads: None,
            feeds_checked: 0,
            feeds_mismatched: 0,
            feed_entries: 0,
            timelines_checked: 0,
            timelines_mismatched: 0,
            counts_mismatched: 0,
            answers_mismatched: 0,
            pages_short: 0,
            check_seconds: 0.0,
            restarts: 0,
            recovery_seconds_max: None,
            node_memory_bytes: None,
            parameters,
            machine: Machine::here(),
        }
    }

    /// Takes what making the graph took; the mirror holds nothing else yet.
    pub fn take_graph(&mut self, mirror: &Mirror, took: Duration) {
        self.graph_seconds = took.as_secs_f64();
        self.graph_edges_per_second = per_second(mirror.edges(), took);
    }

    /// Takes what came of all operations, and how long those after the graph took.
    pub fn take_operations(&mut self, mirror: &Mirror, took: Duration) {
        let tally = mirror.tally();
        self.users = mirror.users().count() as u64;
        self.edges = mirror.edges();
        self.operations = tally.operations;
        self.posts = tally.posts;
        self.deliveries = tally.deliveries;
        self.answers_mismatched = tally.answers_mismatched;
        self.seconds = took.as_secs_f64();
        self.deliveries_per_second = per_second(tally.deliveries, took);
        self.posts_per_second = per_second(tally.posts, took);
    }

    /// Adds what a comparison found.
    pub fn take_comparison(&mut self, found: &Comparison, took: Duration) {
        self.feeds_checked += found.feeds_checked;
        self.feeds_mismatched += found.feeds_mismatched;
        self.feed_entries += found.feed_entries;
        self.timelines_checked += found.timelines_checked;
        self.timelines_mismatched += found.timelines_mismatched;
        self.counts_mismatched += found.counts_mismatched;
        self.pages_short += found.pages_short;
        self.check_seconds += took.as_secs_f64();
    }

    /// Adds restarts.
    pub fn take_restarts(&mut self, recoveries: &[Duration]) {
        self.restarts += recoveries.len() as u64;
        for took in recoveries.iter().map(Duration::as_secs_f64) {
            self.recovery_seconds_max =
                Some(self.recovery_seconds_max.map_or(took, |longest| longest.max(took)));
        }
    }

    /// Everything that differs from what should be.
    pub fn mismatches(&self) -> u64 {
        self.feeds_mismatched + self.timelines_mismatched + self.counts_mismatched + self.answers_mismatched
    }
}

fn per_second(count: u64, took: Duration) -> f64 {
    if took.is_zero() { 0.0 } else { count as f64 / took.as_secs_f64() }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = |value: f64| grouped(value.round() as u64);
        writeln!(f, "graph        {} users, {} edges", grouped(self.users), grouped(self.edges))?;
        let (seconds, edges) = (self.graph_seconds, whole(self.graph_edges_per_second));
        writeln!(f, "             followed in {seconds:.2} s, {edges} edges/s")?;
        let posts = grouped(self.posts);
        writeln!(
            f,
            "posts        {posts} in {:.2} s, {} posts/s",
            self.seconds,
            whole(self.posts_per_second)
        )?;
        let (deliveries, rate) = (grouped(self.deliveries), whole(self.deliveries_per_second));
        writeln!(f, "deliveries   {deliveries} until drained, {rate} deliveries/s")?;
        for (name, reads) in [("reads", self.reads), ("  hydrated", self.hydrated_reads)] {
            if let Some(reads) = reads {
                let (p50, p99) = (reads.p50_us as f64 / 1e3, reads.p99_us as f64 / 1e3);
                let rate = whole(reads.reads_per_second);
                writeln!(
                    f,
                    "{name:12} {rate} reads/s, p50 {p50:.2} ms, p99 {p99:.2} ms (first 20, 32 at a time)"
                )?;
            }
        }
        if self.restarts > 0 {
            let longest = self.recovery_seconds_max.unwrap_or_default();
            writeln!(f, "recovery     {longest:.2} s at most, {} kill -9 and restart", self.restarts)?;
        }
        let (feeds, timelines) = (grouped(self.feeds_checked), grouped(self.timelines_checked));
        let (entries, seconds) = (grouped(self.feed_entries), self.check_seconds);
        writeln!(
            f,
            "checked      {feeds} feeds with {entries} entries, {timelines} timelines, in {seconds:.1} s"
        )?;
        writeln!(f, "mismatches   {}", self.mismatches())?;
        writeln!(f, "parameters   {}", self.parameters)?;
        write!(f, "machine      {}", self.machine)
    }
}

/// A number with a comma between thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_separated() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_234_567), "1,234,567");
    }

    #[test]
    fn the_longest_restart_is_kept() {
        let mut report = Report::new("demo", serde_json::json!({}));
        report.take_restarts(&[Duration::from_secs(1), Duration::from_secs(3)]);
        report.take_restarts(&[Duration::from_secs(2)]);
        assert_eq!((report.restarts, report.recovery_seconds_max), (3, Some(3.0)));
    }

    #[test]
    fn every_kind_of_mismatch_counts() {
        let mut report = Report::new("demo", serde_json::json!({}));
        assert_eq!(report.mismatches(), 0);
        let found = Comparison {
            feeds_mismatched: 1,
            timelines_mismatched: 10,
            counts_mismatched: 100,
            ..Comparison::default()
        };
        report.take_comparison(&found, Duration::ZERO);
        report.answers_mismatched = 1_000;
        assert_eq!(report.mismatches(), 1_111);
    }
}
