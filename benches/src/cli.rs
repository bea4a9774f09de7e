//! Owns the command line of `fanfold-bench`.
//!
//! - Results go to stdout, everything else to stderr.
//! - The exit code is 0 when done, 1 when it failed or anything differs from the oracle, 2 when called wrongly.

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use fanfold_server::workload::run::Ran;
use serde::Serialize;

use crate::load::args::{FanoutArgs, LoadArgs, MixedArgs, ReadArgs, WhaleArgs};
use crate::load::bench::{self, BenchError};
use crate::load::grow;
use crate::load::grow::args::GrowArgs;
use crate::load::grow::report::GrowReport;
use crate::load::report::Report;
use crate::plan::{self, PlanArgs, PlanError};
use crate::replay::{self, ReplayArgs, ReplayError};

/// Measures and checks Fanfold with real data.
#[derive(Debug, Parser)]
#[command(
    name = "fanfold-bench",
    version,
    after_help = "Example:\n  fanfold-bench replay --activity activity.tsv.zst --infer-follows --check\n  fanfold-bench fanout --users 100000 --target both --rounds 5"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Replays follows and activity from TSV files, and compares every feed with the oracle.
    Replay(ReplayArgs),
    /// Measures the fan-out, beside Redis if wanted.
    Fanout(FanoutArgs),
    /// Measures feed reads, beside Redis if wanted.
    Read(ReadArgs),
    /// Measures reads and posts together at a given rate.
    Mixed(MixedArgs),
    /// Measures what one owner followed by everybody does to the others.
    Whale(WhaleArgs),
    /// Measures what adding a node does to a loaded cluster.
    Grow(GrowArgs),
    /// Measures loading the graph.
    Load(LoadArgs),
    /// Reckons how many nodes, how much memory and disk a load takes.
    Plan(PlanArgs),
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum OutputKind {
    /// Lines for people.
    #[default]
    Table,
    /// One JSON object.
    Json,
}

/// Runs the command that the process was called with.
pub fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|command| command == "start") {
        return fanfold_server::cli::main();
    }
    let result = match Cli::parse().command {
        Command::Replay(args) => replay(&args).map_err(CliError::from),
        Command::Fanout(args) => show(args.common.output, bench::fanout(&args)),
        Command::Read(args) => show(args.common.output, bench::read(&args)),
        Command::Mixed(args) => show(args.common.output, bench::mixed(&args)),
        Command::Whale(args) => show(args.common.output, bench::whale(&args)),
        Command::Grow(args) => show_grow(args.common.output, grow::run(&args)),
        Command::Load(args) => show(args.common.output, bench::load(&args)),
        Command::Plan(args) => show_plan(&args),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("fanfold-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
enum CliError {
    #[error(transparent)]
    Replay(#[from] ReplayError),
    #[error(transparent)]
    Bench(#[from] BenchError),
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error("the report could not be written to stdout: {0}")]
    Output(#[from] io::Error),
}

/// Prints a report of measurements; fails if any feed differed from the oracle.
fn show(output: OutputKind, report: Result<Report, BenchError>) -> Result<ExitCode, CliError> {
    let report = report?;
    print_report(output, &report)?;
    if report.mismatched() == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("fanfold-bench: {} sampled feeds differed from the oracle", report.mismatched());
    Ok(ExitCode::FAILURE)
}

/// Prints the report of a cluster that grew; fails if any feed differed from the oracle, or any request was refused.
fn show_grow(output: OutputKind, report: Result<GrowReport, BenchError>) -> Result<ExitCode, CliError> {
    let report = report?;
    print_report(output, &report)?;
    let (mismatched, errors) = (report.mismatched(), report.errors());
    if mismatched == 0 && errors == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!(
        "fanfold-bench: {mismatched} sampled feeds differed from the oracle, {errors} requests were refused"
    );
    Ok(ExitCode::FAILURE)
}

fn show_plan(args: &PlanArgs) -> Result<ExitCode, CliError> {
    let report = plan::run(args)?;
    print_report(args.output, &report)?;
    Ok(ExitCode::SUCCESS)
}

/// Prints a report as a whole.
fn print_report(output: OutputKind, report: &(impl Display + Serialize)) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match output {
        OutputKind::Table => writeln!(out, "{report}")?,
        OutputKind::Json => writeln!(out, "{}", serde_json::to_string_pretty(report)?)?,
    }
    out.flush()
}

fn replay(args: &ReplayArgs) -> Result<ExitCode, ReplayError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|source| ReplayError::Runtime { source })?;
    let ran = runtime.block_on(replay::run(args))?;
    print(args.output, &ran).map_err(|source| ReplayError::Output { source })?;
    Ok(if ran.report.mismatches() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(output: OutputKind, ran: &Ran) -> io::Result<()> {
    write!(io::stderr().lock(), "{ran}")?;
    let mut out = io::stdout().lock();
    match output {
        OutputKind::Table => writeln!(out, "{}", ran.report)?,
        OutputKind::Json => writeln!(out, "{}", serde_json::to_string_pretty(&ran.report)?)?,
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::args::Parameters;
    use crate::load::run::{RunKind, RunOf, RunResult};
    use crate::load::target::{Figures, Persistence, TargetKind};

    /// A report of one run in which so many feeds differed.
    fn report(mismatched_readers: u64) -> Report {
        let of = RunOf {
            target: TargetKind::Fanfold,
            users: 2,
            mean_followers: 1.0,
            payload_bytes: 8,
            partitions_reached: 1.0,
            bytes_per_entry: None,
            bytes_per_edge: None,
        };
        let figures = Figures { mismatched_readers, ..Figures::new("append", Persistence::Always) };
        let run = RunResult::new(of, RunKind::Mixed { rate: 1.0 }, 1, &figures);
        let parameters = Parameters {
            command: "mixed",
            graph: "uniform".to_owned(),
            seed: 1,
            feed_cap: 10,
            payload_bytes: 8,
            duration_seconds: Some(1.0),
            rounds: 1,
            sample_readers: 1,
        };
        Report::new(parameters, vec![run])
    }

    #[test]
    fn one_feed_that_differs_makes_a_measurement_fail() {
        assert_eq!(show(OutputKind::Json, Ok(report(0))).unwrap(), ExitCode::SUCCESS);
        assert_eq!(show(OutputKind::Table, Ok(report(1))).unwrap(), ExitCode::FAILURE);
    }
}
