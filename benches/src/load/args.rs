//! Owns the arguments of the measuring commands.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::graph::GraphShape;
use super::target::{Persistence, TargetKind};
use crate::cli::OutputKind;

/// Replicas of each partition, if there are nodes for them.
const REPLICAS_DEFAULT: u8 = 3;

/// Which stores are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TargetChoice {
    /// Fanfold alone.
    Fanfold,
    /// Redis alone.
    Redis,
    /// Both in turn, one stopped while the other runs.
    Both,
}

/// A durability mode of Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PersistenceChoice {
    /// No append-only file.
    None,
    /// An append-only file, synced every second.
    Everysec,
    /// An append-only file, synced before each answer.
    Always,
}

/// What every measuring command takes: graph, feeds, targets, output.
#[derive(Debug, Clone, Args)]
pub struct CommonArgs {
    /// Users; a graph file brings its own.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(2..))]
    pub users: u32,

    /// Followers of an owner on average, 0.1 and more; a graph file brings its own.
    #[arg(long, value_name = "FOLLOWERS", default_value_t = 200.0)]
    pub mean_followers: f64,

    /// How owners are drawn: power-law, uniform, or a file of lines with follower and followee, separated by a tab, plain or
    /// compressed with zstd.
    #[arg(long, value_name = "power-law|uniform|FILE", default_value = "power-law", value_parser = graph_shape)]
    pub graph: GraphShape,

    /// What graph, posts and reads are drawn from.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,

    /// Entries that a feed keeps. Every feed is filled to it before anything is measured.
    #[arg(long, value_name = "ENTRIES", default_value_t = 800, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub feed_cap: u32,

    /// Posts of each user that fill the feeds, at most: with few followers, a full feed takes many.
    #[arg(long, value_name = "POSTS", default_value_t = 16)]
    pub fill_rounds_max: u32,

    /// Bytes of each payload.
    #[arg(long, value_name = "BYTES", default_value_t = 500, value_parser = clap::value_parser!(u32).range(8..=65_536))]
    pub payload_bytes: u32,

    /// Connections.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub connections: u32,

    /// How long each measurement takes, in seconds; the drain comes on top.
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub duration: Duration,

    /// How long each side works before its measurement, without being measured, in seconds.
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    pub warm_up: Duration,

    /// Partitions; a list measures one after another.
    #[arg(long, value_name = "COUNT", value_delimiter = ',', default_value = "2")]
    pub partitions: Vec<u16>,

    /// Nodes, each in a process of its own; a list measures one cluster after another.
    #[arg(long, value_name = "COUNT", value_delimiter = ',', default_value = "1", value_parser = clap::value_parser!(u8).range(1..=16))]
    pub nodes: Vec<u8>,

    /// Replicas of each partition, an odd number; without it as many as there are nodes for, at most 3.
    #[arg(long, value_name = "COUNT", value_parser = replicas)]
    pub replicas: Option<u8>,

    /// What is measured.
    #[arg(long, value_enum, default_value_t = TargetChoice::Fanfold)]
    pub target: TargetChoice,

    /// Servers of the Redis side: 1, or 2 with half of the users each; a list measures both.
    #[arg(long, value_name = "COUNT", value_delimiter = ',', default_value = "1,2", value_parser = clap::value_parser!(u8).range(1..=2))]
    pub redis_instances: Vec<u8>,

    /// Durability modes of Redis, as a list. Only `always` compares with Fanfold.
    #[arg(long, value_name = "MODES", value_enum, value_delimiter = ',', default_value = "always")]
    pub redis_persistence: Vec<PersistenceChoice>,

    /// Take the connections and requests under way for Redis as given, instead of those found best for it.
    #[arg(long)]
    pub redis_as_given: bool,

    /// Rounds; the sides take turns in each, and the median counts.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub rounds: u32,

    /// Readers whose feeds are compared with the oracle after each measurement.
    #[arg(long, value_name = "READERS", default_value_t = 1_000)]
    pub sample_readers: u32,

    /// A flag for the start of the node, without its dashes, as in `table-bytes=1048576`; may be repeated.
    #[arg(long, value_name = "FLAG=VALUE")]
    pub node_flag: Vec<String>,

    /// The program that is the node; without it, this program itself.
    #[arg(long, value_name = "PROGRAM")]
    pub node_program: Option<PathBuf>,

    /// How results are printed.
    #[arg(long, value_enum, default_value_t)]
    pub output: OutputKind,

    /// Draw throughput and latency against load into this file.
    #[arg(long, value_name = "FILE.svg")]
    pub plot: Option<PathBuf>,
}

/// How large a measured store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Nodes.
    pub nodes: u8,
    /// Replicas of each partition.
    pub replicas: u8,
    /// Partitions.
    pub partitions: u16,
}

/// Measures the fan-out: posts and their deliveries.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Deliveries are entries stored per follower, counted on the server. Each feed is full before the measurement. Afterwards, sampled feeds \
        are compared with the oracle; a difference makes the command fail.\n\nThe load generator uses raw, pipelined connections on one thread, \
        so that it costs as little as redis-benchmark does. Every write is tagged, so that it takes effect exactly once.\n\nExamples:\n  \
        fanfold-bench fanout --users 1000000 --target both --rounds 5 --in-flight 64\n  \
        fanfold-bench fanout --rate 15000 --duration 60\n  \
        fanfold-bench fanout --users 200000 --nodes 1,3 --partitions 1,4,16,64 --in-flight 64\n  \
        fanfold-bench fanout --users 1000000 --partitions 1 --reads 2000 --window 60 --duration 600\n  \
        fanfold-bench fanout --graph uniform --mean-followers 0.5 --partitions 1,2,4,8,16,32,64 --plot curve.svg"
)]
pub struct FanoutArgs {
    /// What all commands take.
    #[command(flatten)]
    pub common: CommonArgs,

    /// Posts under way on each connection in a closed loop, up to 1,024; a list measures one after the other.
    #[arg(long, value_name = "POSTS", value_delimiter = ',', default_value = "16", value_parser = clap::value_parser!(u32).range(1..=1_024))]
    pub in_flight: Vec<u32>,

    /// Posts a second over all connections, at an even pace, their latency counted from the intended time; a list measures one after the
    /// other. Without it, each answer causes the next post.
    #[arg(long, value_name = "POSTS", value_delimiter = ',', value_parser = rate)]
    pub rate: Vec<f64>,

    /// Feed reads a second beside the posts, at an even pace, on connections of their own, their latency counted from the
    /// intended time. Only with `--target fanfold`.
    #[arg(long, value_name = "READS", value_parser = rate)]
    pub reads: Option<f64>,

    /// Pages of those reads come with payloads.
    #[arg(long, requires = "reads")]
    pub hydrate: bool,

    /// Entries of their pages.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub limit: u32,

    /// Also give the figures of each such time, in seconds. Only with `--target fanfold`.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub window: Option<Duration>,
}

/// Measures feed reads.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Half of the users follow 10 of 20 celebrities, who are pulled when a feed is read; the others follow none. Reads with 0 and \
        10 celebrities are measured apart.\n\nExample:\n  fanfold-bench read --users 100000 --target both --depth 1,16 --rounds 5"
)]
pub struct ReadArgs {
    /// What all commands take.
    #[command(flatten)]
    pub common: CommonArgs,

    /// Reads under way on each connection; a list measures one after the other.
    #[arg(long, value_name = "READS", value_delimiter = ',', default_value = "1,16", value_parser = clap::value_parser!(u32).range(1..=1_024))]
    pub depth: Vec<u32>,

    /// Celebrities that readers follow: 0, 10, or both as a list.
    #[arg(long, value_name = "COUNT", value_delimiter = ',', default_value = "0,10", value_parser = celebrities)]
    pub celebrities: Vec<u32>,

    /// Pages without payloads, with them, or both as a list.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "plain,hydrated")]
    pub pages: Vec<PageChoice>,

    /// Entries of a page.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub limit: u32,
}

/// What a page brings along.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PageChoice {
    /// Ids and owners.
    Plain,
    /// Payloads too.
    Hydrated,
}

/// Measures reads and posts together, at a given rate.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Every request has its intended time, and its latency counts from it, however late it was sent.\n\nExample:\n  \
        fanfold-bench mixed --users 100000 --rate 20000 --target both"
)]
pub struct MixedArgs {
    /// What all commands take.
    #[command(flatten)]
    pub common: CommonArgs,

    /// Reads and posts a second together; a list measures one after the other.
    #[arg(long, value_name = "REQUESTS", value_delimiter = ',', default_value = "10000", value_parser = rate)]
    pub rate: Vec<f64>,

    /// Reads for each post.
    #[arg(long, default_value_t = 100)]
    pub reads_per_post: u32,

    /// Pages come with payloads.
    #[arg(long)]
    pub hydrate: bool,

    /// Entries of a page.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub limit: u32,
}

/// Measures what one owner, followed by every user, does to the posts of the others.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "The others post at an even pace, first alone, then beside the whale.\n\nExample:\n  fanfold-bench whale --users 1000000 --rate 2000"
)]
pub struct WhaleArgs {
    /// What all commands take.
    #[command(flatten)]
    pub common: CommonArgs,

    /// The others' posts a second over all connections.
    #[arg(long, value_name = "POSTS", default_value = "1000", value_parser = rate)]
    pub rate: f64,

    /// Time between two posts of the whale, in seconds.
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    pub whale_pause: Duration,
}

/// Measures loading the graph through the wire, one follow request for each reader.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "The graph is made as fast as it goes, over connections that each side has chosen; the report says how many. `--connections`, \
        `--duration`, `--warm-up`, `--feed-cap`, `--fill-rounds-max`, `--payload-bytes` and `--redis-as-given` have no effect. Afterwards the edges of \
        `--sample-readers` users are compared with the graph: whom they follow in Fanfold, who follows them in Redis; a difference makes the command \
        fail.\n\nExample:\n  fanfold-bench load --users 1000000 --mean-followers 200 --rounds 3"
)]
pub struct LoadArgs {
    /// What all commands take.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// The parameters that are printed with each figure.
#[derive(Debug, Clone, Serialize)]
pub struct Parameters {
    /// The command.
    pub command: &'static str,
    /// How owners were drawn.
    pub graph: String,
    /// What everything was drawn from.
    pub seed: u64,
    /// Entries that a feed keeps.
    pub feed_cap: u32,
    /// Bytes of each payload.
    pub payload_bytes: u32,
    /// How long each measurement took; none if it took as long as it took.
    pub duration_seconds: Option<f64>,
    /// Rounds.
    pub rounds: u32,
    /// Readers compared with the oracle.
    pub sample_readers: u32,
}

impl CommonArgs {
    /// The parameters that are printed with each figure.
    pub fn parameters(&self, command: &'static str) -> Parameters {
        Parameters {
            command,
            graph: match &self.graph {
                GraphShape::PowerLaw => "power-law".to_owned(),
                GraphShape::Uniform => "uniform".to_owned(),
                GraphShape::File(path) => path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            },
            seed: self.seed,
            feed_cap: self.feed_cap,
            payload_bytes: self.payload_bytes,
            duration_seconds: Some(self.duration.as_secs_f64()),
            rounds: self.rounds,
            sample_readers: self.sample_readers,
        }
    }

    /// What is measured one after the other: every number of partitions on every number of nodes.
    pub fn sizes(&self) -> Vec<Size> {
        let of = |nodes: &u8| {
            let (nodes, replicas) = (*nodes, self.replicas_of(*nodes));
            self.partitions.iter().map(move |partitions| Size { nodes, replicas, partitions: *partitions })
        };
        self.nodes.iter().flat_map(of).collect()
    }

    /// Replicas in a cluster of so many nodes.
    fn replicas_of(&self, nodes: u8) -> u8 {
        let possible = if nodes.is_multiple_of(2) { nodes - 1 } else { nodes };
        self.replicas.unwrap_or(REPLICAS_DEFAULT).min(possible)
    }

    /// More arguments for the start of the node.
    pub fn start_arguments(&self) -> Vec<OsString> {
        self.node_flag.iter().map(|flag| format!("--{flag}").into()).collect()
    }

    /// Whether a target was chosen.
    pub fn measures(&self, kind: TargetKind) -> bool {
        match self.target {
            TargetChoice::Fanfold => kind == TargetKind::Fanfold,
            TargetChoice::Redis => kind == TargetKind::Redis,
            TargetChoice::Both => true,
        }
    }
}

impl From<PersistenceChoice> for Persistence {
    fn from(choice: PersistenceChoice) -> Self {
        match choice {
            PersistenceChoice::None => Self::None,
            PersistenceChoice::Everysec => Self::Everysec,
            PersistenceChoice::Always => Self::Always,
        }
    }
}

#[expect(clippy::unnecessary_wraps, reason = "clap's parsers answer a result")]
fn graph_shape(text: &str) -> Result<GraphShape, String> {
    Ok(match text {
        "power-law" => GraphShape::PowerLaw,
        "uniform" => GraphShape::Uniform,
        path => GraphShape::File(path.into()),
    })
}

pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    let duration = Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())?;
    if duration.is_zero() { Err("must be more than 0".to_owned()) } else { Ok(duration) }
}

fn replicas(text: &str) -> Result<u8, String> {
    let replicas: u8 = text.parse().map_err(|_| "not a number".to_owned())?;
    if replicas.is_multiple_of(2) { Err("must be odd".to_owned()) } else { Ok(replicas) }
}

pub(super) fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.01..=1e9).contains(&rate) { Ok(rate) } else { Err("must lie between 0.01 and 1e9".to_owned()) }
}

fn celebrities(text: &str) -> Result<u32, String> {
    match text {
        "0" => Ok(0),
        "10" => Ok(10),
        _ => Err("must be 0 or 10".to_owned()),
    }
}
