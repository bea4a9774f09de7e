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
        _ => "internal",
    }
}

/// The name of a request's kind, as in `fanfold_requests_total{kind="read_feed"}`.
pub fn request_name(request: &Request) -> &'static str {
    match request {
        Request::Ping => "ping",
        Request::GetMap => "get_map",
        Request::ListSpaces => "list_spaces",
        Request::CreateSpace(_) => "create_space",
        Request::AlterSpace(_) => "alter_space",
        Request::OpenSession(_) => "open_session",
        Request::CloseSession(_) => "close_session",
        Request::Write(write) => match write.op {
            WriteOp::Append(_) => "append",
            WriteOp::Amend(_) => "amend",
            WriteOp::Delete(_) => "delete",
            WriteOp::SetExpiry(_) => "set_expiry",
            WriteOp::Follow(_) => "follow",
            WriteOp::Unfollow(_) => "unfollow",
            WriteOp::Mute(_) => "mute",
            WriteOp::Unmute(_) => "unmute",
            WriteOp::Block(_) => "block",
            WriteOp::Unblock(_) => "unblock",
        },
        Request::WaitDelivered(_) => "wait_delivered",
        Request::ReadTimeline(_) => "read_timeline",
        Request::ReadEntries(_) => "read_entries",
        Request::ReadFeed(_) => "read_feed",
        Request::ReadFeeds(_) => "read_feeds",
        Request::GetCounts(_) => "get_counts",
        Request::ScanFollowees(_) => "scan_followees",
        Request::ScanFollowers(_) => "scan_followers",
        Request::Explain(_) => "explain",
        Request::GetStatus => "get_status",
        Request::WaitDrained => "wait_drained",
        Request::AcceptClock => "accept_clock",
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
        _ => "other",
    }
}
