//! Owns the commands `backup create|list|restore`.

use std::fs;
use std::path::{Path, PathBuf, absolute};

use clap::{Args, Subcommand};
use fanfold_cluster::backup::{Backup, BackupError, restore, restore_partition};
use fanfold_cluster::meter::Meter;
use fanfold_protocol::Stamp;
use fanfold_protocol::message::JobKind;
use fanfold_storage::ids::PartitionId;
use serde_json::{Value, json};

use super::error::CliError;
use super::job;
use super::output::{Output, bytes, table, text, time};
use super::progress::{parse_bytes, shown};
use super::remote::Remote;

#[derive(Debug, Args)]
pub(super) struct BackupArgs {
    #[command(subcommand)]
    command: BackupCommand,
}

#[derive(Debug, Subcommand)]
enum BackupCommand {
    /// Makes a backup of a running node: all of it, as it was at one moment.
    #[command(
        after_help = "Example:\n  fanfold backup create /backups/monday --rate 100MiB\n\nFiles that never change are linked, not copied, if the directory is on the same disk: copy it elsewhere afterwards."
    )]
    Create {
        /// Directory on the node's machine; empty or not there.
        dir: PathBuf,
        /// Read and write at most so many bytes a second, such as `50MiB`.
        #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
        rate: Option<u64>,
        #[command(flatten)]
        remote: Remote,
    },
    /// Shows backups, and whether all of their files are there.
    #[command(after_help = "Example:\n  fanfold backup list /backups")]
    List {
        /// Backups, or directories of backups.
        #[arg(required = true)]
        dirs: Vec<PathBuf>,
        /// How the result is shown.
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
    /// Puts a backup, or one partition of it, into a data directory on which no node runs. All of it is checked first.
    #[command(
        after_help = "Examples:\n  fanfold backup restore /backups/monday --data-dir ./restored\n  fanfold backup restore /backups/monday --partition 3 --data-dir ./fanfold-data"
    )]
    Restore {
        /// The backup.
        dir: PathBuf,
        /// Empty or not there; with --partition, that of the node.
        #[arg(long, value_name = "DIR")]
        data_dir: PathBuf,
        /// Put only this partition back; the others stay as they are.
        #[arg(long)]
        partition: Option<u16>,
        /// Read and write at most so many bytes a second, such as `50MiB`.
        #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
        rate: Option<u64>,
        /// How the result is shown.
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
}

impl BackupArgs {
    pub(super) fn is_offline(&self) -> bool {
        !matches!(self.command, BackupCommand::Create { .. })
    }
}

/// Makes a backup on the node.
pub(super) async fn create(args: BackupArgs) -> Result<(), CliError> {
    let BackupCommand::Create { dir, rate, remote } = args.command else { return Ok(()) };
    let dir = absolute(&dir).map_err(|source| BackupError::Io { path: dir.clone(), source })?;
    let dir = dir.display().to_string();
    remote
        .with_client(async |client| {
            let status = job::run(&remote, client, JobKind::Backup { dir: dir.clone() }, rate).await?;
            let json = json!({ "backup": dir, "read_and_written_bytes": status.done_bytes });
            remote.output.show(|| json, || format!("the backup is in {dir}"))
        })
        .await
}

/// Lists and restores.
pub(super) fn offline(args: &BackupArgs) -> Result<(), CliError> {
    match &args.command {
        BackupCommand::List { dirs, output } => list(dirs, *output),
        BackupCommand::Restore { dir, data_dir, partition, rate, output } => {
            let backup = Backup::open(dir)?;
            let (target, partition) = (data_dir.clone(), partition.map(PartitionId));
            shown(Meter::new(*rate), move |meter| match partition {
                Some(partition) => restore_partition(&backup, partition, &target, meter),
                None => restore(&backup, &target, meter),
            })?;
            let what = partition
                .map_or_else(|| "the backup".to_owned(), |partition| format!("partition {partition}"));
            let json = json!({ "restored": dir, "data_dir": data_dir, "partition": partition.map(|p| p.0) });
            let place = data_dir.display();
            output.show(
                || json,
                || format!("{what} is restored; `fanfold start --data-dir {place}` goes on with it"),
            )
        }
        BackupCommand::Create { .. } => Ok(()),
    }
}

/// A directory, and the backup in it.
type Opened = (PathBuf, Result<Backup, BackupError>);

/// The backups in a directory, or itself.
fn backups(dir: &Path) -> Result<Vec<Opened>, CliError> {
    let opened = Backup::open(dir);
    if !matches!(opened, Err(BackupError::NotABackup { .. })) {
        return Ok(vec![(dir.to_owned(), opened)]);
    }
    let items = fs::read_dir(dir).map_err(|source| BackupError::Io { path: dir.to_owned(), source })?;
    let mut dirs: Vec<_> = items.flatten().map(|item| item.path()).filter(|path| path.is_dir()).collect();
    dirs.sort_unstable();
    if dirs.iter().any(|sub| sub.ends_with("log") || sub.ends_with("groups")) {
        // One that was not finished.
        return Ok(vec![(dir.to_owned(), opened)]);
    }
    Ok(dirs.into_iter().map(|dir| (dir.clone(), Backup::open(&dir))).collect())
}

fn list(dirs: &[PathBuf], output: Output) -> Result<(), CliError> {
    let mut rows =
        table(["backup", "made", "state", "partitions", "log position", "files", "bytes", "cluster"]);
    let mut items: Vec<Value> = Vec::new();
    for dir in dirs {
        for (dir, backup) in backups(dir)? {
            let Backup { contents, .. } = match &backup {
                Ok(backup) => backup,
                Err(error) => {
                    rows.add_row([dir.display().to_string(), String::new(), format!("UNUSABLE: {error}")]);
                    items.push(json!({ "backup": dir, "is_complete": false, "error": error.to_string() }));
                    continue;
                }
            };
            let missing = backup.as_ref().map(Backup::incomplete).unwrap_or_default();
            let made = Stamp::from_unix_ms(contents.made_unix_ms).map_or_else(String::new, time);
            let cluster = format!("{:032x}", contents.identity().cluster_id);
            let state = missing.first().map_or_else(
                || "complete".to_owned(),
                |first| format!("INCOMPLETE: {}: {}", first.path.display(), first.what),
            );
            rows.add_row([
                dir.display().to_string(),
                made.clone(),
                state,
                contents.partitions.to_string(),
                contents.log_position.to_string(),
                contents.files.len().to_string(),
                bytes(contents.bytes()),
                cluster.clone(),
            ]);
            items.push(json!({ "backup": dir, "made": made, "is_complete": missing.is_empty(), "cluster": cluster,
                "node": contents.node, "partitions": contents.partitions, "log_position": contents.log_position,
                "files": contents.files.len(), "bytes": contents.bytes() }));
        }
    }
    output.show(|| Value::Array(items.clone()), || text(&rows))
}
