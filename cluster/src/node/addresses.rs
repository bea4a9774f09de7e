//! Owns how the others learn where this node listens.
//!
//! - The catalog has every address once. A node that has one of another node waits until that one has left it, and gives up its own
//!   old one meanwhile, so that two can swap.
//! - A node has left an address if it says so itself, or if another one answers where it listens for nodes. One that does not answer
//!   has left nothing: an address may be mistyped, and whoever has that keeps what the catalog has of it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use fanfold_storage::codec::{Encoded, Malformed, Reader};
use futures_util::future::join_all;
use tokio::time::sleep;

use super::host::Host;
use super::survey::{Control, body};
use crate::catalog::{CatalogState, MOVED, NodeFacts, NodeRecord, NodeState};
use crate::change::ClusterRefusal;
use crate::error::NodeError;
use crate::peer::{DialError, HelloRefusal, PeerAnswer, PeerCall, PeerError, PeerNetwork, PeerRefusal};

/// How long after a failure something is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// How often it is looked whether an address is free that another node has.
const TAKEN_EVERY: Duration = Duration::from_secs(2);

/// How often it is looked who has to be told yet.
const TELL_EVERY: Duration = Duration::from_millis(500);

/// How long another node may take to answer.
const ANSWER_WAIT: Duration = Duration::from_secs(2);

/// Where a node says itself that it listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ListensAt {
    /// For clients.
    pub address: String,
    /// For other nodes; empty if it does not.
    pub peer_address: String,
}

impl ListensAt {
    /// Whether both have an address in common.
    fn meets(&self, address: &str, peer_address: &str) -> bool {
        let is_same = |own: &str, other: &str| !own.is_empty() && own == other;
        is_same(&self.address, address) || is_same(&self.peer_address, peer_address)
    }

    /// Reads what a node says. What a newer program says stands behind what this one knows, and is passed over.
    fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        Self::decode(&mut Reader::new(bytes))
    }
}

impl Encoded for ListensAt {
    fn encode(&self, out: &mut Vec<u8>) {
        self.address.encode(out);
        self.peer_address.encode(out);
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self { address: from.string()?, peer_address: from.string()? })
    }
}

/// Says what this node says of itself until the catalog has it.
pub(super) async fn announce(host: Arc<Host>, peers: PeerNetwork, facts: NodeFacts) {
    let own = ListensAt { address: facts.address.clone(), peer_address: facts.peer_address.clone() };
    let mut is_told = false;
    loop {
        let said = tokio::select! {
            () = host.stopping.cancelled() => return,
            said = host.catalog.update_node(host.node, &facts) => said,
        };
        let wait = match said {
            Ok(()) => return,
            Err(error) if error.is_retryable() => {
                tracing::debug!(%error, "where this node listens is not known yet");
                RETRY_AFTER
            }
            // That one may have moved, and not have said so yet.
            Err(error @ NodeError::Cluster(ClusterRefusal::AddressTaken { .. })) => {
                if !std::mem::replace(&mut is_told, true) {
                    tracing::error!(
                        %error,
                        "another node has an address of this one, and the others go by what they knew of this one until that has \
                         left it: correct the address, or let that one move too"
                    );
                }
                let left = tokio::select! {
                    () = host.stopping.cancelled() => return,
                    left = are_left(&host, &peers, &own) => left,
                };
                if left {
                    vacate(&host, &facts).await;
                }
                TAKEN_EVERY
            }
            Err(error) => {
                tracing::error!(%error, "the cluster refuses what this node says of itself");
                return;
            }
        };
        tokio::select! {
            () = host.stopping.cancelled() => return,
            () = sleep(wait) => {}
        }
    }
}

/// Tells the others where this node listens for them, once, and until the catalog says so: of nodes that moved, a majority may be needed for
/// that, and the leader may not reach it.
pub(super) async fn tell(host: Arc<Host>, peers: PeerNetwork, facts: NodeFacts) {
    let is_known = |state: &CatalogState| {
        state.nodes.get(&host.node).is_none_or(|record| record.peer_address == facts.peer_address)
    };
    let question = body(&Control::ListensAt { peer_address: facts.peer_address.clone() });
    let own = ListensAt { address: String::new(), peer_address: facts.peer_address.clone() };
    // Each is told once after every start, though the catalog knows: it may have been told something else before.
    let mut have_heard = BTreeSet::new();
    loop {
        let state = host.whereabouts.view.current();
        let mut others = others(&host, &state).map(|(node, _)| node);
        if is_known(&state) && others.all(|node| have_heard.contains(&node)) {
            return;
        }
        let told = async {
            if !are_left(&host, &peers, &own).await {
                return Vec::new();
            }
            let alive = peers.watch_alive().borrow().clone();
            let missed = alive.iter().filter(|node| !is_known(&state) || !have_heard.contains(*node));
            let told = missed.map(|node| {
                let call = PeerCall::Control(question.clone());
                let answer = peers.call(*node, call, ANSWER_WAIT);
                // One that does not know the question is of an older version.
                async move {
                    let answer = answer.await;
                    let is_heard = matches!(answer, Ok(_) | Err(PeerError::Refused(PeerRefusal::Malformed)));
                    is_heard.then_some(*node)
                }
            });
            join_all(told).await
        };
        tokio::select! {
            () = host.stopping.cancelled() => return,
            told = told => have_heard.extend(told.into_iter().flatten()),
        }
        tokio::select! {
            () = host.stopping.cancelled() => return,
            () = sleep(TELL_EVERY) => {}
        }
    }
}

/// The other nodes of the cluster.
fn others<'a>(host: &Host, state: &'a CatalogState) -> impl Iterator<Item = (u64, &'a NodeRecord)> {
    let own = host.node;
    let others = state.nodes.iter().map(|(node, record)| (*node, record));
    others.filter(move |(node, record)| *node != own && record.state != NodeState::Removed)
}

/// Whether all other nodes that the catalog has at one of these addresses of this node have left it.
async fn are_left(host: &Host, peers: &PeerNetwork, own: &ListensAt) -> bool {
    let state = host.whereabouts.view.current();
    let holders = others(host, &state).filter(|(_, record)| own.meets(&record.address, &record.peer_address));
    join_all(holders.map(|(node, _)| has_left(peers, node, own))).await.into_iter().all(|has_left| has_left)
}

/// Whether nobody can reach a node where the catalog says that it listens: it gave that up, and another one has where it listens now.
pub(super) fn has_moved(state: &CatalogState, node: u64) -> bool {
    let is_moved =
        |record: &NodeRecord| record.address.starts_with(MOVED) || record.peer_address.starts_with(MOVED);
    state.nodes.get(&node).is_some_and(is_moved)
}

/// Whether a node has left these addresses of this one.
async fn has_left(peers: &PeerNetwork, node: u64, own: &ListensAt) -> bool {
    match peers.call(node, PeerCall::Control(body(&Control::Addresses)), ANSWER_WAIT).await {
        Ok(PeerAnswer::Control(bytes)) => {
            let said = ListensAt::from_bytes(&bytes);
            said.is_ok_and(|said| !own.meets(&said.address, &said.peer_address))
        }
        Err(PeerError::Unreachable { reason, .. }) => {
            matches!(reason, DialError::OtherNode { .. } | DialError::Refused(HelloRefusal::WrongNode))
        }
        _ => false,
    }
}

/// Gives up the addresses that the catalog has of this node and where it does not listen any more: another one may wait for them,
/// as of two that swap theirs each does.
async fn vacate(host: &Host, facts: &NodeFacts) {
    let state = host.whereabouts.view.current();
    let Some(record) = state.nodes.get(&host.node) else { return };
    let nowhere = |known: &str, now: &str| {
        if known == now || known.is_empty() { known.to_owned() } else { format!("{MOVED}node-{}", host.node) }
    };
    let vacant = NodeFacts {
        address: nowhere(&record.address, &facts.address),
        peer_address: nowhere(&record.peer_address, &facts.peer_address),
        ..facts.clone()
    };
    if vacant.agree(record) {
        return;
    }
    if let Err(error) = host.catalog.update_node(host.node, &vacant).await {
        tracing::debug!(%error, "where this node does not listen any more is not known yet");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_return_from_their_encoding_and_more_may_stand_behind() {
        let said = ListensAt { address: "h:1".to_owned(), peer_address: "h:2".to_owned() };
        let bytes = body(&said);
        assert_eq!(ListensAt::from_bytes(&bytes).unwrap(), said);
        let newer = [&bytes[..], b"what this program does not know"].concat();
        assert_eq!(ListensAt::from_bytes(&newer).unwrap(), said);
        for cut in 0..bytes.len() {
            assert!(ListensAt::from_bytes(&bytes[..cut]).is_err(), "cut at {cut}: nothing is guessed");
        }
    }
}
