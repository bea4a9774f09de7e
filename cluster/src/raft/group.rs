//! Owns one replica of a Raft group: opening, proposing, reading, and taking in its peers' messages.
//!
//! - A proposal names the leadership it was made under, so that a leader that lost it in between is fenced.
//! - What openraft publishes through watches is cloned at once: holding it could block Raft (openraft #1238).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use fanfold_storage::log::{GroupId, Log};
use futures_util::future::BoxFuture;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ClientWriteError, Fatal, ForwardToLeader, LinearizableReadError, RaftError};
use openraft::impls::ProgressResponder;
use openraft::metrics::{RaftServerMetrics, WaitError};
use openraft::raft::ClientWriteResult;
use openraft::type_config::alias::WatchReceiverOf;
use openraft::{Raft, RaftState, ReadPolicy};
use tokio::sync::{oneshot, watch};

use super::error::{LeaderHint, OpenError, ProposeError, ReadError, StopReason, StorageFailure};
use super::files::{FileError, FileWork, GroupDirectory, GroupFiles, Restored};
use super::log_store::{LogStore, LogStoreError};
use super::machine::{Machine, Shared};
use super::message;
use super::network::NetworkFactory;
use super::settings::RaftSettings;
use super::snapshot::{Current, SnapshotData, StoredSnapshot, write_cut};
use super::state_machine::StateMachine;
use super::transport::{EndpointError, MessageKind, PeerEndpoint, PeerTransport};
use super::types::{Batch, ReplicaAddress, ReplicaId, Snapshot, Types};

/// The most bytes of a batch. It must fit into a segment of the log.
pub const BATCH_BYTES_MAX: usize = 4 << 20;

/// Which replica of which group to open.
#[derive(Debug, Clone)]
pub struct GroupSpec {
    /// The group's number in the node's log.
    pub group: GroupId,
    /// This replica.
    pub replica: ReplicaId,
    /// All voters with their addresses, this replica among them. Counts only when the group is formed; later the
    /// group's own log knows its members.
    pub members: BTreeMap<ReplicaId, ReplicaAddress>,
    /// What an empty log means.
    pub formation: Formation,
}

/// What it means when the log of a replica is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Formation {
    /// The group is new: the member with the lowest id forms it, the others wait for it.
    New,
    /// The group exists. A sole voter without a log has lost it, which is an error; another is filled by its peers.
    Existing,
}

/// A batch that was committed and applied here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposed<O> {
    /// The index of its Raft entry.
    pub index: u64,
    /// What the machine answered.
    pub outcome: O,
}

/// What a replica knows about its group at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupMetrics {
    /// The current term.
    pub term: u64,
    /// Whether this replica leads.
    pub is_leader: bool,
    /// Who leads, if known.
    pub leader: Option<ReplicaId>,
    /// The index of the last entry in the log; none if it is empty.
    pub last_log_index: Option<u64>,
    /// The last index known to be committed by a quorum.
    pub committed_index: Option<u64>,
    /// The applied index.
    pub applied_index: u64,
    /// Why Raft no longer runs; none while it does.
    pub stopped: Option<StopReason>,
}

/// One replica of a group. Clones share it; Raft stops when the last one is dropped.
pub struct Group<M: Machine> {
    inner: Arc<Inner<M>>,
}

struct Inner<M: Machine> {
    raft: Raft<Types, StateMachine<M>>,
    shared: Arc<Shared<M>>,
    log: Log,
    spec: GroupSpec,
    files: GroupFiles,
    current: Arc<Current>,
    /// Held by who works on the files.
    turn: Arc<tokio::sync::Mutex<()>>,
    /// Nobody else votes, so that nobody else can lead.
    is_sole_voter: AtomicBool,
}

impl<M: Machine> Clone for Group<M> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<M: Machine> Group<M> {
    /// Opens a replica: restores `machine`, which must be new, from its newest snapshot, and replays what its log knows
    /// to be committed behind it.
    ///
    /// A sole voter leads, and has applied its whole log, when this returns; with more members see
    /// [`Group::recovered`].
    pub async fn open(
        log: Log,
        spec: GroupSpec,
        directory: GroupDirectory,
        machine: M,
        settings: &RaftSettings,
        transport: Arc<dyn PeerTransport>,
    ) -> Result<Self, OpenError> {
        if !spec.members.contains_key(&spec.replica) {
            return Err(OpenError::NotMember { replica: spec.replica });
        }
        let store = LogStore::open(log.clone(), spec.group)?;
        let first = log.group_state(spec.group).map_err(LogStoreError::from)?.purged.map(|(index, _)| index);
        let opened = tokio::task::spawn_blocking({
            let group = spec.group;
            move || directory.open(group, machine, first)
        })
        .await;
        let Restored { shared, files, current } =
            opened.map_err(|_| OpenError::Stopped { reason: StopReason::Panicked })??;
        let network = NetworkFactory::new(spec.group, spec.replica, transport);
        let machine = StateMachine::new(shared.clone(), files.clone(), current.clone());
        let raft = Raft::new(spec.replica, settings.config()?, network, store, machine).await;
        let raft = raft.map_err(|fatal| OpenError::Stopped { reason: stop_reason(&fatal) })?;
        let group = Self {
            inner: Arc::new(Inner {
                raft,
                shared,
                log,
                spec,
                files,
                current,
                turn: Arc::default(),
                is_sole_voter: AtomicBool::new(false),
            }),
        };
        group.form().await?;
        if group.is_sole_voter().await? {
            // Nobody else can vote, so there is nothing to wait for.
            group.elect().await?;
            group.recovered(Duration::from_millis(settings.recovery_timeout_ms)).await?;
            // There is nobody to send heartbeats to or to wait for, so that an idle group and a read can cost nothing.
            // Whoever adds a member has to switch both on again first.
            group.inner.raft.runtime_config().tick(false);
            group.inner.is_sole_voter.store(true, Ordering::Release);
        }
        Ok(group)
    }

    /// Forms the group if it is new and it falls to this replica.
    async fn form(&self) -> Result<(), OpenError> {
        let Inner { raft, spec, .. } = &*self.inner;
        let fatal = |fatal: Fatal<Types>| OpenError::Stopped { reason: stop_reason(&fatal) };
        if raft.is_initialized().await.map_err(fatal)? {
            return Ok(());
        }
        match spec.formation {
            Formation::Existing if spec.members.len() == 1 => Err(OpenError::Empty { replica: spec.replica }),
            Formation::New if spec.members.keys().next() == Some(&spec.replica) => {
                match raft.initialize(spec.members.clone()).await {
                    Err(RaftError::Fatal(error)) => return Err(fatal(error)),
                    // Refused because a peer was faster and this replica has its log by now.
                    Err(RaftError::APIError(_)) | Ok(()) => {}
                }
                self.elect().await
            }
            // A peer forms it, or fills it.
            Formation::New | Formation::Existing => Ok(()),
        }
    }

    async fn elect(&self) -> Result<(), OpenError> {
        let elected = self.inner.raft.trigger().elect(false).await;
        elected.map_err(|fatal| OpenError::Stopped { reason: stop_reason(&fatal) })
    }

    /// Whether nobody else votes. Asks Raft itself, since its metrics may not have been published yet.
    async fn is_sole_voter(&self) -> Result<bool, OpenError> {
        let replica = self.inner.spec.replica;
        let ask =
            move |state: &RaftState<Types>| state.membership_state.effective().voter_ids().eq([replica]);
        let sole = self.inner.raft.with_raft_state(ask).await;
        sole.map_err(|fatal| OpenError::Stopped { reason: stop_reason(&fatal) })
    }

    /// Waits until a leader has committed everything in this replica's log, and it is applied here: from then on no
    /// read shows less than before the restart.
    pub async fn recovered(&self, timeout: Duration) -> Result<(), OpenError> {
        match self.inner.raft.wait_for_recovery(Some(timeout)).await {
            Ok(_) => Ok(()),
            Err(WaitError::Timeout(..)) => Err(OpenError::Timeout { waited_ms: timeout.as_millis() as u64 }),
            Err(WaitError::ShuttingDown) => {
                Err(OpenError::Stopped { reason: self.metrics().stopped.unwrap_or(StopReason::Shutdown) })
            }
        }
    }

    /// This group's number in the node's log.
    pub fn id(&self) -> GroupId {
        self.inner.spec.group
    }

    /// This replica.
    pub fn replica(&self) -> ReplicaId {
        self.inner.spec.replica
    }

    /// Proposes a batch and waits until it is applied here.
    pub async fn propose(&self, batch: Batch) -> Result<Proposed<M::Outcome>, ProposeError> {
        self.submit(batch).await?.wait().await
    }

    /// Hands a batch to Raft. Batches stand in the log in the order in which this was called.
    pub async fn submit(&self, batch: Batch) -> Result<InFlight<M::Outcome>, ProposeError> {
        let batch_bytes = batch.0.len();
        if batch_bytes > BATCH_BYTES_MAX {
            let (bytes, limit_bytes) = (batch_bytes as u64, BATCH_BYTES_MAX as u64);
            return Err(ProposeError::TooLarge { bytes, limit_bytes });
        }
        // Before Raft sees it: inside Raft there is no way to refuse a single write.
        if !self.inner.log.accepts_appends() {
            return Err(ProposeError::DiskFull);
        }
        let leader = self.inner.raft.as_leader();
        let leader = leader.map_err(|forward| ProposeError::NotLeader { hint: leader_hint(forward) })?;
        let (responder, answer) = ProgressResponder::complete_only();
        let write = self.inner.raft.write(batch).with_leader(leader.to_committed_leader_id());
        write.responder(responder).await.map_err(|_| ProposeError::Stopped { proposed: false })?;
        Ok(InFlight { answer, _outcome: std::marker::PhantomData })
    }

    /// Whether this replica leads, as far as it knows.
    pub fn is_leader(&self) -> bool {
        self.inner.raft.is_leader()
    }

    /// Follows the leadership, for tasks that only run on the leader.
    pub fn watch_leadership(&self) -> Leadership {
        Leadership { changes: self.inner.raft.server_metrics() }
    }

    /// Who leads, as far as this replica knows.
    pub fn leader_hint(&self) -> Option<LeaderHint> {
        let metrics = self.inner.raft.metrics().borrow_watched().clone();
        let replica = metrics.current_leader?;
        let address = metrics.membership_config.get_node(&replica)?.clone();
        Some(LeaderHint { replica, address })
    }

    /// What this replica knows about its group now.
    pub fn metrics(&self) -> GroupMetrics {
        let metrics = self.inner.raft.metrics().borrow_watched().clone();
        GroupMetrics {
            term: metrics.current_term,
            is_leader: metrics.state.is_leader(),
            leader: metrics.current_leader,
            last_log_index: metrics.last_log_index,
            committed_index: metrics.cluster_committed.map(|log_id| log_id.index),
            applied_index: self.applied_index(),
            stopped: metrics.running_state.err().as_ref().map(stop_reason),
        }
    }

    /// Reads from the machine as it is applied here now. `read` runs under the read lock and must not wait.
    pub fn read<T>(&self, read: impl FnOnce(&M) -> T) -> T {
        read(&self.inner.shared.read().machine)
    }

    /// Like [`Group::read`], unless a batch is being applied at this moment.
    pub fn try_read<T>(&self, read: impl FnOnce(&M) -> T) -> Option<T> {
        Some(read(&self.inner.shared.try_read()?.machine))
    }

    /// The applied index; 0 before the first batch.
    pub fn applied_index(&self) -> u64 {
        self.inner.shared.applied_index()
    }

    /// Follows the applied index: it changes after each Raft entry that was applied.
    pub fn watch_applied(&self) -> watch::Receiver<u64> {
        self.inner.shared.watch()
    }

    /// Waits until an index is applied here.
    pub async fn wait_applied(&self, index: u64) -> Result<(), ReadError> {
        let mut applied = self.watch_applied();
        if *applied.borrow_and_update() >= index {
            return Ok(());
        }
        tokio::select! {
            _ = applied.wait_for(|applied| *applied >= index) => Ok(()),
            _ = self.stopped() => Err(ReadError::Stopped),
        }
    }

    /// Whether this replica leads and nobody else votes: then nobody else can lead, and a read needs no confirmation.
    pub fn leads_alone(&self) -> bool {
        self.inner.is_sole_voter.load(Ordering::Acquire) && self.is_leader()
    }

    /// Confirms with a quorum that this replica leads, waits until everything committed before is applied here, and
    /// returns the applied index: what is read from then on is linearizable. Concurrent calls share the round.
    ///
    /// A sole voter that leads has nobody to ask, and has applied everything that it answered.
    pub async fn read_index(&self) -> Result<u64, ReadError> {
        if self.leads_alone() {
            return Ok(self.applied_index());
        }
        match self.inner.raft.ensure_linearizable(ReadPolicy::ReadIndex).await {
            Ok(read) => {
                // openraft counts an entry as applied when its own core has heard of it, which is later than here.
                debug_assert!(self.applied_index() >= read.index());
                Ok(self.applied_index())
            }
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => {
                Err(ReadError::NotLeader { hint: leader_hint(forward) })
            }
            Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => Err(ReadError::NoQuorum),
            Err(RaftError::Fatal(_)) => Err(ReadError::Stopped),
        }
    }

    /// Waits until Raft no longer runs, and says why. Anything but [`StopReason::Shutdown`] must end the process.
    pub async fn stopped(&self) -> StopReason {
        let mut leadership = self.watch_leadership();
        while leadership.changed().await {}
        self.metrics().stopped.unwrap_or(StopReason::Shutdown)
    }

    /// The newest snapshot on disk.
    pub fn newest_snapshot(&self) -> Option<StoredSnapshot> {
        self.inner.current.get().map(|(stored, _)| stored)
    }

    /// The two newest snapshots on disk that are whole, the newest first.
    pub fn kept_snapshots(&self) -> Vec<StoredSnapshot> {
        let files = &self.inner.files;
        let two = [files.snapshots.newest(), files.snapshots.previous()];
        two.into_iter().flatten().map(|manifest| StoredSnapshot::new(files, manifest)).collect()
    }

    /// The directory of its snapshots.
    pub fn files(&self) -> &GroupFiles {
        &self.inner.files
    }

    /// Waits until nobody else works on the files, takes snapshots or purges the log, and keeps it so while the turn is held.
    pub async fn turn(&self) -> Turn {
        Turn { _guard: self.inner.turn.clone().lock_owned().await }
    }

    /// Changes the machine beside its log: only what does not show. Runs under the write lock.
    pub fn change<T>(&self, change: impl FnOnce(&mut M) -> T) -> T {
        self.inner.shared.change(|state| change(&mut state.machine))
    }

    /// Does work on the machine's files on a blocking thread, and installs what came of it.
    pub async fn work(&self, work: FileWork<M>) -> Result<(), FileError> {
        let inner = self.inner.clone();
        let done = tokio::task::spawn_blocking(move || {
            let install = work(&inner.files)?;
            drop(inner.shared.change(|state| install(&mut state.machine)));
            Ok(())
        });
        let done = done.await.unwrap_or(Err(FileError::Stopped));
        if done.is_err() {
            // What was written until then is nobody's, and the disk may be full. Why the work failed is what counts.
            if let Err(error) = self.prune().await {
                tracing::warn!(group = self.inner.spec.group.0, %error, "what failed work left could not be removed");
            }
        }
        done
    }

    /// Takes a snapshot beside the applies; when it is durable, the log goes up to the one before, and then the files
    /// that neither of the two names. False if there is nothing to take one of.
    ///
    /// Whoever calls it, or [`Group::work`], holds the [turn](Group::turn).
    pub async fn snapshot(&self) -> Result<bool, FileError> {
        let begun =
            self.inner.raft.with_state_machine(|machine| Box::pin(async { machine.begin_cut() })).await;
        let Some(meta) = begun.map_err(|_| FileError::Stopped)? else { return Ok(false) };
        let inner = self.inner.clone();
        let written = tokio::task::spawn_blocking(move || {
            let before = inner.current.get();
            let base = before.as_ref().map(|(stored, _)| &*stored.manifest);
            let manifest = write_cut(&inner.shared, &inner.files, base, &meta)?;
            inner.current.set(StoredSnapshot::new(&inner.files, manifest), meta);
            // What the log is let go behind is a snapshot that could take the newest one's place.
            Ok(inner.files.snapshots.previous().map(|previous| previous.index))
        });
        let purge = written.await.unwrap_or(Err(FileError::Stopped))?;
        let trigger = self.inner.raft.trigger();
        trigger.snapshot().await.map_err(|_| FileError::Stopped)?;
        if let Some(index) = purge {
            trigger.purge_log(index).await.map_err(|_| FileError::Stopped)?;
        }
        self.prune().await?;
        Ok(true)
    }

    /// Removes the files that nothing needs. Must not run beside [`Group::work`] or [`Group::snapshot`].
    pub async fn prune(&self) -> Result<(), FileError> {
        let inner = self.inner.clone();
        let pruned = tokio::task::spawn_blocking(move || {
            let in_use = inner.shared.read().machine.files_in_use();
            inner.files.snapshots.prune(&|name| in_use.iter().any(|(used, _)| used == name))
        });
        pruned.await.map_err(|_| FileError::Stopped)??;
        Ok(())
    }

    /// Stops Raft. What was proposed and not answered has an unknown outcome.
    pub async fn shutdown(&self) {
        // The error would be a panic of Raft's task, which its metrics tell.
        let _ = self.inner.raft.shutdown().await;
    }

    /// What takes in the messages of this replica's peers.
    pub fn endpoint(&self) -> Arc<dyn PeerEndpoint> {
        self.inner.clone()
    }
}

/// Held by whoever works on the files of a group.
#[derive(Debug)]
pub struct Turn {
    _guard: tokio::sync::OwnedMutexGuard<()>,
}

/// Follows who leads a group, as one replica sees it.
pub struct Leadership {
    changes: WatchReceiverOf<Types, RaftServerMetrics<Types>>,
}

impl Leadership {
    /// Waits for the next change of term, leader, role or membership; false once Raft no longer runs.
    pub async fn changed(&mut self) -> bool {
        self.changes.changed().await.is_ok()
    }
}

/// A batch that was handed to Raft.
pub struct InFlight<O> {
    answer: oneshot::Receiver<ClientWriteResult<Types>>,
    _outcome: std::marker::PhantomData<fn() -> O>,
}

impl<O: 'static> InFlight<O> {
    /// Waits until the batch is applied here. Dropping the future does not take the batch back.
    pub async fn wait(self) -> Result<Proposed<O>, ProposeError> {
        let answer = self.answer.await.map_err(|_| ProposeError::Stopped { proposed: true })?;
        match answer {
            Ok(response) => {
                let outcome = response.data.into_outcome();
                let outcome =
                    outcome.expect("a batch is answered by its own machine, with its own outcome type");
                Ok(Proposed { index: response.log_id.index, outcome })
            }
            Err(ClientWriteError::ForwardToLeader(forward)) => {
                Err(ProposeError::NotLeader { hint: leader_hint(forward) })
            }
            Err(ClientWriteError::LogEntryDiscarded(forward)) => {
                Err(ProposeError::Lost { hint: leader_hint(forward) })
            }
            // Not for a batch; if it ever is, nothing is claimed about it.
            Err(ClientWriteError::ChangeMembershipError(_) | ClientWriteError::PreconditionFailed(_)) => {
                Err(ProposeError::Lost { hint: None })
            }
        }
    }
}

impl<M: Machine> PeerEndpoint for Inner<M> {
    fn handle(&self, kind: MessageKind, body: Bytes) -> BoxFuture<'_, Result<Bytes, EndpointError>> {
        let raft = &self.raft;
        Box::pin(async move {
            let answer = match kind {
                MessageKind::Append => {
                    let answer = raft.append_entries(message::decode_append(&body)?).await;
                    message::encode_append_answer(&answer.map_err(|_| EndpointError::Stopped)?)
                }
                MessageKind::Vote => {
                    let answer = raft.vote(message::decode_vote(&body)?).await;
                    message::encode_vote_answer(&answer.map_err(|_| EndpointError::Stopped)?)
                }
                MessageKind::PreVote => {
                    let answer = raft.pre_vote(message::decode_vote(&body)?).await;
                    message::encode_vote_answer(&answer.map_err(|_| EndpointError::Stopped)?)
                }
                MessageKind::Snapshot => {
                    let (vote, meta, sent) = message::decode_snapshot(&body)?;
                    let snapshot = Snapshot { meta, snapshot: SnapshotData::Sent(sent) };
                    let answer = raft.install_full_snapshot(vote, snapshot).await;
                    message::encode_snapshot_answer(&answer.map_err(|_| EndpointError::Stopped)?)
                }
                MessageKind::TransferLeader => {
                    let answer = raft.handle_transfer_leader(message::decode_transfer(&body)?).await;
                    message::encode_transfer_answer(&answer.map_err(|_| EndpointError::Stopped)?)
                }
            };
            Ok(answer?)
        })
    }
}

fn leader_hint(forward: ForwardToLeader<Types>) -> Option<LeaderHint> {
    Some(LeaderHint { replica: forward.leader_id?, address: forward.leader_node? })
}

fn stop_reason(fatal: &Fatal<Types>) -> StopReason {
    match fatal {
        Fatal::Stopped => StopReason::Shutdown,
        Fatal::Panicked => StopReason::Panicked,
        Fatal::StorageError(error) => StopReason::Storage(StorageFailure(error.to_string().into_boxed_str())),
    }
}
