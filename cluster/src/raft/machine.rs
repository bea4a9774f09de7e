//! Owns what a replicated machine is to its group, and the lock that applies and reads share.

use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use thiserror::Error;
use tokio::sync::watch;

use super::types::{LogId, StoredMembership};

/// A deterministic state machine that a group replicates.
///
/// Its state is a function of the batches applied to it and nothing else: no clock, no randomness.
pub trait Machine: Send + Sync + 'static {
    /// What one batch answers: everything its commands' senders wait for.
    type Outcome: Send + Sync + 'static;

    /// Applies the batch of the Raft entry at `index`. Runs under the write lock; must not wait for anything.
    fn apply(&mut self, index: u64, batch: &[u8]) -> Self::Outcome;

    /// The whole state as bytes.
    fn snapshot(&self) -> Bytes;

    /// Replaces the whole state by that of a snapshot. On an error the state is as it was.
    fn restore(&mut self, bytes: &[u8]) -> Result<(), RestoreError>;
}

/// Why a snapshot was not restored.
#[derive(Debug, Error)]
#[error("the snapshot of {bytes} bytes cannot be restored: {source}")]
pub struct RestoreError {
    /// Its size.
    pub bytes: u64,
    /// What is wrong with it.
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// A machine with the position it has applied up to, shared by Raft and by readers.
pub(super) struct Shared<M> {
    state: RwLock<Applied<M>>,
    index: watch::Sender<u64>,
}

/// A machine and where in the log it stands; under one lock, so that a snapshot is of one moment.
pub(super) struct Applied<M> {
    pub machine: M,
    pub log_id: Option<LogId>,
    pub membership: StoredMembership,
}

impl<M> Shared<M> {
    pub fn new(machine: M) -> Self {
        let state = Applied { machine, log_id: None, membership: StoredMembership::default() };
        Self { state: RwLock::new(state), index: watch::Sender::new(0) }
    }

    /// Locks for reading. The guard must not be held across an await.
    pub fn read(&self) -> RwLockReadGuard<'_, Applied<M>> {
        self.state.read().expect("a panic while applying leaves half a state, which nobody may read")
    }

    /// Locks for reading unless a batch is being applied right now.
    pub fn try_read(&self) -> Option<RwLockReadGuard<'_, Applied<M>>> {
        self.state.try_read().ok()
    }

    /// Locks for applying.
    pub fn write(&self) -> RwLockWriteGuard<'_, Applied<M>> {
        self.state.write().expect("a panic while applying leaves half a state, which nobody may change")
    }

    /// Tells those who wait that everything up to `index` is applied.
    pub fn announce(&self, index: u64) {
        self.index.send_replace(index);
    }

    /// The applied index; 0 before the first batch, since index 0 never holds one.
    pub fn applied_index(&self) -> u64 {
        *self.index.borrow()
    }

    /// Follows the applied index.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.index.subscribe()
    }
}
