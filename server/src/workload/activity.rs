//! Owns a drawn activity: mostly posts, with a share of everything else that changes feeds.
//!
//! - The same graph, options and seed give the same operations.
//! - Every operation is one that succeeds; only a follow may be refused, because of a block.

use bytes::Bytes;
use fanfold_protocol::UserId;
use fanfold_protocol::message::Audience;
use rand::distr::weighted::WeightedIndex;
use rand::prelude::Distribution;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::graph::FollowGraph;
use super::operation::{AppendNumber, Made, Operation, Post, Relation};
use super::powerlaw::PowerLaw;

/// How much more the busiest write than the rest.
const BUSINESS_EXPONENT: f64 = 0.7;
/// What happens, with its weight among 1,000.
const MIX: [(Kind, u32); 9] = [
    (Kind::Post, 930),
    (Kind::Delete, 20),
    (Kind::Amend, 12),
    (Kind::Unfollow, 12),
    (Kind::Refollow, 10),
    (Kind::Mute, 5),
    (Kind::Unmute, 3),
    (Kind::Block, 5),
    (Kind::Unblock, 3),
];
/// Chances of a post: a reply or repost, another author, for followers only, for nobody else.
const REFERS: f64 = 0.2;
const OTHER_AUTHOR: f64 = 0.01;
const FOLLOWERS_ONLY: f64 = 0.03;
const PRIVATE: f64 = 0.01;
/// Payload bytes of a drawn post.
const TEXT_BYTES: std::ops::RangeInclusive<usize> = 20..=140;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Post,
    Delete,
    Amend,
    Unfollow,
    Refollow,
    Mute,
    Unmute,
    Block,
    Unblock,
}

/// What a drawn activity looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActivityOptions {
    /// Posts in it; everything else comes on top.
    pub posts: usize,
    /// What it is drawn from.
    pub seed: u64,
}

/// Draws operations on a graph whose edges stand already.
#[derive(Debug)]
pub struct SeededActivity {
    rng: ChaCha8Rng,
    posts_left: usize,
    mix: WeightedIndex<u32>,
    business: PowerLaw,
    by_rank: Vec<UserId>,
    readers: Vec<(UserId, Vec<UserId>)>,
    appends: usize,
    /// Entries that are there, with their versions.
    live: Vec<(Made, u32)>,
    unfollowed: Vec<(UserId, UserId)>,
    muted: Vec<(UserId, UserId)>,
    blocked: Vec<(UserId, UserId)>,
}

impl SeededActivity {
    /// Prepares to draw. The graph must have an edge, or there is nobody to act.
    pub fn new(graph: &FollowGraph, options: ActivityOptions) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(options.seed);
        let mut by_rank = graph.users();
        by_rank.shuffle(&mut rng);
        let readers = graph
            .readers()
            .filter(|(_, owners)| !owners.is_empty())
            .map(|(reader, owners)| (reader, owners.to_vec()))
            .collect();
        Self {
            rng,
            posts_left: options.posts,
            mix: WeightedIndex::new(MIX.map(|(_, weight)| weight))
                .expect("the weights are positive constants"),
            business: PowerLaw::new(by_rank.len(), BUSINESS_EXPONENT),
            by_rank,
            readers,
            appends: 0,
            live: Vec::new(),
            unfollowed: Vec::new(),
            muted: Vec::new(),
            blocked: Vec::new(),
        }
    }

    /// An operation of the kind, if there is something to do it to.
    fn draw(&mut self, kind: Kind) -> Option<Operation> {
        match kind {
            Kind::Post => Some(self.post()),
            Kind::Delete => {
                let (entry, _) = take_any(&mut self.rng, &mut self.live)?;
                Some(Operation::Delete { entry })
            }
            Kind::Amend => self.amend(),
            Kind::Unfollow => {
                let (reader, owner) = self.any_edge()?;
                self.unfollowed.push((reader, owner));
                Some(Operation::Unfollow { reader, owner })
            }
            Kind::Refollow => {
                let (reader, owner) = take_any(&mut self.rng, &mut self.unfollowed)?;
                Some(Operation::Follow { reader, owners: vec![owner] })
            }
            Kind::Mute => self.relate(Relation::Mute),
            Kind::Block => self.relate(Relation::Block),
            Kind::Unmute => {
                let (user, target) = take_any(&mut self.rng, &mut self.muted)?;
                Some(Operation::Relate { user, target, change: Relation::Unmute })
            }
            Kind::Unblock => {
                let (user, target) = take_any(&mut self.rng, &mut self.blocked)?;
                Some(Operation::Relate { user, target, change: Relation::Unblock })
            }
        }
    }

    fn post(&mut self) -> Operation {
        self.posts_left -= 1;
        let owner = self.by_rank[self.business.draw(&mut self.rng)];
        let other_author = self.rng.random_bool(OTHER_AUTHOR);
        let author = other_author.then(|| self.by_rank[self.business.draw(&mut self.rng)]);
        let audience = match self.rng.random::<f64>() {
            chance if chance < PRIVATE => Audience::Private,
            chance if chance < PRIVATE + FOLLOWERS_ONLY => Audience::Followers,
            _ => Audience::Public,
        };
        let refers = self.rng.random_bool(REFERS) && !self.live.is_empty();
        let reference = refers.then(|| self.live[self.rng.random_range(0..self.live.len())].0);
        let payload = self.text();
        self.live.push((Made { owner, by: AppendNumber(self.appends) }, 1));
        self.appends += 1;
        Operation::Append(Post { owner, author, audience, reference, payload })
    }

    fn amend(&mut self) -> Option<Operation> {
        if self.live.is_empty() {
            return None;
        }
        let payload = self.text();
        let place = self.rng.random_range(0..self.live.len());
        let (entry, version) = &mut self.live[place];
        *version += 1;
        Some(Operation::Amend { entry: *entry, version: *version - 1, payload })
    }

    /// A mute or block where it shows: between a reader and somebody followed, in either direction.
    fn relate(&mut self, change: Relation) -> Option<Operation> {
        let (reader, owner) = self.any_edge()?;
        let turned = self.rng.random_bool(0.2);
        let (user, target) = if turned { (owner, reader) } else { (reader, owner) };
        if user == target {
            return None;
        }
        let list = if change == Relation::Mute { &mut self.muted } else { &mut self.blocked };
        list.push((user, target));
        Some(Operation::Relate { user, target, change })
    }

    fn any_edge(&mut self) -> Option<(UserId, UserId)> {
        if self.readers.is_empty() {
            return None;
        }
        let (reader, owners) = &self.readers[self.rng.random_range(0..self.readers.len())];
        Some((*reader, owners[self.rng.random_range(0..owners.len())]))
    }

    fn text(&mut self) -> Bytes {
        let bytes = self.rng.random_range(TEXT_BYTES);
        (0..bytes).map(|_| b"etaoin shrdlu"[self.rng.random_range(0..13)]).collect()
    }
}

impl Iterator for SeededActivity {
    type Item = Operation;

    fn next(&mut self) -> Option<Operation> {
        while self.posts_left > 0 {
            let kind = MIX[self.mix.sample(&mut self.rng)].0;
            // A kind without anything to act on yet gives way to the next draw.
            if let Some(operation) = self.draw(kind) {
                return Some(operation);
            }
        }
        None
    }
}

fn take_any<T>(rng: &mut ChaCha8Rng, from: &mut Vec<T>) -> Option<T> {
    if from.is_empty() {
        return None;
    }
    let place = rng.random_range(0..from.len());
    Some(from.swap_remove(place))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(seed: u64) -> Vec<Operation> {
        let graph = FollowGraph::power_law(300, 1);
        SeededActivity::new(&graph, ActivityOptions { posts: 5_000, seed }).collect()
    }

    #[test]
    fn a_seed_gives_one_activity_and_another_seed_another() {
        assert_eq!(drawn(1), drawn(1));
        assert_ne!(drawn(1), drawn(2));
    }

    #[test]
    fn every_kind_of_operation_is_drawn_and_exactly_the_posts_asked_for() {
        let operations = drawn(5);
        let count = |wanted: fn(&Operation) -> bool| operations.iter().filter(|o| wanted(o)).count();
        assert_eq!(count(|o| matches!(o, Operation::Append(_))), 5_000);
        assert!(count(|o| matches!(o, Operation::Append(Post { reference: Some(_), .. }))) > 500);
        assert!(count(|o| matches!(o, Operation::Delete { .. })) > 20);
        assert!(count(|o| matches!(o, Operation::Amend { .. })) > 20);
        assert!(count(|o| matches!(o, Operation::Unfollow { .. })) > 20);
        assert!(count(|o| matches!(o, Operation::Follow { .. })) > 20);
        for change in [Relation::Mute, Relation::Unmute, Relation::Block, Relation::Unblock] {
            let of_change = |o: &&Operation| matches!(o, Operation::Relate { change: c, .. } if *c == change);
            assert!(operations.iter().filter(of_change).count() > 1, "{change:?}");
        }
    }

    #[test]
    fn no_entry_is_touched_after_its_delete() {
        let mut deleted = std::collections::HashSet::new();
        for operation in drawn(9) {
            match operation {
                Operation::Delete { entry } => assert!(deleted.insert(entry.by)),
                Operation::Amend { entry, .. } => assert!(!deleted.contains(&entry.by)),
                Operation::Append(post) => {
                    assert!(post.reference.is_none_or(|made| !deleted.contains(&made.by)));
                }
                _ => {}
            }
        }
    }
}
