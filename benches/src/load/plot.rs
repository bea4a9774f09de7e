//! Owns the plot: throughput and latency against load, the sides in one picture.
//!
//! - The upper part shows throughput, the lower one latency; both axes are logarithmic, so that a factor is a distance.
//! - A run is drawn where it was measured: what was asked for and what a side found better for itself are two places.
//! - What the horizontal axis is, the runs decide: whatever differs between them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use plotters::prelude::*;

use super::report::{Report, edges_per_second, short};
use super::run::{RunKind, RunResult, rounds_together, spread};
use super::target::TargetKind;

/// Size in pixels.
const SIZE: (u32, u32) = (960, 960);
/// Height of a line of the legend in pixels.
const LEGEND_LINE: u32 = 20;
/// Colours that differ for people who see colours differently too (Okabe and Ito, 2008).
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
];

/// Why a plot was not drawn.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlotError {
    /// The file could not be written, or there was nothing to draw.
    #[error("{} could not be drawn: {source}", path.display())]
    Draw {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// One line of the plot: points by their place on the horizontal axis.
#[derive(Debug, Clone, PartialEq)]
struct Line {
    name: String,
    /// What all ways of one side have in common; of those only the best is drawn.
    group: String,
    target: TargetKind,
    throughput: Vec<(f64, f64)>,
    latency: Vec<(f64, f64)>,
}

/// Draws a report.
pub fn draw(path: &Path, report: &Report) -> Result<(), PlotError> {
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    let drawn = draw_on(&area, report);
    drawn.map_err(|error| PlotError::Draw { path: path.to_owned(), source: error.to_string().into() })
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type DrawError = Box<dyn std::error::Error>;

fn draw_on(area: &Area<'_>, report: &Report) -> Result<(), DrawError> {
    let axis = Axis::of(&report.runs);
    let lines = lines(&report.runs, axis);
    let of = &report.parameters;
    area.fill(&WHITE)?;
    let area = area.titled(&format!("fanfold-bench {}", of.command), ("sans-serif", 26))?;
    let described = format!(
        "graph {}, seed {}, feeds of {}, payloads of {} bytes, median of {} round(s)",
        of.graph, of.seed, of.feed_cap, of.payload_bytes, of.rounds
    );
    let area = area.titled(&described, ("sans-serif", 14))?;
    let area = area.titled(&report.machine.machine.to_string(), ("sans-serif", 14))?;
    let area = area.titled(&report.machine.details(), ("sans-serif", 14))?;
    let (legend, charts) = area.split_vertically(LEGEND_LINE * lines.len() as u32 + 8);
    draw_legend(&legend, &lines)?;
    let (upper, lower) = charts.split_vertically(charts.dim_in_pixel().1 / 2);
    chart(&upper, throughput_name(&report.runs), axis, &lines, |line| &line.throughput)?;
    chart(&lower, latency_name(&report.runs), axis, &lines, |line| &line.latency)?;
    area.present()?;
    Ok(())
}

fn draw_legend(area: &Area<'_>, lines: &[Line]) -> Result<(), DrawError> {
    for (at, (line, style)) in lines.iter().zip(styles(lines)).enumerate() {
        let y = (LEGEND_LINE * at as u32 + 12) as i32;
        area.draw(&PathElement::new([(96, y), (130, y)], style))?;
        area.draw(&Text::new(line.name.clone(), (140, y - 7), ("sans-serif", 14)))?;
    }
    Ok(())
}

/// A style for each line: ours thick.
fn styles(lines: &[Line]) -> impl Iterator<Item = ShapeStyle> {
    lines.iter().zip(COLOURS.iter().cycle()).map(|(line, colour)| {
        let stroke_width = if line.target == TargetKind::Fanfold { 4 } else { 2 };
        ShapeStyle { color: colour.to_rgba(), filled: true, stroke_width }
    })
}

fn chart(
    area: &Area<'_>,
    name: &str,
    axis: Axis,
    lines: &[Line],
    points: fn(&Line) -> &Vec<(f64, f64)>,
) -> Result<(), DrawError> {
    let all = || lines.iter().flat_map(points);
    let (x_low, x_high) = range(all().map(|point| point.0), 1.15);
    let (y_low, y_high) = range(all().map(|point| point.1), 1.6);
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .x_label_area_size(42)
        .y_label_area_size(78)
        .build_cartesian_2d((x_low..x_high).log_scale(), (y_low..y_high).log_scale())?;
    chart
        .configure_mesh()
        .x_desc(axis.name())
        .y_desc(name)
        .axis_desc_style(("sans-serif", 15))
        .x_label_formatter(&|x| axis_label(*x))
        .y_label_formatter(&|y| axis_label(*y))
        .light_line_style(WHITE.mix(0.0))
        .draw()?;
    for (line, style) in lines.iter().zip(styles(lines)) {
        chart.draw_series(LineSeries::new(points(line).iter().copied(), style).point_size(5))?;
        let labels = points(line).iter().map(|(x, y)| {
            let font = ("sans-serif", 13).into_font().color(&style.color);
            EmptyElement::at((*x, *y)) + Text::new(axis_label(*y), (-12, -20), font)
        });
        chart.draw_series(labels)?;
    }
    Ok(())
}

/// A range around values, with a factor of room on both sides; something sensible around none.
fn range(values: impl Iterator<Item = f64>, room: f64) -> (f64, f64) {
    let (low, high) = values
        .filter(|value| *value > 0.0)
        .fold((f64::INFINITY, 0.0_f64), |(low, high), value| (low.min(value), high.max(value)));
    if low > high { (0.1, 10.0) } else { (low / room, high * room) }
}

fn axis_label(value: f64) -> String {
    if value >= 1_000.0 {
        short(value)
    } else if value >= 10.0 || value.fract() == 0.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.2}")
    }
}

/// What the horizontal axis is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Axis {
    Partitions,
    Rate,
    UnderWay,
}

impl Axis {
    fn of(runs: &[RunResult]) -> Self {
        let has_rate = runs
            .iter()
            .any(|run| matches!(run.kind, RunKind::Mixed { .. } | RunKind::Fanout { rate: Some(_), .. }));
        let ours = || runs.iter().filter(|run| run.target == TargetKind::Fanfold);
        let first = ours().next().map(|run| run.partitions);
        if ours().any(|run| Some(run.partitions) != first) {
            return Self::Partitions;
        }
        if has_rate { Self::Rate } else { Self::UnderWay }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Partitions => "partitions of the node",
            Self::Rate => "requests asked for a second",
            Self::UnderWay => "requests under way on each connection",
        }
    }

    fn place(self, run: &RunResult) -> f64 {
        let under_way = f64::from(run.in_flight.max(1));
        match (self, &run.kind) {
            (Self::Partitions, _) => f64::from(run.partitions),
            (Self::Rate, RunKind::Mixed { rate } | RunKind::Fanout { rate: Some(rate), .. }) => *rate,
            (_, RunKind::Read { depth, .. }) => f64::from(*depth),
            _ => under_way,
        }
    }
}

/// The lines of these runs, ours first; of the other side's ways the one that is best at its peak, in each durability mode.
fn lines(runs: &[RunResult], axis: Axis) -> Vec<Line> {
    let mut by_name: BTreeMap<(bool, String), Line> = BTreeMap::new();
    for rounds in rounds_together(runs) {
        let run = rounds[0];
        let (name, group) = (line_name(run, true), line_name(run, false));
        let line = by_name.entry((run.target != TargetKind::Fanfold, name.clone())).or_insert_with(|| Line {
            name,
            group,
            target: run.target,
            throughput: Vec::new(),
            latency: Vec::new(),
        });
        let place = axis.place(run);
        let median = |metric: fn(&RunResult) -> f64| {
            spread(&rounds, metric).map(|spread| (place, spread.median)).filter(|point| point.1 > 0.0)
        };
        line.throughput.extend(median(throughput));
        line.latency.extend(median(latency));
    }
    let mut lines: Vec<Line> = Vec::new();
    for line in by_name.into_values() {
        match lines.iter_mut().find(|other| other.group == line.group) {
            Some(other) if other.peak() < line.peak() => *other = line,
            Some(_) => {}
            None => lines.push(line),
        }
    }
    for line in &mut lines {
        line.throughput.sort_by(|a, b| a.0.total_cmp(&b.0));
        line.latency.sort_by(|a, b| a.0.total_cmp(&b.0));
    }
    if axis == Axis::Partitions {
        spread_out(&mut lines);
    }
    lines
}

/// Redis has no partitions: what it reaches is drawn from end to end.
fn spread_out(lines: &mut [Line]) {
    let ours = lines.iter().filter(|line| line.target == TargetKind::Fanfold);
    let places = ours.flat_map(|line| line.throughput.iter().map(|point| point.0));
    let (low, high) = places.fold((f64::INFINITY, 1.0_f64), |(low, high), x| (low.min(x), high.max(x)));
    for line in lines.iter_mut().filter(|line| line.target != TargetKind::Fanfold) {
        for points in [&mut line.throughput, &mut line.latency] {
            let best = points.first().copied();
            *points = best.map(|(_, y)| vec![(low, y), (high, y)]).unwrap_or_default();
        }
    }
}

impl Line {
    fn peak(&self) -> f64 {
        self.throughput.iter().fold(0.0, |peak, point| point.1.max(peak))
    }
}

/// What a line is called; without its way, what it is an alternative to.
fn line_name(run: &RunResult, with_way: bool) -> String {
    let way = if with_way { run.way } else { "" };
    let who = format!("{} ({way}, {})", run.target, run.persistence);
    match &run.kind {
        RunKind::Read { celebrities, hydrated, .. } => {
            format!("{who}, {celebrities} celebrities{}", if *hydrated { ", hydrated" } else { "" })
        }
        RunKind::Whale { with_whale: true, .. } => format!("{who}, with a whale"),
        _ => who,
    }
}

fn throughput(run: &RunResult) -> f64 {
    match run.kind {
        RunKind::Fanout { .. } | RunKind::Whale { .. } => run.deliveries_per_second,
        RunKind::Read { .. } | RunKind::Mixed { .. } => run.reads_per_second,
        RunKind::Load { .. } => edges_per_second(run),
    }
}

fn throughput_name(runs: &[RunResult]) -> &'static str {
    match runs.first().map(|run| &run.kind) {
        Some(RunKind::Read { .. } | RunKind::Mixed { .. }) => "reads a second",
        Some(RunKind::Load { .. }) => "edges a second",
        _ => "deliveries a second",
    }
}

/// The latency that is drawn, in milliseconds.
fn latency(run: &RunResult) -> f64 {
    match run.kind {
        RunKind::Fanout { .. } | RunKind::Whale { .. } => run.post_to_last_delivery_ms.p99,
        RunKind::Read { .. } | RunKind::Mixed { .. } => run.read_ms.p99,
        RunKind::Load { .. } => 0.0,
    }
}

fn latency_name(runs: &[RunResult]) -> &'static str {
    match runs.first().map(|run| &run.kind) {
        Some(RunKind::Read { .. } | RunKind::Mixed { .. }) => "p99 in ms, read",
        _ => "p99 in ms, post to last delivery",
    }
}

#[cfg(test)]
mod tests {
    use super::super::run::tests::run;
    use super::super::target::Persistence;
    use super::*;

    fn runs() -> Vec<RunResult> {
        let mut runs = Vec::new();
        for (target, factor) in [(TargetKind::Fanfold, 10.0), (TargetKind::Redis, 1.0)] {
            for in_flight in [1, 16] {
                let kind = RunKind::Fanout { asked_in_flight: in_flight, rate: None };
                let rate = f64::from(in_flight) * factor;
                let mut run = run(target, Persistence::Always, kind, [rate, rate]);
                run.in_flight = in_flight;
                run.post_to_last_delivery_ms.p99 = 1.0;
                runs.push(run);
            }
        }
        runs
    }

    #[test]
    fn the_axis_is_what_differs() {
        let mut some = runs();
        assert_eq!(Axis::of(&some), Axis::UnderWay);
        some[0].partitions = 4;
        assert_eq!(Axis::of(&some), Axis::Partitions);
    }

    #[test]
    fn each_side_is_a_line_and_ours_comes_first() {
        let lines = lines(&runs(), Axis::UnderWay);
        assert_eq!(
            lines.iter().map(|line| line.target).collect::<Vec<_>>(),
            [TargetKind::Fanfold, TargetKind::Redis]
        );
        assert_eq!(lines[0].throughput, [(1.0, 10.0), (16.0, 160.0)]);
    }

    #[test]
    fn a_run_is_drawn_where_it_was_measured() {
        let mut some = runs();
        // Asked for one post under way, Redis was found to be better with eight.
        some[2].in_flight = 8;
        let places = lines(&some, Axis::UnderWay)[1].throughput.clone();
        assert_eq!(places, [(8.0, 1.0), (16.0, 16.0)]);
    }

    #[test]
    fn of_the_other_ways_only_the_best_is_drawn_and_partitions_are_not_its_own() {
        let mut some = runs();
        let mut worse = some[2].clone();
        (worse.way, worse.deliveries_per_second) = ("worse", 0.5);
        some.push(worse);
        let mut more = some[0].clone();
        more.partitions = 8;
        some.push(more);
        let lines = lines(&some, Axis::of(&some));
        assert_eq!(
            lines.iter().map(|line| line.name.as_str()).collect::<Vec<_>>(),
            ["fanfold (way, always)", "redis (way, always)",]
        );
        assert_eq!(lines[1].throughput.iter().map(|point| point.0).collect::<Vec<_>>(), [1.0, 8.0]);
    }

    #[test]
    fn a_plot_shows_both_sides_and_a_report_without_runs_is_drawn_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("plot.svg");
        let parameters = crate::load::args::Parameters {
            command: "fanout",
            graph: "uniform".to_owned(),
            seed: 1,
            feed_cap: 10,
            payload_bytes: 8,
            duration_seconds: Some(1.0),
            rounds: 1,
            sample_readers: 1,
        };
        draw(&path, &Report::new(parameters.clone(), runs())).unwrap();
        let svg = std::fs::read_to_string(&path).unwrap();
        for text in ["fanfold (way, always)", "redis (way, always)", "deliveries a second"] {
            assert!(svg.contains(text), "{text}");
        }
        draw(&path, &Report::new(parameters, Vec::new())).unwrap();
        assert!(draw(dir.path(), &Report::new(runs_parameters(), runs())).is_err());
    }

    fn runs_parameters() -> crate::load::args::Parameters {
        crate::load::args::Parameters {
            command: "fanout",
            graph: String::new(),
            seed: 1,
            feed_cap: 10,
            payload_bytes: 8,
            duration_seconds: Some(1.0),
            rounds: 1,
            sample_readers: 1,
        }
    }
}
