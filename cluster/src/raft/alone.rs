//! Owns whether a replica is alone in its group, so that nobody else can lead and nobody has to be asked or told.
//!
//! - It counts as alone only while the membership that it knows is committed and names nobody but it, it leads, and it
//!   has applied everything that was committed before.
//! - A change of the members ends that before it is proposed, and makes Raft's clock run again. So a read that was
//!   confirmed because the replica was alone was confirmed while nobody else could lead.
//! - While it is alone the clock stands still: an idle group costs nothing.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use openraft::async_runtime::watch::WatchReceiver;
use openraft::{RaftState, ReadPolicy};
use parking_lot::Mutex;

use super::error::ChangeError;
use super::group::Inner;
use super::machine::Machine;
use super::types::{ReplicaId, Types};

/// Whether a replica is alone.
#[derive(Debug, Default)]
pub(super) struct Alone {
    is_alone: AtomicBool,
    changes: Mutex<Changes>,
}

#[derive(Debug, Default)]
struct Changes {
    /// A change of the members is under way.
    is_changing: bool,
    /// How many have begun.
    begun: u64,
}

impl Alone {
    /// Whether nobody else can lead now.
    pub fn is_alone(&self) -> bool {
        self.is_alone.load(Ordering::SeqCst)
    }
}

/// A change of the members that is under way here; until it is dropped there is no other.
pub(super) struct Changing<M: Machine> {
    inner: Arc<Inner<M>>,
}

impl<M: Machine> Changing<M> {
    /// Begins a change: from now on reads ask a quorum, and the clock runs.
    pub fn begin(inner: &Arc<Inner<M>>) -> Result<Self, ChangeError> {
        let mut changes = inner.alone.changes.lock();
        if changes.is_changing {
            return Err(ChangeError::InProgress);
        }
        (changes.is_changing, changes.begun) = (true, changes.begun + 1);
        inner.alone.is_alone.store(false, Ordering::SeqCst);
        inner.set_clock();
        drop(changes);
        Ok(Self { inner: inner.clone() })
    }
}

impl<M: Machine> Drop for Changing<M> {
    fn drop(&mut self) {
        self.inner.alone.changes.lock().is_changing = false;
    }
}

/// Whether a replica leads, and the committed membership, after which there is no other, names nobody but it.
fn is_sole_member(state: &RaftState<Types>, replica: ReplicaId) -> bool {
    let (committed, effective) = (state.membership_state.committed(), state.membership_state.effective());
    committed.log_id() == effective.log_id()
        && effective.get_joint_config().iter().all(|voters| voters.iter().eq([&replica]))
        && effective.nodes().map(|(member, _)| member).eq([&replica])
}

/// Finds out whether the replica is alone now, and lets the clock stand still, or run.
pub(super) async fn settle<M: Machine>(inner: &Inner<M>) {
    let before = {
        let changes = inner.alone.changes.lock();
        if changes.is_changing {
            return;
        }
        changes.begun
    };
    let replica = inner.spec.replica;
    // Asks Raft itself, behind everything that was handed to it before: its metrics may be older.
    let sole = inner.raft.with_raft_state(move |state| is_sole_member(state, replica)).await;
    let sole = sole.unwrap_or(false) && inner.raft.is_leader();
    // Whoever has just been elected has still to apply what was committed before.
    let sole = sole
        && (inner.alone.is_alone() || inner.raft.ensure_linearizable(ReadPolicy::ReadIndex).await.is_ok());
    let changes = inner.alone.changes.lock();
    if changes.is_changing || changes.begun != before || inner.alone.is_alone() == sole {
        return;
    }
    inner.alone.is_alone.store(sole, Ordering::SeqCst);
    inner.set_clock();
}

/// Settles again whenever leadership or members change, until Raft no longer runs.
pub(super) async fn follow<M: Machine>(inner: Weak<Inner<M>>) {
    let Some(mut changes) = inner.upgrade().map(|inner| inner.raft.server_metrics()) else { return };
    loop {
        let Some(inner) = inner.upgrade() else { return };
        settle(&inner).await;
        drop(inner);
        if changes.changed().await.is_err() {
            return;
        }
    }
}
