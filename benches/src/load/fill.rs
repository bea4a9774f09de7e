//! Owns the posts that fill every feed before anything is measured.
//!
//! - The fill goes in rounds: in each, every user posts once, in ascending order, and the celebrities' posts lie evenly between.
//! - A post of the fill has a number, from 0; it says who posts. So a side can put synthetic entries where the posts of the fill
//!   would have put them.

use super::graph::{BenchGraph, CELEBRITIES};

/// Which posts fill the feeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FillPlan {
    users: u64,
    celebrity_posts: u64,
    rounds: u64,
}

impl FillPlan {
    /// As many rounds as give a reader of average following `feed_cap` entries, at most `rounds_max`.
    pub fn new(graph: &BenchGraph, feed_cap: u32, rounds_max: u32) -> Self {
        let mean = graph.mean_followers().max(0.01);
        let rounds = (f64::from(feed_cap) / mean).ceil() as u64;
        // A celebrity posts so often that the ten which a reader follows fill half of a page.
        let each = (mean / 10.0).ceil() as u64;
        let celebrity_posts =
            if graph.first_celebrity().is_some() { each * u64::from(CELEBRITIES) } else { 0 };
        Self { users: u64::from(graph.users()), celebrity_posts, rounds: rounds.min(u64::from(rounds_max)) }
    }

    /// Rounds.
    pub fn rounds(&self) -> u64 {
        self.rounds
    }

    /// Posts of one round.
    pub fn round_posts(&self) -> u64 {
        self.users + self.celebrity_posts
    }

    /// Posts in all.
    pub fn posts(&self) -> u64 {
        self.rounds * self.round_posts()
    }

    /// Who makes the post with this number; celebrities are above the users.
    pub fn owner(&self, number: u64) -> u32 {
        let at = number % self.round_posts();
        let before = self.celebrity_posts_before(at);
        if self.celebrity_posts_before(at + 1) > before {
            return (self.users + 1 + before % u64::from(CELEBRITIES)) as u32;
        }
        (at - before + 1) as u32
    }

    /// The number of a user's post in a round; not for celebrities.
    pub fn number_of(&self, round: u64, user: u32) -> u64 {
        let wanted = u64::from(user) - 1;
        // The first position that has seen as many users' posts; the share of celebrities' posts gives a first guess.
        let mut at = wanted * self.round_posts() / self.users.max(1);
        while at > 0 && at - self.celebrity_posts_before(at) > wanted {
            at -= 1;
        }
        while at - self.celebrity_posts_before(at) < wanted
            || self.celebrity_posts_before(at + 1) > self.celebrity_posts_before(at)
        {
            at += 1;
        }
        round * self.round_posts() + at
    }

    /// The numbers of a celebrity's posts, ascending.
    pub fn numbers_of_celebrity(&self, celebrity: u32) -> Vec<u64> {
        let which = (u64::from(celebrity) - self.users - 1) % u64::from(CELEBRITIES);
        let in_round =
            (which..self.celebrity_posts).step_by(CELEBRITIES as usize).map(|post| self.at_of(post));
        let in_round: Vec<u64> = in_round.collect();
        (0..self.rounds)
            .flat_map(|round| in_round.iter().map(move |at| round * self.round_posts() + at))
            .collect()
    }

    /// Where in a round the celebrities' post with this number lies.
    fn at_of(&self, post: u64) -> u64 {
        // The smallest position after which `post + 1` posts were made.
        ((post + 1) * self.round_posts()).div_ceil(self.celebrity_posts) - 1
    }

    fn celebrity_posts_before(&self, at: u64) -> u64 {
        at * self.celebrity_posts / self.round_posts()
    }
}

#[cfg(test)]
mod tests {
    use super::super::graph::{GraphOptions, GraphShape};
    use super::*;

    fn plan(users: u32, mean_followers: f64, celebrities: bool) -> FillPlan {
        let shape = GraphShape::Uniform;
        let options = GraphOptions { shape, users, mean_followers, celebrities, seed: 1 };
        FillPlan::new(&BenchGraph::new(&options).unwrap(), 40, 100)
    }

    #[test]
    fn in_each_round_every_user_posts_once_and_numbers_are_found_again() {
        for (users, mean, celebrities) in
            [(100, 20.0, true), (37, 11.5, true), (50, 20.0, false), (2_000, 400.0, true)]
        {
            let plan = plan(users, mean, celebrities);
            let mut posts = vec![Vec::new(); users as usize + CELEBRITIES as usize + 1];
            for number in 0..plan.posts() {
                posts[plan.owner(number) as usize].push(number);
            }
            for user in 1..=users {
                let numbers: Vec<u64> = (0..plan.rounds()).map(|round| plan.number_of(round, user)).collect();
                assert_eq!(posts[user as usize], numbers, "user {user} of {users}");
            }
            for celebrity in users + 1..=users + CELEBRITIES {
                let numbers = if celebrities { plan.numbers_of_celebrity(celebrity) } else { Vec::new() };
                assert_eq!(posts[celebrity as usize], numbers, "celebrity {celebrity} of {users}");
            }
        }
    }

    #[test]
    fn an_average_reader_is_filled_to_the_cap() {
        assert_eq!(plan(100, 20.0, false).rounds(), 2);
        assert_eq!(plan(100, 15.0, false).rounds(), 3);
        assert_eq!(plan(100, 0.1, false).rounds(), 100);
    }
}
