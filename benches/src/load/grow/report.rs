//! Owns the report of `grow`: one object for machines, two tables for people.

use std::fmt;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;

use super::args::GrowArgs;
use crate::load::args::{Parameters, Size};
use crate::load::surroundings::Surroundings;
use crate::load::target::{GrowFigures, MicrosHistogram, SpanFigures};

/// Times of a histogram, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct LatencyMs {
    /// The median.
    pub p50: f64,
    /// 99 of 100 are at most so long.
    pub p99: f64,
    /// 999 of 1,000 are at most so long.
    pub p999: f64,
    /// The longest.
    pub max: f64,
}

/// A span of time: one of the three stages, or a window.
#[derive(Debug, Clone, Serialize)]
pub struct SpanResult {
    /// `before`, `during`, `after`, or `window`.
    pub stage: &'static str,
    /// How long it was.
    pub seconds: f64,
    /// Reads answered, for each second.
    pub reads_per_second: f64,
    /// Posts answered, for each second.
    pub posts_per_second: f64,
    /// From the intended time to the answer of a read.
    pub read_ms: LatencyMs,
    /// From the intended time to the answer of a post.
    pub post_ms: LatencyMs,
    /// Requests refused for good.
    pub errors: u64,
    /// Pages that the node called short, because another partition could not be asked; not told apart by windows.
    pub short_pages: u64,
    /// Processor seconds of all nodes.
    pub server_cpu_seconds: Option<f64>,
}

/// One cluster that grew.
#[derive(Debug, Clone, Serialize)]
pub struct GrowRun {
    /// The round, from 1.
    pub round: u32,
    /// Nodes before; one joins.
    pub nodes: u8,
    /// Replicas of each partition.
    pub replicas: u8,
    /// Partitions.
    pub partitions: u16,
    /// Users.
    pub users: u32,
    /// Reads and posts a second.
    pub rate: f64,
    /// Whether pages came with payloads.
    pub hydrated: bool,
    /// From the start of the new node's process to its readiness.
    pub join_seconds: f64,
    /// From the call of `balance` until everything was where it should be.
    pub move_seconds: f64,
    /// Replicas that the new node has.
    pub replicas_moved: u64,
    /// Partitions that it came to lead.
    pub leads: u64,
    /// Bytes that it wrote to disk meanwhile: what was moved to it, and its part of the load.
    pub newcomer_written_bytes: u64,
    /// The stages: before, during and after.
    pub stages: Vec<SpanResult>,
    /// 99th percentile of reads during the move, to that before.
    pub read_p99_ratio: f64,
    /// The same of posts.
    pub post_p99_ratio: f64,
    /// Requests refused for good, in all stages.
    pub errors: u64,
    /// Pages that the node called short, because another partition could not be asked, in all stages.
    pub short_pages: u64,
    /// Requests sent again because a partition could not serve them at once, or had moved.
    pub repeats: u64,
    /// Readers compared with the oracle.
    pub sampled_readers: u64,
    /// Readers whose feeds differed.
    pub mismatched_readers: u64,
    /// What was measured within each window, if that was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<SpanResult>,
}

/// What `grow` measured.
#[derive(Debug, Clone, Serialize)]
pub struct GrowReport {
    /// The machine and the program.
    pub machine: Surroundings,
    /// The parameters.
    pub parameters: Parameters,
    /// Every run of every round.
    pub runs: Vec<GrowRun>,
}

impl LatencyMs {
    fn of(micros: &MicrosHistogram) -> Self {
        let ms = |quantile| micros.value_at_quantile(quantile) as f64 / 1_000.0;
        Self { p50: ms(0.5), p99: ms(0.99), p999: ms(0.999), max: micros.max() as f64 / 1_000.0 }
    }
}

impl SpanResult {
    fn new(stage: &'static str, span: &SpanFigures) -> Self {
        let per_second = |count: u64| if span.seconds > 0.0 { count as f64 / span.seconds } else { 0.0 };
        Self {
            stage,
            seconds: span.seconds,
            reads_per_second: per_second(span.read_micros.len()),
            posts_per_second: per_second(span.post_micros.len()),
            read_ms: LatencyMs::of(&span.read_micros),
            post_ms: LatencyMs::of(&span.post_micros),
            errors: span.errors,
            short_pages: span.short_pages,
            server_cpu_seconds: span.server_cpu_seconds,
        }
    }
}

impl GrowRun {
    /// The report of figures.
    pub fn new(size: Size, round: u32, args: &GrowArgs, figures: &GrowFigures) -> Self {
        let names = ["before", "during", "after"];
        let stages: Vec<_> =
            names.into_iter().zip(&figures.stages).map(|(name, span)| SpanResult::new(name, span)).collect();
        let ratio = |of: fn(&SpanResult) -> f64| match &stages[..] {
            [before, during, ..] if of(before) > 0.0 => of(during) / of(before),
            _ => 0.0,
        };
        let (read_p99_ratio, post_p99_ratio) =
            (ratio(|span| span.read_ms.p99), ratio(|span| span.post_ms.p99));
        Self {
            round,
            nodes: size.nodes,
            replicas: size.replicas,
            partitions: size.partitions,
            users: args.common.users,
            rate: args.rate,
            hydrated: args.hydrate,
            join_seconds: figures.grown.join_seconds,
            move_seconds: figures.grown.move_seconds,
            replicas_moved: figures.grown.replicas,
            leads: figures.grown.leads,
            newcomer_written_bytes: figures.grown.written_bytes,
            read_p99_ratio,
            post_p99_ratio,
            errors: stages.iter().map(|stage| stage.errors).sum(),
            short_pages: stages.iter().map(|stage| stage.short_pages).sum(),
            stages,
            repeats: figures.repeats,
            sampled_readers: figures.sampled_readers,
            mismatched_readers: figures.mismatched_readers,
            windows: figures.windows.iter().map(|span| SpanResult::new("window", span)).collect(),
        }
    }
}

impl GrowReport {
    /// The report of these runs.
    pub fn new(parameters: Parameters, runs: Vec<GrowRun>) -> Self {
        Self { machine: Surroundings::here(), parameters, runs }
    }

    /// Readers whose feeds differed from the oracle, over all runs.
    pub fn mismatched(&self) -> u64 {
        self.runs.iter().map(|run| run.mismatched_readers).sum()
    }

    /// Requests refused for good, over all runs.
    pub fn errors(&self) -> u64 {
        self.runs.iter().map(|run| run.errors).sum()
    }
}

impl fmt::Display for GrowReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = &self.parameters;
        writeln!(f, "{}", self.machine)?;
        writeln!(
            f,
            "{}: graph {}, seed {}, feeds of {}, payloads of {} bytes, {} s before and after",
            of.command,
            of.graph,
            of.seed,
            of.feed_cap,
            of.payload_bytes,
            of.duration_seconds.unwrap_or_default()
        )?;
        for run in &self.runs {
            writeln!(f, "\n{run}")?;
        }
        let compared: u64 = self.runs.iter().map(|run| run.sampled_readers).sum();
        write!(f, "\n{} of {compared} compared feeds differed from the oracle", self.mismatched())
    }
}

impl fmt::Display for GrowRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "round {}: {} users in {} partitions, {} replicas of each on {} nodes and one more; {} requests/s, {}",
            self.round,
            self.users,
            self.partitions,
            self.replicas,
            self.nodes,
            self.rate,
            if self.hydrated { "with payloads" } else { "plain" }
        )?;
        writeln!(
            f,
            "joined in {:.1} s; {} replicas moved in {:.1} s, {} of them lead; the new node wrote {:.1} MB",
            self.join_seconds,
            self.replicas_moved,
            self.move_seconds,
            self.leads,
            self.newcomer_written_bytes as f64 / 1e6
        )?;
        writeln!(f, "{}", table(&self.stages))?;
        if !self.windows.is_empty() {
            writeln!(f, "{}", table(&self.windows))?;
        }
        write!(
            f,
            "p99 during to before: reads {:.2}, posts {:.2}; {} errors, {} short pages, {} requests sent again",
            self.read_p99_ratio, self.post_p99_ratio, self.errors, self.short_pages, self.repeats
        )
    }
}

fn table(spans: &[SpanResult]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled).set_header([
        "",
        "seconds",
        "reads/s",
        "read ms p50 p99 p99.9 max",
        "posts/s",
        "post ms p50 p99 p99.9 max",
        "CPU s server",
    ]);
    let times = |ms: LatencyMs| format!("{:.2} {:.2} {:.2} {:.2}", ms.p50, ms.p99, ms.p999, ms.max);
    for span in spans {
        table.add_row([
            span.stage.to_owned(),
            format!("{:.1}", span.seconds),
            format!("{:.0}", span.reads_per_second),
            times(span.read_ms),
            format!("{:.0}", span.posts_per_second),
            times(span.post_ms),
            span.server_cpu_seconds.map(|seconds| format!("{seconds:.1}")).unwrap_or_default(),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
