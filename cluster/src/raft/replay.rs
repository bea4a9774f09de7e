//! Owns the replay of a group's log at a start: what the log knows to be committed is applied before Raft runs.
//!
//! - It is read in pieces of bounded size, one ahead of what is applied: Raft itself would read many entries at once, however large
//!   they are, of all groups together.
//! - Somebody flushes meanwhile, so that a start takes no more memory than the run before it.

use std::sync::Arc;

use futures_util::stream;
use openraft::storage::RaftStateMachine;

use super::error::{OpenError, StopReason};
use super::files::{FileSettings, GroupFiles};
use super::flush::flush_meanwhile;
use super::log_store::{LogStore, LogStoreError, READ_BYTES_MAX};
use super::machine::{Machine, Shared};
use super::state_machine::StateMachine;
use super::types::Entry;

/// Applies what is committed behind what `machine` has applied. By these settings is flushed what that fills; without any, nobody does.
pub(super) async fn replay<M: Machine>(
    store: &LogStore,
    machine: &mut StateMachine<M>,
    (shared, files): (&Arc<Shared<M>>, &GroupFiles),
    flushes: Option<FileSettings>,
) -> Result<(), OpenError> {
    let Some(committed) = store.committed()? else { return Ok(()) };
    let next = shared.read().log_id.map_or(0, |applied| applied.index + 1);
    let applied =
        flush_meanwhile(shared, files, flushes, apply(store, machine, next, committed.index + 1)).await;
    if applied.is_err() {
        // Nobody writes into the directory any more when this returns: it may be cleared next.
        drop(shared.flushing.lock().await);
    }
    applied
}

/// Applies the entries from `next` to before `end`.
async fn apply<M: Machine>(
    store: &LogStore,
    machine: &mut StateMachine<M>,
    next: u64,
    end: u64,
) -> Result<(), OpenError> {
    let mut ahead = read(store, next, end).await?;
    while let Some(last) = ahead.last().map(|entry| entry.log_id.index) {
        let entries = stream::iter(ahead.into_iter().map(|entry| Ok((entry, None))));
        // The first begins to read before the other applies.
        let (read, applied) = tokio::join!(read(store, last + 1, end), machine.apply(entries));
        applied.map_err(|_| OpenError::Stopped { reason: StopReason::Panicked })?;
        ahead = read?;
    }
    Ok(())
}

/// The next entries; none at the end.
async fn read(store: &LogStore, next: u64, end: u64) -> Result<Vec<Entry>, LogStoreError> {
    let entries = store.read(next, end, READ_BYTES_MAX).await?;
    let first = entries.first().map(|entry| entry.log_id.index);
    if next < end && first != Some(next) {
        return Err(LogStoreError::Missing { index: next });
    }
    Ok(entries)
}
