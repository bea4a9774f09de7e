//! Owns the token of an answer: what a later read must at least have seen (R17).
//!
//! Opaque to applications, which may store its bytes (`PROTOCOL.md`, "Sealed strings").

use bytes::Bytes;

use crate::error::BodyError;
use crate::field::Field;
use crate::ids::PartitionId;
use crate::sealed::{self, Kind, SealedError};
use crate::wire::{Reader, Writer};

/// What a later read must at least have seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token {
    /// The partition that answered.
    pub partition: PartitionId,
    /// Its incarnation, changed by every restore and forced recovery.
    pub incarnation: u64,
    /// The index of its log that the answer reflects.
    pub log_index: u64,
    /// For a write that caused events: the position of the last one in the partition's journal.
    pub journal_position: Option<u64>,
}

impl Token {
    /// The token as bytes to keep, at most 64.
    pub fn to_bytes(&self) -> Bytes {
        sealed::seal(Kind::Token, |w| self.content(w))
    }

    fn content(&self, w: &mut Writer) {
        w.number(self.partition.0);
        w.number(self.incarnation);
        w.number(self.log_index);
        w.boolean(self.journal_position.is_some());
        if let Some(position) = self.journal_position {
            w.number(position);
        }
    }

    /// The token that `to_bytes` made these bytes of.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SealedError> {
        sealed::open(Kind::Token, bytes, |r| {
            Ok(Self {
                partition: PartitionId(r.number16(Field::Token)?),
                incarnation: r.number(Field::Token)?,
                log_index: r.number(Field::Token)?,
                journal_position: if r.boolean(Field::Token)? { Some(r.number(Field::Token)?) } else { None },
            })
        })
    }

    pub(crate) fn encode(&self, w: &mut Writer) {
        sealed::put_with_length(w, Kind::Token, |w| self.content(w));
    }

    pub(crate) fn decode(r: &mut Reader) -> Result<Self, BodyError> {
        let bytes = r.bytes(Field::Token)?;
        Self::from_bytes(&bytes).map_err(|_| BodyError::Malformed { field: Field::Token })
    }
}
