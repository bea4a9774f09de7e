//! Owns how a command fails: the message for the person who called it, and the exit code.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::config::ConfigError;
use crate::import::ImportError;
use crate::logging::LoggingError;
use crate::server::StartError;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CliError {
    /// The settings are not usable.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Logging could not be set up.
    #[error(transparent)]
    Logging(#[from] LoggingError),
    /// The node could not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The node is no node of its cluster any more.
    #[error("{0}")]
    Removed(fanfold_cluster::NodeFailure),
    /// The node failed while it ran, and the process has to end.
    #[error("the node failed: {0}; nothing that was answered is lost, start it again once the cause is gone")]
    Failed(fanfold_cluster::NodeFailure),
    /// Nobody listens at the address.
    #[error(
        "no node listens on {address} ({source}); start one with `fanfold start`, or name another with --address"
    )]
    NoNode {
        /// The address.
        address: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// Nobody answers there.
    #[error(
        "{address} does not answer: its process hangs or is stopped, or the network is cut; ask another node, and see NodeSilent \
         in RUNBOOK.md"
    )]
    Silent {
        /// The address.
        address: String,
    },
    /// A call failed.
    #[error("{address}: {source}")]
    Call {
        /// The node that was asked.
        address: String,
        /// What it, or the client, said.
        source: fanfold_client::Error,
    },
    /// A call failed because another node is not there.
    #[error("{address}: {source}; `fanfold cluster health` says who is missing, and what to do")]
    Others {
        /// The node that was asked.
        address: String,
        /// What the client said.
        source: fanfold_client::Error,
    },
    /// A name is not one that a space or graph can have.
    #[error(
        "the name of a space or graph is 1 to 64 of the characters a-z, 0-9, - and _; choose another one"
    )]
    Name,
    /// A space was to be altered and nothing was named to change.
    #[error("nothing to change; name what to change, for example `fanfold space alter posts --feed-cap 400`")]
    NothingToChange,
    /// A user was refused, for instance because of a block.
    #[error("{refused} of {asked} were refused, because of a block or a limit; see `refused` in the output")]
    SomeRefused {
        /// How many.
        refused: usize,
        /// Of how many.
        asked: usize,
    },
    /// What is on disk cannot be looked into.
    #[error(transparent)]
    Inspect(#[from] crate::cli::inspect::InspectError),
    /// The log on disk is damaged; the report says where.
    #[error("the log in {} is damaged in {places} places; the output says which file, offset and groups", dir.display())]
    Damaged {
        /// The directory of the log.
        dir: PathBuf,
        /// How many places.
        places: usize,
    },
    /// An import failed.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// An import is done, without some lines.
    #[error("{rejected} lines were rejected{}", listed(rejects.as_deref()))]
    SomeRejected {
        /// How many.
        rejected: u64,
        /// Where they are listed.
        rejects: Option<PathBuf>,
    },
    /// An export failed.
    #[error(transparent)]
    Export(#[from] crate::export::ExportError),
    /// A data directory cannot be checked.
    #[error(transparent)]
    Verify(#[from] fanfold_cluster::verify::VerifyError),
    /// A backup was not made, read or restored.
    #[error(transparent)]
    Backup(#[from] fanfold_cluster::backup::BackupError),
    /// A segment cannot be read.
    #[error(transparent)]
    Segment(#[from] fanfold_storage::segment::SegmentError),
    /// The snapshots of a group cannot be looked at.
    #[error(transparent)]
    Snapshot(#[from] fanfold_storage::snapshot::SnapshotError),
    /// There is no such snapshot.
    #[error("there is no snapshot {number:016x} in {}; without --number all are shown", dir.display())]
    NoSnapshot {
        /// The directory.
        dir: PathBuf,
        /// What was asked for.
        number: u64,
    },
    /// There is nothing of a group.
    #[error("{} holds nothing of {name}; `fanfold inspect data-dir` shows what it holds", data_dir.display())]
    NoGroup {
        /// What was asked for.
        name: String,
        /// The data directory.
        data_dir: PathBuf,
    },
    /// Something on disk is wrong; the report says what.
    #[error("{found} {} wrong; the output says which files, and where in them", if *found == 1 { "thing is" } else { "things are" })]
    Wrong {
        /// How many things.
        found: u64,
    },
    /// A job of the node failed.
    #[error("{address}: {said}")]
    Job {
        /// The node.
        address: String,
        /// What it said.
        said: String,
    },
    /// Not every node has made its image.
    #[error(
        "{nodes} {} made no image; {}",
        if *nodes == 1 { "node has" } else { "nodes have" },
        if *is_complete { "the others have every partition all the same" } else { "the backup is not complete" }
    )]
    Images {
        /// How many nodes.
        nodes: usize,
        /// Whether the images that there are have everything.
        is_complete: bool,
    },
    /// What was made is without some partitions.
    #[error("{partitions} damaged {} left out; the output says which", if *partitions == 1 { "partition is" } else { "partitions are" })]
    LeftOut {
        /// How many.
        partitions: u64,
    },
    /// A job was cancelled.
    #[error("it was cancelled")]
    Cancelled,
    /// The cluster is not as it should be; the output says what.
    #[error("{problems} {} wrong; see the output", if *problems == 1 { "thing is" } else { "things are" })]
    Unhealthy {
        /// How many things.
        problems: usize,
    },
    /// Ctrl-C ended the wait for a change, and not the change.
    #[error(
        "not waited for any longer; the change is made and goes on{}; `fanfold cluster status` shows how far it is",
        as_seen(*left)
    )]
    NoLongerAwaited {
        /// What was left when it was looked last.
        left: Option<usize>,
    },
    /// There is no such node or partition.
    #[error("there is no {what} {asked}; there are {}", names(known))]
    NoSuch {
        /// What was asked for.
        what: &'static str,
        /// Which.
        asked: String,
        /// Those there are.
        known: Vec<String>,
    },
    /// A job that has ended cannot be cancelled.
    #[error("job {job} has ended already ({how}); `fanfold job list` shows those that run")]
    JobEnded {
        /// The job.
        job: u64,
        /// How.
        how: String,
    },
    /// A recovery that gives data up was not named as such.
    #[error("that gives up what is lost or damaged; look with --dry-run, and say --accept-loss to do it")]
    AcceptLoss,
    /// Fewer replicas were not named as what they are.
    #[error(
        "with {to} replicas instead of {from} a partition bears the loss of {} of its nodes instead of {}; look with \
         --dry-run, and say --accept-less-redundancy to do it",
        (to - 1) / 2, (from - 1) / 2
    )]
    LessRedundancy {
        /// As it is.
        from: u32,
        /// As it was asked for.
        to: u32,
    },
    /// Somebody took back the drain that is waited for.
    #[error("node {node} drains no more: somebody has undrained it; what was moved stays where it is")]
    Undrained {
        /// The node.
        node: u64,
    },
    /// Some nodes did not do what all were asked to.
    #[error(
        "it was not done on nodes {}, as said above; repeat it there with --node when they run",
        numbers(nodes)
    )]
    SomeNodes {
        /// The nodes.
        nodes: Vec<u64>,
    },
    /// What is shown leaves partitions out, because none of their replicas answered.
    #[error(
        "partitions {} are left out: none of the nodes that answer has a replica of them",
        numbers(partitions)
    )]
    Unanswered {
        /// The partitions.
        partitions: Vec<u64>,
    },
    /// Several backups for one partition.
    #[error("one partition is restored from one backup; name one, or restore all without --partition")]
    OneBackup,
    /// A node does not go on alone.
    #[error(transparent)]
    Survivor(#[from] fanfold_cluster::survivor::SurvivorError),
    /// What was changed is not finished.
    #[error(
        "{left} are left after {waited:?}{}; it goes on, and `fanfold cluster status` shows how far it is",
        if waits.is_empty() { String::new() } else { format!(": {}", waits.join(", ")) }
    )]
    NotYet {
        /// How many.
        left: usize,
        /// What they wait for.
        waits: Vec<String>,
        /// How long it was waited for.
        waited: std::time::Duration,
    },
    /// The demo failed.
    #[error(transparent)]
    Demo(crate::demo::DemoError),
    /// The process could not be set up, or its output not be written.
    #[error("{doing} failed: {source}")]
    Process {
        /// What was attempted.
        doing: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
}

fn listed(rejects: Option<&Path>) -> String {
    rejects.map_or_else(String::new, |path| format!("; {} says which and why", path.display()))
}

fn as_seen(left: Option<usize>) -> String {
    left.map_or_else(String::new, |left| format!(" ({left} left)"))
}

fn names(known: &[String]) -> String {
    if known.is_empty() { "none".to_owned() } else { known.join(", ") }
}

fn numbers(all: &[u64]) -> String {
    all.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")
}

impl CliError {
    /// Whether the reader of stdout went away, as `head` does; that is no failure.
    pub fn is_closed_pipe(&self) -> bool {
        match self {
            Self::Process { source, .. } => source.kind() == io::ErrorKind::BrokenPipe,
            Self::Export(error) => error.is_closed_pipe(),
            _ => false,
        }
    }

    /// Says on stderr what happened.
    pub fn tell(&self) {
        eprintln!("fanfold: {self}");
    }

    /// 2 for misuse, otherwise 1.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Config(_)
            | Self::Logging(_)
            | Self::NothingToChange
            | Self::AcceptLoss
            | Self::LessRedundancy { .. }
            | Self::OneBackup => ExitCode::from(2),
            Self::Import(error) if error.is_misuse() => ExitCode::from(2),
            Self::SomeRejected { .. } => ExitCode::from(3),
            _ => ExitCode::FAILURE,
        }
    }
}
