//! Owns one replica of a partition with the tasks that a node runs for it, for simulations that bring their own network,
//! disk and clock, and no node around them.
//!
//! - All of it is what a node hosts; only who carries its messages, and what makes its stamps and batches, is the caller's.

use std::sync::Arc;
use std::time::Duration;

use fanfold_storage::command::{Command, Outcome};
use fanfold_storage::event::{StreamAnswer, StreamMessage};
use fanfold_storage::ids::PartitionId;
use fanfold_storage::log::Log;
use fanfold_storage::partition::Partition;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::clock::{Clock, StampSource, Stamps};
use crate::dispatcher::{Dispatcher, DispatcherSettings, StreamError, StreamTransport};
use crate::error::NodeError;
use crate::map::Whereabouts;
use crate::partition::{PartitionHandle, PartitionMachine, ReceiveError, background, receive, run_ticker};
use crate::proposer::{BatchEncoder, Proposer};
use crate::raft::{
    FileError, FileSettings, Group, GroupDirectory, GroupMetrics, GroupSpec, OpenError, PeerEndpoint,
    PeerTransport, RaftSettings, StopReason,
};

/// One replica of a partition. Its tasks end with it.
pub struct Replica {
    handle: Arc<PartitionHandle>,
    _stop: DropGuard,
}

/// What a replica is opened with, beside its place.
pub struct Means<E, S> {
    /// The number of partitions.
    pub partitions: u16,
    /// Times of elections and heartbeats.
    pub raft: RaftSettings,
    /// Carries Raft's messages.
    pub peers: Arc<dyn PeerTransport>,
    /// Carries the messages of streams.
    pub streams: Arc<dyn StreamTransport>,
    /// What the ticker waits by.
    pub clock: Arc<dyn Clock>,
    /// Makes batches.
    pub encoder: E,
    /// Makes stamps.
    pub stamps: S,
    /// Events a journal keeps for a destination that does not answer.
    pub journal_events_max: usize,
}

impl Replica {
    /// Opens a replica and starts its proposer, ticker and dispatcher.
    pub async fn open<E: BatchEncoder, S: StampSource>(
        id: PartitionId,
        log: Log,
        spec: GroupSpec,
        directory: GroupDirectory,
        means: Means<E, S>,
    ) -> Result<Self, OpenError> {
        let machine = PartitionMachine::new(id, means.partitions);
        let loading = directory.load(spec.group, machine);
        let group = Group::open(log, spec, loading, &means.raft, means.peers).await?;
        let last_ms = group.read(|machine| machine.state_as_is().stamp().0);
        let proposer = Proposer::spawn(group.clone(), means.encoder, means.stamps, background(&group));
        let handle = Arc::new(PartitionHandle::new(id, group, proposer, Arc::<Whereabouts>::default()));
        let stop = CancellationToken::new();
        let stamps = Arc::new(Stamps::new(means.clock.clone(), last_ms));
        tokio::spawn(run_ticker(handle.clone(), stamps, means.clock, stop.clone()));
        let settings = DispatcherSettings { journal_events_max: means.journal_events_max };
        tokio::spawn(Dispatcher::new(handle.clone(), means.streams, settings).run(stop.clone()));
        Ok(Self { handle, _stop: stop.drop_guard() })
    }

    /// What takes in the messages of its peers.
    pub fn endpoint(&self) -> Arc<dyn PeerEndpoint> {
        self.handle.group().endpoint()
    }

    /// What it knows about its group.
    pub fn metrics(&self) -> GroupMetrics {
        self.handle.group().metrics()
    }

    /// Waits until Raft no longer runs, and says why.
    pub async fn stopped(&self) -> StopReason {
        self.handle.group().stopped().await
    }

    /// Proposes a command and waits until it is applied: its index, and what it came to.
    pub async fn propose(&self, command: &Command) -> Result<(u64, Outcome), NodeError> {
        self.handle.propose(command).await
    }

    /// Takes in a message of a stream.
    pub async fn receive(&self, message: StreamMessage) -> Result<StreamAnswer, StreamError> {
        let destination = self.handle.id();
        receive(&self.handle, message).await.map_err(|error| match error {
            ReceiveError::UnknownSpace { .. } => StreamError::UnknownSpace { destination },
            ReceiveError::Node(_) => StreamError::Unavailable { destination },
        })
    }

    /// Confirms that what is read from now on includes everything that was answered before.
    pub async fn confirm(&self) -> Result<(), NodeError> {
        self.handle.confirm().await
    }

    /// Reads what is applied; an error if it is damaged.
    pub fn read<T>(&self, read: impl FnOnce(&Partition) -> T) -> Result<T, NodeError> {
        self.handle.read(read)
    }

    /// Does the work on files that is due, and takes a snapshot, behind which the log goes.
    pub async fn keep_up(&self, files: &FileSettings) -> Result<(), FileError> {
        let group = self.handle.group();
        let turn = group.turn().await;
        while group.flush(files).await? {}
        while let Some(work) = group.change(|machine| crate::raft::Machine::file_work(machine, files)).await {
            group.work(&turn, work).await?;
        }
        group.snapshot(&turn).await.map(|_| ())
    }

    /// Stops Raft, as at a clean stop.
    pub async fn shutdown(&self, deadline: Duration) {
        let _late = tokio::time::timeout(deadline, self.handle.group().shutdown()).await;
    }
}
