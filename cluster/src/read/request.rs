//! Owns what a read asks for, and the limits of that.

use std::time::Duration;

use fanfold_storage::ids::{EntryId, PartitionId, RowPosition, SpaceId, UserId};

use crate::position::Position;

/// The most entries of a page.
pub const LIMIT_MAX: u32 = 1_000;

/// The most users of a page of a scan of edges.
pub const FOLLOW_SCAN_LIMIT_MAX: u32 = 1_000;

/// The most entries read by id at once.
pub const IDS_MAX: usize = 1_000;

/// The most feeds read at once.
pub const READERS_MAX: usize = 1_024;

/// About the most bytes of payloads of a page, those of what its entries refer to included.
pub const PAGE_BYTES_MAX: usize = 4 << 20;

/// About the most bytes of payloads of entries that are read by id at once.
pub const IDS_BYTES_MAX: usize = 64 << 20;

/// What a read may be answered from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Consistency {
    /// The leader, which confirms that it leads: everything that was answered before is seen.
    #[default]
    Leader,
    /// Any replica, once it reflects what the request's `at_least` names; without one, whatever it has. What is needed of
    /// other partitions comes from their leaders.
    AtLeast,
    /// Any replica of any partition that is needed, if it has everything that was answered longer than so many
    /// milliseconds before the read came.
    StaleOk {
        /// The milliseconds.
        max_ms: u32,
    },
}

impl Consistency {
    /// How old an answer may be, if it may be old.
    pub fn age_max(self) -> Option<Duration> {
        match self {
            Self::StaleOk { max_ms } => Some(Duration::from_millis(max_ms.into())),
            Self::Leader | Self::AtLeast => None,
        }
    }
}

/// Reads the feed of a reader, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedRequest {
    /// The space.
    pub space: SpaceId,
    /// Whose feed.
    pub reader: UserId,
    /// Entries wanted, 1 to [`LIMIT_MAX`].
    pub limit: u32,
    /// Only ids below it; [`EntryId::MAX`] for the first page, then the `next` of the page before.
    pub below: EntryId,
    /// Only what arrived after this mark, with a count.
    pub newer_than: Option<Mark>,
    /// Whether payloads and references are wanted.
    pub hydrate: bool,
    /// What the answer must at least reflect.
    pub at_least: Option<Position>,
    /// Who may answer.
    pub consistency: Consistency,
}

/// Reads the first pages of many feeds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedsRequest {
    /// The space.
    pub space: SpaceId,
    /// Whose feeds, at most [`READERS_MAX`], answered in this order.
    pub readers: Vec<UserId>,
    /// Entries wanted of each, 1 to [`LIMIT_MAX`].
    pub limit: u32,
    /// Whether payloads and references are wanted.
    pub hydrate: bool,
    /// What each page must at least reflect.
    pub at_least: Option<Position>,
    /// Who may answer.
    pub consistency: Consistency,
}

/// Reads the timeline of an owner, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimelineRequest {
    /// The space.
    pub space: SpaceId,
    /// Whose timeline.
    pub owner: UserId,
    /// Whose eyes: audience, mutes and blocks apply. None sees everything.
    pub viewer: Option<UserId>,
    /// Entries wanted, 1 to [`LIMIT_MAX`].
    pub limit: u32,
    /// Only ids below it; [`EntryId::MAX`] for the first page, then the `next` of the page before.
    pub below: EntryId,
    /// Whether payloads and references are wanted.
    pub hydrate: bool,
    /// What the answer must at least reflect.
    pub at_least: Option<Position>,
    /// Who may answer.
    pub consistency: Consistency,
}

/// Reads entries by id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntriesRequest {
    /// The space; an entry of another is not there.
    pub space: SpaceId,
    /// The entries, at most [`IDS_MAX`], answered in this order.
    pub ids: Vec<EntryId>,
    /// Whose eyes; none sees everything.
    pub viewer: Option<UserId>,
    /// What the answer must at least reflect.
    pub at_least: Option<Position>,
    /// Who may answer.
    pub consistency: Consistency,
}

/// A point in the arrivals of one reader's feed; `newer_than` counts from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// The reader's partition.
    pub partition: PartitionId,
    /// Its incarnation; a mark of another one counts from the id bound only.
    pub incarnation: u64,
    /// Rows at or above this position arrived after the mark.
    pub row: RowPosition,
    /// What was made after the mark has an id at or above it.
    pub id_bound: EntryId,
}

/// The last edge a scan has shown: scans of followers go by partition, then user id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ScanAfter {
    /// The partition of the user.
    pub partition: PartitionId,
    /// The user.
    pub user: UserId,
}
