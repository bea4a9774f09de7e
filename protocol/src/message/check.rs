//! Owns the check of a decoded request against the limits of a connection.
//!
//! Decoding accepts what is well formed; this refuses what is well formed and not allowed, and names field and
//! limit. Limits that a space sets are the partition's business.

use crate::field::Field;
use crate::handshake::Limits;
use crate::message::{
    AppendItem, ExpiryChoice, Request, SpaceChanges, SpacePolicy, TtlChoice, Write, WriteOp,
};
use crate::status::Status;

/// Most bytes of the name of a space or graph.
pub const NAME_BYTES_MAX: usize = 64;
/// Most bytes of an application key.
pub const KEY_BYTES_MAX: usize = 64;
/// Most bytes of a node's address.
pub const ADDRESS_BYTES_MAX: usize = 256;

impl Request {
    /// Refuses what no space allows on a connection with these limits.
    pub fn check(&self, limits: &Limits) -> Result<(), Status> {
        match self {
            Self::CreateSpace(create) => {
                check_name(&create.name, Field::Name)?;
                if let Some(graph) = &create.graph {
                    check_name(graph, Field::Graph)?;
                }
                check_policy(&create.policy, limits)
            }
            Self::AlterSpace(alter) => {
                check_name(&alter.name, Field::Name)?;
                check_changes(&alter.changes, limits)
            }
            Self::Write(write) => check_write(write, limits),
            Self::ReadTimeline(read) => check_limit(read.limit, limits),
            Self::ReadFeed(read) => check_limit(read.limit, limits),
            Self::ReadFeeds(read) => check_limit(read.limit, limits),
            Self::ScanFollowees(scan) | Self::ScanFollowers(scan) => check_limit(scan.limit, limits),
            Self::Ping
            | Self::GetMap
            | Self::ListSpaces
            | Self::OpenSession(_)
            | Self::CloseSession(_)
            | Self::WaitDelivered(_)
            | Self::ReadEntries(_)
            | Self::GetCounts(_)
            | Self::Explain(_)
            | Self::GetStatus
            | Self::WaitDrained
            | Self::AcceptClock => Ok(()),
        }
    }
}

fn check_limit(limit: u32, limits: &Limits) -> Result<(), Status> {
    check_range(u64::from(limit), 1, u64::from(limits.page_entries_max), Field::Limit)
}

fn check_name(name: &str, field: Field) -> Result<(), Status> {
    check_not_empty(name.len(), NAME_BYTES_MAX, field)
}

fn check_not_empty(got: usize, limit: usize, field: Field) -> Result<(), Status> {
    if got == 0 {
        return Err(Status::OutOfRange { field, min: 1, max: limit as u64, got: 0 });
    }
    check_size(got, limit, field)
}

fn check_policy(policy: &SpacePolicy, limits: &Limits) -> Result<(), Status> {
    check_changes(
        &SpaceChanges {
            default_ttl_ms: Some(policy.default_ttl_ms),
            feed_cap: Some(policy.feed_cap),
            horizon_ms: Some(policy.horizon_ms),
            fan_out: Some(policy.fan_out),
            pull_threshold: Some(policy.pull_threshold),
            payload_bytes_max: Some(policy.payload_bytes_max),
        },
        limits,
    )
}

fn check_changes(changes: &SpaceChanges, limits: &Limits) -> Result<(), Status> {
    if let Some(Some(default_ttl_ms)) = changes.default_ttl_ms {
        check_range(default_ttl_ms, 1, i64::MAX as u64, Field::DefaultTtl)?;
    }
    if let Some(Some(horizon_ms)) = changes.horizon_ms {
        check_range(horizon_ms, 1, i64::MAX as u64, Field::Horizon)?;
    }
    if let Some(feed_cap) = changes.feed_cap {
        check_range(u64::from(feed_cap), 1, u64::from(u32::MAX), Field::FeedCap)?;
    }
    if let Some(payload_bytes_max) = changes.payload_bytes_max {
        check_range(
            u64::from(payload_bytes_max),
            0,
            u64::from(limits.payload_bytes_max),
            Field::PayloadBytesMax,
        )?;
    }
    Ok(())
}

fn check_write(write: &Write, limits: &Limits) -> Result<(), Status> {
    let tag = write.tag;
    check_range(tag.sequence.0, 1, u64::MAX, Field::Sequence)?;
    check_range(tag.lowest_unanswered.0, 1, tag.sequence.0, Field::LowestUnanswered)?;
    match &write.op {
        WriteOp::Append(items) => items.iter().try_for_each(|item| check_item(item, limits)),
        WriteOp::Amend(amend) => {
            check_size(amend.payload.len(), limits.payload_bytes_max as usize, Field::Payload)
        }
        WriteOp::SetExpiry(set) => match set.expiry {
            ExpiryChoice::Clear => Ok(()),
            ExpiryChoice::InMs(in_ms) => check_duration(in_ms, Field::Expiry),
        },
        WriteOp::Delete(_)
        | WriteOp::Follow(_)
        | WriteOp::Unfollow(_)
        | WriteOp::Mute(_)
        | WriteOp::Unmute(_)
        | WriteOp::Block(_)
        | WriteOp::Unblock(_) => Ok(()),
    }
}

fn check_item(item: &AppendItem, limits: &Limits) -> Result<(), Status> {
    if let Some(key) = &item.key {
        check_not_empty(key.len(), KEY_BYTES_MAX, Field::Key)?;
    }
    if let TtlChoice::Ms(ttl_ms) = item.ttl {
        check_duration(ttl_ms, Field::Ttl)?;
    }
    check_size(item.payload.len(), limits.payload_bytes_max as usize, Field::Payload)
}

fn check_duration(duration_ms: i64, field: Field) -> Result<(), Status> {
    if duration_ms >= 1 {
        return Ok(());
    }
    Err(Status::OutOfRange { field, min: 1, max: i64::MAX as u64, got: duration_ms })
}

fn check_range(got: u64, min: u64, max: u64, field: Field) -> Result<(), Status> {
    if (min..=max).contains(&got) {
        return Ok(());
    }
    Err(Status::OutOfRange { field, min, max, got: i64::try_from(got).unwrap_or(i64::MAX) })
}

fn check_size(got: usize, limit: usize, field: Field) -> Result<(), Status> {
    if got <= limit { Ok(()) } else { Err(Status::TooLarge { field, limit: limit as u64 }) }
}
