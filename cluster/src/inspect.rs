//! Owns the offline look into what a stopped node left: its identity, and what the entries of its log say.
//!
//! - Nothing is changed. The data directory is locked meanwhile, so that no node starts on it.

use std::path::Path;

use bytes::Bytes;
use fanfold_storage::codec::Malformed;
use fanfold_storage::command::{Command, decode_batch};
use fanfold_storage::ids::Stamp;
use fanfold_storage::log::GroupId;
use thiserror::Error;

use crate::error::OpenError;
use crate::identity::{DataDir, Identity};
use crate::lock::DirLock;
use crate::raft::{CodecError, Look, look};

/// Keeps a data directory from being opened while it is looked into.
#[derive(Debug)]
pub struct Inspection {
    dir: DataDir,
    _lock: DirLock,
}

/// What a data directory says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataDirFacts {
    /// Which node of which cluster; none if the identity is missing or unreadable (the log has it too).
    pub identity: Option<Identity>,
    /// The number of partitions, if the identity is readable.
    pub partitions: Option<u16>,
    /// Whether the first start was finished.
    pub is_founded: bool,
}

/// What a record that appends holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryFacts {
    /// The term of its leader.
    pub term: u64,
    /// When it was stamped, if it is a partition's batch.
    pub stamp: Option<Stamp>,
    /// The kinds of its commands, in order; `blank` and `membership` are Raft's own.
    pub commands: Vec<&'static str>,
}

/// Why an entry cannot be described.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EntryError {
    /// Raft's part of it does not decode.
    #[error(transparent)]
    Raft(#[from] CodecError),
    /// Its batch does not decode.
    #[error(transparent)]
    Batch(#[from] Malformed),
}

impl Inspection {
    /// Locks a data directory.
    pub fn begin(data_dir: &Path) -> Result<Self, OpenError> {
        let lock = DirLock::take(data_dir)?;
        Ok(Self { dir: DataDir::at(data_dir), _lock: lock })
    }

    /// What the directory says of itself.
    pub fn facts(&self) -> Result<DataDirFacts, OpenError> {
        let stored = self.dir.peek()?;
        Ok(DataDirFacts {
            identity: stored.map(|stored| stored.identity),
            partitions: stored.map(|stored| stored.partitions),
            is_founded: stored.is_some_and(|stored| stored.founded),
        })
    }

    /// Where its log is.
    pub fn log_dir(&self) -> std::path::PathBuf {
        self.dir.log()
    }
}

/// Describes an entry from the payload of its record. Group 0 is the catalog's, partition `n` has group `n` + 1.
pub fn entry_facts(group: GroupId, index: u64, payload: &[u8]) -> Result<EntryFacts, EntryError> {
    let (term, look) = look(index, &Bytes::copy_from_slice(payload))?;
    let (stamp, commands) = match look {
        Look::Blank => (None, vec!["blank"]),
        Look::Membership => (None, vec!["membership"]),
        Look::Batch(_) if group == GroupId(0) => (None, vec!["catalog"]),
        Look::Batch(batch) => {
            let (stamp, commands) = decode_batch(&batch)?;
            (Some(stamp), commands.iter().map(|(command, _)| kind(command)).collect())
        }
    };
    Ok(EntryFacts { term, stamp, commands })
}

fn kind(command: &Command) -> &'static str {
    use fanfold_storage::command::Write;
    match command {
        Command::OpenSession => "open-session",
        Command::CloseSession { .. } => "close-session",
        Command::Write { write, .. } => match write {
            Write::Append { .. } => "append",
            Write::Amend { .. } => "amend",
            Write::Delete { .. } => "delete",
            Write::SetExpiry { .. } => "set-expiry",
            Write::Follow { .. } => "follow",
            Write::Unfollow { .. } => "unfollow",
            Write::Mute { .. } => "mute",
            Write::Unmute { .. } => "unmute",
            Write::Block { .. } => "block",
            Write::Unblock { .. } => "unblock",
            Write::ImportFollows { .. } => "import-follows",
            Write::ImportEntries { .. } => "import-entries",
        },
        Command::Configure { .. } => "configure",
        Command::DefineSpace { .. } => "define-space",
        Command::Stream { .. } => "stream",
        Command::Trim { .. } => "trim",
        Command::DropDestination { .. } => "drop-destination",
        Command::ResumeDestination { .. } => "resume-destination",
        Command::Tick => "tick",
        Command::Reincarnate { .. } => "reincarnate",
    }
}
