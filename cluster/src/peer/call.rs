//! Owns the calls between nodes beside Raft's messages, and their answers.
//!
//! - The numbers of calls are on the wire and never reused; the bodies of those that another module owns are opaque here.
//! - Any bytes are decoded or refused.
//!
//! Format: `PEER.md`, "Calls".

use bytes::Bytes;
use fanfold_storage::codec::{Encoded, Malformed, Reader};
use fanfold_storage::encoded_struct;
use fanfold_storage::event::{StreamAnswer, StreamMessage};
use fanfold_storage::ids::PartitionId;

/// Set in the credit of what goes to a partition over streams.
pub(super) const STREAMS_CREDIT: u32 = 1 << 31;

/// The credit of the questions of reads.
const READS_CREDIT: u32 = u32::MAX;

/// What a node that wants to belong to the cluster says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinRequest {
    /// Drawn at random when its data directory was made; the same directory gets the same node id again.
    pub directory: u128,
    /// Where it listens for clients.
    pub client_address: String,
    /// Where it listens for nodes.
    pub peer_address: String,
    /// Its zone; empty for none.
    pub zone: String,
    /// Its feature level.
    pub feature_level: u32,
}

/// What it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinAnswer {
    /// The cluster.
    pub cluster: u128,
    /// The node id it has from now on.
    pub node: u64,
    /// The number of partitions.
    pub partitions: u16,
    /// The catalog's state, as the catalog encodes it.
    pub catalog: Bytes,
}

/// What one node asks another to do.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PeerCall {
    /// Let a node join.
    Join(JoinRequest),
    /// Send the catalog's state once it is newer than what the caller knows, or say after a while that it is not.
    FetchCatalog {
        /// The epoch that the caller knows; 0 for none.
        than_epoch: u64,
        /// How long to wait for a newer one.
        wait_ms: u32,
    },
    /// Propose a command to the catalog, whose leader the called node is.
    ProposeCatalog(Bytes),
    /// Take a message of a stream between partitions.
    Stream {
        /// The partition that it is for.
        destination: PartitionId,
        /// The message.
        message: StreamMessage,
    },
    /// Answer questions of reads; their encoding belongs to the reads.
    Ask(Bytes),
    /// What the node's own modules tell each other; the encoding is theirs.
    Control(Bytes),
}

/// What the called node answers.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PeerAnswer {
    /// To a join.
    Joined(JoinAnswer),
    /// To a fetch of the catalog: its epoch, and its state if that is newer.
    Catalog {
        /// The epoch that the called node knows.
        epoch: u64,
        /// The state, as the catalog encodes it.
        state: Option<Bytes>,
    },
    /// To a proposal to the catalog, as the catalog encodes it.
    Proposed(Bytes),
    /// To a stream message: where the stream stands.
    Stream(StreamAnswer),
    /// To questions of reads, in their encoding.
    Replies(Bytes),
    /// To what the node's own modules asked.
    Control(Bytes),
}

encoded_struct!(JoinRequest { directory, client_address, peer_address, zone, feature_level });
encoded_struct!(JoinAnswer { cluster, node, partitions, catalog });

impl PeerCall {
    /// The number of the call, and its body.
    pub(super) fn encode(&self) -> (u8, Bytes) {
        let mut out = Vec::new();
        let code = match self {
            Self::Join(request) => {
                request.encode(&mut out);
                1
            }
            Self::FetchCatalog { than_epoch, wait_ms } => {
                than_epoch.encode(&mut out);
                wait_ms.encode(&mut out);
                2
            }
            Self::ProposeCatalog(command) => return (3, command.clone()),
            Self::Stream { destination, message } => {
                destination.encode(&mut out);
                message.encode(&mut out);
                4
            }
            Self::Ask(questions) => return (5, questions.clone()),
            Self::Control(message) => return (6, message.clone()),
        };
        (code, out.into())
    }

    /// The call of this number.
    pub(super) fn decode(code: u8, body: &Bytes) -> Result<Self, Malformed> {
        let mut from = Reader::new(body);
        let call = match code {
            1 => Self::Join(Encoded::decode(&mut from)?),
            2 => Self::FetchCatalog { than_epoch: from.u64()?, wait_ms: from.u32()? },
            3 => return Ok(Self::ProposeCatalog(body.clone())),
            4 => Self::Stream {
                destination: Encoded::decode(&mut from)?,
                message: Encoded::decode(&mut from)?,
            },
            5 => return Ok(Self::Ask(body.clone())),
            6 => return Ok(Self::Control(body.clone())),
            _ => return Err(from.malformed("call")),
        };
        from.end()?;
        Ok(call)
    }

    /// What it takes the credit of. Streams and reads have their own, so that they never hold up replication.
    pub(super) fn credit(&self) -> u32 {
        match self {
            Self::Stream { destination, .. } => STREAMS_CREDIT | (u32::from(destination.0) + 1),
            Self::Ask(_) => READS_CREDIT,
            _ => 0,
        }
    }
}

impl PeerAnswer {
    /// The answer with its number before it.
    pub(super) fn to_bytes(&self) -> Bytes {
        let mut out = Vec::new();
        match self {
            Self::Joined(answer) => {
                out.push(1);
                answer.encode(&mut out);
            }
            Self::Catalog { epoch, state } => {
                out.push(2);
                epoch.encode(&mut out);
                state.encode(&mut out);
            }
            Self::Proposed(outcome) => {
                out.push(3);
                out.extend_from_slice(outcome);
            }
            Self::Stream(answer) => {
                out.push(4);
                answer.encode(&mut out);
            }
            Self::Replies(replies) => {
                out.push(5);
                out.extend_from_slice(replies);
            }
            Self::Control(message) => {
                out.push(6);
                out.extend_from_slice(message);
            }
        }
        out.into()
    }

    /// Reads an answer.
    pub(super) fn from_bytes(bytes: &Bytes) -> Result<Self, Malformed> {
        let mut from = Reader::new(bytes);
        let answer = match from.byte()? {
            1 => Self::Joined(Encoded::decode(&mut from)?),
            2 => Self::Catalog { epoch: from.u64()?, state: Encoded::decode(&mut from)? },
            3 => return Ok(Self::Proposed(bytes.slice(1..))),
            4 => Self::Stream(Encoded::decode(&mut from)?),
            5 => return Ok(Self::Replies(bytes.slice(1..))),
            6 => return Ok(Self::Control(bytes.slice(1..))),
            _ => return Err(from.malformed("answer")),
        };
        from.end()?;
        Ok(answer)
    }
}
