//! Owns what the load generator can ask of a node, and what it hears.

use std::time::Instant;

use bytes::Bytes;
use fanfold_protocol::{EntryId, Status, UserId};

use super::error::FanfoldError;

/// A request, without its routing and its tag.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Job {
    /// Appends an entry; the payload is cut from the connection's bytes.
    Append { owner: u32, payload_bytes: u32 },
    /// Makes a reader follow owners, ascending.
    Follow { reader: u32, owners: Vec<u32> },
    /// Reads the first page of a feed.
    Read { reader: u32, limit: u32, hydrate: bool },
    /// Waits until what an answer named has reached everybody.
    Wait(Waited),
}

/// An answered post that is followed to its last delivery.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Waited {
    /// The token of the answer, as it came.
    pub(super) token: Bytes,
    /// Its owner.
    pub(super) owner: u32,
    /// When the post was meant to be sent.
    pub(super) due: Instant,
    /// When its answer came.
    pub(super) answered: Instant,
}

/// A request under way.
#[derive(Debug, Clone)]
pub(super) struct Sent {
    /// What was asked.
    pub(super) job: Job,
    /// When it was meant to be sent.
    pub(super) due: Instant,
}

/// What a node answered; entries lie in the receive buffer.
#[derive(Debug)]
pub(super) enum Heard<'a> {
    /// An entry is durable.
    Appended { id: EntryId, token: &'a [u8] },
    /// Edges were made.
    Followed { changed: u32 },
    /// A page of a feed; decoded where somebody wants to know.
    Page(&'a [u8]),
    /// Everybody has it.
    Delivered,
}

/// What a plan has to do next.
#[derive(Debug)]
pub(super) enum Next {
    /// Send this, which was due at the given time.
    Send(Job, Instant),
    /// Nothing before this time.
    At(Instant),
    /// Nothing any more.
    Done,
}

/// A sequence of requests, and what is done with their answers.
pub(super) trait Plan {
    /// What to send next. Called while a place is free.
    fn next(&mut self, now: Instant) -> Next;

    /// What to send next on the connections that are kept apart. Called while a place of those is free.
    fn next_apart(&mut self, _now: Instant) -> Next {
        Next::Done
    }

    /// Takes a refusal; whether the request is done with that. Otherwise the run fails.
    fn refused(&mut self, _sent: &Sent, _status: &Status) -> bool {
        false
    }

    /// Takes an answer; what it gives back is sent at once on the same connection, beyond the places.
    ///
    /// # Errors
    ///
    /// If it is wrong, which ends the run.
    fn heard(&mut self, sent: &Sent, heard: &Heard<'_>, now: Instant) -> Result<Option<Job>, FanfoldError>;
}

/// The id of a user of the graph on the wire.
pub(super) fn user(number: u32) -> UserId {
    UserId(u64::from(number))
}
