//! Owns the giving away of leaderships that a node should not have: who takes over, and the attempt.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;

use super::host::Host;
use super::member::{Member, Step};
use crate::catalog::ReplicaRecord;
use crate::map::node_of;
use crate::raft::ReplicaId;

/// How long one attempt may take. What becomes of it a stalled replica may hear late.
pub(super) const HAND_OVER_WITHIN: Duration = Duration::from_secs(1);

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

/// Who can lead in the place of the replica here, which does: it is ready, its node is fit to, and says nothing of damage.
pub(super) fn heir(host: &Host, member: &dyn Member) -> Option<ReplicaId> {
    let voters = member.members().voters;
    let mut others = voters.iter().filter(|(voter, _)| **voter != member.replica());
    let may_lead = |(voter, address): &(&ReplicaId, &_)| {
        let node = node_of(address);
        let record = ReplicaRecord { replica: voter.0, node };
        let is_closed = host.survey.is_closed(member.id(), &record);
        member.is_ready(**voter) && host.whereabouts.is_fit(node) && !is_closed
    };
    others.find(may_lead).map(|(voter, _)| *voter)
}
