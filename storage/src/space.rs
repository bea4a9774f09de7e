//! Owns the definition of a space: its name, its graph and its policy.
//!
//! - A definition comes into a partition only through the partition's log (R3).
//! - The graph of a space never changes.

use crate::ids::{GraphId, SpaceId};

/// How the entries of an owner reach the feeds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FanOut {
    /// Push, and pull where an owner has more local followers than the threshold.
    #[default]
    Auto,
    /// Always store a reference per follower.
    Push,
    /// Never store a reference per follower.
    Pull,
}

/// What an operator may change of a space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpacePolicy {
    /// The time to live of entries that name none, in milliseconds; none: they stay.
    pub default_ttl_ms: Option<u64>,
    /// How many references a feed keeps; older entries are read from the timelines. 1 to 100,000.
    pub feed_cap: u32,
    /// Entries older than this many milliseconds are in no feed; none: no limit.
    pub horizon_ms: Option<u64>,
    /// Push or pull.
    pub fan_out: FanOut,
    /// Local followers above which an owner is pulled, if the fan-out is [`FanOut::Auto`].
    pub pull_threshold: u32,
    /// The largest payload, in bytes. At most 1 MiB.
    pub payload_bytes_max: u32,
    /// Whether its timelines take no writes.
    pub is_read_only: bool,
}

impl Default for SpacePolicy {
    fn default() -> Self {
        Self {
            default_ttl_ms: None,
            feed_cap: 800,
            horizon_ms: None,
            fan_out: FanOut::Auto,
            pull_threshold: 10_000,
            payload_bytes_max: 64 * 1024,
            is_read_only: false,
        }
    }
}

/// A space as a partition knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpaceDefinition {
    /// Its number.
    pub id: SpaceId,
    /// Its name; 1 to 64 bytes of `a`-`z`, `0`-`9`, `-`, `_`.
    pub name: String,
    /// The graph whose edges fill its feeds.
    pub graph: GraphId,
    /// The name of that graph.
    pub graph_name: String,
    /// Counts the changes; a partition ignores a definition that is not newer than its own.
    pub version: u64,
    /// What may be changed.
    pub policy: SpacePolicy,
}
