//! Owns what the node does with a replica of any group, whatever its machine is.

use std::collections::BTreeSet;
use std::sync::Arc;

use fanfold_storage::log::GroupId;
use futures_util::future::BoxFuture;

use crate::catalog::ReplicaRecord;
use crate::map::{address_of, node_of};
use crate::raft::{
    ChangeError, Group, GroupMembers, GroupMetrics, Leadership, Machine, PeerEndpoint, ReplicaId,
    RetireError, StopReason,
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
    /// Whether a member is alive and has caught up; only the leader knows.
    fn is_ready(&self, replica: ReplicaId) -> bool;
    fn is_leader(&self) -> bool;
    /// The node that leads, as far as this replica knows.
    fn leader_node(&self) -> Option<u64>;
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

    fn is_ready(&self, replica: ReplicaId) -> bool {
        self.is_ready(replica)
    }

    fn is_leader(&self) -> bool {
        self.is_leader()
    }

    fn leader_node(&self) -> Option<u64> {
        self.leader_hint().map(|hint| node_of(&hint.address))
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
