//! Owns the command line of `fanfold-bench`.
//!
//! - Results go to stdout, everything else to stderr.
//! - The exit code is 0 when done, 1 when it failed or anything differs from the oracle, 2 when called wrongly.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use fanfold_server::workload::run::Ran;

use crate::replay::{self, ReplayArgs, ReplayError};

/// Measures and checks Fanfold with real data.
#[derive(Debug, Parser)]
#[command(
    name = "fanfold-bench",
    version,
    after_help = "Example:\n  fanfold-bench replay --activity activity.tsv.zst --infer-follows --check"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Replays follows and activity from TSV files, and compares every feed with the oracle.
    Replay(ReplayArgs),
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
    let Command::Replay(args) = Cli::parse().command;
    match run(&args) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("fanfold-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &ReplayArgs) -> Result<ExitCode, ReplayError> {
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
