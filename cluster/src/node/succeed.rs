//! Owns what this node does when the process of another ends, or is back: its replicas succeed those that led there (C8), and those
//! that lead send what was missed. Clients are not sent to it meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::task::JoinSet;

use super::host::Host;
use crate::peer::PeerNetwork;

/// Lets the replicas here campaign for the groups that a node led whose process has ended, and replicate to nodes that can be reached
/// again, until the node stops.
pub(super) async fn run(host: Arc<Host>, peers: PeerNetwork) {
    let mut watched = peers.watch_gone();
    let (mut known, mut under_way) = (Arc::<BTreeSet<u64>>::default(), JoinSet::new());
    let (mut reached, mut known_reached) = (peers.watch_reached(), Arc::<BTreeMap<u64, u64>>::default());
    let (mut alive, mut heard) = (peers.watch_alive(), BTreeSet::new());
    loop {
        let gone = watched.borrow_and_update().clone();
        let now_alive = alive.borrow_and_update().clone();
        heard.extend(now_alive.iter().copied());
        host.whereabouts.note_away(heard.difference(&now_alive).chain(gone.iter()).copied().collect());
        for node in gone.difference(&known) {
            for member in host.members() {
                if let Some(leader) = member.leader().filter(|leader| leader.1 == *node) {
                    tracing::debug!(group = member.id().0, node, "the leader's process has ended");
                    under_way.spawn(async move { member.succeed(leader.0).await });
                }
            }
        }
        known = gone;
        let now_reached = reached.borrow_and_update().clone();
        for (node, _) in now_reached.iter().filter(|(node, times)| known_reached.get(node) != Some(times)) {
            for member in host.members().into_iter().filter(|member| member.is_leader()) {
                let node = *node;
                under_way.spawn(async move { member.reached(node).await });
            }
        }
        known_reached = now_reached;
        tokio::select! {
            () = host.stopping.cancelled() => return,
            changed = watched.changed() => if changed.is_err() { return },
            changed = reached.changed() => if changed.is_err() { return },
            changed = alive.changed() => if changed.is_err() { return },
            Some(_) = under_way.join_next() => {}
        }
    }
}
