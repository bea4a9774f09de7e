//! Owns what a replica does when its leader's process is known to have ended: it does not wait until time tells.
//!
//! - It takes back the lease that it had given to that leader, for as long as the leader's term lasts, and no more: its log,
//!   its vote and its term stay. So it answers others that ask for a pre-vote as it would after the time of an election.
//! - It campaigns by a pre-vote, which only those grant who have taken their lease back too, or have not heard the leader
//!   for long. One that is wrong about the leader, alone, changes nothing.
//! - Reads ask a quorum and not a lease, so nothing is read that a new leader has changed.
//! - The voters take turns, by their place after the group's number, so that they seldom split the votes, and the groups of
//!   one leader go to all that are left.

use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::raft::TransferLeaderRequest;

use super::group::Group;
use super::machine::Machine;
use super::types::{ReplicaId, Vote};

/// What the next in turn waits for the one before: two fsyncs and three messages.
const TURN: Duration = Duration::from_millis(60);

/// How often a replica campaigns before it leaves the rest to the time of an election.
const CAMPAIGNS_MAX: u32 = 4;

impl<M: Machine> Group<M> {
    /// Takes it that the process of a leader has ended, and campaigns until somebody else leads. Returns when somebody does,
    /// or this replica has tried often enough.
    pub async fn succeed(&self, leader: ReplicaId) {
        self.stop_for_succession();
        self.campaign(leader).await;
        self.wakes();
    }

    async fn campaign(&self, leader: ReplicaId) {
        let vote = self.vote();
        if !is_led_by(&vote, leader) {
            return;
        }
        // An order to somebody else to lead does nothing here but end the lease of the leader that gives it.
        let order = TransferLeaderRequest::new(vote, leader, None);
        if self.inner.raft.handle_transfer_leader(order).await.is_err() {
            return;
        }
        let Some(turns) = self.turns_before(leader) else { return };
        if !self.inner.log.accepts_appends() {
            return;
        }
        tokio::time::sleep(TURN * turns).await;
        for campaign in 0..CAMPAIGNS_MAX {
            let now = self.vote();
            if now.is_committed() && !is_led_by(&now, leader) {
                return;
            }
            // Who has this replica's vote gets as long as the next in turn would give it.
            let is_promised = !now.is_committed() && now.leader_id.node_id != self.replica();
            if !is_promised && self.inner.raft.trigger().elect(true).await.is_err() {
                return;
            }
            let wait = TURN * 2u32.pow(campaign + 1);
            tokio::time::sleep(wait.mul_f64(rand::random_range(1.0..2.0))).await;
        }
    }

    fn vote(&self) -> Vote {
        self.inner.raft.metrics().borrow_watched().vote
    }

    /// How many other voters campaign before this one; none if it does not vote.
    fn turns_before(&self, leader: ReplicaId) -> Option<u32> {
        let voters: Vec<_> = self.members().voters.into_keys().filter(|voter| *voter != leader).collect();
        let own = voters.iter().position(|voter| *voter == self.replica())?;
        let first = self.id().0 as usize % voters.len();
        Some(((own + voters.len() - first) % voters.len()) as u32)
    }
}

fn is_led_by(vote: &Vote, leader: ReplicaId) -> bool {
    vote.is_committed() && vote.leader_id.node_id == leader
}
