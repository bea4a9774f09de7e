//! Owns the view of a group's machine that openraft applies to and takes snapshots of.
//!
//! - Each Raft entry is applied under the write lock in short pieces, between which readers are let in, then announced,
//!   then answered: whoever gets an answer finds its effect. openraft takes snapshots on the same task, so never in
//!   the middle of an entry.
//! - Snapshots are kept in memory. The log is never purged behind them, so a restart replays it.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{OptionalSend, RaftSnapshotBuilder};

use super::machine::{Machine, Shared};
use super::types::{LogId, Payload, Reply, Snapshot, SnapshotMeta, StoredMembership, Types};

/// A group's machine as openraft sees it.
pub(super) struct StateMachine<M> {
    shared: Arc<Shared<M>>,
    current: Option<Snapshot>,
}

impl<M> StateMachine<M> {
    pub fn new(shared: Arc<Shared<M>>) -> Self {
        Self { shared, current: None }
    }
}

impl<M: Machine> StateMachine<M> {
    /// Applies a batch in short pieces, so that neither readers nor the thread's other tasks wait for all of it.
    async fn apply_batch(&self, index: u64, batch: &[u8]) -> M::Outcome {
        let (mut work, mut goes_on) = self.shared.change(|state| {
            let mut work = state.machine.begin(index, batch);
            let goes_on = state.machine.go_on(&mut work);
            (work, goes_on)
        });
        while goes_on {
            tokio::task::yield_now().await;
            goes_on = self.shared.change(|state| state.machine.go_on(&mut work));
        }
        M::finish(work)
    }
}

impl<M: Machine> RaftStateMachine<Types> for StateMachine<M> {
    type SnapshotData = Bytes;
    type SnapshotBuilder = BuiltSnapshot;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let state = self.shared.read();
        Ok((state.log_id, state.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin + OptionalSend,
    {
        while let Some(item) = entries.next().await {
            let (entry, responder) = item?;
            let index = entry.log_id.index;
            let reply = match entry.payload {
                Payload::Blank => Reply::none(),
                Payload::Normal(batch) => Reply::outcome(self.apply_batch(index, &batch.0).await),
                Payload::Membership(membership) => {
                    let membership = StoredMembership::new(Some(entry.log_id), membership);
                    self.shared.change(|state| state.membership = membership);
                    Reply::none()
                }
            };
            // Last: a snapshot taken between two pieces would claim too much.
            self.shared.change(|state| state.log_id = Some(entry.log_id));
            self.shared.announce(index);
            if let Some(responder) = responder {
                responder.send(reply);
            }
        }
        Ok(())
    }

    async fn try_create_snapshot_builder(&mut self, _force: bool) -> Option<BuiltSnapshot> {
        Some(self.get_snapshot_builder().await)
    }

    /// Takes the snapshot here, between two applies: a builder that looked at the machine later could see more than
    /// openraft knows to be applied.
    async fn get_snapshot_builder(&mut self) -> BuiltSnapshot {
        let snapshot = {
            let state = self.shared.read();
            let meta = SnapshotMeta { last_log_id: state.log_id, last_membership: state.membership.clone() };
            Snapshot { meta, snapshot: state.machine.snapshot() }
        };
        self.current = Some(snapshot.clone());
        BuiltSnapshot(snapshot)
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: Bytes) -> io::Result<()> {
        self.shared.change(|state| {
            state.machine.restore(&snapshot).map_err(io::Error::other)?;
            state.log_id = meta.last_log_id;
            state.membership = meta.last_membership.clone();
            Ok::<_, io::Error>(())
        })?;
        if let Some(log_id) = meta.last_log_id {
            self.shared.announce(log_id.index);
        }
        self.current = Some(Snapshot { meta: meta.clone(), snapshot });
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        Ok(self.current.clone())
    }
}

/// A snapshot that was already taken when openraft asked for a builder.
pub(super) struct BuiltSnapshot(Snapshot);

impl RaftSnapshotBuilder<Types> for BuiltSnapshot {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        Ok(self.0.clone())
    }
}
