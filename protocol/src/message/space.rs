//! Owns the messages about spaces: list, create, alter.

use crate::error::BodyError;
use crate::field::Field;
use crate::ids::{GraphId, SpaceId};
use crate::wire::{Reader, Writer, bitmap};

/// Whether entries are stored in feeds or pulled when a feed is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum FanOut {
    /// Decided per owner and partition, by the threshold.
    #[default]
    Auto,
    /// Always stored in feeds.
    Push,
    /// Always pulled.
    Pull,
}

/// The rules of a space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpacePolicy {
    /// The TTL of entries that do not say, in milliseconds; `None` is for ever.
    pub default_ttl_ms: Option<u64>,
    /// References one feed holds.
    pub feed_cap: u32,
    /// The age in milliseconds beyond which entries leave feeds; `None` is never.
    pub horizon_ms: Option<u64>,
    /// Push, pull or automatic.
    pub fan_out: FanOut,
    /// Local followers above which an owner is pulled, if automatic.
    pub pull_threshold: u32,
    /// Bytes of one payload.
    pub payload_bytes_max: u32,
    /// Whether it takes no writes.
    pub is_read_only: bool,
}

/// Changes to the rules of a space; `None` leaves a rule as it is. Of two options, the outer one is the change
/// and the inner one the value or none.
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

/// Makes a space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateSpace {
    /// Its name, 1 to 64 bytes.
    pub name: String,
    /// The name of its graph, made if there is none; `None` is `follows`.
    pub graph: Option<String>,
    /// Its rules.
    pub policy: SpacePolicy,
}

/// Changes the rules of a space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlterSpace {
    /// The name of the space.
    pub name: String,
    /// What changes.
    pub changes: SpaceChanges,
}

/// A space as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpaceInfo {
    /// Its id.
    pub id: SpaceId,
    /// Its name.
    pub name: String,
    /// The id of its graph.
    pub graph: GraphId,
    /// The name of its graph.
    pub graph_name: String,
    /// Goes up with every change.
    pub version: u64,
    /// Its rules.
    pub policy: SpacePolicy,
}

impl FanOut {
    fn code(self) -> u8 {
        match self {
            Self::Auto => 0,
            Self::Push => 1,
            Self::Pull => 2,
        }
    }

    fn decode(r: &mut Reader) -> Result<Self, BodyError> {
        Ok(match r.byte(Field::FanOut)? {
            0 => Self::Auto,
            1 => Self::Push,
            2 => Self::Pull,
            _ => return Err(BodyError::Malformed { field: Field::FanOut }),
        })
    }
}

impl SpacePolicy {
    pub(crate) fn encode(&self, w: &mut Writer) {
        w.byte(bitmap([self.default_ttl_ms.is_some(), self.horizon_ms.is_some(), self.is_read_only]));
        if let Some(default_ttl_ms) = self.default_ttl_ms {
            w.number(default_ttl_ms);
        }
        w.number(self.feed_cap);
        if let Some(horizon_ms) = self.horizon_ms {
            w.number(horizon_ms);
        }
        w.byte(self.fan_out.code());
        w.number(self.pull_threshold);
        w.number(self.payload_bytes_max);
    }

    pub(crate) fn decode(r: &mut Reader) -> Result<Self, BodyError> {
        let present = r.presence(0b111)?;
        Ok(Self {
            default_ttl_ms: r.optional(present, 0, |r| r.number(Field::DefaultTtl))?,
            feed_cap: r.number32(Field::FeedCap)?,
            horizon_ms: r.optional(present, 1, |r| r.number(Field::Horizon))?,
            fan_out: FanOut::decode(r)?,
            pull_threshold: r.number32(Field::PullThreshold)?,
            payload_bytes_max: r.number32(Field::PayloadBytesMax)?,
            is_read_only: present >> 2 & 1 == 1,
        })
    }
}

impl SpaceChanges {
    fn encode(&self, w: &mut Writer) {
        w.byte(bitmap([
            self.default_ttl_ms.is_some(),
            self.feed_cap.is_some(),
            self.horizon_ms.is_some(),
            self.fan_out.is_some(),
            self.pull_threshold.is_some(),
            self.payload_bytes_max.is_some(),
            self.is_read_only.is_some(),
        ]));
        if let Some(default_ttl_ms) = self.default_ttl_ms {
            encode_nullable(w, default_ttl_ms);
        }
        if let Some(feed_cap) = self.feed_cap {
            w.number(feed_cap);
        }
        if let Some(horizon_ms) = self.horizon_ms {
            encode_nullable(w, horizon_ms);
        }
        if let Some(fan_out) = self.fan_out {
            w.byte(fan_out.code());
        }
        if let Some(pull_threshold) = self.pull_threshold {
            w.number(pull_threshold);
        }
        if let Some(payload_bytes_max) = self.payload_bytes_max {
            w.number(payload_bytes_max);
        }
        if let Some(is_read_only) = self.is_read_only {
            w.boolean(is_read_only);
        }
    }

    fn decode(r: &mut Reader) -> Result<Self, BodyError> {
        let present = r.presence(0b111_1111)?;
        Ok(Self {
            default_ttl_ms: r.optional(present, 0, |r| decode_nullable(r, Field::DefaultTtl))?,
            feed_cap: r.optional(present, 1, |r| r.number32(Field::FeedCap))?,
            horizon_ms: r.optional(present, 2, |r| decode_nullable(r, Field::Horizon))?,
            fan_out: r.optional(present, 3, FanOut::decode)?,
            pull_threshold: r.optional(present, 4, |r| r.number32(Field::PullThreshold))?,
            payload_bytes_max: r.optional(present, 5, |r| r.number32(Field::PayloadBytesMax))?,
            is_read_only: r.optional(present, 6, |r| r.boolean(Field::Policy))?,
        })
    }
}

fn encode_nullable(w: &mut Writer, value: Option<u64>) {
    w.boolean(value.is_some());
    if let Some(value) = value {
        w.number(value);
    }
}

fn decode_nullable(r: &mut Reader, field: Field) -> Result<Option<u64>, BodyError> {
    if r.boolean(field)? { r.number(field).map(Some) } else { Ok(None) }
}

impl CreateSpace {
    pub(crate) fn encode(&self, w: &mut Writer) {
        w.byte(bitmap([self.graph.is_some()]));
        w.string(&self.name);
        if let Some(graph) = &self.graph {
            w.string(graph);
        }
        self.policy.encode(w);
    }

    pub(crate) fn decode(r: &mut Reader) -> Result<Self, BodyError> {
        let present = r.presence(0b1)?;
        Ok(Self {
            name: r.string(Field::Name)?,
            graph: r.optional(present, 0, |r| r.string(Field::Graph))?,
            policy: SpacePolicy::decode(r)?,
        })
    }
}

impl AlterSpace {
    pub(crate) fn encode(&self, w: &mut Writer) {
        w.string(&self.name);
        self.changes.encode(w);
    }

    pub(crate) fn decode(r: &mut Reader) -> Result<Self, BodyError> {
        Ok(Self { name: r.string(Field::Name)?, changes: SpaceChanges::decode(r)? })
    }
}

impl SpaceInfo {
    /// Fewest bytes on the wire.
    pub(crate) const BYTES_MIN: usize = 10;

    pub(crate) fn encode(&self, w: &mut Writer) {
        w.number(self.id.0);
        w.string(&self.name);
        w.number(self.graph.0);
        w.string(&self.graph_name);
        w.number(self.version);
        self.policy.encode(w);
    }

    pub(crate) fn decode(r: &mut Reader) -> Result<Self, BodyError> {
        Ok(Self {
            id: SpaceId(r.number16(Field::Space)?),
            name: r.string(Field::Name)?,
            graph: GraphId(r.number16(Field::Graph)?),
            graph_name: r.string(Field::Graph)?,
            version: r.number(Field::Version)?,
            policy: SpacePolicy::decode(r)?,
        })
    }
}
