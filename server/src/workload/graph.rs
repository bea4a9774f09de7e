//! Owns follower graphs for workloads: drawn from a seed, or gathered from pairs.
//!
//! - A graph is a list of readers with the owners each follows, both in ascending order and without repeats.
//! - The same seed and size give the same graph.

use std::collections::BTreeMap;

use fanfold_protocol::UserId;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::operation::Operation;
use super::powerlaw::PowerLaw;

/// How much rarer the popular are than the rest; the first of 20,000 users is followed by a third of them.
const POPULARITY_EXPONENT: f64 = 0.8;
/// The tail of the number of owners a reader follows (Pareto's alpha).
const FOLLOWEES_ALPHA: f64 = 1.6;
/// The fewest owners a reader follows, on the way to a mean of about 24.
const FOLLOWEES_MIN: f64 = 9.0;
/// Owners followed in one operation at most.
const OWNERS_PER_FOLLOW_MAX: usize = 1_000;
/// The most owners a reader follows.
const FOLLOWEES_MAX: f64 = 1_000.0;

/// Who follows whom.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FollowGraph {
    followees: BTreeMap<UserId, Vec<UserId>>,
}

impl FollowGraph {
    /// Draws a graph of the users 1 to `users` in which few are followed by very many.
    pub fn power_law(users: u64, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut by_rank: Vec<UserId> = (1..=users).map(UserId).collect();
        by_rank.shuffle(&mut rng);
        let popularity = PowerLaw::new(by_rank.len(), POPULARITY_EXPONENT);
        let mut followees = BTreeMap::new();
        for reader in (1..=users).map(UserId) {
            let wanted = owners_wanted(&mut rng).min(users as usize - 1);
            let mut owners: Vec<UserId> = (0..wanted)
                .map(|_| by_rank[popularity.draw(&mut rng)])
                .filter(|owner| *owner != reader)
                .collect();
            owners.sort_unstable();
            owners.dedup();
            followees.insert(reader, owners);
        }
        Self { followees }
    }

    /// Gathers a graph from (reader, owner) pairs in any order; repeats are dropped, self-follows kept.
    pub fn from_pairs(pairs: impl IntoIterator<Item = (UserId, UserId)>) -> Self {
        let mut followees: BTreeMap<UserId, Vec<UserId>> = BTreeMap::new();
        for (reader, owner) in pairs {
            followees.entry(reader).or_default().push(owner);
        }
        for owners in followees.values_mut() {
            owners.sort_unstable();
            owners.dedup();
        }
        Self { followees }
    }

    /// Each reader with the owners followed.
    pub fn readers(&self) -> impl Iterator<Item = (UserId, &[UserId])> {
        self.followees.iter().map(|(reader, owners)| (*reader, owners.as_slice()))
    }

    /// The operations that make this graph on an empty node.
    pub fn operations(&self) -> impl Iterator<Item = Operation> {
        self.readers().flat_map(|(reader, owners)| {
            owners
                .chunks(OWNERS_PER_FOLLOW_MAX)
                .map(move |owners| Operation::Follow { reader, owners: owners.to_vec() })
        })
    }

    /// Pairs, self-follows not counted.
    pub fn edges(&self) -> u64 {
        self.readers()
            .map(|(reader, owners)| owners.iter().filter(|owner| **owner != reader).count() as u64)
            .sum()
    }

    /// Everybody who follows or is followed, ascending.
    pub fn users(&self) -> Vec<UserId> {
        let mut users: Vec<UserId> = self
            .readers()
            .flat_map(|(reader, owners)| std::iter::once(reader).chain(owners.iter().copied()))
            .collect();
        users.sort_unstable();
        users.dedup();
        users
    }
}

/// A Pareto-distributed number of owners, cut at both ends.
fn owners_wanted(rng: &mut ChaCha8Rng) -> usize {
    let uniform: f64 = rng.random_range(f64::EPSILON..1.0);
    (FOLLOWEES_MIN * uniform.powf(-1.0 / FOLLOWEES_ALPHA)).min(FOLLOWEES_MAX) as usize
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn a_seed_gives_one_graph_and_another_seed_another() {
        assert_eq!(FollowGraph::power_law(200, 7), FollowGraph::power_law(200, 7));
        assert_ne!(FollowGraph::power_law(200, 7), FollowGraph::power_law(200, 8));
    }

    #[test]
    fn a_drawn_graph_has_celebrities_and_no_self_follows() {
        let graph = FollowGraph::power_law(5_000, 1);
        let mut followers: HashMap<UserId, u64> = HashMap::new();
        for (reader, owners) in graph.readers() {
            assert!(!owners.contains(&reader));
            for owner in owners {
                *followers.entry(*owner).or_default() += 1;
            }
        }
        let mut counts: Vec<u64> = followers.into_values().collect();
        counts.sort_unstable_by(|a, b| b.cmp(a));
        let mean = graph.edges() / 5_000;
        assert!((15..=35).contains(&mean), "mean {mean}");
        assert!(counts[0] > 40 * mean, "the most followed has {}", counts[0]);
    }

    #[test]
    fn pairs_are_gathered_without_repeats_and_self_follows_are_no_edges() {
        let pairs = [(2, 1), (1, 2), (2, 1), (1, 1), (1, 3)].map(|(a, b)| (UserId(a), UserId(b)));
        let graph = FollowGraph::from_pairs(pairs);
        assert_eq!(graph.edges(), 3);
        assert_eq!(graph.users(), [1, 2, 3].map(UserId));
        assert_eq!(graph.readers().next(), Some((UserId(1), [1, 2, 3].map(UserId).as_slice())));
    }
}
