//! Owns the check of a decoded request against the limits of a connection.
//!
//! Decoding accepts what is well formed; this refuses what is well formed and not allowed, and names field and
//! limit. Limits that a space sets are the partition's business.

use crate::field::Field;
use crate::handshake::Limits;
use crate::message::{
    AppendItem, ClusterChange, Consistency, ExpiryChoice, HOT_USERS_MAX, ImportEntry, InitCluster,
    JOB_PATH_BYTES_MAX, JobKind, Request, SpaceChanges, SpacePolicy, TtlChoice, Write, WriteOp,
};
use crate::status::Status;

/// Most bytes of the name of a space or graph.
pub const NAME_BYTES_MAX: usize = 64;
/// Most bytes of an application key.
pub const KEY_BYTES_MAX: usize = 64;
/// Most milliseconds of a time to live, an expiry or a horizon: 100 years of 366 days.
pub const TTL_MS_MAX: u64 = 100 * 366 * 24 * 3_600 * 1_000;
/// Most references of a feed.
pub const FEED_CAP_MAX: u32 = 100_000;
/// Most bytes of the payload limit of a space.
pub const SPACE_PAYLOAD_BYTES_MAX: u32 = 1 << 20;
/// Most replicas of a group.
pub const REPLICAS_MAX: u32 = 7;
/// The shortest silence after which a node's replicas go to others, in milliseconds.
pub const REPAIR_AFTER_MS_MIN: u64 = 1_000;
/// The longest such silence: 30 days.
pub const REPAIR_AFTER_MS_MAX: u64 = 30 * 24 * 3_600 * 1_000;
/// Most bytes of a node's address.
pub const ADDRESS_BYTES_MAX: usize = 256;

/// Most entries that the feeds of one request may have in all.
pub const READ_FEEDS_ENTRIES_MAX: usize = 65_536;

impl Request {
    /// Refuses what no space allows on a connection with these limits.
    pub fn check(&self, limits: &Limits) -> Result<(), Status> {
        match self {
            Self::CreateSpace(create) => {
                check_name(&create.name, Field::Name)?;
                if let Some(graph) = &create.graph {
                    check_name(graph, Field::Graph)?;
                }
                check_policy(&create.policy)
            }
            Self::AlterSpace(alter) => {
                check_name(&alter.name, Field::Name)?;
                check_changes(&alter.changes)
            }
            Self::StartJob(start) => match &start.kind {
                JobKind::Verify => Ok(()),
                JobKind::Backup { dir, .. } => check_not_empty(dir.len(), JOB_PATH_BYTES_MAX, Field::Path),
            },
            Self::Write(write) => check_write(write, limits),
            Self::ReadTimeline(read) => {
                check_consistency(read.consistency, read.at_least.is_some())?;
                check_limit(read.limit, limits)
            }
            Self::ReadFeed(read) => {
                check_consistency(read.consistency, read.at_least.is_some())?;
                check_limit(read.limit, limits)
            }
            Self::ReadFeeds(read) => {
                check_consistency(read.consistency, read.at_least.is_some())?;
                check_limit(read.limit, limits)?;
                let most = (READ_FEEDS_ENTRIES_MAX / read.readers.len().max(1)) as u64;
                check_range(u64::from(read.limit), 1, most, Field::Limit)
            }
            Self::ReadEntries(read) => check_consistency(read.consistency, read.at_least.is_some()),
            Self::ScanFollowees(scan) | Self::ScanFollowers(scan) => check_limit(scan.limit, limits),
            Self::Ping
            | Self::GetMap
            | Self::ListSpaces
            | Self::OpenSession(_)
            | Self::CloseSession(_)
            | Self::WaitDelivered(_)
            | Self::GetCounts(_)
            | Self::Explain(_)
            | Self::GetStatus
            | Self::WaitDrained
            | Self::AcceptClock
            | Self::GetJob(_)
            | Self::CancelJob(_)
            | Self::GetCluster
            | Self::PauseFanOut(_)
            | Self::ListPaused => Ok(()),
            Self::ChangeCluster(change) => check_change(&change.change),
            Self::InitCluster(init) => check_init(*init),
            Self::GetHot(get) => check_range(get.limit.into(), 1, HOT_USERS_MAX as u64, Field::Limit),
        }
    }
}

fn check_change(change: &ClusterChange) -> Result<(), Status> {
    match change {
        ClusterChange::Settings { replicas, repair_after_ms } => {
            replicas.map_or(Ok(()), check_replicas)?;
            let repair_after_ms = repair_after_ms.filter(|ms| *ms != 0);
            repair_after_ms.map_or(Ok(()), |ms| {
                check_range(ms, REPAIR_AFTER_MS_MIN, REPAIR_AFTER_MS_MAX, Field::RepairAfter)
            })
        }
        _ => Ok(()),
    }
}

fn check_init(init: InitCluster) -> Result<(), Status> {
    check_replicas(init.replicas)?;
    if init.partitions.is_power_of_two() {
        return check_range(init.partitions.into(), 1, 4_096, Field::Partition);
    }
    Err(Status::Malformed { field: Field::Partition })
}

fn check_replicas(replicas: u32) -> Result<(), Status> {
    if replicas.is_multiple_of(2) {
        return Err(Status::Malformed { field: Field::Replicas });
    }
    check_range(replicas.into(), 1, u64::from(REPLICAS_MAX), Field::Replicas)
}

fn check_consistency(consistency: Consistency, has_token: bool) -> Result<(), Status> {
    let field = Field::Consistency;
    match consistency {
        Consistency::AtLeast if !has_token => Err(Status::Malformed { field }),
        Consistency::StaleOk { max_ms } => check_range(max_ms.into(), 1, u32::MAX.into(), field),
        Consistency::Leader | Consistency::AtLeast => Ok(()),
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

fn check_policy(policy: &SpacePolicy) -> Result<(), Status> {
    check_changes(&SpaceChanges {
        default_ttl_ms: Some(policy.default_ttl_ms),
        feed_cap: Some(policy.feed_cap),
        horizon_ms: Some(policy.horizon_ms),
        fan_out: Some(policy.fan_out),
        pull_threshold: Some(policy.pull_threshold),
        payload_bytes_max: Some(policy.payload_bytes_max),
        is_read_only: None,
    })
}

fn check_changes(changes: &SpaceChanges) -> Result<(), Status> {
    let ranges = [
        (Field::DefaultTtl, changes.default_ttl_ms.flatten(), TTL_MS_MAX),
        (Field::FeedCap, changes.feed_cap.map(u64::from), u64::from(FEED_CAP_MAX)),
        (Field::Horizon, changes.horizon_ms.flatten(), TTL_MS_MAX),
        (Field::PullThreshold, changes.pull_threshold.map(u64::from), u64::from(u32::MAX)),
        (
            Field::PayloadBytesMax,
            changes.payload_bytes_max.map(u64::from),
            u64::from(SPACE_PAYLOAD_BYTES_MAX),
        ),
    ];
    for (field, got, max) in ranges {
        if let Some(got) = got {
            check_range(got, 1, max, field)?;
        }
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
        WriteOp::ImportEntries(entries) => entries.iter().try_for_each(|entry| check_imported(entry, limits)),
        WriteOp::Delete(_)
        | WriteOp::ImportFollows(_)
        | WriteOp::Follow(_)
        | WriteOp::Unfollow(_)
        | WriteOp::Mute(_)
        | WriteOp::Unmute(_)
        | WriteOp::Block(_)
        | WriteOp::Unblock(_) => Ok(()),
    }
}

fn check_item(item: &AppendItem, limits: &Limits) -> Result<(), Status> {
    check_key(item.key.as_deref())?;
    if let TtlChoice::Ms(ttl_ms) = item.ttl {
        check_duration(ttl_ms, Field::Ttl)?;
    }
    check_size(item.payload.len(), limits.payload_bytes_max as usize, Field::Payload)
}

fn check_imported(entry: &ImportEntry, limits: &Limits) -> Result<(), Status> {
    check_key(entry.key.as_deref())?;
    check_size(entry.payload.len(), limits.payload_bytes_max as usize, Field::Payload)
}

fn check_key(key: Option<&[u8]>) -> Result<(), Status> {
    key.map_or(Ok(()), |key| check_not_empty(key.len(), KEY_BYTES_MAX, Field::Key))
}

fn check_duration(duration_ms: i64, field: Field) -> Result<(), Status> {
    if u64::try_from(duration_ms).is_ok_and(|ms| (1..=TTL_MS_MAX).contains(&ms)) {
        return Ok(());
    }
    Err(Status::OutOfRange { field, min: 1, max: TTL_MS_MAX, got: duration_ms })
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
