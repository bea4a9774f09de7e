//! Owns the messages that open and close sessions, and the tag that writes carry (R18).

use crate::error::BodyError;
use crate::field::Field;
use crate::ids::{PartitionId, Sequence, SessionId};
use crate::wire::{Reader, Writer};

/// Opens a session with a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenSession {
    /// The partition.
    pub partition: PartitionId,
}

/// Closes a session; closing an unknown one is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CloseSession {
    /// The partition.
    pub partition: PartitionId,
    /// The session.
    pub session: SessionId,
}

/// What makes a write recognisable when it is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct WriteTag {
    /// The session.
    pub session: SessionId,
    /// The write's number within the session, from 1 on.
    pub sequence: Sequence,
    /// The lowest sequence whose answer the client has not seen; results below it are dropped. At most `sequence`.
    pub lowest_unanswered: Sequence,
}

impl OpenSession {
    pub(crate) fn encode(self, w: &mut Writer) {
        w.number(self.partition.0);
    }

    pub(crate) fn decode(r: &mut Reader) -> Result<Self, BodyError> {
        Ok(Self { partition: PartitionId(r.number16(Field::Partition)?) })
    }
}

impl CloseSession {
    pub(crate) fn encode(self, w: &mut Writer) {
        w.number(self.partition.0);
        w.number(self.session.0);
    }

    pub(crate) fn decode(r: &mut Reader) -> Result<Self, BodyError> {
        Ok(Self {
            partition: PartitionId(r.number16(Field::Partition)?),
            session: SessionId(r.number(Field::Session)?),
        })
    }
}

impl WriteTag {
    pub(crate) fn encode(self, w: &mut Writer) {
        w.number(self.session.0);
        w.number(self.sequence.0);
        w.number(self.lowest_unanswered.0);
    }

    pub(crate) fn decode(r: &mut Reader) -> Result<Self, BodyError> {
        Ok(Self {
            session: SessionId(r.number(Field::Session)?),
            sequence: Sequence(r.number(Field::Sequence)?),
            lowest_unanswered: Sequence(r.number(Field::LowestUnanswered)?),
        })
    }
}
