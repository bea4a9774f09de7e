//! Owns the translation between the wire's words and the oracle's.

use fanfold_protocol::UserId;
use fanfold_protocol::message::Audience;
use fanfold_protocol::message::{FanOut, SpaceInfo};
use fanfold_storage::{entry, ids as stored, space};

/// A user.
pub(super) fn stored_user(user: UserId) -> stored::UserId {
    stored::UserId(user.0)
}

/// An audience.
pub(super) fn stored_audience(audience: Audience) -> entry::Audience {
    match audience {
        Audience::Public => entry::Audience::Public,
        Audience::Followers => entry::Audience::Followers,
        Audience::Private => entry::Audience::Private,
    }
}

/// A space as the node describes it.
pub(super) fn stored_space(info: SpaceInfo) -> space::SpaceDefinition {
    space::SpaceDefinition {
        id: stored::SpaceId(info.id.0),
        name: info.name,
        graph: stored::GraphId(info.graph.0),
        graph_name: info.graph_name,
        version: info.version,
        policy: space::SpacePolicy {
            default_ttl_ms: info.policy.default_ttl_ms,
            feed_cap: info.policy.feed_cap,
            horizon_ms: info.policy.horizon_ms,
            fan_out: match info.policy.fan_out {
                FanOut::Auto => space::FanOut::Auto,
                FanOut::Push => space::FanOut::Push,
                FanOut::Pull => space::FanOut::Pull,
            },
            pull_threshold: info.policy.pull_threshold,
            payload_bytes_max: info.policy.payload_bytes_max,
            is_read_only: info.policy.is_read_only,
        },
    }
}
