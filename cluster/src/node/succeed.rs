//! Owns what this node does when the process of another ends: its replicas succeed those that led there (C8).

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::task::JoinSet;

use super::host::Host;
use crate::peer::PeerNetwork;

/// Lets the replicas here campaign for the groups that a node led whose process has ended, until the node stops.
pub(super) async fn run(host: Arc<Host>, peers: PeerNetwork) {
    let mut watched = peers.watch_gone();
    let (mut known, mut campaigns) = (Arc::<BTreeSet<u64>>::default(), JoinSet::new());
    loop {
        let gone = watched.borrow_and_update().clone();
        for node in gone.difference(&known) {
            for member in host.members() {
                if let Some(leader) = member.leader().filter(|leader| leader.1 == *node) {
                    tracing::debug!(group = member.id().0, node, "the leader's process has ended");
                    campaigns.spawn(async move { member.succeed(leader.0).await });
                }
            }
        }
        known = gone;
        tokio::select! {
            () = host.stopping.cancelled() => return,
            changed = watched.changed() => if changed.is_err() { return },
            Some(_) = campaigns.join_next() => {}
        }
    }
}
