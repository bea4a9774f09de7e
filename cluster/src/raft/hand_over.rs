//! Owns the hand-over of a group's leadership to another voter, while this replica leads.
//!
//! - What is proposed or read meanwhile waits until somebody leads for certain, so that who asks is sent to the new leader once, and
//!   not to and fro between two that do not lead. Raft would refuse it, and name one that may not be elected yet.
//! - What was proposed before is applied before the leadership goes: else its outcome would be unknown to those who wait.
//! - Only a voter that has answered a moment ago is handed the leadership: from then on until the next election Raft takes no proposals
//!   here, and there is no way back.
//! - The wait ends with the hand-over, or when others must have been elected in its place. Until its term is over the group does not
//!   sleep, so that they can be.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use tokio::sync::{RwLock, RwLockReadGuard};
use tokio::time::{sleep, timeout};

use super::error::ChangeError;
use super::group::{Group, Inner};
use super::machine::Machine;
use super::types::ReplicaId;

/// How long is waited for what was proposed before. Its outcome is unknown to those who wait if it takes longer.
const APPLIED_WITHIN: Duration = Duration::from_millis(250);

/// For how many of the longest election times it is waited for, and who asks meanwhile waits.
const ELECTIONS_MAX: u64 = 2;

/// How often it is looked whether the heir has answered.
const LOOKS_PER_BEAT: u32 = 10;

/// Whether a hand-over is under way.
#[derive(Debug, Default)]
pub(super) struct HandOver {
    /// Held alone while one is.
    gate: RwLock<()>,
    /// The last term in which Raft was told to hand over; 0 before the first time.
    term: AtomicU64,
}

impl HandOver {
    /// Waits until none is under way; none begins until what is returned is dropped.
    pub async fn pass(&self) -> RwLockReadGuard<'_, ()> {
        self.gate.read().await
    }

    /// Whether the leader of a term was told to hand over. It does not lead any more then as far as Raft is concerned.
    pub fn is_of(&self, term: u64) -> bool {
        self.term.load(Ordering::Relaxed) == term
    }
}

impl<M: Machine> Group<M> {
    /// Hands the leadership to a voter, and returns when it, or anybody else but this replica, leads. On a timeout this
    /// replica may have stopped accepting proposals, until somebody else is elected.
    pub async fn transfer_leader(&self, to: ReplicaId) -> Result<(), ChangeError> {
        self.check_leads()?;
        if to == self.replica() {
            return Ok(());
        }
        if !self.members().voters.contains_key(&to) {
            return Err(ChangeError::NotMember { replica: to });
        }
        if !self.is_ready(to) {
            return Err(ChangeError::NotReady { replica: to });
        }
        self.inner.stir().await;
        self.wait_near(to).await?;
        let _alone = self.inner.hand_over.gate.write().await;
        self.check_leads()?;
        // What takes longer does not keep the leadership here: a disk that does not get on may be why it goes.
        let _ = timeout(APPLIED_WITHIN, self.inner.applied_all()).await;
        // Where those look whom this holds up.
        let mut metrics = self.inner.raft.metrics();
        let term = metrics.borrow_watched().vote.leader_id.term;
        self.inner.hand_over.term.store(term, Ordering::Relaxed);
        let trigger = self.inner.raft.trigger();
        trigger.transfer_leader(to).await.map_err(|_| ChangeError::Stopped)?;
        let myself = self.replica();
        let moved = async {
            loop {
                let leader = metrics.borrow_watched().current_leader;
                if leader.is_some_and(|leader| leader != myself) {
                    return Ok(());
                }
                metrics.changed().await.map_err(|_| ChangeError::Stopped)?;
            }
        };
        let within_ms = ELECTIONS_MAX * self.inner.settings.election_max_ms;
        let moved = timeout(Duration::from_millis(within_ms), moved).await;
        moved.unwrap_or(Err(ChangeError::Timeout { waited_ms: within_ms }))
    }

    /// Waits for a sign of life of a voter that has given none for long because its group slept.
    async fn wait_near(&self, to: ReplicaId) -> Result<(), ChangeError> {
        let beat = Duration::from_millis(self.inner.settings.heartbeat_ms);
        let near = async {
            while !self.is_near(to) {
                sleep(beat / LOOKS_PER_BEAT).await;
            }
        };
        let within = Duration::from_millis(self.inner.settings.election_min_ms / 2);
        timeout(within, near).await.map_err(|_| ChangeError::NotReady { replica: to })
    }
}

impl<M: Machine> Inner<M> {
    /// Waits until everything is applied here that was handed to Raft before.
    async fn applied_all(&self) {
        let last = self.raft.with_raft_state(|state| state.log_ids.last().map(|last| last.index)).await;
        let Ok(Some(last)) = last else { return };
        let mut applied = self.shared.watch();
        let _ = applied.wait_for(|applied| *applied >= last).await;
    }
}
