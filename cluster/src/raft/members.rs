//! Owns the members of a group: who they are, how far each is, and the changes that a leader makes.
//!
//! - One change at a time. It goes on when its caller gives up, because a change that is half done needs its second half.
//! - A change of the voters is refused if the new ones would have no majority that is alive and has caught up: there is
//!   no way back from it.
//! - The leader may be among those that leave; then it leads until the change is committed, and steps down.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::{ChangeMembers, Instant, RaftMetrics};
use tokio::time::timeout;

use super::alone::{Changing, settle};
use super::error::ChangeError;
use super::group::{Group, Inner, leader_hint};
use super::machine::Machine;
use super::types::{ReplicaAddress, ReplicaId, Types};

/// A replica has caught up if so many Raft entries, or fewer, are missing.
pub const CAUGHT_UP_ENTRIES: u64 = 256;

/// Who has answered within so many beats is there.
const NEAR_BEATS: u64 = 3;

/// The members of a group as one replica knows them, committed or not.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GroupMembers {
    /// Who votes; in the middle of a change, before it or after it.
    pub voters: BTreeMap<ReplicaId, ReplicaAddress>,
    /// Who is only sent the log.
    pub learners: BTreeMap<ReplicaId, ReplicaAddress>,
    /// Whether the voters are being changed: [`Group::change_voters`] finishes that, whoever began it.
    pub is_joint: bool,
}

impl<M: Machine> Group<M> {
    /// The members of the group, as far as this replica knows; none if it has heard of none.
    pub fn members(&self) -> GroupMembers {
        let metrics = self.inner.raft.metrics().borrow_watched().clone();
        let membership = &metrics.membership_config;
        let voters: BTreeSet<ReplicaId> = membership.voter_ids().collect();
        let all = membership.nodes().map(|(replica, address)| (*replica, address.clone()));
        let (voting, learning) = all.partition(|(replica, _)| voters.contains(replica));
        let is_joint = membership.get_joint_config().len() > 1;
        GroupMembers { voters: voting, learners: learning, is_joint }
    }

    /// On the leader: the last index that each member is known to hold; none for a member that has not answered yet.
    /// None if this replica does not lead.
    pub fn replication(&self) -> Option<BTreeMap<ReplicaId, Option<u64>>> {
        let metrics = self.inner.raft.metrics().borrow_watched().clone();
        let progress = metrics.replication?.into_iter();
        Some(progress.map(|(replica, held)| (replica, held.map(|log_id| log_id.index))).collect())
    }

    /// Adds a replica that is sent the log and does not vote. Returns when that is committed, however far the replica
    /// is. A member stays what it is.
    pub async fn add_learner(&self, replica: ReplicaId, address: ReplicaAddress) -> Result<(), ChangeError> {
        self.check_leads()?;
        if self.members().contains(replica) {
            return Ok(());
        }
        self.change_members(ChangeMembers::AddNodes(BTreeMap::from([(replica, address)])), true).await
    }

    /// Makes exactly these the voters; each must be a member. Returns when that is committed and no other voter counts.
    /// Voters that are not named leave the group; learners that are not named stay learners.
    pub async fn change_voters(&self, voters: BTreeSet<ReplicaId>) -> Result<(), ChangeError> {
        if voters.is_empty() {
            return Err(ChangeError::LastVoter);
        }
        self.check_leads()?;
        let members = self.members();
        if let Some(replica) = voters.iter().find(|replica| !members.contains(**replica)) {
            return Err(ChangeError::NotMember { replica: *replica });
        }
        if !members.is_joint && members.voters.keys().eq(&voters) {
            return Ok(());
        }
        let (ready, needed) = (self.ready_of(&voters, self.silence()), voters.len() / 2 + 1);
        if ready < needed {
            return Err(ChangeError::WouldLoseQuorum { ready: ready as u64, needed: needed as u64 });
        }
        self.change_members(ChangeMembers::ReplaceAllVoters(voters), false).await
    }

    /// Removes a learner; one that is no member is no error.
    pub async fn remove_learner(&self, replica: ReplicaId) -> Result<(), ChangeError> {
        self.check_leads()?;
        let members = self.members();
        if members.voters.contains_key(&replica) {
            let is_last = members.voters.len() == 1;
            return Err(if is_last { ChangeError::LastVoter } else { ChangeError::Votes { replica } });
        }
        if !members.learners.contains_key(&replica) {
            return Ok(());
        }
        self.change_members(ChangeMembers::RemoveNodes(BTreeSet::from([replica])), true).await
    }

    /// Whether a member is alive and has caught up, as far as this leader knows; false if it does not lead.
    pub fn is_ready(&self, replica: ReplicaId) -> bool {
        self.ready_of(&BTreeSet::from([replica]), self.silence()) == 1
    }

    /// On the leader: whether the other voters have a majority that has answered a moment ago and caught up, so that they go on
    /// at once when this replica goes.
    pub fn can_go(&self) -> bool {
        let mut others: BTreeSet<_> = self.members().voters.into_keys().collect();
        let needed = others.len() / 2 + 1;
        others.remove(&self.replica());
        self.ready_of(&others, self.nearness()) >= needed
    }

    /// On the leader: whether a member has answered a moment ago and caught up.
    pub fn is_near(&self, replica: ReplicaId) -> bool {
        self.ready_of(&BTreeSet::from([replica]), self.nearness()) == 1
    }

    /// A member on another node can be reached again: what it lacks is sent at once.
    pub async fn reached(&self, is_there: impl Fn(&ReplicaAddress) -> bool) {
        let GroupMembers { voters, learners, .. } = self.members();
        let there = voters.into_iter().chain(learners).filter(|(_, address)| is_there(address));
        let there: Vec<_> = there.map(|(replica, _)| replica).collect();
        if self.is_leader() && !there.is_empty() {
            // Raft has stopped if this fails.
            let _ = self.inner.raft.trigger().reset_backoff(there).await;
        }
    }

    pub(super) fn check_leads(&self) -> Result<(), ChangeError> {
        let leads = self.inner.raft.as_leader();
        leads.map(drop).map_err(|forward| ChangeError::NotLeader { hint: leader_hint(forward) })
    }

    /// Who has not answered for so long is not alive.
    fn silence(&self) -> Duration {
        Duration::from_millis(2 * self.inner.settings.election_max_ms)
    }

    /// Who has answered within this time is there.
    fn nearness(&self) -> Duration {
        Duration::from_millis(NEAR_BEATS * self.inner.settings.heartbeat_ms)
    }

    /// How many of these replicas have answered within a time and caught up, as far as this leader knows.
    fn ready_of(&self, replicas: &BTreeSet<ReplicaId>, silence_max: Duration) -> usize {
        let metrics = self.inner.raft.metrics().borrow_watched().clone();
        let is_ready = |replica: &&ReplicaId| {
            if **replica == self.replica() {
                metrics.state.is_leader()
            } else if self.inner.sleep.leads_asleep() {
                let mut members = metrics.membership_config.nodes();
                members.any(|(member, address)| {
                    member == *replica && self.inner.transport.counts(address, Duration::ZERO)
                })
            } else {
                let counts = |ago| self.inner.counts(&metrics, **replica, ago);
                is_ready(&metrics, **replica, silence_max, counts)
            }
        };
        replicas.iter().filter(is_ready).count()
    }

    async fn change_members(
        &self,
        change: ChangeMembers<ReplicaId, ReplicaAddress>,
        retain: bool,
    ) -> Result<(), ChangeError> {
        let changing = Changing::begin(&self.inner)?;
        let inner: Arc<Inner<M>> = self.inner.clone();
        let changed = tokio::spawn(async move {
            inner.stir().await;
            let changed = inner.raft.change_membership(change, retain).await;
            drop(changing);
            settle(&*inner).await;
            changed.map(drop).map_err(change_error)
        });
        self.within_deadline(async { changed.await.unwrap_or(Err(ChangeError::Stopped)) }).await
    }

    async fn within_deadline(
        &self,
        change: impl Future<Output = Result<(), ChangeError>>,
    ) -> Result<(), ChangeError> {
        let deadline_ms = self.inner.settings.change_timeout_ms;
        let changed = timeout(Duration::from_millis(deadline_ms), change).await;
        changed.unwrap_or(Err(ChangeError::Timeout { waited_ms: deadline_ms }))
    }
}

impl GroupMembers {
    /// Whether a replica is a member.
    pub fn contains(&self, replica: ReplicaId) -> bool {
        self.voters.contains_key(&replica) || self.learners.contains_key(&replica)
    }

    /// Whether nobody else is known to be a member.
    pub fn is_sole(&self, replica: ReplicaId) -> bool {
        self.voters.keys().chain(self.learners.keys()).all(|member| *member == replica)
    }
}

impl<M: Machine> Inner<M> {
    /// Whether what a member answered to what was sent so long ago still says that it is there.
    fn counts(&self, metrics: &RaftMetrics<Types>, replica: ReplicaId, ago: Duration) -> bool {
        let address = metrics.membership_config.membership().get_node(&replica);
        address.is_some_and(|address| self.transport.counts(address, ago))
    }
}

/// Whether a follower has answered lately, and holds nearly all of the log.
fn is_ready(
    metrics: &RaftMetrics<Types>,
    replica: ReplicaId,
    silence_max: Duration,
    counts: impl Fn(Duration) -> bool,
) -> bool {
    let held = metrics.replication.as_ref().and_then(|all| all.get(&replica)).copied().flatten();
    let heard = metrics.heartbeat.as_ref().and_then(|all| all.get(&replica)).copied().flatten();
    let Some((held, heard)) = held.zip(heard) else { return false };
    let missing = metrics.last_log_index.unwrap_or_default().saturating_sub(held.index);
    let ago = heard.into_inner().elapsed();
    missing <= CAUGHT_UP_ENTRIES && ago <= silence_max && counts(ago)
}

fn change_error(error: RaftError<Types, ClientWriteError<Types>>) -> ChangeError {
    match error {
        RaftError::Fatal(_) => ChangeError::Stopped,
        RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => {
            ChangeError::NotLeader { hint: leader_hint(forward) }
        }
        RaftError::APIError(ClientWriteError::LogEntryDiscarded(forward)) => {
            ChangeError::Lost { hint: leader_hint(forward) }
        }
        RaftError::APIError(ClientWriteError::ChangeMembershipError(refused)) => match refused {
            ChangeMembershipError::EmptyMembership(_) => ChangeError::LastVoter,
            ChangeMembershipError::LearnerNotFound(error) => {
                ChangeError::NotMember { replica: error.node_id }
            }
            // What is left says that something before it is still to be committed.
            _ => ChangeError::InProgress,
        },
        // The second half of a change, after another leader's.
        RaftError::APIError(ClientWriteError::PreconditionFailed(_)) => ChangeError::Lost { hint: None },
    }
}
