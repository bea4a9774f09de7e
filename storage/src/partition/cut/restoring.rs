//! Owns the way back: buckets in any order, and the partition they are of.
//!
//! - Every record that the head speaks of is there once, or the whole is malformed. What lies before a section's first
//!   record left after its bucket was written, and is ignored.
//! - Damage is found by the checksums of whoever kept the bytes. Here whatever would make reading fail is refused: lengths,
//!   lists that do not ascend, local indexes that no slot has.
//! - Everything that follows from the rest is made anew: indexes, counts, expiries, marks, horizons. Users and owners, which take
//!   longest, on two threads.
//! - Feeds begin empty, above the largest id of their space in the window. At or below it reads take the chains, and what
//!   slices still have to store is not stored either, so every page is right at once (R7).

use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::thread;

use parking_lot::Mutex;

use super::head::{Head, Span, VERSION, VERSION_PAUSED};
use super::{PARTS, Section, Tracked};
use crate::codec::{Encoded, Malformed, Reader};
use crate::ids::{EntryId, PartitionId, SessionId, SpaceId};
use crate::partition::Partition;
use crate::partition::delivered::{Aside, Delivered, Row, RowState, WINDOW_ROWS_MAX, decode_row};
use crate::partition::feed::Feeds;
use crate::partition::journal::Recorded;
use crate::partition::owners::{Chained, Owner, OwnerIndex, Owners};
use crate::partition::paused::Paused;
use crate::partition::reach::{Reach, Reached};
use crate::partition::sessions::{KeptKey, Keys, Session};
use crate::partition::slots::{Slot, Slots};
use crate::partition::users::{User, Users};
use crate::segment::Segment;

/// A partition that is being read from its buckets.
#[derive(Debug)]
pub struct Restoring {
    id: PartitionId,
    partitions: u16,
    head: Option<(Head, BTreeMap<SpaceId, u64>)>,
    paused: Paused,
    users: Buckets<Slot<User>>,
    followers: Buckets<Slot<Owner>>,
    chains: Buckets<Option<Chained>>,
    rows: Buckets<(Row, Option<Aside>)>,
    reach: Buckets<Slot<Reached>>,
    events: Buckets<Recorded>,
    sessions: BTreeMap<SessionId, Session>,
    keys: Buckets<KeptKey>,
    timelines: Option<Vec<u8>>,
}

/// A bucket that was read.
#[derive(Debug)]
pub struct Restored(Part);

#[derive(Debug)]
enum Part {
    Head(Box<Head>, BTreeMap<SpaceId, u64>, Paused),
    Users(Bucket<Slot<User>>),
    Followers(Bucket<Slot<Owner>>),
    Chains(Bucket<Option<Chained>>),
    Rows(Bucket<(Row, Option<Aside>)>),
    Reach(Bucket<Slot<Reached>>),
    Journal(Bucket<Recorded>),
    Sessions(Vec<(SessionId, Session)>),
    Keys(Bucket<KeptKey>),
    Timelines(Vec<u8>),
}

fn wrong(what: &'static str) -> Malformed {
    Reader::new(&[]).malformed(what)
}

/// Records that follow each other.
#[derive(Debug)]
struct Bucket<T> {
    number: u64,
    first: u64,
    records: Vec<T>,
}

impl<T> Bucket<T> {
    /// Reads a bucket of at most 2^`shift` records.
    fn read(
        number: u64,
        shift: u32,
        bytes: &[u8],
        decode: impl Fn(&mut Reader<'_>) -> Result<T, Malformed>,
    ) -> Result<Self, Malformed> {
        let mut from = Reader::new(bytes);
        let first = from.u64()?;
        let most = (1u64 << shift) - (first & ((1 << shift) - 1));
        if first >> shift != number {
            return Err(from.malformed("first record of the bucket"));
        }
        let mut records = Vec::new();
        while from.left() > 0 {
            if records.len() as u64 == most {
                return Err(from.malformed("end of the bucket"));
            }
            records.push(decode(&mut from)?);
        }
        Ok(Self { number, first, records })
    }
}

/// The buckets of a section, each with the number of its first record.
#[derive(Debug)]
struct Buckets<T>(BTreeMap<u64, (u64, Vec<T>)>);

impl<T> Buckets<T> {
    fn take(&mut self, bucket: Bucket<T>) -> Result<(), Malformed> {
        let before = self.0.insert(bucket.number, (bucket.first, bucket.records));
        if before.is_none() { Ok(()) } else { Err(wrong("each bucket once")) }
    }

    /// The records of a range, if they are all there and no bucket lies outside.
    fn records(self, range: Range<u64>) -> Result<impl Iterator<Item = T>, Malformed> {
        let mut next = range.start;
        for (first, records) in self.0.values() {
            let end = *first + records.len() as u64;
            // The first bucket may hold records that left; the others begin where the one before ends.
            let follows = *first == next || *first < next && next == range.start;
            if !follows || end <= next || end > range.end {
                return Err(wrong("every record once"));
            }
            next = end;
        }
        if next != range.end {
            return Err(wrong("every record once"));
        }
        let start = range.start;
        Ok(self
            .0
            .into_values()
            .flat_map(move |(first, records)| records.into_iter().skip(start.saturating_sub(first) as usize)))
    }
}

impl<T> Default for Buckets<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl Span {
    fn range(self) -> Result<Range<u64>, Malformed> {
        let end = self.first.checked_add(self.len).ok_or(wrong("numbers of records"))?;
        Ok(self.first..end)
    }
}

impl Restoring {
    pub(super) fn new(id: PartitionId, partitions: u16) -> Self {
        Self {
            id,
            partitions,
            head: None,
            paused: Paused::new(),
            users: Buckets::default(),
            followers: Buckets::default(),
            chains: Buckets::default(),
            rows: Buckets::default(),
            reach: Buckets::default(),
            events: Buckets::default(),
            sessions: BTreeMap::new(),
            keys: Buckets::default(),
            timelines: None,
        }
    }

    /// Reads a bucket, for [`Restoring::take`]: on any thread.
    ///
    /// # Errors
    /// The bytes are not of one.
    pub fn read(section: u8, number: u64, bytes: &[u8]) -> Result<Restored, Malformed> {
        let section = Section::of(section).ok_or(wrong("section"))?;
        let shift = section.shift();
        if shift == 0 && number != 0 {
            return Err(wrong("bucket 0"));
        }
        Ok(Restored(match section {
            Section::Head => Self::read_head(bytes)?,
            Section::Users => {
                Part::Users(Bucket::read(number, shift, bytes, |from| Slot::decode(from, User::decode))?)
            }
            Section::Followers => {
                Part::Followers(Bucket::read(number, shift, bytes, |from| Slot::decode(from, Owner::decode))?)
            }
            Section::Chains => Part::Chains(Bucket::read(number, shift, bytes, Encoded::decode)?),
            Section::Rows => Part::Rows(Bucket::read(number, shift, bytes, decode_row)?),
            Section::Reach => {
                Part::Reach(Bucket::read(number, shift, bytes, |from| Slot::decode(from, Reached::decode))?)
            }
            Section::Journal => Part::Journal(Bucket::read(number, shift, bytes, Encoded::decode)?),
            Section::Sessions => Self::read_sessions(number, shift, bytes)?,
            Section::Keys => Part::Keys(Bucket::read(number, shift, bytes, Encoded::decode)?),
            Section::Timelines => Part::Timelines(bytes.to_vec()),
        }))
    }

    /// Takes a bucket that was read.
    ///
    /// # Errors
    /// It came before.
    pub fn take(&mut self, Restored(part): Restored) -> Result<(), Malformed> {
        let is_new = match part {
            Part::Head(head, stored, paused) => {
                self.paused = paused;
                self.head.replace((*head, stored)).is_none()
            }
            Part::Users(bucket) => return self.users.take(bucket),
            Part::Followers(bucket) => return self.followers.take(bucket),
            Part::Chains(bucket) => return self.chains.take(bucket),
            Part::Rows(bucket) => return self.rows.take(bucket),
            Part::Reach(bucket) => return self.reach.take(bucket),
            Part::Journal(bucket) => return self.events.take(bucket),
            Part::Sessions(sessions) => {
                sessions.into_iter().all(|(id, session)| self.sessions.insert(id, session).is_none())
            }
            Part::Keys(bucket) => return self.keys.take(bucket),
            Part::Timelines(timelines) => self.timelines.replace(timelines).is_none(),
        };
        if is_new { Ok(()) } else { Err(wrong("each bucket once")) }
    }

    /// Reads a bucket and takes it.
    ///
    /// # Errors
    /// As for [`Restoring::read`] and [`Restoring::take`].
    pub fn add(&mut self, section: u8, number: u64, bytes: &[u8]) -> Result<(), Malformed> {
        self.take(Self::read(section, number, bytes)?)
    }

    fn read_head(bytes: &[u8]) -> Result<Part, Malformed> {
        let mut from = Reader::new(bytes);
        let paused = match from.byte()? {
            VERSION => Paused::new(),
            VERSION_PAUSED => Encoded::decode(&mut from)?,
            _ => return Err(from.malformed("version 1 or 2 of a head")),
        };
        let (head, stored) = (Head::decode(&mut from)?, Encoded::decode(&mut from)?);
        from.end()?;
        Ok(Part::Head(Box::new(head), stored, paused))
    }

    fn read_sessions(number: u64, shift: u32, bytes: &[u8]) -> Result<Part, Malformed> {
        let (mut from, mut sessions) = (Reader::new(bytes), Vec::new());
        from.u64()?;
        while from.left() > 0 {
            let (id, session) = Encoded::decode(&mut from)?;
            let SessionId(n) = id;
            if n >> shift != number {
                return Err(from.malformed("session of the bucket"));
            }
            sessions.push((id, session));
        }
        Ok(Part::Sessions(sessions))
    }

    /// The partition, whose entries are in `segments`. What was read counts as kept by a finished cut.
    ///
    /// # Errors
    /// Buckets or segments are missing, or do not fit to each other.
    pub fn finish(self, segments: &[Arc<Segment>]) -> Result<Partition, Malformed> {
        let Self { id, partitions, head, users, followers, chains, rows, reach, events, .. } = self;
        let Self { sessions, keys, timelines, paused, .. } = self;
        let (head, stored) = head.ok_or(wrong("head"))?;
        let mut partition = Partition::new(id, partitions);
        partition.restore_timelines(&timelines.ok_or(wrong("timelines"))?, segments)?;
        partition.limits = head.limits;
        partition.applied = head.applied;
        partition.stamp = head.stamp;
        partition.incarnation = head.incarnation;
        partition.spaces = head.spaces.into_iter().map(|space| (space.id, space)).collect();
        partition.last_generation = head.last_generation;
        partition.inbox = head.inbox;
        partition.paused = paused;

        let restore_owners = move || -> Result<Owners, Malformed> {
            let followers = followers.records(0..u64::from(head.owners.len))?;
            let chains = chains.records(0..u64::from(head.owners.len))?;
            let mut fits = true;
            let owners = join(followers, chains, &mut fits);
            let owners = Owners::restore(Slots::restore(head.owners, owners)?);
            if fits { Ok(owners) } else { Err(wrong("followers and chains of the same owners")) }
        };
        let restore_others = || -> Result<(), Malformed> {
            let users = users.records(0..u64::from(head.users.len))?;
            partition.users = Users::restore(Slots::restore(head.users, users)?);
            let reach = reach.records(0..u64::from(head.reach.len))?;
            partition.reach = Reach::restore(Slots::restore(head.reach, reach)?);
            partition.restore_rows(head.rows, rows)
        };
        let (owners, others) = at_once(restore_owners, restore_others);
        others?;
        partition.owners = owners?;
        partition.journal.first = head.events.first;
        events.records(head.events.range()?)?.for_each(|event| partition.journal.push(event));
        partition.journal.streams = head.streams;
        partition.sessions.last = head.last_session;
        let in_range = sessions.keys().next_back().is_none_or(|last| last.0 <= head.last_session);
        if !in_range || sessions.len() as u64 != head.sessions {
            return Err(wrong("open sessions"));
        }
        sessions.into_iter().for_each(|(id, session)| partition.sessions.restore(id, session));
        partition.keys = Keys::starting_at(head.keys.first);
        keys.records(head.keys.range()?)?.for_each(|key| partition.keys.restore(key));
        partition.slices = head.slices.into();

        partition.check_indexes()?;
        head.left.into_iter().for_each(|(space, id)| partition.special.note_left(space, id));
        partition.note_all_owners();
        let spaces: Vec<SpaceId> = partition.spaces.keys().copied().collect();
        spaces.into_iter().for_each(|space| partition.recount_horizon(space));
        partition.make_feeds(&stored);
        PARTS.into_iter().filter_map(|part| partition.tracked(part).map(Tracked::forget)).for_each(drop);
        Ok(partition)
    }
}

/// Puts together what stood in buckets of followers and of chains, as long as that `fits`.
fn join(
    followers: impl Iterator<Item = Slot<Owner>>,
    chains: impl Iterator<Item = Option<Chained>>,
    fits: &mut bool,
) -> impl Iterator<Item = Slot<Owner>> {
    followers.zip(chains).map(|(slot, chained)| {
        match (slot, chained) {
            (Slot::Used(mut owner), Some(chained)) => {
                owner.set_chained(chained);
                return Slot::Used(owner);
            }
            (Slot::Free(before), None) => return Slot::Free(before),
            _ => *fits = false,
        }
        Slot::Free(None)
    })
}

/// Does two things at once, the first on a thread of its own, if there can be one.
fn at_once<A: Send, B>(one: impl FnOnce() -> A + Send, other: impl FnOnce() -> B) -> (A, B) {
    let one = Mutex::new(Some(one));
    let take = || one.lock().take().map(|one| one());
    thread::scope(|scope| {
        let started = thread::Builder::new().name("restore".to_owned()).spawn_scoped(scope, take);
        let other = other();
        let done = match started {
            // A panic goes on, as it would have here.
            Ok(thread) => thread.join().unwrap_or_else(|panic| resume_unwind(panic)),
            Err(_) => take(),
        };
        (done.expect("it was taken once"), other)
    })
}

impl Partition {
    fn restore_rows(&mut self, span: Span, rows: Buckets<(Row, Option<Aside>)>) -> Result<(), Malformed> {
        let range = span.range()?;
        if span.len > u64::from(WINDOW_ROWS_MAX) {
            return Err(wrong("a window of at most 2^31 rows"));
        }
        self.delivered = Delivered::starting_at(range.start);
        let mut expiries = Vec::new();
        for (row, aside) in rows.records(range)? {
            let position = self.delivered.next();
            self.delivered.restore(row, aside);
            if row.state() == RowState::Live
                && let Some(expiry) = self.delivered.expiry(position, &row)
            {
                expiries.push((expiry, position));
            }
        }
        self.row_expiries = expiries.into_iter().collect();
        Ok(())
    }

    /// Refuses what names a local index that no slot has, or a space that is not defined.
    fn check_indexes(&self) -> Result<(), Malformed> {
        let (users, owners) = (self.users.extent().len, OwnerIndex(self.owners.extent().len));
        let mut sound = self.users.iter().all(|(_, user)| user.last_owner().is_none_or(|last| last < owners));
        sound &= self.owners.iter().all(|(_, owner)| owner.followers.last().is_none_or(|last| last < users));
        sound &= self.delivered.iter().all(|(_, row)| row.owner < owners);
        sound &= self
            .slices
            .iter()
            .all(|slice| self.spaces.contains_key(&slice.space) && self.owners.contains(slice.owner));
        if sound { Ok(()) } else { Err(wrong("local indexes in use")) }
    }

    /// Makes the feeds: empty, each above the largest id of its space in the window.
    fn make_feeds(&mut self, stored: &BTreeMap<SpaceId, u64>) {
        let mut floors: BTreeMap<SpaceId, EntryId> = BTreeMap::new();
        // Rows of one space mostly follow each other, and ids mostly ascend.
        let mut last: Option<(SpaceId, EntryId)> = None;
        for (_, row) in self.delivered.iter() {
            if last.is_none_or(|(space, floor)| row.space != space || row.id > floor) {
                let floor = floors.entry(row.space).or_default();
                *floor = row.id.max(*floor);
                last = Some((row.space, *floor));
            }
        }
        let spaces = floors.keys().chain(stored.keys()).copied();
        let feeds = spaces.map(|space| {
            let floor = floors.get(&space).copied().unwrap_or_default();
            let mut feeds = Feeds::above(floor, stored.get(&space).copied().unwrap_or_default());
            self.users.freed().for_each(|user| feeds.free(user.0));
            (space, feeds)
        });
        self.feeds = feeds.collect();
    }
}
