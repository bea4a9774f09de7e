//! Owns what a node answers instead of what it was asked for.
//!
//! Format: `PEER.md`, "Answers".

use bytes::Bytes;
use fanfold_storage::codec::{Encoded, Malformed, Reader};
use fanfold_storage::encoded_enum;
use fanfold_storage::ids::PartitionId;
use thiserror::Error;

use crate::error::NodeError;
use crate::map::Whereabouts;

/// Why a node did not do what another one asked. The tags are on the wire and never reused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PeerRefusal {
    /// The request is malformed, or of a kind that this version does not know.
    #[error("the request is malformed or not known there")]
    Malformed,
    /// The replica, partition or catalog is not there.
    #[error("it is not hosted there")]
    NotHosted,
    /// It is there, and another node leads it.
    #[error("that node does not lead it")]
    NotLeader {
        /// The node believed to lead.
        leader: Option<u64>,
    },
    /// It cannot serve now.
    #[error("it cannot serve now")]
    Unavailable {
        /// Whether what was asked for may happen, or have happened, all the same.
        may_have_applied: bool,
    },
    /// Too much is waiting there. Nothing was done.
    #[error("busy; try again in {delay_ms} ms")]
    Busy {
        /// When to try again.
        delay_ms: u64,
    },
    /// It is damaged on that node.
    #[error("it is damaged there and refuses service")]
    Damaged,
    /// A stream message names a space that is not known there yet.
    #[error("a space is not known there yet")]
    UnknownSpace,
    /// The node stops.
    #[error("that node stops")]
    Stopping,
    /// The disk there has no room. Nothing was done.
    #[error("the disk there has no room")]
    DiskFull,
    /// What was waited for did not come in time.
    #[error("what was waited for did not come in time")]
    TimedOut,
    /// It is refused for a reason that the asking module encoded.
    #[error("refused")]
    Other {
        /// The reason.
        reason: Bytes,
    },
}

encoded_enum!(PeerRefusal, "refusal" {
    1 => Malformed,
    2 => NotHosted,
    3 => NotLeader { leader },
    4 => Unavailable { may_have_applied },
    5 => Busy { delay_ms },
    6 => Damaged,
    7 => UnknownSpace,
    8 => Stopping,
    9 => DiskFull,
    10 => TimedOut,
    11 => Other { reason },
});

impl PeerRefusal {
    /// What it means for whoever asked a partition.
    pub(crate) fn to_node_error(&self, partition: PartitionId, whereabouts: &Whereabouts) -> NodeError {
        match self {
            Self::NotLeader { leader } => {
                NodeError::NotLeader { leader: leader.and_then(|node| whereabouts.at(node)) }
            }
            Self::NotHosted => NodeError::NotLeader { leader: None },
            Self::Busy { delay_ms } => NodeError::Busy { delay_ms: *delay_ms },
            Self::DiskFull => NodeError::DiskFull,
            Self::Damaged => NodeError::Damaged { partition, damage: None },
            _ => NodeError::Unavailable { partition, may_have_applied: self.may_have_applied() },
        }
    }

    pub(super) fn to_bytes(&self) -> Bytes {
        let mut out = Vec::new();
        self.encode(&mut out);
        out.into()
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut from = Reader::new(bytes);
        let refusal = Self::decode(&mut from)?;
        from.end()?;
        Ok(refusal)
    }

    /// Whether what was asked for may happen, or have happened, all the same.
    pub fn may_have_applied(&self) -> bool {
        matches!(self, Self::Unavailable { may_have_applied: true } | Self::TimedOut)
    }
}

impl From<&NodeError> for PeerRefusal {
    fn from(error: &NodeError) -> Self {
        match error {
            NodeError::NotLeader { leader } => {
                Self::NotLeader { leader: leader.as_ref().map(|leader| leader.node) }
            }
            NodeError::UnknownPartition { .. } => Self::NotHosted,
            NodeError::Busy { delay_ms } => Self::Busy { delay_ms: *delay_ms },
            NodeError::DiskFull => Self::DiskFull,
            NodeError::Damaged { .. } => Self::Damaged,
            NodeError::ShuttingDown => Self::Stopping,
            error => Self::Unavailable { may_have_applied: error.may_have_applied() },
        }
    }
}
