//! Owns the command `export`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use fanfold_cluster::backup::Backup;
use fanfold_cluster::meter::Meter;
use indicatif::ProgressBar;
use serde_json::json;
use tokio::runtime::Handle;

use super::error::CliError;
use super::images;
use super::output::Output;
use crate::export::{ExportError, Exported, LeftOut, Order, What, export, export_backups};
use crate::import::STDIN as STDOUT;
use crate::workload::progress;

#[derive(Debug, Args)]
#[command(
    after_help = "The files are those that `fanfold import` reads, one per partition and graph, compressed:
  follows.GRAPH.NNNN.tsv.zst    edges with their times
  entries.NNNN.jsonl.zst        entries of all spaces, with their ids, keys, versions and expiries
  fanfold-export.json           which of them are there, with sizes and checksums; an import compares
Each partition is exported as it stands at one position of its log; of a backup, all of them at one moment. Spaces are not
exported: create them before an import.

Room: the files of an earlier export in the directory go when all new ones are written, so that both must fit; and beside them
a copy of the log until the end, or of a whole backup that is on another disk.

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

/// Exports; Ctrl-C ends it, and nothing of it is left.
pub(super) async fn run(args: ExportArgs) -> Result<(), CliError> {
    let meter = Arc::new(Meter::new(None));
    let backups = args.backup.iter().map(|dir| images::named(dir)).collect::<Result<Vec<_>, _>>()?.concat();
    let (what, out, leaves_out_damaged) = (args.what, args.out.clone(), args.leave_out_damaged);
    let order = Order { what, out, leaves_out_damaged, meter: Arc::clone(&meter) };
    let (runtime, data_dir) = (Handle::current(), args.data_dir);
    // Reading and writing takes its thread for itself, and signals need another one.
    let mut work =
        tokio::task::spawn_blocking(move || runtime.block_on(exported(&order, &data_dir, backups)));
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    let mut is_waited_out = false;
    let exported = loop {
        tokio::select! {
            exported = &mut work => break exported,
            signal = &mut interrupted, if !is_waited_out => {
                // Without a handler Ctrl-C ends the process.
                if signal.is_ok() {
                    meter.cancel();
                }
                is_waited_out = true;
            }
        }
    };
    let exported = exported.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
    let Exported { edges, entries, left_out } = exported?;
    if args.out.as_os_str() != STDOUT {
        args.output.show(
            || {
                let numbers: Vec<_> = left_out.iter().map(|left| left.partition).collect();
                let damage: Vec<_> = left_out.iter().map(|left| &left.damage).collect();
                json!({ "edges": edges, "entries": entries, "left_out": numbers, "left_out_damage": damage })
            },
            || {
                let lines = left_out.iter().map(|LeftOut { partition, damage }| {
                    let why = damage.as_deref().unwrap_or("it is not in the backup");
                    format!("LEFT OUT: partition {partition}: {why}")
                });
                let done = format!("{edges} edges and {entries} entries exported to {}", args.out.display());
                lines.chain([done]).collect::<Vec<_>>().join("\n")
            },
        )?;
    }
    match left_out.len() {
        0 => Ok(()),
        partitions => Err(CliError::LeftOut { partitions: partitions as u64 }),
    }
}

async fn exported(order: &Order, data_dir: &Path, backups: Vec<Backup>) -> Result<Exported, ExportError> {
    let mut bar: Option<ProgressBar> = None;
    let done = |done: u16, partitions: u16| {
        bar.get_or_insert_with(|| progress::bar("partitions", partitions.into())).set_position(done.into());
    };
    let exported = if backups.is_empty() {
        export(data_dir, order, done).await
    } else {
        export_backups(backups, order, done).await
    };
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    exported
}
