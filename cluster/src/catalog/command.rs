//! Owns the commands of the catalog's log and what they answer, with their encodings.

use bytes::Bytes;
use fanfold_storage::codec::{Encoded, Malformed, Reader, put_u64};
use fanfold_storage::command::Limits;
use fanfold_storage::space::{FanOut, SpaceDefinition, SpacePolicy};

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
}

/// What a command of the catalog answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CatalogOutcome {
    /// Done.
    Done,
    /// The space as it is now.
    Space(SpaceDefinition),
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
    /// The batch was committed, but does not decode.
    Malformed,
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
        })
    }
}

const FOUND: u8 = 1;
const SET_NODE_ADDRESS: u8 = 2;
const CREATE_SPACE: u8 = 3;
const ALTER_SPACE: u8 = 4;
const SET_LIMITS: u8 = 5;

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
                out.push(ALTER_SPACE);
                name.encode(out);
                changes.encode(out);
            }
            Self::SetLimits { limits } => {
                out.push(SET_LIMITS);
                limits.encode(out);
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
            SET_LIMITS => Self::SetLimits { limits: Limits::decode(from)? },
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
    use fanfold_storage::command::encode_batch;
    use fanfold_storage::ids::Stamp;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_command_returns_from_its_encoding() {
        let founding = Founding {
            cluster_id: u128::MAX - 7,
            partitions: 4_096,
            node: 1,
            address: "host:1".into(),
            limits: Limits::default(),
            feature_level: 1,
        };
        let changes = SpaceChanges {
            default_ttl_ms: Some(None),
            horizon_ms: Some(Some(5)),
            fan_out: Some(FanOut::Pull),
            ..SpaceChanges::default()
        };
        let commands = vec![
            CatalogCommand::Found(founding),
            CatalogCommand::SetNodeAddress { node: 2, address: "other:1".into() },
            CatalogCommand::CreateSpace {
                name: "notes".into(),
                graph: "friends".into(),
                policy: SpacePolicy::default(),
            },
            CatalogCommand::AlterSpace { name: "notes".into(), changes },
            CatalogCommand::SetLimits { limits: Limits { window_rows: 4, ..Limits::default() } },
        ];
        let encoded: Vec<_> = commands.iter().map(CatalogCommand::to_bytes).collect();
        assert_eq!(decode_batch(&encode_batch(Stamp(9), &encoded)).unwrap(), commands);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = decode_batch(&bytes);
        }
    }
}
