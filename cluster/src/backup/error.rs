//! Owns the errors of backups: making, reading and restoring them.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fanfold_storage::ids::PartitionId;
use fanfold_storage::log::{GroupId, LogError};
use thiserror::Error;

use crate::error::{OpenError, because};
use crate::inspect::name_of;
use crate::meter::Cancelled;
use crate::raft::{Damage, FileError};
use crate::verify::Finding;

/// Why a backup was not made, read or restored.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BackupError {
    /// The operating system refused an operation.
    #[error("cannot use {path:?}: {source}")]
    Io {
        /// On which file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The directory of a backup is named in a way that means something else to the node.
    #[error("{path:?} is not an absolute path on the node's machine; name one")]
    NotAbsolute {
        /// The path.
        path: PathBuf,
    },
    /// The directory of a backup is in the node's own.
    #[error("{path:?} is in the node's data directory {data_dir:?}; name a directory outside of it")]
    InDataDir {
        /// The path.
        path: PathBuf,
        /// The data directory.
        data_dir: PathBuf,
    },
    /// There is something where the backup, or what is restored, should go.
    #[error("{path:?} is not empty; name an empty or a new directory")]
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// The directory holds no finished backup.
    #[error("{path:?} is no backup: it has no `backup.json`, which is written last; make the backup again")]
    NotABackup {
        /// The directory.
        path: PathBuf,
    },
    /// The list of a backup's files is damaged.
    #[error("{path:?} is damaged; use another backup")]
    Contents {
        /// The file.
        path: PathBuf,
    },
    /// A backup of another format.
    #[error("the backup in {path:?} has format version {found}, this program reads version {supported}")]
    Format {
        /// The directory.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// What this program reads.
        supported: u32,
    },
    /// Files are not what was written.
    #[error("{}; {} {} wrong in all", first(.findings), findings.len(), if findings.len() == 1 { "thing is" } else { "things are" })]
    Damaged {
        /// What is wrong.
        findings: Vec<Finding>,
    },
    /// The catalog cannot go on with less than all of it.
    #[error(
        "{}; the catalog cannot go on with less than everything: restore a backup into an empty directory (`fanfold backup restore`)",
        first(.findings)
    )]
    CatalogDamaged {
        /// What is wrong.
        findings: Vec<Finding>,
    },
    /// A partition cannot be part of a backup.
    #[error(
        "partition {partition} is damaged on this node ({}); restore it first (`fanfold backup restore --partition {partition}`), or make \
         the backup without it: --leave-out-damaged", because(damage.as_deref())
    )]
    Refusing {
        /// Which.
        partition: PartitionId,
        /// What is damaged of it.
        damage: Option<Arc<Damage>>,
    },
    /// A group's files could not be brought to disk.
    #[error("{}: {source}", name_of(GroupId(*group)))]
    Snapshot {
        /// The group: 0 is the catalog, partition `n` has `n` + 1.
        group: u32,
        /// Why.
        source: FileError,
    },
    /// The data directory is of another cluster or node.
    #[error(
        "{data_dir:?} is of another cluster or node than the backup, so that its partitions do not fit together"
    )]
    OtherNode {
        /// The data directory.
        data_dir: PathBuf,
    },
    /// There is no node, or one that never served.
    #[error("{data_dir:?} holds no node whose identity can be read")]
    NoNode {
        /// The data directory.
        data_dir: PathBuf,
    },
    /// There is no such partition.
    #[error("there are {partitions} partitions, and none of the number {partition}")]
    NoPartition {
        /// What was asked for.
        partition: PartitionId,
        /// What there is.
        partitions: u16,
    },
    /// Partitions are in none of the backups.
    #[error(
        "{} {} in none of the backups; name backups of other nodes too, or say --accept-loss to begin {} empty",
        listed(.partitions), if partitions.len() == 1 { "is" } else { "are" }, if partitions.len() == 1 { "it" } else { "them" }
    )]
    Missing {
        /// Which.
        partitions: Vec<u16>,
    },
    /// None of the backups has the catalog.
    #[error(
        "no backup has the catalog, which says what spaces there are; name one of a node that has a replica of it \
         (`fanfold cluster status` shows which)"
    )]
    NoCatalog,
    /// Backups that do not belong together.
    #[error("{path:?} is a backup of another cluster than the first one")]
    OtherCluster {
        /// The backup.
        path: PathBuf,
    },
    /// A partition of a node that has others beside it.
    #[error(
        "the partition has replicas on other nodes, which would disagree with what is restored; restore the whole \
         backup into a new cluster, or let the others fill the node with `fanfold node replace`"
    )]
    Replicated,
    /// A partition, or the catalog, of a node that has others beside it is to go on with what is left here.
    #[error(
        "the node is one of several, whose replicas would disagree with what is left here; start it, and the others fill what is \
         damaged; where most replicas are damaged or gone, `fanfold cluster health` says what to do"
    )]
    OneOfSeveral,
    /// The partition is not in the backup.
    #[error(
        "partition {partition} is not in this backup: it was damaged when that was made, and left out; restore it from an earlier one, \
         or see what `fanfold partition salvage {partition} --dry-run` finds"
    )]
    LeftOut {
        /// The partition.
        partition: PartitionId,
    },
    /// The node of the directory is to go on alone, and has not been started since.
    #[error(
        "the node of {data_dir:?} goes on alone from its next start on, which comes first: start it; a partition that is damaged \
         refuses service then, and the same can be done"
    )]
    NotStarted {
        /// The data directory.
        data_dir: PathBuf,
    },
    /// Another restore into the directory was not finished.
    #[error("{data_dir:?} holds an unfinished restore of something else; finish that first")]
    Unfinished {
        /// The data directory.
        data_dir: PathBuf,
    },
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] OpenError),
    /// The log of the data directory failed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Somebody ended it.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    /// The node is stopping.
    #[error("the node is stopping")]
    Stopping,
}

fn listed(partitions: &[u16]) -> String {
    let numbers: Vec<String> = partitions.iter().map(u16::to_string).collect();
    format!("partition{} {}", if numbers.len() == 1 { "" } else { "s" }, numbers.join(", "))
}

fn first(findings: &[Finding]) -> String {
    let Some(Finding { path, offset, what }) = findings.first() else { return String::new() };
    let offset = offset.map_or_else(String::new, |offset| format!(" at offset {offset}"));
    format!("{}{offset}: {what}", path.display())
}

/// Adds to an error which file it is about.
pub(super) trait At<T> {
    fn at(self, path: &Path) -> Result<T, BackupError>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, path: &Path) -> Result<T, BackupError> {
        self.map_err(|source| BackupError::Io { path: path.to_owned(), source })
    }
}

impl From<fanfold_storage::log::OpenError> for BackupError {
    fn from(error: fanfold_storage::log::OpenError) -> Self {
        Self::DataDir(error.into())
    }
}
