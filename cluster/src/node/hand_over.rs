//! Owns the giving away of leaderships that a node should not have: who takes over, and the attempt.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep, timeout};

use super::host::Host;
use super::member::{Member, Step};
use crate::catalog::ReplicaRecord;
use crate::map::node_of;
use crate::raft::ReplicaId;

/// How long one attempt may take. What becomes of it a stalled replica may hear late.
pub(super) const HAND_OVER_WITHIN: Duration = Duration::from_secs(1);

/// How long a clean stop waits for others to take the leadership.
const LEAVE_WITHIN: Duration = Duration::from_secs(3);

/// How long it waits for the others to be able to go on.
const OTHERS_WITHIN: Duration = Duration::from_secs(1);

/// How often it looks meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Hands what this node leads to those that can lead it. A group that nobody else can lead stays.
pub(super) async fn hand_over(host: &Host) {
    let members = host.members();
    let handed = members.iter().filter(|member| member.is_leader()).map(async |member| {
        let Some(to) = heir(host, &**member) else { return };
        let handed = timeout(HAND_OVER_WITHIN, member.step(Step::Transfer(to))).await;
        if let Ok(Err(error)) = handed {
            tracing::debug!(group = member.id().0, %error, "the leadership was not handed over");
        }
    });
    join_all(handed).await;
}

/// Hands over what this node leads and takes nothing back, because it is about to stop. What nobody else can lead stays.
///
/// The others are waited for that cannot go on yet, since they have just come back themselves.
pub(super) async fn leave(host: &Host) {
    host.is_leaving.store(true, Ordering::Relaxed);
    let begun = Instant::now();
    let held = || {
        let members = host.members().into_iter();
        members.filter(|member| member.is_leader() && heir(host, &**member).is_some()).collect::<Vec<_>>()
    };
    loop {
        let now = held();
        if begun.elapsed() >= OTHERS_WITHIN || now.iter().all(|member| member.can_go()) {
            hand_over(host).await;
        }
        if held().is_empty() {
            return;
        }
        if begun.elapsed() >= LEAVE_WITHIN {
            tracing::warn!("not everything that this node leads was taken over before it stops");
            return;
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Who can lead in the place of the replica here, which does: it is ready, its node is fit to, and says nothing of damage. What one
/// node leads is spread over the others. Nobody can while too few voters have room for the entry with which a leader begins.
pub(super) fn heir(host: &Host, member: &dyn Member) -> Option<ReplicaId> {
    let voters = member.members().voters;
    if !host.whereabouts.has_room(&voters) {
        return None;
    }
    let others = voters.iter().filter(|(voter, _)| **voter != member.replica());
    let may_lead = |(voter, address): &(&ReplicaId, &_)| {
        let node = node_of(address);
        let record = ReplicaRecord { replica: voter.0, node };
        let is_closed = host.survey.is_closed(member.id(), &record);
        member.is_ready(**voter) && host.whereabouts.is_fit(node) && !is_closed
    };
    let mut heirs: Vec<_> = others.filter(may_lead).map(|(voter, _)| *voter).collect();
    // Of one that has answered lately nobody knows whether it is still there; better any that has answered just now.
    if heirs.iter().any(|heir| member.is_near(*heir)) {
        heirs.retain(|heir| member.is_near(*heir));
    }
    heirs.get(member.id().0 as usize % heirs.len().max(1)).copied()
}
