//! Owns the command `verify`: every checksum, of a node that runs, of the directory of one that does not, or of a backup.

use std::path::{Path, PathBuf};

use clap::Args;
use fanfold_cluster::backup::BackupError;
use fanfold_cluster::meter::Meter;
use fanfold_cluster::verify::{Finding, verify_data_dir};
use fanfold_protocol::message::JobKind;
use serde_json::json;

use super::error::CliError;
use super::progress::{parse_bytes, shown};
use super::remote::Remote;
use super::{images, job};
use crate::translate;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  fanfold verify --rate 50MiB                   # the node that runs here\n  fanfold verify --data-dir ./fanfold-data      # no node may run on it\n  fanfold verify --data-dir /backups/monday     # the files of a backup, by its list"
)]
pub(super) struct VerifyArgs {
    /// Check this directory, on which no node runs, or this backup, instead of a running node.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Read at most so many bytes a second, such as `50MiB`.
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    rate: Option<u64>,
    #[command(flatten)]
    remote: Remote,
}

impl VerifyArgs {
    pub(super) fn is_offline(&self) -> bool {
        self.data_dir.is_some()
    }
}

/// Checks a directory.
pub(super) fn offline(args: &VerifyArgs) -> Result<(), CliError> {
    let dir = args.data_dir.clone().unwrap_or_default();
    if !dir.is_dir() {
        return Err(super::inspect::InspectError::NoDirectory { path: dir }.into());
    }
    let findings = shown(Meter::new(args.rate), {
        let dir = dir.clone();
        move |meter| found(&dir, meter)
    })?;
    let findings: Vec<_> = findings.iter().map(translate::finding).collect();
    job::report(args.remote.output, &json!(dir), findings.len() as u64, &findings)
}

/// What is wrong in a directory: of a backup by its list, and of a cluster's images whether they have every partition; else what a start
/// would find. A backup that a node was started on is one no more.
fn found(dir: &Path, meter: &Meter) -> Result<Vec<Finding>, CliError> {
    let backups = match images::named(dir) {
        _ if was_started_on(dir) => return Ok(verify_data_dir(dir, meter)?.findings),
        Err(CliError::Backup(BackupError::NotABackup { path })) if path == dir => {
            return Ok(verify_data_dir(dir, meter)?.findings);
        }
        backups => backups?,
    };
    let mut findings = Vec::new();
    // A single image may be of a node that has only some of them.
    let is_set = backups.iter().any(|image| image.dir != dir);
    let missing = if is_set { images::missing_in(backups.iter()) } else { Vec::new() };
    if !missing.is_empty() {
        let what = format!("partitions {missing:?} are in none of the images");
        findings.push(Finding { path: dir.to_owned(), offset: None, what });
    }
    for backup in backups {
        match backup.check(&|_| true, meter) {
            Ok(()) => {}
            Err(BackupError::Damaged { findings: damaged }) => findings.extend(damaged),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(findings)
}

/// Whether a node was started on a directory: no backup has an identity of its own.
fn was_started_on(dir: &Path) -> bool {
    dir.join("identity").exists()
}

/// Checks a running node.
pub(super) async fn online(args: VerifyArgs) -> Result<(), CliError> {
    let VerifyArgs { remote, rate, .. } = args;
    remote
        .with_client(async |client| {
            let status = job::run(&remote, client, JobKind::Verify, rate).await?;
            job::report(remote.output, &json!(remote.address), status.found, &status.findings)
        })
        .await
}
