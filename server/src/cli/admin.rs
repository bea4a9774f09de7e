//! Owns two small commands for operators: `clock accept` and `config`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use fanfold_client::NodeId;
use serde_json::json;

use super::error::CliError;
use super::output::{id, line};
use super::remote::{Remote, answered};
use crate::config::{Config, ConfigFlags};

#[derive(Debug, Args)]
pub(super) struct ClockArgs {
    #[command(subcommand)]
    command: ClockCommand,
}

#[derive(Debug, Subcommand)]
enum ClockCommand {
    /// Accepts the wall clock after it has jumped; stamps have been held until now.
    #[command(after_help = "Examples:\n  fanfold clock accept\n  fanfold clock accept --node 2")]
    Accept {
        /// Only of this node; else of all.
        #[arg(long, value_name = "NODE")]
        node: Option<u64>,
        #[command(flatten)]
        remote: Remote,
    },
}

/// Runs a command about the clock.
pub(super) async fn clock(args: ClockArgs) -> Result<(), CliError> {
    let ClockCommand::Accept { node, remote } = args.command;
    remote
        .with_client(async |client| {
            let (done, left_out) = match node.map(NodeId) {
                Some(node) => {
                    client.accept_clock_at(node).await.map_err(|error| remote.failed(error))?;
                    (vec![(node, ())], Vec::new())
                }
                None => answered(&remote, client.accept_clocks().await)?,
            };
            let done: Vec<_> = done.into_iter().map(|(node, ())| node).collect();
            let names = |nodes: &[NodeId]| nodes.iter().map(id).collect::<Vec<_>>();
            remote.output.show(
                || json!({ "accepted": left_out.is_empty(), "nodes": names(&done), "left_out": names(&left_out) }),
                || {
                    let lines = done.iter().map(|node| format!("node {node} follows its wall clock"));
                    lines.collect::<Vec<_>>().join("\n")
                },
            )?;
            let nodes: Vec<_> = left_out.iter().map(|node| node.0).collect();
            if nodes.is_empty() { Ok(()) } else { Err(CliError::SomeNodes { nodes }) }
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
