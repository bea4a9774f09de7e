//! Owns what the Redis side must know of the graph and of the fill: who follows whom, and which entries each feed begins with.
//!
//! - A feed begins with exactly the entries that the posts of the fill would have put there: the same graph and the same order as
//!   on the other side, the last `feed_cap` of them.
//! - Entry ids are [`keys::id_of`] of the post's number; posts of the fill come first, then the measured ones.

use std::sync::Arc;

use super::keys;
use crate::load::fill::FillPlan;
use crate::load::graph::{BenchGraph, UserLists};

/// The graph, the fill, and who stands where.
#[derive(Debug, Clone)]
pub struct Plan {
    graph: Arc<BenchGraph>,
    followers: Arc<UserLists>,
    fill: FillPlan,
    feed_cap: u32,
    instances: usize,
    everyone: Vec<u32>,
}

impl Plan {
    /// Of a graph and its followers, over one or two instances.
    pub fn new(
        graph: Arc<BenchGraph>,
        followers: Arc<UserLists>,
        fill: FillPlan,
        feed_cap: u32,
        instances: usize,
    ) -> Self {
        Self { graph, followers, fill, feed_cap, instances, everyone: Vec::new() }
    }

    /// The graph.
    pub fn graph(&self) -> &BenchGraph {
        &self.graph
    }

    /// Entries that a feed keeps.
    pub fn feed_cap(&self) -> u32 {
        self.feed_cap
    }

    /// Servers.
    pub fn instances(&self) -> usize {
        self.instances
    }

    /// Posts of the fill.
    pub fn fill_posts(&self) -> u64 {
        self.fill.posts()
    }

    /// The owner whom everybody follows: not one of the graph.
    pub fn whale(&self) -> u32 {
        self.graph.everybody() + 1
    }

    /// Makes everybody follow the whale.
    pub fn add_whale(&mut self) {
        self.everyone = (1..=self.graph.users()).collect();
    }

    /// The followers of `owner` whose feeds stand on `instance`, ascending.
    pub fn followers_on(&self, owner: u32, instance: usize) -> &[u32] {
        let all = if owner == self.whale() { &self.everyone[..] } else { self.followers.of(owner) };
        if self.instances == 1 {
            return all;
        }
        let users = self.graph.users();
        let middle = all.partition_point(|reader| keys::instance_of(*reader, users, 2) == 0);
        if instance == 0 { &all[..middle] } else { &all[middle..] }
    }

    /// Whether `reader` follows the whale.
    pub fn follows_whale(&self) -> bool {
        !self.everyone.is_empty()
    }

    /// The instance that holds the feed of `reader`.
    pub fn instance_of(&self, reader: u32) -> usize {
        keys::instance_of(reader, self.graph.users(), self.instances)
    }

    /// The ids of the entries that the feed of `reader` begins with, the oldest first. `owners` is room for the followees.
    pub fn first_entries(&self, reader: u32, owners: &mut Vec<u32>, ids: &mut Vec<u64>) {
        ids.clear();
        self.graph.followees(reader, owners);
        let per_round = owners.len() as u64;
        if per_round == 0 {
            return;
        }
        let rounds = self.fill.rounds();
        let wanted = u64::from(self.feed_cap).min(rounds * per_round);
        // Rounds that are wholly cut off by the cap need not be looked up.
        let skipped = rounds - wanted.div_ceil(per_round);
        for round in skipped..rounds {
            ids.extend(owners.iter().map(|owner| keys::id_of(self.fill.number_of(round, *owner))));
        }
        let surplus = ids.len() - wanted as usize;
        ids.drain(..surplus);
    }

    /// The ids of a celebrity's entries, the oldest first, at most the cap.
    pub fn celebrity_entries(&self, celebrity: u32) -> Vec<u64> {
        let numbers = self.fill.numbers_of_celebrity(celebrity);
        let surplus = numbers.len().saturating_sub(self.feed_cap as usize);
        numbers[surplus..].iter().map(|number| keys::id_of(*number)).collect()
    }

    /// The celebrities of the graph.
    pub fn celebrities(&self) -> std::ops::RangeInclusive<u32> {
        let everybody = self.graph.everybody();
        self.graph.first_celebrity().unwrap_or(everybody + 1)..=everybody
    }

    /// The numbers of the posts of the fill that a page of `limit` entries can show: those of the last rounds. It looks at every
    /// reader.
    pub fn shown_numbers(&self, limit: u32) -> std::ops::Range<u64> {
        let mut owners = Vec::new();
        let fewest = (1..=self.graph.users()).map(|reader| {
            self.graph.followees(reader, &mut owners);
            owners.len() as u64
        });
        // Who follows nobody has an empty feed; all others get an entry from each of their followees in each round.
        let fewest = fewest.filter(|count| *count > 0).min().unwrap_or(1);
        let rounds = u64::from(limit).div_ceil(fewest).min(self.fill.rounds());
        let posts = self.fill.posts();
        posts - rounds * self.fill.round_posts()..posts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::graph::{GraphOptions, GraphShape};

    #[test]
    fn a_feed_begins_with_the_last_entries_of_the_fill_by_those_whom_the_reader_follows() {
        let options = GraphOptions {
            shape: GraphShape::PowerLaw,
            users: 300,
            mean_followers: 12.5,
            celebrities: true,
            seed: 3,
        };
        let graph = Arc::new(BenchGraph::new(&options).unwrap());
        let followers = Arc::new(graph.followers());
        let fill = FillPlan::new(&graph, 40, 100);
        let plan = Plan::new(Arc::clone(&graph), followers, fill, 40, 2);
        let (mut owners, mut ids, mut followees) = (Vec::new(), Vec::new(), Vec::new());
        for reader in [1, 77, 150, 151, 300] {
            graph.followees(reader, &mut followees);
            let mut expected: Vec<u64> = (0..fill.posts())
                .filter(|number| followees.contains(&fill.owner(*number)))
                .map(keys::id_of)
                .collect();
            expected.drain(..expected.len().saturating_sub(40));
            plan.first_entries(reader, &mut owners, &mut ids);
            assert_eq!(ids, expected, "reader {reader}");
        }
        for owner in 1..=300 {
            let halves = [plan.followers_on(owner, 0), plan.followers_on(owner, 1)];
            assert!(halves[0].iter().all(|reader| *reader <= 150));
            assert_eq!(halves.concat(), graph.followers().of(owner));
        }
    }
}
