//! Owns the status codes: every way in which a request, a frame or a connection is refused.
//!
//! Invariants:
//! - A code's number is never reused and never changes its meaning.
//! - `may_have_applied()` is `false` only where the server gives the status before it proposes a write.
//!
//! Format: `PROTOCOL.md`, "Status".

use crate::error::BodyError;
use crate::field::{Field, LimitKind};
use crate::ids::{EntryId, GraphId, NodeId, PartitionId, SpaceId, UserId};
use crate::message::ChangeRefusal;
use crate::wire::{Reader, Writer};

/// Most spaces or graphs that a status or list names.
pub(crate) const NAMES_MAX: usize = 4_096;

/// Most nodes that a status names.
const NODES_MAX: usize = 64;

/// Where the leader of a partition was last seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaderHint {
    /// The node believed to lead.
    pub node: NodeId,
    /// Its address, `host:port`.
    pub address: String,
}

/// Why a request, a frame or a connection was refused, with the data to act on it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Status {
    /// The first bytes were not a hello of this protocol.
    #[error(
        "this port speaks the Fanfold protocol and the first bytes were something else; check address and port"
    )]
    BadMagic,
    /// None of the offered protocol versions is supported.
    #[error(
        "none of the offered protocol versions is supported, only {min} to {max}; use a client for one of those"
    )]
    UnsupportedVersion {
        /// Lowest supported version.
        min: u16,
        /// Highest supported version.
        max: u16,
    },
    /// A frame's length is above the limit given at the handshake.
    #[error("a frame of {got} bytes is larger than the limit of {limit}; split the request")]
    FrameTooLarge {
        /// The largest allowed value of a frame's length field, in bytes.
        limit: u32,
        /// What the length field held.
        got: u32,
    },
    /// A frame's checksum does not match; nothing of it was used.
    #[error("a frame's checksum does not match and nothing of it was used; connect again and repeat")]
    BadChecksum,
    /// A frame or hello was not complete within its time, or the answers were not read.
    #[error("the peer was too slow to send a frame or to read its answers; connect again and repeat")]
    TooSlow,
    /// No request has this opcode.
    #[error("opcode {opcode} is not known to this server; check its version and feature level")]
    UnknownOpcode {
        /// The opcode.
        opcode: u16,
    },
    /// A body does not follow its layout.
    #[error("the {field} of the request is malformed; check the client's version")]
    Malformed {
        /// Where decoding stopped.
        field: Field,
    },
    /// A number is outside its range.
    #[error("{field} is {got} and must lie between {min} and {max}; change it")]
    OutOfRange {
        /// The field.
        field: Field,
        /// Smallest accepted value.
        min: u64,
        /// Largest accepted value.
        max: u64,
        /// What came, saturated to the range of the type.
        got: i64,
    },
    /// A list, string or payload is longer than allowed.
    #[error("{field} is longer than the limit of {limit}; shorten or split it")]
    TooLarge {
        /// The field.
        field: Field,
        /// Its limit, in bytes for strings and payloads, in items for lists.
        limit: u64,
    },
    /// A cursor is damaged, or belongs to another scan.
    #[error("the cursor is damaged or belongs to another scan; start the scan again without one")]
    BadCursor,
    /// There is no such space.
    #[error("there is no such space, only {}; use one of those or create it", list(known))]
    UnknownSpace {
        /// The spaces that exist.
        known: Vec<(SpaceId, String)>,
    },
    /// There is no such graph.
    #[error("there is no such graph, only {}; use one of those or create a space with it", list(known))]
    UnknownGraph {
        /// The graphs that exist.
        known: Vec<(GraphId, String)>,
    },
    /// A space of that name exists already.
    #[error("a space of that name exists already; alter it or choose another name")]
    SpaceExists,
    /// This node does not lead the partition.
    #[error("this node does not lead the partition, {}", hinted(hint.as_ref()))]
    NotLeader {
        /// The leader, if this node knows one.
        hint: Option<LeaderHint>,
    },
    /// The request was routed by another map than the server's. No server answers so yet.
    #[error(
        "the request was routed by another map than the current one, epoch {current}; fetch the map and repeat"
    )]
    WrongEpoch {
        /// The server's epoch.
        current: u64,
    },
    /// What the request names is homed in another partition.
    #[error("what the request names is homed in partition {right}; send it there")]
    WrongPartition {
        /// The right partition.
        right: PartitionId,
    },
    /// A queue is full.
    #[error("the server is busy; repeat after {delay_ms} ms")]
    Busy {
        /// How long to wait, in milliseconds.
        delay_ms: u32,
    },
    /// The node's disk has no room for more writes; reads go on, and writes do as soon as there is room.
    #[error("the server's disk is full; make room on it, and repeat after {delay_ms} ms")]
    DiskFull {
        /// How long to wait, in milliseconds.
        delay_ms: u32,
    },
    /// This session used the sequence for another body.
    #[error("this sequence was already used for another write of the session; give every write its own")]
    SequenceConflict,
    /// The result of this sequence was dropped because the client said it had been answered.
    #[error(
        "this sequence lies below the lowest unanswered one, so its result is gone; do not repeat answered writes"
    )]
    SequenceTooOld,
    /// The session was never opened here, was closed, or has expired.
    #[error("the session is unknown or has expired; open a new one and check which writes took effect")]
    UnknownSession,
    /// The session holds as many unanswered results as it may.
    #[error(
        "the session holds as many results as it may; read answers and raise the lowest unanswered sequence"
    )]
    SessionFull,
    /// The application key was used for another body.
    #[error("the key was already used for entry {existing} with other content; choose another key")]
    KeyConflict {
        /// The entry that was made under the key.
        existing: EntryId,
    },
    /// There is no such entry (any more).
    #[error("there is no such entry, or it is gone; read the timeline to see what exists")]
    NotFound,
    /// The entry belongs to another owner.
    #[error("the entry belongs to another owner; name its owner")]
    NotTheOwner,
    /// The entry has another version than expected.
    #[error("the entry is at version {current}; read it and decide again")]
    VersionMismatch {
        /// The entry's version.
        current: u32,
    },
    /// A block stands between two users.
    #[error("user {blocker} blocks user {blocked}; the block must be lifted first")]
    BlockedBy {
        /// Who blocks.
        blocker: UserId,
        /// Who is blocked.
        blocked: UserId,
    },
    /// A named limit is reached.
    #[error("the limit of {limit} {what} is reached; remove some or raise the limit")]
    LimitReached {
        /// What is counted.
        what: LimitKind,
        /// The limit.
        limit: u64,
    },
    /// A partition cannot serve now; a write may have been proposed.
    #[error("partition {partition} cannot serve now; repeat the request under the same session and sequence")]
    Unavailable {
        /// The partition.
        partition: PartitionId,
    },
    /// The request's deadline passed; a write may still take effect.
    #[error(
        "the deadline passed and a write may still take effect; repeat it under the same session and sequence"
    )]
    DeadlineExceeded,
    /// The server has as many connections as it accepts.
    #[error("the server has as many connections as it accepts; close unused ones or connect later")]
    TooManyConnections,
    /// The server is stopping and did not start on the request.
    #[error("the server is stopping; connect again or to another node")]
    ShuttingDown,
    /// A partition's data is damaged on this node and it refuses service.
    #[error(
        "partition {partition} is damaged on this node and refuses service; `fanfold verify` of the node names file and offset"
    )]
    DamagedPartition {
        /// The partition.
        partition: PartitionId,
    },
    /// The server failed in a way that has no code of its own.
    #[error("the server failed in an unexpected way; see its log for the request id")]
    Internal,
    /// Another entry has the id that an imported one was to keep.
    #[error("another entry has this id; import the entry by its time instead")]
    IdTaken,
    /// The node waits for a cluster: it has not founded one and no member has taken it in yet.
    #[error(
        "this node belongs to no cluster yet; found one with `fanfold cluster init --address` and its address, or \
         start a node that it is to join"
    )]
    NoCluster,
    /// The space takes no writes.
    #[error(
        "the space {space} is read-only; `fanfold space alter {space} --read-only false` lets writes in again"
    )]
    ReadOnlySpace {
        /// Its name.
        space: String,
    },
    /// A change of the cluster is refused.
    #[error("{said}")]
    ChangeRefused {
        /// Why.
        refusal: ChangeRefusal,
        /// Why, and what to do, for people.
        said: String,
    },
    /// The node has no memory for a write that needs more; reads go on, as do writes that take something away, and all writes do as
    /// soon as there is memory.
    #[error(
        "the server is over its memory budget, the setting `memory_bytes`; raise it or move replicas to other nodes (`fanfold \
         status`), and repeat after {delay_ms} ms"
    )]
    MemoryFull {
        /// How long to wait, in milliseconds.
        delay_ms: u32,
    },
    /// Nobody leads the catalog, which has to agree to the change; nothing was changed.
    #[error("the catalog {}", catalog(silent))]
    CatalogUnavailable {
        /// The nodes with a replica of it that are silent, if they are so many that the others cannot lead it.
        silent: Vec<NodeId>,
    },
}

impl Status {
    /// The number of this status on the wire; it never changes.
    pub fn code(&self) -> u16 {
        match self {
            Self::BadMagic => 1,
            Self::UnsupportedVersion { .. } => 2,
            Self::FrameTooLarge { .. } => 3,
            Self::BadChecksum => 4,
            Self::TooSlow => 5,
            Self::UnknownOpcode { .. } => 6,
            Self::Malformed { .. } => 7,
            Self::OutOfRange { .. } => 8,
            Self::TooLarge { .. } => 9,
            Self::BadCursor => 10,
            Self::UnknownSpace { .. } => 11,
            Self::UnknownGraph { .. } => 12,
            Self::SpaceExists => 13,
            Self::NotLeader { .. } => 14,
            Self::WrongEpoch { .. } => 15,
            Self::WrongPartition { .. } => 16,
            Self::Busy { .. } => 17,
            Self::SequenceConflict => 18,
            Self::SequenceTooOld => 19,
            Self::UnknownSession => 20,
            Self::SessionFull => 21,
            Self::KeyConflict { .. } => 22,
            Self::NotFound => 23,
            Self::NotTheOwner => 24,
            Self::VersionMismatch { .. } => 25,
            Self::BlockedBy { .. } => 26,
            Self::LimitReached { .. } => 27,
            Self::Unavailable { .. } => 28,
            Self::DeadlineExceeded => 29,
            Self::TooManyConnections => 30,
            Self::ShuttingDown => 31,
            Self::DamagedPartition { .. } => 32,
            Self::Internal => 33,
            Self::DiskFull { .. } => 34,
            Self::IdTaken => 35,
            Self::NoCluster => 36,
            Self::ReadOnlySpace { .. } => 37,
            Self::ChangeRefused { .. } => 38,
            Self::CatalogUnavailable { .. } => 39,
            Self::MemoryFull { .. } => 40,
        }
    }

    /// Whether repeating the same request, perhaps elsewhere or later, can succeed without changing it.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::BadChecksum
                | Self::TooSlow
                | Self::NotLeader { .. }
                | Self::WrongEpoch { .. }
                | Self::WrongPartition { .. }
                | Self::Busy { .. }
                | Self::DiskFull { .. }
                | Self::SessionFull
                | Self::Unavailable { .. }
                | Self::DeadlineExceeded
                | Self::TooManyConnections
                | Self::ShuttingDown
                | Self::NoCluster
                | Self::CatalogUnavailable { .. }
                | Self::MemoryFull { .. }
        )
    }

    /// Whether a write answered with this status may nevertheless have taken, or still take, effect.
    pub fn may_have_applied(&self) -> bool {
        matches!(
            self,
            Self::SequenceTooOld
                | Self::UnknownSession
                | Self::Unavailable { .. }
                | Self::DeadlineExceeded
                | Self::DamagedPartition { .. }
                | Self::Internal
        )
    }
}

impl Status {
    pub(crate) fn encode(&self, w: &mut Writer) {
        w.number(self.code());
        match self {
            Self::UnsupportedVersion { min, max } => {
                w.number(*min);
                w.number(*max);
            }
            Self::FrameTooLarge { limit, got } => {
                w.number(*limit);
                w.number(*got);
            }
            Self::UnknownOpcode { opcode } => w.number(*opcode),
            Self::Malformed { field } => w.number(field.code()),
            Self::OutOfRange { field, min, max, got } => {
                w.number(field.code());
                w.number(*min);
                w.number(*max);
                w.signed(*got);
            }
            Self::TooLarge { field, limit } => {
                w.number(field.code());
                w.number(*limit);
            }
            Self::UnknownSpace { known } => encode_names(w, known.iter().map(|(id, name)| (id.0, name))),
            Self::UnknownGraph { known } => encode_names(w, known.iter().map(|(id, name)| (id.0, name))),
            Self::NotLeader { hint } => encode_hint(w, hint.as_ref()),
            Self::WrongEpoch { current } => w.number(*current),
            Self::WrongPartition { right: partition }
            | Self::Unavailable { partition }
            | Self::DamagedPartition { partition } => w.number(partition.0),
            Self::Busy { delay_ms: number }
            | Self::DiskFull { delay_ms: number }
            | Self::MemoryFull { delay_ms: number }
            | Self::VersionMismatch { current: number } => w.number(*number),
            Self::KeyConflict { existing } => w.fixed64(existing.0),
            Self::BlockedBy { blocker, blocked } => {
                w.number(blocker.0);
                w.number(blocked.0);
            }
            Self::LimitReached { what, limit } => {
                w.byte(what.code());
                w.number(*limit);
            }
            Self::BadMagic
            | Self::BadChecksum
            | Self::TooSlow
            | Self::BadCursor
            | Self::SpaceExists
            | Self::SequenceConflict
            | Self::SequenceTooOld
            | Self::UnknownSession
            | Self::SessionFull
            | Self::NotFound
            | Self::NotTheOwner
            | Self::DeadlineExceeded
            | Self::TooManyConnections
            | Self::ShuttingDown
            | Self::Internal
            | Self::IdTaken
            | Self::NoCluster => {}
            Self::ReadOnlySpace { space } => w.string(space),
            Self::ChangeRefused { refusal, said } => {
                w.byte(refusal.code());
                w.string(said);
            }
            Self::CatalogUnavailable { silent } => {
                w.count(silent.len());
                silent.iter().for_each(|node| w.number(node.0));
            }
        }
    }

    pub(crate) fn decode(r: &mut Reader) -> Result<Self, BodyError> {
        let at = Field::Status;
        Ok(match r.number16(at)? {
            1 => Self::BadMagic,
            2 => Self::UnsupportedVersion { min: r.number16(at)?, max: r.number16(at)? },
            3 => Self::FrameTooLarge { limit: r.number32(at)?, got: r.number32(at)? },
            4 => Self::BadChecksum,
            5 => Self::TooSlow,
            6 => Self::UnknownOpcode { opcode: r.number16(at)? },
            7 => Self::Malformed { field: decode_field(r)? },
            8 => Self::OutOfRange {
                field: decode_field(r)?,
                min: r.number(at)?,
                max: r.number(at)?,
                got: r.signed(at)?,
            },
            9 => Self::TooLarge { field: decode_field(r)?, limit: r.number(at)? },
            10 => Self::BadCursor,
            11 => Self::UnknownSpace { known: decode_names(r, SpaceId)? },
            12 => Self::UnknownGraph { known: decode_names(r, GraphId)? },
            13 => Self::SpaceExists,
            14 => Self::NotLeader { hint: decode_hint(r)? },
            15 => Self::WrongEpoch { current: r.number(at)? },
            16 => Self::WrongPartition { right: PartitionId(r.number16(at)?) },
            17 => Self::Busy { delay_ms: r.number32(at)? },
            18 => Self::SequenceConflict,
            19 => Self::SequenceTooOld,
            20 => Self::UnknownSession,
            21 => Self::SessionFull,
            22 => Self::KeyConflict { existing: r.entry_id(at)? },
            23 => Self::NotFound,
            24 => Self::NotTheOwner,
            25 => Self::VersionMismatch { current: r.number32(at)? },
            26 => Self::BlockedBy { blocker: r.user(at)?, blocked: r.user(at)? },
            27 => Self::LimitReached { what: decode_limit_kind(r)?, limit: r.number(at)? },
            28 => Self::Unavailable { partition: PartitionId(r.number16(at)?) },
            29 => Self::DeadlineExceeded,
            30 => Self::TooManyConnections,
            31 => Self::ShuttingDown,
            32 => Self::DamagedPartition { partition: PartitionId(r.number16(at)?) },
            33 => Self::Internal,
            34 => Self::DiskFull { delay_ms: r.number32(at)? },
            35 => Self::IdTaken,
            36 => Self::NoCluster,
            37 => Self::ReadOnlySpace { space: r.string(Field::Name)? },
            38 => Self::ChangeRefused { refusal: ChangeRefusal::decode(r)?, said: r.string(at)? },
            39 => {
                let count = r.count(at, 1, NODES_MAX)?;
                Self::CatalogUnavailable { silent: r.items(count, |r| r.number(at).map(NodeId))? }
            }
            40 => Self::MemoryFull { delay_ms: r.number32(at)? },
            _ => return Err(BodyError::Malformed { field: at }),
        })
    }
}

fn decode_field(r: &mut Reader) -> Result<Field, BodyError> {
    let code = r.number16(Field::Status)?;
    Field::from_code(code).ok_or(BodyError::Malformed { field: Field::Status })
}

fn decode_limit_kind(r: &mut Reader) -> Result<LimitKind, BodyError> {
    let code = r.byte(Field::Status)?;
    LimitKind::from_code(code).ok_or(BodyError::Malformed { field: Field::Status })
}

fn encode_names<'a>(w: &mut Writer, names: impl ExactSizeIterator<Item = (u16, &'a String)>) {
    w.count(names.len());
    for (id, name) in names {
        w.number(id);
        w.string(name);
    }
}

fn decode_names<I>(r: &mut Reader, id: fn(u16) -> I) -> Result<Vec<(I, String)>, BodyError> {
    let count = r.count(Field::Status, 2, NAMES_MAX)?;
    r.items(count, |r| Ok((id(r.number16(Field::Status)?), r.string(Field::Name)?)))
}

fn encode_hint(w: &mut Writer, hint: Option<&LeaderHint>) {
    w.boolean(hint.is_some());
    if let Some(hint) = hint {
        w.number(hint.node.0);
        w.string(&hint.address);
    }
}

fn decode_hint(r: &mut Reader) -> Result<Option<LeaderHint>, BodyError> {
    if !r.boolean(Field::Status)? {
        return Ok(None);
    }
    Ok(Some(LeaderHint { node: NodeId(r.number(Field::Status)?), address: r.string(Field::Address)? }))
}

fn list<I: std::fmt::Display>(known: &[(I, String)]) -> String {
    if known.is_empty() {
        return "none".to_owned();
    }
    let names: Vec<String> = known.iter().map(|(id, name)| format!("{name} ({id})")).collect();
    names.join(", ")
}

fn hinted(hint: Option<&LeaderHint>) -> String {
    hint.map_or_else(
        || "and knows of no leader; repeat, and see `fanfold cluster health` if that lasts".to_owned(),
        |hint| format!("node {} at {} does; ask the leader", hint.node, hint.address),
    )
}

fn catalog(silent: &[NodeId]) -> String {
    if silent.is_empty() {
        return "has no leader at the moment; repeat, and see `fanfold cluster health` if that lasts"
            .to_owned();
    }
    let nodes: Vec<String> = silent.iter().map(NodeId::to_string).collect();
    format!(
        "has no majority: nodes {} are silent; start them or, if they are gone for good, see `fanfold cluster \
         recover --help`",
        nodes.join(", ")
    )
}
