//! Owns the answers to reads: entries as a viewer sees them, pages of them, edges, and explanations.

use bytes::Bytes;
use fanfold_storage::entry::{Audience, Delivery, Entry, EntryRef};
use fanfold_storage::ids::{EntryId, JournalPosition, PartitionId, Stamp, UserId};

use super::request::{Mark, ScanAfter};
use crate::position::Position;

/// A page of a feed or timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The entries, newest first.
    pub entries: Vec<EntryView>,
    /// Where to go on: the next page's `below`. None at the true end.
    pub next: Option<EntryId>,
    /// All entries with ids at or above it have been shown; zero is the true end.
    pub complete_to: EntryId,
    /// Why the page is short, if it is (R15).
    pub short_of: Vec<ShortReason>,
    /// What a later `newer_than` counts from; none on pages of a timeline.
    pub mark: Option<Mark>,
    /// How many entries are newer than the mark asked for.
    pub new_count: Option<u64>,
    /// What the page reflects.
    pub position: Position,
}

/// Why a page is short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ShortReason {
    /// A partition could not be asked.
    Unreachable {
        /// Which.
        partition: PartitionId,
    },
    /// A named budget was spent.
    Spent {
        /// Which.
        budget: Budget,
    },
}

/// A budget of one read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Budget {
    /// Owners whose timelines were asked.
    OwnersAsked,
    /// Rounds of asking.
    Rounds,
    /// Bytes of payloads.
    Bytes,
}

/// An entry as a viewer sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryView {
    /// Its id.
    pub id: EntryId,
    /// Whose timeline it stands in.
    pub owner: UserId,
    /// Who wrote it.
    pub author: UserId,
    /// Who may see it.
    pub audience: Audience,
    /// The version of its payload, from 1.
    pub version: u32,
    /// When it expires; none is never.
    pub expiry: Option<Stamp>,
    /// The application's bytes; none when not hydrated.
    pub payload: Option<Bytes>,
    /// The entry it refers to; none when there is none, or when a feed is not hydrated.
    pub reference: Option<ReferenceView>,
}

/// A reference as a viewer sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReferenceView {
    /// The owner of the entry referred to.
    pub owner: UserId,
    /// Its id.
    pub id: EntryId,
    /// What is known of it.
    pub state: ReferenceState,
}

/// What is known of an entry referred to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReferenceState {
    /// Nothing was asked.
    NotHydrated,
    /// It could not be asked for, because its partition was not reachable.
    Unreachable,
    /// It is deleted, expired, or not for this viewer.
    Gone,
    /// It lives. Its own reference is never hydrated.
    Live(Box<EntryView>),
}

impl EntryView {
    /// What a delivery says of an entry.
    pub(super) fn of_delivery(delivery: &Delivery) -> Self {
        Self {
            id: delivery.id,
            owner: delivery.owner,
            author: delivery.author,
            audience: delivery.audience,
            version: delivery.version,
            expiry: delivery.expiry,
            payload: None,
            reference: None,
        }
    }

    /// The bytes of its payload, and of that of what it refers to.
    pub(super) fn payload_bytes(&self) -> usize {
        let referred = match self.reference.as_ref().map(|reference| &reference.state) {
            Some(ReferenceState::Live(entry)) => entry.payload_bytes(),
            _ => 0,
        };
        self.payload.as_ref().map_or(0, Bytes::len) + referred
    }

    /// An entry with its payload; what it refers to is not looked up.
    pub(super) fn hydrated(entry: Entry) -> Self {
        let view = Self::of_entry(&entry);
        Self { payload: Some(entry.payload), ..view }
    }

    /// An entry without its payload; what it refers to is not looked up.
    pub(super) fn of_entry(entry: &Entry) -> Self {
        let reference = entry.reference.map(|EntryRef { owner, id }| {
            let state = ReferenceState::NotHydrated;
            ReferenceView { owner, id, state }
        });
        Self {
            id: entry.id,
            owner: entry.owner,
            author: entry.author,
            audience: entry.audience,
            version: entry.version,
            expiry: entry.expiry,
            payload: None,
            reference,
        }
    }
}

/// How many follow a user and how many the user follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Readers who follow the user.
    pub followers: u64,
    /// Owners whom the user follows.
    pub followees: u64,
}

/// One edge of a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edge {
    /// The other user.
    pub user: UserId,
    /// Since when.
    pub since: Stamp,
}

/// A page of a scan of edges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EdgePage {
    /// The edges.
    pub users: Vec<Edge>,
    /// Where to go on; none at the end.
    pub next: Option<ScanAfter>,
}

/// Why an entry is, or is not, in a feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// Whether the feed shows it.
    pub shown: bool,
    /// All that bears on it, the deciding ones first.
    pub reasons: Vec<Reason>,
}

/// Something that bears on whether a feed shows an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// It is the reader's own.
    OwnEntry,
    /// The reader follows the owner since then.
    FollowedSince {
        /// When the follow was applied.
        since: Stamp,
    },
    /// The reader does not follow the owner.
    NotFollowed,
    /// It is stored in the feed.
    Pushed,
    /// It is taken from the owner's chain when the feed is read.
    Pulled,
    /// It lies at or below a floor and is read from the owner's timeline.
    BelowFloor {
        /// The floor.
        floor: EntryId,
    },
    /// The subscription to the owner waits for its backfill; the owner's timeline is read instead.
    NotFilledYet,
    /// Its event has not reached the reader's partition yet.
    OnItsWay {
        /// The owner's partition.
        source: PartitionId,
        /// The event's position in its journal.
        position: JournalPosition,
        /// What the reader's partition has acknowledged.
        acknowledged: JournalPosition,
    },
    /// The reader mutes this user.
    Muted {
        /// Who is muted.
        user: UserId,
    },
    /// A block stands between the reader and somebody involved.
    Blocked {
        /// Who blocks.
        blocker: UserId,
        /// Who is blocked.
        blocked: UserId,
    },
    /// It expired then.
    Expired {
        /// When.
        at: Stamp,
    },
    /// It is not there: deleted, long expired, or never made.
    Deleted,
    /// Its audience does not include the reader.
    AudienceExcludes {
        /// Its audience.
        audience: Audience,
    },
    /// It is older than the space's horizon, which stands here now.
    BelowHorizon {
        /// What is older than this is in no feed.
        horizon: Stamp,
    },
    /// Its fan-out is under way and the rest is treated as pulled.
    PendingSlice,
}
