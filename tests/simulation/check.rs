//! Owns what is looked at from outside while a run goes on, and at its end: the replicas among themselves, and all feeds
//! against the oracle.

use std::collections::BTreeMap;

use fanfold_storage::entry::{Audience, Delivery, Entry};
use fanfold_storage::ids::{EntryId, PartitionId, UserId};
use fanfold_storage::oracle::Oracle;
use fanfold_storage::partition::{FeedQuery, Partition, RemoteSource};

use crate::client::{GRAPH, SPACE, space, users};
use crate::model::Span;
use crate::plan::{NODES, PARTITIONS};
use crate::world::{World, lock};

/// A page of a feed.
const PAGE: usize = 7;

/// The checksums that replicas had at an index: all the same, whoever applied it when.
#[derive(Default)]
pub struct Watch {
    checksums: BTreeMap<(PartitionId, u64), u128>,
    compared: u64,
}

impl Watch {
    /// Looks at all replicas.
    pub fn look(&mut self, world: &World) {
        for (node, partition) in places() {
            let Some(replica) = world.standing(node, partition) else { continue };
            let Ok((applied, checksum)) = replica.read(|state| (state.applied(), state.checksum())) else {
                continue;
            };
            world.note(format_args!("node {node} has applied {applied} of {}: {checksum:x}", partition.0));
            let before = *self.checksums.entry((partition, applied)).or_insert(checksum);
            self.compared += 1;
            if before != checksum {
                world.violate(format!(
                    "partition {} on node {node} has another state at index {applied} than a replica had there",
                    partition.0
                ));
            }
        }
        while self.checksums.len() > 4_096 {
            self.checksums.pop_first();
        }
    }

    /// How often a replica was looked at.
    pub fn compared(&self) -> u64 {
        self.compared
    }
}

fn places() -> impl Iterator<Item = (usize, PartitionId)> {
    (0..NODES).flat_map(|node| (0..PARTITIONS).map(move |partition| (node, PartitionId(partition))))
}

/// Whether there is nothing left to do: every replica that may be there is, has applied all of its log as the others have,
/// and the streams are empty.
pub fn has_settled(world: &World) -> bool {
    unsettled(world).is_none()
}

/// What there is left to do.
pub fn unsettled(world: &World) -> Option<String> {
    for partition in (0..PARTITIONS).map(PartitionId) {
        let mut states = Vec::new();
        for node in 0..NODES {
            let is_rotten = world.machines[node].is_rotten.load(std::sync::atomic::Ordering::Relaxed);
            let Some(replica) = world.standing(node, partition) else {
                if is_rotten {
                    continue;
                }
                return Some(format!("partition {} does not run on node {node}", partition.0));
            };
            let Ok((applied, journal)) = replica.read(|state| (state.applied(), state.journal_len())) else {
                return Some(format!("partition {} is damaged on node {node}", partition.0));
            };
            states.push((node, applied, journal, replica.has_applied_all()));
        }
        let all_equal = states.windows(2).all(|pair| pair[0].1 == pair[1].1);
        let all_applied = states.iter().all(|(_, _, journal, all)| *all && *journal == 0);
        if !all_equal || !all_applied {
            return Some(format!("partition {}: node, applied, journal, all: {states:?}", partition.0));
        }
    }
    None
}

/// Compares everything with the model, on every node.
pub fn check_end(world: &World) {
    check_replicas(world);
    check_timelines(world);
    for node in 0..NODES {
        let here: Option<Vec<_>> = (0..PARTITIONS).map(|p| world.standing(node, PartitionId(p))).collect();
        // A node with a quarantined partition reads no feeds.
        let Some(replicas) = here else { continue };
        let read = |partition: PartitionId, read: &mut dyn FnMut(&Partition)| {
            if replicas[usize::from(partition.0)].read(|state| read(state)).is_err() {
                world.violate(format!("partition {} is damaged on node {node}", partition.0));
            }
        };
        let mut oracle = oracle(world);
        let mut now = None;
        (0..PARTITIONS).for_each(|p| read(PartitionId(p), &mut |state| now = now.max(Some(state.stamp()))));
        oracle.set_now(now.unwrap_or_default());
        for reader in users(world.plan.weather) {
            let (feed, expected) = (read_feed(&read, reader), oracle.feed(SPACE, reader));
            if feed != expected {
                world.violate(format!(
                    "the feed of {reader} on node {node} is {feed:?} and has to be {expected:?}"
                ));
            }
            let home = PartitionId::of_user(reader, PARTITIONS);
            let mut count = 0;
            read(home, &mut |state| count = state.followee_count(GRAPH, reader));
            let followees = oracle.followees(GRAPH, reader).count() as u64;
            if count != followees {
                world.violate(format!(
                    "{reader} follows {count} on node {node} and has to follow {followees}"
                ));
            }
        }
    }
}

/// All replicas are the same, and no stream ever began anew, since nobody was away for so long.
fn check_replicas(world: &World) {
    for partition in (0..PARTITIONS).map(PartitionId) {
        let mut checksums = BTreeMap::new();
        for node in 0..NODES {
            let Some(replica) = world.standing(node, partition) else { continue };
            let looked = replica.read(|state| {
                let resets = (0..PARTITIONS).map(PartitionId).filter(|other| *other != partition);
                let resets: u64 = resets.map(|other| state.stream_probe(other).epoch.resets).sum();
                (state.checksum(), resets)
            });
            let Ok((checksum, resets)) = looked else { continue };
            checksums.entry(checksum).or_insert_with(Vec::new).push(node);
            if resets > 0 {
                world.violate(format!("a stream of partition {} began anew {resets} times", partition.0));
            }
        }
        if checksums.len() > 1 {
            world.violate(format!("the replicas of partition {} differ: {checksums:x?}", partition.0));
        }
    }
}

/// Everything answered is there, once, on every replica.
fn check_timelines(world: &World) {
    let (now_ms, mut model) = (world.now_ms(), lock(&world.model));
    let asked = Span { from_ms: now_ms, to_ms: now_ms };
    for (node, partition) in places() {
        let Some(replica) = world.standing(node, partition) else { continue };
        for owner in
            users(world.plan.weather).filter(|user| PartitionId::of_user(*user, PARTITIONS) == partition)
        {
            let found = replica.read(|state| state.timeline(SPACE, owner, EntryId::MAX, 10_000).entries);
            for wrong in model.check_timeline(owner, asked, &found.unwrap_or_default()) {
                world.violate(format!("at the end, on node {node}: {wrong}"));
            }
        }
    }
}

fn oracle(world: &World) -> Oracle {
    let model = lock(&world.model);
    let mut oracle = Oracle::new();
    oracle.define_space(space());
    for (id, known) in &model.entries {
        // What has a time to live is gone by now.
        if known.is_deleted || known.ttl_ms.is_some() {
            continue;
        }
        oracle.append(Entry {
            id: *id,
            space: SPACE,
            owner: known.owner,
            author: known.owner,
            audience: Audience::Public,
            version: 1,
            expiry: None,
            reference: None,
            payload: known.payload.clone(),
        });
    }
    for (reader, owner) in &model.follows {
        oracle.follow(GRAPH, *reader, *owner);
    }
    oracle
}

/// How a partition's state is read.
type Read<'a> = dyn Fn(PartitionId, &mut dyn FnMut(&Partition)) + 'a;

/// A whole feed, page by page, asking the owners where the home of the reader does not reach.
fn read_feed(read: &Read<'_>, reader: UserId) -> Vec<EntryId> {
    let home = PartitionId::of_user(reader, PARTITIONS);
    let (mut feed, mut below) = (Vec::new(), EntryId::MAX);
    loop {
        let mut slice = None;
        let query = FeedQuery { space: SPACE, reader, below, limit: PAGE };
        read(home, &mut |state| slice = state.feed_slice(&query).ok());
        let Some(slice) = slice else { return feed };
        let mut page: BTreeMap<EntryId, Delivery> = slice.rows.iter().map(|row| (row.id, *row)).collect();
        let last = slice.rows.last().map(|row| row.id);
        let mut complete_to = last.filter(|_| slice.more).unwrap_or(EntryId::ZERO);
        for source in &slice.remote {
            let (found, reaches_to) = ask(read, source);
            complete_to = complete_to.max(reaches_to);
            read(home, &mut |state| {
                let admitted = state.admits_feed(SPACE, reader, &found).unwrap_or_default();
                let admitted = found.iter().zip(admitted).filter(|(_, yes)| *yes);
                page.extend(admitted.map(|(delivery, _)| (delivery.id, *delivery)));
            });
        }
        feed.extend(page.range(complete_to..).rev().map(|(id, _)| *id));
        if complete_to == EntryId::ZERO || complete_to >= below {
            return feed;
        }
        below = complete_to;
    }
}

/// What an owner's timeline has below an id, and down to where.
fn ask(read: &Read<'_>, source: &RemoteSource) -> (Vec<Delivery>, EntryId) {
    let mut answer = (Vec::new(), EntryId::ZERO);
    read(PartitionId::of_user(source.owner, PARTITIONS), &mut |state| {
        let slice = state.timeline(SPACE, source.owner, source.below, PAGE);
        let reaches_to = slice.entries.last().map(|entry| entry.id).filter(|_| slice.more);
        answer = (slice.entries.iter().map(Entry::delivery).collect(), reaches_to.unwrap_or(EntryId::ZERO));
    });
    answer
}
