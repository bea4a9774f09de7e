//! Owns the mapping of spaces and their rules.

use fanfold_protocol::message as wire;
use fanfold_storage::space as stored;

use super::{graph_id_to_wire, space_id_to_wire};

/// A choice of push and pull, from the wire.
pub fn fan_out(fan_out: wire::FanOut) -> stored::FanOut {
    match fan_out {
        wire::FanOut::Auto => stored::FanOut::Auto,
        wire::FanOut::Push => stored::FanOut::Push,
        wire::FanOut::Pull => stored::FanOut::Pull,
    }
}

/// The rules of a space, from the wire.
pub fn policy(policy: &wire::SpacePolicy) -> stored::SpacePolicy {
    stored::SpacePolicy {
        default_ttl_ms: policy.default_ttl_ms,
        feed_cap: policy.feed_cap,
        horizon_ms: policy.horizon_ms,
        fan_out: fan_out(policy.fan_out),
        pull_threshold: policy.pull_threshold,
        payload_bytes_max: policy.payload_bytes_max,
        is_read_only: policy.is_read_only,
    }
}

/// The rules of a space, to the wire.
pub fn policy_to_wire(policy: &stored::SpacePolicy) -> wire::SpacePolicy {
    wire::SpacePolicy {
        default_ttl_ms: policy.default_ttl_ms,
        feed_cap: policy.feed_cap,
        horizon_ms: policy.horizon_ms,
        fan_out: match policy.fan_out {
            stored::FanOut::Auto => wire::FanOut::Auto,
            stored::FanOut::Push => wire::FanOut::Push,
            stored::FanOut::Pull => wire::FanOut::Pull,
        },
        pull_threshold: policy.pull_threshold,
        payload_bytes_max: policy.payload_bytes_max,
        is_read_only: policy.is_read_only,
    }
}

/// A space, to the wire.
pub fn space_to_wire(space: &stored::SpaceDefinition) -> wire::SpaceInfo {
    wire::SpaceInfo {
        id: space_id_to_wire(space.id),
        name: space.name.clone(),
        graph: graph_id_to_wire(space.graph),
        graph_name: space.graph_name.clone(),
        version: space.version,
        policy: policy_to_wire(&space.policy),
    }
}

/// The changes to a space, from the wire.
pub fn changes(changes: &wire::SpaceChanges) -> fanfold_cluster::SpaceChanges {
    fanfold_cluster::SpaceChanges {
        default_ttl_ms: changes.default_ttl_ms,
        feed_cap: changes.feed_cap,
        horizon_ms: changes.horizon_ms,
        fan_out: changes.fan_out.map(fan_out),
        pull_threshold: changes.pull_threshold,
        payload_bytes_max: changes.payload_bytes_max,
        is_read_only: changes.is_read_only,
    }
}
