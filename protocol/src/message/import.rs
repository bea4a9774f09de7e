//! Owns what an import brings: edges and entries with times of their own.

use bytes::Bytes;

use crate::error::BodyError;
use crate::field::Field;
use crate::ids::{EntryId, GraphId, SpaceId, Stamp, UserId};
use crate::message::write::{Audience, EntryRef};
use crate::wire::{Reader, Writer, bitmap};

/// Most edges of one write.
pub const IMPORT_EDGES_MAX: usize = 16_384;
/// Most entries of one write.
pub const IMPORT_ENTRIES_MAX: usize = 4_096;

/// Edges of readers homed in one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportFollows {
    /// The graph.
    pub graph: GraphId,
    /// The edges, at most [`IMPORT_EDGES_MAX`]; those of one reader behind each other cost least.
    pub edges: Vec<ImportEdge>,
}

/// An edge with its own time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImportEdge {
    /// Who follows.
    pub reader: UserId,
    /// Whom.
    pub owner: UserId,
    /// Since when; `None` is the time of the import.
    pub since: Option<Stamp>,
}

/// Where in time an imported entry belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImportPlace {
    /// It was made then; it gets an id of that time, behind those imported before it with the same.
    Time(Stamp),
    /// It keeps this id, whose slot is its owner's.
    Id(EntryId),
}

/// When an imported entry expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ImportExpiry {
    /// As the space says, from the entry's own time on.
    #[default]
    SpaceDefault,
    /// Never.
    Never,
    /// Then.
    At(Stamp),
}

/// An entry with its own time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportEntry {
    /// The space.
    pub space: SpaceId,
    /// Whose timeline it is put into.
    pub owner: UserId,
    /// When it was made.
    pub place: ImportPlace,
    /// Who wrote it; `None` is the owner.
    pub author: Option<UserId>,
    /// Who may see it.
    pub audience: Audience,
    /// When it expires.
    pub expiry: ImportExpiry,
    /// The version of its payload, at least 1.
    pub version: u32,
    /// An application key, at most 64 bytes, unique per space and owner within the key window.
    pub key: Option<Bytes>,
    /// Another entry it refers to.
    pub reference: Option<EntryRef>,
    /// The application's bytes.
    pub payload: Bytes,
}

impl ImportFollows {
    pub(crate) fn encode(&self, w: &mut Writer) {
        w.number(self.graph.0);
        w.count(self.edges.len());
        for edge in &self.edges {
            w.number(edge.reader.0);
            w.number(edge.owner.0);
            w.number(edge.since.map_or(0, |since| since.0.saturating_add(1)));
        }
    }

    pub(crate) fn decode(r: &mut Reader) -> Result<Self, BodyError> {
        let graph = GraphId(r.number16(Field::Graph)?);
        let count = r.count(Field::Items, 3, IMPORT_EDGES_MAX)?;
        let edges = r.items(count, |r| {
            Ok(ImportEdge {
                reader: r.user(Field::Reader)?,
                owner: r.user(Field::Owner)?,
                since: r.number(Field::Time)?.checked_sub(1).map(Stamp),
            })
        })?;
        Ok(Self { graph, edges })
    }
}

impl ImportEntry {
    /// Fewest bytes: presence, space, owner, time, version, length of the payload.
    pub(crate) const BYTES_MIN: usize = 6;

    pub(crate) fn encode(&self, w: &mut Writer) {
        let (audience, expiry) = (self.audience.code(), self.expiry.code());
        w.byte(bitmap([
            audience & 1 != 0,
            audience & 2 != 0,
            expiry & 1 != 0,
            expiry & 2 != 0,
            self.author.is_some(),
            self.key.is_some(),
            self.reference.is_some(),
            matches!(self.place, ImportPlace::Id(_)),
        ]));
        w.number(self.space.0);
        w.number(self.owner.0);
        match self.place {
            ImportPlace::Time(time) => w.number(time.0),
            ImportPlace::Id(id) => w.fixed64(id.0),
        }
        if let ImportExpiry::At(expiry) = self.expiry {
            w.number(expiry.0);
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
        w.number(self.version);
        w.bytes(&self.payload);
    }

    pub(crate) fn decode(r: &mut Reader) -> Result<Self, BodyError> {
        let present = r.presence(0xFF)?;
        Ok(Self {
            audience: Audience::from_code(present & 3)?,
            space: SpaceId(r.number16(Field::Space)?),
            owner: r.user(Field::Owner)?,
            place: if present & 1 << 7 == 0 {
                ImportPlace::Time(Stamp(r.number(Field::Time)?))
            } else {
                ImportPlace::Id(r.entry_id(Field::EntryId)?)
            },
            expiry: ImportExpiry::decode(present >> 2 & 3, r)?,
            author: r.optional(present, 4, |r| r.user(Field::Author))?,
            key: r.optional(present, 5, |r| r.bytes(Field::Key))?,
            reference: r.optional(present, 6, EntryRef::decode)?,
            version: r.number32(Field::Version)?,
            payload: r.bytes(Field::Payload)?,
        })
    }
}

impl ImportExpiry {
    fn code(self) -> u8 {
        match self {
            Self::SpaceDefault => 0,
            Self::Never => 1,
            Self::At(_) => 2,
        }
    }

    fn decode(code: u8, r: &mut Reader) -> Result<Self, BodyError> {
        Ok(match code {
            0 => Self::SpaceDefault,
            1 => Self::Never,
            2 => Self::At(Stamp(r.number(Field::Expiry)?)),
            _ => return Err(BodyError::Malformed { field: Field::Expiry }),
        })
    }
}
