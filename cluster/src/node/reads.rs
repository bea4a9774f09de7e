//! Owns the entrance of reads: limits are checked, positions awaited, and the home is confirmed before anything is read.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use fanfold_storage::command::Refusal;
use fanfold_storage::ids::{EntryId, GraphId, PartitionId, SpaceId, UserId};
use futures_util::future::{join_all, try_join_all};
use futures_util::stream::{self, StreamExt};
use tokio::time::timeout;

use super::Node;
use crate::error::{NodeError, RangeField};
use crate::partition::PartitionHandle;
use crate::position::Position;
use crate::read::{
    self, Asker, Consistency, Counts, EdgePage, EntriesRequest, EntryView, Explanation,
    FOLLOW_SCAN_LIMIT_MAX, FeedRequest, FeedsRequest, IDS_MAX, LIMIT_MAX, PAGE_BYTES_MAX, Page, READERS_MAX,
    ReadyFeeds, ScanAfter, TimelineRequest,
};

/// How long a replica that does not lead may take to catch up with what a read asks for.
const REPLICA_WAIT: Duration = Duration::from_secs(2);

/// How long the readers of one partition may keep those of others waiting in one request; replicas have answered by then.
const FEEDS_WAIT: Duration = Duration::from_secs(3);

/// Feeds of one request that are read at the same time.
const FEEDS_AT_ONCE: usize = 16;

impl Node {
    /// Reads a timeline, newest first.
    pub async fn read_timeline(&self, request: &TimelineRequest) -> Result<Page, NodeError> {
        let _pass = self.enter()?;
        check(RangeField::Limit, u64::from(request.limit), 1..=u64::from(LIMIT_MAX))?;
        let home = self.home_at(request.owner, request.at_least.as_ref(), request.consistency).await?;
        self.check_space(&home, request.space)?;
        read::read_timeline(self.asker_for(request.consistency), &home, request).await
    }

    /// Reads entries by id, in the order asked; none where there is no such entry in the space, or not for the viewer.
    pub async fn read_entries(&self, request: &EntriesRequest) -> Result<Vec<Option<EntryView>>, NodeError> {
        let _pass = self.enter()?;
        check(RangeField::Ids, request.ids.len() as u64, 0..=IDS_MAX as u64)?;
        if !self.catalog.state().spaces.contains_key(&request.space) {
            return Err(NodeError::UnknownSpace { known: self.catalog.known_spaces() });
        }
        let asker = self.asker_for(request.consistency);
        let Some(position) = &request.at_least else { return read::read_entries(asker, request).await };
        let settled = self.settle_entries(request, position).await?;
        read::read_entries(asker.settled(&settled), request).await
    }

    /// Waits until the homes of entries and of their viewer reflect a position: the replicas here that may answer and do so in
    /// time (true), else the leaders.
    async fn settle_entries(
        &self,
        request: &EntriesRequest,
        position: &Position,
    ) -> Result<BTreeMap<PartitionId, bool>, NodeError> {
        let entries = request.ids.iter().map(|id| self.asker().home_of_entry(*id));
        let viewer = request.viewer.map(|viewer| self.partition_of(viewer));
        let homes: BTreeSet<PartitionId> = entries.chain(viewer).collect();
        let settled = homes.into_iter().map(|id| async move {
            let here = self.partition(id).ok().filter(|_| request.consistency != Consistency::Leader);
            if let Some(home) = here
                && self.settle(&home, Some(position), request.consistency).await.is_ok()
            {
                return Ok((id, true));
            }
            // A leader has all that was ever answered of its own partition.
            if position.partition != id {
                self.wait_for(position, id).await?;
            }
            Ok((id, false))
        });
        try_join_all(settled).await.map(|settled| settled.into_iter().collect())
    }

    /// Reads the feed of a reader, newest first.
    pub async fn read_feed(&self, request: &FeedRequest) -> Result<Page, NodeError> {
        let _pass = self.enter()?;
        check(RangeField::Limit, u64::from(request.limit), 1..=u64::from(LIMIT_MAX))?;
        let home = self.home_at(request.reader, request.at_least.as_ref(), request.consistency).await?;
        self.feed(&home, request, PAGE_BYTES_MAX).await
    }

    /// Reads feeds as far as that needs no waiting and their pages have no more than `bytes_max` bytes of payloads. Those
    /// that `ready` has no page of afterwards, and those that cannot be read, are for [`Node::read_feed`].
    pub fn ready_feeds<'r>(
        &self,
        bytes_max: usize,
        count: usize,
        request: impl Fn(usize) -> &'r FeedRequest,
        ready: &mut ReadyFeeds,
    ) {
        match self.enter() {
            Ok(_pass) => ready.find(self.asker(), bytes_max, count, request),
            Err(_) => ready.clear(count),
        }
    }

    /// Reads the first pages of many feeds, in the order asked; each partition is confirmed once.
    pub async fn read_feeds(
        &self,
        request: &FeedsRequest,
    ) -> Result<Vec<Result<Page, NodeError>>, NodeError> {
        let _pass = self.enter()?;
        check(RangeField::Limit, u64::from(request.limit), 1..=u64::from(LIMIT_MAX))?;
        check(RangeField::Readers, request.readers.len() as u64, 0..=READERS_MAX as u64)?;
        let homes: BTreeSet<PartitionId> = request.readers.iter().map(|r| self.partition_of(*r)).collect();
        let confirmed = join_all(homes.into_iter().map(|id| async move {
            let confirmed = match self.partition(id) {
                // Whoever waits for what another partition does not deliver holds up no reader of the others.
                Ok(home) => {
                    let settled = self.settle(&home, request.at_least.as_ref(), request.consistency);
                    let late = Err(NodeError::Unavailable { partition: id, may_have_applied: false });
                    timeout(FEEDS_WAIT, settled).await.unwrap_or(late)
                }
                Err(error) => Err(error),
            };
            confirmed.err().map(|error| (id, error))
        }));
        let failed: BTreeMap<_, _> = confirmed.await.into_iter().flatten().collect();
        let failed = &failed;
        // The answer is one for all.
        let bytes_max = PAGE_BYTES_MAX / request.readers.len().max(1);
        let pages = request.readers.iter().copied().map(|reader| async move {
            let home = self.partition_of(reader);
            if let Some(error) = failed.get(&home) {
                return Err(error.clone());
            }
            let request = FeedRequest {
                space: request.space,
                reader,
                limit: request.limit,
                below: EntryId::MAX,
                newer_than: None,
                hydrate: request.hydrate,
                at_least: None,
                consistency: request.consistency,
            };
            self.feed(&*self.partition(home)?, &request, bytes_max).await
        });
        Ok(stream::iter(pages).buffered(FEEDS_AT_ONCE).collect().await)
    }

    /// How many follow a user and how many the user follows.
    pub async fn counts(&self, graph: GraphId, user: UserId) -> Result<Counts, NodeError> {
        let _pass = self.enter()?;
        self.check_graph(graph)?;
        read::counts(self.asker(), graph, user).await
    }

    /// Scans the owners a reader follows, by user id.
    pub async fn scan_followees(
        &self,
        graph: GraphId,
        reader: UserId,
        after: Option<UserId>,
        limit: u32,
    ) -> Result<EdgePage, NodeError> {
        let _pass = self.enter()?;
        check(RangeField::Limit, u64::from(limit), 1..=u64::from(FOLLOW_SCAN_LIMIT_MAX))?;
        self.check_graph(graph)?;
        read::scan_followees(self.asker(), graph, reader, after, limit as usize).await
    }

    /// Scans the readers who follow an owner, by partition, then user id.
    pub async fn scan_followers(
        &self,
        graph: GraphId,
        owner: UserId,
        after: Option<ScanAfter>,
        limit: u32,
    ) -> Result<EdgePage, NodeError> {
        let _pass = self.enter()?;
        check(RangeField::Limit, u64::from(limit), 1..=u64::from(FOLLOW_SCAN_LIMIT_MAX))?;
        self.check_graph(graph)?;
        read::scan_followers(self.asker(), graph, owner, after, limit as usize).await
    }

    /// Explains why an entry is, or is not, in a feed.
    pub async fn explain(
        &self,
        space: SpaceId,
        reader: UserId,
        entry: EntryId,
    ) -> Result<Explanation, NodeError> {
        let _pass = self.enter()?;
        self.check_space(&*self.home(reader)?, space)?;
        read::explain(self.asker(), space, reader, entry).await
    }

    pub(super) fn asker(&self) -> Asker<'_> {
        Asker::new(&self.partitions)
    }

    /// Takes answers of replicas here, if the consistency allows that.
    fn asker_for(&self, consistency: Consistency) -> Asker<'_> {
        self.asker().not_older_than(consistency.age_max())
    }

    /// The home of a user here, once it reflects what the consistency asks for and what `at_least` names.
    async fn home_at(
        &self,
        user: UserId,
        at_least: Option<&Position>,
        consistency: Consistency,
    ) -> Result<Arc<PartitionHandle>, NodeError> {
        let home = self.home(user)?;
        self.settle(&home, at_least, consistency).await?;
        Ok(home)
    }

    /// Waits until a home here reflects what a read asks for. A replica that does not in time says who leads.
    async fn settle(
        &self,
        home: &PartitionHandle,
        at_least: Option<&Position>,
        consistency: Consistency,
    ) -> Result<(), NodeError> {
        if consistency == Consistency::Leader {
            if let Some(position) = at_least {
                self.wait_for(position, home.id()).await?;
            }
            return home.confirm().await;
        }
        let follows = async {
            if let Some(age_max) = consistency.age_max() {
                self.asker().freshen(home, age_max).await?;
            }
            match at_least {
                Some(position) => self.wait_at_replica(position, home).await,
                None => Ok(()),
            }
        };
        let behind = if home.group().is_leader() {
            NodeError::Unavailable { partition: home.id(), may_have_applied: false }
        } else {
            NodeError::NotLeader { leader: home.known_leader() }
        };
        timeout(REPLICA_WAIT, follows).await.unwrap_or(Err(behind))
    }

    async fn feed(
        &self,
        home: &PartitionHandle,
        request: &FeedRequest,
        bytes_max: usize,
    ) -> Result<Page, NodeError> {
        let read = read::read_feed(self.asker_for(request.consistency), home, request, bytes_max).await;
        read.map_err(|error| match error {
            NodeError::Refused { refusal: Refusal::UnknownSpace } => {
                NodeError::UnknownSpace { known: self.catalog.known_spaces() }
            }
            error => error,
        })
    }

    fn check_space(&self, home: &PartitionHandle, space: SpaceId) -> Result<(), NodeError> {
        if home.read(|state| state.space(space).is_some())? {
            return Ok(());
        }
        Err(NodeError::UnknownSpace { known: self.catalog.known_spaces() })
    }

    fn check_graph(&self, graph: GraphId) -> Result<(), NodeError> {
        if self.catalog.state().graphs.contains_key(&graph) {
            return Ok(());
        }
        Err(NodeError::UnknownGraph { known: self.catalog.known_graphs() })
    }
}

fn check(field: RangeField, got: u64, range: RangeInclusive<u64>) -> Result<(), NodeError> {
    if range.contains(&got) {
        return Ok(());
    }
    Err(NodeError::OutOfRange { field, min: *range.start(), max: *range.end(), got })
}
