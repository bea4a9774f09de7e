//! Owns the mapping of refusals and failures to wire statuses: the one place where they are named for clients.

use std::collections::BTreeMap;

use fanfold_protocol::{Field, LimitKind, Status};
use fanfold_storage::command::{KEY_BYTES_MAX, Limited, Refusal, TTL_MS_MAX};
use fanfold_storage::ids::{SpaceId, Stamp};
use fanfold_storage::space::SpaceDefinition;

use fanfold_cluster::NodeError;
use fanfold_cluster::error::RangeField;
use fanfold_protocol::LeaderHint;
use fanfold_protocol::ids::NodeId;

use super::{
    cluster_refusal, entry_id_to_wire, graph_id_to_wire, partition_id_to_wire, space_id_to_wire, user_to_wire,
};

/// What a refusal alone does not know and its status says.
#[derive(Debug, Clone, Copy)]
pub struct Refused<'a> {
    /// The spaces that exist.
    pub spaces: &'a [SpaceDefinition],
    /// The times to live that the request named, in milliseconds.
    pub ttls_ms: &'a [i64],
    /// Whether a time to live stands for an expiry that was to be set.
    pub expiry: bool,
}

impl<'a> Refused<'a> {
    /// The same for one item of the request.
    pub fn at(&self, item: usize) -> Refused<'a> {
        Refused { ttls_ms: self.ttls_ms.get(item..=item).unwrap_or_default(), ..*self }
    }
}

/// The status of a refusal.
pub fn refusal_to_status(refusal: Refusal, refused: &Refused<'_>) -> Status {
    match refusal {
        Refusal::UnknownSession => Status::UnknownSession,
        Refusal::SequenceConflict => Status::SequenceConflict,
        Refusal::SequenceTooOld => Status::SequenceTooOld,
        Refusal::SessionFull => Status::SessionFull,
        Refusal::UnknownSpace => unknown_space(refused.spaces),
        Refusal::UnknownGraph => unknown_graph(refused.spaces),
        Refusal::WrongPartition { right } => Status::WrongPartition { right: partition_id_to_wire(right) },
        Refusal::PayloadTooLarge { limit } => Status::TooLarge { field: Field::Payload, limit: limit.into() },
        Refusal::KeyLength => Status::TooLarge { field: Field::Key, limit: KEY_BYTES_MAX as u64 },
        Refusal::TtlOutOfRange => Status::OutOfRange {
            field: if refused.expiry { Field::Expiry } else { Field::Ttl },
            min: 1,
            max: TTL_MS_MAX,
            got: refused.ttls_ms.first().copied().unwrap_or(0),
        },
        Refusal::KeyConflict { existing } => Status::KeyConflict { existing: entry_id_to_wire(existing) },
        Refusal::NotFound => Status::NotFound,
        Refusal::NotTheOwner => Status::NotTheOwner,
        Refusal::VersionMismatch { current } => Status::VersionMismatch { current },
        Refusal::Blocked { blocker, blocked } => {
            Status::BlockedBy { blocker: user_to_wire(blocker), blocked: user_to_wire(blocked) }
        }
        Refusal::TimeAhead { now, time } => {
            Status::OutOfRange { field: Field::Time, min: 0, max: now.0, got: saturated(time) }
        }
        Refusal::ExpiredAlready { now, expiry } => {
            let (min, max) = (now.0 + 1, now.0.saturating_add(TTL_MS_MAX));
            Status::OutOfRange { field: Field::Expiry, min, max, got: saturated(expiry) }
        }
        Refusal::IdTaken => Status::IdTaken,
        Refusal::ReadOnly { space } => Status::ReadOnlySpace { space: space_name(refused.spaces, space) },
        Refusal::LimitReached { what, limit } => {
            Status::LimitReached { what: limit_kind(what), limit: limit.into() }
        }
    }
}

fn space_name(spaces: &[SpaceDefinition], id: SpaceId) -> String {
    let known = spaces.iter().find(|space| space.id == id);
    known.map_or_else(|| id.0.to_string(), |space| space.name.clone())
}

fn saturated(stamp: Stamp) -> i64 {
    i64::try_from(stamp.0).unwrap_or(i64::MAX)
}

fn limit_kind(what: Limited) -> LimitKind {
    match what {
        Limited::Followees => LimitKind::FolloweesPerUser,
        Limited::Mutes => LimitKind::MutesPerUser,
        Limited::Users => LimitKind::UsersPerPartition,
        Limited::Sessions => LimitKind::SessionsPerPartition,
        Limited::Paused => LimitKind::PausedPerPartition,
        Limited::Keys => LimitKind::KeysPerPartition,
    }
}

/// The refusal of a space that does not exist, naming those that do.
pub fn unknown_space(spaces: &[SpaceDefinition]) -> Status {
    let known = spaces.iter().map(|s| (space_id_to_wire(s.id), s.name.clone())).collect();
    Status::UnknownSpace { known }
}

/// The refusal of a graph that does not exist, naming those that do.
pub fn unknown_graph(spaces: &[SpaceDefinition]) -> Status {
    let known: BTreeMap<_, _> =
        spaces.iter().map(|s| (graph_id_to_wire(s.graph), s.graph_name.clone())).collect();
    Status::UnknownGraph { known: known.into_iter().collect() }
}

/// What a client is told to wait when the disk is full.
const DISK_FULL_DELAY_MS: u32 = 1_000;

/// What a client is told to wait when the node has no memory for its write.
const MEMORY_FULL_DELAY_MS: u32 = 1_000;

/// The status of a failed call. `wrote` says whether it was a write: one whose fate is unknown must not look as if it
/// had had no effect.
pub fn error_to_status(error: NodeError, refused: &Refused<'_>, wrote: bool) -> Status {
    let uncertain = wrote && error.may_have_applied();
    match error {
        NodeError::Refused { refusal } => refusal_to_status(refusal, refused),
        NodeError::UnknownSpace { .. } => unknown_space(refused.spaces),
        NodeError::UnknownGraph { .. } => unknown_graph(refused.spaces),
        NodeError::SpaceExists => Status::SpaceExists,
        NodeError::NameByte { .. } => Status::Malformed { field: Field::Name },
        NodeError::SpacesExhausted { limit } => {
            Status::LimitReached { what: LimitKind::Spaces, limit: limit.into() }
        }
        NodeError::OutOfRange { field, min, max, got } => {
            let got = i64::try_from(got).unwrap_or(i64::MAX);
            Status::OutOfRange { field: range_field(field), min, max, got }
        }
        NodeError::UnknownPartition { .. } => Status::Malformed { field: Field::Partition },
        NodeError::NotLeader { leader } if !uncertain => Status::NotLeader {
            hint: leader.map(|leader| LeaderHint { node: NodeId(leader.node), address: leader.address }),
        },
        NodeError::Busy { delay_ms } => {
            Status::Busy { delay_ms: u32::try_from(delay_ms).unwrap_or(u32::MAX) }
        }
        NodeError::DiskFull => Status::DiskFull { delay_ms: DISK_FULL_DELAY_MS },
        NodeError::MemoryFull => Status::MemoryFull { delay_ms: MEMORY_FULL_DELAY_MS },
        NodeError::TooLarge { limit_bytes, .. } => {
            Status::TooLarge { field: Field::Operation, limit: limit_bytes }
        }
        NodeError::Unavailable { partition, .. } => {
            Status::Unavailable { partition: partition_id_to_wire(partition) }
        }
        NodeError::Cluster(refusal) => cluster_refusal(&refusal),
        NodeError::ShuttingDown if !uncertain => Status::ShuttingDown,
        NodeError::Damaged { partition, .. } => {
            Status::DamagedPartition { partition: partition_id_to_wire(partition) }
        }
        NodeError::CatalogSilent { silent } => {
            Status::CatalogUnavailable { silent: silent.into_iter().map(NodeId).collect() }
        }
        NodeError::CatalogUnavailable { may_have_applied: false } => {
            Status::CatalogUnavailable { silent: Vec::new() }
        }
        // The answer of the catalog did not come in time.
        NodeError::CatalogUnavailable { may_have_applied: true } => Status::DeadlineExceeded,
        error => {
            tracing::warn!(%error, "a call failed in a way that has no status of its own");
            Status::Internal
        }
    }
}

fn range_field(field: RangeField) -> Field {
    match field {
        RangeField::Ids => Field::EntryIds,
        RangeField::Readers => Field::Reader,
        RangeField::DefaultTtlMs => Field::DefaultTtl,
        RangeField::FeedCap => Field::FeedCap,
        RangeField::HorizonMs => Field::Horizon,
        RangeField::PullThreshold => Field::PullThreshold,
        RangeField::PayloadBytesMax => Field::PayloadBytesMax,
        RangeField::NameBytes => Field::Name,
        _ => Field::Limit,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_catalog_that_cannot_agree_is_no_busy_server() {
        let status =
            |error| error_to_status(error, &Refused { spaces: &[], ttls_ms: &[], expiry: false }, true);
        let lost = status(NodeError::CatalogSilent { silent: vec![1, 3] });
        assert_eq!(lost, Status::CatalogUnavailable { silent: vec![NodeId(1), NodeId(3)] });
        assert!(lost.to_string().contains("cluster recover"), "{lost}");
        let electing = status(NodeError::CatalogUnavailable { may_have_applied: false });
        assert_eq!(electing, Status::CatalogUnavailable { silent: Vec::new() });
        let open = status(NodeError::CatalogUnavailable { may_have_applied: true });
        assert!(open.may_have_applied() && open.is_retryable(), "{open}");
    }
}
