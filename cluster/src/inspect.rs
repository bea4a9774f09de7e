//! Owns the offline look into what a stopped node left: its identity, and what the entries of its log say.
//!
//! - Nothing is changed. The data directory is locked meanwhile, so that no node starts on it; a copy of one may have no lock file.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use fanfold_storage::codec::Malformed;
use fanfold_storage::command::{Command, decode_batch};
use fanfold_storage::fs::RealFs;
use fanfold_storage::ids::Stamp;
use fanfold_storage::log::{AffectedGroups, Damage, GroupId};
use thiserror::Error;

use crate::backup::{Restored, copy_all};
use crate::error::OpenError;
use crate::identity::{DataDir, IDENTITY_DIR, Identity};
use crate::lock::DirLock;
use crate::raft::{CodecError, Look, groups_dir, look};

/// Keeps a data directory from being opened while it is looked into.
#[derive(Debug)]
pub struct Inspection {
    dir: DataDir,
    _lock: Option<DirLock>,
    /// Of the identity, if it could be copied: its database writes when it is opened.
    _copy: Option<tempfile::TempDir>,
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
    /// What a restore left to the next start, if it did.
    pub restored: Option<&'static str>,
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
        let dir = DataDir::at(data_dir);
        if !dir.has_identity() && !dir.log().is_dir() && !groups_dir(data_dir).is_dir() {
            return Err(OpenError::NoNode { data_dir: data_dir.to_owned() });
        }
        let lock = DirLock::hold(data_dir)?;
        let copy = tempfile::tempdir().ok().filter(|_| dir.has_identity());
        let copy = copy.filter(|copy| copy_all(&dir.identity(), &copy.path().join(IDENTITY_DIR)).is_ok());
        let dir =
            copy.as_ref().map_or(dir, |copy| DataDir::looked_at(data_dir, copy.path().join(IDENTITY_DIR)));
        Ok(Self { dir, _lock: lock, _copy: copy })
    }

    /// What the directory says of itself.
    pub fn facts(&self) -> Result<DataDirFacts, OpenError> {
        let stored = self.dir.peek()?;
        Ok(DataDirFacts {
            identity: stored.map(|stored| stored.identity),
            partitions: stored.map(|stored| stored.partitions),
            is_founded: stored.is_some_and(|stored| stored.founded),
            restored: Restored::load(&RealFs, self.dir.path())?.map(|restored| {
                if restored.is_finished {
                    "the next start changes incarnations"
                } else {
                    "UNFINISHED: run the same `fanfold backup restore` again"
                }
            }),
        })
    }

    /// The directory.
    pub(crate) fn dir(&self) -> &DataDir {
        &self.dir
    }

    /// The groups that have a directory of their own, by number.
    pub fn groups(&self) -> Result<Vec<GroupId>, OpenError> {
        let dir = groups_dir(self.dir.path());
        let items = match std::fs::read_dir(&dir) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            items => items.map_err(|source| OpenError::Io { path: dir, source })?,
        };
        let number = |name: &OsStr| name.to_str().filter(|name| name.len() == 4)?.parse().ok().map(GroupId);
        let mut groups: Vec<_> = items.flatten().filter_map(|item| number(&item.file_name())).collect();
        groups.sort_unstable();
        Ok(groups)
    }

    /// Where its log is.
    pub fn log_dir(&self) -> PathBuf {
        self.dir.log()
    }
}

/// What people call a group.
pub fn name_of(group: GroupId) -> String {
    group
        .0
        .checked_sub(1)
        .map_or_else(|| "the catalog".to_owned(), |partition| format!("partition {partition}"))
}

/// Whose records may have stood in a damaged place of a log of these groups, and count.
pub fn concerned(damage: &Damage, known: &[GroupId]) -> String {
    let named = |groups: &mut dyn Iterator<Item = &GroupId>| {
        let groups = groups.filter(|group| damage.concerns(**group));
        groups.map(|group| name_of(*group)).collect::<Vec<_>>().join(", ")
    };
    let named = match &damage.groups {
        AffectedGroups::Listed(groups) if groups.is_empty() => {
            "nobody, for they also stand elsewhere".to_owned()
        }
        AffectedGroups::Listed(groups) => named(&mut groups.iter()),
        AffectedGroups::All if damage.forgotten.is_empty() => "any partition, and the catalog".to_owned(),
        _ => named(&mut known.iter()),
    };
    match named.is_empty() {
        true if damage.forgotten.is_empty() => "partitions of which nothing else is there".to_owned(),
        true => "nobody any more, for they began anew".to_owned(),
        false => named,
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
        Command::Active { .. } => "active",
        Command::FreeFeeds { .. } => "free-feeds",
        Command::LeaveWindow { .. } => "leave-window",
        Command::PauseFanOut { .. } => "pause-fan-out",
    }
}
