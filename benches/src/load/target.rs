//! Owns what a side of a measurement can do, and the plain descriptions of what is asked and what was measured.
//!
//! - A side is called from one thread, one call at a time; what it needs for that (a runtime, connections, threads) it owns.
//! - Between calls a side may be paused (SIGSTOP by process id): it stays filled while the other side is measured.
//! - Every call that measures ends with the feeds drained and compared with the oracle; the figures say how many differed.

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Which store is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TargetKind {
    /// A Fanfold node.
    Fanfold,
    /// Redis.
    Redis,
}

/// How durable an answered post is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Persistence {
    /// It is lost when the process ends.
    None,
    /// Up to a second of posts is lost when the machine fails.
    Everysec,
    /// It is synced to disk before its answer. The only one of Fanfold.
    Always,
}

/// A fan-out measurement.
#[derive(Debug, Clone)]
pub struct FanoutLoad {
    /// Bytes of each payload.
    pub payload_bytes: u32,
    /// Connections that post.
    pub connections: u32,
    /// Posts under way on each connection in a closed loop.
    pub in_flight: u32,
    /// Posts a second over all connections, at an even pace, latency from the intended time (open loop); without it, each answer
    /// causes the next post (closed loop).
    pub rate: Option<f64>,
    /// How long posts are made; the drain comes on top.
    pub duration: Duration,
    /// What the measured posts are numbered from, so that rounds differ: [`super::graph::BenchGraph::owner_of_post`].
    pub first_post: u64,
    /// Readers whose feeds are compared with the oracle afterwards.
    pub sample_readers: u32,
    /// Reads beside the posts. Only a Fanfold node is asked for them.
    pub reads: Option<ReadsBeside>,
    /// Figures are also given for each such time. Only of a Fanfold node.
    pub window: Option<Duration>,
}

/// Feed reads beside posts, at an even pace and on connections of their own, latency from the intended time.
#[derive(Debug, Clone, Copy)]
pub struct ReadsBeside {
    /// Reads a second.
    pub rate: f64,
    /// Entries of a page.
    pub limit: u32,
    /// Whether payloads come along.
    pub hydrate: bool,
}

/// What was measured within one window of time.
#[derive(Debug, Clone)]
pub struct WindowFigures {
    /// How long it was.
    pub seconds: f64,
    /// Posts answered.
    pub posts: u64,
    /// From sending (or the intended time) to the answer of a post.
    pub post_micros: MicrosHistogram,
    /// Reads answered.
    pub reads: u64,
    /// From the intended time to the answer of a read.
    pub read_micros: MicrosHistogram,
    /// Entries stored in feeds.
    pub deliveries: u64,
    /// The servers at its beginning.
    pub before: ServerUse,
    /// The servers at its end.
    pub after: ServerUse,
    /// Waits of applying for the state it applies to.
    pub stalls: LongTimes,
    /// Times for which upkeep (snapshots, flushes, merges) kept applying from its state.
    pub holds: LongTimes,
    /// The same without the time in which upkeep was ready and had no processor.
    pub holds_ran: LongTimes,
    /// Seconds in which threads that apply were ready and had no processor, all together.
    pub ready_seconds: f64,
}

/// Times of more than 5 ms.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LongTimes {
    /// How many.
    pub count: u64,
    /// A bound that no time passed, in milliseconds; none if the node knows no bound so high.
    pub longest_ms: Option<f64>,
}

/// A measurement of feed reads, closed loop.
#[derive(Debug, Clone)]
pub struct ReadLoad {
    /// Whether the readers follow celebrities, 10 each, or none.
    pub celebrities: bool,
    /// Whether payloads come along.
    pub hydrate: bool,
    /// Entries of a page.
    pub limit: u32,
    /// Connections that read.
    pub connections: u32,
    /// Reads under way on each connection.
    pub depth: u32,
    /// How long.
    pub duration: Duration,
    /// What the reads are numbered from: [`super::graph::BenchGraph::reader_of_read`].
    pub first_read: u64,
    /// Readers whose feeds are compared with the oracle afterwards.
    pub sample_readers: u32,
}

/// A measurement of reads and posts at a given rate, open loop: each has its intended time, and latency counts from it.
#[derive(Debug, Clone)]
pub struct MixedLoad {
    /// Reads and posts a second together.
    pub rate: f64,
    /// Reads for each post.
    pub reads_per_post: u32,
    /// Bytes of each payload.
    pub payload_bytes: u32,
    /// Whether pages come with payloads.
    pub hydrate: bool,
    /// Entries of a page.
    pub limit: u32,
    /// Connections.
    pub connections: u32,
    /// How long.
    pub duration: Duration,
    /// What posts are numbered from.
    pub first_post: u64,
    /// What reads are numbered from.
    pub first_read: u64,
    /// Readers whose feeds are compared with the oracle afterwards.
    pub sample_readers: u32,
}

/// Posts by everybody while one owner, followed by every user, posts too.
#[derive(Debug, Clone)]
pub struct WhaleLoad {
    /// The others' posts: an open loop. The same load is first measured without the whale.
    pub others: FanoutLoad,
    /// Time between two posts of the whale; the first comes after one such time.
    pub whale_pause: Duration,
    /// How long the others post first without being measured.
    pub warm_up: Duration,
}

/// Reads and posts at a given rate while a node joins and is given its share, and before and after that.
#[derive(Debug, Clone)]
pub struct GrowLoad {
    /// Reads and posts a second together.
    pub rate: f64,
    /// Reads for each post.
    pub reads_per_post: u32,
    /// Bytes of each payload.
    pub payload_bytes: u32,
    /// Whether pages come with payloads.
    pub hydrate: bool,
    /// Entries of a page.
    pub limit: u32,
    /// Connections.
    pub connections: u32,
    /// How long before the change, and after it.
    pub duration: Duration,
    /// What posts and reads are numbered from.
    pub first: u64,
    /// Whether a node joins at all; if not, only what comes before is measured.
    pub grows: bool,
    /// Figures are also given for each such time.
    pub window: Option<Duration>,
    /// Readers whose feeds are compared with the oracle afterwards.
    pub sample_readers: u32,
}

/// What was answered within a span of time.
#[derive(Debug, Clone)]
pub struct SpanFigures {
    /// How long it was.
    pub seconds: f64,
    /// From the intended time to the answer of a read.
    pub read_micros: MicrosHistogram,
    /// From the intended time to the answer of a post.
    pub post_micros: MicrosHistogram,
    /// Requests refused for good.
    pub errors: u64,
    /// Pages that the node called short, because another partition could not be asked.
    pub short_pages: u64,
    /// Processor seconds of all nodes, if they were looked at.
    pub server_cpu_seconds: Option<f64>,
}

/// What became of a node that joined.
#[derive(Debug, Clone, Copy, Default)]
pub struct Grown {
    /// From the start of its process to its readiness.
    pub join_seconds: f64,
    /// From the call of `balance` until everything was where it should be.
    pub move_seconds: f64,
    /// Replicas of partitions that it has.
    pub replicas: u64,
    /// Partitions that it leads.
    pub leads: u64,
    /// Bytes that it wrote to disk meanwhile.
    pub written_bytes: u64,
}

/// Figures of a cluster that grew.
#[derive(Debug, Clone)]
pub struct GrowFigures {
    /// Before, during and after.
    pub stages: Vec<SpanFigures>,
    /// By windows of time, if that was asked for.
    pub windows: Vec<SpanFigures>,
    /// What became of the new node.
    pub grown: Grown,
    /// Requests that were sent again.
    pub repeats: u64,
    /// Readers compared with the oracle.
    pub sampled_readers: u64,
    /// Readers whose feeds differed from the oracle.
    pub mismatched_readers: u64,
}

/// Processor time, memory and disk of one side's server processes at a moment; differences are taken of two.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct ServerUse {
    /// Seconds of processor time, user and system, since the start of the processes.
    pub cpu_seconds: f64,
    /// Bytes resident (`VmRSS`).
    pub resident_bytes: u64,
    /// Bytes that the processes caused to be written to disk (`write_bytes` of `/proc/PID/io`).
    pub written_bytes: u64,
    /// Bytes that the disk under them has written, for whomever (`/proc/diskstats`); none if their files are on no disk.
    pub disk_written_bytes: Option<u64>,
}

impl ServerUse {
    /// Bytes that the disk wrote from `before` to now.
    pub fn disk_written_since(&self, before: &Self) -> Option<u64> {
        Some(self.disk_written_bytes?.saturating_sub(before.disk_written_bytes?))
    }
}

/// A histogram of microseconds with three significant digits.
pub type MicrosHistogram = Histogram<u64>;

/// Longest time that a histogram tells from longer ones, in microseconds: ten minutes.
pub const MICROS_MAX: u64 = 600_000_000;

/// An empty histogram of microseconds up to [`MICROS_MAX`].
pub fn micros_histogram() -> MicrosHistogram {
    Histogram::new_with_bounds(1, MICROS_MAX, 3).expect("the bounds lie apart and three digits are allowed")
}

/// What one measurement gave.
#[derive(Debug, Clone)]
pub struct Figures {
    /// The way it was done, for people and machines: `append`, `rpush pipelined`, `function`, …
    pub way: &'static str,
    /// How durable posts were.
    pub persistence: Persistence,
    /// Server processes, or partitions of one node.
    pub partitions: u32,
    /// Nodes of the cluster; 1 for Redis.
    pub nodes: u32,
    /// Replicas of each partition; 1 for Redis.
    pub replicas: u32,
    /// Connections, as used (a side may know better ones).
    pub connections: u32,
    /// Requests under way on each connection at most, as used.
    pub in_flight: u32,
    /// Posts answered.
    pub posts: u64,
    /// From the first post (or read) to the last delivery (or answer), in seconds.
    pub seconds: f64,
    /// Entries stored in feeds, counted on the server.
    pub deliveries: u64,
    /// From sending (or the intended time) to the answer of a post.
    pub post_micros: MicrosHistogram,
    /// From the answer of a post to its last delivery, of a sample of posts; empty if deliveries are complete before the answer.
    pub last_delivery_micros: MicrosHistogram,
    /// From the intended time of a post to its last delivery, of the same sample.
    pub post_to_last_micros: MicrosHistogram,
    /// Reads answered.
    pub reads: u64,
    /// From sending (or the intended time) to the answer of a read.
    pub read_micros: MicrosHistogram,
    /// The servers before.
    pub before: ServerUse,
    /// The servers afterwards, drained.
    pub after: ServerUse,
    /// Processor seconds of the harness between the two, of all its threads.
    pub client_cpu_seconds: f64,
    /// Entries in all feeds afterwards, if known.
    pub feed_entries: Option<u64>,
    /// Bytes that the logs of all nodes grew by (the append-only file, the write-ahead log), if there are any.
    pub log_bytes: Option<u64>,
    /// Readers compared with the oracle.
    pub sampled_readers: u64,
    /// Readers whose feeds differed from the oracle; anything but 0 makes the command fail.
    pub mismatched_readers: u64,
    /// What was measured within each window, if that was asked for.
    pub windows: Vec<WindowFigures>,
    /// What else is worth saying: the share of a core used, the ceiling of the client, …: name and number.
    pub notes: Vec<(&'static str, f64)>,
}

impl Figures {
    /// Figures of nothing yet.
    pub fn new(way: &'static str, persistence: Persistence) -> Self {
        Self {
            way,
            persistence,
            partitions: 1,
            nodes: 1,
            replicas: 1,
            connections: 0,
            in_flight: 0,
            posts: 0,
            seconds: 0.0,
            deliveries: 0,
            post_micros: micros_histogram(),
            last_delivery_micros: micros_histogram(),
            post_to_last_micros: micros_histogram(),
            reads: 0,
            read_micros: micros_histogram(),
            before: ServerUse::default(),
            after: ServerUse::default(),
            client_cpu_seconds: 0.0,
            feed_entries: None,
            log_bytes: None,
            sampled_readers: 0,
            mismatched_readers: 0,
            windows: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Seconds of the servers' processors.
    pub fn server_cpu_seconds(&self) -> f64 {
        self.after.cpu_seconds - self.before.cpu_seconds
    }

    /// Posts a second.
    pub fn posts_per_second(&self) -> f64 {
        ratio(self.posts as f64, self.seconds)
    }

    /// Deliveries a second.
    pub fn deliveries_per_second(&self) -> f64 {
        ratio(self.deliveries as f64, self.seconds)
    }

    /// Deliveries for each second of the servers' processors.
    pub fn deliveries_per_server_cpu_second(&self) -> f64 {
        ratio(self.deliveries as f64, self.server_cpu_seconds())
    }

    /// Seconds of the servers' processors for each post with all that follows from it; none without posts.
    pub fn cpu_seconds_per_post(&self) -> Option<f64> {
        (self.posts > 0).then(|| self.server_cpu_seconds() / self.posts as f64)
    }

    /// Seconds of the servers' processors for each delivery, the posts themselves included; none without deliveries.
    pub fn cpu_seconds_per_delivery(&self) -> Option<f64> {
        (self.deliveries > 0).then(|| self.server_cpu_seconds() / self.deliveries as f64)
    }

    /// Seconds of the servers' processors for each read, if nothing was posted beside them.
    pub fn cpu_seconds_per_read(&self) -> Option<f64> {
        (self.reads > 0 && self.posts == 0).then(|| self.server_cpu_seconds() / self.reads as f64)
    }

    /// Reads a second.
    pub fn reads_per_second(&self) -> f64 {
        ratio(self.reads as f64, self.seconds)
    }

    /// Reads for each second of the servers' processors.
    pub fn reads_per_server_cpu_second(&self) -> f64 {
        ratio(self.reads as f64, self.server_cpu_seconds())
    }
}

/// A quotient, 0 where there is nothing to divide by.
fn ratio(what: f64, by: f64) -> f64 {
    if by > 0.0 { what / by } else { 0.0 }
}

/// What loading the graph took.
#[derive(Debug, Clone, Default)]
pub struct Loaded {
    /// Edges made.
    pub edges: u64,
    /// Connections used.
    pub connections: u32,
    /// Requests under way on each; of Redis, batches of commands.
    pub in_flight: u32,
    /// From the first follow until all were answered and filled, in seconds.
    pub seconds: f64,
    /// Processor seconds of the harness.
    pub client_cpu_seconds: f64,
    /// The servers before.
    pub before: ServerUse,
    /// The servers afterwards.
    pub after: ServerUse,
}

/// What was compared with the oracle, and how much of it differed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Compared {
    /// Users compared.
    pub sampled: u64,
    /// Users whose feeds or edges differed.
    pub mismatched: u64,
}

/// What filling the feeds gave.
#[derive(Debug, Clone, Default)]
pub struct Filled {
    /// Posts made, or stood for.
    pub posts: u64,
    /// Entries in all feeds afterwards.
    pub feed_entries: u64,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// The servers before.
    pub before: ServerUse,
    /// The servers afterwards.
    pub after: ServerUse,
}

/// The others' figures without and with a whale, and the whale's own.
#[derive(Debug, Clone)]
pub struct WhaleFigures {
    /// The others alone.
    pub without: Figures,
    /// The others while the whale posted.
    pub with: Figures,
    /// From the answer of the whale's post to its last delivery.
    pub whale_micros: MicrosHistogram,
    /// Followers of the whale.
    pub whale_followers: u64,
}

/// Why a side could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[error("{side}: {source}")]
pub struct TargetError {
    /// The side.
    pub side: TargetKind,
    /// Why; each side has an enum of its own.
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// A side that can be measured.
///
/// A call gives one or more figures: one for each way and persistence that the side knows; which counts, the harness decides.
pub trait Target {
    /// Which one.
    fn kind(&self) -> TargetKind;

    /// Makes the graph; called once, first.
    fn load(&mut self) -> Result<Loaded, TargetError>;

    /// Compares the edges of so many users with the graph; after `load`.
    fn compare_edges(&mut self, sample_users: u32) -> Result<Compared, TargetError>;

    /// Fills every feed by the plan; called once, after `load`.
    fn fill(&mut self) -> Result<Filled, TargetError>;

    /// Measures the fan-out.
    fn fanout(&mut self, load: &FanoutLoad) -> Result<Vec<Figures>, TargetError>;

    /// Measures feed reads.
    fn read(&mut self, load: &ReadLoad) -> Result<Vec<Figures>, TargetError>;

    /// Measures reads and posts together.
    fn mixed(&mut self, load: &MixedLoad) -> Result<Vec<Figures>, TargetError>;

    /// Measures a whale; the first call makes everybody follow it.
    fn whale(&mut self, load: &WhaleLoad) -> Result<Vec<WhaleFigures>, TargetError>;

    /// Stops the server processes until `resume`, so that they take no processor time.
    fn pause(&mut self) -> Result<(), TargetError>;

    /// Lets them go on.
    fn resume(&mut self) -> Result<(), TargetError>;

    /// Ends the server processes and removes their files.
    fn stop(&mut self) -> Result<(), TargetError>;
}

impl fmt::Display for TargetKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fanfold => "fanfold",
            Self::Redis => "redis",
        })
    }
}

impl fmt::Display for Persistence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Everysec => "everysec",
            Self::Always => "always",
        })
    }
}
