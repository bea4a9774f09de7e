//! Partitions of many buckets, cut while they go on.

mod golden;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::codec::Malformed;
use crate::command::{Append, Command, Limits, Ttl, Write, WriteTag, encode_batch};
use crate::entry::{Audience, EntryRef};
use crate::event::{Event, StreamMessage};
use crate::fs::{FaultFs, FileSystem};
use crate::ids::{
    EntryId, Generation, GraphId, JournalPosition, Sequence, SessionId, SpaceId, Stamp, StreamEpoch, UserId,
};
use crate::segment::{Segment, SegmentNumber};
use crate::space::{SpaceDefinition, SpacePolicy};

const HERE: PartitionId = PartitionId(0);
const GRAPH: GraphId = GraphId(1);
const SPACE: SpaceId = SpaceId(1);
const DIR: &str = "/partition";
const START: Stamp = Stamp(840_000_000_000);

type Buckets = BTreeMap<(u8, u64), Vec<u8>>;

/// A partition, one of two, with a life of its own.
struct Life {
    partition: Partition,
    log: Vec<Bytes>,
    /// Homed here.
    users: Vec<UserId>,
    random: u64,
    sequence: u64,
    watermark: u64,
    made: Vec<(EntryId, UserId)>,
    kept: Buckets,
    disk: FaultFs,
    files: u64,
    /// Those that the kept cut needs.
    segments: Vec<Arc<Segment>>,
    /// The most that cuts saved.
    saved_bytes: usize,
}

impl Life {
    fn new(users: usize, window_rows: u32) -> Self {
        let homed = (0..).map(UserId).filter(|user| PartitionId::of_user(*user, 2) == HERE);
        let mut life = Self {
            partition: Partition::new(HERE, 2),
            log: Vec::new(),
            users: homed.take(users).collect(),
            random: 7,
            sequence: 0,
            watermark: 0,
            made: Vec::new(),
            kept: Buckets::new(),
            disk: FaultFs::new(),
            files: 0,
            segments: Vec::new(),
            saved_bytes: 0,
        };
        life.disk.create_dir_all(Path::new(DIR)).unwrap();
        let limits = Limits { window_rows, key_window_ms: 20_000, slice_followers: 6, ..Limits::default() };
        let definition = SpaceDefinition {
            id: SPACE,
            name: "posts".into(),
            graph: GRAPH,
            graph_name: "follows".into(),
            version: 1,
            policy: SpacePolicy { feed_cap: 20, horizon_ms: Some(3_600_000), ..SpacePolicy::default() },
        };
        let mut first = vec![Command::Configure { limits }, Command::DefineSpace { definition }];
        first.extend((0..200).map(|_| Command::OpenSession));
        life.apply(&first);
        life
    }

    fn below(&mut self, bound: usize) -> usize {
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) as usize % bound
    }

    fn user(&mut self) -> UserId {
        let at = self.below(self.users.len());
        self.users[at]
    }

    fn apply(&mut self, commands: &[Command]) {
        let encoded: Vec<_> = commands.iter().map(Command::to_bytes).collect();
        let batch = encode_batch(Stamp(START.0 + 5 * self.log.len() as u64), &encoded);
        self.log.push(batch.clone());
        let outcomes = self.partition.apply(self.log.len() as u64, &batch).unwrap();
        for outcome in outcomes {
            if let crate::command::Outcome::Written {
                result: crate::command::WriteResult::Appended { items },
                ..
            } = outcome
                && let [crate::command::AppendResult::Made { id, .. }] = items[..]
            {
                let owner = self.partition.entries(&[id]).remove(0).unwrap().owner;
                self.made.push((id, owner));
            }
        }
    }

    fn write(&mut self, write: Write) -> Command {
        self.sequence += 1;
        let (session, sequence) = (SessionId(1 + self.sequence % 150), Sequence(self.sequence));
        let lowest_unanswered = Sequence(self.sequence.saturating_sub(1_000));
        Command::Write { tag: WriteTag { session, sequence, lowest_unanswered }, write }
    }

    /// A command of any kind that changes something.
    fn command(&mut self) -> Command {
        let (user, other) = (self.user(), self.user());
        // Half of those who are followed live elsewhere.
        let far = UserId(other.0 + 1 + self.below(3) as u64);
        let picked = self.made.len().checked_sub(1).map(|last| {
            let back = self.below(400).min(last);
            self.made[last - back]
        });
        let write = match (self.below(20), picked) {
            (0..9, _) => {
                let reference =
                    picked.filter(|_| self.below(3) == 0).map(|(id, owner)| EntryRef { owner, id });
                let ttl = if self.below(4) == 0 { Ttl::Ms { ttl_ms: 3_000 } } else { Ttl::SpaceDefault };
                let key = Bytes::from(self.sequence.to_le_bytes().to_vec());
                let key = Some(key).filter(|_| self.sequence.is_multiple_of(3));
                let (payload, audience) = (Bytes::from_static(b"payload"), Audience::Public);
                let author = Some(other).filter(|_| self.below(5) == 0);
                let item =
                    Append { space: SPACE, owner: user, author, audience, ttl, key, reference, payload };
                Write::Append { items: vec![item] }
            }
            (9, Some((id, owner))) => Write::Delete { space: SPACE, owner, id },
            (10, Some((id, owner))) => {
                Write::SetExpiry { space: SPACE, owner, id, ttl: Ttl::Ms { ttl_ms: 1_000 } }
            }
            (11, Some((id, owner))) => {
                let payload = Bytes::from_static(b"amended");
                Write::Amend { space: SPACE, owner, id, expected_version: 1, payload }
            }
            (12, _) => Write::Mute { user, targets: vec![other] },
            (13, _) => Write::Block { user, targets: vec![other] },
            (14, _) => Write::Unfollow { graph: GRAPH, reader: user, owners: self.users.clone() },
            (15, _) => return Command::OpenSession,
            (16, _) => return Command::CloseSession { session: SessionId(151 + self.below(60) as u64) },
            (17, _) => return self.subscription(),
            (18, _) => {
                return Command::Trim { through: JournalPosition(self.partition.journal_next().0 / 2) };
            }
            _ => Write::Follow { graph: GRAPH, reader: user, owners: vec![other, far] },
        };
        self.write(write)
    }

    /// The other partition subscribes to some owners, or ends that.
    fn subscription(&mut self) -> Command {
        let previous = JournalPosition(self.watermark);
        let mut events = Vec::new();
        for _ in 0..20 {
            self.watermark += 1;
            let (graph, owner, generation) = (GRAPH, self.user(), Generation(1));
            let event = match self.below(3) {
                0 => Event::Unsubscribe { graph, owner, generation },
                _ => Event::Subscribe { graph, owner, generation },
            };
            events.push((JournalPosition(self.watermark), event));
        }
        let epoch = StreamEpoch { incarnation: 1, resets: 0 };
        let message =
            StreamMessage { source: PartitionId(1), epoch, destination_incarnation: 1, previous, events };
        Command::Stream { message }
    }

    fn go_on(&mut self, commands: usize) {
        for _ in 0..commands.div_ceil(10) {
            let commands: Vec<_> = (0..10).map(|_| self.command()).collect();
            self.apply(&commands);
        }
    }

    /// Flushes what the cut waits for; what it holds of the timelines.
    fn flushed_timelines(&mut self) -> Vec<u8> {
        let dir = Path::new(DIR);
        let (image, infos) = loop {
            if let Some(cut) = self.partition.cut_timelines() {
                break cut.encode();
            }
            let work = self.partition.flush_work().unwrap();
            let number = Cell::new(self.files);
            let next = || {
                number.set(number.get() + 1);
                SegmentNumber(number.get())
            };
            let mut flushed = work.write(&self.disk, dir, &next, &|_| {}).unwrap();
            self.files = number.get();
            while !self.partition.install_flush(&mut flushed) {
                flushed.catch_up();
            }
        };
        let open = |info| Arc::new(Segment::open(&self.disk, dir, info).unwrap());
        self.segments = infos.iter().map(open).collect();
        image
    }

    /// Goes on for so many commands, or until a cut has to catch up.
    fn go_on_beside(&mut self, commands: usize) {
        for _ in 0..commands.div_ceil(10) {
            if self.partition.cut_holds_too_much() {
                return;
            }
            self.go_on(1);
            self.saved_bytes = self.saved_bytes.max(self.partition.cut_saved_bytes());
        }
    }

    /// Cuts the partition, with so many commands between two steps; answers how many buckets were written.
    fn cut(&mut self, commands: usize) -> usize {
        let (checksum, applied) = (self.partition.checksum(), self.log.len());
        let (mut buckets, mut written) = (Buckets::new(), 0);
        self.partition.begin_cut();
        while let Some(bucket) = self.partition.next_bucket(&|_, _| false) {
            let (key, bytes) = match bucket {
                CutBucket::Unfinished => continue,
                CutBucket::Written { section, number, bytes } => {
                    written += 1;
                    ((section, number), bytes)
                }
                CutBucket::Unchanged { section, number } => {
                    ((section, number), self.kept[&(section, number)].clone())
                }
            };
            assert!(buckets.insert(key, bytes).is_none());
            self.go_on_beside(commands);
        }
        let timelines = self.flushed_timelines();
        buckets.insert((TIMELINES_SECTION, 0), timelines);
        drop(self.partition.end_cut());
        let mut restored = restore(&buckets, &self.segments).unwrap();
        assert_eq!(restored.checksum(), checksum);
        for (n, batch) in self.log.iter().enumerate().skip(applied) {
            restored.apply(n as u64 + 1, batch).unwrap();
        }
        assert_eq!(restored.checksum(), self.partition.checksum());
        assert_eq!(counts(&restored), counts(&self.partition));
        self.kept = buckets;
        written
    }
}

/// What a partition counts as it goes on, and a restored one anew.
fn counts(partition: &Partition) -> (u64, u64, u64, u64, Option<Stamp>) {
    let usage = partition.usage();
    (usage.edges, usage.users, usage.owners, usage.rows, partition.next_due())
}

fn restore(buckets: &Buckets, segments: &[Arc<Segment>]) -> Result<Partition, Malformed> {
    let mut restoring = Partition::restoring(HERE, 2);
    // From the last to the first: their order does not matter.
    for ((section, number), bytes) in buckets.iter().rev() {
        restoring.add(*section, *number, bytes)?;
    }
    restoring.finish(segments)
}

#[test]
fn a_cut_of_many_buckets_is_the_state_when_it_began() {
    let mut life = Life::new(1_500, 5_000);
    life.go_on(14_000);
    let first = life.cut(60);
    let sections: Vec<u8> = life.kept.keys().map(|(section, _)| *section).collect();
    assert!((1..=10).all(|section| sections.contains(&section)), "{sections:?}");
    assert!(first >= 15, "{first} buckets");
    life.cut(150);
    // What moved along while the cut ran is no part of the next.
    life.go_on(3_000);
    life.cut(0);
}

/// What a batch of a life changes, saved.
const BATCH_BYTES: usize = 8 << 10;

#[test]
fn at_its_bound_a_cut_is_the_state_when_it_began_and_saves_no_more() {
    let mut free = Life::new(1_500, 5_000);
    free.go_on(4_000);
    free.cut(100);
    let unbounded = free.saved_bytes;
    for part in [0, 8] {
        let bound = unbounded.checked_div(part).unwrap_or_default();
        let mut life = Life::new(1_500, 5_000);
        life.go_on(4_000);
        life.partition.bound_cuts(bound);
        // Every bucket changed before the first one; of the second, some did not.
        for _ in 0..2 {
            life.cut(100);
            let most = bound + BATCH_BYTES;
            assert!((bound..=most).contains(&life.saved_bytes), "{} of {bound}", life.saved_bytes);
        }
        assert!(2 * (bound + BATCH_BYTES) < unbounded, "{unbounded} without a bound");
    }
}

#[test]
fn what_a_cut_saves_is_counted_with_the_memory_of_its_part() {
    let mut life = Life::new(1_500, 5_000);
    life.go_on(14_000);
    let used = |life: &Life| life.partition.usage().memory.iter().map(|(_, bytes)| bytes).sum::<u64>();
    life.partition.begin_cut();
    let users = life.users.clone();
    let before = used(&life);
    for user in users {
        let write = life.write(Write::Mute { user, targets: vec![UserId(user.0 + 1)] });
        life.apply(&[write]);
    }
    let saved = life.partition.cut_saved_bytes() as u64;
    assert!(saved > 100_000, "{saved}");
    assert!(used(&life) - before >= saved);
    let with = used(&life);
    drop(life.partition.abandon_cut());
    // What changed counts as changed again, a bit a bucket.
    assert!((used(&life) + saved).abs_diff(with) < 4 << 10);
}

#[test]
fn a_quiet_partition_writes_its_head_and_what_changed() {
    let mut life = Life::new(1_500, 5_000);
    life.go_on(8_000);
    assert!(life.cut(0) >= 12);
    assert_eq!(life.cut(0), 1, "the head");
    let (user, other) = (life.users[3], life.users[1_400]);
    let follow = life.write(Write::Follow { graph: GRAPH, reader: user, owners: vec![other] });
    life.apply(&[follow]);
    let written = life.cut(0);
    assert!((4..=6).contains(&written), "{written} buckets for one follow");
}

#[test]
fn what_an_abandoned_cut_had_taken_is_written_by_the_next() {
    let mut life = Life::new(300, 1_000);
    life.go_on(3_000);
    life.cut(0);
    life.go_on(500);
    for steps in [0, 1, 4, 100] {
        life.partition.begin_cut();
        (0..steps).for_each(|_| _ = life.partition.next_bucket(&|_, _| false));
        life.go_on(10);
        drop(life.partition.abandon_cut());
    }
    assert!(life.cut(0) >= 8);
}

#[test]
fn missing_and_damaged_buckets_are_refused_and_never_panic() {
    let mut life = Life::new(60, 200);
    life.go_on(1_200);
    life.cut(0);
    for key in life.kept.keys() {
        let mut moved = life.kept.clone();
        moved.remove(key);
        assert!(restore(&moved, &life.segments).is_err(), "without {key:?}");
        moved.insert((key.0, key.1 + 1_000), life.kept[key].clone());
        assert!(restore(&moved, &life.segments).is_err(), "{key:?} as another");
        let mut shorter = life.kept.clone();
        shorter.get_mut(key).unwrap().pop();
        assert!(restore(&shorter, &life.segments).is_err(), "a byte short: {key:?}");
    }
    let mut random = 5u64;
    for _ in 0..400 {
        let mut damaged = life.kept.clone();
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let at = (random >> 33) as usize;
        let bytes = damaged.values_mut().nth(at % life.kept.len()).unwrap();
        let len = bytes.len();
        bytes[(at >> 8) % len] ^= 1 << (random >> 20 & 7);
        let _refused_or_another_state =
            restore(&damaged, &life.segments).map(|partition| partition.checksum());
    }
}
