//! Owns the state of one partition: a deterministic function of the partition's Raft log.
//!
//! - Commands come in batches, each under one stamp; nothing here reads a clock, draws a random number or depends
//!   on the order of a hash map.
//! - A feed is a query with a cache: what is stored changes only what a read costs, never what it shows.
//! - Reads answer for the applied stamp (R1) and change nothing.

mod away;
mod chains;
mod chunk;
mod cut;
mod delivered;
mod deliveries;
mod dense;
mod deque;
mod explain;
mod export;
mod fan_out;
mod feed;
mod following;
mod heap;
mod import;
mod index;
mod journal;
mod look_ahead;
mod map;
mod merge;
mod news;
mod own;
mod owners;
mod paused;
mod posting;
mod prefetch;
mod prepare;
mod reach;
mod read;
mod relate;
mod relations;
mod row;
mod sessions;
mod slots;
mod special;
mod stream;
mod timelines;
mod usage;
mod users;
mod varint;
mod viewpoint;
mod write;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

pub use cut::{
    CutBucket, EndedCut, Restored, Restoring, TIMELINES_SECTION, renumber_timelines, section_name,
};
pub use deliveries::{DeliveredBy, Deliveries};
pub use explain::{OwnerFacts, ReaderFacts};
pub use export::ExportedEdge;
pub use journal::{Pending, StreamVerdict};
pub use read::{FeedQuery, FeedSlice, RemoteSource, Subject, TimelineSlice};
pub use timelines::{
    Dropped, FlushWork, Flushed, MergePolicy, MergeWork, Merged, TimelineSizes, TimelinesCut,
};
pub use usage::{MemoryPart, Usage};

use cut::Cutting;
use delivered::Delivered;
use deliveries::DeliveryCounts;
use fan_out::Slice;
use feed::Feeds;
use journal::Journal;
use look_ahead::LOOK_AHEAD;
use owners::Owners;
use paused::Paused;
use reach::Reach;
use sessions::{Keys, Sessions};
use special::Special;
use stream::Incoming;
use timelines::Timelines;
use users::Users;

use crate::codec::Malformed;
use crate::command::{Command, Limits, Outcome, Refusal, decode_batch};
use crate::ids::{EntryId, GraphId, PartitionId, RowPosition, SpaceId, Stamp, UserId};
use crate::space::SpaceDefinition;

/// The incarnation a partition is made with.
const FIRST_INCARNATION: u64 = 1;

/// Expired entries and rows taken out per Raft entry, so that a burst of expiries does not hold up the log.
const SWEEP_MAX: usize = 4_096;

/// Commands applied in one piece, at most.
const PIECE_COMMANDS: usize = 64;

/// Deliveries after which a piece ends.
const PIECE_DELIVERIES: u64 = 4_096;

/// A batch that is being applied.
#[derive(Debug)]
pub struct Applying<'b> {
    index: u64,
    commands: std::vec::IntoIter<(Command, &'b [u8])>,
    outcomes: Vec<Outcome>,
}

impl Applying<'_> {
    /// What the commands came to, in order.
    pub fn into_outcomes(self) -> Vec<Outcome> {
        self.outcomes
    }
}

/// One partition's state machine.
#[derive(Debug)]
pub struct Partition {
    id: PartitionId,
    partitions: u16,
    limits: Limits,
    applied: u64,
    stamp: Stamp,
    incarnation: u64,
    spaces: BTreeMap<SpaceId, SpaceDefinition>,
    timelines: Timelines,
    /// Which partitions subscribed to the owners homed here, and under which generation.
    reach: Reach,
    users: Users,
    owners: Owners,
    last_generation: u64,
    delivered: Delivered,
    row_expiries: BTreeSet<(Stamp, RowPosition)>,
    feeds: BTreeMap<SpaceId, Feeds>,
    special: Special,
    /// Rows and owners that were looked at to free and to rebuild feeds, and rows that left the window, since it was made.
    rebuilt: u64,
    /// Up to this Raft entry nothing is stored in feeds.
    replay_until: u64,
    /// Whether the entry that is being applied is one of those.
    is_replaying: bool,
    slices: VecDeque<Slice>,
    deliveries: DeliveryCounts,
    paused: Paused,
    journal: Journal,
    inbox: BTreeMap<PartitionId, Incoming>,
    sessions: Sessions,
    keys: Keys,
    /// Of each space with a horizon, the seconds in which entries known here were made.
    horizon_seconds: BTreeMap<SpaceId, BTreeSet<u64>>,
    cutting: Option<Cutting>,
    /// Bytes of memory for what a cut saves.
    saved_bytes_max: usize,
    /// Of those spaces, the first and the last second of entries that were on disk already when that was counted.
    horizon_spans: BTreeMap<SpaceId, (u64, u64)>,
}

impl Partition {
    /// An empty partition, one of `partitions` (a power of two, at most 4,096).
    pub fn new(id: PartitionId, partitions: u16) -> Self {
        assert!(partitions.is_power_of_two() && partitions <= 4_096 && id.0 < partitions);
        Self {
            id,
            partitions,
            limits: Limits::default(),
            applied: 0,
            stamp: Stamp(0),
            incarnation: FIRST_INCARNATION,
            spaces: BTreeMap::new(),
            timelines: Timelines::default(),
            reach: Reach::default(),
            users: Users::default(),
            owners: Owners::default(),
            last_generation: 0,
            delivered: Delivered::default(),
            row_expiries: BTreeSet::new(),
            feeds: BTreeMap::new(),
            special: Special::default(),
            rebuilt: 0,
            replay_until: 0,
            is_replaying: false,
            slices: VecDeque::new(),
            deliveries: DeliveryCounts::default(),
            paused: Paused::new(),
            journal: Journal::default(),
            inbox: BTreeMap::new(),
            sessions: Sessions::default(),
            keys: Keys::default(),
            horizon_seconds: BTreeMap::new(),
            cutting: None,
            saved_bytes_max: cut::SAVED_BYTES_MAX,
            horizon_spans: BTreeMap::new(),
        }
    }

    /// Stores nothing in feeds up to the Raft entry `until`, so that a log is replayed sooner: what would have been stored raises
    /// the floor of all feeds instead, and reads take the chains below it, at any time (R7). Nothing else differs. Only for a partition
    /// whose feeds hold nothing, as one that is new or was restored.
    pub fn replay_until(&mut self, until: u64) {
        assert!(self.feeds.values().all(|feeds| feeds.references() == 0), "feeds that hold something");
        self.replay_until = until;
    }

    /// Applies the batch of the Raft entry `index`: one outcome per command, in order.
    ///
    /// # Errors
    /// The batch is not one that [`encode_batch`](crate::command::encode_batch) made; nothing was applied.
    pub fn apply(&mut self, index: u64, batch: &[u8]) -> Result<Vec<Outcome>, Malformed> {
        let mut applying = self.begin(index, batch)?;
        while self.go_on(&mut applying) {}
        Ok(applying.outcomes)
    }

    /// Begins to apply the batch of the Raft entry `index`; [`Partition::go_on`] does the work in short pieces, between
    /// which it may be read.
    ///
    /// # Errors
    /// As for [`Partition::apply`].
    pub fn begin<'b>(&mut self, index: u64, batch: &'b [u8]) -> Result<Applying<'b>, Malformed> {
        let (stamp, commands) = decode_batch(batch)?;
        assert!(index > self.applied, "Raft entry {index} applied after {}", self.applied);
        self.is_replaying = index <= self.replay_until;
        self.stamp = self.stamp.max(stamp);
        self.pass_time();
        let outcomes = Vec::with_capacity(commands.len());
        Ok(Applying { index, commands: commands.into_iter(), outcomes })
    }

    /// Applies the next piece of a batch; false when it is done. The entry counts as applied only then.
    pub fn go_on(&mut self, applying: &mut Applying<'_>) -> bool {
        let enough = self.work() + PIECE_DELIVERIES;
        for n in 0..PIECE_COMMANDS {
            if n.is_multiple_of(LOOK_AHEAD) {
                self.look_ahead_of_commands(applying.commands.as_slice());
            }
            let Some((command, raw)) = applying.commands.next() else { break };
            let outcome = self.command(command, raw);
            applying.outcomes.push(outcome);
            if self.work() >= enough {
                break;
            }
        }
        // Whoever reads before the next piece finds all of this one.
        self.feeds.values_mut().for_each(Feeds::drain);
        if applying.commands.len() > 0 {
            return true;
        }
        self.shrink_window();
        self.applied = applying.index;
        false
    }

    /// References ever stored in feeds, and what was done besides: feeds freed and rebuilt, rows that left.
    fn work(&self) -> u64 {
        self.rebuilt + self.feeds.values().map(Feeds::stored).sum::<u64>()
    }

    fn command(&mut self, command: Command, raw: &[u8]) -> Outcome {
        match command {
            Command::OpenSession => {
                if self.sessions.open.len() >= self.limits.sessions_max as usize {
                    let what = crate::command::Limited::Sessions;
                    let limit = self.limits.sessions_max;
                    return Outcome::Refused { refusal: Refusal::LimitReached { what, limit } };
                }
                return Outcome::Session { session: self.sessions.open(self.stamp) };
            }
            Command::CloseSession { session } => self.sessions.close(session),
            Command::Write { tag, write } => return self.write(&tag, write, raw),
            Command::Configure { limits } => {
                assert!(limits.window_rows <= delivered::WINDOW_ROWS_MAX, "a window of at most 2^31 rows");
                self.limits = limits;
            }
            Command::DefineSpace { definition } => self.define_space(definition),
            Command::Stream { message } => return Outcome::Stream { answer: self.receive(message) },
            Command::Trim { through } => self.journal.trim(through),
            Command::DropDestination { destination } => self.journal.drop_destination(destination),
            Command::ResumeDestination { destination, incarnation } => {
                self.resume_destination(destination, incarnation);
            }
            Command::Tick => self.serve_slice(),
            Command::Reincarnate { incarnation } => self.reincarnate(incarnation),
            Command::PauseFanOut { owner, is_paused } => return self.pause_fan_out(owner, is_paused),
            Command::Active { readers } => self.note_active(&readers),
            Command::FreeFeeds { before, from, most } => self.free_feeds(before, from, most),
            Command::LeaveWindow { keep, most } => self.leave_window(keep, most),
        }
        Outcome::Done
    }

    fn define_space(&mut self, definition: SpaceDefinition) {
        let known = self.spaces.get(&definition.id);
        if known.is_some_and(|known| known.version >= definition.version) {
            return;
        }
        assert!(
            known.is_none_or(|known| known.graph == definition.graph),
            "the graph of a space never changes"
        );
        let (id, horizon_ms) = (definition.id, definition.policy.horizon_ms);
        let before = self.spaces.insert(id, definition);
        if before.is_none_or(|before| before.policy.horizon_ms != horizon_ms) {
            // It looks at every row and entry.
            self.recount_horizon(id);
        }
    }

    /// Lets everything expire that is due at the stamp.
    fn pass_time(&mut self) {
        let stamp = self.stamp;
        self.timelines.sweep(stamp, SWEEP_MAX);
        for _ in 0..SWEEP_MAX {
            match self.row_expiries.first() {
                Some((expiry, _)) if *expiry <= stamp => self.expire_first_row(),
                _ => break,
            }
        }
        self.sessions.expire(stamp, self.limits.session_life_ms);
        self.keys.expire(stamp, self.limits.key_window_ms);
        for (space, seconds) in &mut self.horizon_seconds {
            let passed =
                self.spaces[space].policy.horizon_ms.map_or(0, |h| stamp.0.saturating_sub(h) / 1_000);
            *seconds = seconds.split_off(&passed);
            if let Some(span) = self.horizon_spans.get_mut(space) {
                span.0 = span.0.max(passed);
            }
        }
    }

    /// The stamp at which a tick is due, because something vanishes then that no write would hide.
    pub fn next_due(&self) -> Option<Stamp> {
        self.timelines.next_expiry(self.stamp).into_iter().chain(self.next_due_of_new()).min()
    }

    /// The same, but for entries in tables that are full and in segments: they were new when this was asked before.
    pub fn next_due_of_new(&self) -> Option<Stamp> {
        let expiry = self.timelines.next_expiry_of_new();
        let row = self.row_expiries.first().map(|(expiry, _)| *expiry);
        let horizon = self.horizon_seconds.iter().filter_map(|(space, seconds)| {
            let horizon_ms = self.spaces[space].policy.horizon_ms?;
            // Which seconds of the span have entries is not known: a tick too many hides nothing.
            let span = self.horizon_spans.get(space).filter(|(first, last)| first <= last);
            let second = seconds.first().copied().into_iter().chain(span.map(|(first, _)| *first)).min()?;
            Some(Stamp((second + 1) * 1_000 + horizon_ms))
        });
        expiry.into_iter().chain(row).chain(horizon).min()
    }

    /// Notes that an entry of `space` is known here, so that a tick comes when it passes the horizon.
    fn note_for_horizon(&mut self, space: SpaceId, id: EntryId) {
        if let Some(seconds) = self.horizon_seconds.get_mut(&space) {
            seconds.insert(id.time().0 / 1_000);
        }
    }

    fn recount_horizon(&mut self, space: SpaceId) {
        self.horizon_seconds.remove(&space);
        self.horizon_spans.remove(&space);
        let Some(horizon_ms) = self.spaces[&space].policy.horizon_ms else { return };
        let rows = self.delivered.iter().filter(|(_, row)| row.space == space).map(|(_, row)| row.id);
        let own = self.timelines.unflushed().filter(|entry| entry.space == space).map(|entry| entry.id);
        let second = |id: EntryId| id.time().0 / 1_000;
        let seconds = rows.chain(own).map(second);
        let passed = self.stamp.0.saturating_sub(horizon_ms) / 1_000;
        let seconds = seconds.filter(|second| *second >= passed).collect();
        self.horizon_seconds.insert(space, seconds);
        // To look at every entry on disk would take too long.
        let span = self.timelines.segment_ids().map(|(lowest, highest)| (second(lowest), second(highest)));
        self.horizon_spans.extend(span.map(|(first, last)| (space, (first.max(passed), last))));
    }

    /// The smallest id that is not older than the space's horizon.
    fn horizon(&self, space: SpaceId) -> EntryId {
        let horizon_ms = self.spaces.get(&space).and_then(|s| s.policy.horizon_ms);
        let oldest = horizon_ms.and_then(|h| self.stamp.0.checked_sub(h));
        oldest.map_or(EntryId::ZERO, |oldest| EntryId::first_at(Stamp(oldest)))
    }

    /// Which partition it is.
    pub fn id(&self) -> PartitionId {
        self.id
    }

    /// The last Raft entry applied.
    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// Log time: the stamp of the last batch applied.
    pub fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// Changed by every restore and forced recovery (R11).
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// The limits in force.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The spaces it knows.
    pub fn spaces(&self) -> impl Iterator<Item = &SpaceDefinition> {
        self.spaces.values()
    }

    /// The definition of a space.
    pub fn space(&self, id: SpaceId) -> Option<&SpaceDefinition> {
        self.spaces.get(&id)
    }

    fn home_of(&self, user: UserId) -> PartitionId {
        PartitionId::of_user(user, self.partitions)
    }

    fn check_home(&self, user: UserId) -> Result<(), Refusal> {
        let right = self.home_of(user);
        if right == self.id { Ok(()) } else { Err(Refusal::WrongPartition { right }) }
    }

    fn knows_graph(&self, graph: GraphId) -> bool {
        self.spaces.values().any(|space| space.graph == graph)
    }

    fn spaces_of(&self, graph: GraphId) -> Vec<SpaceId> {
        self.spaces.values().filter(|space| space.graph == graph).map(|space| space.id).collect()
    }
}
