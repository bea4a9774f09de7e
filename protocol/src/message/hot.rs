//! Owns the messages about what is hot, and about owners whose fan-out is paused.

use crate::error::BodyError;
use crate::field::Field;
use crate::ids::{PartitionId, UserId};
use crate::wire::{Reader, Writer};

/// Most users that one list names.
pub const HOT_USERS_MAX: usize = 1_000;
/// Most partitions that one list names.
const HOT_PARTITIONS_MAX: usize = 4_096;
/// Most owners that are paused at a time, in one partition.
pub const PAUSED_MAX: usize = 4_096;

const HOT_BYTES_MIN: usize = 3;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HotBy {
    /// Reads of a user's timeline or feed.
    Reads,
    /// Writes at a user's home.
    Writes,
    /// Deliveries: followers that an owner's entries reached.
    FanOut,
}

/// Asks a node what is hot on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GetHot {
    /// What is counted.
    pub by: HotBy,
    /// Users wanted, 1 to 1,000.
    pub limit: u32,
}

/// How often something was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hot<T> {
    /// What.
    pub of: T,
    /// How often, at least.
    pub count: u64,
    /// By how much the count may be too large, at most: only the hottest are counted exactly.
    pub error: u64,
}

/// What was hot on a node in the last while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HotList {
    /// How long was counted, in milliseconds.
    pub over_ms: u64,
    /// The partitions, the hottest first.
    pub partitions: Vec<Hot<PartitionId>>,
    /// The users, the hottest first.
    pub users: Vec<Hot<UserId>>,
}

/// Pauses the fan-out of an owner's entries, or lets it go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PauseFanOut {
    /// The owner.
    pub owner: UserId,
    /// Whether it is paused from now on.
    pub paused: bool,
}

impl HotBy {
    /// All of them, in the order of their numbers on the wire, which start at 1.
    pub const ALL: [Self; 3] = [Self::Reads, Self::Writes, Self::FanOut];

    fn decode(r: &mut Reader) -> Result<Self, BodyError> {
        let code = r.byte(Field::Hot)?;
        let by = usize::from(code).checked_sub(1).and_then(|at| Self::ALL.get(at));
        by.copied().ok_or(BodyError::Malformed { field: Field::Hot })
    }
}

impl GetHot {
    pub(crate) fn encode(self, w: &mut Writer) {
        w.byte(self.by as u8 + 1);
        w.number(self.limit);
    }

    pub(crate) fn decode(r: &mut Reader) -> Result<Self, BodyError> {
        Ok(Self { by: HotBy::decode(r)?, limit: r.number32(Field::Limit)? })
    }
}

impl HotList {
    pub(crate) fn encode(&self, w: &mut Writer) {
        w.number(self.over_ms);
        w.count(self.partitions.len());
        for hot in &self.partitions {
            w.number(hot.of.0);
            w.number(hot.count);
            w.number(hot.error);
        }
        w.count(self.users.len());
        for hot in &self.users {
            w.number(hot.of.0);
            w.number(hot.count);
            w.number(hot.error);
        }
    }

    pub(crate) fn decode(r: &mut Reader) -> Result<Self, BodyError> {
        let at = Field::Hot;
        let over_ms = r.number(at)?;
        let count = r.count(at, HOT_BYTES_MIN, HOT_PARTITIONS_MAX)?;
        let partitions = r.items(count, |r| {
            Ok(Hot { of: PartitionId(r.number16(at)?), count: r.number(at)?, error: r.number(at)? })
        })?;
        let count = r.count(at, HOT_BYTES_MIN, HOT_USERS_MAX)?;
        let users =
            r.items(count, |r| Ok(Hot { of: r.user(at)?, count: r.number(at)?, error: r.number(at)? }))?;
        Ok(Self { over_ms, partitions, users })
    }
}

impl PauseFanOut {
    pub(crate) fn encode(self, w: &mut Writer) {
        w.boolean(self.paused);
        w.number(self.owner.0);
    }

    pub(crate) fn decode(r: &mut Reader) -> Result<Self, BodyError> {
        Ok(Self { paused: r.boolean(Field::Boolean)?, owner: r.user(Field::Owner)? })
    }
}
