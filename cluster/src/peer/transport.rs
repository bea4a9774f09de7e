//! Owns the passage of Raft's messages to the nodes of the replicas they are for.
//!
//! - Several append messages are under way to each replica; they are delivered in their order, and their answers may come in
//!   any. Heartbeats run beside them and may overtake them.
//! - A message that is repeated, reordered or stale is Raft's to recognise: it names its term and what precedes it.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::error::PeerError;
use super::frame::{FrameKind, take};
use super::hello::Purpose;
use super::network::{Outgoing, PeerNetwork};
use super::refusal::PeerRefusal;
use super::wire::Body;
use crate::map::node_of;
use crate::raft::{
    EndpointError, MessageKind, PeerRequest, PeerTransport, ReplicaAddress, ReplicaId, TransportError,
    is_heartbeat,
};

/// Carries the messages of Raft over the network.
#[derive(Clone)]
struct RaftOverPeers(PeerNetwork);

impl PeerNetwork {
    /// What carries the messages of this node's replicas to others.
    pub fn raft_transport(&self) -> std::sync::Arc<dyn PeerTransport> {
        std::sync::Arc::new(RaftOverPeers(self.clone()))
    }
}

impl PeerTransport for RaftOverPeers {
    fn send(&self, request: PeerRequest) -> BoxFuture<'static, Result<Bytes, TransportError>> {
        let shared = self.0.shared.clone();
        Box::pin(async move {
            let PeerRequest { group, source, target, address, kind, is_ordered, body } = request;
            let purpose = if kind == MessageKind::Snapshot { Purpose::Snapshot } else { Purpose::Data };
            let is_urgent = match kind {
                MessageKind::Append => !is_ordered && is_heartbeat(&body),
                MessageKind::Snapshot => false,
                _ => true,
            };
            let body = Body::with_prefix(Some(replicas(source, target)), body);
            let outgoing =
                Outgoing { kind: FrameKind::Raft, code: kind as u8, group: group.0, is_urgent, body };
            let answer = shared.request(node_of(&address), purpose, outgoing).await;
            answer.map_err(|error| match error {
                PeerError::Broken { .. } | PeerError::Answer(_) => TransportError::Broken { target, address },
                PeerError::Refused(PeerRefusal::Stopping) => EndpointError::Stopped.into(),
                error => {
                    tracing::trace!(group = group.0, %target, %error, "a replica cannot be reached");
                    TransportError::Unreachable { target, address }
                }
            })
        })
    }

    fn counts(&self, address: &ReplicaAddress, ago: Duration) -> bool {
        self.0.shared.gone.counts(node_of(address), ago)
    }
}

/// What stands before Raft's bytes in a message.
fn replicas(source: ReplicaId, target: ReplicaId) -> [u8; 16] {
    let mut prefix = [0; 16];
    prefix[..8].copy_from_slice(&source.0.to_le_bytes());
    prefix[8..].copy_from_slice(&target.0.to_le_bytes());
    prefix
}

/// The sending and the receiving replica of a message, and Raft's bytes.
pub(super) fn take_replicas(mut body: Bytes) -> Option<(ReplicaId, ReplicaId, Bytes)> {
    if body.len() < 16 {
        return None;
    }
    let prefix = body.split_to(16);
    let id = |at| ReplicaId(u64::from_le_bytes(take(&prefix, at)));
    Some((id(0), id(8), body))
}
