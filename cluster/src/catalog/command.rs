//! Owns the commands of the catalog's log and what they answer, with their encodings.

use bytes::Bytes;
use fanfold_storage::codec::{Encoded, Malformed, Reader, put_u64};
use fanfold_storage::command::Limits;
use fanfold_storage::space::{FanOut, SpaceDefinition, SpacePolicy};

use super::nodes::{Edit, NodeFacts};
use super::state::CatalogState;
use super::take_over::TakeOver;

/// What a cluster is made with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Founding {
    /// Its id, drawn at random.
    pub cluster_id: u128,
    /// The number of partitions; never changes.
    pub partitions: u16,
    /// The first node.
    pub node: u64,
    /// Where it listens.
    pub address: String,
    /// The limits of every partition.
    pub limits: Limits,
    /// What all nodes can do.
    pub feature_level: u32,
}

/// One command of the catalog's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CatalogCommand {
    /// Makes the cluster, with its first spaces; refused when there is one.
    Found(Founding),
    /// Where a node listens now.
    SetNodeAddress {
        /// The node.
        node: u64,
        /// Its address.
        address: String,
    },
    /// Makes a space, and its graph if there is none of that name.
    CreateSpace {
        /// Its name.
        name: String,
        /// The name of its graph.
        graph: String,
        /// Its policy.
        policy: SpacePolicy,
    },
    /// Changes the policy of a space.
    AlterSpace {
        /// Its name.
        name: String,
        /// What changes.
        changes: SpaceChanges,
    },
    /// Changes the limits of every partition.
    SetLimits {
        /// The limits.
        limits: Limits,
    },
    /// Takes a node in, or tells it its id again.
    AddNode(NodeFacts),
    /// What a node says of itself now.
    UpdateNode {
        /// The node.
        node: u64,
        /// What it says.
        facts: NodeFacts,
    },
    /// Changes nodes, placement and settings.
    Edit(Edit),
    /// One node goes on with what it has, without the others.
    TakeOver(TakeOver),
    /// Whatever programs of this level have may be used from now on.
    RaiseLevel {
        /// The epoch at which all nodes had it; any other state refuses it.
        epoch: u64,
        /// The feature level.
        level: u32,
    },
}

/// What a command of the catalog answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CatalogOutcome {
    /// Done.
    Done,
    /// The space as it is now.
    Space(SpaceDefinition),
    /// The node has this id.
    Node {
        /// The id.
        node: u64,
    },
    /// The command had no effect.
    Refused(CatalogRefusal),
}

/// Why a command of the catalog had no effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CatalogRefusal {
    /// The cluster is founded already.
    Founded,
    /// There is no such space.
    UnknownSpace,
    /// A space of that name exists.
    SpaceExists,
    /// No more spaces or graphs can be made.
    Exhausted,
    /// A value is outside its range.
    Policy(super::policy::PolicyRefusal),
    /// The batch was committed, but does not decode; or the command makes no sense.
    Malformed,
    /// There is no cluster yet.
    NotFounded,
    /// There is no such node.
    UnknownNode {
        /// Its id.
        node: u64,
    },
    /// The node was removed.
    NodeRemoved {
        /// Its id.
        node: u64,
    },
    /// The node has another data directory.
    OtherDirectory {
        /// Its id.
        node: u64,
    },
    /// Another node listens there.
    AddressTaken {
        /// That node.
        node: u64,
    },
    /// The edit was made for another state.
    Stale,
    /// The node is of an older version than the cluster (R3).
    FeatureLevel {
        /// The level that it needs.
        needed: u32,
    },
}

/// Changes to the policy of a space; none leaves a value as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SpaceChanges {
    /// A new default TTL in milliseconds, or none.
    pub default_ttl_ms: Option<Option<u64>>,
    /// A new feed cap.
    pub feed_cap: Option<u32>,
    /// A new horizon in milliseconds, or none.
    pub horizon_ms: Option<Option<u64>>,
    /// A new choice of push and pull.
    pub fan_out: Option<FanOut>,
    /// A new threshold between push and pull.
    pub pull_threshold: Option<u32>,
    /// A new payload limit in bytes.
    pub payload_bytes_max: Option<u32>,
    /// Whether it takes no writes from now on.
    pub is_read_only: Option<bool>,
}

impl SpaceChanges {
    /// The policy with the changes made.
    pub fn apply(&self, policy: &SpacePolicy) -> SpacePolicy {
        SpacePolicy {
            default_ttl_ms: self.default_ttl_ms.unwrap_or(policy.default_ttl_ms),
            feed_cap: self.feed_cap.unwrap_or(policy.feed_cap),
            horizon_ms: self.horizon_ms.unwrap_or(policy.horizon_ms),
            fan_out: self.fan_out.unwrap_or(policy.fan_out),
            pull_threshold: self.pull_threshold.unwrap_or(policy.pull_threshold),
            payload_bytes_max: self.payload_bytes_max.unwrap_or(policy.payload_bytes_max),
            is_read_only: self.is_read_only.unwrap_or(policy.is_read_only),
        }
    }
}

impl Encoded for Founding {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.cluster_id.to_le_bytes());
        self.partitions.encode(out);
        self.node.encode(out);
        self.address.encode(out);
        self.limits.encode(out);
        self.feature_level.encode(out);
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            cluster_id: from.u128()?,
            partitions: from.u16()?,
            node: from.u64()?,
            address: from.string()?,
            limits: Limits::decode(from)?,
            feature_level: from.u32()?,
        })
    }
}

/// What a command carries that names nothing of read-only spaces; commands that do have a number of their own.
impl Encoded for SpaceChanges {
    fn encode(&self, out: &mut Vec<u8>) {
        self.default_ttl_ms.encode(out);
        self.feed_cap.encode(out);
        self.horizon_ms.encode(out);
        self.fan_out.encode(out);
        self.pull_threshold.encode(out);
        self.payload_bytes_max.encode(out);
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            default_ttl_ms: Encoded::decode(from)?,
            feed_cap: Encoded::decode(from)?,
            horizon_ms: Encoded::decode(from)?,
            fan_out: Encoded::decode(from)?,
            pull_threshold: Encoded::decode(from)?,
            payload_bytes_max: Encoded::decode(from)?,
            is_read_only: None,
        })
    }
}

const FOUND: u8 = 1;
const SET_NODE_ADDRESS: u8 = 2;
const CREATE_SPACE: u8 = 3;
const ALTER_SPACE: u8 = 4;
const SET_LIMITS: u8 = 5;
/// As [`ALTER_SPACE`], then whether the space is read-only.
const ALTER_SPACE_READ_ONLY: u8 = 32;
const ADD_NODE: u8 = 6;
const UPDATE_NODE: u8 = 7;
const EDIT: u8 = 8;
const TAKE_OVER: u8 = 9;
/// As [`TAKE_OVER`], then the newest state that is known.
const TAKE_OVER_KNOWN: u8 = 33;
/// As [`EDIT`], then the groups that begin empty, and where.
const EDIT_EMPTY: u8 = 34;
/// Since feature level 2.
const RAISE_LEVEL: u8 = 35;

impl Encoded for CatalogCommand {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Found(founding) => {
                out.push(FOUND);
                founding.encode(out);
            }
            Self::SetNodeAddress { node, address } => {
                out.push(SET_NODE_ADDRESS);
                put_u64(out, *node);
                address.encode(out);
            }
            Self::CreateSpace { name, graph, policy } => {
                out.push(CREATE_SPACE);
                name.encode(out);
                graph.encode(out);
                policy.encode(out);
            }
            Self::AlterSpace { name, changes } => {
                out.push(changes.is_read_only.map_or(ALTER_SPACE, |_| ALTER_SPACE_READ_ONLY));
                name.encode(out);
                changes.encode(out);
                if let Some(is_read_only) = changes.is_read_only {
                    is_read_only.encode(out);
                }
            }
            Self::SetLimits { limits } => {
                out.push(SET_LIMITS);
                limits.encode(out);
            }
            Self::AddNode(facts) => {
                out.push(ADD_NODE);
                facts.encode(out);
            }
            Self::UpdateNode { node, facts } => {
                out.push(UPDATE_NODE);
                put_u64(out, *node);
                facts.encode(out);
            }
            Self::Edit(edit) => {
                out.push(if edit.empty.is_empty() { EDIT } else { EDIT_EMPTY });
                edit.encode(out);
                if !edit.empty.is_empty() {
                    edit.empty.encode(out);
                }
            }
            Self::TakeOver(taken) => {
                out.push(if taken.known.is_some() { TAKE_OVER_KNOWN } else { TAKE_OVER });
                taken.encode(out);
            }
            Self::RaiseLevel { epoch, level } => {
                out.push(RAISE_LEVEL);
                epoch.encode(out);
                level.encode(out);
            }
        }
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(match from.byte()? {
            FOUND => Self::Found(Founding::decode(from)?),
            SET_NODE_ADDRESS => Self::SetNodeAddress { node: from.u64()?, address: from.string()? },
            CREATE_SPACE => Self::CreateSpace {
                name: from.string()?,
                graph: from.string()?,
                policy: SpacePolicy::decode(from)?,
            },
            ALTER_SPACE => Self::AlterSpace { name: from.string()?, changes: SpaceChanges::decode(from)? },
            ALTER_SPACE_READ_ONLY => {
                let (name, changes) = (from.string()?, SpaceChanges::decode(from)?);
                let is_read_only = Some(from.flag()?);
                Self::AlterSpace { name, changes: SpaceChanges { is_read_only, ..changes } }
            }
            SET_LIMITS => Self::SetLimits { limits: Limits::decode(from)? },
            ADD_NODE => Self::AddNode(NodeFacts::decode(from)?),
            UPDATE_NODE => Self::UpdateNode { node: from.u64()?, facts: NodeFacts::decode(from)? },
            EDIT => Self::Edit(Edit::decode(from)?),
            EDIT_EMPTY => {
                let edit = Edit::decode(from)?;
                Self::Edit(Edit { empty: Encoded::decode(from)?, ..edit })
            }
            TAKE_OVER => Self::TakeOver(TakeOver::decode(from)?),
            TAKE_OVER_KNOWN => {
                let taken = TakeOver::decode(from)?;
                let known = Some(Box::new(CatalogState::decode(from)?));
                Self::TakeOver(TakeOver { known, ..taken })
            }
            RAISE_LEVEL => Self::RaiseLevel { epoch: from.u64()?, level: from.u32()? },
            _ => return Err(from.malformed("catalog command")),
        })
    }
}

impl CatalogCommand {
    /// The encoding, as one item of a batch.
    pub fn to_bytes(&self) -> Bytes {
        let mut out = Vec::new();
        self.encode(&mut out);
        out.into()
    }
}

/// Reads a batch of the catalog's log; it is framed like a partition's.
pub(super) fn decode_batch(bytes: &[u8]) -> Result<Vec<CatalogCommand>, Malformed> {
    let mut from = Reader::new(bytes);
    from.u64()?;
    let commands = from.list(|from| {
        let mut item = Reader::new(from.bytes()?);
        let command = CatalogCommand::decode(&mut item)?;
        item.end()?;
        Ok(command)
    })?;
    from.end()?;
    Ok(commands)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = decode_batch(&bytes);
        }
    }
}
