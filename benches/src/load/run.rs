//! Owns one run as it is reported, and what many rounds of it come to.

use serde::Serialize;

use super::target::{Figures, MicrosHistogram, Persistence, TargetKind, WindowFigures};

/// Times of a histogram of deliveries or posts, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct TailMs {
    /// The median.
    pub p50: f64,
    /// 99 of 100 are at most so long.
    pub p99: f64,
    /// The longest.
    pub max: f64,
}

/// Times of a histogram of reads, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct ReadMs {
    /// The median.
    pub p50: f64,
    /// 99 of 100 are at most so long.
    pub p99: f64,
    /// 999 of 1,000 are at most so long.
    pub p999: f64,
}

/// What kind of measurement a run was; runs are compared only within one kind.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum RunKind {
    /// Posts and deliveries.
    Fanout {
        /// Posts asked for on each connection.
        asked_in_flight: u32,
        /// Posts a second; none in a closed loop.
        rate: Option<f64>,
    },
    /// Feed reads.
    Read {
        /// Celebrities followed.
        celebrities: u32,
        /// Whether payloads came along.
        hydrated: bool,
        /// Reads under way on each connection.
        depth: u32,
    },
    /// Reads and posts.
    Mixed {
        /// Requests a second.
        rate: f64,
    },
    /// The others' posts, without a whale or beside it.
    Whale {
        /// Whether the whale posted.
        with_whale: bool,
        /// Followers of the whale.
        whale_followers: u64,
        /// From the answer of a whale's post to its last follower.
        whale_last_delivery_ms: Option<TailMs>,
    },
    /// Follows.
    Load {
        /// Edges made.
        edges: u64,
        /// Edges a second.
        edges_per_second: f64,
    },
}

/// What was measured within one window of a run.
#[derive(Debug, Clone, Serialize)]
pub struct WindowResult {
    /// How long it was.
    pub seconds: f64,
    /// Posts a second.
    pub posts_per_second: f64,
    /// Deliveries a second.
    pub deliveries_per_second: f64,
    /// From sending, or the intended time, to the answer of a post.
    pub post_ms: TailMs,
    /// Reads a second.
    pub reads_per_second: f64,
    /// From the intended time to the answer of a read.
    pub read_ms: ReadMs,
    /// Processor seconds of the server processes.
    pub server_cpu_seconds: f64,
    /// Bytes that the servers caused to be written to disk.
    pub written_bytes: u64,
    /// Bytes that the disk wrote meanwhile, for whomever; none if the servers' files are on no disk.
    pub disk_written_bytes: Option<u64>,
    /// Bytes resident at its end.
    pub resident_bytes: u64,
    /// How often applying waited for more than 5 ms for the state it applies to.
    pub stalls: u64,
    /// A bound that no such wait passed, in milliseconds.
    pub longest_stall_ms: Option<f64>,
    /// How often snapshots, flushes and merges kept applying from its state for more than 5 ms.
    pub holds: u64,
    /// A bound that no such time passed, in milliseconds.
    pub longest_hold_ms: Option<f64>,
    /// The same without the time in which upkeep was ready and had no processor: how often, …
    pub holds_ran: u64,
    /// … and the bound.
    pub longest_hold_ran_ms: Option<f64>,
    /// Seconds in which threads that apply were ready and had no processor.
    pub ready_seconds: f64,
}

impl WindowResult {
    fn new(figures: &WindowFigures) -> Self {
        let per_second = |count: u64| count as f64 / figures.seconds;
        Self {
            seconds: figures.seconds,
            posts_per_second: per_second(figures.posts),
            deliveries_per_second: per_second(figures.deliveries),
            post_ms: TailMs::of(&figures.post_micros),
            reads_per_second: per_second(figures.reads),
            read_ms: ReadMs::of(&figures.read_micros),
            server_cpu_seconds: figures.after.cpu_seconds - figures.before.cpu_seconds,
            written_bytes: figures.after.written_bytes.saturating_sub(figures.before.written_bytes),
            disk_written_bytes: figures.after.disk_written_since(&figures.before),
            resident_bytes: figures.after.resident_bytes,
            stalls: figures.stalls.count,
            longest_stall_ms: figures.stalls.longest_ms,
            holds: figures.holds.count,
            longest_hold_ms: figures.holds.longest_ms,
            holds_ran: figures.holds_ran.count,
            longest_hold_ran_ms: figures.holds_ran.longest_ms,
            ready_seconds: figures.ready_seconds,
        }
    }
}

/// One measurement of one side in one round.
#[derive(Debug, Clone, Serialize)]
pub struct RunResult {
    /// Which side.
    pub target: TargetKind,
    /// How it was done there.
    pub way: &'static str,
    /// How durable posts were.
    pub persistence: Persistence,
    /// The round, from 1.
    pub round: u32,
    /// What was measured.
    #[serde(flatten)]
    pub kind: RunKind,
    /// Users.
    pub users: u32,
    /// Followers of an owner on average.
    pub mean_followers: f64,
    /// Partitions of the node, or servers.
    pub partitions: u32,
    /// Partitions that a post reaches on average, its owner's included; 1 for Redis.
    pub partitions_reached: f64,
    /// Nodes of the cluster.
    pub nodes: u32,
    /// Replicas of each partition.
    pub replicas: u32,
    /// Connections used.
    pub connections: u32,
    /// Requests under way on each at most.
    pub in_flight: u32,
    /// Posts answered.
    pub posts: u64,
    /// Entries stored in feeds.
    pub deliveries: u64,
    /// From the first request to the last delivery or answer.
    pub seconds: f64,
    /// Posts a second.
    pub posts_per_second: f64,
    /// Deliveries a second.
    pub deliveries_per_second: f64,
    /// From sending, or the intended time, to the answer of a post.
    pub post_ms: TailMs,
    /// From the answer of a post to its last delivery.
    pub last_delivery_ms: TailMs,
    /// From sending, or the intended time, of a post to its last delivery.
    pub post_to_last_delivery_ms: TailMs,
    /// Reads a second.
    pub reads_per_second: f64,
    /// From sending, or the intended time, to the answer of a read.
    pub read_ms: ReadMs,
    /// Processor seconds of the server processes.
    pub server_cpu_seconds: f64,
    /// Processor seconds of the harness.
    pub client_cpu_seconds: f64,
    /// Deliveries for each processor second of the servers.
    pub deliveries_per_server_cpu_second: f64,
    /// Reads for each processor second of the servers.
    pub reads_per_server_cpu_second: f64,
    /// Microseconds of the servers' processors, all nodes together, for each post with all that follows from it.
    pub cpu_micros_per_post: Option<f64>,
    /// Nanoseconds of them for each delivery, counted once for all replicas, the posts themselves included.
    pub cpu_nanos_per_delivery: Option<f64>,
    /// Microseconds of them for each read, where nothing was posted.
    pub cpu_micros_per_read: Option<f64>,
    /// Bytes that the servers' resident size grew by while feeds were filled, all nodes together, for each entry; none where the fill's
    /// payloads are those of pages that are read, which Redis gets later and not all.
    pub bytes_per_entry: Option<f64>,
    /// Bytes that the servers' resident size grew by while the graph was loaded, all nodes together, for each edge.
    pub bytes_per_edge: Option<f64>,
    /// Bytes of log, of all replicas together, for each delivery, payloads not counted.
    pub log_bytes_per_delivery: Option<f64>,
    /// Bytes that the servers caused to be written to disk, as the kernel accounts them.
    pub written_bytes: u64,
    /// Bytes that the disk wrote meanwhile, for whomever; none if the servers' files are on no disk.
    pub disk_written_bytes: Option<u64>,
    /// Bytes resident afterwards.
    pub resident_bytes: u64,
    /// Readers compared with the oracle.
    pub sampled_readers: u64,
    /// Readers whose feeds differed.
    pub mismatched_readers: u64,
    /// What was measured within each window, if that was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<WindowResult>,
    /// What else the side has to say.
    pub notes: Vec<(&'static str, f64)>,
}

/// What is the same for all runs of one filled side.
#[derive(Debug, Clone, Copy)]
pub struct RunOf {
    /// Which side.
    pub target: TargetKind,
    /// Users.
    pub users: u32,
    /// Followers of an owner on average.
    pub mean_followers: f64,
    /// Bytes of each payload.
    pub payload_bytes: u32,
    /// Partitions that a post reaches on average, its owner's included.
    pub partitions_reached: f64,
    /// From the fill.
    pub bytes_per_entry: Option<f64>,
    /// From the load.
    pub bytes_per_edge: Option<f64>,
}

impl RunResult {
    /// The report of figures.
    pub fn new(of: RunOf, kind: RunKind, round: u32, figures: &Figures) -> Self {
        let written_bytes = figures.after.written_bytes.saturating_sub(figures.before.written_bytes);
        // A side that keeps no count of its log writes nothing but its log.
        let log_bytes =
            figures.log_bytes.or((figures.persistence != Persistence::None).then_some(written_bytes));
        let log_bytes_per_delivery = log_bytes.filter(|_| figures.deliveries > 0).map(|bytes| {
            let beyond = bytes
                .saturating_sub(figures.posts * u64::from(of.payload_bytes) * u64::from(figures.replicas));
            beyond as f64 / figures.deliveries as f64
        });
        Self {
            target: of.target,
            way: figures.way,
            persistence: figures.persistence,
            round,
            kind,
            users: of.users,
            mean_followers: of.mean_followers,
            partitions: figures.partitions,
            partitions_reached: of.partitions_reached,
            nodes: figures.nodes,
            replicas: figures.replicas,
            connections: figures.connections,
            in_flight: figures.in_flight,
            posts: figures.posts,
            deliveries: figures.deliveries,
            seconds: figures.seconds,
            posts_per_second: figures.posts_per_second(),
            deliveries_per_second: figures.deliveries_per_second(),
            post_ms: TailMs::of(&figures.post_micros),
            last_delivery_ms: TailMs::of(&figures.last_delivery_micros),
            post_to_last_delivery_ms: TailMs::of(&figures.post_to_last_micros),
            reads_per_second: figures.reads_per_second(),
            read_ms: ReadMs::of(&figures.read_micros),
            server_cpu_seconds: figures.server_cpu_seconds(),
            client_cpu_seconds: figures.client_cpu_seconds,
            deliveries_per_server_cpu_second: figures.deliveries_per_server_cpu_second(),
            reads_per_server_cpu_second: figures.reads_per_server_cpu_second(),
            cpu_micros_per_post: figures.cpu_seconds_per_post().map(|seconds| seconds * 1e6),
            cpu_nanos_per_delivery: figures.cpu_seconds_per_delivery().map(|seconds| seconds * 1e9),
            cpu_micros_per_read: figures.cpu_seconds_per_read().map(|seconds| seconds * 1e6),
            bytes_per_entry: of.bytes_per_entry,
            bytes_per_edge: of.bytes_per_edge,
            log_bytes_per_delivery,
            written_bytes,
            disk_written_bytes: figures.after.disk_written_since(&figures.before),
            resident_bytes: figures.after.resident_bytes,
            sampled_readers: figures.sampled_readers,
            mismatched_readers: figures.mismatched_readers,
            windows: figures.windows.iter().map(WindowResult::new).collect(),
            notes: figures.notes.clone(),
        }
    }

    /// Whether another run is a further round of this one.
    pub fn is_repeated_by(&self, other: &Self) -> bool {
        let same_kind = match (&self.kind, &other.kind) {
            // What comes out of a measurement does not tell two apart.
            (RunKind::Whale { with_whale: a, .. }, RunKind::Whale { with_whale: b, .. }) => a == b,
            (RunKind::Load { .. }, RunKind::Load { .. }) => true,
            (a, b) => a == b,
        };
        same_kind
            && self.target == other.target
            && self.way == other.way
            && self.persistence == other.persistence
            && self.partitions == other.partitions
            && (self.nodes, self.replicas) == (other.nodes, other.replicas)
    }
}

impl TailMs {
    /// Of a histogram of microseconds.
    pub fn of(micros: &MicrosHistogram) -> Self {
        let ms = |quantile| micros.value_at_quantile(quantile) as f64 / 1_000.0;
        Self { p50: ms(0.5), p99: ms(0.99), max: micros.max() as f64 / 1_000.0 }
    }
}

impl ReadMs {
    /// Of a histogram of microseconds.
    pub fn of(micros: &MicrosHistogram) -> Self {
        let ms = |quantile| micros.value_at_quantile(quantile) as f64 / 1_000.0;
        Self { p50: ms(0.5), p99: ms(0.99), p999: ms(0.999) }
    }
}

/// The median of a metric over rounds, with its lowest and highest value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// The median; of an even number of rounds, the lower of the two in the middle.
    pub median: f64,
    /// The lowest.
    pub low: f64,
    /// The highest.
    pub high: f64,
}

/// The spread of a metric over runs; none of no runs.
pub fn spread(runs: &[&RunResult], metric: impl Fn(&RunResult) -> f64) -> Option<Spread> {
    let mut values: Vec<f64> = runs.iter().map(|run| metric(run)).collect();
    values.sort_by(f64::total_cmp);
    let median = *values.get(values.len().checked_sub(1)? / 2)?;
    Some(Spread { median, low: *values.first()?, high: *values.last()? })
}

/// Runs with all their rounds together, in the order of their first ones.
pub fn rounds_together(runs: &[RunResult]) -> Vec<Vec<&RunResult>> {
    let mut groups: Vec<Vec<&RunResult>> = Vec::new();
    for run in runs {
        match groups.iter_mut().find(|group| group[0].is_repeated_by(run)) {
            Some(group) => group.push(run),
            None => groups.push(vec![run]),
        }
    }
    groups
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A run with these deliveries and reads a second, by wall clock and by processor second.
    pub(crate) fn run(
        target: TargetKind,
        persistence: Persistence,
        kind: RunKind,
        rates: [f64; 2],
    ) -> RunResult {
        let of = RunOf {
            target,
            users: 10,
            mean_followers: 2.0,
            payload_bytes: 8,
            partitions_reached: 1.0,
            bytes_per_entry: None,
            bytes_per_edge: None,
        };
        let mut run = RunResult::new(of, kind, 1, &Figures::new("way", persistence));
        [run.deliveries_per_second, run.deliveries_per_server_cpu_second] = rates;
        [run.reads_per_second, run.reads_per_server_cpu_second] = rates;
        run
    }

    #[test]
    fn rounds_of_one_measurement_come_to_their_median() {
        let kind = RunKind::Fanout { asked_in_flight: 16, rate: None };
        let one = |rate| run(TargetKind::Fanfold, Persistence::Always, kind.clone(), [rate, rate]);
        let other = run(TargetKind::Redis, Persistence::Always, kind.clone(), [9.0, 9.0]);
        let runs = [one(3.0), other, one(1.0), one(2.0)];
        let groups = rounds_together(&runs);
        assert_eq!(groups.iter().map(Vec::len).collect::<Vec<usize>>(), [3, 1]);
        let spread = spread(&groups[0], |run| run.deliveries_per_second).unwrap();
        assert_eq!(spread, Spread { median: 2.0, low: 1.0, high: 3.0 });
    }

    #[test]
    fn log_bytes_do_not_count_payloads() {
        let of = RunOf {
            target: TargetKind::Fanfold,
            users: 10,
            mean_followers: 2.0,
            payload_bytes: 100,
            partitions_reached: 1.0,
            bytes_per_entry: None,
            bytes_per_edge: None,
        };
        let mut figures = Figures::new("append", Persistence::Always);
        (figures.posts, figures.deliveries, figures.log_bytes) = (10, 50, Some(1_200));
        let run = RunResult::new(of, RunKind::Mixed { rate: 1.0 }, 1, &figures);
        assert_eq!(run.log_bytes_per_delivery, Some(4.0));
    }
}
