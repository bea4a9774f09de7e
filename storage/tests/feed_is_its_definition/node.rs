//! One partition with its log, and a merged read over all of them.

use std::collections::BTreeMap;

use fanfold_storage::command::{Command, Outcome, encode_batch};
use fanfold_storage::entry::{Delivery, Entry};
use fanfold_storage::ids::{EntryId, JournalPosition, PartitionId, RowPosition, SpaceId, Stamp, UserId};
use fanfold_storage::partition::{FeedQuery, Partition, RemoteSource};

/// A partition that can be rebuilt from its log.
pub struct Node {
    pub partition: Partition,
    partitions: u16,
    log: Vec<bytes::Bytes>,
    /// What this node, as the sender, believes the destinations have applied; lost by a restart.
    pub acknowledged: BTreeMap<PartitionId, JournalPosition>,
}

impl Node {
    pub fn new(id: PartitionId, partitions: u16) -> Self {
        let partition = Partition::new(id, partitions);
        Self { partition, partitions, log: Vec::new(), acknowledged: BTreeMap::new() }
    }

    pub fn propose(&mut self, now: Stamp, commands: &[Command]) -> Vec<Outcome> {
        let encoded: Vec<_> = commands.iter().map(Command::to_bytes).collect();
        let batch = encode_batch(now, &encoded);
        self.log.push(batch.clone());
        let outcomes = self.partition.apply(self.log.len() as u64, &batch).unwrap();
        assert_eq!(outcomes.len(), commands.len());
        outcomes
    }

    /// Replays the log; the state must be the same to the last byte.
    pub fn restart(&mut self) {
        let mut replayed = Partition::new(self.partition.id(), self.partitions);
        for (n, batch) in self.log.iter().enumerate() {
            replayed.apply(n as u64 + 1, batch).unwrap();
        }
        assert_eq!(replayed.checksum(), self.partition.checksum(), "a replay gives another state");
        self.partition = replayed;
        self.acknowledged.clear();
    }

    /// Goes on from an image of the state.
    pub fn reload(&mut self) {
        let image = self.partition.snapshot();
        let restored = Partition::restore(self.partition.id(), self.partitions, &image).unwrap();
        assert_eq!(restored.snapshot(), image, "an image restored gives another image");
        self.partition = restored;
    }
}

pub fn home(nodes: &[Node], user: UserId) -> &Partition {
    &nodes[usize::from(PartitionId::of_user(user, nodes.len() as u16).0)].partition
}

fn asked(nodes: &[Node], space: SpaceId, source: &RemoteSource, limit: usize) -> (Vec<Delivery>, bool) {
    let slice = home(nodes, source.owner).timeline(space, source.owner, source.below, limit);
    let public = slice.entries.iter().filter(|e| e.audience != fanfold_storage::entry::Audience::Private);
    (public.map(Entry::delivery).collect(), slice.more)
}

/// A whole feed, read in pages of `limit`.
pub fn read_feed(nodes: &[Node], space: SpaceId, reader: UserId, limit: usize) -> Vec<EntryId> {
    let (mut feed, mut below) = (Vec::new(), EntryId::MAX);
    loop {
        let at_home = home(nodes, reader);
        let slice = at_home.feed_slice(&FeedQuery { space, reader, below, limit }).unwrap();
        let mut page: BTreeMap<EntryId, Delivery> = slice.rows.iter().map(|row| (row.id, *row)).collect();
        let mut complete_to =
            if slice.more { slice.rows.last().map_or(EntryId::ZERO, |row| row.id) } else { EntryId::ZERO };
        for source in &slice.remote {
            // Two raw entries at a time, so that filters and bounds are put to the test.
            let (found, more) = asked(nodes, space, source, 2);
            let oldest_raw = home(nodes, source.owner).timeline(space, source.owner, source.below, 2);
            if more {
                complete_to = complete_to.max(oldest_raw.entries.last().unwrap().id);
            }
            let admitted = at_home.admits_feed(space, reader, &found).unwrap();
            page.extend(found.into_iter().zip(admitted).filter(|(_, yes)| *yes).map(|(d, _)| (d.id, d)));
        }
        feed.extend(page.range(complete_to..).rev().map(|(id, _)| *id));
        if complete_to == EntryId::ZERO {
            return feed;
        }
        assert!(complete_to < below, "a page that makes no progress");
        below = complete_to;
    }
}

/// What is new in a feed since a mark.
pub fn read_news(
    nodes: &[Node],
    space: SpaceId,
    reader: UserId,
    mark: RowPosition,
    bound: EntryId,
) -> Vec<EntryId> {
    let at_home = home(nodes, reader);
    let news = at_home.feed_news(space, reader, mark, bound).unwrap();
    let mut found: Vec<Delivery> = news.rows;
    for source in &news.remote {
        let (asked, _) = asked(nodes, space, source, 1_000);
        let asked: Vec<_> = asked.into_iter().filter(|d| d.id >= bound).collect();
        let admitted = at_home.admits_feed(space, reader, &asked).unwrap();
        found.extend(asked.into_iter().zip(admitted).filter(|(_, yes)| *yes).map(|(d, _)| d));
    }
    let mut ids: Vec<_> = found.into_iter().map(|d| d.id).collect();
    ids.sort_unstable_by(|a, b| b.cmp(a));
    ids
}
