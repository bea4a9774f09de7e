//! Owns the names of wire fields and limits that a status can point at.
//!
//! Numbers are part of the protocol and are never reused.

use std::fmt;

/// A field of a message, named by the statuses that refuse it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u16)]
pub enum Field {
    /// The frame's length.
    FrameLength = 1,
    /// The flags of a frame or batch item.
    Flags = 2,
    /// A request's deadline.
    Deadline = 3,
    /// The number of items of a batch.
    BatchCount = 4,
    /// An item of a batch.
    BatchItem = 5,
    /// The name of a space.
    Name = 6,
    /// A graph's name or id.
    Graph = 7,
    /// A space's id.
    Space = 8,
    /// A space's policy.
    Policy = 9,
    /// The default TTL of a space.
    DefaultTtl = 10,
    /// The feed cap of a space.
    FeedCap = 11,
    /// The horizon of a space.
    Horizon = 12,
    /// Push, pull or automatic.
    FanOut = 13,
    /// The threshold between push and pull.
    PullThreshold = 14,
    /// The payload limit of a space.
    PayloadBytesMax = 15,
    /// A partition's id.
    Partition = 16,
    /// The epoch of the map.
    Epoch = 17,
    /// A session's id.
    Session = 18,
    /// A write's sequence.
    Sequence = 19,
    /// The lowest unanswered sequence.
    LowestUnanswered = 20,
    /// The kind of a write.
    Operation = 21,
    /// The items of an append.
    Items = 22,
    /// The owner of an entry.
    Owner = 23,
    /// The author of an entry.
    Author = 24,
    /// Who may see an entry.
    Audience = 25,
    /// An entry's time to live.
    Ttl = 26,
    /// An application key.
    Key = 27,
    /// A reference to another entry.
    Reference = 28,
    /// An entry's payload.
    Payload = 29,
    /// An entry's id.
    EntryId = 30,
    /// A list of entry ids.
    EntryIds = 31,
    /// An entry's or a token's version.
    Version = 32,
    /// An entry's expiry.
    Expiry = 33,
    /// A reader.
    Reader = 34,
    /// A list of owners.
    Owners = 35,
    /// A user.
    User = 36,
    /// A list of targets.
    Targets = 37,
    /// A viewer.
    Viewer = 38,
    /// The number of entries or users asked for.
    Limit = 39,
    /// A cursor.
    Cursor = 40,
    /// A mark.
    Mark = 41,
    /// A token.
    Token = 42,
    /// Whether payloads are wanted.
    Hydrate = 43,
    /// A list of readers.
    Readers = 44,
    /// The entries of a page.
    Entries = 45,
    /// Why a page is short.
    ShortReason = 46,
    /// The users of a page.
    Users = 47,
    /// A reason of an explanation.
    Reason = 48,
    /// A status.
    Status = 49,
    /// A node's address.
    Address = 50,
    /// The nodes of a map.
    Nodes = 51,
    /// The leaders of a map.
    Leaders = 52,
    /// The status of a node.
    NodeStatus = 53,
    /// The result of a write.
    Result = 54,
    /// A cluster's id.
    ClusterId = 55,
    /// A bitmap of optional fields.
    Presence = 56,
    /// A byte that must be 0 or 1.
    Boolean = 57,
    /// A body as a whole.
    Body = 58,
    /// The time of an imported edge or entry.
    Time = 59,
    /// A job.
    Job = 60,
    /// The path of a directory.
    Path = 61,
    /// The view of a cluster, or a change of it.
    Cluster = 62,
    /// The zone of a node.
    Zone = 63,
    /// The number of replicas.
    Replicas = 64,
    /// The silence after which a node's replicas go to others.
    RepairAfter = 65,
    /// What is hot.
    Hot = 66,
    /// What a read may be answered from.
    Consistency = 67,
}

impl Field {
    /// The field's number on the wire.
    pub fn code(self) -> u16 {
        self as u16
    }

    /// The field with this number, if this version knows it.
    pub fn from_code(code: u16) -> Option<Self> {
        Some(match code {
            1 => Self::FrameLength,
            2 => Self::Flags,
            3 => Self::Deadline,
            4 => Self::BatchCount,
            5 => Self::BatchItem,
            6 => Self::Name,
            7 => Self::Graph,
            8 => Self::Space,
            9 => Self::Policy,
            10 => Self::DefaultTtl,
            11 => Self::FeedCap,
            12 => Self::Horizon,
            13 => Self::FanOut,
            14 => Self::PullThreshold,
            15 => Self::PayloadBytesMax,
            16 => Self::Partition,
            17 => Self::Epoch,
            18 => Self::Session,
            19 => Self::Sequence,
            20 => Self::LowestUnanswered,
            21 => Self::Operation,
            22 => Self::Items,
            23 => Self::Owner,
            24 => Self::Author,
            25 => Self::Audience,
            26 => Self::Ttl,
            27 => Self::Key,
            28 => Self::Reference,
            29 => Self::Payload,
            30 => Self::EntryId,
            31 => Self::EntryIds,
            32 => Self::Version,
            33 => Self::Expiry,
            34 => Self::Reader,
            35 => Self::Owners,
            36 => Self::User,
            37 => Self::Targets,
            38 => Self::Viewer,
            39 => Self::Limit,
            40 => Self::Cursor,
            41 => Self::Mark,
            42 => Self::Token,
            43 => Self::Hydrate,
            44 => Self::Readers,
            45 => Self::Entries,
            46 => Self::ShortReason,
            47 => Self::Users,
            48 => Self::Reason,
            49 => Self::Status,
            50 => Self::Address,
            51 => Self::Nodes,
            52 => Self::Leaders,
            53 => Self::NodeStatus,
            54 => Self::Result,
            55 => Self::ClusterId,
            56 => Self::Presence,
            57 => Self::Boolean,
            58 => Self::Body,
            59 => Self::Time,
            60 => Self::Job,
            61 => Self::Path,
            62 => Self::Cluster,
            63 => Self::Zone,
            64 => Self::Replicas,
            65 => Self::RepairAfter,
            66 => Self::Hot,
            67 => Self::Consistency,
            _ => return None,
        })
    }

    /// The field's name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::FrameLength => "frame length",
            Self::Flags => "flags",
            Self::Deadline => "deadline",
            Self::BatchCount => "batch count",
            Self::BatchItem => "batch item",
            Self::Name => "name",
            Self::Graph => "graph",
            Self::Space => "space",
            Self::Policy => "policy",
            Self::DefaultTtl => "default TTL",
            Self::FeedCap => "feed cap",
            Self::Horizon => "horizon",
            Self::FanOut => "fan-out",
            Self::PullThreshold => "pull threshold",
            Self::PayloadBytesMax => "payload limit",
            Self::Partition => "partition",
            Self::Epoch => "epoch",
            Self::Session => "session",
            Self::Sequence => "sequence",
            Self::LowestUnanswered => "lowest unanswered sequence",
            Self::Operation => "operation",
            Self::Items => "items",
            Self::Owner => "owner",
            Self::Author => "author",
            Self::Audience => "audience",
            Self::Ttl => "TTL",
            Self::Key => "key",
            Self::Reference => "reference",
            Self::Payload => "payload",
            Self::EntryId => "entry id",
            Self::EntryIds => "entry ids",
            Self::Version => "version",
            Self::Expiry => "expiry",
            Self::Reader => "reader",
            Self::Owners => "owners",
            Self::User => "user",
            Self::Targets => "targets",
            Self::Viewer => "viewer",
            Self::Limit => "limit",
            Self::Cursor => "cursor",
            Self::Mark => "mark",
            Self::Token => "token",
            Self::Hydrate => "hydrate",
            Self::Readers => "readers",
            Self::Entries => "entries",
            Self::ShortReason => "short reason",
            Self::Users => "users",
            Self::Reason => "reason",
            Self::Status => "status",
            Self::Address => "address",
            Self::Nodes => "nodes",
            Self::Leaders => "leaders",
            Self::NodeStatus => "node status",
            Self::Result => "result",
            Self::ClusterId => "cluster id",
            Self::Presence => "presence bitmap",
            Self::Boolean => "boolean",
            Self::Body => "body",
            Self::Time => "time",
            Self::Job => "job",
            Self::Path => "path",
            Self::Cluster => "cluster",
            Self::Zone => "zone",
            Self::Replicas => "replicas",
            Self::RepairAfter => "repair after",
            Self::Hot => "hot list",
            Self::Consistency => "consistency",
        }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a named limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum LimitKind {
    /// Owners one reader follows in one graph.
    FolloweesPerUser = 1,
    /// Users one user mutes.
    MutesPerUser = 2,
    /// Users one user blocks.
    BlocksPerUser = 3,
    /// Users homed in one partition.
    UsersPerPartition = 4,
    /// Entries of one owner.
    EntriesPerOwner = 5,
    /// Spaces of the cluster.
    Spaces = 6,
    /// Graphs of the cluster.
    Graphs = 7,
    /// Sessions open with one partition.
    SessionsPerPartition = 8,
    /// Application keys remembered by one partition.
    KeysPerPartition = 9,
    /// Rows of one partition's delivered table.
    RowsPerPartition = 10,
    /// Bytes of one partition's memory.
    MemoryPerPartition = 11,
    /// Events of one partition's journal.
    JournalEvents = 12,
    /// Owners of one partition whose fan-out is paused.
    PausedPerPartition = 13,
}

impl LimitKind {
    /// The limit's number on the wire.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The limit with this number, if this version knows it.
    pub fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::FolloweesPerUser,
            2 => Self::MutesPerUser,
            3 => Self::BlocksPerUser,
            4 => Self::UsersPerPartition,
            5 => Self::EntriesPerOwner,
            6 => Self::Spaces,
            7 => Self::Graphs,
            8 => Self::SessionsPerPartition,
            9 => Self::KeysPerPartition,
            10 => Self::RowsPerPartition,
            11 => Self::MemoryPerPartition,
            12 => Self::JournalEvents,
            13 => Self::PausedPerPartition,
            _ => return None,
        })
    }
}

impl fmt::Display for LimitKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FolloweesPerUser => "followees per user",
            Self::MutesPerUser => "mutes per user",
            Self::BlocksPerUser => "blocks per user",
            Self::UsersPerPartition => "users per partition",
            Self::EntriesPerOwner => "entries per owner",
            Self::Spaces => "spaces",
            Self::Graphs => "graphs",
            Self::SessionsPerPartition => "sessions per partition",
            Self::KeysPerPartition => "keys per partition",
            Self::RowsPerPartition => "rows per partition",
            Self::MemoryPerPartition => "bytes of memory per partition",
            Self::JournalEvents => "events in a journal",
            Self::PausedPerPartition => "paused owners per partition",
        })
    }
}
