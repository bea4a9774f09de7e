//! Owns the command `export`.

use std::path::PathBuf;

use clap::Args;
use indicatif::ProgressBar;
use serde_json::json;

use super::error::CliError;
use super::images;
use super::output::Output;
use crate::export::{Exported, Order, What, export, export_backups};
use crate::import::STDIN as STDOUT;
use crate::workload::progress;

#[derive(Debug, Args)]
#[command(
    after_help = "The files are those that `fanfold import` reads, one per partition and graph, compressed:
  follows.GRAPH.NNNN.tsv.zst    edges with their times
  entries.NNNN.jsonl.zst        entries of all spaces, with their ids, keys, versions and expiries
Each partition is exported as it stands at one position of its log; of a backup, all of them at one moment. Spaces are not
exported: create them before an import.

Examples:
  fanfold export all --data-dir ./fanfold-data --out ./export     # of a node that is stopped
  fanfold backup create /backups/monday                           # of a node or cluster that runs: first a backup,
  fanfold export all --backup /backups/monday --out ./export      # then what is in it; of a cluster, in all its images"
)]
pub(super) struct ExportArgs {
    /// What to export.
    #[arg(value_enum)]
    what: What,
    /// Directory with everything the node keeps; no node may run on it.
    #[arg(long, value_name = "DIR", default_value = "./fanfold-data")]
    data_dir: PathBuf,
    /// Export this backup instead; the nodes that it is of may run. A directory with the images of a cluster's nodes stands for all.
    #[arg(long, value_name = "DIR", conflicts_with = "data_dir", num_args = 1..)]
    backup: Vec<PathBuf>,
    /// Go on without partitions that are damaged, or not in the backup, and list them; what an earlier export wrote of them stays.
    #[arg(long)]
    leave_out_damaged: bool,
    /// The directory for the files; `-` writes the lines to standard output.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// How the result is shown.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Exports.
pub(super) async fn run(args: ExportArgs) -> Result<(), CliError> {
    let mut bar: Option<ProgressBar> = None;
    let done = |done: u16, partitions: u16| {
        bar.get_or_insert_with(|| progress::bar("partitions", partitions.into())).set_position(done.into());
    };
    let order = Order { what: args.what, out: args.out, leaves_out_damaged: args.leave_out_damaged };
    let backups = args.backup.iter().map(|dir| images::named(dir)).collect::<Result<Vec<_>, _>>()?.concat();
    let exported = if backups.is_empty() {
        export(&args.data_dir, &order, done).await
    } else {
        export_backups(backups, &order, done).await
    };
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    let Exported { edges, entries, left_out } = exported?;
    if order.out.as_os_str() != STDOUT {
        args.output.show(
            || json!({ "edges": edges, "entries": entries, "left_out": left_out }),
            || {
                let lines = left_out.iter().map(|partition| format!("LEFT OUT: partition {partition}"));
                let done = format!("{edges} edges and {entries} entries exported to {}", order.out.display());
                lines.chain([done]).collect::<Vec<_>>().join("\n")
            },
        )?;
    }
    match left_out.len() {
        0 => Ok(()),
        partitions => Err(CliError::LeftOut { partitions: partitions as u64 }),
    }
}
