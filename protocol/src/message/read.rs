//! Owns the requests that read timelines, entries and feeds, and the wait for delivery.

use crate::cursor::{Cursor, Mark};
use crate::error::BodyError;
use crate::field::Field;
use crate::ids::{EntryId, SpaceId, UserId};
use crate::token::Token;
use crate::wire::{Reader, Writer, bitmap};

/// What a read may be answered from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Consistency {
    /// The leader, which confirms that it leads: everything that was answered before is seen.
    #[default]
    Leader,
    /// Any replica, once it reflects what the request's `at_least` names.
    AtLeast,
    /// Any replica, if everything is seen that was answered longer ago than this.
    StaleOk {
        /// The milliseconds, at least 1.
        max_ms: u32,
    },
}

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
    /// Who may answer.
    pub consistency: Consistency,
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
    /// Who may answer.
    pub consistency: Consistency,
    /// What the answer must at least reflect.
    pub at_least: Option<Token>,
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
    /// Who may answer.
    pub consistency: Consistency,
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
    /// Who may answer.
    pub consistency: Consistency,
    /// What each page must at least reflect.
    pub at_least: Option<Token>,
}

/// Most entries one request reads by id.
pub const READ_ENTRIES_MAX: usize = 1_000;
/// Most feeds one request reads.
pub const READ_FEEDS_MAX: usize = 1_024;

impl Consistency {
    fn is_chosen(self) -> bool {
        self != Self::Leader
    }

    /// The leader is what is meant when nothing is written.
    fn encode(self, w: &mut Writer) {
        match self {
            Self::Leader => {}
            Self::AtLeast => w.byte(1),
            Self::StaleOk { max_ms } => {
                w.byte(2);
                w.number(max_ms);
            }
        }
    }

    fn decode(r: &mut Reader) -> Result<Self, BodyError> {
        match r.byte(Field::Consistency)? {
            1 => Ok(Self::AtLeast),
            2 => Ok(Self::StaleOk { max_ms: r.number32(Field::Consistency)? }),
            _ => Err(BodyError::Malformed { field: Field::Consistency }),
        }
    }
}

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
        w.byte(bitmap([
            self.hydrate,
            self.viewer.is_some(),
            self.cursor.is_some(),
            self.at_least.is_some(),
            self.consistency.is_chosen(),
        ]));
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
        self.consistency.encode(w);
    }

    pub(crate) fn decode(r: &mut Reader) -> Result<Self, BodyError> {
        let present = r.presence(0b1_1111)?;
        Ok(Self {
            space: SpaceId(r.number16(Field::Space)?),
            owner: r.user(Field::Owner)?,
            limit: r.number32(Field::Limit)?,
            viewer: r.optional(present, 1, |r| r.user(Field::Viewer))?,
            cursor: r.optional(present, 2, Cursor::decode)?,
            at_least: r.optional(present, 3, Token::decode)?,
            consistency: r.optional(present, 4, Consistency::decode)?.unwrap_or_default(),
            hydrate: present & 1 != 0,
        })
    }
}

impl ReadEntries {
    pub(crate) fn encode(&self, w: &mut Writer) {
        w.byte(bitmap([self.viewer.is_some(), self.consistency.is_chosen(), self.at_least.is_some()]));
        w.number(self.space.0);
        if let Some(viewer) = self.viewer {
            w.number(viewer.0);
        }
        w.entry_ids(&self.ids);
        self.consistency.encode(w);
        if let Some(token) = &self.at_least {
            token.encode(w);
        }
    }

    pub(crate) fn decode(r: &mut Reader) -> Result<Self, BodyError> {
        let present = r.presence(0b111)?;
        Ok(Self {
            space: SpaceId(r.number16(Field::Space)?),
            viewer: r.optional(present, 0, |r| r.user(Field::Viewer))?,
            ids: r.entry_ids(Field::EntryIds, READ_ENTRIES_MAX)?,
            consistency: r.optional(present, 1, Consistency::decode)?.unwrap_or_default(),
            at_least: r.optional(present, 2, Token::decode)?,
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
            self.consistency.is_chosen(),
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
        self.consistency.encode(w);
    }

    pub(crate) fn decode(r: &mut Reader) -> Result<Self, BodyError> {
        let present = r.presence(0b1_1111)?;
        Ok(Self {
            space: SpaceId(r.number16(Field::Space)?),
            reader: r.user(Field::Reader)?,
            limit: r.number32(Field::Limit)?,
            cursor: r.optional(present, 1, Cursor::decode)?,
            newer_than: r.optional(present, 2, Mark::decode)?,
            at_least: r.optional(present, 3, Token::decode)?,
            consistency: r.optional(present, 4, Consistency::decode)?.unwrap_or_default(),
            hydrate: present & 1 != 0,
        })
    }
}

impl ReadFeeds {
    pub(crate) fn encode(&self, w: &mut Writer) {
        w.byte(bitmap([self.hydrate, self.consistency.is_chosen(), self.at_least.is_some()]));
        w.number(self.space.0);
        w.number(self.limit);
        w.users(&self.readers);
        self.consistency.encode(w);
        if let Some(token) = &self.at_least {
            token.encode(w);
        }
    }

    pub(crate) fn decode(r: &mut Reader) -> Result<Self, BodyError> {
        let present = r.presence(0b111)?;
        Ok(Self {
            space: SpaceId(r.number16(Field::Space)?),
            limit: r.number32(Field::Limit)?,
            readers: r.users(Field::Readers, READ_FEEDS_MAX)?,
            consistency: r.optional(present, 1, Consistency::decode)?.unwrap_or_default(),
            at_least: r.optional(present, 2, Token::decode)?,
            hydrate: present & 1 != 0,
        })
    }
}
