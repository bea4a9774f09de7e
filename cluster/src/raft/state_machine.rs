//! Owns the view of a group's machine that openraft applies to and takes snapshots of.
//!
//! - Each Raft entry is applied under the write lock in short pieces, between which readers are let in, then announced,
//!   then answered: whoever gets an answer finds its effect. openraft takes snapshots on the same task, so never in
//!   the middle of an entry.
//! - Whoever would change more than a cut may save, or add to more than may wait to be flushed, waits for the cut or the flush, which
//!   wait for nothing that is applied.
//! - Snapshots are taken beside it ([`snapshot`](super::snapshot)); openraft is offered what is on disk.

use std::io;
use std::sync::Arc;

use futures_util::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{OptionalSend, RaftSnapshotBuilder};

use super::files::{FileError, GroupFiles};
use super::log_store::LogStore;
use super::machine::{Machine, Shared};
use super::snapshot::{Current, SnapshotData, StoredSnapshot, write_cut};
use super::types::{
    Batch, LogId, Payload, ReplicaId, Reply, Snapshot, SnapshotMeta, StoredMembership, Types,
};
use crate::blocking::filling;

/// A group's machine as openraft sees it.
pub(super) struct StateMachine<M: Machine> {
    own: ReplicaId,
    shared: Arc<Shared<M>>,
    files: GroupFiles,
    current: Arc<Current>,
    log: LogStore,
}

impl<M: Machine> StateMachine<M> {
    pub fn new(
        own: ReplicaId,
        shared: Arc<Shared<M>>,
        files: GroupFiles,
        current: Arc<Current>,
        log: LogStore,
    ) -> Self {
        Self { own, shared, files, current, log }
    }

    /// Whether this replica votes, by the membership that is applied.
    fn votes(&self) -> bool {
        self.shared.read().membership.voter_ids().any(|voter| voter == self.own)
    }
}

impl<M: Machine> StateMachine<M> {
    /// Begins a cut, which is between two entries because this task is.
    pub fn begin_cut(&self) -> Option<SnapshotMeta> {
        self.shared.begin_cut()
    }

    /// Applies a batch in short pieces, so that neither readers nor the thread's other tasks wait for all of it. The second: whether
    /// the next has to wait.
    async fn apply_batch(&self, index: u64, batch: &[u8]) -> (M::Outcome, bool) {
        let (mut work, mut goes_on, mut waits) = self.shared.apply(|state| {
            let mut work = state.machine.begin(index, batch);
            let goes_on = state.machine.go_on(&mut work);
            (work, goes_on, self.shared.must_wait(&mut state.machine))
        });
        while goes_on {
            tokio::task::yield_now().await;
            if waits {
                self.shared.catches_up().await;
            }
            (goes_on, waits) = self
                .shared
                .apply(|state| (state.machine.go_on(&mut work), self.shared.must_wait(&mut state.machine)));
        }
        (M::finish(work), waits)
    }

    /// Applies a batch to a replica that is being filled: it has much to apply and serves nobody yet, so that it gives way to
    /// those that do.
    async fn apply_filling(&self, index: u64, batch: Batch) -> io::Result<(M::Outcome, bool)> {
        let _held = self.shared.fill().await;
        let shared = self.shared.clone();
        let applied = filling(move || {
            let (mut work, mut goes_on) = shared.apply(|state| {
                let mut work = state.machine.begin(index, &batch.0);
                let goes_on = state.machine.go_on(&mut work);
                (work, goes_on)
            });
            while goes_on {
                goes_on = shared.apply(|state| state.machine.go_on(&mut work));
            }
            let waits = shared.change(|state| shared.must_wait(&mut state.machine));
            (M::finish(work), waits)
        });
        applied.await.map_err(io::Error::other)
    }
}

impl<M: Machine> RaftStateMachine<Types> for StateMachine<M> {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = BuiltSnapshot;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let state = self.shared.read();
        Ok((state.log_id, state.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin + OptionalSend,
    {
        let mut votes = self.votes();
        while let Some(item) = entries.next().await {
            let (entry, responder) = item?;
            let index = entry.log_id.index;
            let mut waits = false;
            let reply = match entry.payload {
                Payload::Blank => Reply::none(),
                Payload::Normal(batch) => {
                    let outcome;
                    (outcome, waits) = if votes {
                        self.apply_batch(index, &batch.0).await
                    } else {
                        self.apply_filling(index, batch).await?
                    };
                    Reply::outcome(outcome)
                }
                Payload::Membership(membership) => {
                    let membership = StoredMembership::new(Some(entry.log_id), membership);
                    self.shared.change(|state| state.membership = membership);
                    votes = self.votes();
                    Reply::none()
                }
            };
            // Last: a snapshot taken between two pieces would claim too much.
            self.shared.change(|state| state.log_id = Some(entry.log_id));
            self.shared.announce(index);
            if let Some(responder) = responder {
                responder.send(reply);
            }
            if waits {
                self.shared.catches_up().await;
            }
        }
        Ok(())
    }

    /// Offers the newest snapshot that is on disk; taking one is not openraft's to order, except at a start without any.
    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<BuiltSnapshot> {
        if force {
            return Some(self.get_snapshot_builder().await);
        }
        self.current.get().map(|(stored, meta)| BuiltSnapshot(Ok((stored, meta))))
    }

    /// Takes a snapshot here and now, between two applies. Only openraft's own tests ask for it.
    async fn get_snapshot_builder(&mut self) -> BuiltSnapshot {
        let meta = self.shared.begin_cut();
        let meta = meta.unwrap_or_default();
        let taken = write_cut(&self.shared, &self.files, None, &meta).await.map(|manifest| {
            let stored = StoredSnapshot::new(&self.files, manifest);
            self.current.set(stored.clone(), meta.clone());
            (stored, meta)
        });
        BuiltSnapshot(taken.map_err(io::Error::other))
    }

    /// Puts a snapshot in place. openraft has handed everything to the log that goes before; it is made durable first,
    /// because a log that contradicts the snapshot must not come back behind it.
    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotData) -> io::Result<()> {
        self.log.settled().await.map_err(io::Error::other)?;
        // What comes of a flush is of the state that is replaced.
        let _flushing = self.shared.flushing.lock().await;
        let (shared, files, current, meta) =
            (self.shared.clone(), self.files.clone(), self.current.clone(), meta.clone());
        let installed = filling(move || {
            let (manifest, _turn) = snapshot.adopt::<M>(&files)?;
            // Reads go on with the state that is there, which is as old as it says.
            let restoring = shared.read().machine.restoring(manifest.clone());
            let install = restoring(&files)?;
            let before = shared.change(|state| {
                let before = install(&mut state.machine);
                state.log_id = meta.last_log_id;
                state.membership = meta.last_membership.clone();
                before
            });
            drop(before);
            if let Some(log_id) = meta.last_log_id {
                shared.announce(log_id.index);
            }
            current.set(StoredSnapshot::new(&files, manifest), meta);
            Ok::<_, FileError>(())
        });
        installed.await.map_err(io::Error::other)?.map_err(io::Error::other)
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        let current = self.current.get();
        Ok(current.map(|(stored, meta)| Snapshot { meta, snapshot: SnapshotData::Stored(stored) }))
    }
}

/// A snapshot that was already taken when openraft asked for a builder.
pub(super) struct BuiltSnapshot(io::Result<(StoredSnapshot, SnapshotMeta)>);

impl RaftSnapshotBuilder<Types> for BuiltSnapshot {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        match &self.0 {
            Ok((stored, meta)) => {
                Ok(Snapshot { meta: meta.clone(), snapshot: SnapshotData::Stored(stored.clone()) })
            }
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        }
    }
}
