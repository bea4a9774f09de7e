//! The system under test: partitions, the streams between them at their worst, and the oracle beside them.

use std::collections::{BTreeMap, HashSet};

use fanfold_storage::command::{
    Append, AppendResult, Command, Limits, Outcome, Refusal, Ttl, Write, WriteResult, WriteTag,
};
use fanfold_storage::entry::{Audience, Entry, EntryRef};
use fanfold_storage::event::StreamMessage;
use fanfold_storage::ids::{
    Day, EntryId, GraphId, JournalPosition, PartitionId, RowPosition, Sequence, SessionId, SpaceId, Stamp,
    UserId,
};
use fanfold_storage::oracle::Oracle;
use fanfold_storage::partition::{FeedQuery, Partition, StreamVerdict};
use fanfold_storage::space::{FanOut, SpaceDefinition, SpacePolicy};

use crate::disk::Maintenance;
use crate::node::{Node, home};

mod check;
mod import;
mod streams;

pub use import::{ImportItem, ImportPlace};

const GRAPH: GraphId = GraphId(1);
const SPACES: [SpaceId; 2] = [SpaceId(1), SpaceId(2)];
/// Two users that are at home in different ones of two partitions.
pub const APART: (u64, u64) = (0, 2);
const START: Stamp = Stamp(840_000_000_000);

/// How long application keys are remembered.
const KEY_WINDOW_MS: u64 = 4_000;

#[derive(Clone, Debug)]
pub struct Settings {
    pub partitions: u16,
    pub window_rows: u32,
    pub slice_followers: u32,
    pub backfill_followers: u32,
}

#[derive(Clone, Debug)]
pub enum Step {
    Append {
        space: usize,
        owner: u64,
        author: u64,
        audience: Audience,
        ttl_ms: Option<u64>,
        reference: u8,
    },
    Amend {
        pick: u8,
    },
    Delete {
        pick: u8,
    },
    SetExpiry {
        pick: u8,
        ttl_ms: Option<u64>,
    },
    Follow {
        reader: u64,
        owners: Vec<u64>,
    },
    Unfollow {
        reader: u64,
        owner: u64,
    },
    Mute {
        user: u64,
        target: u64,
    },
    Unmute {
        user: u64,
        target: u64,
    },
    Block {
        user: u64,
        target: u64,
    },
    Unblock {
        user: u64,
        target: u64,
    },
    /// Edges with ages in milliseconds, of all readers at home with one.
    ImportFollows {
        reader: u64,
        edges: Vec<(u64, u64, i64)>,
    },
    /// Entries of all owners at home with one.
    ImportEntries {
        owner: u64,
        items: Vec<ImportItem>,
    },
    RetryLast,
    Advance {
        ms: u64,
    },
    Alter {
        space: usize,
        feed_cap: u32,
        pull_threshold: u32,
        fan_out: FanOut,
        horizon_ms: Option<u64>,
    },
    /// Some stream messages are made, delivered in any order, repeated or dropped.
    Streams {
        seed: u64,
    },
    /// The next event between the two users of [`APART`] arrives.
    OneEvent {
        from_owner: bool,
    },
    Slice {
        partition: u8,
    },
    Restart {
        partition: u8,
    },
    /// Another session is opened, or all but the first that are open are closed.
    Sessions {
        partition: u8,
        open: bool,
    },
    BeginCut {
        partition: u8,
    },
    AbandonCut {
        partition: u8,
    },
    /// A partition is built from a cut, and lives on in place of the other if `restart` says so.
    FinishCut {
        partition: u8,
        restart: bool,
    },
    DropStream {
        source: u8,
        destination: u8,
    },
    Reincarnate {
        partition: u8,
    },
    /// Everything is delivered and compared; with or without the slices done.
    Check {
        slices: bool,
    },
    Mark {
        reader: u64,
    },
    /// A reader was active, or everybody else stays away.
    Active {
        reader: u64,
    },
    FreeFeeds {
        partition: u8,
        from: u32,
        most: u32,
    },
    LeaveWindow {
        partition: u8,
        keep: u32,
        most: u32,
    },
    Maintain {
        partition: u8,
        maintenance: Maintenance,
    },
}

struct Mark {
    row: RowPosition,
    bound: EntryId,
    made: usize,
}

pub struct System {
    nodes: Vec<Node>,
    /// Messages on their way.
    wire: Vec<(PartitionId, StreamMessage)>,
    oracle: Oracle,
    spaces: Vec<SpaceDefinition>,
    now: Stamp,
    users: u64,
    sequence: u64,
    last: Option<(UserId, Command, Outcome)>,
    /// All entries ever made, in order.
    made: Vec<(EntryId, SpaceId, UserId)>,
    /// Entries put back by a change of their expiry count as news or not, depending on what had been swept.
    touched: HashSet<EntryId>,
    marks: BTreeMap<UserId, Mark>,
    imports: import::Imports,
    /// In the order in which their feeds are read after a step.
    spaces_read: [SpaceId; 2],
}

impl System {
    pub fn new(settings: &Settings, users: u64) -> Self {
        let limits = Limits {
            window_rows: settings.window_rows,
            slice_followers: settings.slice_followers,
            backfill_followers: settings.backfill_followers,
            key_window_ms: KEY_WINDOW_MS,
            ..Limits::default()
        };
        let nodes = (0..settings.partitions).map(|p| Node::new(PartitionId(p), settings.partitions));
        let spaces = SPACES.map(|id| SpaceDefinition {
            id,
            name: format!("space-{id}"),
            graph: GRAPH,
            graph_name: "follows".into(),
            version: 1,
            policy: SpacePolicy { feed_cap: 3, pull_threshold: 3, ..SpacePolicy::default() },
        });
        let mut system = Self {
            nodes: nodes.collect(),
            wire: Vec::new(),
            oracle: Oracle::new(),
            spaces: spaces.to_vec(),
            now: START,
            users,
            sequence: 0,
            last: None,
            made: Vec::new(),
            touched: HashSet::new(),
            marks: BTreeMap::new(),
            imports: import::Imports::default(),
            spaces_read: SPACES,
        };
        for node in &mut system.nodes {
            let configure = Command::Configure { limits: limits.clone() };
            let outcomes = node.propose(START, &[configure, Command::OpenSession]);
            assert_eq!(outcomes[1], Outcome::Session { session: SessionId(1) });
        }
        for definition in system.spaces.clone() {
            system.define(&definition);
        }
        system
    }

    fn define(&mut self, definition: &SpaceDefinition) {
        self.oracle.define_space(definition.clone());
        for node in &mut self.nodes {
            node.propose(self.now, &[Command::DefineSpace { definition: definition.clone() }]);
        }
    }

    fn node_of(&mut self, user: UserId) -> &mut Node {
        let partition = PartitionId::of_user(user, self.nodes.len() as u16);
        &mut self.nodes[usize::from(partition.0)]
    }

    fn write(&mut self, user: UserId, write: Write) -> Result<WriteResult, Refusal> {
        self.sequence += 1;
        let tag = WriteTag {
            session: SessionId(1),
            sequence: Sequence(self.sequence),
            lowest_unanswered: Sequence(self.sequence.saturating_sub(5)),
        };
        let (now, command) = (self.now, Command::Write { tag, write });
        let outcome = self.node_of(user).propose(now, std::slice::from_ref(&command)).remove(0);
        self.last = Some((user, command, outcome.clone()));
        match outcome {
            Outcome::Written { result, .. } => Ok(result),
            Outcome::Refused { refusal } => Err(refusal),
            other => panic!("a write answered {other:?}"),
        }
    }

    pub fn step(&mut self, step: &Step) {
        self.take(step);
        // What reads leave behind has to stay true whatever comes next; in a debug build every read looks whether it is.
        // Some of it is of the space that was read last: that one comes first.
        self.spaces_read.reverse();
        for node in &self.nodes {
            self.read_together(&node.partition);
        }
    }

    /// Reads the feeds of a partition together, and each alone: both find the same.
    fn read_together(&self, partition: &Partition) {
        let mut queries = Vec::new();
        for reader in (0..self.users).map(UserId) {
            for (n, space) in [self.spaces_read[0], self.spaces_read[1], SpaceId(999)].into_iter().enumerate()
            {
                let limit = 1 + (reader.0 as usize + n) % 9;
                queries.push(FeedQuery { space, reader, below: EntryId::MAX, limit });
            }
        }
        let mut answered = 0;
        partition.feed_slices(&queries, |n, together| {
            assert_eq!(n, answered);
            let alone = partition.feed_slice(&queries[n]);
            let FeedQuery { space, reader, .. } = queries[n];
            let is_here = std::ptr::eq(home(&self.nodes, reader), partition);
            assert_eq!(alone.is_ok(), is_here && self.spaces_read.contains(&space), "{:?}", queries[n]);
            assert_eq!(together.map(|slice| slice.clone()), alone, "{:?}", queries[n]);
            answered += 1;
        });
        assert_eq!(answered, queries.len());
    }

    fn take(&mut self, step: &Step) {
        let user = |id: u64| UserId(id);
        match step.clone() {
            Step::Append { space, owner, author, audience, ttl_ms, reference } => {
                self.append(SPACES[space], user(owner), user(author), audience, ttl_ms, reference);
            }
            Step::Amend { pick } => self.amend(pick),
            Step::Delete { pick } => self.delete(pick),
            Step::SetExpiry { pick, ttl_ms } => self.set_expiry(pick, ttl_ms),
            Step::Follow { reader, owners } => {
                self.follow(user(reader), owners.into_iter().map(UserId).collect());
            }
            Step::Unfollow { reader, owner } => {
                let (reader, owner) = (user(reader), user(owner));
                let write = Write::Unfollow { graph: GRAPH, reader, owners: vec![owner] };
                let existed = self.oracle.follows(GRAPH, reader, owner);
                assert_eq!(self.write(reader, write), Ok(related(existed)));
                self.oracle.unfollow(GRAPH, reader, owner);
                self.imports.since.remove(&(reader, owner));
            }
            Step::Mute { user: a, target } => {
                self.write(user(a), Write::Mute { user: user(a), targets: vec![user(target)] }).unwrap();
                self.oracle.mute(user(a), user(target));
            }
            Step::Unmute { user: a, target } => {
                self.write(user(a), Write::Unmute { user: user(a), targets: vec![user(target)] }).unwrap();
                self.oracle.unmute(user(a), user(target));
            }
            Step::Block { user: a, target } => {
                self.write(user(a), Write::Block { user: user(a), targets: vec![user(target)] }).unwrap();
                self.oracle.block(user(a), user(target));
            }
            Step::Unblock { user: a, target } => {
                self.write(user(a), Write::Unblock { user: user(a), targets: vec![user(target)] }).unwrap();
                self.oracle.unblock(user(a), user(target));
            }
            Step::ImportFollows { reader, edges } => self.import_follows(user(reader), &edges),
            Step::ImportEntries { owner, items } => self.import_entries(user(owner), &items),
            Step::RetryLast => self.retry_last(),
            Step::Advance { ms } => self.now.0 += ms,
            Step::Alter { space, feed_cap, pull_threshold, fan_out, horizon_ms } => {
                let definition = &mut self.spaces[space];
                definition.version += 1;
                let policy =
                    SpacePolicy { feed_cap, pull_threshold, fan_out, horizon_ms, ..definition.policy };
                definition.policy = policy;
                let definition = definition.clone();
                self.define(&definition);
            }
            Step::Streams { seed } => self.streams(seed),
            Step::OneEvent { from_owner } => {
                let (reader, owner) = (UserId(APART.0), UserId(APART.1));
                let (from, to) = if from_owner { (owner, reader) } else { (reader, owner) };
                self.one_event(from, to);
            }
            Step::Slice { partition } => self.propose(partition, &[Command::Tick]),
            Step::Restart { partition } => self.pick(partition).restart(),
            Step::Sessions { partition, open: true } => self.propose(partition, &[Command::OpenSession]),
            Step::Sessions { partition, open: false } => {
                let close = (2..9).map(|session| Command::CloseSession { session: SessionId(session) });
                self.propose(partition, &close.collect::<Vec<_>>());
            }
            Step::BeginCut { partition } => self.pick(partition).begin_cut(),
            Step::AbandonCut { partition } => self.pick(partition).abandon_cut(),
            Step::FinishCut { partition, restart } => self.pick(partition).finish_cut(restart),
            Step::DropStream { source, destination } => {
                let destination = self.pick(destination).partition.id();
                let now = self.now;
                let source = self.pick(source);
                if source.partition.id() != destination {
                    source.propose(now, &[Command::DropDestination { destination }]);
                }
            }
            Step::Reincarnate { partition } => {
                let now = self.now;
                let node = self.pick(partition);
                let incarnation = node.partition.incarnation() + 1;
                node.propose(now, &[Command::Reincarnate { incarnation }]);
            }
            Step::Active { reader } => {
                let (now, readers) = (self.now, vec![user(reader)]);
                self.node_of(user(reader)).propose(now, &[Command::Active { readers }]);
            }
            Step::FreeFeeds { partition, from, most } => {
                let before = Day(self.now.day().0 + 1);
                self.propose(partition, &[Command::FreeFeeds { before, from, most }]);
            }
            Step::LeaveWindow { partition, keep, most } => {
                self.propose(partition, &[Command::LeaveWindow { keep, most }]);
            }
            Step::Check { slices } => self.check(slices),
            Step::Mark { reader } => self.mark(user(reader)),
            Step::Maintain { partition, maintenance } => self.pick(partition).maintain(maintenance),
        }
    }

    fn propose(&mut self, partition: u8, commands: &[Command]) {
        let now = self.now;
        self.pick(partition).propose(now, commands);
    }

    /// All partitions go on from cuts.
    pub fn restart_from_cuts(&mut self) {
        self.nodes.iter_mut().for_each(|node| node.finish_cut(true));
    }

    fn pick(&mut self, partition: u8) -> &mut Node {
        let n = usize::from(partition) % self.nodes.len();
        &mut self.nodes[n]
    }

    fn picked(&self, pick: u8) -> Option<(EntryId, SpaceId, UserId)> {
        // Late entries are picked more often, so that changes meet deliveries that are on their way.
        let n = self.made.len();
        (n > 0).then(|| self.made[n - 1 - usize::from(pick) % n.min(12)])
    }

    fn append(
        &mut self,
        space: SpaceId,
        owner: UserId,
        author: UserId,
        audience: Audience,
        ttl_ms: Option<u64>,
        reference: u8,
    ) {
        let reference = if reference < 60 { self.picked(reference) } else { None };
        let reference = reference.map(|(id, _, owner)| EntryRef { owner, id });
        let payload = bytes::Bytes::from(format!("entry {}", self.made.len()));
        let ttl = ttl_ms.map_or(Ttl::SpaceDefault, |ttl_ms| Ttl::Ms { ttl_ms });
        let author = if author.0.is_multiple_of(3) { author } else { owner };
        let key = self.made.len().is_multiple_of(3).then(|| payload.clone());
        let item = Append {
            space,
            owner,
            author: Some(author),
            audience,
            ttl,
            key,
            reference,
            payload: payload.clone(),
        };
        let Ok(WriteResult::Appended { items }) = self.write(owner, Write::Append { items: vec![item] })
        else {
            panic!("an append was refused");
        };
        let AppendResult::Made { id, duplicate: false } = items[0] else { panic!("{items:?}") };
        let expiry = ttl_ms.map(|ttl_ms| Stamp(self.now.0 + ttl_ms));
        self.made.push((id, space, owner));
        self.oracle.set_now(self.now);
        self.oracle.append(Entry {
            id,
            space,
            owner,
            author,
            audience,
            version: 1,
            expiry,
            reference,
            payload,
        });
    }

    fn amend(&mut self, pick: u8) {
        let Some((id, space, owner)) = self.picked(pick) else { return };
        self.oracle.set_now(self.now);
        let expected = self.oracle.entry(id).map(|entry| entry.version);
        let payload = bytes::Bytes::from_static(b"amended");
        let write = Write::Amend {
            space,
            owner,
            id,
            expected_version: expected.unwrap_or(1),
            payload: payload.clone(),
        };
        let answer = expected.map(|v| WriteResult::Amended { version: v + 1 }).ok_or(Refusal::NotFound);
        assert_eq!(self.write(owner, write), answer);
        if expected.is_some() {
            self.oracle.amend(id, payload);
        }
    }

    fn delete(&mut self, pick: u8) {
        let Some((id, space, owner)) = self.picked(pick) else { return };
        self.oracle.set_now(self.now);
        let existed = self.oracle.entry(id).is_some();
        assert_eq!(
            self.write(owner, Write::Delete { space, owner, id }),
            Ok(WriteResult::Deleted { existed })
        );
        self.oracle.delete(id);
    }

    fn set_expiry(&mut self, pick: u8, ttl_ms: Option<u64>) {
        let Some((id, space, owner)) = self.picked(pick) else { return };
        self.oracle.set_now(self.now);
        let existed = self.oracle.entry(id).is_some();
        let ttl = ttl_ms.map_or(Ttl::Never, |ttl_ms| Ttl::Ms { ttl_ms });
        let expiry = ttl_ms.map(|ttl_ms| Stamp(self.now.0 + ttl_ms));
        let answer = if existed { Ok(WriteResult::ExpirySet { expiry }) } else { Err(Refusal::NotFound) };
        assert_eq!(self.write(owner, Write::SetExpiry { space, owner, id, ttl }), answer);
        if existed {
            self.oracle.set_expiry(id, expiry);
            self.touched.insert(id);
        }
    }

    fn follow(&mut self, reader: UserId, owners: Vec<UserId>) {
        let write = Write::Follow { graph: GRAPH, reader, owners: owners.clone() };
        let Ok(WriteResult::Related { refused, .. }) = self.write(reader, write) else {
            panic!("follow refused")
        };
        // While a block is on its way it may or may not be known; afterwards it is (R14).
        for owner in owners.into_iter().filter(|owner| !refused.contains(owner)) {
            self.oracle.follow(GRAPH, reader, owner);
        }
    }

    fn retry_last(&mut self) {
        let now = self.now;
        if let Some((user, command, outcome)) = self.last.clone() {
            let again = self.node_of(user).propose(now, &[command]).remove(0);
            assert_eq!(again, outcome, "a retry got another answer");
        }
    }

    fn mark(&mut self, reader: UserId) {
        self.now.0 += 2;
        self.check(true);
        let (row, bound) = home(&self.nodes, reader).feed_mark();
        self.marks.insert(reader, Mark { row, bound, made: self.made.len() });
        self.now.0 += 2;
    }
}

fn related(changed: bool) -> WriteResult {
    WriteResult::Related { changed: u32::from(changed), refused: Vec::new() }
}
