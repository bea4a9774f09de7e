//! Owns two small commands for operators: `clock accept` and `config`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use super::error::CliError;
use super::output::line;
use super::remote::Remote;
use crate::config::{Config, ConfigFlags};

#[derive(Debug, Args)]
pub(super) struct ClockArgs {
    #[command(subcommand)]
    command: ClockCommand,
}

#[derive(Debug, Subcommand)]
enum ClockCommand {
    /// Accepts the wall clock after it has jumped; stamps have been held until now.
    #[command(after_help = "Example:\n  fanfold clock accept")]
    Accept {
        #[command(flatten)]
        remote: Remote,
    },
}

/// Runs a command about the clock.
pub(super) async fn clock(args: ClockArgs) -> Result<(), CliError> {
    let ClockCommand::Accept { remote } = args.command;
    remote
        .with_client(async |client| {
            client.accept_clock().await.map_err(|error| remote.failed(error))?;
            remote
                .output
                .show(|| json!({ "accepted": true }), || "the node follows its wall clock again".to_owned())
        })
        .await
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  fanfold config --print-default > fanfold.toml\n  fanfold config --config fanfold.toml"
)]
pub(super) struct ConfigArgs {
    /// Shows the defaults, as a config file with comments.
    #[arg(long)]
    print_default: bool,
    /// Shows, and checks, what this file and the flags come to.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    flags: ConfigFlags,
}

/// Shows settings.
pub(super) fn config(args: &ConfigArgs) -> Result<(), CliError> {
    if args.print_default {
        return line(&Config::default_file());
    }
    let config = Config::load(args.config.as_deref(), &args.flags)?;
    config.check()?;
    line(&config.to_toml())
}
