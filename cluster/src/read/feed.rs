//! Owns the merged read of a feed: slices of the reader's partition, and below its floors the owners' timelines.
//!
//! - A round takes a slice, asks each owner's partition once, and accepts what is above the bound to which all of
//!   them are complete; rounds go on until the page is full or the true end is reached.
//! - Each round lowers the bound, so that a page that is short can always be continued.
//! - Where a partition does not answer, a page ends if there is anything above that gap, and the next one begins there. A page
//!   that has nothing above it shows what is known below, so that nobody's dead partition blocks it. Without an end in sight
//!   it is never the last one: a page that comes back empty where it began says that there is a gap still.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use fanfold_storage::entry::Delivery;
use fanfold_storage::ids::{EntryId, PartitionId, RowPosition, SpaceId, UserId};
use fanfold_storage::partition::{FeedQuery, FeedSlice, RemoteSource};
use tokio::time::Instant;

use super::ask::{Asker, OwnersQuery};
use super::hydrate::{Hydrated, hydrate};
use super::request::{FeedRequest, Mark};
use super::view::{Budget, EntryView, Page, ShortReason};
use crate::error::NodeError;
use crate::partition::{PartitionHandle, position_of};
use crate::phases::RequestPhase;

/// Owners asked after which no further round begins. A round always asks all it needs, or a reader of more owners
/// than this could never go on.
const OWNERS_ASKED_MAX: usize = 4_096;

/// The most rounds of one read.
const ROUNDS_MAX: u32 = 64;

/// Entries asked of each partition at a time to count what is new.
const NEWS_LIMIT: usize = 1_000;

/// One read of a feed.
pub(crate) struct FeedRead<'a> {
    asker: Asker<'a>,
    home: &'a PartitionHandle,
    space: SpaceId,
    reader: UserId,
    limit: usize,
    hydrate: bool,
    /// Bytes of payloads that may still be shown.
    bytes_left: usize,
    shown: Vec<EntryView>,
    /// Entries that their owners' homes told, beside those that were delivered.
    told: BTreeSet<EntryId>,
    /// Below it, there may be more of owners whose partitions did not answer, or were not asked.
    gap: EntryId,
    unreachable: BTreeSet<PartitionId>,
    short_of: BTreeSet<ShortReason>,
    owners_asked: usize,
    rounds: u32,
}

/// What one round found.
struct Round {
    /// Newest first, all with ids at or above the bound.
    rows: Vec<Delivery>,
    /// Down to it, these are all; zero is the true end.
    bound: EntryId,
}

/// Reads a feed at the reader's home, which was confirmed; a page of about `bytes_max` bytes of payloads at most.
pub(crate) async fn read_feed(
    asker: Asker<'_>,
    home: &PartitionHandle,
    request: &FeedRequest,
    bytes_max: usize,
) -> Result<Page, NodeError> {
    let (space, reader, below) = (request.space, request.reader, request.below);
    // One more than needed tells whether the page is the last one.
    let query = FeedQuery { space, reader, below, limit: request.limit as usize + 1 };
    let (mark, position, first) = home.read(|state| {
        let (row, id_bound) = state.feed_mark();
        let (partition, incarnation) = (state.id(), state.incarnation());
        let mark = Mark { partition, incarnation, row, id_bound };
        let first = request.newer_than.is_none().then(|| state.feed_slice(&query));
        if let Some(Ok(slice)) = &first {
            home.activity().note(reader, slice.active);
        }
        (mark, position_of(state), first)
    })?;
    let first = first.transpose().map_err(NodeError::refused)?;
    let mut read = FeedRead {
        asker,
        home,
        space,
        reader,
        limit: request.limit as usize,
        hydrate: request.hydrate,
        bytes_left: bytes_max.max(1),
        shown: Vec::new(),
        told: BTreeSet::new(),
        gap: EntryId::ZERO,
        unreachable: BTreeSet::new(),
        short_of: BTreeSet::new(),
        owners_asked: 0,
        rounds: 0,
    };
    let (bound, new_count) = match request.newer_than {
        None => (read.scan(below, first).await?, None),
        Some(since) => {
            let (bound, count) = read.news(since, &mark, below).await?;
            (bound, Some(count))
        }
    };
    let next = read.next(below, bound);
    Ok(Page {
        entries: read.shown,
        next,
        complete_to: bound.max(read.gap),
        short_of: read.short_of.into_iter().collect(),
        mark: Some(mark),
        new_count,
        position,
    })
}

impl FeedRead<'_> {
    /// Fills the page with ids below `below`; returns the bound down to which it is complete. `first` is the slice of
    /// the first round, if it was taken already.
    async fn scan(&mut self, mut below: EntryId, mut first: Option<FeedSlice>) -> Result<EntryId, NodeError> {
        loop {
            let started = Instant::now();
            let round = self.round(below, first.take()).await?;
            self.asker.phases().note(RequestPhase::Merge, started.elapsed());
            let is_more = self.accept(&round.rows).await?;
            if is_more || (self.shown.len() == self.limit && round.bound > EntryId::ZERO) {
                return Ok(self.shown.last().map_or(round.bound, |last| last.id));
            }
            if round.bound == EntryId::ZERO {
                return Ok(EntryId::ZERO);
            }
            below = round.bound;
            if self.is_spent() {
                return Ok(below);
            }
        }
    }

    async fn round(&mut self, below: EntryId, slice: Option<FeedSlice>) -> Result<Round, NodeError> {
        self.rounds += 1;
        let limit = self.limit - self.shown.len() + 1;
        let query = FeedQuery { space: self.space, reader: self.reader, below, limit };
        let slice = match slice {
            Some(slice) => slice,
            None => self.home.read(|state| state.feed_slice(&query))?.map_err(NodeError::refused)?,
        };
        let local_bound = match slice.rows.last() {
            Some(last) if slice.more || slice.rows.len() >= limit => last.id,
            _ => EntryId::ZERO,
        };
        let (remote, bound) = self.ask(&slice.remote, EntryId::ZERO, limit).await?;
        let bound = bound.max(local_bound);
        let mut rows = by_id(slice, remote);
        rows.retain(|row| row.id >= bound);
        Ok(Round { rows, bound })
    }

    /// What the owners' partitions have for this feed, and the bound down to which that is all.
    async fn ask(
        &mut self,
        sources: &[RemoteSource],
        from: EntryId,
        limit: usize,
    ) -> Result<(Vec<Delivery>, EntryId), NodeError> {
        let asked: Vec<_> = sources
            .iter()
            .filter(|s| !self.unreachable.contains(&self.asker.home_of(s.owner)))
            .copied()
            .collect();
        if asked.is_empty() {
            return Ok((Vec::new(), EntryId::ZERO));
        }
        self.owners_asked += asked.len();
        let query = OwnersQuery { space: self.space, reader: self.reader, from, limit };
        let answer = self.asker.owners(query, &asked).await;
        if self.hydrate {
            self.told.extend(answer.deliveries.iter().map(|row| row.id));
        }
        for (partition, below) in answer.unreachable {
            self.note_unreachable(partition);
            self.gap = self.gap.max(below);
        }
        let (space, reader) = (self.space, self.reader);
        let admitted = self.home.read(|state| state.admits_feed(space, reader, &answer.deliveries))?;
        let admitted = admitted.map_err(NodeError::refused)?;
        let rows = answer.deliveries.into_iter().zip(admitted).filter(|(_, admitted)| *admitted);
        Ok((rows.map(|(row, _)| row).collect(), answer.bound))
    }

    /// Shows rows until the page is full, or its bytes are spent; returns whether some are left.
    async fn accept(&mut self, mut rows: &[Delivery]) -> Result<bool, NodeError> {
        while !rows.is_empty() && self.shown.len() < self.limit {
            let now = &rows[..rows.len().min(self.limit - self.shown.len())];
            if !self.hydrate {
                self.shown.extend(now.iter().map(EntryView::of_delivery));
                rows = &rows[now.len()..];
                continue;
            }
            if self.bytes_left == 0 {
                self.short_of.insert(ShortReason::Spent { budget: Budget::Bytes });
                break;
            }
            let started = Instant::now();
            let rows_of = (self.space, now);
            let hydrated = hydrate(self.asker, self.reader, rows_of, &self.told, self.bytes_left).await?;
            self.asker.phases().note(RequestPhase::Hydrate, started.elapsed());
            let is_whole = hydrated.len() == now.len();
            rows = &rows[hydrated.len()..];
            for (row, found) in now.iter().zip(hydrated) {
                match found {
                    Hydrated::Live(view) => {
                        self.bytes_left = self.bytes_left.saturating_sub(view.payload_bytes());
                        self.shown.push(view);
                    }
                    Hydrated::Gone => {}
                    Hydrated::Unreachable(partition) => {
                        self.note_unreachable(partition);
                        self.shown.push(EntryView::of_delivery(row));
                    }
                }
            }
            if !is_whole && !self.shown.is_empty() {
                self.short_of.insert(ShortReason::Spent { budget: Budget::Bytes });
                break;
            }
        }
        Ok(!rows.is_empty())
    }

    /// Where to go on after a page below `below` that is complete down to `bound`, but for the gap; none at the true end.
    fn next(&mut self, below: EntryId, bound: EntryId) -> Option<EntryId> {
        if self.gap <= bound {
            return (bound > EntryId::ZERO).then_some(bound);
        }
        let above = self.shown.partition_point(|entry| entry.id >= self.gap);
        if above > 0 {
            self.shown.truncate(above);
            return Some(self.gap);
        }
        if bound > EntryId::ZERO {
            return Some(bound);
        }
        Some(self.shown.last().map_or(below, |last| last.id))
    }

    fn note_unreachable(&mut self, partition: PartitionId) {
        self.unreachable.insert(partition);
        self.short_of.insert(ShortReason::Unreachable { partition });
    }

    /// Whether a budget is spent, so that no further round begins.
    fn is_spent(&mut self) -> bool {
        let budget = if self.owners_asked >= OWNERS_ASKED_MAX {
            Budget::OwnersAsked
        } else if self.rounds >= ROUNDS_MAX {
            Budget::Rounds
        } else {
            return false;
        };
        self.short_of.insert(ShortReason::Spent { budget });
        true
    }

    /// Shows the newest of what arrived since a mark; returns where to go on (zero: nowhere) and how many there are.
    async fn news(&mut self, since: Mark, now: &Mark, below: EntryId) -> Result<(EntryId, u64), NodeError> {
        // Rows of another incarnation have other positions, so only ids count then.
        let same = (since.partition, since.incarnation) == (now.partition, now.incarnation);
        let from_row = if same { since.row } else { RowPosition(u64::MAX) };
        let (space, reader) = (self.space, self.reader);
        let news = self.home.read(|state| {
            let news = state.feed_news(space, reader, from_row, since.id_bound);
            if let Ok(slice) = &news {
                self.home.activity().note(reader, slice.active);
            }
            news
        })?;
        let mut slice = news.map_err(NodeError::refused)?;
        let mut sources = std::mem::take(&mut slice.remote);
        let mut remote = Vec::new();
        loop {
            self.rounds += 1;
            let (rows, bound) = self.ask(&sources, since.id_bound, NEWS_LIMIT).await?;
            remote.extend(rows);
            sources.retain(|source| source.below > since.id_bound && bound > since.id_bound);
            if sources.is_empty() {
                break;
            }
            if self.is_spent() {
                // What was not asked for is missing like what could not be.
                self.gap = self.gap.max(bound);
                break;
            }
            for source in &mut sources {
                source.below = source.below.min(bound);
            }
        }
        let rows = by_id(slice, remote);
        let mut count = rows.len() as u64;
        let page: Vec<_> = rows.into_iter().filter(|row| row.id < below).collect();
        let before = page.len();
        let is_more = self.accept(&page).await?;
        if !is_more {
            // What was found gone while hydrating is not new either.
            count -= (before - self.shown.len()) as u64;
            return Ok((EntryId::ZERO, count));
        }
        Ok((self.shown.last().map_or(EntryId::ZERO, |last| last.id), count))
    }
}

/// The rows of a slice and those from elsewhere, newest first, each id once.
fn by_id(slice: FeedSlice, remote: Vec<Delivery>) -> Vec<Delivery> {
    if remote.is_empty() {
        // A slice is in order, and holds no id twice.
        return slice.rows;
    }
    let mut all: BTreeMap<Reverse<EntryId>, Delivery> = BTreeMap::new();
    // What the owner's home says is newer than what was delivered.
    all.extend(slice.rows.into_iter().chain(remote).map(|row| (Reverse(row.id), row)));
    all.into_values().collect()
}
