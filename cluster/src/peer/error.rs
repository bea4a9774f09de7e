//! Owns why a call to another node has no answer, and why a connection between nodes ended.

use std::io;

use fanfold_storage::codec::Malformed;
use thiserror::Error;

use super::frame::FrameError;
use super::hello::{HelloError, HelloRefusal};
use super::refusal::PeerRefusal;

/// Why a connection between nodes ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Cut {
    /// The other side closed it.
    #[error("the other side closed it")]
    Closed,
    /// It ended within a frame.
    #[error("it ended within a frame")]
    Truncated,
    /// The operating system ended it.
    #[error("{0}")]
    Io(io::ErrorKind),
    /// Nothing was heard for too long.
    #[error("nothing was heard for too long")]
    Silent,
    /// A write or a frame that had begun did not get on.
    #[error("it stalled")]
    Stalled,
    /// A frame took too long as a whole.
    #[error("a frame took too long")]
    Slow,
    /// It did not begin with a hello.
    #[error(transparent)]
    Hello(HelloError),
    /// What came is not a frame.
    #[error(transparent)]
    Frame(FrameError),
    /// A request did not have the number that follows the one before: something was lost, repeated or reordered.
    #[error("request {got} came where {expected} was due")]
    Sequence {
        /// What was due.
        expected: u64,
        /// What came.
        got: u64,
    },
    /// More is unanswered than was announced as accepted.
    #[error("the other side sent more than it may before it has answers")]
    TooMuch,
    /// A frame came that this side of a connection does not take.
    #[error("a frame came that does not belong there")]
    Unexpected,
    /// A newer connection of the same node took its place.
    #[error("a newer connection of the same node took its place")]
    Replaced,
    /// The other node is no longer admitted.
    #[error("the other node is no longer admitted: {0}")]
    Refused(HelloRefusal),
    /// This node stops, or the address of the other one changed.
    #[error("this node ended it")]
    Ended,
}

/// Why a call to another node has no answer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PeerError {
    /// No connection could be made. Nothing was sent.
    #[error("no connection to {address}: {reason}")]
    Unreachable {
        /// Where it was tried.
        address: String,
        /// Why it failed.
        reason: DialError,
    },
    /// Too much is unanswered already. Nothing was sent.
    #[error("too much is waiting for an answer already")]
    Busy,
    /// The message is larger than a frame. Nothing was sent.
    #[error("{bytes} bytes are above the limit of {limit_bytes}")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The limit.
        limit_bytes: u64,
    },
    /// The connection ended before the answer came.
    #[error("the connection ended: {cut}")]
    Broken {
        /// Why.
        cut: Cut,
        /// Whether the message had been sent.
        sent: bool,
    },
    /// No answer came in time.
    #[error("no answer came in time")]
    Deadline,
    /// The other node refused.
    #[error(transparent)]
    Refused(#[from] PeerRefusal),
    /// The answer is not one.
    #[error("the answer is malformed: {0}")]
    Answer(Malformed),
    /// The answer belongs to another call.
    #[error("the answer belongs to another call")]
    OtherAnswer,
    /// This node stops.
    #[error("this node stops")]
    Stopped,
}

/// Why no connection was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DialError {
    /// The operating system refused.
    #[error("{0}")]
    Io(io::ErrorKind),
    /// It took too long.
    #[error("it took too long")]
    Deadline,
    /// What answered is not a node.
    #[error(transparent)]
    Hello(#[from] HelloError),
    /// The node does not serve the connection.
    #[error("refused: {0}")]
    Refused(HelloRefusal),
    /// The address of the node is not known.
    #[error("its address is not known")]
    Unknown,
    /// This node belongs to no cluster yet.
    #[error("this node belongs to no cluster yet")]
    NotJoined,
    /// The connection was made and ended at once.
    #[error("the last connection ended: {0}")]
    Ended(Cut),
    /// Another node answered than the one that was wanted.
    #[error("node {node} answered")]
    OtherNode {
        /// Which.
        node: u64,
    },
}

impl PeerError {
    /// Whether what was called for may happen, or have happened, all the same.
    pub fn may_have_applied(&self) -> bool {
        match self {
            Self::Broken { sent, .. } => *sent,
            Self::Deadline | Self::Answer(_) | Self::OtherAnswer => true,
            Self::Refused(refusal) => refusal.may_have_applied(),
            _ => false,
        }
    }
}

impl From<io::Error> for Cut {
    fn from(error: io::Error) -> Self {
        Self::Io(error.kind())
    }
}

impl From<io::Error> for DialError {
    fn from(error: io::Error) -> Self {
        Self::Io(error.kind())
    }
}

impl From<FrameError> for Cut {
    fn from(error: FrameError) -> Self {
        Self::Frame(error)
    }
}
