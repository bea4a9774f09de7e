//! Owns the messages for operators: a node's status.

use crate::error::BodyError;
use crate::field::Field;
use crate::ids::{ClusterId, NodeId, PartitionId, Stamp};
use crate::message::GroupName;
use crate::wire::{Reader, Writer, bitmap};

/// The status of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeStatus {
    /// The node.
    pub node: NodeId,
    /// Its cluster.
    pub cluster: ClusterId,
    /// The version of its program.
    pub version: String,
    /// How long it has been running, in milliseconds.
    pub uptime_ms: u64,
    /// If stamps are held because the wall clock jumped (R2): by how many milliseconds it is ahead.
    pub clock_held_ms: Option<i64>,
    /// The partitions it holds a replica of.
    pub partitions: Vec<PartitionStatus>,
    /// Its write-ahead log.
    pub log: LogStatus,
    /// Partitions whose replicas here refuse service, because what is on disk is damaged; also ones that are not in the list.
    pub damaged: Vec<PartitionId>,
    /// Which of those keep something of the log.
    pub kept_by_damaged: Vec<KeptLog>,
    /// How it keeps its memory budget; none without one.
    pub memory: Option<MemoryBudget>,
    /// What its process takes; none if the system does not say.
    pub process: Option<ProcessMemory>,
}

/// The memory of a node's process.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProcessMemory {
    /// Its resident size, in bytes.
    pub resident_bytes: u64,
    /// What of it belongs to no partition.
    pub parts: Vec<MemoryUse>,
}

/// What a partition keeps of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeptLog {
    /// The partition.
    pub partition: PartitionId,
    /// Bytes from the oldest place on that it may still need.
    pub bytes: u64,
}

/// How a node keeps its memory budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryBudget {
    /// The budget, in bytes.
    pub budget_bytes: u64,
    /// What the process takes, in bytes.
    pub resident_bytes: u64,
    /// How the two stand to each other.
    pub state: MemoryState,
}

/// How a node stands to its memory budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MemoryState {
    /// Within it, or with something left that can give way.
    Within,
    /// Above it, and nothing is left that can give way.
    Over,
    /// So far above it that it refuses writes that need more memory.
    Refusing,
}

/// The write-ahead log of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogStatus {
    /// Segments on disk.
    pub segments: u64,
    /// Bytes of them in use.
    pub bytes: u64,
    /// The position behind the last record.
    pub last_position: u64,
    /// Whose entries keep its oldest segment; none if there are none.
    pub pinned_by: Option<GroupName>,
    /// The node that they are kept for, whose replica is behind. Only who leads the group knows.
    pub pinned_for: Option<NodeId>,
    /// The job that keeps segments of it that nobody else needs.
    pub kept_by_job: Option<u64>,
}

/// The status of one partition's replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionStatus {
    /// The partition.
    pub partition: PartitionId,
    /// Whether this node leads it.
    pub is_leader: bool,
    /// The Raft term.
    pub term: u64,
    /// The last log index applied.
    pub applied: u64,
    /// The last log index written.
    pub log_last: u64,
    /// The last stamp applied.
    pub stamp: Stamp,
    /// Live entries.
    pub entries: u64,
    /// Feeds held.
    pub feeds: u64,
    /// Users homed here.
    pub users: u64,
    /// Edges of readers homed here.
    pub edges: u64,
    /// Owners whom anyone here follows.
    pub owners_here: u64,
    /// Rows of the delivered table.
    pub rows: u64,
    /// Deliveries so far: each entry counts once per local follower that it reached.
    pub deliveries: u64,
    /// Events in the journal that some destination has not acknowledged; 0 where the partition is not led.
    pub undelivered_events: u64,
    /// Slices of large fan-outs not applied yet.
    pub pending_slices: u64,
    /// The first position the journal still holds.
    pub journal_first: u64,
    /// The position its next event gets.
    pub journal_next: u64,
    /// Open sessions.
    pub sessions: u64,
    /// Bytes of the log that it holds.
    pub log_bytes: u64,
    /// The log index of its newest snapshot; 0 if there is none.
    pub snapshot: u64,
    /// Bytes of that snapshot, segments not counted.
    pub snapshot_bytes: u64,
    /// Segments with entries.
    pub segments: u64,
    /// Their bytes.
    pub segment_bytes: u64,
    /// Memory by part, in bytes.
    pub memory: Vec<MemoryUse>,
    /// Streams to other partitions; none where the partition is not led.
    pub streams: Vec<StreamStatus>,
}

/// Memory used by one part of a partition's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MemoryUse {
    /// The part.
    pub part: MemoryPart,
    /// Its size in bytes.
    pub bytes: u64,
}

/// A part of a partition's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MemoryPart {
    /// Definitions of spaces.
    Spaces,
    /// Entries of the owners homed here.
    Timelines,
    /// Whom readers follow, mute and block.
    Following,
    /// The posting lists of local followers.
    FollowersHere,
    /// Which partitions are subscribed to the owners homed here.
    Reach,
    /// Rows.
    DeliveredTable,
    /// Row references.
    Feeds,
    /// Events for other partitions.
    Journal,
    /// Watermarks of other partitions.
    Inbox,
    /// Sessions and their results.
    Sessions,
    /// Application keys.
    Keys,
    /// Records of the log held in memory.
    Log,
    /// Everything else.
    Other,
    /// The program, and pages of other files.
    Program,
    /// What the allocator has and nobody uses: freed and not given back yet, left over in pages, and its own.
    Allocator,
}

/// A stream to another partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StreamStatus {
    /// Where it goes.
    pub destination: PartitionId,
    /// Events not acknowledged.
    pub pending_events: u64,
    /// The age of the oldest of them, in milliseconds.
    pub oldest_age_ms: u64,
    /// The position acknowledged.
    pub acknowledged: u64,
}

/// Most partitions of a node.
const PARTITIONS_MAX: usize = 4_096;
/// Most streams of a partition: one to each.
const STREAMS_MAX: usize = 4_096;
/// Most parts of a partition's memory.
const MEMORY_PARTS_MAX: usize = 255;

const PARTITION_BYTES_MIN: usize = 25;
const STREAM_BYTES_MIN: usize = 4;
const MEMORY_BYTES_MIN: usize = 2;

impl NodeStatus {
    pub(crate) fn encode(&self, w: &mut Writer) {
        w.byte(bitmap([
            self.clock_held_ms.is_some(),
            matches!(self.log.pinned_by, Some(GroupName::Partition(_))),
            !self.damaged.is_empty(),
            self.log.kept_by_job.is_some(),
            !self.kept_by_damaged.is_empty(),
            self.memory.is_some(),
            self.log.says_more(),
            self.process.is_some(),
        ]));
        w.number(self.node.0);
        w.fixed128(self.cluster.0);
        w.string(&self.version);
        w.number(self.uptime_ms);
        if let Some(clock_held_ms) = self.clock_held_ms {
            w.signed(clock_held_ms);
        }
        w.count(self.partitions.len());
        for partition in &self.partitions {
            partition.encode(w);
        }
        w.number(self.log.segments);
        w.number(self.log.bytes);
        w.number(self.log.last_position);
        if let Some(GroupName::Partition(partition)) = self.log.pinned_by {
            w.number(partition.0);
        }
        if !self.damaged.is_empty() {
            w.count(self.damaged.len());
            self.damaged.iter().for_each(|partition| w.number(partition.0));
        }
        if let Some(job) = self.log.kept_by_job {
            w.number(job);
        }
        if !self.kept_by_damaged.is_empty() {
            w.count(self.kept_by_damaged.len());
            for kept in &self.kept_by_damaged {
                w.number(kept.partition.0);
                w.number(kept.bytes);
            }
        }
        if let Some(memory) = self.memory {
            memory.encode(w);
        }
        if self.log.says_more() {
            self.log.encode_more(w);
        }
        if let Some(process) = &self.process {
            w.number(process.resident_bytes);
            encode_memory(&process.parts, w);
        }
    }

    pub(crate) fn decode(r: &mut Reader) -> Result<Self, BodyError> {
        let at = Field::NodeStatus;
        let present = r.presence(0b1111_1111)?;
        let node = NodeId(r.number(at)?);
        let cluster = ClusterId(r.fixed128(Field::ClusterId)?);
        let version = r.string(at)?;
        let uptime_ms = r.number(at)?;
        let clock_held_ms = r.optional(present, 0, |r| r.signed(at))?;
        let count = r.count(at, PARTITION_BYTES_MIN, PARTITIONS_MAX)?;
        let partitions = r.items(count, PartitionStatus::decode)?;
        let (segments, bytes, last_position) = (r.number(at)?, r.number(at)?, r.number(at)?);
        let pinned_by = r.optional(present, 1, |r| r.number16(at).map(PartitionId))?;
        let pinned_by = pinned_by.map(GroupName::Partition);
        let damaged = r.optional(present, 2, |r| {
            let count = r.count(at, 1, PARTITIONS_MAX)?;
            r.items(count, |r| r.number16(at).map(PartitionId))
        })?;
        let kept_by_job = r.optional(present, 3, |r| r.number(at))?;
        let kept_by_damaged = r.optional(present, 4, |r| {
            let count = r.count(at, 2, PARTITIONS_MAX)?;
            r.items(count, |r| {
                Ok(KeptLog { partition: r.number16(at).map(PartitionId)?, bytes: r.number(at)? })
            })
        })?;
        let memory = r.optional(present, 5, MemoryBudget::decode)?;
        let log = LogStatus { segments, bytes, last_position, pinned_by, pinned_for: None, kept_by_job };
        let log = r.optional(present, 6, |r| log.decode_more(r))?.unwrap_or(log);
        let process = r.optional(present, 7, |r| {
            Ok(ProcessMemory { resident_bytes: r.number(at)?, parts: decode_memory(r)? })
        })?;
        let (damaged, kept_by_damaged) = (damaged.unwrap_or_default(), kept_by_damaged.unwrap_or_default());
        Ok(Self {
            node,
            cluster,
            version,
            uptime_ms,
            clock_held_ms,
            partitions,
            log,
            damaged,
            kept_by_damaged,
            memory,
            process,
        })
    }
}

impl LogStatus {
    /// Whether more keeps the log than the entries of a partition.
    fn says_more(&self) -> bool {
        self.pinned_by == Some(GroupName::Catalog) || self.pinned_for.is_some()
    }

    fn encode_more(&self, w: &mut Writer) {
        w.byte(bitmap([self.pinned_by == Some(GroupName::Catalog), self.pinned_for.is_some()]));
        if let Some(node) = self.pinned_for {
            w.number(node.0);
        }
    }

    fn decode_more(self, r: &mut Reader) -> Result<Self, BodyError> {
        let present = r.presence(0b11)?;
        let is_catalog = present & 1 != 0;
        let pinned_for = r.optional(present, 1, |r| r.number(Field::NodeStatus).map(NodeId))?;
        // What says nothing, or twice by whom, is not how it is written.
        if present == 0 || is_catalog && self.pinned_by.is_some() {
            return Err(BodyError::Malformed { field: Field::Presence });
        }
        let pinned_by = if is_catalog { Some(GroupName::Catalog) } else { self.pinned_by };
        Ok(Self { pinned_by, pinned_for, ..self })
    }
}

impl MemoryBudget {
    fn encode(self, w: &mut Writer) {
        w.number(self.budget_bytes);
        w.number(self.resident_bytes);
        w.byte(self.state as u8 + 1);
    }

    fn decode(r: &mut Reader) -> Result<Self, BodyError> {
        let at = Field::NodeStatus;
        Ok(Self {
            budget_bytes: r.number(at)?,
            resident_bytes: r.number(at)?,
            state: match r.byte(at)? {
                1 => MemoryState::Within,
                2 => MemoryState::Over,
                3 => MemoryState::Refusing,
                _ => return Err(BodyError::Malformed { field: at }),
            },
        })
    }
}

impl PartitionStatus {
    fn encode(&self, w: &mut Writer) {
        w.number(self.partition.0);
        w.boolean(self.is_leader);
        let numbers = [
            self.term,
            self.applied,
            self.log_last,
            self.stamp.0,
            self.entries,
            self.feeds,
            self.users,
            self.edges,
            self.owners_here,
            self.rows,
            self.deliveries,
            self.undelivered_events,
            self.pending_slices,
            self.journal_first,
            self.journal_next,
            self.sessions,
            self.log_bytes,
            self.snapshot,
            self.snapshot_bytes,
            self.segments,
            self.segment_bytes,
        ];
        for number in numbers {
            w.number(number);
        }
        encode_memory(&self.memory, w);
        w.count(self.streams.len());
        for stream in &self.streams {
            stream.encode(w);
        }
    }

    fn decode(r: &mut Reader) -> Result<Self, BodyError> {
        let at = Field::NodeStatus;
        Ok(Self {
            partition: PartitionId(r.number16(at)?),
            is_leader: r.boolean(at)?,
            term: r.number(at)?,
            applied: r.number(at)?,
            log_last: r.number(at)?,
            stamp: Stamp(r.number(at)?),
            entries: r.number(at)?,
            feeds: r.number(at)?,
            users: r.number(at)?,
            edges: r.number(at)?,
            owners_here: r.number(at)?,
            rows: r.number(at)?,
            deliveries: r.number(at)?,
            undelivered_events: r.number(at)?,
            pending_slices: r.number(at)?,
            journal_first: r.number(at)?,
            journal_next: r.number(at)?,
            sessions: r.number(at)?,
            log_bytes: r.number(at)?,
            snapshot: r.number(at)?,
            snapshot_bytes: r.number(at)?,
            segments: r.number(at)?,
            segment_bytes: r.number(at)?,
            memory: decode_memory(r)?,
            streams: decode_streams(r)?,
        })
    }
}

fn encode_memory(parts: &[MemoryUse], w: &mut Writer) {
    w.count(parts.len());
    for memory in parts {
        w.byte(memory.part.code());
        w.number(memory.bytes);
    }
}

fn decode_memory(r: &mut Reader) -> Result<Vec<MemoryUse>, BodyError> {
    let count = r.count(Field::NodeStatus, MEMORY_BYTES_MIN, MEMORY_PARTS_MAX)?;
    r.items(count, |r| Ok(MemoryUse { part: MemoryPart::decode(r)?, bytes: r.number(Field::NodeStatus)? }))
}

fn decode_streams(r: &mut Reader) -> Result<Vec<StreamStatus>, BodyError> {
    let count = r.count(Field::NodeStatus, STREAM_BYTES_MIN, STREAMS_MAX)?;
    r.items(count, StreamStatus::decode)
}

impl StreamStatus {
    fn encode(self, w: &mut Writer) {
        w.number(self.destination.0);
        w.number(self.pending_events);
        w.number(self.oldest_age_ms);
        w.number(self.acknowledged);
    }

    fn decode(r: &mut Reader) -> Result<Self, BodyError> {
        let at = Field::NodeStatus;
        Ok(Self {
            destination: PartitionId(r.number16(at)?),
            pending_events: r.number(at)?,
            oldest_age_ms: r.number(at)?,
            acknowledged: r.number(at)?,
        })
    }
}

impl MemoryPart {
    /// Every part of this version, in the order of their numbers on the wire, which start at 1.
    pub const ALL: [Self; 15] = [
        Self::Spaces,
        Self::Timelines,
        Self::Following,
        Self::FollowersHere,
        Self::Reach,
        Self::DeliveredTable,
        Self::Feeds,
        Self::Journal,
        Self::Inbox,
        Self::Sessions,
        Self::Keys,
        Self::Log,
        Self::Other,
        Self::Program,
        Self::Allocator,
    ];

    fn code(self) -> u8 {
        self as u8 + 1
    }

    fn decode(r: &mut Reader) -> Result<Self, BodyError> {
        let code = r.byte(Field::NodeStatus)?;
        let part = usize::from(code).checked_sub(1).and_then(|at| Self::ALL.get(at));
        part.copied().ok_or(BodyError::Malformed { field: Field::NodeStatus })
    }
}
