//! Owns the command `fanfold demo`: the whole life of a node in one run, checked against the oracle.
//!
//! - The node is a process of its own with a temporary directory; it is ended whatever happens.
//! - Everything goes through the client crate over TCP.
//! - The report goes to stdout, progress to stderr; any mismatch is an error.

mod args;
mod error;
mod story;

use std::io::{self, Write};

pub use args::{DemoArgs, OutputKind};
pub use error::DemoError;

use crate::workload::run::Ran;

/// Runs the demo and prints its report. Must not be called inside a tokio runtime.
pub fn run(args: DemoArgs) -> Result<(), DemoError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|source| DemoError::Runtime { source })?;
    let ran = runtime.block_on(story::tell(&args))?;
    print(args.output, &ran).map_err(|source| DemoError::Output { source })?;
    match ran.report.mismatches() {
        0 => Ok(()),
        mismatches => Err(DemoError::Mismatched { mismatches }),
    }
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
