//! Owns the commands of a partition's log, what they answer, and their encodings.
//!
//! - A batch is one Raft entry: a stamp and the commands gathered under it.
//! - Every write of an application carries a [`WriteTag`], so that it has one effect however often it comes (R18).
//! - What a refusal says is data; its words are chosen where a person reads them.

use bytes::Bytes;
use smallvec::SmallVec;

use crate::codec::{Encoded, Malformed, Reader, encoded_enum, encoded_struct, put_bytes, put_u64};
use crate::entry::{Audience, EntryRef};
use crate::event::{StreamAnswer, StreamMessage};
use crate::ids::{
    Day, EntryId, GraphId, JournalPosition, PartitionId, Sequence, SessionId, SpaceId, Stamp, UserId,
};
use crate::import::{ImportEdge, ImportEntry};
pub use crate::limits::Limits;
use crate::space::SpaceDefinition;

/// Which request of which session a write is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteTag {
    /// The session, opened in this partition.
    pub session: SessionId,
    /// The number of the request.
    pub sequence: Sequence,
    /// The lowest request whose answer the client has not seen; results below it are dropped.
    pub lowest_unanswered: Sequence,
}

/// How long an entry lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ttl {
    /// As long as the space says.
    SpaceDefault,
    /// For ever.
    Never,
    /// This many milliseconds.
    Ms {
        /// 1 to [`TTL_MS_MAX`].
        ttl_ms: u64,
    },
}

/// The longest time to live: a hundred years, in milliseconds.
pub const TTL_MS_MAX: u64 = 100 * 366 * 24 * 3_600 * 1_000;

/// The longest application key, in bytes.
pub const KEY_BYTES_MAX: usize = 64;

/// One entry to append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    /// The space.
    pub space: SpaceId,
    /// The owner of the timeline; homed in this partition.
    pub owner: UserId,
    /// Who wrote it, if not the owner.
    pub author: Option<UserId>,
    /// Who may see it.
    pub audience: Audience,
    /// How long it lives.
    pub ttl: Ttl,
    /// The application's key: a second append under it within the window is the same entry.
    pub key: Option<Bytes>,
    /// What it replies to or repeats.
    pub reference: Option<EntryRef>,
    /// The application's bytes.
    pub payload: Bytes,
}

/// A write of an application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Appends entries, in order.
    Append {
        /// The entries.
        items: Vec<Append>,
    },
    /// Replaces a payload if the version is the expected one.
    Amend {
        /// The space.
        space: SpaceId,
        /// Whose entry it is.
        owner: UserId,
        /// The entry.
        id: EntryId,
        /// The version the writer has seen.
        expected_version: u32,
        /// The new payload.
        payload: Bytes,
    },
    /// Deletes an entry.
    Delete {
        /// The space.
        space: SpaceId,
        /// Whose entry it is.
        owner: UserId,
        /// The entry.
        id: EntryId,
    },
    /// Sets, changes or clears an expiry.
    SetExpiry {
        /// The space.
        space: SpaceId,
        /// Whose entry it is.
        owner: UserId,
        /// The entry.
        id: EntryId,
        /// From now; never clears it.
        ttl: Ttl,
    },
    /// Follows owners.
    Follow {
        /// The graph.
        graph: GraphId,
        /// The reader; homed in this partition.
        reader: UserId,
        /// The owners.
        owners: Vec<UserId>,
    },
    /// Unfollows owners.
    Unfollow {
        /// The graph.
        graph: GraphId,
        /// The reader.
        reader: UserId,
        /// The owners.
        owners: Vec<UserId>,
    },
    /// Hides what the targets own, wrote or are referred to by, from one reader.
    Mute {
        /// The reader.
        user: UserId,
        /// Whom to mute.
        targets: Vec<UserId>,
    },
    /// Undoes a mute.
    Unmute {
        /// The reader.
        user: UserId,
        /// Whom to unmute.
        targets: Vec<UserId>,
    },
    /// Hides user and target from each other, in all graphs.
    Block {
        /// Who blocks.
        user: UserId,
        /// Whom.
        targets: Vec<UserId>,
    },
    /// Undoes a block.
    Unblock {
        /// Who blocked.
        user: UserId,
        /// Whom.
        targets: Vec<UserId>,
    },
    /// Brings edges with their times, of many readers; nothing is filled for them.
    ImportFollows {
        /// The graph.
        graph: GraphId,
        /// The edges.
        edges: Vec<ImportEdge>,
    },
    /// Brings entries with their times; they are not fanned out.
    ImportEntries {
        /// The entries, in order.
        entries: Vec<ImportEntry>,
    },
}

/// One command of a partition's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Opens a session; answered with its number.
    OpenSession,
    /// Forgets a session.
    CloseSession {
        /// The session.
        session: SessionId,
    },
    /// A write of an application.
    Write {
        /// Session and sequence.
        tag: WriteTag,
        /// What to do.
        write: Write,
    },
    /// Sets the limits; comes from the catalog when the partition is made.
    Configure {
        /// The limits.
        limits: Limits,
    },
    /// A new or changed space; comes from the catalog.
    DefineSpace {
        /// The definition.
        definition: SpaceDefinition,
    },
    /// Events of another partition.
    Stream {
        /// The message.
        message: StreamMessage,
    },
    /// Forgets journal events that every destination has applied.
    Trim {
        /// The last position to forget.
        through: JournalPosition,
    },
    /// Stops keeping events for an unreachable destination (R10).
    DropDestination {
        /// The destination.
        destination: PartitionId,
    },
    /// Begins the stream to a destination anew (R10, R11).
    ResumeDestination {
        /// The destination.
        destination: PartitionId,
        /// Its incarnation now.
        incarnation: u64,
    },
    /// Lets time pass and serves one slice of a pending fan-out.
    Tick,
    /// Changes the partition's incarnation, after a restore or a forced recovery (R11).
    Reincarnate {
        /// Larger than every one before.
        incarnation: u64,
    },
    /// Notes that readers homed here are active on the day of the stamp; feeds of theirs that are freed are rebuilt.
    Active {
        /// The readers; those of whom nothing is known are passed over.
        readers: Vec<UserId>,
    },
    /// Frees the feeds of readers who stay away; a bounded piece of all.
    FreeFeeds {
        /// Of readers whose last day of activity is earlier.
        before: Day,
        /// The first local index that is looked at.
        from: u32,
        /// How many are looked at.
        most: u32,
    },
    /// Lets the oldest rows leave the window before it is full, because memory is short; a bounded piece.
    LeaveWindow {
        /// So many rows stay.
        keep: u32,
        /// How many leave, at most.
        most: u32,
    },
    /// Pauses the fan-out of an owner homed here, or lets it go on.
    PauseFanOut {
        /// The owner.
        owner: UserId,
        /// Whether it is paused from now on.
        is_paused: bool,
    },
}

/// What a command answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A session was opened.
    Session {
        /// Its number.
        session: SessionId,
    },
    /// A write was done.
    Written {
        /// What it did.
        result: WriteResult,
        /// The last journal event when it was done: its own, or one at or behind that of the write it repeats.
        journal: Option<JournalPosition>,
    },
    /// The command had no effect.
    Refused {
        /// Why.
        refusal: Refusal,
    },
    /// A stream message was applied or discarded.
    Stream {
        /// Where the stream stands.
        answer: StreamAnswer,
    },
    /// Done, and there is nothing to say.
    Done,
}

/// What a write did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteResult {
    /// One result per appended or imported entry.
    Appended {
        /// In the order of the items. Most commands have one, which needs no allocation.
        items: SmallVec<[AppendResult; 1]>,
    },
    /// The payload was replaced.
    Amended {
        /// Its version now.
        version: u32,
    },
    /// The entry is gone.
    Deleted {
        /// Whether it was there.
        existed: bool,
    },
    /// The expiry is this now.
    ExpirySet {
        /// None: it stays.
        expiry: Option<Stamp>,
    },
    /// Edges, mutes or blocks.
    Related {
        /// How many changed.
        changed: u32,
        /// Those refused because of a block.
        refused: Vec<UserId>,
    },
    /// Imported edges.
    FollowsImported {
        /// How many are new.
        changed: u32,
        /// Those refused, by their place among the edges; all others are there now.
        refused: Vec<(u32, Refusal)>,
    },
}

/// What became of one appended item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendResult {
    /// It is in the timeline.
    Made {
        /// Its id.
        id: EntryId,
        /// Whether an earlier append under the same key had made it.
        duplicate: bool,
    },
    /// It is not.
    Refused {
        /// Why.
        refusal: Refusal,
    },
}

/// What has a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limited {
    /// Owners one user follows in a graph.
    Followees,
    /// Users one user mutes or blocks.
    Mutes,
    /// Users of a partition.
    Users,
    /// Sessions of a partition.
    Sessions,
    /// Owners of a partition whose fan-out is paused.
    Paused,
    /// Application keys that a partition remembers.
    Keys,
}

/// Why a command had no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The session was never opened, was closed, or was unused for too long.
    UnknownSession,
    /// Another request came under this sequence before.
    SequenceConflict,
    /// The client said it had seen the answer to this sequence.
    SequenceTooOld,
    /// Too many unanswered requests in the session.
    SessionFull,
    /// The partition knows no such space.
    UnknownSpace,
    /// The partition knows no such graph.
    UnknownGraph,
    /// The user is homed in another partition.
    WrongPartition {
        /// Which.
        right: PartitionId,
    },
    /// The payload passes the space's limit.
    PayloadTooLarge {
        /// In bytes.
        limit: u32,
    },
    /// The application key is empty or passes [`KEY_BYTES_MAX`].
    KeyLength,
    /// The time to live is 0 or passes [`TTL_MS_MAX`].
    TtlOutOfRange,
    /// The key names another entry.
    KeyConflict {
        /// That entry.
        existing: EntryId,
    },
    /// The entry is not there: never made, deleted or expired.
    NotFound,
    /// The entry is somebody else's.
    NotTheOwner,
    /// The payload was amended meanwhile.
    VersionMismatch {
        /// Its version now.
        current: u32,
    },
    /// A limit is reached.
    LimitReached {
        /// Of what.
        what: Limited,
        /// The limit.
        limit: u32,
    },
    /// One of the two blocks the other.
    Blocked {
        /// Who.
        blocker: UserId,
        /// Whom.
        blocked: UserId,
    },
    /// An imported time is later than the import.
    TimeAhead {
        /// Log time.
        now: Stamp,
        /// What came.
        time: Stamp,
    },
    /// An imported entry has expired already.
    ExpiredAlready {
        /// Log time.
        now: Stamp,
        /// When it did.
        expiry: Stamp,
    },
    /// Another entry has the id that an imported one is to keep.
    IdTaken,
    /// The space is read-only.
    ReadOnly {
        /// Which.
        space: SpaceId,
    },
}

encoded_struct!(WriteTag { session, sequence, lowest_unanswered });
encoded_enum!(Ttl, "time to live" { 0 => SpaceDefault, 1 => Never, 2 => Ms { ttl_ms } });
encoded_struct!(Append { space, owner, author, audience, ttl, key, reference, payload });
encoded_enum!(Write, "write" {
    1 => Append { items },
    2 => Amend { space, owner, id, expected_version, payload },
    3 => Delete { space, owner, id },
    4 => SetExpiry { space, owner, id, ttl },
    5 => Follow { graph, reader, owners },
    6 => Unfollow { graph, reader, owners },
    7 => Mute { user, targets },
    8 => Unmute { user, targets },
    9 => Block { user, targets },
    10 => Unblock { user, targets },
    11 => ImportFollows { graph, edges },
    12 => ImportEntries { entries },
});
encoded_enum!(Command, "command" {
    1 => OpenSession,
    2 => CloseSession { session },
    3 => Write { tag, write },
    4 => Configure { limits },
    5 => DefineSpace { definition },
    6 => Stream { message },
    7 => Trim { through },
    8 => DropDestination { destination },
    9 => ResumeDestination { destination, incarnation },
    10 => Tick,
    11 => Reincarnate { incarnation },
    12 => Active { readers },
    13 => FreeFeeds { before, from, most },
    14 => PauseFanOut { owner, is_paused },
    15 => LeaveWindow { keep, most },
});
encoded_enum!(Outcome, "outcome" {
    1 => Session { session },
    2 => Written { result, journal },
    3 => Refused { refusal },
    4 => Stream { answer },
    5 => Done,
});
encoded_enum!(WriteResult, "write result" {
    1 => Appended { items },
    2 => Amended { version },
    3 => Deleted { existed },
    4 => ExpirySet { expiry },
    5 => Related { changed, refused },
    6 => FollowsImported { changed, refused },
});
encoded_enum!(AppendResult, "append result" { 1 => Made { id, duplicate }, 2 => Refused { refusal } });
encoded_enum!(Limited, "limit" { 1 => Followees, 2 => Mutes, 3 => Users, 4 => Sessions, 5 => Paused, 6 => Keys });
encoded_enum!(Refusal, "refusal" {
    1 => UnknownSession,
    2 => SequenceConflict,
    3 => SequenceTooOld,
    4 => SessionFull,
    5 => UnknownSpace,
    6 => UnknownGraph,
    7 => WrongPartition { right },
    8 => PayloadTooLarge { limit },
    9 => KeyLength,
    10 => TtlOutOfRange,
    11 => KeyConflict { existing },
    12 => NotFound,
    13 => NotTheOwner,
    14 => VersionMismatch { current },
    15 => LimitReached { what, limit },
    16 => Blocked { blocker, blocked },
    17 => TimeAhead { now, time },
    18 => ExpiredAlready { now, expiry },
    19 => IdTaken,
    20 => ReadOnly { space },
});

impl Command {
    /// The encoding, as one item of a batch.
    pub fn to_bytes(&self) -> Bytes {
        let mut out = Vec::new();
        self.encode(&mut out);
        out.into()
    }
}

/// The batch of `commands` (each encoded) under one stamp: the payload of one Raft entry.
pub fn encode_batch(stamp: Stamp, commands: &[Bytes]) -> Bytes {
    let size: usize = commands.iter().map(|c| c.len() + 4).sum();
    let mut out = Vec::with_capacity(size + 16);
    stamp.encode(&mut out);
    put_u64(&mut out, commands.len() as u64);
    for command in commands {
        put_bytes(&mut out, command);
    }
    out.into()
}

/// A decoded batch: its stamp, and its commands with the bytes each came as.
pub type Batch<'a> = (Stamp, Vec<(Command, &'a [u8])>);

/// Reads a batch.
pub fn decode_batch(bytes: &[u8]) -> Result<Batch<'_>, Malformed> {
    let mut from = Reader::new(bytes);
    let stamp = Stamp::decode(&mut from)?;
    let commands = from.list(|from| {
        let raw = from.bytes()?;
        let mut item = Reader::new(raw);
        let command = Command::decode(&mut item)?;
        item.end()?;
        Ok((command, raw))
    })?;
    from.end()?;
    Ok((stamp, commands))
}
