//! Owns what the node does with a replica of any group, whatever its machine is.

use std::collections::BTreeSet;
use std::sync::Arc;

use fanfold_storage::log::GroupId;
use futures_util::future::BoxFuture;
use tokio::time::Instant;

use crate::catalog::ReplicaRecord;
use crate::map::{address_of, node_of};
use crate::raft::{
    ChangeError, Group, GroupMembers, GroupMetrics, Leadership, Machine, PeerEndpoint, Quiet, ReplicaId,
    RetireError, StopReason, Stranded,
};

/// One step toward the replicas that a group should have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// A replica is added, to be filled.
    AddLearner(ReplicaRecord),
    /// Exactly these vote.
    ChangeVoters(BTreeSet<ReplicaId>),
    /// A replica that does not vote leaves.
    RemoveLearner(ReplicaId),
    /// The leadership is handed over.
    Transfer(ReplicaId),
}

/// A replica of a group on this node.
pub(super) trait Member: Send + Sync + 'static {
    fn id(&self) -> GroupId;
    fn replica(&self) -> ReplicaId;
    fn members(&self) -> GroupMembers;
    fn metrics(&self) -> GroupMetrics;
    /// On the leader: what each member holds.
    fn held(&self) -> Vec<(ReplicaId, Option<u64>)>;
    /// On the leader: the node that entries of the log are kept for which are in both snapshots here.
    fn log_kept_for(&self) -> Option<u64>;
    /// Whether a member is alive and has caught up; only the leader knows.
    fn is_ready(&self, replica: ReplicaId) -> bool;
    /// On the leader: whether a member has answered a moment ago and caught up.
    fn is_near(&self, replica: ReplicaId) -> bool;
    /// On the leader: whether the others go on at once when this replica goes.
    fn can_go(&self) -> bool;
    /// A node can be reached again.
    fn reached(&self, node: u64) -> BoxFuture<'_, ()>;
    fn is_leader(&self) -> bool;
    /// While nobody leads the group: what the replica has.
    fn stranded(&self) -> Option<Stranded>;
    /// Whether what is applied here is not to be trusted.
    fn is_damaged(&self) -> bool;
    /// Who leads, and on which node, as far as this replica knows.
    fn leader(&self) -> Option<(ReplicaId, u64)>;
    /// Campaigns in the place of a leader whose process has ended.
    fn succeed(&self, leader: ReplicaId) -> BoxFuture<'_, ()>;
    /// The term in which this replica leads.
    fn led(&self) -> Option<u64>;
    /// On the leader of an idle group: what the members may rest on.
    fn quiet(&self) -> Option<Quiet>;
    /// On a follower that sleeps: in which term.
    fn sleeps_in(&self) -> Option<u64>;
    /// Falls asleep, or wakes; a leader that is lost.
    fn look(&self, sleeps: &dyn Fn(u64, u64) -> Option<Instant>) -> Option<ReplicaId>;
    /// Whether this replica may campaign when time tells.
    fn let_campaign(&self, may: bool);
    /// Whether this replica may propose, should it lead.
    fn let_propose(&self, may: bool);
    /// Takes what the ping of a node says of the group.
    fn heard_quiet(&self, node: u64, quiet: Option<Quiet>);
    fn watch_leadership(&self) -> Leadership;
    fn endpoint(&self) -> Arc<dyn PeerEndpoint>;
    fn step(&self, step: Step) -> BoxFuture<'_, Result<(), ChangeError>>;
    fn stopped(&self) -> BoxFuture<'_, StopReason>;
    fn shutdown(&self) -> BoxFuture<'_, ()>;
    fn retire(&self) -> BoxFuture<'static, Result<(), RetireError>>;
}

impl<M: Machine> Member for Group<M> {
    fn id(&self) -> GroupId {
        self.id()
    }

    fn replica(&self) -> ReplicaId {
        self.replica()
    }

    fn members(&self) -> GroupMembers {
        self.members()
    }

    fn metrics(&self) -> GroupMetrics {
        self.metrics()
    }

    fn held(&self) -> Vec<(ReplicaId, Option<u64>)> {
        self.replication().map_or_else(Vec::new, |all| all.into_iter().collect())
    }

    fn log_kept_for(&self) -> Option<u64> {
        self.log_kept_for().map(|address| node_of(&address))
    }

    fn is_ready(&self, replica: ReplicaId) -> bool {
        self.is_ready(replica)
    }

    fn is_near(&self, replica: ReplicaId) -> bool {
        self.is_near(replica)
    }

    fn can_go(&self) -> bool {
        self.can_go()
    }

    fn reached(&self, node: u64) -> BoxFuture<'_, ()> {
        Box::pin(self.reached(move |address| node_of(address) == node))
    }

    fn is_leader(&self) -> bool {
        self.is_leader()
    }

    fn stranded(&self) -> Option<Stranded> {
        self.stranded()
    }

    fn is_damaged(&self) -> bool {
        // A state that is being replaced is locked for long, and one that is damaged hardly ever.
        self.try_read(Machine::is_damaged).unwrap_or(false)
    }

    fn leader(&self) -> Option<(ReplicaId, u64)> {
        self.leader_hint().map(|hint| (hint.replica, node_of(&hint.address)))
    }

    fn succeed(&self, leader: ReplicaId) -> BoxFuture<'_, ()> {
        Box::pin(self.succeed(leader))
    }

    fn led(&self) -> Option<u64> {
        self.watch_leadership().led()
    }

    fn quiet(&self) -> Option<Quiet> {
        self.quiet()
    }

    fn sleeps_in(&self) -> Option<u64> {
        self.sleeps_in()
    }

    fn look(&self, sleeps: &dyn Fn(u64, u64) -> Option<Instant>) -> Option<ReplicaId> {
        self.look(&|address, term| sleeps(node_of(address), term))
    }

    fn let_campaign(&self, may: bool) {
        self.let_campaign(may);
    }

    fn let_propose(&self, may: bool) {
        self.let_propose(may);
    }

    fn heard_quiet(&self, node: u64, quiet: Option<Quiet>) {
        self.heard_quiet(node, |address| node_of(address) == node, quiet);
    }

    fn watch_leadership(&self) -> Leadership {
        self.watch_leadership()
    }

    fn endpoint(&self) -> Arc<dyn PeerEndpoint> {
        self.endpoint()
    }

    fn step(&self, step: Step) -> BoxFuture<'_, Result<(), ChangeError>> {
        Box::pin(async move {
            match step {
                Step::AddLearner(record) => {
                    self.add_learner(ReplicaId(record.replica), address_of(record.node)).await
                }
                Step::ChangeVoters(voters) => self.change_voters(voters).await,
                Step::RemoveLearner(replica) => self.remove_learner(replica).await,
                Step::Transfer(replica) => self.transfer_leader(replica).await,
            }
        })
    }

    fn stopped(&self) -> BoxFuture<'_, StopReason> {
        Box::pin(self.stopped())
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.shutdown())
    }

    fn retire(&self) -> BoxFuture<'static, Result<(), RetireError>> {
        Box::pin(self.clone().retire())
    }
}
