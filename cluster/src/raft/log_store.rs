//! Owns the view of one group's Raft log that openraft reads and writes: an adapter over the node's log.
//!
//! - Votes, entries, truncations and purges go through the same queue of the node's log, in order.
//! - What was committed is never truncated, and at open the log reaches at least to what it once called committed:
//!   both are checked in release builds, since openraft only has debug assertions for them.
//! - On a full disk nothing fails: the write waits until there is room, because an error here would end the group. Raft
//!   does nothing else meanwhile, so entries are refused before it sees them, [the log is let go](LogStore::let_go) past it, and a group that stops waits no longer.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use fanfold_storage::log::{Completion, GroupId, Log, LogError, Record};
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::{OptionalSend, RaftLogReader};
use thiserror::Error;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::codec::{self, CodecError, LogIdBytes, VoteBytes};
use super::types::{Entry, LogId, Types, Vote};
use crate::blocking::in_background;

/// The most bytes of entries read at once for a peer; a single larger entry is still read.
pub const READ_BYTES_MAX: u64 = 256 << 10;

/// How often a write looks again whether a full disk has room.
const FULL_DISK_RETRY_MS: u64 = 100;

/// Why a group's Raft log cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LogStoreError {
    /// The node's log refused or failed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// What the log holds of this group is not what this program writes.
    #[error("a record of the group is malformed: {0}")]
    Record(#[from] CodecError),
    /// The log ends before a position that it once called committed: acknowledged entries are gone.
    #[error(
        "the log ends at index {last:?}, but index {committed} was committed; rebuild this replica under a new id"
    )]
    Reverted {
        /// The last index there is.
        last: Option<u64>,
        /// The committed index that is missing.
        committed: u64,
    },
    /// Raft wanted to remove entries that are committed.
    #[error("truncating after index {after:?} would remove committed entries up to index {committed}")]
    TruncatesCommitted {
        /// The last index that would stay.
        after: Option<u64>,
        /// The committed index.
        committed: u64,
    },
    /// Entries that the log should hold are missing.
    #[error("entry {index} is missing")]
    Missing {
        /// The first one that is missing.
        index: u64,
    },
}

/// One group's Raft log. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct LogStore {
    log: Log,
    group: GroupId,
    /// The last committed index that this process knows of.
    committed: Option<u64>,
    /// Nobody waits for room any longer.
    closing: CancellationToken,
}

impl LogStore {
    /// Opens the log of a group, which may be empty.
    pub fn open(log: Log, group: GroupId) -> Result<Self, LogStoreError> {
        let mut store = Self { log, group, committed: None, closing: CancellationToken::new() };
        let committed = store.committed()?;
        let last = store.state()?.last_log_id.map(|id| id.index);
        if let Some(committed) = committed
            && last < Some(committed.index)
        {
            return Err(LogStoreError::Reverted { last, committed: committed.index });
        }
        store.committed = committed.map(|id| id.index);
        Ok(store)
    }

    /// Up to where the log knows to be committed.
    pub fn committed(&self) -> Result<Option<LogId>, LogStoreError> {
        let committed = self.log.group_state(self.group)?.committed;
        Ok(committed.map(|bytes| codec::decode::<LogIdBytes>(&bytes)).transpose()?.map(LogId::from))
    }

    fn vote(&self) -> Result<Option<Vote>, LogStoreError> {
        let vote = self.log.group_state(self.group)?.vote;
        Ok(vote.map(|bytes| codec::decode::<VoteBytes>(&bytes)).transpose()?.map(Vote::from))
    }

    fn state(&self) -> Result<LogState<Types>, LogStoreError> {
        let state = self.log.group_state(self.group)?;
        let purged = match state.purged {
            Some((_, bytes)) => Some(LogId::from(codec::decode::<LogIdBytes>(&bytes)?)),
            None => None,
        };
        let last = match state.last {
            Some(index) => Some(self.entry(index)?.log_id),
            None => purged,
        };
        Ok(LogState { last_purged_log_id: purged, last_log_id: last })
    }

    fn entry(&self, index: u64) -> Result<Entry, LogStoreError> {
        self.entries(index, index + 1, u64::MAX)?.pop().ok_or(LogStoreError::Missing { index })
    }

    /// The entries from `start` to before `end`, as far as there are any and `bytes_max` allows. Older ones come from disk, on a
    /// thread that gives way: the calling one serves other groups as well.
    pub async fn read(&self, start: u64, end: u64, bytes_max: u64) -> Result<Vec<Entry>, LogStoreError> {
        if start >= end {
            return Ok(Vec::new());
        }
        let in_memory = self.log.read_in_memory(self.group, start..end, bytes_max)?;
        if let Some(entries) = in_memory.filter(|entries| !entries.is_empty()) {
            return Ok(decoded(&entries)?);
        }
        let store = self.clone();
        let read = in_background(move || store.entries(start, end, bytes_max)).await;
        read.unwrap_or(Err(LogStoreError::Log(LogError::Closed)))
    }

    /// The same on this thread.
    fn entries(&self, start: u64, end: u64, bytes_max: u64) -> Result<Vec<Entry>, LogStoreError> {
        let mut entries = self.log.read(self.group, start..end, bytes_max)?;
        if entries.is_empty() {
            // What lies before the first entry there is, because it was purged, is no hole.
            let first = self.log.group_state(self.group)?.first;
            if start < first && first < end {
                entries = self.log.read(self.group, first..end, bytes_max)?;
            }
        }
        Ok(decoded(&entries)?)
    }

    /// The last log id and the vote.
    pub fn ends(&self) -> Result<(Option<LogId>, Option<Vote>), LogStoreError> {
        Ok((self.state()?.last_log_id, self.vote()?))
    }

    /// Waits until everything that was submitted before is durable.
    pub async fn settled(&self) -> Result<(), LogStoreError> {
        self.write(Vec::new()).await
    }

    /// Writes records and waits until they are durable.
    pub async fn write(&self, records: Vec<Record>) -> Result<(), LogStoreError> {
        let (done, durable) = oneshot::channel();
        let done: Completion = Box::new(move |result| {
            // The receiver is gone only if the group was stopped meanwhile.
            let _ = done.send(result);
        });
        self.submit(records, Some(done)).await?;
        Ok(durable.await.map_err(|_| LogError::Closed)??)
    }

    /// Lets the log go up to an index that a durable snapshot has, while Raft waits for room and cannot: what Raft is
    /// told to purge it purges again.
    pub fn let_go(&self, index: u64) -> Result<(), LogStoreError> {
        let log_id = match self.entry(index) {
            Ok(entry) => entry.log_id,
            Err(LogStoreError::Missing { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        self.log.submit(vec![self.purged(log_id)?], None)?;
        Ok(())
    }

    /// From now on no write waits for room: it fails, which ends the group.
    pub fn close(&self) {
        self.closing.cancel();
    }

    fn purged(&self, log_id: LogId) -> Result<Record, CodecError> {
        let data = codec::encode(&LogIdBytes::from(&log_id))?;
        Ok(Record::Purge { group: self.group, index: log_id.index, data })
    }

    /// Submits records; waits while the disk is full.
    async fn submit(&self, records: Vec<Record>, done: Option<Completion>) -> Result<(), LogStoreError> {
        // The log drops a completion that it does not take, so what it would run is kept here for the next attempt.
        let done = done.map(|done| Arc::new(Mutex::new(Some(done))));
        loop {
            let attempt = done.clone().map(|slot| {
                Box::new(move |result| {
                    let taken = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
                    if let Some(done) = taken {
                        done(result);
                    }
                }) as Completion
            });
            match self.log.submit(records.clone(), attempt) {
                Ok(()) => return Ok(()),
                Err(LogError::DiskFull { source }) => {
                    tracing::warn!(group = self.group.0, %source, "no room for the log; waiting for some");
                    // Nobody tells when a disk has room again.
                    let retry = tokio::time::sleep(Duration::from_millis(FULL_DISK_RETRY_MS));
                    if self.closing.run_until_cancelled(retry).await.is_none() {
                        return Err(LogError::Closed.into());
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn decoded(entries: &[(u64, Bytes)]) -> Result<Vec<Entry>, CodecError> {
    entries.iter().map(|(index, bytes)| codec::decode_entry(*index, bytes)).collect()
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<Entry>>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(before) => before + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(last) => last.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        self.read(start, end, u64::MAX).await.map_err(io::Error::other)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        self.vote().map_err(io::Error::other)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        let entries = self.read(start, end, READ_BYTES_MAX).await.map_err(io::Error::other)?;
        if entries.is_empty() && start < end {
            return Err(io::Error::other(LogStoreError::Missing { index: start }));
        }
        Ok(entries)
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        self.state().map_err(io::Error::other)
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let data = codec::encode(&VoteBytes::from(vote)).map_err(io::Error::other)?;
        let (done, durable) = oneshot::channel();
        let done: Completion = Box::new(move |result| {
            // The receiver is gone only if the group was stopped meanwhile.
            let _ = done.send(result);
        });
        let record = Record::Vote { group: self.group, data };
        self.submit(vec![record], Some(done)).await.map_err(io::Error::other)?;
        durable.await.map_err(|_| io::Error::other(LogError::Closed))?.map_err(io::Error::other)
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        let Some(committed) = committed else { return Ok(()) };
        let data = codec::encode(&LogIdBytes::from(&committed)).map_err(io::Error::other)?;
        // A hint: it must not cost an fsync, and losing it is harmless.
        self.submit(vec![Record::Committed { group: self.group, data }], None)
            .await
            .map_err(io::Error::other)?;
        self.committed = self.committed.max(Some(committed.index));
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        self.committed().map_err(io::Error::other)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        // Made in one expression, because the iterator must not be held across the await.
        let records: Result<Vec<Record>, CodecError> = entries
            .into_iter()
            .map(|entry| {
                let data: Bytes = codec::encode_entry(&entry)?;
                Ok(Record::Append { group: self.group, index: entry.log_id.index, data })
            })
            .collect();
        let records = records.map_err(io::Error::other)?;
        let done: Completion =
            Box::new(move |result| callback.io_completed(result.map_err(io::Error::other)));
        self.submit(records, Some(done)).await.map_err(io::Error::other)
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> io::Result<()> {
        let after = last_log_id.map(|id| id.index);
        if let Some(committed) = self.committed
            && after < Some(committed)
        {
            return Err(io::Error::other(LogStoreError::TruncatesCommitted { after, committed }));
        }
        // Durable with the next append or vote, before either is answered.
        let record = Record::TruncateAfter { group: self.group, index: after };
        self.submit(vec![record], None).await.map_err(io::Error::other)
    }

    async fn purge(&mut self, log_id: LogId) -> io::Result<()> {
        let record = self.purged(log_id).map_err(io::Error::other)?;
        self.submit(vec![record], None).await.map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use fanfold_storage::fs::FaultFs;
    use openraft::type_config::TypeConfigExt;

    use super::super::testing::{GROUP, open_memory_log};
    use super::super::types::{Batch, LeaderId, Payload, ReplicaId};
    use super::*;

    fn log_id(index: u64) -> LogId {
        LogId::new(LeaderId { term: 1, node_id: ReplicaId(1) }, index)
    }

    fn entry(index: u64, bytes: usize) -> Entry {
        Entry { log_id: log_id(index), payload: Payload::Normal(Batch(Bytes::from(vec![7; bytes]))) }
    }

    async fn append(store: &mut LogStore, entries: Vec<Entry>) {
        let (done, durable) = <Types as TypeConfigExt>::oneshot();
        store.append(entries, IOFlushed::signal(done)).await.unwrap();
        durable.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn committed_entries_are_never_truncated() {
        let mut store = LogStore::open(open_memory_log(&FaultFs::new()), GROUP).unwrap();
        append(&mut store, (0..5).map(|index| entry(index, 1)).collect()).await;
        store.save_committed(Some(log_id(2))).await.unwrap();
        assert!(store.truncate_after(Some(log_id(1))).await.is_err());
        assert!(store.truncate_after(None).await.is_err());
        assert_eq!(store.get_log_state().await.unwrap().last_log_id, Some(log_id(4)));
        store.truncate_after(Some(log_id(2))).await.unwrap();
        assert_eq!(store.get_log_state().await.unwrap().last_log_id, Some(log_id(2)));
    }

    #[tokio::test]
    async fn a_log_shorter_than_what_it_committed_is_refused() {
        let log = open_memory_log(&FaultFs::new());
        let mut store = LogStore::open(log.clone(), GROUP).unwrap();
        append(&mut store, (0..5).map(|index| entry(index, 1)).collect()).await;
        store.save_committed(Some(log_id(4))).await.unwrap();
        LogStore::open(log.clone(), GROUP).unwrap();
        // What a disk that forgot its end would look like.
        log.submit(vec![Record::TruncateAfter { group: GROUP, index: Some(1) }], None).unwrap();
        let refused = LogStore::open(log, GROUP).unwrap_err();
        assert!(matches!(refused, LogStoreError::Reverted { last: Some(1), committed: 4 }), "{refused}");
    }

    #[tokio::test]
    async fn votes_and_positions_come_back_after_power_loss() {
        let disk = FaultFs::new();
        let mut store = LogStore::open(open_memory_log(&disk), GROUP).unwrap();
        let vote = Vote::new_committed(4, ReplicaId(2));
        store.save_committed(Some(log_id(0))).await.unwrap();
        append(&mut store, vec![entry(0, 1)]).await;
        store.save_vote(&vote).await.unwrap();
        let disk = disk.lose_power(fanfold_storage::fs::PowerLoss::LoseAll);
        let mut store = LogStore::open(open_memory_log(&disk), GROUP).unwrap();
        assert_eq!(store.read_vote().await.unwrap(), Some(vote));
        assert_eq!(store.read_committed().await.unwrap(), Some(log_id(0)));
    }

    #[tokio::test]
    async fn reads_for_a_peer_are_bounded_in_bytes() {
        let mut store = LogStore::open(open_memory_log(&FaultFs::new()), GROUP).unwrap();
        append(&mut store, (0..6).map(|index| entry(index, 400 << 10)).collect()).await;
        let limited = store.limited_get_log_entries(1, 6).await.unwrap();
        assert!((1..=3).contains(&limited.len()), "{} entries", limited.len());
        assert_eq!(limited[0], entry(1, 400 << 10));
        assert_eq!(store.try_get_log_entries(1..6).await.unwrap().len(), 5);
        assert!(store.limited_get_log_entries(6, 9).await.is_err(), "openraft must not get nothing");
    }
}
