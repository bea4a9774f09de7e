//! Owns the comparison of the whole system with the oracle.

use super::*;
use crate::node::{read_feed, read_news};

impl System {
    /// Delivers everything and compares every feed, timeline and count with the oracle.
    pub fn check(&mut self, slices: bool) {
        self.drain();
        self.oracle.set_now(self.now);
        for node in &mut self.nodes {
            // A command without an effect: time passes, and no slice is served.
            node.propose(self.now, &[Command::Trim { through: JournalPosition(0) }]);
            while slices && node.partition.slices_pending() > 0 {
                node.propose(self.now, &[Command::Tick]);
            }
        }
        self.check_entries();
        for node in &self.nodes {
            node.replayed();
            assert!(node.partition.damage().is_none());
        }
        for reader in (0..self.users).map(UserId) {
            for space in SPACES {
                let expected = self.oracle.feed(space, reader);
                for limit in [1, 3, 1_000] {
                    let feed = read_feed(&self.nodes, space, reader, limit);
                    assert_eq!(feed, expected, "feed of {reader} in {space}, pages of {limit}");
                }
                self.check_timelines(space, reader);
                self.check_news(space, reader);
            }
            let followees: Vec<UserId> = self.oracle.followees(GRAPH, reader).collect();
            let at_home = home(&self.nodes, reader);
            assert_eq!(at_home.followee_count(GRAPH, reader), followees.len() as u64);
            let scanned = at_home.followees(GRAPH, reader, None, 1_000);
            assert!(scanned.iter().map(|(id, _)| *id).eq(followees));
            for (owner, since) in scanned {
                let imported = self.imports.since.get(&(reader, owner));
                assert!(imported.is_none_or(|imported| *imported == since), "{reader} follows {owner}");
            }
            let readers =
                (0..self.users).map(UserId).filter(|r| self.oracle.follows(GRAPH, *r, reader)).count();
            let reached = at_home.reach(GRAPH, reader);
            let counts = reached
                .iter()
                .map(|p| self.nodes[usize::from(p.0)].partition.follower_count_here(GRAPH, reader));
            assert_eq!(counts.sum::<u64>(), readers as u64, "followers of {reader}");
        }
    }

    /// Compares every entry ever made, by its id.
    fn check_entries(&self) {
        for (id, _, owner) in &self.made {
            let at_home = home(&self.nodes, *owner);
            let expected = self.oracle.entry(*id);
            assert_eq!(at_home.entries(&[*id])[0].as_ref(), expected);
            assert_eq!(at_home.explain_owner(*id, at_home.id()).entry.as_ref(), expected);
            if let Some(expiry) = expected.and_then(|entry| entry.expiry) {
                assert!(at_home.next_due().is_some_and(|due| due <= expiry), "an expiry without a tick");
            }
        }
    }

    fn check_timelines(&self, space: SpaceId, owner: UserId) {
        let slice = home(&self.nodes, owner).timeline(space, owner, EntryId::MAX, 1_000);
        let ids: Vec<EntryId> = slice.entries.iter().map(|entry| entry.id).collect();
        assert_eq!(ids, self.oracle.timeline(space, owner, None), "timeline of {owner} in {space}");
        for entry in &slice.entries {
            assert_eq!(Some(entry), self.oracle.entry(entry.id));
        }
        let (mut oldest, mut below) = (Vec::new(), EntryId::MAX);
        loop {
            let page = home(&self.nodes, owner).timeline(space, owner, below, 2);
            oldest.extend(page.entries.iter().map(|entry| entry.id));
            assert_eq!(page.more, oldest.len() < ids.len(), "the end of the timeline of {owner} in {space}");
            if !page.more {
                break;
            }
            below = oldest[oldest.len() - 1];
        }
        assert_eq!(oldest, ids, "timeline of {owner} in {space}, in pages");
        let subjects: Vec<_> = slice
            .entries
            .iter()
            .map(|e| fanfold_storage::partition::Subject {
                graph: GRAPH,
                owner,
                author: e.author,
                referenced_owner: e.reference.map(|r| r.owner),
                audience: e.audience,
            })
            .collect();
        for viewer in (0..self.users).map(UserId) {
            let admitted = home(&self.nodes, viewer).admits(viewer, &subjects);
            let expected = slice.entries.iter().map(|entry| self.oracle.admits(viewer, entry));
            assert!(admitted.into_iter().eq(expected), "what {viewer} sees of {owner}");
        }
    }

    fn check_news(&self, space: SpaceId, reader: UserId) {
        let Some(mark) = self.marks.get(&reader) else { return };
        let settled = |id: &EntryId| !self.touched.contains(id);
        let before: Vec<EntryId> = self.made[..mark.made].iter().map(|(id, ..)| *id).collect();
        let expected = self.oracle.feed(space, reader).into_iter().filter(|id| !before.contains(id));
        let news = read_news(&self.nodes, space, reader, mark.row, mark.bound);
        // An imported entry is as old as it says.
        let old = |id: &EntryId| *id < mark.bound && self.imports.entries.contains(id);
        let expected: Vec<_> = expected.filter(settled).filter(|id| !old(id)).collect();
        assert_eq!(
            news.into_iter().filter(settled).collect::<Vec<_>>(),
            expected,
            "news of {reader} in {space}"
        );
    }
}
