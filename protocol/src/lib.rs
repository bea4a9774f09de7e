//! The wire protocol of Fanfold: frames, opcodes, messages and status codes, without any I/O.
//!
//! Invariants:
//! - Nothing that comes from a peer panics, and nothing is allocated that the bytes received do not justify.
//! - Bodies have one layout, specified in `PROTOCOL.md`; golden files in `testdata/` hold both to it.

pub mod call;
pub mod cursor;
pub mod error;
pub mod field;
pub mod frame;
pub mod handshake;
pub mod ids;
pub mod message;
pub mod opcode;
pub mod packer;
pub mod sealed;
pub mod status;
pub mod token;
mod wire;

pub use call::{BATCH_ITEMS_MAX, Call, Reply};
pub use cursor::{Cursor, CursorScope, EdgePosition, Mark};
pub use error::{BodyError, DecodeError, FrameError};
pub use field::{Field, LimitKind};
pub use frame::{Flags, Frame, FrameCodec};
pub use handshake::{HandshakeReply, Hello, Limits, ServerHello};
pub use ids::{
    ClusterId, EntryId, GraphId, NodeId, PartitionId, RequestId, Sequence, SessionId, SlotIndex, SpaceId,
    Stamp, UserId,
};
pub use message::{Request, Response};
pub use opcode::Opcode;
pub use packer::Packer;
pub use sealed::SealedError;
pub use status::{LeaderHint, Status};
pub use token::Token;
