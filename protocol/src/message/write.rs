//! Owns the requests that change users' data.

use bytes::Bytes;

use crate::error::BodyError;
use crate::field::Field;
use crate::ids::{EntryId, GraphId, PartitionId, SpaceId, UserId};
use crate::message::import::{IMPORT_ENTRIES_MAX, ImportEntry, ImportFollows};
use crate::message::session::WriteTag;
use crate::wire::{Reader, Writer, bitmap};

/// One write; all it names on the writing side is homed in one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// The partition it was routed to.
    pub partition: PartitionId,
    /// The epoch of the map it was routed by. Nobody compares it: who leads is not the map's to say.
    pub epoch: u64,
    /// What makes it recognisable when repeated.
    pub tag: WriteTag,
    /// What to do.
    pub op: WriteOp,
}

/// What a write does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteOp {
    /// Appends entries. What depends on the state refuses single items; an item that no space allows (its key,
    /// TTL or payload passes the limits of the connection) refuses the whole write before it is proposed.
    Append(Vec<AppendItem>),
    /// Replaces an entry's payload if its version is the expected one.
    Amend(Amend),
    /// Deletes an entry; deleting twice is accepted.
    Delete(EntryName),
    /// Sets, changes or clears an entry's expiry.
    SetExpiry(SetExpiry),
    /// Makes the reader follow owners.
    Follow(Edges),
    /// Makes the reader follow owners no more.
    Unfollow(Edges),
    /// Hides targets from the user's feeds.
    Mute(Targets),
    /// Undoes a mute.
    Unmute(Targets),
    /// Cuts the targets off from the user, across all graphs.
    Block(Targets),
    /// Undoes a block.
    Unblock(Targets),
    /// Brings edges with their times, of readers homed in one partition; nothing is filled for them.
    ImportFollows(ImportFollows),
    /// Brings entries with their times, at most [`IMPORT_ENTRIES_MAX`]; they are not fanned out.
    ImportEntries(Vec<ImportEntry>),
}

/// One entry to append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppendItem {
    /// The space.
    pub space: SpaceId,
    /// Whose timeline it is appended to.
    pub owner: UserId,
    /// Who wrote it; `None` is the owner.
    pub author: Option<UserId>,
    /// Who may see it.
    pub audience: Audience,
    /// How long it lives.
    pub ttl: TtlChoice,
    /// An application key, at most 64 bytes, unique per space and owner within the key window.
    pub key: Option<Bytes>,
    /// Another entry it refers to.
    pub reference: Option<EntryRef>,
    /// The application's bytes.
    pub payload: Bytes,
}

/// Who may see an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Audience {
    /// Everybody.
    #[default]
    Public,
    /// The owner's followers and the owner.
    Followers,
    /// The owner.
    Private,
}

/// How long an entry lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum TtlChoice {
    /// As the space says.
    #[default]
    SpaceDefault,
    /// For ever.
    Never,
    /// This many milliseconds; zero and less are refused.
    Ms(i64),
}

/// What to do with an entry's expiry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExpiryChoice {
    /// It lives for ever.
    Clear,
    /// It expires this many milliseconds from now; zero and less are refused.
    InMs(i64),
}

/// An entry named by a reference: who owns it and which it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EntryRef {
    /// Its owner.
    pub owner: UserId,
    /// Its id.
    pub id: EntryId,
}

/// An entry named in full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EntryName {
    /// The space.
    pub space: SpaceId,
    /// Its owner.
    pub owner: UserId,
    /// Its id.
    pub id: EntryId,
}

/// A new payload for an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Amend {
    /// The entry.
    pub entry: EntryName,
    /// The version it must have; an entry starts at 1.
    pub expected_version: u32,
    /// The new payload.
    pub payload: Bytes,
}

/// A new expiry for an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SetExpiry {
    /// The entry.
    pub entry: EntryName,
    /// The new expiry.
    pub expiry: ExpiryChoice,
}

/// One reader and the owners to follow or unfollow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edges {
    /// The graph.
    pub graph: GraphId,
    /// The reader.
    pub reader: UserId,
    /// The owners, in any order; sorted ones are smaller on the wire.
    pub owners: Vec<UserId>,
}

/// One user and those to mute, unmute, block or unblock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Targets {
    /// The user.
    pub user: UserId,
    /// The targets, in any order; sorted ones are smaller on the wire.
    pub targets: Vec<UserId>,
}

/// Most items of one append.
pub const APPEND_ITEMS_MAX: usize = 1_024;
/// Most users that one write follows, unfollows, mutes, unmutes, blocks or unblocks.
pub const WRITE_USERS_MAX: usize = 262_144;

/// Fewest bytes of an item: presence, space, owner, length of the payload.
const APPEND_ITEM_BYTES_MIN: usize = 4;

impl Write {
    pub(crate) fn encode(&self, w: &mut Writer) {
        w.number(self.partition.0);
        w.number(self.epoch);
        self.tag.encode(w);
        self.op.encode(w);
    }

    pub(crate) fn decode(r: &mut Reader) -> Result<Self, BodyError> {
        Ok(Self {
            partition: PartitionId(r.number16(Field::Partition)?),
            epoch: r.number(Field::Epoch)?,
            tag: WriteTag::decode(r)?,
            op: WriteOp::decode(r)?,
        })
    }
}

impl WriteOp {
    /// The number of this operation on the wire.
    pub fn code(&self) -> u8 {
        match self {
            Self::Append(_) => 1,
            Self::Amend(_) => 2,
            Self::Delete(_) => 3,
            Self::SetExpiry(_) => 4,
            Self::Follow(_) => 5,
            Self::Unfollow(_) => 6,
            Self::Mute(_) => 7,
            Self::Unmute(_) => 8,
            Self::Block(_) => 9,
            Self::Unblock(_) => 10,
            Self::ImportFollows(_) => 11,
            Self::ImportEntries(_) => 12,
        }
    }

    fn encode(&self, w: &mut Writer) {
        w.byte(self.code());
        match self {
            Self::Append(items) => {
                w.count(items.len());
                for item in items {
                    item.encode(w);
                }
            }
            Self::Amend(amend) => amend.encode(w),
            Self::Delete(entry) => entry.encode(w),
            Self::SetExpiry(set) => set.encode(w),
            Self::Follow(edges) | Self::Unfollow(edges) => edges.encode(w),
            Self::Mute(targets) | Self::Unmute(targets) | Self::Block(targets) | Self::Unblock(targets) => {
                targets.encode(w);
            }
            Self::ImportFollows(follows) => follows.encode(w),
            Self::ImportEntries(entries) => {
                w.count(entries.len());
                for entry in entries {
                    entry.encode(w);
                }
            }
        }
    }

    fn decode(r: &mut Reader) -> Result<Self, BodyError> {
        Ok(match r.byte(Field::Operation)? {
            1 => {
                let count = r.count(Field::Items, APPEND_ITEM_BYTES_MIN, APPEND_ITEMS_MAX)?;
                Self::Append(r.items(count, AppendItem::decode)?)
            }
            2 => Self::Amend(Amend::decode(r)?),
            3 => Self::Delete(EntryName::decode(r)?),
            4 => Self::SetExpiry(SetExpiry::decode(r)?),
            5 => Self::Follow(Edges::decode(r)?),
            6 => Self::Unfollow(Edges::decode(r)?),
            7 => Self::Mute(Targets::decode(r)?),
            8 => Self::Unmute(Targets::decode(r)?),
            9 => Self::Block(Targets::decode(r)?),
            10 => Self::Unblock(Targets::decode(r)?),
            11 => Self::ImportFollows(ImportFollows::decode(r)?),
            12 => {
                let count = r.count(Field::Items, ImportEntry::BYTES_MIN, IMPORT_ENTRIES_MAX)?;
                Self::ImportEntries(r.items(count, ImportEntry::decode)?)
            }
            _ => return Err(BodyError::Malformed { field: Field::Operation }),
        })
    }
}

impl AppendItem {
    fn encode(&self, w: &mut Writer) {
        let audience = self.audience.code();
        let ttl = self.ttl.code();
        w.byte(bitmap([
            audience & 1 != 0,
            audience & 2 != 0,
            ttl & 1 != 0,
            ttl & 2 != 0,
            self.author.is_some(),
            self.key.is_some(),
            self.reference.is_some(),
        ]));
        w.number(self.space.0);
        w.number(self.owner.0);
        if let TtlChoice::Ms(ttl_ms) = self.ttl {
            w.signed(ttl_ms);
        }
        if let Some(author) = self.author {
            w.number(author.0);
        }
        if let Some(key) = &self.key {
            w.bytes(key);
        }
        if let Some(reference) = self.reference {
            reference.encode(w);
        }
        w.bytes(&self.payload);
    }

    fn decode(r: &mut Reader) -> Result<Self, BodyError> {
        let present = r.presence(0b111_1111)?;
        Ok(Self {
            space: SpaceId(r.number16(Field::Space)?),
            owner: r.user(Field::Owner)?,
            audience: Audience::from_code(present & 3)?,
            ttl: TtlChoice::decode(present >> 2 & 3, r)?,
            author: r.optional(present, 4, |r| r.user(Field::Author))?,
            key: r.optional(present, 5, |r| r.bytes(Field::Key))?,
            reference: r.optional(present, 6, EntryRef::decode)?,
            payload: r.bytes(Field::Payload)?,
        })
    }
}

impl Audience {
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Public => 0,
            Self::Followers => 1,
            Self::Private => 2,
        }
    }

    pub(crate) fn from_code(code: u8) -> Result<Self, BodyError> {
        Ok(match code {
            0 => Self::Public,
            1 => Self::Followers,
            2 => Self::Private,
            _ => return Err(BodyError::Malformed { field: Field::Audience }),
        })
    }
}

impl TtlChoice {
    fn code(self) -> u8 {
        match self {
            Self::SpaceDefault => 0,
            Self::Never => 1,
            Self::Ms(_) => 2,
        }
    }

    fn decode(code: u8, r: &mut Reader) -> Result<Self, BodyError> {
        Ok(match code {
            0 => Self::SpaceDefault,
            1 => Self::Never,
            2 => Self::Ms(r.signed(Field::Ttl)?),
            _ => return Err(BodyError::Malformed { field: Field::Ttl }),
        })
    }
}

impl EntryRef {
    pub(crate) fn encode(self, w: &mut Writer) {
        w.number(self.owner.0);
        w.fixed64(self.id.0);
    }

    pub(crate) fn decode(r: &mut Reader) -> Result<Self, BodyError> {
        Ok(Self { owner: r.user(Field::Reference)?, id: r.entry_id(Field::Reference)? })
    }
}

impl EntryName {
    fn encode(self, w: &mut Writer) {
        w.number(self.space.0);
        w.number(self.owner.0);
        w.fixed64(self.id.0);
    }

    fn decode(r: &mut Reader) -> Result<Self, BodyError> {
        Ok(Self {
            space: SpaceId(r.number16(Field::Space)?),
            owner: r.user(Field::Owner)?,
            id: r.entry_id(Field::EntryId)?,
        })
    }
}

impl Amend {
    fn encode(&self, w: &mut Writer) {
        self.entry.encode(w);
        w.number(self.expected_version);
        w.bytes(&self.payload);
    }

    fn decode(r: &mut Reader) -> Result<Self, BodyError> {
        Ok(Self {
            entry: EntryName::decode(r)?,
            expected_version: r.number32(Field::Version)?,
            payload: r.bytes(Field::Payload)?,
        })
    }
}

impl SetExpiry {
    fn encode(self, w: &mut Writer) {
        self.entry.encode(w);
        match self.expiry {
            ExpiryChoice::Clear => w.byte(0),
            ExpiryChoice::InMs(in_ms) => {
                w.byte(1);
                w.signed(in_ms);
            }
        }
    }

    fn decode(r: &mut Reader) -> Result<Self, BodyError> {
        Ok(Self {
            entry: EntryName::decode(r)?,
            expiry: match r.byte(Field::Expiry)? {
                0 => ExpiryChoice::Clear,
                1 => ExpiryChoice::InMs(r.signed(Field::Expiry)?),
                _ => return Err(BodyError::Malformed { field: Field::Expiry }),
            },
        })
    }
}

impl Edges {
    fn encode(&self, w: &mut Writer) {
        w.number(self.graph.0);
        w.number(self.reader.0);
        w.users(&self.owners);
    }

    fn decode(r: &mut Reader) -> Result<Self, BodyError> {
        Ok(Self {
            graph: GraphId(r.number16(Field::Graph)?),
            reader: r.user(Field::Reader)?,
            owners: r.users(Field::Owners, WRITE_USERS_MAX)?,
        })
    }
}

impl Targets {
    fn encode(&self, w: &mut Writer) {
        w.number(self.user.0);
        w.users(&self.targets);
    }

    fn decode(r: &mut Reader) -> Result<Self, BodyError> {
        Ok(Self { user: r.user(Field::User)?, targets: r.users(Field::Targets, WRITE_USERS_MAX)? })
    }
}
