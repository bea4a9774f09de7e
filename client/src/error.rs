//! Owns the errors of client calls.
//!
//! Invariants:
//! - `may_have_applied()` is `false` only if the call certainly had no effect; of a read it is always `false`.
//! - `is_retryable()` is about the same call made again: after an error that may have applied, an append is safe to
//!   repeat only under an application key, and a delete, follow, mute or block always is.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use fanfold_protocol::{ClusterId, EntryId, Field, PartitionId, SessionId, Status};

/// Why a call failed.
///
/// Errors are cheap to clone: one failure may concern many items of a batch.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No connection could be made to an address.
    #[error("cannot connect to {address}; check that a node listens there (`fanfold start`)")]
    Connect {
        /// The address that was tried.
        address: String,
        /// What the operating system said.
        source: Arc<io::Error>,
    },
    /// A connection was lost while the call was under way, and the call is one that must not be sent twice.
    #[error("the connection to {address} was lost during the call{}", maybe(*may_have_applied))]
    ConnectionLost {
        /// The node's address.
        address: String,
        /// Whether the call may have had its effect.
        may_have_applied: bool,
        /// How it was lost.
        source: Loss,
    },
    /// The server refused the call.
    #[error("refused: {status}{}", maybe(*may_have_applied))]
    Refused {
        /// Why, with data.
        status: Status,
        /// Whether the call may have had its effect nevertheless.
        may_have_applied: bool,
    },
    /// The call's deadline passed, or the next attempt would have lain beyond it.
    #[error(
        "{} within {deadline:?}{}",
        if *may_have_applied { "it may have been done, or be done yet, but was not answered" } else { "not done" },
        after(last.as_deref())
    )]
    DeadlineExceeded {
        /// The deadline of the call.
        deadline: Duration,
        /// Whether the call may have had, or may still have, its effect.
        may_have_applied: bool,
        /// Why the last attempt failed, if one did.
        last: Option<Arc<Error>>,
    },
    /// An attempt of the call may have had its effect, and the next one failed for good.
    #[error("it may have been done, and could not be asked for again: {last}")]
    OutcomeUnknown {
        /// Why the last attempt failed.
        last: Arc<Error>,
    },
    /// There is no space of this name.
    #[error("there is no space named {name:?}, only {}; use one of those or create it", known.join(", "))]
    UnknownSpace {
        /// The name asked for.
        name: String,
        /// The names of the spaces that exist.
        known: Vec<String>,
    },
    /// There is no graph of this name.
    #[error("there is no graph named {name:?}, only {}; create a space with it", known.join(", "))]
    UnknownGraph {
        /// The name asked for.
        name: String,
        /// The names of the graphs that exist.
        known: Vec<String>,
    },
    /// The partition has forgotten the session while the outcome of a write was open; it was not sent again, because
    /// that could run it twice.
    #[error(
        "partition {partition} has forgotten session {session} while a write was open; read what is there before \
         repeating it"
    )]
    SessionForgotten {
        /// The partition.
        partition: PartitionId,
        /// The session.
        session: SessionId,
    },
    /// The request would not fit into one frame.
    #[error("the request needs {bytes} bytes and one frame holds {limit}; split it")]
    RequestTooLarge {
        /// What the request needs, in bytes.
        bytes: u64,
        /// What the server accepts, in bytes.
        limit: u64,
    },
    /// The server sent an answer that this client cannot read.
    #[error(
        "the answer of {address} cannot be read ({field}); use a client of the server's version{}",
        maybe(*may_have_applied)
    )]
    BadAnswer {
        /// The node's address.
        address: String,
        /// Where decoding stopped.
        field: Field,
        /// Whether the call may have had its effect.
        may_have_applied: bool,
    },
    /// The server answered with something else than what the request asks for.
    #[error(
        "the server answered with something else than was asked; use a client of the server's version{}",
        maybe(*may_have_applied)
    )]
    UnexpectedAnswer {
        /// Whether the call may have had its effect.
        may_have_applied: bool,
    },
    /// A scan cannot go on, because a partition is unreachable or a budget too small: the page before this error says
    /// which (`short_of`). It may show what is known further down; a scan that is to miss nothing goes on later from the last
    /// cursor that is not below `below`.
    #[error("the scan makes no progress below entry {below}; go on from there later")]
    ScanStalled {
        /// Entries above this id were shown.
        below: EntryId,
    },
    /// A duration given to the call cannot be expressed in milliseconds.
    #[error("{field} of {given:?} is out of range; give at most 292 million years")]
    BadDuration {
        /// What it was given for.
        field: Field,
        /// What was given.
        given: Duration,
    },
    /// A node belongs to another cluster than the one this client was connected to.
    #[error(
        "the node at {address} is of cluster {found}, not {expected}; connect a new client to use that one"
    )]
    OtherCluster {
        /// The node's address.
        address: String,
        /// The cluster that the client was connected to.
        expected: ClusterId,
        /// The cluster of the node.
        found: ClusterId,
    },
    /// The client was closed.
    #[error("the client was closed; connect a new one")]
    Closed,
}

/// How a connection was lost.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Loss {
    /// Reading or writing failed.
    #[error("reading or writing failed")]
    Io(#[from] Arc<io::Error>),
    /// The server did not answer, and others say that it no longer leads, or were asked instead.
    #[error("the server did not answer")]
    Silent,
    /// The server closed it.
    #[error("the server closed it")]
    ClosedByServer,
    /// The server closed it and said why.
    #[error("the server closed it: {0}")]
    Refused(Status),
    /// The server sent what is no frame of this protocol.
    #[error("the server sent bytes that are no frame of this protocol")]
    BadFrame(Status),
}

impl Error {
    /// Whether the same call, made again later, can succeed without changing it.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Connect { .. } => self.status().is_none_or(Status::is_retryable),
            Self::OutcomeUnknown { last } => last.is_retryable(),
            Self::Refused { status, .. } => status.is_retryable(),
            Self::ConnectionLost { .. }
            | Self::DeadlineExceeded { .. }
            | Self::SessionForgotten { .. }
            | Self::ScanStalled { .. } => true,
            Self::UnknownSpace { .. }
            | Self::UnknownGraph { .. }
            | Self::RequestTooLarge { .. }
            | Self::BadAnswer { .. }
            | Self::UnexpectedAnswer { .. }
            | Self::BadDuration { .. }
            | Self::OtherCluster { .. }
            | Self::Closed => false,
        }
    }

    /// Whether the call may have had, or may still have, its effect. `false` is certain.
    pub fn may_have_applied(&self) -> bool {
        match self {
            Self::ConnectionLost { may_have_applied, .. }
            | Self::Refused { may_have_applied, .. }
            | Self::DeadlineExceeded { may_have_applied, .. }
            | Self::BadAnswer { may_have_applied, .. }
            | Self::UnexpectedAnswer { may_have_applied } => *may_have_applied,
            Self::SessionForgotten { .. } | Self::OutcomeUnknown { .. } => true,
            Self::Connect { .. }
            | Self::UnknownSpace { .. }
            | Self::UnknownGraph { .. }
            | Self::RequestTooLarge { .. }
            | Self::ScanStalled { .. }
            | Self::BadDuration { .. }
            | Self::OtherCluster { .. }
            | Self::Closed => false,
        }
    }

    /// The status that the server gave, if one is behind this error.
    pub fn status(&self) -> Option<&Status> {
        match self {
            Self::Refused { status, .. } | Self::ConnectionLost { source: Loss::Refused(status), .. } => {
                Some(status)
            }
            Self::Connect { source, .. } => source.get_ref().and_then(|inner| inner.downcast_ref()),
            Self::DeadlineExceeded { last: Some(last), .. } | Self::OutcomeUnknown { last } => last.status(),
            _ => None,
        }
    }
}

impl Error {
    /// The same error of a call of which an earlier part or attempt may have had its effect.
    pub(crate) fn after_uncertain(mut self) -> Self {
        match &mut self {
            Self::ConnectionLost { may_have_applied, .. }
            | Self::Refused { may_have_applied, .. }
            | Self::DeadlineExceeded { may_have_applied, .. }
            | Self::BadAnswer { may_have_applied, .. }
            | Self::UnexpectedAnswer { may_have_applied } => {
                *may_have_applied = true;
                self
            }
            Self::SessionForgotten { .. } | Self::OutcomeUnknown { .. } => self,
            _ => Self::OutcomeUnknown { last: Arc::new(self) },
        }
    }

    pub(crate) fn unexpected_read() -> Self {
        Self::UnexpectedAnswer { may_have_applied: false }
    }

    pub(crate) fn unexpected_write() -> Self {
        Self::UnexpectedAnswer { may_have_applied: true }
    }
}

fn maybe(may_have_applied: bool) -> &'static str {
    if may_have_applied { "; it may have been done all the same" } else { "" }
}

/// What the last attempt failed with; whether the call may have had its effect is said of the whole.
fn after(last: Option<&Error>) -> String {
    let text = |last: &Error| match last {
        Error::Refused { status, .. } => format!("refused: {status}"),
        Error::ConnectionLost { address, .. } => format!("the connection to {address} was lost"),
        last => last.to_string(),
    };
    last.map_or_else(String::new, |last| format!("; the last attempt failed: {}", text(last)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_have_been_done_says_so() {
        let status = Status::Unavailable { partition: PartitionId(3) };
        let refused = |may_have_applied| Error::Refused { status: status.clone(), may_have_applied };
        let (address, source) = ("a:1".to_owned(), Loss::Silent);
        let lost = |may_have_applied| Error::ConnectionLost {
            address: address.clone(),
            may_have_applied,
            source: source.clone(),
        };
        let late = |may_have_applied| Error::DeadlineExceeded {
            deadline: Duration::from_secs(10),
            may_have_applied,
            last: Some(Arc::new(refused(may_have_applied))),
        };
        for may in [true, false] {
            for error in [refused(may), lost(may), late(may)] {
                assert_eq!(
                    error.to_string().matches("may have been done").count(),
                    usize::from(may),
                    "{error}"
                );
            }
        }
        assert!(
            late(false).to_string().starts_with("not done within 10s; the last attempt failed: refused: ")
        );
    }
}
