//! Owns the commands `backup create|list|restore`.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf, absolute};

use clap::{Args, Subcommand};
use fanfold_cluster::backup::{Backup, BackupError, restore_all, restore_partition};
use fanfold_cluster::meter::Meter;
use fanfold_protocol::message::{JobKind, NodeState};
use fanfold_protocol::{NodeId, Stamp};
use fanfold_storage::ids::PartitionId;
use serde_json::{Value, json};

use super::error::CliError;
use super::output::{Output, bytes, table, text, time};
use super::progress::{Reading, parse_bytes, shown};
use super::remote::Remote;
use super::{images, job};

#[derive(Debug, Args)]
pub(super) struct BackupArgs {
    #[command(subcommand)]
    command: BackupCommand,
}

#[derive(Debug, Subcommand)]
enum BackupCommand {
    /// Makes a backup of a running node, or of each node of a cluster: all of it, as it was at one moment.
    #[command(
        after_help = "Examples:\n  fanfold backup create /backups/monday --rate 100MiB\n  fanfold backup create /backups/monday --node 2\n\nIn a cluster every node makes an image of what is on it, all at the same time, in DIR/node-N on its own machine. Each is of one moment of its node; a follower may be a little behind its leader, and `fanfold backup list --output json` says up to which index of each group. Copy them to one place, and restore from its directory.\n\nFiles that never change are linked, not copied, if the directory is on the same disk: copy it elsewhere afterwards."
    )]
    Create {
        /// Directory on the node's machine, or on each; empty or not there.
        dir: PathBuf,
        /// Only the image of this node.
        #[arg(long, value_name = "NODE")]
        node: Option<u64>,
        /// Go on without partitions that are damaged on a node, and list them.
        #[arg(long)]
        leave_out_damaged: bool,
        /// Read and write at most so many bytes a second on each node, such as `50MiB`.
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
        after_help = "Examples:\n  fanfold backup restore /backups/monday --data-dir ./restored\n  fanfold backup restore /backups/node-1 /backups/node-2 --data-dir ./restored\n  fanfold backup restore /backups/monday --partition 3 --data-dir ./fanfold-data\n\nA directory with the images of a cluster's nodes stands for all of them. What was a cluster becomes a new one of one node, which others may join. Of each partition the image is taken that goes furthest."
    )]
    Restore {
        /// The backup, or, without --partition, backups of several nodes of one cluster.
        #[arg(required = true)]
        dirs: Vec<PathBuf>,
        /// Empty or not there; with --partition, that of the node.
        #[arg(long, value_name = "DIR")]
        data_dir: PathBuf,
        /// Put only this partition back; the others stay as they are.
        #[arg(long)]
        partition: Option<u16>,
        /// Partitions that are in none of the backups begin empty.
        #[arg(long, conflicts_with = "partition")]
        accept_loss: bool,
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
    let BackupCommand::Create { dir, node, leave_out_damaged, rate, remote } = args.command else {
        return Ok(());
    };
    let dir = absolute(&dir).map_err(|source| BackupError::Io { path: dir.clone(), source })?;
    remote
        .with_client(async |client| {
            let view = client.cluster().await.map_err(|error| remote.failed(error))?;
            let members = view.nodes.iter().filter(|node| node.state != NodeState::Removed).count();
            if members > 1 || node.is_some() {
                let node = node.map(NodeId);
                return images::create(&remote, client, &view, node, &dir, leave_out_damaged, rate).await;
            }
            let dir = dir.display().to_string();
            let kind = JobKind::Backup { dir: dir.clone(), leaves_out_damaged: leave_out_damaged };
            let status = job::run(&remote, client, kind, rate).await?;
            let left_out: Vec<_> = status.findings.iter().map(|finding| &finding.what).collect();
            let json =
                json!({ "backup": dir, "read_and_written_bytes": status.done_bytes, "left_out": left_out });
            let is_whole = left_out.is_empty();
            remote.output.show(
                || json,
                || {
                    let lines = left_out.iter().map(|what| format!("LEFT OUT: {what}"));
                    lines.chain([format!("the backup is in {dir}")]).collect::<Vec<_>>().join("\n")
                },
            )?;
            if is_whole { Ok(()) } else { Err(CliError::LeftOut { partitions: status.found }) }
        })
        .await
}

/// Lists and restores.
pub(super) fn offline(args: &BackupArgs) -> Result<(), CliError> {
    match &args.command {
        BackupCommand::List { dirs, output } => list(dirs, *output),
        BackupCommand::Restore { dirs, data_dir, partition, accept_loss, rate, output } => {
            let backups = dirs.iter().map(|dir| images::named(dir)).collect::<Result<Vec<_>, _>>()?.concat();
            if let ([_, _, ..], Some(_)) = (backups.as_slice(), partition) {
                return Err(CliError::OneBackup);
            }
            let (target, partition) = (data_dir.clone(), partition.map(PartitionId));
            let accepts_loss = *accept_loss;
            let empty = shown(Meter::new(*rate), move |meter| match (partition, backups.as_slice()) {
                (Some(partition), [backup, ..]) => {
                    restore_partition(backup, partition, &target, meter).map(|()| Vec::new())
                }
                _ => restore_all(&backups, accepts_loss, &target, meter),
            })?;
            if !empty.is_empty() {
                eprintln!("fanfold: these partitions begin empty, since no backup has them: {empty:?}");
            }
            let from = if let [dir] = dirs.as_slice() { json!(dir) } else { json!(dirs) };
            let what = partition
                .map_or_else(|| "the backup".to_owned(), |partition| format!("partition {partition}"));
            let json = json!({ "restored": from, "data_dir": data_dir, "partition": partition.map(|p| p.0),
                "begin_empty": empty });
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
    let mut all = Vec::new();
    for dir in dirs {
        let opened = Backup::open(&dir);
        let images = match opened {
            Err(BackupError::NotABackup { .. }) => images::in_dir(&dir)?,
            _ => Vec::new(),
        };
        if images.is_empty() {
            all.push((dir, opened));
        }
        all.extend(images.into_iter().map(|image| (image.clone(), Backup::open(&image))));
    }
    Ok(all)
}

/// The images of one cluster that are in one directory, under its name.
type Sets<'b> = BTreeMap<(PathBuf, String), Vec<&'b Backup>>;

fn sets(all: &[Opened]) -> Sets<'_> {
    let mut sets = Sets::new();
    for (dir, backup) in all {
        if let (Ok(backup), Some(parent)) = (backup, dir.parent())
            && backup.contents.is_of_cluster
        {
            let cluster = format!("{:032x}", backup.contents.identity().cluster_id);
            sets.entry((parent.to_owned(), cluster)).or_default().push(backup);
        }
    }
    sets.retain(|_, images| images.len() > 1);
    sets
}

fn list(dirs: &[PathBuf], output: Output) -> Result<(), CliError> {
    let mut rows =
        table(["backup", "made", "state", "partitions", "log position", "files", "bytes", "cluster"]);
    let mut items: Vec<Value> = Vec::new();
    let unusable = |dir: &Path, error: &dyn Display| {
        let row = [dir.display().to_string(), String::new(), format!("UNUSABLE: {error}")];
        (row, json!({ "backup": dir, "is_complete": false, "error": error.to_string() }))
    };
    for dir in dirs {
        let all = match backups(dir) {
            Ok(all) => all,
            Err(error) if dirs.len() == 1 => return Err(error),
            // One that cannot be looked at hides none of the others.
            Err(error) => {
                let (row, item) = unusable(dir, &error);
                rows.add_row(row);
                items.push(item);
                continue;
            }
        };
        let whole = all.iter().filter_map(|(_, backup)| backup.as_ref().ok());
        let looking = Reading::new(whole.map(|backup| backup.contents.bytes()).sum());
        for (dir, backup) in &all {
            let Backup { contents, .. } = match backup {
                Ok(backup) => backup,
                Err(error) => {
                    let (row, item) = unusable(dir, error);
                    rows.add_row(row);
                    items.push(item);
                    continue;
                }
            };
            let missing = backup.as_ref().map(Backup::incomplete).unwrap_or_default();
            looking.read(contents.bytes());
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
                match contents.missing().len() {
                    0 => contents.partitions.to_string(),
                    missing => {
                        format!("{} of {}", usize::from(contents.partitions) - missing, contents.partitions)
                    }
                },
                contents.log_position.to_string(),
                contents.files.len().to_string(),
                bytes(contents.bytes()),
                cluster.clone(),
            ]);
            items.push(json!({ "backup": dir, "made": made, "is_complete": missing.is_empty(), "cluster": cluster,
                "node": contents.node, "partitions": contents.partitions, "log_position": contents.log_position,
                "files": contents.files.len(), "bytes": contents.bytes(), "missing_partitions": contents.missing(),
                "groups": contents.groups }));
        }
        for ((dir, cluster), images) in sets(&all) {
            let missing = images::missing_in(images.iter().copied());
            let broken = images.iter().filter(|image| !image.incomplete().is_empty()).count();
            let state = match (missing.len(), broken) {
                (0, 0) => "complete together".to_owned(),
                (0, _) => format!("INCOMPLETE: {broken} of the images are"),
                _ => format!("INCOMPLETE: partitions {missing:?} are in none of the images"),
            };
            let partitions = images.first().map_or(0, |image| image.contents.partitions);
            rows.add_row([
                dir.display().to_string(),
                String::new(),
                state,
                format!("{} of {partitions}", usize::from(partitions) - missing.len()),
                String::new(),
                String::new(),
                bytes(images.iter().map(|image| image.contents.bytes()).sum()),
                cluster.clone(),
            ]);
            items.push(json!({ "backup": dir, "is_complete": missing.is_empty() && broken == 0, "cluster": cluster,
                "images": images.len(), "nodes": images.iter().map(|image| image.contents.node).collect::<Vec<_>>(),
                "partitions": partitions, "missing_partitions": missing }));
        }
    }
    output.show(|| Value::Array(items.clone()), || text(&rows))
}
