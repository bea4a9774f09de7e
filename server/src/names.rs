//! Owns the short names by which metrics, logs and JSON output call statuses, requests and parts of memory.

use fanfold_protocol::Status;
use fanfold_protocol::message::{MemoryPart, Request, WriteOp};

/// The name of a status, as in `fanfold_requests_total{status="busy"}`.
pub fn status_name(status: &Status) -> &'static str {
    match status {
        Status::BadMagic => "bad_magic",
        Status::UnsupportedVersion { .. } => "unsupported_version",
        Status::FrameTooLarge { .. } => "frame_too_large",
        Status::BadChecksum => "bad_checksum",
        Status::TooSlow => "too_slow",
        Status::UnknownOpcode { .. } => "unknown_opcode",
        Status::Malformed { .. } => "malformed",
        Status::OutOfRange { .. } => "out_of_range",
        Status::TooLarge { .. } => "too_large",
        Status::BadCursor => "bad_cursor",
        Status::UnknownSpace { .. } => "unknown_space",
        Status::UnknownGraph { .. } => "unknown_graph",
        Status::SpaceExists => "space_exists",
        Status::NotLeader { .. } => "not_leader",
        Status::WrongEpoch { .. } => "wrong_epoch",
        Status::WrongPartition { .. } => "wrong_partition",
        Status::Busy { .. } => "busy",
        Status::DiskFull { .. } => "disk_full",
        Status::SequenceConflict => "sequence_conflict",
        Status::SequenceTooOld => "sequence_too_old",
        Status::UnknownSession => "unknown_session",
        Status::SessionFull => "session_full",
        Status::KeyConflict { .. } => "key_conflict",
        Status::NotFound => "not_found",
        Status::NotTheOwner => "not_the_owner",
        Status::VersionMismatch { .. } => "version_mismatch",
        Status::BlockedBy { .. } => "blocked_by",
        Status::LimitReached { .. } => "limit_reached",
        Status::Unavailable { .. } => "unavailable",
        Status::DeadlineExceeded => "deadline_exceeded",
        Status::TooManyConnections => "too_many_connections",
        Status::ShuttingDown => "shutting_down",
        Status::DamagedPartition { .. } => "damaged_partition",
        Status::IdTaken => "id_taken",
        Status::NoCluster => "no_cluster",
        Status::ReadOnlySpace { .. } => "read_only_space",
        Status::ChangeRefused { .. } => "change_refused",
        Status::CatalogUnavailable { .. } => "catalog_unavailable",
        Status::MemoryFull { .. } => "memory_full",
        _ => "internal",
    }
}

/// The kind of a request, as metrics and logs tell them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestKind {
    Ping,
    GetMap,
    ListSpaces,
    CreateSpace,
    AlterSpace,
    OpenSession,
    CloseSession,
    Append,
    Amend,
    Delete,
    SetExpiry,
    Follow,
    Unfollow,
    Mute,
    Unmute,
    Block,
    Unblock,
    ImportFollows,
    ImportEntries,
    WaitDelivered,
    ReadTimeline,
    ReadEntries,
    ReadFeed,
    ReadFeeds,
    GetCounts,
    ScanFollowees,
    ScanFollowers,
    Explain,
    GetStatus,
    WaitDrained,
    AcceptClock,
    StartJob,
    GetJob,
    CancelJob,
    GetCluster,
    ChangeCluster,
    InitCluster,
    GetHot,
    PauseFanOut,
    ListPaused,
}

impl RequestKind {
    /// How many there are.
    pub const COUNT: usize = Self::ListPaused as usize + 1;

    /// The kind of a request.
    pub fn of(request: &Request) -> Self {
        match request {
            Request::Ping => Self::Ping,
            Request::GetMap => Self::GetMap,
            Request::ListSpaces => Self::ListSpaces,
            Request::CreateSpace(_) => Self::CreateSpace,
            Request::AlterSpace(_) => Self::AlterSpace,
            Request::OpenSession(_) => Self::OpenSession,
            Request::CloseSession(_) => Self::CloseSession,
            Request::Write(write) => match write.op {
                WriteOp::Append(_) => Self::Append,
                WriteOp::Amend(_) => Self::Amend,
                WriteOp::Delete(_) => Self::Delete,
                WriteOp::SetExpiry(_) => Self::SetExpiry,
                WriteOp::Follow(_) => Self::Follow,
                WriteOp::Unfollow(_) => Self::Unfollow,
                WriteOp::Mute(_) => Self::Mute,
                WriteOp::Unmute(_) => Self::Unmute,
                WriteOp::Block(_) => Self::Block,
                WriteOp::Unblock(_) => Self::Unblock,
                WriteOp::ImportFollows(_) => Self::ImportFollows,
                WriteOp::ImportEntries(_) => Self::ImportEntries,
            },
            Request::WaitDelivered(_) => Self::WaitDelivered,
            Request::ReadTimeline(_) => Self::ReadTimeline,
            Request::ReadEntries(_) => Self::ReadEntries,
            Request::ReadFeed(_) => Self::ReadFeed,
            Request::ReadFeeds(_) => Self::ReadFeeds,
            Request::GetCounts(_) => Self::GetCounts,
            Request::ScanFollowees(_) => Self::ScanFollowees,
            Request::ScanFollowers(_) => Self::ScanFollowers,
            Request::Explain(_) => Self::Explain,
            Request::GetStatus => Self::GetStatus,
            Request::WaitDrained => Self::WaitDrained,
            Request::AcceptClock => Self::AcceptClock,
            Request::StartJob(_) => Self::StartJob,
            Request::GetJob(_) => Self::GetJob,
            Request::CancelJob(_) => Self::CancelJob,
            Request::GetCluster => Self::GetCluster,
            Request::ChangeCluster(_) => Self::ChangeCluster,
            Request::InitCluster(_) => Self::InitCluster,
            Request::GetHot(_) => Self::GetHot,
            Request::PauseFanOut(_) => Self::PauseFanOut,
            Request::ListPaused => Self::ListPaused,
        }
    }

    /// Its name, as in `fanfold_requests_total{kind="read_feed"}`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::GetMap => "get_map",
            Self::ListSpaces => "list_spaces",
            Self::CreateSpace => "create_space",
            Self::AlterSpace => "alter_space",
            Self::OpenSession => "open_session",
            Self::CloseSession => "close_session",
            Self::Append => "append",
            Self::Amend => "amend",
            Self::Delete => "delete",
            Self::SetExpiry => "set_expiry",
            Self::Follow => "follow",
            Self::Unfollow => "unfollow",
            Self::Mute => "mute",
            Self::Unmute => "unmute",
            Self::Block => "block",
            Self::Unblock => "unblock",
            Self::ImportFollows => "import_follows",
            Self::ImportEntries => "import_entries",
            Self::WaitDelivered => "wait_delivered",
            Self::ReadTimeline => "read_timeline",
            Self::ReadEntries => "read_entries",
            Self::ReadFeed => "read_feed",
            Self::ReadFeeds => "read_feeds",
            Self::GetCounts => "get_counts",
            Self::ScanFollowees => "scan_followees",
            Self::ScanFollowers => "scan_followers",
            Self::Explain => "explain",
            Self::GetStatus => "get_status",
            Self::WaitDrained => "wait_drained",
            Self::AcceptClock => "accept_clock",
            Self::StartJob => "start_job",
            Self::GetJob => "get_job",
            Self::CancelJob => "cancel_job",
            Self::GetCluster => "get_cluster",
            Self::ChangeCluster => "change_cluster",
            Self::InitCluster => "init_cluster",
            Self::GetHot => "get_hot",
            Self::PauseFanOut => "pause_fan_out",
            Self::ListPaused => "list_paused",
        }
    }

    /// Whether it asks to be answered only when something has come about, so that a long time is no fault.
    pub fn waits(self) -> bool {
        matches!(self, Self::WaitDelivered | Self::WaitDrained)
    }
}

/// The name of a part of a partition's memory.
pub fn part_name(part: MemoryPart) -> &'static str {
    match part {
        MemoryPart::Spaces => "spaces",
        MemoryPart::Timelines => "timelines",
        MemoryPart::Following => "following",
        MemoryPart::FollowersHere => "followers_here",
        MemoryPart::Reach => "reach",
        MemoryPart::DeliveredTable => "delivered_table",
        MemoryPart::Feeds => "feeds",
        MemoryPart::Journal => "journal",
        MemoryPart::Inbox => "inbox",
        MemoryPart::Sessions => "sessions",
        MemoryPart::Keys => "keys",
        MemoryPart::Log => "log",
        MemoryPart::Program => "program",
        MemoryPart::Allocator => "allocator",
        _ => "other",
    }
}
