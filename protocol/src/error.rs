//! Owns the errors of decoding: what was wrong with the bytes, and whether the connection can go on.

use crate::field::Field;
use crate::ids::RequestId;
use crate::status::Status;

/// What is wrong with the body of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BodyError {
    /// The body goes on behind its last field.
    #[error("{count} bytes are left over behind the last field")]
    TrailingBytes {
        /// How many bytes.
        count: usize,
    },
    /// The body ends within a field.
    #[error("the body ends within {field}")]
    Truncated {
        /// The field.
        field: Field,
    },
    /// A field holds what it cannot hold.
    #[error("{field} is malformed")]
    Malformed {
        /// The field.
        field: Field,
    },
    /// A list has more items than it may.
    #[error("{field} has more than {limit} items")]
    TooLarge {
        /// The field.
        field: Field,
        /// The limit, in items.
        limit: u64,
    },
    /// A cursor is damaged.
    #[error("the cursor is damaged")]
    BadCursor,
}

/// Why bytes were not taken as a frame or message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The first bytes are not those of a hello.
    #[error("the first bytes are not those of a hello")]
    BadMagic,
    /// A frame's length is above the limit; nothing was allocated for it.
    #[error("a frame of {got} bytes is above the limit of {limit}")]
    FrameTooLarge {
        /// The limit in bytes.
        limit: u32,
        /// What the length field holds.
        got: u32,
    },
    /// A frame's length does not even cover its header.
    #[error("a frame of {got} bytes does not cover its own header")]
    FrameTooShort {
        /// What the length field holds.
        got: u32,
    },
    /// A checksum does not match.
    #[error("the checksum does not match")]
    BadChecksum,
    /// The opcode is not known.
    #[error("opcode {opcode} of request {request_id} is not known")]
    UnknownOpcode {
        /// The request.
        request_id: RequestId,
        /// The opcode.
        opcode: u16,
    },
    /// The flags are not known, or not allowed here.
    #[error("flags {flags:#06x} of request {request_id} are not allowed")]
    BadFlags {
        /// The request.
        request_id: RequestId,
        /// The flags.
        flags: u16,
    },
    /// The body does not follow its layout.
    #[error("the body of request {request_id}, opcode {opcode}, is not valid")]
    Body {
        /// The request.
        request_id: RequestId,
        /// The opcode.
        opcode: u16,
        /// What is wrong.
        source: BodyError,
    },
}

impl DecodeError {
    /// Whether the stream is still in step, so that only this request is refused and the connection goes on.
    pub fn connection_goes_on(&self) -> bool {
        self.request_id().is_some()
    }

    /// The request to refuse, if the connection goes on.
    pub fn request_id(&self) -> Option<RequestId> {
        match self {
            Self::UnknownOpcode { request_id, .. }
            | Self::BadFlags { request_id, .. }
            | Self::Body { request_id, .. } => Some(*request_id),
            Self::BadMagic | Self::FrameTooLarge { .. } | Self::FrameTooShort { .. } | Self::BadChecksum => {
                None
            }
        }
    }

    /// What the peer is told.
    pub fn to_status(&self) -> Status {
        match *self {
            Self::BadMagic => Status::BadMagic,
            Self::FrameTooLarge { limit, got } => Status::FrameTooLarge { limit, got },
            Self::FrameTooShort { .. } => Status::Malformed { field: Field::FrameLength },
            Self::BadChecksum => Status::BadChecksum,
            Self::UnknownOpcode { opcode, .. } => Status::UnknownOpcode { opcode },
            Self::BadFlags { .. } => Status::Malformed { field: Field::Flags },
            Self::Body { source, .. } => match source {
                BodyError::TrailingBytes { .. } => Status::Malformed { field: Field::Body },
                BodyError::Truncated { field } | BodyError::Malformed { field } => {
                    Status::Malformed { field }
                }
                BodyError::TooLarge { field, limit } => Status::TooLarge { field, limit },
                BodyError::BadCursor => Status::BadCursor,
            },
        }
    }
}

/// Why the frame codec stopped; the connection cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The bytes are not a frame.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// A frame to send is larger than the peer accepts; nothing of it was sent.
    #[error("a frame of {got} bytes is larger than the {limit} the peer accepts")]
    TooLargeToSend {
        /// The limit in bytes.
        limit: u32,
        /// The frame's size in bytes.
        got: usize,
    },
    /// The transport failed.
    #[error("the connection failed")]
    Io(#[from] std::io::Error),
}
