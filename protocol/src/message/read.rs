//! Owns the requests that read timelines, entries and feeds, and the wait for delivery.

use crate::cursor::{Cursor, Mark};
use crate::error::BodyError;
use crate::field::Field;
use crate::ids::{EntryId, SpaceId, UserId};
use crate::token::Token;
use crate::wire::{Reader, Writer, bitmap};

/// Waits until what a token names has reached every partition; answered with `Done`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WaitDelivered {
    /// The token of a write.
    pub token: Token,
}

/// Reads the timeline of an owner, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadTimeline {
    /// The space.
    pub space: SpaceId,
    /// Whose timeline.
    pub owner: UserId,
    /// Whose eyes: audience, mutes and blocks apply. `None` sees everything.
    pub viewer: Option<UserId>,
    /// Entries wanted, 1 to 1,000.
    pub limit: u32,
    /// Where to go on.
    pub cursor: Option<Cursor>,
    /// What the answer must at least reflect.
    pub at_least: Option<Token>,
    /// Whether payloads and references are wanted.
    pub hydrate: bool,
}

/// Reads entries by id, answered in the order asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadEntries {
    /// The space.
    pub space: SpaceId,
    /// The entries, at most 1,000.
    pub ids: Vec<EntryId>,
    /// Whose eyes; `None` sees everything.
    pub viewer: Option<UserId>,
}

/// Reads the feed of a reader, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadFeed {
    /// The space.
    pub space: SpaceId,
    /// Whose feed.
    pub reader: UserId,
    /// Entries wanted, 1 to 1,000.
    pub limit: u32,
    /// Where to go on.
    pub cursor: Option<Cursor>,
    /// Only what arrived after this mark, with a count.
    pub newer_than: Option<Mark>,
    /// Whether payloads and references are wanted.
    pub hydrate: bool,
    /// What the answer must at least reflect.
    pub at_least: Option<Token>,
}

/// Reads the first page of many feeds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadFeeds {
    /// The space.
    pub space: SpaceId,
    /// Whose feeds, at most 1,024, answered in this order.
    pub readers: Vec<UserId>,
    /// Entries wanted of each, 1 to 1,000.
    pub limit: u32,
    /// Whether payloads and references are wanted.
    pub hydrate: bool,
}

/// Most entries one request reads by id.
pub const READ_ENTRIES_MAX: usize = 1_000;
/// Most feeds one request reads.
pub const READ_FEEDS_MAX: usize = 1_024;

impl WaitDelivered {
    pub(crate) fn encode(&self, w: &mut Writer) {
        self.token.encode(w);
    }

    pub(crate) fn decode(r: &mut Reader) -> Result<Self, BodyError> {
        Ok(Self { token: Token::decode(r)? })
    }
}

impl ReadTimeline {
    pub(crate) fn encode(&self, w: &mut Writer) {
        w.byte(bitmap([self.hydrate, self.viewer.is_some(), self.cursor.is_some(), self.at_least.is_some()]));
        w.number(self.space.0);
        w.number(self.owner.0);
        w.number(self.limit);
        if let Some(viewer) = self.viewer {
            w.number(viewer.0);
        }
        if let Some(cursor) = &self.cursor {
            cursor.encode(w);
        }
        if let Some(token) = &self.at_least {
            token.encode(w);
        }
    }

    pub(crate) fn decode(r: &mut Reader) -> Result<Self, BodyError> {
        let present = r.presence(0b1111)?;
        Ok(Self {
            space: SpaceId(r.number16(Field::Space)?),
            owner: r.user(Field::Owner)?,
            limit: r.number32(Field::Limit)?,
            viewer: r.optional(present, 1, |r| r.user(Field::Viewer))?,
            cursor: r.optional(present, 2, Cursor::decode)?,
            at_least: r.optional(present, 3, Token::decode)?,
            hydrate: present & 1 != 0,
        })
    }
}

impl ReadEntries {
    pub(crate) fn encode(&self, w: &mut Writer) {
        w.byte(bitmap([self.viewer.is_some()]));
        w.number(self.space.0);
        if let Some(viewer) = self.viewer {
            w.number(viewer.0);
        }
        w.entry_ids(&self.ids);
    }

    pub(crate) fn decode(r: &mut Reader) -> Result<Self, BodyError> {
        let present = r.presence(0b1)?;
        Ok(Self {
            space: SpaceId(r.number16(Field::Space)?),
            viewer: r.optional(present, 0, |r| r.user(Field::Viewer))?,
            ids: r.entry_ids(Field::EntryIds, READ_ENTRIES_MAX)?,
        })
    }
}

impl ReadFeed {
    pub(crate) fn encode(&self, w: &mut Writer) {
        w.byte(bitmap([
            self.hydrate,
            self.cursor.is_some(),
            self.newer_than.is_some(),
            self.at_least.is_some(),
        ]));
        w.number(self.space.0);
        w.number(self.reader.0);
        w.number(self.limit);
        if let Some(cursor) = &self.cursor {
            cursor.encode(w);
        }
        if let Some(mark) = &self.newer_than {
            mark.encode(w);
        }
        if let Some(token) = &self.at_least {
            token.encode(w);
        }
    }

    pub(crate) fn decode(r: &mut Reader) -> Result<Self, BodyError> {
        let present = r.presence(0b1111)?;
        Ok(Self {
            space: SpaceId(r.number16(Field::Space)?),
            reader: r.user(Field::Reader)?,
            limit: r.number32(Field::Limit)?,
            cursor: r.optional(present, 1, Cursor::decode)?,
            newer_than: r.optional(present, 2, Mark::decode)?,
            at_least: r.optional(present, 3, Token::decode)?,
            hydrate: present & 1 != 0,
        })
    }
}

impl ReadFeeds {
    pub(crate) fn encode(&self, w: &mut Writer) {
        w.byte(bitmap([self.hydrate]));
        w.number(self.space.0);
        w.number(self.limit);
        w.users(&self.readers);
    }

    pub(crate) fn decode(r: &mut Reader) -> Result<Self, BodyError> {
        let present = r.presence(0b1)?;
        Ok(Self {
            space: SpaceId(r.number16(Field::Space)?),
            limit: r.number32(Field::Limit)?,
            readers: r.users(Field::Readers, READ_FEEDS_MAX)?,
            hydrate: present & 1 != 0,
        })
    }
}
