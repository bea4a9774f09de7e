//! Owns the seam between the network and the node: what takes in the requests of other nodes.

use bytes::Bytes;
use fanfold_storage::log::GroupId;
use futures_util::future::BoxFuture;

use super::call::{PeerAnswer, PeerCall};
use super::error::Cut;
use super::hello::HelloRefusal;
use super::ping::Ping;
use super::refusal::PeerRefusal;
use crate::raft::{MessageKind, ReplicaId};

/// Takes in what other nodes send.
///
/// A future is dropped when its connection ends: what must be finished all the same goes to a task of its own.
pub trait PeerHandler: Send + Sync + 'static {
    /// Whether a node of this cluster is served. Asked when it connects and with each of its pings.
    fn admit(&self, from: u64) -> Result<(), HelloRefusal>;

    /// Handles a message for a replica of a group.
    ///
    /// The messages of one connection are handed over in the order in which they came, up to the first time that the
    /// returned future waits; then they go on side by side.
    fn raft(
        &self,
        from: u64,
        group: GroupId,
        target: ReplicaId,
        kind: MessageKind,
        body: Bytes,
    ) -> BoxFuture<'_, Result<Bytes, PeerRefusal>>;

    /// Handles a call; messages of streams are handed over in order, as those of Raft are; `from` is 0 for a node that has not joined, which can only join.
    fn call(&self, from: u64, call: PeerCall) -> BoxFuture<'_, Result<PeerAnswer, PeerRefusal>>;

    /// What is said of this node.
    fn ping(&self) -> Ping;

    /// The same as an answer: what this node leads is in its own pings.
    fn pong(&self) -> Ping {
        Ping { led: Vec::new(), quiet: Vec::new(), ..self.ping() }
    }

    /// Takes note of what another node says of itself.
    fn heard(&self, from: u64, ping: &Ping);

    /// Takes note of a ping that is no answer.
    fn pinged(&self, from: u64, ping: &Ping) {
        self.heard(from, ping);
    }

    /// A connection that was served ended; `from` is 0 if nobody was admitted on it.
    fn ended(&self, from: u64, cut: Cut) {
        tracing::debug!(from, %cut, "a connection of a node ended");
    }
}
