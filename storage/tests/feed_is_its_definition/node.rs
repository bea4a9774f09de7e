//! One partition with its log, and a merged read over all of them.

use std::collections::BTreeMap;

use fanfold_storage::command::{Command, Outcome, encode_batch};
use fanfold_storage::entry::{Delivery, Entry};
use fanfold_storage::ids::{EntryId, JournalPosition, PartitionId, RowPosition, SpaceId, Stamp, UserId};
use fanfold_storage::partition::{CutBucket, FeedQuery, Partition, RemoteSource};

use crate::disk::{Disk, Maintenance};

/// Buckets by section and number.
type Buckets = BTreeMap<(u8, u64), Vec<u8>>;

/// The section of the timelines.
const TIMELINES: u8 = 10;

/// A cut whose buckets are pulled one by one between commands.
struct Cut {
    /// The entries applied when it began, and the state then.
    applied: usize,
    checksum: u128,
    buckets: Buckets,
}

/// A partition that can be rebuilt from its log, or from a cut and the log behind it.
pub struct Node {
    pub partition: Partition,
    partitions: u16,
    log: Vec<bytes::Bytes>,
    cut: Option<Cut>,
    /// The buckets of the last finished cut.
    kept: Buckets,
    disk: Disk,
    /// What this node, as the sender, believes the destinations have applied; lost by a restart.
    pub acknowledged: BTreeMap<PartitionId, JournalPosition>,
}

impl Node {
    pub fn new(id: PartitionId, partitions: u16) -> Self {
        let partition = Partition::new(id, partitions);
        let (log, kept, disk) = (Vec::new(), Buckets::new(), Disk::new());
        Self { partition, partitions, log, disk, cut: None, kept, acknowledged: BTreeMap::new() }
    }

    pub fn propose(&mut self, now: Stamp, commands: &[Command]) -> Vec<Outcome> {
        let encoded: Vec<_> = commands.iter().map(Command::to_bytes).collect();
        let batch = encode_batch(now, &encoded);
        // None to two buckets before each entry.
        for _ in 0..self.log.len() * 7 / 3 % 3 {
            self.pull();
        }
        while self.partition.cut_holds_too_much() && self.pull() {}
        self.log.push(batch.clone());
        let outcomes = self.partition.apply(self.log.len() as u64, &batch).unwrap();
        assert_eq!(outcomes.len(), commands.len());
        outcomes
    }

    /// What a replay of the log gives, which never wrote to a disk; the state must be the same.
    pub fn replayed(&self) -> Partition {
        let replayed = self.replay(Partition::new(self.partition.id(), self.partitions), 0);
        assert_eq!(replayed.checksum(), self.partition.checksum(), "a replay gives another state");
        replayed
    }

    fn replay(&self, mut partition: Partition, applied: usize) -> Partition {
        // The first third, two thirds or all of it without storing anything in feeds, or none; or more than all, as when the end of
        // the log was cut off and other entries come in its place.
        let behind = (self.log.len() - applied) as u64;
        partition.replay_until(applied as u64 + behind * (self.log.len() as u64 % 5) / 3);
        for (n, batch) in self.log.iter().enumerate().skip(applied) {
            partition.apply(n as u64 + 1, batch).unwrap();
        }
        partition
    }

    /// Goes on from the log.
    pub fn restart(&mut self) {
        let replayed = self.replayed();
        self.become_restored(replayed);
    }

    pub fn maintain(&mut self, maintenance: Maintenance) {
        self.disk.maintain(&mut self.partition, maintenance);
    }

    fn become_restored(&mut self, restored: Partition) {
        self.partition = restored;
        self.cut = None;
        self.disk.forget_works();
        self.acknowledged.clear();
    }

    /// Begins a cut; one that runs is abandoned.
    pub fn begin_cut(&mut self) {
        self.abandon_cut();
        let (applied, checksum) = (self.log.len(), self.partition.checksum());
        // What is saved is next to nothing, a little, or all there is.
        self.partition.bound_cuts([0, 500, 1 << 20][self.log.len() % 3]);
        self.partition.begin_cut();
        self.cut = Some(Cut { applied, checksum, buckets: Buckets::new() });
    }

    pub fn abandon_cut(&mut self) {
        self.cut = None;
        drop(self.partition.abandon_cut());
    }

    /// Takes a step of the cut that runs; true if there may be more.
    fn pull(&mut self) -> bool {
        let Some(cut) = &mut self.cut else { return false };
        // Some buckets are to be written whether they changed or not.
        let n = self.log.len() as u64;
        let bucket = self.partition.next_bucket(&|section, _| (u64::from(section) + n).is_multiple_of(9));
        let (key, bytes) = match bucket {
            Some(CutBucket::Written { section, number, bytes }) => ((section, number), bytes),
            Some(CutBucket::Unchanged { section, number }) => {
                let kept = self.kept.get(&(section, number));
                ((section, number), kept.expect("an unchanged bucket was written before").clone())
            }
            Some(CutBucket::Unfinished) => return true,
            None => return false,
        };
        assert!(cut.buckets.insert(key, bytes).is_none(), "bucket {key:?} twice");
        true
    }

    /// Finishes the cut that runs, or one of this moment, and builds a partition from it, which must be as the cut found it,
    /// and with the entries since as the one that lived on. It takes that one's place if `restart` says so.
    pub fn finish_cut(&mut self, restart: bool) {
        if self.cut.is_none() {
            self.begin_cut();
        }
        while self.pull() {}
        let (timelines, segments) = self.disk.cut_timelines(&mut self.partition);
        drop(self.partition.end_cut());
        let mut cut = self.cut.take().unwrap();
        cut.buckets.insert((TIMELINES, 0), timelines);
        let mut restoring = Partition::restoring(self.partition.id(), self.partitions);
        for ((section, number), bytes) in &cut.buckets {
            restoring.add(*section, *number, bytes).unwrap();
        }
        let mut restored = restoring.finish(&segments).unwrap();
        assert_eq!(restored.checksum(), cut.checksum, "the buckets are not the state when the cut began");
        restored = self.replay(restored, cut.applied);
        assert_eq!(restored.checksum(), self.partition.checksum(), "from the cut on, another state");
        self.kept = cut.buckets;
        if restart {
            self.become_restored(restored);
        }
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
