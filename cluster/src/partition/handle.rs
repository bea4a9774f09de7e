//! Owns the way to one partition: proposing, reading, and what its streams have delivered.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::atomic::{self, AtomicU64};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use fanfold_storage::command::{Command, Outcome};
use fanfold_storage::ids::{JournalPosition, PartitionId, Stamp};
use fanfold_storage::partition::Partition;
use tokio::sync::watch;

use super::activity::Activity;
use super::due::Due;
use super::fresh::Freshness;
use super::gate::ReadGate;
use super::machine::{Applied, PartitionMachine};
use crate::clock::{StampSource, Stamps};
use crate::error::{LeaderAt, NodeError};
use crate::map::{Whereabouts, group_of};
use crate::position::Position;
use crate::proposer::Proposer;
use crate::raft::{Damage, Group, Machine, ProposeError, ReadError};

/// How far a partition's journal has been delivered; kept by its dispatcher, lost with the leadership.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Whether it is the leader's: a replica that does not lead knows of nothing.
    pub is_leading: bool,
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
    due: Arc<Due>,
    gate: ReadGate<ReadError>,
    activity: Activity,
    whereabouts: Arc<Whereabouts>,
    freshness: Freshness,
    /// What time it is, once its ticker runs.
    stamps: OnceLock<Arc<Stamps>>,
}

/// How long something may be due before reads wait until it has vanished, in milliseconds of log time.
const OVERDUE_MS: u64 = 1_000;

impl PartitionHandle {
    /// The partition of this group and its proposer.
    pub fn new(
        id: PartitionId,
        group: Group<PartitionMachine>,
        proposer: Proposer<Applied>,
        whereabouts: Arc<Whereabouts>,
    ) -> Self {
        let (incarnation, due) = group.read(|machine| (machine.state_as_is().incarnation(), machine.due()));
        Self {
            id,
            group,
            proposer,
            progress: watch::Sender::default(),
            incarnation: AtomicU64::new(incarnation),
            due,
            gate: ReadGate::default(),
            activity: Activity::default(),
            whereabouts,
            freshness: Freshness::default(),
            stamps: OnceLock::new(),
        }
    }

    /// What is due in it.
    pub fn due(&self) -> &Due {
        &self.due
    }

    /// Tells it the time from now on.
    pub fn tell_time(&self, stamps: Arc<Stamps>) {
        // The one that came first is of the same node.
        let _ = self.stamps.set(stamps);
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

    /// What is known of the age of its state.
    pub fn freshness(&self) -> &Freshness {
        &self.freshness
    }

    /// How old what is read here now is at most; none if that is not known.
    pub fn age(&self) -> Option<Duration> {
        if self.is_confirmed() {
            return Some(Duration::ZERO);
        }
        let (asked, index) = self.freshness.confirmed()?;
        (self.group.applied_index() >= index).then(|| asked.elapsed())
    }

    /// How far its journal has been delivered.
    pub fn progress(&self) -> &watch::Sender<Progress> {
        &self.progress
    }

    /// The incarnation of the partition; one that it had, at a replica that has followed since.
    pub fn incarnation(&self) -> u64 {
        self.incarnation.load(atomic::Ordering::Relaxed)
    }

    /// Takes note of the machine's incarnation.
    pub fn note_incarnation(&self, incarnation: u64) {
        self.incarnation.store(incarnation, atomic::Ordering::Relaxed);
    }

    /// Proposes a command and waits until it is applied: the index of its Raft entry, and what it came to.
    pub async fn propose(&self, command: &Command) -> Result<(u64, Outcome), NodeError> {
        self.propose_bytes(command.to_bytes()).await
    }

    /// Proposes an encoded command.
    pub async fn propose_bytes(&self, command: Bytes) -> Result<(u64, Outcome), NodeError> {
        let proposed = self.proposer.propose(command).await;
        let proposed = proposed.map_err(|error| self.not_proposed(&error))?;
        match proposed.outcome {
            Applied::Outcome(outcome) => Ok((proposed.index, outcome)),
            Applied::Damaged => Err(self.damaged(true)),
        }
    }

    /// What a proposal failed with.
    pub fn not_proposed(&self, error: &ProposeError) -> NodeError {
        NodeError::from_proposal(Some(self.id), error, &self.whereabouts)
    }

    /// What is answered because what is here is damaged. With other voters that passes: one of them leads soon.
    pub fn damaged(&self, may_have_applied: bool) -> NodeError {
        let (partition, voters) = (self.id, self.group.members().voters);
        if voters.len() > 1 {
            return NodeError::Unavailable { partition, may_have_applied };
        }
        NodeError::Damaged { partition, damage: self.damage() }
    }

    /// What is damaged of what is here, if something is.
    pub fn damage(&self) -> Option<Arc<Damage>> {
        self.group.read(Machine::damage).map(Arc::new)
    }

    fn not_read(&self, error: &ReadError) -> NodeError {
        NodeError::from_read(Some(self.id), error, &self.whereabouts)
    }

    /// Reads what is applied here now. `read` runs under the read lock and must not wait.
    pub fn read<T>(&self, read: impl FnOnce(&Partition) -> T) -> Result<T, NodeError> {
        let read = self.group.read(|machine| {
            let read = machine.state().map(read);
            // What it did not find may only be what it could not read.
            read.filter(|_| !machine.is_damaged())
        });
        read.ok_or_else(|| self.damaged(false))
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
        let failed = |error| self.not_read(&error);
        let round = async || {
            self.group.read_index().await?;
            self.let_time_pass().await
        };
        self.gate.pass(round).await.map_err(failed)
    }

    /// Moves the log's time on if it stood still while nobody led the group, or nobody followed: what expired meanwhile is
    /// not read any more. Whose clock is not believed (yet) cannot tell, and is not asked while something may be due by any
    /// clock that is known.
    async fn let_time_pass(&self) -> Result<(), ReadError> {
        let Some(stamps) = self.stamps.get() else { return Ok(()) };
        let is_overdue = |due: Option<Stamp>| due.is_some_and(|due| due.0 + OVERDUE_MS < stamps.latest());
        // What was noted may be of something that was deleted since.
        if !is_overdue(self.due.next().0) || !is_overdue(self.read(Partition::next_due).ok().flatten()) {
            return Ok(());
        }
        if !stamps.may_stamp() {
            return Err(ReadError::NoQuorum);
        }
        match self.propose(&Command::Tick).await {
            // With so much to do time passes anyway; without room it stands still for everybody, and reads go on.
            Ok(_) | Err(NodeError::Busy { .. } | NodeError::DiskFull) => Ok(()),
            Err(_) => Err(ReadError::NoQuorum),
        }
    }

    /// Waits until an index is applied here.
    pub async fn wait_applied(&self, index: u64) -> Result<(), NodeError> {
        let applied = self.group.wait_applied(index).await;
        applied.map_err(|error| self.not_read(&error))
    }

    /// Waits until an index of an incarnation is applied here. A replica that is behind comes to the incarnation first;
    /// one that is past it waits for nothing, since that history is gone. Nor does a leader that has never heard of it.
    pub async fn wait_position(&self, incarnation: u64, index: u64) -> Result<(), NodeError> {
        if self.incarnation() == incarnation {
            return self.wait_applied(index).await;
        }
        // Rare, and large.
        Box::pin(self.wait_incarnation(incarnation, index)).await
    }

    async fn wait_incarnation(&self, incarnation: u64, index: u64) -> Result<(), NodeError> {
        let mut applied = self.group.watch_applied();
        loop {
            let seen = *applied.borrow_and_update();
            // The copy may be old.
            match self.read(Partition::incarnation)?.cmp(&incarnation) {
                Ordering::Greater => return Ok(()),
                Ordering::Equal => return self.wait_applied(index).await,
                Ordering::Less if self.group.is_leader() => {
                    self.confirm().await?;
                    if self.read(Partition::incarnation)? < incarnation {
                        return Ok(());
                    }
                }
                Ordering::Less => self.wait_applied(seen + 1).await?,
            }
        }
    }

    /// Who leads, as far as is known here.
    pub fn known_leader(&self) -> Option<LeaderAt> {
        self.whereabouts.leader_of(group_of(Some(self.id)), self.group.leader_of_term())
    }

    /// Waits until the progress of the journal satisfies `reached`. Only the leader knows of progress; when the leadership
    /// is lost, the wait ends.
    pub async fn wait_progress(&self, mut reached: impl FnMut(&Progress) -> bool) -> Result<(), NodeError> {
        let mut progress = self.progress.subscribe();
        let mut leadership = self.group.watch_leadership();
        loop {
            {
                let now = progress.borrow_and_update();
                if now.is_leading && reached(&now) {
                    return Ok(());
                }
            }
            if leadership.led().is_none() {
                return Err(NodeError::NotLeader { leader: self.known_leader() });
            }
            let goes_on = tokio::select! {
                changed = progress.changed() => changed.is_ok(),
                goes_on = leadership.changed() => goes_on,
            };
            if !goes_on {
                return Err(NodeError::Unavailable { partition: self.id, may_have_applied: false });
            }
        }
    }

    /// Waits until there are neither undelivered events nor pending slices, and says where the journal stands.
    pub async fn wait_drained(&self) -> Result<JournalPosition, NodeError> {
        let mut applied = self.group.watch_applied();
        loop {
            applied.borrow_and_update();
            let look = || self.read(|state| (state.journal_next(), state.slices_pending()));
            let (next, slices) = look()?;
            if slices > 0 {
                let stopped = NodeError::Unavailable { partition: self.id, may_have_applied: false };
                applied.changed().await.map_err(|_| stopped)?;
                continue;
            }
            self.wait_progress(|progress| progress.delivered.0 + 1 >= next.0).await?;
            if look()? == (next, 0) {
                return Ok(next);
            }
        }
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
