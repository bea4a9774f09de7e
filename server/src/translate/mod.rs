//! Owns the mapping between what travels on the wire and what the node works with, in both directions.
//!
//! - Both crates have their own types for the same ids, so that neither imports the other; only this module knows both.
//! - A mapping that can fail says which field it failed at.

mod cluster;
mod figures;
mod import;
mod job;
mod page;
mod space;
mod status;
mod write;

use fanfold_protocol as wire;
use fanfold_storage::{entry as stored_entry, ids as stored};

pub use cluster::*;
pub use figures::*;
pub use job::*;
pub use page::*;
pub use space::*;
pub use status::*;
pub use write::*;

/// A user, from the wire.
pub fn user(id: wire::UserId) -> stored::UserId {
    stored::UserId(id.0)
}

/// Users, from the wire.
pub fn users(ids: Vec<wire::UserId>) -> Vec<stored::UserId> {
    ids.into_iter().map(user).collect()
}

/// A user, to the wire.
pub fn user_to_wire(id: stored::UserId) -> wire::UserId {
    wire::UserId(id.0)
}

/// An entry id, from the wire.
pub fn entry_id(id: wire::EntryId) -> stored::EntryId {
    stored::EntryId(id.0)
}

/// An entry id, to the wire.
pub fn entry_id_to_wire(id: stored::EntryId) -> wire::EntryId {
    wire::EntryId(id.0)
}

/// A space, from the wire.
pub fn space_id(id: wire::SpaceId) -> stored::SpaceId {
    stored::SpaceId(id.0)
}

/// A space, to the wire.
pub fn space_id_to_wire(id: stored::SpaceId) -> wire::SpaceId {
    wire::SpaceId(id.0)
}

/// A graph, from the wire.
pub fn graph_id(id: wire::GraphId) -> stored::GraphId {
    stored::GraphId(id.0)
}

/// A graph, to the wire.
pub fn graph_id_to_wire(id: stored::GraphId) -> wire::GraphId {
    wire::GraphId(id.0)
}

/// Who may answer a read, from the wire.
pub fn consistency(consistency: wire::message::Consistency) -> fanfold_cluster::read::Consistency {
    use fanfold_cluster::read::Consistency;
    match consistency {
        wire::message::Consistency::Leader => Consistency::Leader,
        wire::message::Consistency::AtLeast => Consistency::AtLeast,
        wire::message::Consistency::StaleOk { max_ms } => Consistency::StaleOk { max_ms },
    }
}

/// A partition, from the wire.
pub fn partition_id(id: wire::PartitionId) -> stored::PartitionId {
    stored::PartitionId(id.0)
}

/// A partition, to the wire.
pub fn partition_id_to_wire(id: stored::PartitionId) -> wire::PartitionId {
    wire::PartitionId(id.0)
}

/// A stamp, from the wire.
pub fn stamp(stamp: wire::Stamp) -> stored::Stamp {
    stored::Stamp(stamp.0)
}

/// A stamp, to the wire.
pub fn stamp_to_wire(stamp: stored::Stamp) -> wire::Stamp {
    wire::Stamp(stamp.0)
}

/// An audience, from the wire.
pub fn audience(audience: wire::message::Audience) -> stored_entry::Audience {
    match audience {
        wire::message::Audience::Public => stored_entry::Audience::Public,
        wire::message::Audience::Followers => stored_entry::Audience::Followers,
        wire::message::Audience::Private => stored_entry::Audience::Private,
    }
}

/// An audience, to the wire.
pub fn audience_to_wire(audience: stored_entry::Audience) -> wire::message::Audience {
    match audience {
        stored_entry::Audience::Public => wire::message::Audience::Public,
        stored_entry::Audience::Followers => wire::message::Audience::Followers,
        stored_entry::Audience::Private => wire::message::Audience::Private,
    }
}
