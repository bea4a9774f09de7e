//! Owns the mapping of imported edges and entries.

use fanfold_protocol::message as wire;
use fanfold_storage::command as stored;
use fanfold_storage::entry::EntryRef;
use fanfold_storage::import::{ImportEdge, ImportEntry, Lifetime, Place};

use super::{audience, entry_id, graph_id, space_id, stamp, user};

/// Edges, from the wire.
pub(super) fn import_follows(follows: wire::ImportFollows) -> stored::Write {
    let edge = |edge: wire::ImportEdge| ImportEdge {
        reader: user(edge.reader),
        owner: user(edge.owner),
        since: edge.since.map(stamp),
    };
    let edges = follows.edges.into_iter().map(edge).collect();
    stored::Write::ImportFollows { graph: graph_id(follows.graph), edges }
}

/// An entry, from the wire.
pub(super) fn import_entry(entry: wire::ImportEntry) -> ImportEntry {
    ImportEntry {
        space: space_id(entry.space),
        owner: user(entry.owner),
        author: entry.author.map(user),
        audience: audience(entry.audience),
        place: match entry.place {
            wire::ImportPlace::Time(time) => Place::Time { stamp: stamp(time) },
            wire::ImportPlace::Id(id) => Place::Id { id: entry_id(id) },
        },
        lifetime: match entry.expiry {
            wire::ImportExpiry::SpaceDefault => Lifetime::SpaceDefault,
            wire::ImportExpiry::Never => Lifetime::Never,
            wire::ImportExpiry::At(expiry) => Lifetime::Until { expiry: stamp(expiry) },
        },
        version: entry.version,
        key: entry.key,
        reference: entry.reference.map(|r| EntryRef { owner: user(r.owner), id: entry_id(r.id) }),
        payload: entry.payload,
    }
}
