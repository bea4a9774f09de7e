//! Owns the export: everything of a partition that an import can bring back, at one position of its log.

use std::collections::HashMap;

use bytes::Bytes;

use super::Partition;
use crate::entry::Entry;
use crate::ids::{EntryId, GraphId, Stamp, UserId};
use crate::segment::SegmentError;

/// An edge as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExportedEdge {
    /// The graph.
    pub graph: GraphId,
    /// Who follows.
    pub reader: UserId,
    /// Whom.
    pub owner: UserId,
    /// Since when.
    pub since: Stamp,
}

impl Partition {
    /// Gives away all edges of the readers homed here, by reader, graph and owner, until one is not taken.
    pub fn export_edges<E>(&self, mut take: impl FnMut(ExportedEdge) -> Result<(), E>) -> Result<(), E> {
        let mut readers: Vec<_> = self.users.iter().collect();
        readers.sort_unstable_by_key(|(_, user)| user.id);
        for (_, user) in readers {
            let edges = user.lists().flat_map(|(graph, list)| list.iter().map(move |edge| (graph, edge)));
            let mut edges: Vec<_> =
                edges.map(|(graph, edge)| (graph, self.owners.get(edge.owner).id, edge.since)).collect();
            edges.sort_unstable();
            for (graph, owner, since) in edges {
                take(ExportedEdge { graph, reader: user.id, owner, since })?;
            }
        }
        Ok(())
    }

    /// Gives away all live entries of the owners homed here, in no order, each with its application key if that is still
    /// remembered, until one is not taken. Fails at a damaged record: what was given away is not all.
    pub fn export_entries<E: From<SegmentError>>(
        &self,
        mut take: impl FnMut(&Entry, Option<&Bytes>) -> Result<(), E>,
    ) -> Result<(), E> {
        let keys = self.keys.iter().map(|((_, _, key), id)| (id, key));
        let keys: HashMap<EntryId, &Bytes> = keys.collect();
        self.timelines.each(self.stamp, |entry| take(entry, keys.get(&entry.id).copied()))
    }
}
