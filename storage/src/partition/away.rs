//! Owns the readers who stay away: their last day of activity, and what becomes of their feeds.
//!
//! - Activity and the freeing of feeds are logged, so that every replica knows the same days and the same freed feeds.
//! - A freed feed shows what it always showed: everything is at or below its floor, so reads take the chains.
//! - On return it is rebuilt from the chains of the owners followed: the newest rows of the window up to the cap, above a floor that is
//!   the next one. So it holds what it would have held; what a chain was left with (pull) stays with the chain.

use std::collections::{BTreeMap, BinaryHeap};

use super::Partition;
use super::delivered::RowState;
use super::fan_out::Place;
use super::feed::Feeds;
use super::owners::OwnerIndex;
use super::relate::leave_to_chain;
use super::users::{UserIndex, Users};
use crate::ids::{Day, EntryId, GraphId, RowPosition, SpaceId, UserId};

/// The feeds of a space. When they are made, those of readers whose feeds are freed take nothing.
pub(super) fn feeds_in<'f>(
    feeds: &'f mut BTreeMap<SpaceId, Feeds>,
    users: &Users,
    space: SpaceId,
) -> &'f mut Feeds {
    feeds.entry(space).or_insert_with(|| {
        let mut feeds = Feeds::default();
        users.freed().for_each(|user| feeds.free(user.0));
        feeds
    })
}

impl Partition {
    /// Notes that readers are active, and rebuilds the feeds of those that were freed.
    pub(super) fn note_active(&mut self, readers: &[UserId]) {
        let today = self.stamp.day();
        for reader in readers {
            let Some(user) = self.users.find(*reader) else { continue };
            if self.users.note_active(user, today) {
                self.rebuild_feeds(user);
            }
        }
    }

    /// Frees the feeds of those among `most` local users from the index `from` on who were not active since `before`. The feeds of
    /// the others move into the room that this makes.
    pub(super) fn free_feeds(&mut self, before: Day, from: u32, most: u32) {
        let end = self.users.extent().len.min(from.saturating_add(most));
        for user in from..end {
            if self.users.note_freed(user, before) {
                let references = self.feeds.values().map(Feeds::references).sum::<u64>();
                self.feeds.values_mut().for_each(|feeds| feeds.free(user));
                self.rebuilt += references - self.feeds.values().map(Feeds::references).sum::<u64>();
            } else {
                let sparse = self.feeds.values_mut().filter(|feeds| feeds.has_gaps());
                self.rebuilt += sparse.map(|feeds| feeds.close_gaps(user)).sum::<u64>();
            }
        }
    }

    /// The number of local indexes of users, some of them free.
    pub fn user_indexes(&self) -> u32 {
        self.users.extent().len
    }

    /// The number of rows of the window.
    pub fn rows(&self) -> u32 {
        // As the limit has it, less than 2^31 but for those of one batch.
        u32::try_from(self.delivered.len()).unwrap_or(u32::MAX)
    }

    fn rebuild_feeds(&mut self, user: UserIndex) {
        self.feeds.values_mut().for_each(|feeds| feeds.clear(user.0));
        let graphs: Vec<GraphId> = self.users.get(user).lists().map(|(graph, _)| graph).collect();
        let mut owners = Vec::new();
        for graph in graphs {
            self.users.get(user).owners_into(graph, &mut owners);
            for space in self.spaces_of(graph) {
                self.rebuild_feed(Place { space, user }, &owners);
            }
        }
    }

    /// Makes a feed, which is empty, of the newest rows of these owners.
    fn rebuild_feed(&mut self, Place { space, user }: Place, owners: &[OwnerIndex]) {
        let cap = self.spaces[&space].policy.feed_cap;
        let mut newest = BinaryHeap::new();
        for owner in owners {
            let Some(chain) = self.owners.get(*owner).chain(space).copied() else { continue };
            if chain.pulled {
                leave_to_chain(self.owners.chain_mut(*owner, space), &self.delivered);
                self.note_chain(*owner, space);
            } else {
                newest.extend(self.newest_kept(chain.head));
            }
        }
        let (mut rows, mut floor) = (Vec::new(), EntryId::ZERO);
        while let Some((id, position)) = newest.pop() {
            if rows.len() == cap as usize {
                floor = id;
                break;
            }
            rows.push((id, position));
            let older = self.delivered.get(position).and_then(|row| row.previous(position));
            newest.extend(self.newest_kept(older));
        }
        self.rebuilt += (owners.len() + rows.len()) as u64;
        // While a log is replayed all rows are at or below the floor that feeds have.
        if !rows.is_empty() && !self.is_replaying {
            feeds_in(&mut self.feeds, &self.users, space).replace(user.0, rows, floor, cap);
        }
    }

    /// The newest row of a chain from `head` on that may be shown some time.
    fn newest_kept(&self, head: Option<RowPosition>) -> Option<(EntryId, RowPosition)> {
        let mut rows = self.delivered.chain(head);
        let (position, row) = rows.find(|(_, row)| row.state() != RowState::Dead)?;
        Some((row.id, position))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::command::{Append, Command, Limits, Outcome, Ttl, Write, WriteTag, encode_batch};
    use crate::entry::Audience;
    use crate::ids::{DAY_MS, PartitionId, Sequence, SessionId, Stamp};
    use crate::partition::FeedQuery;
    use crate::space::{FanOut, SpaceDefinition, SpacePolicy};

    const GRAPH: GraphId = GraphId(1);
    const SPACE: SpaceId = SpaceId(1);
    const READERS: u64 = 40;
    const OWNERS: u64 = 5;
    const CAP: u32 = 100;
    const NOBODY: Day = Day(0);

    /// A partition of readers who follow the same owners.
    struct Life {
        partition: Partition,
        sequence: u64,
        made: Vec<(UserId, EntryId)>,
    }

    impl Life {
        fn new() -> Self {
            let partition = Partition::new(PartitionId(0), 1);
            let mut life = Self { partition, sequence: 0, made: Vec::new() };
            let limits = Limits { session_life_ms: u64::MAX, ..Limits::default() };
            let policy = SpacePolicy { feed_cap: CAP, fan_out: FanOut::Push, ..SpacePolicy::default() };
            let (name, graph_name) = ("posts".into(), "follows".into());
            let definition =
                SpaceDefinition { id: SPACE, name, graph: GRAPH, graph_name, version: 1, policy };
            life.apply(&Command::Configure { limits });
            life.apply(&Command::DefineSpace { definition });
            life.apply(&Command::OpenSession);
            for reader in 0..READERS {
                let owners = (0..OWNERS).map(owner).collect();
                life.write(Write::Follow { graph: GRAPH, reader: UserId(reader), owners });
            }
            life
        }

        fn apply(&mut self, command: &Command) -> Outcome {
            let batch = encode_batch(self.partition.stamp(), &[command.to_bytes()]);
            self.partition.apply(self.partition.applied() + 1, &batch).unwrap().remove(0)
        }

        fn write(&mut self, write: Write) -> Outcome {
            self.sequence += 1;
            let sequence = Sequence(self.sequence);
            let tag = WriteTag { session: SessionId(1), sequence, lowest_unanswered: sequence };
            self.apply(&Command::Write { tag, write })
        }

        fn post(&mut self, count: u64) {
            for n in 0..count {
                let owner = owner(n % OWNERS);
                let item = Append {
                    space: SPACE,
                    owner,
                    author: None,
                    audience: Audience::Public,
                    ttl: Ttl::SpaceDefault,
                    key: None,
                    reference: None,
                    payload: Bytes::new(),
                };
                self.write(Write::Append { items: vec![item] });
                let newest = self.partition.timelines.newest_id(SPACE, owner, self.partition.stamp());
                self.made.push((owner, newest.unwrap()));
            }
        }

        fn delete(&mut self, place: usize) {
            let (owner, id) = self.made[place];
            self.write(Write::Delete { space: SPACE, owner, id });
        }

        fn day(&mut self, day: u64) {
            let batch = encode_batch(Stamp(day * DAY_MS), &[]);
            self.partition.apply(self.partition.applied() + 1, &batch).unwrap();
        }

        fn free(&mut self, before: Day) {
            self.apply(&Command::FreeFeeds { before, from: 0, most: u32::MAX });
        }

        fn return_of(&mut self, readers: impl IntoIterator<Item = u64>) {
            self.apply(&Command::Active { readers: readers.into_iter().map(UserId).collect() });
        }

        fn feeds(&self) -> &Feeds {
            &self.partition.feeds[&SPACE]
        }

        /// The live references of a reader above `floor`, and the floor.
        fn references(&self, reader: u64, floor: EntryId) -> (Vec<EntryId>, EntryId) {
            let user = self.partition.users.find(UserId(reader)).unwrap();
            let live = |position| {
                let row = self.partition.delivered.get(position)?;
                (row.state() == RowState::Live && row.id > floor).then_some(row.id)
            };
            let ids = self.feeds().positions(user.0).into_iter().filter_map(live).collect();
            (ids, self.feeds().floor(user.0))
        }

        fn page(&self, reader: u64) -> (Vec<EntryId>, Option<Day>) {
            let query = FeedQuery { space: SPACE, reader: UserId(reader), below: EntryId::MAX, limit: 1_000 };
            let slice = self.partition.feed_slice(&query).unwrap();
            assert_eq!((slice.remote.len(), slice.more), (0, false));
            (slice.rows.iter().map(|row| row.id).collect(), slice.active)
        }
    }

    fn owner(n: u64) -> UserId {
        UserId(1_000 + n)
    }

    /// Two lives, of which only the second frees the feeds of all readers.
    fn lives() -> [Life; 2] {
        [NOBODY, Day(9)].map(|before| {
            let mut life = Life::new();
            life.day(2);
            life.post(300);
            life.day(20);
            life.free(before);
            life.post(70);
            [3, 299, 310, 320].into_iter().for_each(|place| life.delete(place));
            life
        })
    }

    #[test]
    fn a_freed_feed_takes_no_reference_and_shows_the_same() {
        let [kept, freed] = lives();
        assert_eq!((freed.feeds().references(), freed.feeds().count()), (0, 0));
        assert!(kept.feeds().references() >= READERS * u64::from(CAP));
        for reader in 0..READERS {
            assert_eq!(freed.page(reader).0, kept.page(reader).0);
            assert_eq!(freed.page(reader).1, Some(NOBODY), "a read has to tell that the reader is back");
        }
    }

    #[test]
    fn a_rebuilt_feed_is_what_it_would_have_been() {
        let [kept, mut freed] = lives();
        freed.return_of(0..READERS - 1);
        for reader in 0..READERS - 1 {
            let (rebuilt, floor) = freed.references(reader, EntryId::ZERO);
            assert_eq!(rebuilt.len(), CAP as usize);
            assert_eq!(rebuilt, kept.references(reader, floor).0);
            assert_eq!((freed.page(reader).0, freed.page(reader).1), (kept.page(reader).0, Some(Day(20))));
        }
        assert_eq!(freed.references(READERS - 1, EntryId::ZERO).0, Vec::new(), "who stays away has nothing");
        // And they live on alike.
        let mut lives = [kept, freed];
        lives.iter_mut().for_each(|life| life.post(60));
        let [kept, freed] = lives;
        let (references, floor) = freed.references(0, EntryId::ZERO);
        assert_eq!(references, kept.references(0, floor).0);
        assert!(references.len() >= CAP as usize);
    }

    #[test]
    fn only_who_stays_away_is_freed_and_a_day_is_logged_once() {
        let mut life = Life::new();
        life.day(10);
        life.post(10);
        life.return_of(0..5);
        let before = life.partition.checksum();
        life.free(Day(10));
        assert_eq!(life.feeds().count(), 5);
        assert_ne!(life.partition.checksum(), before, "who is freed is part of the state");
        let before = life.partition.users.tracked.memory();
        life.return_of(0..5);
        assert_eq!(life.partition.users.tracked.memory(), before);
        assert_eq!(life.page(3).1, Some(Day(10)));
        assert_eq!(life.page(7).1, Some(NOBODY));
    }

    #[test]
    fn a_space_that_comes_later_has_no_feeds_of_those_who_are_away() {
        let mut life = Life::new();
        life.day(10);
        life.free(Day(10));
        life.post(20);
        assert_eq!(life.feeds().references(), 0);
        assert_eq!(life.page(0).0.len(), 20);
    }
}
