//! Owns the log lines of the process: where they go, how they look, what is left out.

use std::io;

use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoggingError {
    /// The level is not a level and no list of directives.
    #[error(
        "log_level is {level:?}, which is not valid ({source}); use `info` or `info,fanfold_cluster=debug`"
    )]
    Level {
        /// What it holds.
        level: String,
        /// What is wrong.
        source: tracing_subscriber::filter::ParseError,
    },
}

/// Sends the log lines of the process to stderr. A process that already has a subscriber keeps it.
pub fn init(format: LogFormat, level: &str) -> Result<(), LoggingError> {
    // openraft reports every step at `info`; what an operator needs of it is told by the cluster crate.
    let directives =
        if level.contains("openraft") { level.to_owned() } else { format!("{level},openraft=error") };
    let filter = EnvFilter::builder()
        .parse(&directives)
        .map_err(|source| LoggingError::Level { level: level.to_owned(), source })?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let set = match format {
        LogFormat::Text => lines.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    // The only failure is that a subscriber exists, which an embedding application chose.
    drop(set);
    Ok(())
}
