//! Owns what an import brings: edges and entries with times of their own.

use bytes::Bytes;

use crate::codec::{encoded_enum, encoded_struct};
use crate::entry::{Audience, EntryRef};
use crate::ids::{EntryId, SpaceId, Stamp, UserId};

/// An edge with its own time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImportEdge {
    /// Who follows; homed in this partition.
    pub reader: UserId,
    /// Whom.
    pub owner: UserId,
    /// Since when; none is the time of the import. Not later than that.
    pub since: Option<Stamp>,
}

/// Where in time an imported entry belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// It was made then; it gets an id of that millisecond, behind those imported before it with the same time.
    Time {
        /// Not later than the import.
        stamp: Stamp,
    },
    /// It keeps this id, which is of its owner's slot and not later than the import.
    Id {
        /// The id.
        id: EntryId,
    },
}

/// When an imported entry vanishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// As the space says, from the entry's own time on.
    SpaceDefault,
    /// Never.
    Never,
    /// Then.
    Until {
        /// Later than the import.
        expiry: Stamp,
    },
}

/// An entry with its own time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportEntry {
    /// The space.
    pub space: SpaceId,
    /// The owner of the timeline; homed in this partition.
    pub owner: UserId,
    /// Who wrote it, if not the owner.
    pub author: Option<UserId>,
    /// Who may see it.
    pub audience: Audience,
    /// When it was made.
    pub place: Place,
    /// When it vanishes.
    pub lifetime: Lifetime,
    /// The version of its payload; at least 1.
    pub version: u32,
    /// The application's key, remembered as that of an append.
    pub key: Option<Bytes>,
    /// What it replies to or repeats.
    pub reference: Option<EntryRef>,
    /// The application's bytes.
    pub payload: Bytes,
}

impl Place {
    /// The time it stands for.
    pub fn time(self) -> Stamp {
        match self {
            Self::Time { stamp } => stamp,
            Self::Id { id } => id.time(),
        }
    }
}

encoded_struct!(ImportEdge { reader, owner, since });
encoded_enum!(Place, "place" { 1 => Time { stamp }, 2 => Id { id } });
encoded_enum!(Lifetime, "lifetime" { 1 => SpaceDefault, 2 => Never, 3 => Until { expiry } });
encoded_struct!(ImportEntry {
    space,
    owner,
    author,
    audience,
    place,
    lifetime,
    version,
    key,
    reference,
    payload,
});
