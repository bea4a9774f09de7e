//! Owns a command's course: sides are started and filled, measured in turn, and stopped.
//!
//! - A side that is not measured is stopped by a signal: it stays filled and takes no processor time.
//! - Each round measures every side once; every round has posts and reads of its own.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::args::{CommonArgs, FanoutArgs, LoadArgs, MixedArgs, PageChoice, ReadArgs, Size, WhaleArgs};
use super::disk;
use super::fanfold::{FanfoldSide, SideOptions};
use super::fill::FillPlan;
use super::graph::{BenchGraph, GraphError, GraphOptions};
use super::plot::{self, PlotError};
use super::report::Report;
use super::run::{RunKind, RunOf, RunResult, TailMs};
use super::target::{
    Compared, FanoutLoad, Figures, Loaded, MixedLoad, Persistence, ReadLoad, ReadsBeside, Target,
    TargetError, TargetKind, WhaleLoad,
};
use crate::redis::encode::FanoutWay;
use crate::redis::error::RedisError;
use crate::redis::target::{RedisOptions, RedisTarget};

/// Said where syncing costs nothing.
const IN_MEMORY: &str = "WARNING: temporary files are in memory here, where fdatasync costs nothing: figures of durable posts mean \
    nothing. Set TMPDIR to a directory on a disk.";
/// Bytes of the fill's payloads where none is read.
const FILL_PAYLOAD_BYTES: u32 = 8;
/// Posts and reads of one measurement are numbered from a multiple of this.
const NUMBERS: u64 = 1 << 40;

/// Why a command was not carried through.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BenchError {
    /// The graph could not be made.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// A side failed.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The path of the running program is not known.
    #[error("the path of this program is not known: {source}; name the node's program")]
    Program {
        /// Why.
        source: io::Error,
    },
    /// The plot could not be drawn.
    #[error(transparent)]
    Plot(#[from] PlotError),
}

/// A filled side and what is the same for its runs.
struct Side {
    target: Box<dyn Target>,
    of: RunOf,
}

/// The measured runs, and where the next numbers come from.
pub(super) struct Bench<'a> {
    common: &'a CommonArgs,
    graph: Arc<BenchGraph>,
    measurements: u64,
    runs: Vec<RunResult>,
}

/// Measures the fan-out.
pub fn fanout(args: &FanoutArgs) -> Result<Report, BenchError> {
    let mut bench = Bench::new(&args.common, false)?;
    let mut loads: Vec<(u32, Option<f64>)> =
        args.in_flight.iter().map(|in_flight| (*in_flight, None)).collect();
    if !args.rate.is_empty() {
        loads = args.rate.iter().map(|rate| (args.in_flight[0], Some(*rate))).collect();
    }
    bench.over_sizes(FILL_PAYLOAD_BYTES, |bench, side, round| {
        for (in_flight, rate) in &loads {
            let load = bench.fanout_load(*in_flight, *rate);
            let reads = args.reads.map(|rate| ReadsBeside { rate, limit: args.limit, hydrate: args.hydrate });
            let duration = args.common.warm_up;
            side.target.fanout(&FanoutLoad { duration, sample_readers: 0, reads, ..load })?;
            let load = bench.fanout_load(*in_flight, *rate);
            let load = FanoutLoad { reads, window: args.window, ..load };
            let kind = RunKind::Fanout { asked_in_flight: *in_flight, rate: *rate };
            bench.add(side.of, &kind, round, &side.target.fanout(&load)?);
        }
        Ok(())
    })?;
    bench.report("fanout")
}

/// Measures feed reads.
pub fn read(args: &ReadArgs) -> Result<Report, BenchError> {
    let mut bench = Bench::new(&args.common, true)?;
    bench.over_sizes(args.common.payload_bytes, |bench, side, round| {
        for celebrities in &args.celebrities {
            for page in &args.pages {
                for depth in &args.depth {
                    let hydrate = *page == PageChoice::Hydrated;
                    let load = |first_read, duration, sample_readers| ReadLoad {
                        celebrities: *celebrities > 0,
                        hydrate,
                        limit: args.limit,
                        connections: args.common.connections,
                        depth: *depth,
                        duration,
                        first_read,
                        sample_readers,
                    };
                    side.target.read(&load(bench.numbers(), args.common.warm_up, 0))?;
                    let load = load(bench.numbers(), args.common.duration, args.common.sample_readers);
                    let figures = side.target.read(&load)?;
                    let kind = RunKind::Read { celebrities: *celebrities, hydrated: hydrate, depth: *depth };
                    bench.add(side.of, &kind, round, &figures);
                }
            }
        }
        Ok(())
    })?;
    bench.report("read")
}

/// Measures reads and posts together.
pub fn mixed(args: &MixedArgs) -> Result<Report, BenchError> {
    let mut bench = Bench::new(&args.common, true)?;
    let payload_bytes = args.common.payload_bytes;
    bench.over_sizes(payload_bytes, |bench, side, round| {
        for rate in &args.rate {
            let load = |first, duration, sample_readers| MixedLoad {
                rate: *rate,
                reads_per_post: args.reads_per_post,
                payload_bytes,
                hydrate: args.hydrate,
                limit: args.limit,
                connections: args.common.connections,
                duration,
                first_post: first,
                first_read: first,
                sample_readers,
            };
            side.target.mixed(&load(bench.numbers(), args.common.warm_up, 0))?;
            let load = load(bench.numbers(), args.common.duration, args.common.sample_readers);
            bench.add(side.of, &RunKind::Mixed { rate: *rate }, round, &side.target.mixed(&load)?);
        }
        Ok(())
    })?;
    bench.report("mixed")
}

/// Measures a whale.
pub fn whale(args: &WhaleArgs) -> Result<Report, BenchError> {
    let mut bench = Bench::new(&args.common, false)?;
    bench.over_sizes(FILL_PAYLOAD_BYTES, |bench, side, round| {
        let others = bench.fanout_load(1, Some(args.rate));
        let load = WhaleLoad { others, whale_pause: args.whale_pause, warm_up: args.common.warm_up };
        for figures in side.target.whale(&load)? {
            let kind = |with_whale| RunKind::Whale {
                with_whale,
                whale_followers: figures.whale_followers,
                whale_last_delivery_ms: with_whale.then(|| TailMs::of(&figures.whale_micros)),
            };
            bench.add(side.of, &kind(false), round, std::slice::from_ref(&figures.without));
            bench.add(side.of, &kind(true), round, std::slice::from_ref(&figures.with));
        }
        Ok(())
    })?;
    bench.report("whale")
}

/// Measures loading the graph; each round on a new, empty side.
pub fn load(args: &LoadArgs) -> Result<Report, BenchError> {
    let mut bench = Bench::new(&args.common, false)?;
    for size in args.common.sizes() {
        for round in 1..=args.common.rounds {
            for mut target in bench.targets(size, FILL_PAYLOAD_BYTES)? {
                let loaded = target.load()?;
                let compared = target.compare_edges(args.common.sample_readers)?;
                bench.add_load(target.kind(), size, round, (&loaded, compared));
                target.stop()?;
            }
        }
    }
    // A load takes as long as it takes.
    let mut report = bench.report("load")?;
    report.parameters.duration_seconds = None;
    Ok(report)
}

impl<'a> Bench<'a> {
    pub(super) fn new(common: &'a CommonArgs, celebrities: bool) -> Result<Self, BenchError> {
        if disk::is_in_memory() {
            progress(IN_MEMORY);
        }
        let graph = BenchGraph::new(&GraphOptions {
            shape: common.graph.clone(),
            users: common.users,
            mean_followers: common.mean_followers,
            celebrities,
            seed: common.seed,
        })?;
        Ok(Self { common, graph: Arc::new(graph), measurements: 0, runs: Vec::new() })
    }

    /// Numbers that no measurement had.
    pub(super) fn numbers(&mut self) -> u64 {
        self.measurements += 1;
        self.measurements * NUMBERS
    }

    fn fanout_load(&mut self, in_flight: u32, rate: Option<f64>) -> FanoutLoad {
        FanoutLoad {
            payload_bytes: self.common.payload_bytes,
            connections: self.common.connections,
            in_flight,
            rate,
            duration: self.common.duration,
            first_post: self.numbers(),
            sample_readers: self.common.sample_readers,
            reads: None,
            window: None,
        }
    }

    /// For each number of nodes and partitions: starts and fills the sides, measures them in turn, and stops them.
    fn over_sizes(
        &mut self,
        fill_payload_bytes: u32,
        mut measure: impl FnMut(&mut Self, &mut Side, u32) -> Result<(), BenchError>,
    ) -> Result<(), BenchError> {
        for (at, size) in self.common.sizes().into_iter().enumerate() {
            let mut sides = Vec::new();
            for mut target in self.targets(size, fill_payload_bytes)? {
                // Redis has no partitions: it is measured once.
                if at > 0 && target.kind() == TargetKind::Redis {
                    target.stop()?;
                    continue;
                }
                let mut of = self.prepare(target.as_mut())?;
                if fill_payload_bytes > FILL_PAYLOAD_BYTES {
                    of.bytes_per_entry = None;
                }
                if size.partitions > 1 && of.target == TargetKind::Fanfold {
                    of.partitions_reached = self.graph.partitions_reached(size.partitions);
                }
                target.pause()?;
                sides.push(Side { target, of });
            }
            for round in 1..=self.common.rounds {
                for side in &mut sides {
                    progress(&format!("round {round}: {}", side.of.target));
                    side.target.resume()?;
                    measure(self, side, round)?;
                    side.target.pause()?;
                }
            }
            for mut side in sides {
                side.target.stop()?;
            }
        }
        Ok(())
    }

    /// The chosen sides, started and empty.
    fn targets(&self, size: Size, fill_payload_bytes: u32) -> Result<Vec<Box<dyn Target>>, BenchError> {
        let fill = FillPlan::new(&self.graph, self.common.feed_cap, self.common.fill_rounds_max);
        let mut targets: Vec<Box<dyn Target>> = Vec::new();
        if self.common.measures(TargetKind::Fanfold) {
            targets.push(Box::new(self.fanfold(size, fill_payload_bytes)?));
        }
        if self.common.measures(TargetKind::Redis) {
            let followers = Arc::new(self.graph.followers());
            for instances in &self.common.redis_instances {
                let options = RedisOptions {
                    graph: self.graph.clone(),
                    followers: followers.clone(),
                    fill,
                    feed_cap: self.common.feed_cap,
                    payload_bytes: fill_payload_bytes,
                    instances: usize::from(*instances),
                    persistences: self
                        .common
                        .redis_persistence
                        .iter()
                        .map(|choice| (*choice).into())
                        .collect(),
                    ways: FanoutWay::ALL.to_vec(),
                    tuned: !self.common.redis_as_given,
                    with_ceiling: true,
                    directory: None,
                };
                targets.push(Box::new(RedisTarget::start(options).map_err(redis_failed)?));
            }
        }
        Ok(targets)
    }

    /// The Fanfold side, started and empty.
    pub(super) fn fanfold(&self, size: Size, fill_payload_bytes: u32) -> Result<FanfoldSide, BenchError> {
        Ok(FanfoldSide::start(SideOptions {
            program: program(self.common.node_program.clone())?,
            start_arguments: self.common.start_arguments(),
            nodes: size.nodes,
            replicas: size.replicas,
            partitions: size.partitions,
            graph: self.graph.clone(),
            feed_cap: self.common.feed_cap,
            fill: FillPlan::new(&self.graph, self.common.feed_cap, self.common.fill_rounds_max),
            fill_payload_bytes,
            sample_readers: self.common.sample_readers,
        })?)
    }

    /// Loads and fills a side.
    pub(super) fn prepare(&self, target: &mut dyn Target) -> Result<RunOf, BenchError> {
        progress(&format!("{}: loading the graph", target.kind()));
        let loaded = target.load()?;
        progress(&format!(
            "{}: {} edges in {:.1} s; filling feeds",
            target.kind(),
            loaded.edges,
            loaded.seconds
        ));
        let filled = target.fill()?;
        progress(&format!("{}: {} entries in {:.1} s", target.kind(), filled.feed_entries, filled.seconds));
        let per = |after: u64, before: u64, count: u64| {
            (count > 0).then(|| after.saturating_sub(before) as f64 / count as f64)
        };
        Ok(RunOf {
            bytes_per_entry: per(
                filled.after.resident_bytes,
                filled.before.resident_bytes,
                filled.feed_entries,
            ),
            ..self.run_of(target.kind(), &loaded)
        })
    }

    fn run_of(&self, target: TargetKind, loaded: &Loaded) -> RunOf {
        let grown = loaded.after.resident_bytes.saturating_sub(loaded.before.resident_bytes);
        RunOf {
            target,
            users: self.graph.users(),
            mean_followers: self.graph.mean_followers(),
            payload_bytes: self.common.payload_bytes,
            partitions_reached: 1.0,
            bytes_per_entry: None,
            bytes_per_edge: (loaded.edges > 0).then(|| grown as f64 / loaded.edges as f64),
        }
    }

    fn add(&mut self, of: RunOf, kind: &RunKind, round: u32, figures: &[Figures]) {
        for figures in figures {
            self.runs.push(RunResult::new(of, kind.clone(), round, figures));
        }
    }

    fn add_load(
        &mut self,
        target: TargetKind,
        size: Size,
        round: u32,
        (loaded, compared): (&Loaded, Compared),
    ) {
        let edges_per_second = if loaded.seconds > 0.0 { loaded.edges as f64 / loaded.seconds } else { 0.0 };
        let mut figures = Figures::new("follow", Persistence::Always);
        figures.partitions = u32::from(size.partitions);
        figures.seconds = loaded.seconds;
        (figures.before, figures.after) = (loaded.before, loaded.after);
        figures.client_cpu_seconds = loaded.client_cpu_seconds;
        (figures.connections, figures.in_flight) = (loaded.connections, loaded.in_flight);
        (figures.sampled_readers, figures.mismatched_readers) = (compared.sampled, compared.mismatched);
        if target == TargetKind::Redis {
            (figures.way, figures.persistence) = ("follower sets", Persistence::None);
        } else {
            (figures.nodes, figures.replicas) = (u32::from(size.nodes), u32::from(size.replicas));
        }
        let kind = RunKind::Load { edges: loaded.edges, edges_per_second };
        let of = self.run_of(target, loaded);
        self.runs.push(RunResult::new(of, kind, round, &figures));
    }

    fn report(self, command: &'static str) -> Result<Report, BenchError> {
        let report = Report::new(self.common.parameters(command), self.runs);
        if let Some(path) = &self.common.plot {
            plot::draw(path, &report)?;
        }
        Ok(report)
    }
}

fn redis_failed(error: RedisError) -> TargetError {
    TargetError { side: TargetKind::Redis, source: Box::new(error) }
}

/// The program that is the node.
fn program(named: Option<PathBuf>) -> Result<PathBuf, BenchError> {
    match named {
        Some(program) => Ok(program),
        None => std::env::current_exe().map_err(|source| BenchError::Program { source }),
    }
}

/// Says on stderr how far the command is.
pub(super) fn progress(text: &str) {
    eprintln!("{text}");
}
