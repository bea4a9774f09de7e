//! Owns the way to one partition: proposing, reading, and what its streams have delivered.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use fanfold_storage::command::{Command, Outcome};
use fanfold_storage::ids::{JournalPosition, PartitionId};
use fanfold_storage::partition::Partition;
use tokio::sync::watch;

use super::activity::Activity;
use super::gate::ReadGate;
use super::machine::{Applied, PartitionMachine};
use crate::error::NodeError;
use crate::position::Position;
use crate::proposer::Proposer;
use crate::raft::Group;

/// How far a partition's journal has been delivered; kept by its dispatcher, lost with the leadership.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// The applied index at which this was looked at.
    pub looked_at: u64,
    /// Journal events up to here have been looked at.
    pub considered: JournalPosition,
    /// Journal events up to here have been applied by every destination.
    pub delivered: JournalPosition,
    /// Each stream.
    pub streams: BTreeMap<PartitionId, StreamProgress>,
}

/// How far one stream has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct StreamProgress {
    /// The last position that the destination answered.
    pub acknowledged: Option<JournalPosition>,
    /// Events for the destination up to here have been applied there.
    pub delivered: JournalPosition,
    /// Whether events are kept for it, and a reset, if there was one, has been applied there.
    pub is_settled: bool,
    /// Whether the last attempt failed.
    pub is_failing: bool,
}

impl Progress {
    /// Whether everything up to `position` that concerns `destination` has been applied there.
    pub fn has_reached(&self, destination: PartitionId, position: JournalPosition) -> bool {
        match self.streams.get(&destination) {
            Some(stream) => stream.is_settled && stream.delivered >= position,
            None => self.considered >= position,
        }
    }
}

/// One partition on this node.
pub(crate) struct PartitionHandle {
    id: PartitionId,
    group: Group<PartitionMachine>,
    proposer: Proposer<Applied>,
    progress: watch::Sender<Progress>,
    /// A copy of the machine's, so that an answer need not wait for the next batch to be applied.
    incarnation: AtomicU64,
    gate: ReadGate,
    activity: Activity,
}

impl PartitionHandle {
    /// The partition of this group and its proposer.
    pub fn new(id: PartitionId, group: Group<PartitionMachine>, proposer: Proposer<Applied>) -> Self {
        let incarnation = AtomicU64::new(group.read(|machine| machine.state_as_is().incarnation()));
        Self {
            id,
            group,
            proposer,
            progress: watch::Sender::default(),
            incarnation,
            gate: ReadGate::default(),
            activity: Activity::default(),
        }
    }

    /// Which partition it is.
    pub fn id(&self) -> PartitionId {
        self.id
    }

    /// Its Raft group.
    pub fn group(&self) -> &Group<PartitionMachine> {
        &self.group
    }

    /// Its proposer.
    pub fn proposer(&self) -> &Proposer<Applied> {
        &self.proposer
    }

    /// Who reads here.
    pub fn activity(&self) -> &Activity {
        &self.activity
    }

    /// How far its journal has been delivered.
    pub fn progress(&self) -> &watch::Sender<Progress> {
        &self.progress
    }

    /// The incarnation of the partition.
    pub fn incarnation(&self) -> u64 {
        self.incarnation.load(Ordering::Relaxed)
    }

    /// Takes note of the machine's incarnation.
    pub fn note_incarnation(&self, incarnation: u64) {
        self.incarnation.store(incarnation, Ordering::Relaxed);
    }

    /// Proposes a command and waits until it is applied: the index of its Raft entry, and what it came to.
    pub async fn propose(&self, command: &Command) -> Result<(u64, Outcome), NodeError> {
        self.propose_bytes(command.to_bytes()).await
    }

    /// Proposes an encoded command.
    pub async fn propose_bytes(&self, command: Bytes) -> Result<(u64, Outcome), NodeError> {
        let failed = |error| NodeError::from_proposal(Some(self.id), &error);
        let proposed = self.proposer.propose(command).await.map_err(failed)?;
        match proposed.outcome {
            Applied::Outcome(outcome) => Ok((proposed.index, outcome)),
            Applied::Damaged => Err(NodeError::Damaged { partition: self.id }),
        }
    }

    /// Reads what is applied here now. `read` runs under the read lock and must not wait.
    pub fn read<T>(&self, read: impl FnOnce(&Partition) -> T) -> Result<T, NodeError> {
        let read = self.group.read(|machine| machine.state().map(read));
        read.ok_or(NodeError::Damaged { partition: self.id })
    }

    /// Whether what is read here now includes everything that was answered before, and nobody has to be asked.
    pub fn is_confirmed(&self) -> bool {
        self.group.leads_alone()
    }

    /// Confirms that what is read here from now on includes everything that was answered before.
    pub async fn confirm(&self) -> Result<(), NodeError> {
        if self.is_confirmed() {
            return Ok(());
        }
        let failed = |error| NodeError::from_read(Some(self.id), &error);
        self.gate.pass(async || self.group.read_index().await.map(|_| ())).await.map_err(failed)
    }

    /// Waits until an index is applied here.
    pub async fn wait_applied(&self, index: u64) -> Result<(), NodeError> {
        let applied = self.group.wait_applied(index).await;
        applied.map_err(|error| NodeError::from_read(Some(self.id), &error))
    }

    /// Waits until the progress of the journal satisfies `reached`.
    pub async fn wait_progress(&self, reached: impl FnMut(&Progress) -> bool) -> Result<(), NodeError> {
        let mut progress = self.progress.subscribe();
        let reached = progress.wait_for(reached).await;
        let unavailable = NodeError::Unavailable { partition: self.id, may_have_applied: false };
        reached.map(|_| ()).map_err(|_| unavailable)
    }
}

/// What an answer reflects that reads `partition` now.
pub(crate) fn position_of(partition: &Partition) -> Position {
    let last = partition.journal_next().0.saturating_sub(1);
    Position {
        partition: partition.id(),
        incarnation: partition.incarnation(),
        index: partition.applied(),
        journal: (last > 0).then_some(JournalPosition(last)),
    }
}
