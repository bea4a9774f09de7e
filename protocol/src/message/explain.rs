//! Owns the explanation of why an entry is, or is not, in a feed.

use crate::error::BodyError;
use crate::field::Field;
use crate::ids::{EntryId, PartitionId, SpaceId, Stamp, UserId};
use crate::message::write::Audience;
use crate::wire::{Reader, Writer};

/// Asks why an entry is, or is not, in a feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Explain {
    /// The space.
    pub space: SpaceId,
    /// Whose feed.
    pub reader: UserId,
    /// Which entry.
    pub entry: EntryId,
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// It is the reader's own.
    OwnEntry,
    /// The reader follows the owner since then.
    FollowedSince(Stamp),
    /// The reader does not follow the owner.
    NotFollowed,
    /// It is stored in the feed.
    Pushed,
    /// It is pulled from the owner's chain when the feed is read.
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
        position: u64,
        /// What the reader's partition has acknowledged.
        acknowledged: u64,
    },
    /// The reader mutes this user.
    Muted(UserId),
    /// A block stands between reader and owner or author.
    Blocked {
        /// Who blocks.
        blocker: UserId,
        /// Who is blocked.
        blocked: UserId,
    },
    /// It expired then.
    Expired(Stamp),
    /// It was deleted or never existed.
    Deleted,
    /// Its audience does not include the reader.
    AudienceExcludes(Audience),
    /// It is older than the space's horizon, which stands here now.
    BelowHorizon(Stamp),
    /// Its fan-out is under way and the rest is treated as pulled.
    PendingSlice,
}

/// Most reasons of one explanation.
const REASONS_MAX: usize = 64;

impl Explain {
    pub(crate) fn encode(self, w: &mut Writer) {
        w.number(self.space.0);
        w.number(self.reader.0);
        w.fixed64(self.entry.0);
    }

    pub(crate) fn decode(r: &mut Reader) -> Result<Self, BodyError> {
        Ok(Self {
            space: SpaceId(r.number16(Field::Space)?),
            reader: r.user(Field::Reader)?,
            entry: r.entry_id(Field::EntryId)?,
        })
    }
}

impl Explanation {
    pub(crate) fn encode(&self, w: &mut Writer) {
        w.boolean(self.shown);
        w.count(self.reasons.len());
        for reason in &self.reasons {
            reason.encode(w);
        }
    }

    pub(crate) fn decode(r: &mut Reader) -> Result<Self, BodyError> {
        let shown = r.boolean(Field::Reason)?;
        let count = r.count(Field::Reason, 1, REASONS_MAX)?;
        Ok(Self { shown, reasons: r.items(count, Reason::decode)? })
    }
}

impl Reason {
    fn code(self) -> u8 {
        match self {
            Self::OwnEntry => 1,
            Self::FollowedSince(_) => 2,
            Self::NotFollowed => 3,
            Self::Pushed => 4,
            Self::Pulled => 5,
            Self::BelowFloor { .. } => 6,
            Self::NotFilledYet => 7,
            Self::OnItsWay { .. } => 8,
            Self::Muted(_) => 9,
            Self::Blocked { .. } => 10,
            Self::Expired(_) => 11,
            Self::Deleted => 12,
            Self::AudienceExcludes(_) => 13,
            Self::BelowHorizon(_) => 14,
            Self::PendingSlice => 15,
        }
    }

    fn encode(self, w: &mut Writer) {
        w.byte(self.code());
        match self {
            Self::FollowedSince(stamp) | Self::Expired(stamp) | Self::BelowHorizon(stamp) => {
                w.number(stamp.0);
            }
            Self::BelowFloor { floor } => w.fixed64(floor.0),
            Self::OnItsWay { source, position, acknowledged } => {
                w.number(source.0);
                w.number(position);
                w.number(acknowledged);
            }
            Self::Muted(user) => w.number(user.0),
            Self::Blocked { blocker, blocked } => {
                w.number(blocker.0);
                w.number(blocked.0);
            }
            Self::AudienceExcludes(audience) => w.byte(audience.code()),
            Self::OwnEntry
            | Self::NotFollowed
            | Self::Pushed
            | Self::Pulled
            | Self::NotFilledYet
            | Self::Deleted
            | Self::PendingSlice => {}
        }
    }

    fn decode(r: &mut Reader) -> Result<Self, BodyError> {
        let at = Field::Reason;
        Ok(match r.byte(at)? {
            1 => Self::OwnEntry,
            2 => Self::FollowedSince(Stamp(r.number(at)?)),
            3 => Self::NotFollowed,
            4 => Self::Pushed,
            5 => Self::Pulled,
            6 => Self::BelowFloor { floor: r.entry_id(at)? },
            7 => Self::NotFilledYet,
            8 => Self::OnItsWay {
                source: PartitionId(r.number16(at)?),
                position: r.number(at)?,
                acknowledged: r.number(at)?,
            },
            9 => Self::Muted(r.user(at)?),
            10 => Self::Blocked { blocker: r.user(at)?, blocked: r.user(at)? },
            11 => Self::Expired(Stamp(r.number(at)?)),
            12 => Self::Deleted,
            13 => Self::AudienceExcludes(Audience::from_code(r.byte(at)?)?),
            14 => Self::BelowHorizon(Stamp(r.number(at)?)),
            15 => Self::PendingSlice,
            _ => return Err(BodyError::Malformed { field: at }),
        })
    }
}
