//! Owns the errors of a group: opening it, proposing to it, reading from it.

use std::fmt;
use std::path::PathBuf;

use thiserror::Error;

use super::files::FileError;
use super::log_store::LogStoreError;
use super::machine::Damage;
use super::types::{ReplicaAddress, ReplicaId};

/// Who leads a group, as far as a replica knows. A hint, not a promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaderHint {
    /// The leading replica.
    pub replica: ReplicaId,
    /// Where its node listens for peers.
    pub address: ReplicaAddress,
}

/// For messages to people: who leads, or that nobody knows.
struct Hint<'a>(&'a Option<LeaderHint>);

impl fmt::Display for Hint<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(hint) => write!(f, "replica {} at {} does", hint.replica, hint.address),
            None => f.write_str("who does is not known yet"),
        }
    }
}

/// Why a group was not opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The group's part of the log cannot be used.
    #[error(transparent)]
    Log(#[from] LogStoreError),
    /// The group's files cannot be used.
    #[error(transparent)]
    Files(#[from] FileError),
    /// No snapshot reaches to where the log begins: what lies between is gone.
    #[error(
        "the log begins behind index {purged}, and no whole snapshot in {} reaches so far ({index:?}){}", dir.display(),
        damage.as_ref().map(|damage| format!(": {}", damage.what)).unwrap_or_default()
    )]
    NoSnapshot {
        /// The directory.
        dir: PathBuf,
        /// The newest whole one.
        index: Option<u64>,
        /// The last index that was purged.
        purged: u64,
        /// Why the newest one is not whole, if there is one.
        damage: Option<Box<Damage>>,
    },
    /// The members do not contain the replica that is opened.
    #[error("replica {replica} is not among the group's members")]
    NotMember {
        /// The replica.
        replica: ReplicaId,
    },
    /// The group should exist, but its log is empty: this is another disk, or it was wiped.
    #[error("replica {replica} has an empty log although its group exists; rebuild it under a new id")]
    Empty {
        /// The replica.
        replica: ReplicaId,
    },
    /// What the node has of the group is another replica's, which was not retired.
    #[error(
        "replica {replica} cannot be opened over what is there of replica {found}; retire that one first"
    )]
    OtherReplica {
        /// The replica to open.
        replica: ReplicaId,
        /// Whose records and files are there.
        found: ReplicaId,
    },
    /// The replica was retired on this node.
    #[error("replica {replica} was retired on this node; a new replica needs a new id")]
    Retired {
        /// The replica.
        replica: ReplicaId,
    },
    /// The settings contradict each other.
    #[error(
        "heartbeats every {heartbeat_ms} ms do not fit elections after {election_min_ms} to {election_max_ms} ms"
    )]
    Settings {
        /// Between two heartbeats.
        heartbeat_ms: u64,
        /// The shortest election timeout.
        election_min_ms: u64,
        /// The longest.
        election_max_ms: u64,
    },
    /// Raft stopped while it was being started.
    #[error("Raft stopped while it was being started: {reason}")]
    Stopped {
        /// What it stopped with.
        reason: StopReason,
    },
    /// The group did not recover in time.
    #[error("no leader had committed the replica's log after {waited_ms} ms")]
    Timeout {
        /// How long was waited.
        waited_ms: u64,
    },
}

impl OpenError {
    /// What of the group is damaged on the node, if nothing is missing that could be put back: others go on without it.
    pub fn damage(&self) -> Option<Damage> {
        use fanfold_storage::log::LogError;
        let (path, offset) = match self {
            Self::Log(LogStoreError::Log(LogError::Quarantined { path, offset, .. })) => {
                (path, Some(*offset))
            }
            Self::Files(FileError::Note { path }) => (path, None),
            Self::NoSnapshot { dir, damage, .. } => {
                let place = damage.as_ref().and_then(|damage| Some((damage.path.as_ref()?, damage.offset)));
                place.unwrap_or((dir, None))
            }
            _ => return None,
        };
        Some(Damage { path: Some(path.clone()), offset, what: self.to_string(), is_unread: false })
    }

    /// Whether something is gone, or cut off, that was there.
    pub fn is_loss(&self) -> bool {
        use fanfold_storage::snapshot::SnapshotError;
        matches!(
            self,
            Self::Files(FileError::Snapshot(SnapshotError::Missing { .. } | SnapshotError::Length { .. }))
                | Self::Log(LogStoreError::Reverted { .. })
                | Self::Empty { .. }
        )
    }
}

/// Why a group's Raft no longer runs.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum StopReason {
    /// It was shut down.
    #[error("it was shut down")]
    Shutdown,
    /// Its log or machine failed; the process must end.
    #[error("its storage failed: {0}")]
    Storage(StorageFailure),
    /// It panicked; the process must end.
    #[error("it panicked")]
    Panicked,
}

/// What Raft says about a failure of its log or machine; the typed cause is in the log store's own error, which
/// cannot pass through openraft.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorageFailure(pub(super) Box<str>);

impl fmt::Display for StorageFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a proposal has no outcome.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ProposeError {
    /// This replica does not lead the group. Nothing was proposed.
    #[error("this replica does not lead the group; {}", Hint(hint))]
    NotLeader {
        /// Who leads, if known.
        hint: Option<LeaderHint>,
    },
    /// The leadership was lost before the proposal was committed: it may still be, or not.
    #[error("the leadership was lost before the proposal was committed; {}", Hint(hint))]
    Lost {
        /// Who leads, if known.
        hint: Option<LeaderHint>,
    },
    /// Too much is waiting already. Nothing was proposed.
    #[error("too much is waiting; try again in {delay_ms} ms")]
    Busy {
        /// When to try again.
        delay_ms: u64,
    },
    /// The disk has no room for the log. Nothing was proposed.
    #[error("the disk has no room for the log; reads go on, and writes when there is room")]
    DiskFull,
    /// The command or batch is larger than what is accepted. Nothing was proposed.
    #[error("{bytes} bytes are above the limit of {limit_bytes}")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The limit.
        limit_bytes: u64,
    },
    /// The group no longer runs here.
    #[error("the group has stopped")]
    Stopped {
        /// Whether the proposal had been handed to Raft before.
        proposed: bool,
    },
}

impl ProposeError {
    /// Whether the proposal may have been, or may yet be, applied.
    pub fn may_have_applied(&self) -> bool {
        matches!(self, Self::Lost { .. } | Self::Stopped { proposed: true })
    }

    /// Whether the same proposal may succeed later, here or at another replica.
    pub fn is_retryable(&self) -> bool {
        !matches!(self, Self::TooLarge { .. })
    }
}

/// Why a read position was not confirmed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ReadError {
    /// This replica does not lead the group.
    #[error("this replica does not lead the group; {}", Hint(hint))]
    NotLeader {
        /// Who leads, if known.
        hint: Option<LeaderHint>,
    },
    /// No quorum confirmed the leadership in time.
    #[error("no quorum confirmed that this replica still leads")]
    NoQuorum,
    /// The group no longer runs here.
    #[error("the group has stopped")]
    Stopped,
}

/// Why the members or the leader of a group were not changed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ChangeError {
    /// This replica does not lead the group. Nothing was changed.
    #[error("this replica does not lead the group; {}", Hint(hint))]
    NotLeader {
        /// Who leads, if known.
        hint: Option<LeaderHint>,
    },
    /// The leadership was lost in the middle: the change may have been made, in part or whole, or not.
    #[error("the leadership was lost in the middle of the change; {}", Hint(hint))]
    Lost {
        /// Who leads, if known.
        hint: Option<LeaderHint>,
    },
    /// Another change is not finished yet. Nothing was changed.
    #[error("another change of the group's members is under way; try again when it is done")]
    InProgress,
    /// The replica is not a member of the group, or does not vote where only a voter will do. Nothing was changed.
    #[error("replica {replica} is not a member of the group; add it first")]
    NotMember {
        /// The replica.
        replica: ReplicaId,
    },
    /// A voter cannot be removed as a learner. Nothing was changed.
    #[error("replica {replica} votes; change the voters instead")]
    Votes {
        /// The replica.
        replica: ReplicaId,
    },
    /// A group needs a voter. Nothing was changed.
    #[error("the last voter of a group cannot be removed; add another replica first")]
    LastVoter,
    /// Too few of the new voters are alive and have caught up. Nothing was changed.
    #[error(
        "only {ready} of the new voters are alive and have caught up, {needed} are needed for a majority"
    )]
    WouldLoseQuorum {
        /// How many are ready.
        ready: u64,
        /// How many make a majority.
        needed: u64,
    },
    /// The replica that is to lead is silent or has not caught up. Nothing was changed.
    #[error("replica {replica} is silent or has not caught up, so it cannot lead")]
    NotReady {
        /// The replica.
        replica: ReplicaId,
    },
    /// It was not done in time, and may be yet.
    #[error("the change was not committed within {waited_ms} ms; it may be yet")]
    Timeout {
        /// How long was waited.
        waited_ms: u64,
    },
    /// The group no longer runs here.
    #[error("the group has stopped")]
    Stopped,
}

impl ChangeError {
    /// Whether the change may have been, or may yet be, made.
    pub fn may_have_changed(&self) -> bool {
        matches!(self, Self::Lost { .. } | Self::Timeout { .. } | Self::Stopped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_reached_raft_may_have_applied() {
        let errors = [
            (ProposeError::NotLeader { hint: None }, false),
            (ProposeError::Lost { hint: None }, true),
            (ProposeError::Busy { delay_ms: 1 }, false),
            (ProposeError::DiskFull, false),
            (ProposeError::TooLarge { bytes: 2, limit_bytes: 1 }, false),
            (ProposeError::Stopped { proposed: false }, false),
            (ProposeError::Stopped { proposed: true }, true),
        ];
        for (error, may_have_applied) in errors {
            assert_eq!(error.may_have_applied(), may_have_applied, "{error}");
        }
    }

    #[test]
    fn a_message_names_the_leader() {
        let hint = LeaderHint { replica: ReplicaId(7), address: ReplicaAddress("host:1".into()) };
        let message = ProposeError::NotLeader { hint: Some(hint) }.to_string();
        assert_eq!(message, "this replica does not lead the group; replica 7 at host:1 does");
    }
}
