//! Owns one replica of a Raft group: opening it, what it knows, and reading from it.
//!
//! - What openraft publishes through watches is cloned at once: holding it could block Raft (openraft #1238).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fanfold_storage::log::{GroupId, Log};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{Fatal, ForwardToLeader, LinearizableReadError, RaftError};
use openraft::metrics::{RaftServerMetrics, WaitError};
use openraft::type_config::alias::WatchReceiverOf;
use openraft::{Raft, RaftState, ReadPolicy};
use tokio::sync::watch;

use super::alone::{self, Alone};
use super::endpoint::{Endpoint, Heard};
use super::error::{LeaderHint, OpenError, ReadError, StopReason, StorageFailure};
use super::files::{GroupFiles, Loading, Restored};
use super::fills::Filling;
use super::hand_over::HandOver;
use super::log_store::{LogStore, LogStoreError};
use super::machine::{Machine, Shared};
use super::network::NetworkFactory;
use super::note::Note;
use super::receive::Incoming;
use super::recover;
use super::replay::replay;
use super::retire::claim;
use super::send::Outgoing;
use super::settings::RaftSettings;
use super::sleep::Sleep;
use super::snapshot::Current;
use super::state_machine::StateMachine;
use super::times::ApplyTimes;
use super::transport::{PeerEndpoint, PeerTransport};
use super::types::{ReplicaAddress, ReplicaId, Types};
use crate::blocking::blocking;

/// Which replica of which group to open.
#[derive(Debug, Clone)]
pub struct GroupSpec {
    /// The group's number in the node's log.
    pub group: GroupId,
    /// This replica.
    pub replica: ReplicaId,
    /// All voters with their addresses, this replica among them unless it is [joining](Formation::Joining). Counts only
    /// when the group is formed; later the group's own log knows its members.
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
    /// The group exists, and this replica is new in it: it waits until somebody adds and fills it. The members need
    /// not be known.
    Joining,
    /// The group has lost its majority for good, and goes on with what this node has of it: this replica, whose id is
    /// new, becomes the sole voter. What only the others had is lost, and none of them may ever run again.
    Recover,
    /// Like [`Formation::Recover`] where nothing is left of the group: this replica begins it with nothing.
    Anew {
        /// The term that it begins in, above all that anybody can have led it in.
        term: u64,
    },
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
    pub(super) inner: Arc<Inner<M>>,
}

pub(super) struct Inner<M: Machine> {
    pub raft: Raft<Types, StateMachine<M>>,
    pub shared: Arc<Shared<M>>,
    pub log: Log,
    pub store: LogStore,
    pub spec: GroupSpec,
    pub settings: RaftSettings,
    pub files: GroupFiles,
    pub transport: Arc<dyn PeerTransport>,
    pub current: Arc<Current>,
    /// Held by who works on the files.
    pub turn: Arc<tokio::sync::Mutex<()>>,
    /// Whether nobody else can lead.
    pub alone: Alone,
    /// Whether the group is idle.
    pub sleep: Sleep,
    /// Held by who starts or stops Raft's clock.
    pub clock: parking_lot::Mutex<()>,
    /// The snapshot that a peer is sending.
    pub incoming: Incoming,
    /// Which snapshots are being sent to peers.
    pub outgoing: Outgoing,
    /// When the leader was heard.
    pub heard: Heard,
    /// How this replica is filled, while it does not vote.
    pub filling: Filling,
    /// Whether a quorum has room for entries, as far as is known.
    pub has_room: Arc<AtomicBool>,
    /// Whether the leadership is being handed over.
    pub hand_over: HandOver,
}

impl<M: Machine> Clone for Group<M> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<M: Machine> Group<M> {
    /// Opens a replica: takes the machine that is being restored from its newest snapshot, and replays what its log knows to be
    /// committed behind it.
    ///
    /// A sole voter leads, and has applied its whole log, when this returns; with more members see
    /// [`Group::recovered`].
    pub async fn open(
        log: Log,
        spec: GroupSpec,
        loading: Loading<M>,
        settings: &RaftSettings,
        transport: Arc<dyn PeerTransport>,
    ) -> Result<Self, OpenError> {
        let (directory, flushes) = (loading.directory.clone(), loading.flushes);
        // Whatever else is wrong: nobody reads the directory any more when this returns.
        let loaded = loading.finish().await;
        if spec.formation != Formation::Joining && !spec.members.contains_key(&spec.replica) {
            return Err(OpenError::NotMember { replica: spec.replica });
        }
        let is_due = crate::blocking::blocking({
            let (spec, directory) = (spec.clone(), directory.clone());
            move || {
                Ok::<_, OpenError>(
                    spec.formation == Formation::Recover && recover::is_due(&spec, &directory)?,
                )
            }
        });
        let panicked = |_| OpenError::Stopped { reason: StopReason::Panicked };
        let recovers = is_due.await.map_err(panicked)??;
        if !recovers {
            claim(&log, spec.group, spec.replica, &directory).await?;
        }
        let store = LogStore::open(log.clone(), spec.group)?;
        let state = log.group_state(spec.group).map_err(LogStoreError::from)?;
        let (purged, last) = (state.purged.map(|(index, _)| index), state.last);
        let loaded = loaded?;
        let opened = blocking(move || loaded.join(purged, last)).await;
        let Restored { shared, files, current } = opened.map_err(panicked)??;
        if let Formation::Anew { term } = spec.formation
            && store.ends()?.0.is_none()
            && current.get().is_none()
        {
            recover::begin(&store, &spec, term).await?;
        }
        if recovers {
            let newest = current.get().map(|(_, meta)| meta);
            recover::append_membership(&store, &spec, newest.as_ref()).await?;
            let note = Note { replica: spec.replica, is_retired: false };
            let (fs, dir, group) = (files.fs.clone(), files.dir.clone(), spec.group);
            let noted = crate::blocking::blocking(move || note.write(&*fs, &dir, group));
            noted.await.map_err(panicked)??;
        }
        let network = NetworkFactory::new(
            spec.group,
            spec.replica,
            transport.clone(),
            Duration::from_millis(settings.append_timeout_ms),
        );
        let outgoing = network.outgoing();
        let mut machine =
            StateMachine::new(spec.replica, shared.clone(), files.clone(), current.clone(), store.clone());
        replay(&store, &mut machine, (&shared, &files), flushes).await?;
        let raft = Raft::new(spec.replica, settings.config()?, network, store.clone(), machine).await;
        let raft = raft.map_err(|fatal| OpenError::Stopped { reason: stop_reason(&fatal) })?;
        let group = Self {
            inner: Arc::new(Inner {
                raft,
                shared,
                log,
                store,
                spec,
                settings: settings.clone(),
                files,
                transport,
                current,
                turn: Arc::default(),
                alone: Alone::default(),
                sleep: Sleep::default(),
                clock: parking_lot::Mutex::default(),
                incoming: Incoming::default(),
                outgoing,
                heard: Heard::default(),
                filling: Filling::default(),
                has_room: Arc::new(AtomicBool::new(true)),
                hand_over: HandOver::default(),
            }),
        };
        group.form().await?;
        if group.is_sole_voter().await? {
            // Nobody else can vote, so there is nothing to wait for.
            group.elect().await?;
            group.recovered(Duration::from_millis(settings.recovery_timeout_ms)).await?;
        }
        alone::settle(&*group.inner).await;
        tokio::spawn(alone::follow(Arc::downgrade(&group.inner)));
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
            _ => Ok(()),
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
        self.leader_of_term().map(|(_, hint)| hint)
    }

    /// Who leads, as far as this replica knows, and in which term.
    pub fn leader_of_term(&self) -> Option<(u64, LeaderHint)> {
        let metrics = self.inner.raft.metrics().borrow_watched().clone();
        let replica = metrics.current_leader?;
        let address = metrics.membership_config.get_node(&replica)?.clone();
        Some((metrics.current_term, LeaderHint { replica, address }))
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

    /// What applying has taken so far.
    pub fn apply_times(&self) -> ApplyTimes {
        self.inner.shared.times.now()
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

    /// For how long this replica has not heard from a leader, and the index that was committed when it did; none before
    /// the first time. What the leader's message took on its way is not counted, and a leader that was deposed without
    /// knowing counts as one.
    pub fn heard(&self) -> Option<(Duration, u64)> {
        self.inner.heard.last().map(|(at, committed)| (at.elapsed(), committed))
    }

    /// Whether this replica leads and nobody else is a member: then nobody else can lead, and a read needs no
    /// confirmation. False from before a member is proposed.
    pub fn leads_alone(&self) -> bool {
        self.inner.alone.is_alone() && self.is_leader()
    }

    /// Confirms with a quorum that this replica leads, waits until everything committed before is applied here, and
    /// returns the applied index: what is read from then on is linearizable. Concurrent calls share the round.
    ///
    /// A sole voter that leads has nobody to ask, and has applied everything that it answered.
    pub async fn read_index(&self) -> Result<u64, ReadError> {
        if self.leads_alone() {
            return Ok(self.applied_index());
        }
        drop(self.inner.hand_over.pass().await);
        match self.inner.raft.ensure_linearizable(ReadPolicy::ReadIndex).await {
            Ok(read) => {
                // openraft counts an entry as applied when its own core has heard of it, which is later than here.
                debug_assert!(self.applied_index() >= read.index());
                Ok(self.applied_index())
            }
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => {
                // While the leadership is handed over Raft names one that may not be elected yet.
                drop(self.inner.hand_over.pass().await);
                let other = self.leader_hint().filter(|hint| hint.replica != self.replica());
                Err(ReadError::NotLeader { hint: other.or_else(|| leader_hint(forward)) })
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

    /// Stops Raft. What was proposed and not answered has an unknown outcome.
    pub async fn shutdown(&self) {
        self.inner.store.close();
        // The error would be a panic of Raft's task, which its metrics tell.
        let _ = self.inner.raft.shutdown().await;
    }

    /// Whether this replica may campaign when time tells: one without room for an entry of its own would only hold its group up.
    pub fn let_campaign(&self, may: bool) {
        self.inner.raft.runtime_config().elect(may);
    }

    /// Whether this replica may propose, should it lead: not while so many voters have no room that nothing can be committed.
    pub fn let_propose(&self, may: bool) {
        self.inner.has_room.store(may, Ordering::Relaxed);
    }

    /// What takes in the messages of this replica's peers.
    pub fn endpoint(&self) -> Arc<dyn PeerEndpoint> {
        Arc::new(Endpoint { inner: self.inner.clone() })
    }
}

/// Follows who leads a group, as one replica sees it.
pub struct Leadership {
    changes: WatchReceiverOf<Types, RaftServerMetrics<Types>>,
}

impl Leadership {
    /// The term in which this replica leads; none if it does not. Other views of the group may be a moment older.
    pub fn led(&self) -> Option<u64> {
        let now = self.changes.borrow_watched();
        now.state.is_leader().then_some(now.vote.leader_id.term)
    }

    /// Whether a term in which this replica led is over, or it has stepped down in it.
    pub(super) fn is_past(&self, term: u64) -> bool {
        let now = self.changes.borrow_watched();
        let known = now.vote.leader_id.term;
        // Who has just been elected may still be seen before that; its vote is not committed then.
        known > term || known == term && now.vote.committed && !now.state.is_leader()
    }

    /// Waits for the next change of term, leader, role or membership; false once Raft no longer runs.
    pub async fn changed(&mut self) -> bool {
        self.changes.changed().await.is_ok()
    }
}

pub(super) fn leader_hint(forward: ForwardToLeader<Types>) -> Option<LeaderHint> {
    Some(LeaderHint { replica: forward.leader_id?, address: forward.leader_node? })
}

pub(super) fn stop_reason(fatal: &Fatal<Types>) -> StopReason {
    match fatal {
        Fatal::Stopped => StopReason::Shutdown,
        Fatal::Panicked => StopReason::Panicked,
        Fatal::StorageError(error) => StopReason::Storage(StorageFailure(error.to_string().into_boxed_str())),
    }
}
