//! Owns the seam between Raft and the wire: what carries a message to a replica, and what takes one in.

use std::time::Duration;

use bytes::Bytes;
use fanfold_storage::log::GroupId;
use futures_util::future::BoxFuture;
use thiserror::Error;

use super::codec::CodecError;
use super::types::{ReplicaAddress, ReplicaId};

/// What a peer message asks for. The numbers are on the wire and never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum MessageKind {
    /// Append entries, or a heartbeat without any.
    Append = 1,
    /// Vote for the sender.
    Vote = 2,
    /// Say whether a vote would be granted.
    PreVote = 3,
    /// Install a snapshot.
    Snapshot = 4,
    /// Become the leader.
    TransferLeader = 5,
}

impl MessageKind {
    /// The kind with this number, if there is one.
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::Append, Self::Vote, Self::PreVote, Self::Snapshot, Self::TransferLeader]
            .into_iter()
            .find(|kind| *kind as u8 == number)
    }
}

/// One message to a replica.
#[derive(Debug, Clone)]
pub struct PeerRequest {
    /// The group that both belong to.
    pub group: GroupId,
    /// The replica that sends it.
    pub source: ReplicaId,
    /// The replica it is for; its node must refuse it if it does not host exactly this one.
    pub target: ReplicaId,
    /// Where the target's node listens.
    pub address: ReplicaAddress,
    /// What it asks for.
    pub kind: MessageKind,
    /// Whether it must not overtake what was sent to the replica before.
    pub is_ordered: bool,
    /// The message; opaque to the transport.
    pub body: Bytes,
}

/// Carries messages to the replicas of all groups. A future that is dropped gives the message up.
pub trait PeerTransport: Send + Sync + 'static {
    /// Sends a message and returns the target's answer. The caller sets the deadline.
    fn send(&self, request: PeerRequest) -> BoxFuture<'static, Result<Bytes, TransportError>>;

    /// Whether what a node answered to what was sent so long ago still says that it is there. It does not once all
    /// connections with it have ended since, as they do with its process.
    fn counts(&self, _address: &ReplicaAddress, _ago: Duration) -> bool {
        true
    }
}

/// Takes in the messages for one replica.
pub trait PeerEndpoint: Send + Sync + 'static {
    /// Handles a message and returns the answer.
    fn handle(&self, kind: MessageKind, body: Bytes) -> BoxFuture<'_, Result<Bytes, EndpointError>>;
}

/// Why a message got no answer.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TransportError {
    /// The node cannot be reached, or does not host the replica.
    #[error("replica {target} at {address} cannot be reached")]
    Unreachable {
        /// The replica.
        target: ReplicaId,
        /// Where it was looked for.
        address: ReplicaAddress,
    },
    /// The connection broke after the message was sent.
    #[error("the connection to replica {target} at {address} broke")]
    Broken {
        /// The replica.
        target: ReplicaId,
        /// Where it is.
        address: ReplicaAddress,
    },
    /// The replica took the message and could not answer it.
    #[error("the replica could not answer: {0}")]
    Endpoint(#[from] EndpointError),
}

/// Why a replica did not answer a message.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// The message is malformed.
    #[error("malformed message: {0}")]
    Message(#[from] CodecError),
    /// The replica has stopped.
    #[error("the replica has stopped")]
    Stopped,
    /// The replica's log takes no entries until its disk has room.
    #[error("the replica's disk is full")]
    DiskFull,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_keep_their_numbers() {
        for number in 0..=u8::MAX {
            let kind = MessageKind::from_number(number);
            assert_eq!(kind.map(|kind| kind as u8), (1..=5).contains(&number).then_some(number));
        }
    }
}
