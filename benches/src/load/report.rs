//! Owns the report of a command: one object for machines, one table for people.

use std::fmt;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;

use super::args::Parameters;
use super::ratio::{self, Ratio};
use super::run::{RunKind, RunResult, Spread, WindowResult, rounds_together, spread};
use super::surroundings::Surroundings;

/// What a command measured.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The machine and the program.
    pub machine: Surroundings,
    /// The parameters.
    pub parameters: Parameters,
    /// Every run of every round.
    pub runs: Vec<RunResult>,
    /// How far Fanfold is ahead of the best Redis way; a number for `fanout`, one for each kind and depth for `read`.
    pub ratio_to_best_redis: Option<Ratio>,
}

impl Report {
    /// The report of these runs.
    pub fn new(parameters: Parameters, runs: Vec<RunResult>) -> Self {
        let ratio_to_best_redis = ratio::to_best_redis(&runs);
        Self { machine: Surroundings::here(), parameters, runs, ratio_to_best_redis }
    }

    /// Readers whose feeds differed from the oracle, over all runs.
    pub fn mismatched(&self) -> u64 {
        self.runs.iter().map(|run| run.mismatched_readers).sum()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = &self.parameters;
        let duration = of.duration_seconds.map(|seconds| format!(", {seconds} s")).unwrap_or_default();
        writeln!(f, "{}", self.machine)?;
        writeln!(
            f,
            "{}: graph {}, seed {}, feeds of {}, payloads of {} bytes{}, {} round(s); medians, in brackets lowest and highest",
            of.command, of.graph, of.seed, of.feed_cap, of.payload_bytes, duration, of.rounds
        )?;
        for table in tables(&self.runs).into_iter().chain(self.runs.iter().filter_map(windows)) {
            writeln!(f, "\n{table}")?;
        }
        match &self.ratio_to_best_redis {
            Some(Ratio::Fanout(ratio)) => writeln!(f, "\nTo the best Redis way: {ratio:.1} times")?,
            Some(Ratio::Read(ratios)) => {
                writeln!(f, "\nTo the best Redis way:")?;
                for (name, ratio) in ratios {
                    writeln!(f, "  {name}: {:.2} times", ratio.as_f64().unwrap_or_default())?;
                }
            }
            None => {}
        }
        let compared: u64 = self.runs.iter().map(|run| run.sampled_readers).sum();
        write!(f, "{} of {compared} compared feeds differed from the oracle", self.mismatched())
    }
}

/// A column: its head and what it shows of all rounds of a run.
struct Column {
    head: &'static str,
    show: fn(&[&RunResult]) -> String,
}

const fn column(head: &'static str, show: fn(&[&RunResult]) -> String) -> Column {
    Column { head, show }
}

/// Of what a run does not tell.
const NOT_KNOWN: f64 = f64::NAN;

/// What identifies a run.
const NAMES: [Column; 6] = [
    column("target", |runs| runs[0].target.to_string()),
    column("way", |runs| runs[0].way.to_owned()),
    column("durability", |runs| runs[0].persistence.to_string()),
    column("nodes × replicas", |runs| format!("{} × {}", runs[0].nodes, runs[0].replicas)),
    column("parts", |runs| runs[0].partitions.to_string()),
    column("load", |runs| load(runs[0])),
];

/// What a run of posts shows.
const POSTS: [Column; 6] = [
    column("posts/s", |runs| amount(spread(runs, |run| run.posts_per_second))),
    column("deliveries/s", |runs| amount(spread(runs, |run| run.deliveries_per_second))),
    column("per server CPU s", |runs| amount(spread(runs, |run| run.deliveries_per_server_cpu_second))),
    column("post ms p50 p99", |runs| tail(runs, |run| [run.post_ms.p50, run.post_ms.p99])),
    column("last delivery ms p50 p99 max", |runs| {
        tail(runs, |run| [run.last_delivery_ms.p50, run.last_delivery_ms.p99, run.last_delivery_ms.max])
    }),
    column("post to last ms p99", |runs| tail(runs, |run| [run.post_to_last_delivery_ms.p99])),
];

/// What a run took.
const COSTS: [Column; 8] = [
    column("CPU s server client", |runs| tail(runs, |run| [run.server_cpu_seconds, run.client_cpu_seconds])),
    column("CPU µs/post", |runs| tail(runs, |run| [run.cpu_micros_per_post.unwrap_or(NOT_KNOWN)])),
    column("CPU ns/delivery", |runs| tail(runs, |run| [run.cpu_nanos_per_delivery.unwrap_or(NOT_KNOWN)])),
    column("seconds", |runs| tail(runs, |run| [run.seconds])),
    column("B/entry", |runs| tail(runs, |run| [run.bytes_per_entry.unwrap_or(NOT_KNOWN)])),
    column("B/edge", |runs| tail(runs, |run| [run.bytes_per_edge.unwrap_or(NOT_KNOWN)])),
    column("log B/delivery", |runs| tail(runs, |run| [run.log_bytes_per_delivery.unwrap_or(NOT_KNOWN)])),
    column("MB written, by the disk, resident", |runs| {
        tail(runs, |run| {
            [Some(run.written_bytes), run.disk_written_bytes, Some(run.resident_bytes)]
                .map(|bytes| bytes.map_or(NOT_KNOWN, |bytes| bytes as f64 / 1e6))
        })
    }),
];

/// What a run of reads shows.
const READS: [Column; 5] = [
    column("reads/s", |runs| amount(spread(runs, |run| run.reads_per_second))),
    column("per server CPU s", |runs| amount(spread(runs, |run| run.reads_per_server_cpu_second))),
    column("read ms p50 p99 p99.9", |runs| {
        tail(runs, |run| [run.read_ms.p50, run.read_ms.p99, run.read_ms.p999])
    }),
    column("CPU µs/read", |runs| tail(runs, |run| [run.cpu_micros_per_read.unwrap_or(NOT_KNOWN)])),
    column("CPU s server client", |runs| tail(runs, |run| [run.server_cpu_seconds, run.client_cpu_seconds])),
];

/// What loading shows.
const LOADS: [Column; 3] = [
    column("edges/s", |runs| amount(spread(runs, edges_per_second))),
    column("CPU s server client", |runs| tail(runs, |run| [run.server_cpu_seconds, run.client_cpu_seconds])),
    column("B/edge", |runs| tail(runs, |run| [run.bytes_per_edge.unwrap_or(NOT_KNOWN)])),
];

/// What else the sides have to say.
const NOTES: [Column; 1] = [column("notes", notes)];

/// Medians of what all rounds noted, without what is zero.
fn notes(runs: &[&RunResult]) -> String {
    let noted = |name: &str, run: &RunResult| {
        run.notes.iter().find(|(of, _)| *of == name).map_or(0.0, |(_, value)| *value)
    };
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in runs.iter().flat_map(|run| &run.notes) {
        if !names.contains(name) {
            names.push(name);
        }
    }
    let medians = names.into_iter().filter_map(|name| {
        let median = spread(runs, |run| noted(name, run))?.median;
        (median != 0.0).then(|| format!("{name} {}", small(median)))
    });
    medians.collect::<Vec<_>>().join(", ")
}

/// One table for each kind of measurement that there is.
fn tables(runs: &[RunResult]) -> Vec<Table> {
    let groups = rounds_together(runs);
    let of = |wanted: fn(&RunKind) -> bool, columns: &[&[Column]]| {
        let rows: Vec<&Vec<&RunResult>> = groups.iter().filter(|group| wanted(&group[0].kind)).collect();
        (!rows.is_empty()).then(|| table(&rows, columns))
    };
    [
        of(|kind| matches!(kind, RunKind::Fanout { .. } | RunKind::Whale { .. }), &[&NAMES, &POSTS]),
        of(|kind| matches!(kind, RunKind::Fanout { .. } | RunKind::Whale { .. }), &[&NAMES, &COSTS]),
        of(|kind| matches!(kind, RunKind::Read { .. }), &[&NAMES, &READS]),
        of(|kind| matches!(kind, RunKind::Mixed { .. }), &[&NAMES, &READS, &POSTS[3..6]]),
        of(|kind| matches!(kind, RunKind::Load { .. }), &[&NAMES, &LOADS]),
        of(|_| true, &[&NAMES, &NOTES]),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn table(rows: &[&Vec<&RunResult>], columns: &[&[Column]]) -> Table {
    let mut table = Table::new();
    let columns: Vec<&Column> = columns.iter().copied().flatten().collect();
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(columns.iter().map(|column| column.head));
    for runs in rows {
        table.add_row(columns.iter().map(|column| (column.show)(runs)));
    }
    for column in table.column_iter_mut().skip(NAMES.len()) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// The windows of a run, if it has any.
fn windows(run: &RunResult) -> Option<Table> {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(WINDOWS.iter().map(|(head, _)| *head));
    for window in &run.windows {
        table.add_row(WINDOWS.iter().map(|(_, show)| show(window)));
    }
    table.column_iter_mut().for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    (!run.windows.is_empty()).then_some(table)
}

/// A head, and what a window shows under it.
type WindowColumn = (&'static str, fn(&WindowResult) -> String);

const WINDOWS: [WindowColumn; 12] = [
    ("window s", |window| small(window.seconds)),
    ("posts/s", |window| short(window.posts_per_second)),
    ("deliveries/s", |window| short(window.deliveries_per_second)),
    ("post ms p50 p99 max", |window| {
        format!("{} {} {}", small(window.post_ms.p50), small(window.post_ms.p99), small(window.post_ms.max))
    }),
    ("reads/s", |window| short(window.reads_per_second)),
    ("read ms p50 p99 p99.9", |window| {
        format!("{} {} {}", small(window.read_ms.p50), small(window.read_ms.p99), small(window.read_ms.p999))
    }),
    ("CPU s server", |window| small(window.server_cpu_seconds)),
    ("MB written, by the disk, resident", |window| {
        let disk = window.disk_written_bytes.unwrap_or_default();
        let [written, disk, resident] =
            [window.written_bytes, disk, window.resident_bytes].map(|bytes| bytes as f64 / 1e6);
        format!("{written:.0} {disk:.0} {resident:.0}")
    }),
    ("lock waits > 5 ms, longest ms", |window| longest(window.stalls, window.longest_stall_ms)),
    ("held by upkeep > 5 ms, longest ms", |window| longest(window.holds, window.longest_hold_ms)),
    ("of that with a processor", |window| longest(window.holds_ran, window.longest_hold_ran_ms)),
    ("engine without a processor, s", |window| format!("{:.2}", window.ready_seconds)),
];

/// How many times were too long, and a bound that none passed.
fn longest(count: u64, bound_ms: Option<f64>) -> String {
    let bound = bound_ms.map_or_else(|| "above all".to_owned(), |ms| format!("< {ms}"));
    format!("{count} {bound}")
}

/// What was asked of a run.
fn load(run: &RunResult) -> String {
    let sent = format!("{}×{}", run.connections, run.in_flight);
    match &run.kind {
        RunKind::Fanout { rate: None, .. } => sent,
        RunKind::Fanout { rate: Some(rate), .. } | RunKind::Mixed { rate } => format!("{rate}/s"),
        RunKind::Read { celebrities, hydrated, depth } => {
            let payloads = if *hydrated { "hydrated" } else { "plain" };
            format!("{celebrities} celebrities, {payloads}, depth {depth}, {} connections", run.connections)
        }
        RunKind::Whale { with_whale: false, .. } => "without a whale".to_owned(),
        RunKind::Whale { whale_followers, whale_last_delivery_ms, .. } => {
            let last = whale_last_delivery_ms.unwrap_or_default();
            format!("whale of {whale_followers}: last after {:.1} ms, at most {:.1}", last.p50, last.max)
        }
        RunKind::Load { edges, .. } => format!("{edges} edges"),
    }
}

/// Edges a second of a load; 0 of anything else.
pub(super) fn edges_per_second(run: &RunResult) -> f64 {
    match run.kind {
        RunKind::Load { edges_per_second, .. } => edges_per_second,
        _ => 0.0,
    }
}

/// Medians of times or other small numbers, one behind the other.
fn tail<const N: usize>(runs: &[&RunResult], metrics: fn(&RunResult) -> [f64; N]) -> String {
    let median = |at: usize| spread(runs, |run| metrics(run)[at]).map_or(0.0, |spread| spread.median);
    (0..N).map(|at| small(median(at))).collect::<Vec<String>>().join(" ")
}

fn amount(spread: Option<Spread>) -> String {
    match spread {
        Some(Spread { median, low, high }) if low < high => {
            format!("{} [{}–{}]", short(median), short(low), short(high))
        }
        Some(Spread { median, .. }) => short(median),
        None => String::new(),
    }
}

fn small(value: f64) -> String {
    if value.is_nan() {
        return "–".to_owned();
    }
    if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

/// A number with three or four digits and its unit prefix.
pub(crate) fn short(value: f64) -> String {
    match value {
        _ if value >= 1e12 => format!("{:.2} T", value / 1e12),
        _ if value >= 1e9 => format!("{:.2} G", value / 1e9),
        _ if value >= 1e7 => format!("{:.1} M", value / 1e6),
        _ if value >= 1e6 => format!("{:.2} M", value / 1e6),
        _ if value >= 1e4 => format!("{:.1} k", value / 1e3),
        _ if value >= 1e3 => format!("{:.2} k", value / 1e3),
        _ => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::run::tests::run;
    use super::super::target::{Persistence, TargetKind};
    use super::*;

    #[test]
    fn a_table_shows_medians_with_their_spread() {
        let kind = RunKind::Fanout { asked_in_flight: 16, rate: None };
        let runs = [1_000.0, 3_000_000.0, 20_000.0]
            .map(|rate| run(TargetKind::Fanfold, Persistence::Always, kind.clone(), [rate, 1.0]));
        let text: String = tables(&runs).iter().map(ToString::to_string).collect();
        assert!(text.contains("20.0 k [1.00 k–3.00 M]"), "{text}");
        assert_eq!(tables(&runs)[0].lines().count(), 2, "{text}");
    }

    #[test]
    fn what_a_run_does_not_tell_is_no_zero() {
        let kind = RunKind::Fanout { asked_in_flight: 16, rate: None };
        let mut run = run(TargetKind::Fanfold, Persistence::Always, kind, [1.0, 1.0]);
        run.bytes_per_entry = Some(3.04);
        run.bytes_per_edge = None;
        let costs = COSTS.map(|column| (column.show)(&[&run]));
        assert_eq!([costs[4].as_str(), costs[5].as_str()], ["3.04", "–"]);
    }
}
