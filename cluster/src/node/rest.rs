//! Owns the rest of idle groups between the nodes: what pings say of it, and who looks whether it still holds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fanfold_storage::log::GroupId;
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::host::Host;
use crate::raft::Quiet;

/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Which replicas sleep on other nodes, as those said last.
#[derive(Debug, Default)]
pub(super) struct Sleepers(Mutex<BTreeMap<u64, Said>>);

#[derive(Debug)]
struct Said {
    at: Instant,
    /// By group.
    asleep: Vec<(GroupId, u64)>,
}

impl Sleepers {
    /// Takes what a node says: its groups, by group, and the terms in which they sleep.
    pub fn note(&self, node: u64, asleep: Vec<(GroupId, u64)>) {
        self.0.lock().insert(node, Said { at: Instant::now(), asleep });
    }

    /// When a node said last that its replica of a group sleeps in a term; none if it says otherwise.
    fn sleeps(&self, node: u64, group: GroupId, term: u64) -> Option<Instant> {
        let all = self.0.lock();
        let said = all.get(&node)?;
        let at = said.asleep.binary_search_by_key(&group, |(group, _)| *group).ok()?;
        (said.asleep[at].1 == term).then_some(said.at)
    }
}

/// Tells the replicas here what the ping of a node says of their groups.
pub(super) fn pinged(host: &Host, from: u64, quiet: &[(GroupId, Quiet)]) {
    for member in host.members() {
        let group = member.id();
        let said = quiet.binary_search_by_key(&group, |(group, _)| *group).ok().map(|at| quiet[at].1);
        member.heard_quiet(from, said);
    }
}

/// Looks after all replicas here until the node stops. Whoever rests on a leader of which nothing is heard succeeds it.
pub(super) async fn run(host: Arc<Host>) {
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut campaigns = JoinSet::new();
    loop {
        tokio::select! {
            () = host.stopping.cancelled() => return,
            Some(_) = campaigns.join_next() => continue,
            _ = looks.tick() => {}
        }
        for member in host.members() {
            let group = member.id();
            let lost = member.look(&|node, term| host.sleepers.sleeps(node, group, term));
            if let Some(leader) = lost {
                tracing::debug!(group = group.0, %leader, "nothing is heard of the leader of an idle group");
                campaigns.spawn(async move { member.succeed(leader).await });
            }
        }
    }
}
