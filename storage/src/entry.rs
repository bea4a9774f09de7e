//! Owns the entry and what a row keeps of it.

use bytes::Bytes;

use crate::ids::{EntryId, SpaceId, Stamp, UserId};

/// Who may see an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Audience {
    /// Everybody.
    #[default]
    Public,
    /// Those who follow the owner in the space's graph, and the owner.
    Followers,
    /// The owner alone; never fanned out.
    Private,
}

/// Another entry that an entry refers to (a reply, a repost).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryRef {
    /// The owner of the timeline that holds it.
    pub owner: UserId,
    /// Its id.
    pub id: EntryId,
}

/// One item of a timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its id; the slot in it is the owner's.
    pub id: EntryId,
    /// The space it was appended to.
    pub space: SpaceId,
    /// Whose timeline it is in.
    pub owner: UserId,
    /// Who wrote it; the owner, unless said otherwise.
    pub author: UserId,
    /// Who may see it.
    pub audience: Audience,
    /// 1 at first, one more with each amendment.
    pub version: u32,
    /// When it vanishes.
    pub expiry: Option<Stamp>,
    /// What it replies to or repeats.
    pub reference: Option<EntryRef>,
    /// The application's bytes.
    pub payload: Bytes,
}

impl Entry {
    /// What a delivery carries of it.
    pub fn delivery(&self) -> Delivery {
        Delivery {
            id: self.id,
            owner: self.owner,
            author: self.author,
            audience: self.audience,
            referenced_owner: self.reference.map(|r| r.owner),
            version: self.version,
            expiry: self.expiry,
        }
    }

    /// Whether it has vanished at `stamp`.
    pub fn expired(&self, stamp: Stamp) -> bool {
        self.expiry.is_some_and(|expiry| expiry <= stamp)
    }
}

/// What travels to the partitions of the followers: all that a feed needs to know of an entry, without its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The entry.
    pub id: EntryId,
    /// Whose timeline it is in.
    pub owner: UserId,
    /// Who wrote it.
    pub author: UserId,
    /// Who may see it; what is private stays at home.
    pub audience: Audience,
    /// The owner of the entry it refers to.
    pub referenced_owner: Option<UserId>,
    /// The version of its payload.
    pub version: u32,
    /// When it vanishes.
    pub expiry: Option<Stamp>,
}
