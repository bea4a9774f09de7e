//! Owns what sampled feeds must show: the entries of whom each sampled reader follows, and the reader's own, newest first.
//!
//! - Only the posts of owners whom a sampled reader follows are kept, as the node answered them.

use std::collections::{HashMap, HashSet};

use fanfold_protocol::message::Page;
use fanfold_protocol::{EntryId, UserId};

use super::job::user;
use crate::load::graph::BenchGraph;

/// A sampled reader and everybody whose entries the reader sees.
#[derive(Debug)]
struct Sampled {
    reader: u32,
    owners: Vec<u32>,
}

/// The sampled readers and the posts that concern them.
#[derive(Debug, Default)]
pub(super) struct Oracle {
    sampled: Vec<Sampled>,
    concerning: HashSet<u32>,
    posts: HashMap<u32, Vec<EntryId>>,
}

impl Oracle {
    /// An oracle for these readers.
    pub(super) fn new(graph: &BenchGraph, readers: &[u32]) -> Self {
        let mut sampled = Vec::with_capacity(readers.len());
        for reader in readers {
            let mut owners = Vec::new();
            graph.followees(*reader, &mut owners);
            owners.extend(graph.celebrities_of(*reader));
            owners.push(*reader);
            sampled.push(Sampled { reader: *reader, owners });
        }
        let concerning = sampled.iter().flat_map(|sampled| sampled.owners.iter().copied()).collect();
        Self { sampled, concerning, posts: HashMap::new() }
    }

    /// Every sampled reader follows this owner from now on, who has not posted yet.
    pub(super) fn followed_by_all(&mut self, owner: u32) {
        self.concerning.insert(owner);
        self.sampled.iter_mut().for_each(|sampled| sampled.owners.push(owner));
    }

    /// An owner's post was answered.
    pub(super) fn posted(&mut self, owner: u32, id: EntryId) {
        if self.concerning.contains(&owner) {
            self.posts.entry(owner).or_default().push(id);
        }
    }

    /// The sampled readers.
    pub(super) fn readers(&self) -> Vec<u32> {
        self.sampled.iter().map(|sampled| sampled.reader).collect()
    }

    /// Whether a page of a sampled reader, asked for with `limit`, shows what it must.
    pub(super) fn agrees(&self, reader: u32, limit: usize, page: &Page) -> bool {
        let Some(sampled) = self.sampled.iter().find(|sampled| sampled.reader == reader) else {
            return false;
        };
        let mut expected: Vec<(EntryId, UserId)> = Vec::new();
        for owner in &sampled.owners {
            let posts = self.posts.get(owner).into_iter().flatten();
            expected.extend(posts.map(|id| (*id, user(*owner))));
        }
        expected.sort_unstable_by(|a, b| b.cmp(a));
        // A reader who is also a followed owner, or a celebrity, counts once.
        expected.dedup();
        expected.truncate(limit);
        let shown = page.entries.iter().map(|entry| (entry.id, entry.owner));
        page.short_of.is_empty() && shown.eq(expected)
    }
}

/// Whether a reader follows exactly those whom the graph says, ascending.
pub(super) fn follows_as_drawn(graph: &BenchGraph, reader: u32, held: &[UserId]) -> bool {
    let mut owners = Vec::new();
    graph.followees(reader, &mut owners);
    owners.extend(graph.celebrities_of(reader));
    held.iter().copied().eq(owners.into_iter().map(user))
}

#[cfg(test)]
mod tests {
    use super::super::page::tests::{READER, graph, page};
    use super::*;
    use crate::load::graph::{GraphOptions, GraphShape};

    #[test]
    fn an_edge_too_few_or_too_many_is_noticed() {
        let shape = GraphShape::Uniform;
        let options = GraphOptions { shape, users: 20, mean_followers: 3.0, celebrities: true, seed: 1 };
        let graph = BenchGraph::new(&options).unwrap();
        let mut owners = Vec::new();
        graph.followees(6, &mut owners);
        let mut held: Vec<UserId> = owners.iter().copied().chain(graph.celebrities_of(6)).map(user).collect();
        assert_eq!(held.len(), 13);
        assert!(follows_as_drawn(&graph, 6, &held));
        assert!(!follows_as_drawn(&graph, 6, &held[..12]));
        held.push(UserId(1_000));
        assert!(!follows_as_drawn(&graph, 6, &held));
    }

    #[test]
    fn missing_repeated_wrong_and_misplaced_entries_are_noticed() {
        let (graph, [a, b], other) = graph();
        let mut oracle = Oracle::new(&graph, &[READER]);
        for (owner, id) in [(a, 10), (b, 20), (5, 30), (other, 40), (a, 50)] {
            oracle.posted(owner, EntryId(id));
        }
        let agrees = |entries: &[(u64, u32)]| oracle.agrees(5, 3, &page(entries, None));
        assert!(agrees(&[(50, a), (30, 5), (20, b)]));
        assert!(!agrees(&[(50, a), (30, 5)]));
        assert!(!agrees(&[(50, a), (50, a), (30, 5)]));
        assert!(!agrees(&[(50, a), (40, other), (30, 5)]));
        assert!(!agrees(&[(50, a), (20, b), (30, 5)]));
        assert!(!agrees(&[(50, b), (30, 5), (20, b)]));
        assert!(!agrees(&[(50, a), (30, 5), (20, b), (10, a)]));
        assert!(oracle.agrees(5, 9, &page(&[(50, a), (30, 5), (20, b), (10, a)], None)));
    }
}
