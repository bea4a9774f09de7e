//! Owns the answers to writes.

use crate::error::BodyError;
use crate::field::Field;
use crate::ids::{EntryId, Stamp, UserId};
use crate::message::import::{IMPORT_EDGES_MAX, IMPORT_ENTRIES_MAX};
use crate::message::write::{APPEND_ITEMS_MAX, WRITE_USERS_MAX};
use crate::status::Status;
use crate::token::Token;
use crate::wire::{Reader, Writer};

/// The answer to a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// What later reads and waits refer to.
    pub token: Token,
    /// What came of it.
    pub result: WriteResult,
}

/// What came of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteResult {
    /// Of each item of an append or imported entry, in order.
    Appended(Vec<AppendOutcome>),
    /// The payload was replaced.
    Amended {
        /// The entry's new version.
        version: u32,
    },
    /// The entry is gone.
    Deleted {
        /// Whether it was there before.
        existed: bool,
    },
    /// The expiry was set.
    ExpirySet {
        /// When the entry expires; `None` is never.
        expiry: Option<Stamp>,
    },
    /// Edges, mutes or blocks were changed.
    Related {
        /// How many changed; the others were so already.
        changed: u32,
        /// Whom a block or limit kept from being followed.
        refused: Vec<UserId>,
    },
    /// Edges were imported.
    FollowsImported {
        /// How many are new.
        changed: u32,
        /// Those refused, by their place among the edges; all others are there now.
        refused: Vec<(u32, Status)>,
    },
}

/// Most outcomes of one write.
const OUTCOMES_MAX: usize =
    if IMPORT_ENTRIES_MAX > APPEND_ITEMS_MAX { IMPORT_ENTRIES_MAX } else { APPEND_ITEMS_MAX };

/// What came of one item of an append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AppendOutcome {
    /// The entry is durable.
    Ok {
        /// Its id.
        id: EntryId,
        /// Whether an earlier append under the same key had made it.
        duplicate: bool,
    },
    /// The item had no effect.
    Refused(Status),
}

impl Written {
    pub(crate) fn encode(&self, w: &mut Writer) {
        self.token.encode(w);
        self.result.encode(w);
    }

    pub(crate) fn decode(r: &mut Reader) -> Result<Self, BodyError> {
        Ok(Self { token: Token::decode(r)?, result: WriteResult::decode(r)? })
    }
}

impl WriteResult {
    fn encode(&self, w: &mut Writer) {
        match self {
            Self::Appended(outcomes) => {
                w.byte(1);
                w.count(outcomes.len());
                for outcome in outcomes {
                    outcome.encode(w);
                }
            }
            Self::Amended { version } => {
                w.byte(2);
                w.number(*version);
            }
            Self::Deleted { existed } => {
                w.byte(3);
                w.boolean(*existed);
            }
            Self::ExpirySet { expiry } => {
                w.byte(4);
                w.boolean(expiry.is_some());
                if let Some(expiry) = expiry {
                    w.number(expiry.0);
                }
            }
            Self::Related { changed, refused } => {
                w.byte(5);
                w.number(*changed);
                w.users(refused);
            }
            Self::FollowsImported { changed, refused } => {
                w.byte(6);
                w.number(*changed);
                w.count(refused.len());
                for (place, status) in refused {
                    w.number(*place);
                    status.encode(w);
                }
            }
        }
    }

    fn decode(r: &mut Reader) -> Result<Self, BodyError> {
        Ok(match r.byte(Field::Result)? {
            1 => {
                let count = r.count(Field::Result, 2, OUTCOMES_MAX)?;
                Self::Appended(r.items(count, AppendOutcome::decode)?)
            }
            2 => Self::Amended { version: r.number32(Field::Version)? },
            3 => Self::Deleted { existed: r.boolean(Field::Result)? },
            4 => Self::ExpirySet {
                expiry: if r.boolean(Field::Expiry)? { Some(Stamp(r.number(Field::Expiry)?)) } else { None },
            },
            5 => Self::Related {
                changed: r.number32(Field::Result)?,
                refused: r.users(Field::Result, WRITE_USERS_MAX)?,
            },
            6 => {
                let changed = r.number32(Field::Result)?;
                let count = r.count(Field::Result, 2, IMPORT_EDGES_MAX)?;
                let refused = r.items(count, |r| Ok((r.number32(Field::Result)?, Status::decode(r)?)))?;
                Self::FollowsImported { changed, refused }
            }
            _ => return Err(BodyError::Malformed { field: Field::Result }),
        })
    }
}

impl AppendOutcome {
    fn encode(&self, w: &mut Writer) {
        match self {
            Self::Ok { id, duplicate } => {
                w.byte(u8::from(*duplicate));
                w.fixed64(id.0);
            }
            Self::Refused(status) => {
                w.byte(2);
                status.encode(w);
            }
        }
    }

    fn decode(r: &mut Reader) -> Result<Self, BodyError> {
        Ok(match r.byte(Field::Result)? {
            duplicate @ (0 | 1) => Self::Ok { id: r.entry_id(Field::Result)?, duplicate: duplicate == 1 },
            2 => Self::Refused(Status::decode(r)?),
            _ => return Err(BodyError::Malformed { field: Field::Result }),
        })
    }
}
