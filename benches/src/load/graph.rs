//! Owns the graph of a measurement: who follows whom, drawn from a seed or read from a file.
//!
//! - Users are `1..=users`; the celebrities of the merged reads come on top, as `users + 1..=users + CELEBRITIES`.
//! - Followees are computed from a hash each time, so that a graph of 200 million edges takes no memory on the side that does not need
//!   the followers; these are one array, made when first asked for.
//! - The same options give the same graph, on every machine.

use std::path::{Path, PathBuf};

use fanfold_protocol::{PartitionId, UserId};

use crate::tsv::{self, FollowLine, TsvError};

/// Celebrities of a graph that has any.
pub const CELEBRITIES: u32 = 20;
/// Celebrities that each reader with an even id follows; the others follow none.
pub const CELEBRITIES_FOLLOWED: u32 = 10;
/// The share of all users who follow the most followed owner of a drawn power law.
const MOST_FOLLOWED_SHARE: f64 = 0.07;
/// Most users.
pub const USERS_MAX: u32 = 100_000_000;
/// Most edges: an array of followers takes 4 bytes each.
pub const EDGES_MAX: u64 = 1 << 32;

/// How owners are drawn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GraphShape {
    /// Owners' followers follow a power law (Zipf and Mandelbrot, exponent 0.8), with an offset that leaves the most
    /// followed owner 7 % of all users; every reader follows as many owners as an owner has followers on average.
    PowerLaw,
    /// Every owner is drawn equally often.
    Uniform,
    /// Lines of follower and followee, separated by a tab; plain or compressed with zstd.
    File(PathBuf),
}

/// What a graph is drawn from.
#[derive(Debug, Clone, PartialEq)]
pub struct GraphOptions {
    /// How owners are drawn.
    pub shape: GraphShape,
    /// Users; a file brings its own.
    pub users: u32,
    /// Followers of an owner on average, 0.1 to 10,000; a file brings its own.
    pub mean_followers: f64,
    /// Whether there are [`CELEBRITIES`] on top, of whom every second reader follows [`CELEBRITIES_FOLLOWED`].
    pub celebrities: bool,
    /// What everything is drawn from.
    pub seed: u64,
}

/// Why a graph was not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GraphError {
    /// There must be a few users, and not too many.
    #[error("{got} users were asked for; 2 to {USERS_MAX} can be measured")]
    Users {
        /// How many were asked for.
        got: u64,
    },
    /// There are too many or too few edges for so many users.
    #[error(
        "{got} followers on average do not fit {users} users; ask for 0.1 to half of the users, 2^32 edges in all"
    )]
    MeanFollowers {
        /// How many were asked for.
        got: f64,
        /// The users.
        users: u32,
    },
    /// The file could not be read.
    #[error(transparent)]
    File(#[from] TsvError),
}

/// Who follows whom.
#[derive(Debug, Clone)]
pub struct BenchGraph {
    users: u32,
    mean_followers: f64,
    celebrities: bool,
    seed: u64,
    edges: Edges,
}

/// Where followees come from.
#[derive(Debug, Clone)]
enum Edges {
    PowerLaw(Popularity),
    Uniform,
    /// Followees of user `u` at index `u - 1`.
    Listed(UserLists),
}

/// For each user a list of users; one array for all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserLists {
    starts: Vec<u64>,
    members: Vec<u32>,
}

/// Draws ranks by the closed form of the law of Zipf and Mandelbrot, and spreads them over the users.
#[derive(Debug, Clone, Copy)]
struct Popularity {
    offset: f64,
    low: f64,
    span: f64,
    stride: u64,
}

impl UserLists {
    /// The list of a user, 1 to the number of lists; empty for others.
    pub fn of(&self, user: u32) -> &[u32] {
        let index = user as usize;
        match (index.checked_sub(1).and_then(|before| self.starts.get(before)), self.starts.get(index)) {
            (Some(start), Some(end)) => &self.members[*start as usize..*end as usize],
            _ => &[],
        }
    }

    /// Entries of all lists.
    pub fn len(&self) -> u64 {
        self.members.len() as u64
    }

    /// Whether all lists are empty.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }
}

impl BenchGraph {
    /// The graph of these options.
    pub fn new(options: &GraphOptions) -> Result<Self, GraphError> {
        if let GraphShape::File(path) = &options.shape {
            return Self::from_file(path, options);
        }
        let users = options.users;
        if !(2..=USERS_MAX).contains(&users) {
            return Err(GraphError::Users { got: u64::from(users) });
        }
        let mean = options.mean_followers;
        let edges = mean * f64::from(users);
        if !(mean >= 0.1 && mean <= f64::from(users) / 2.0 && edges <= EDGES_MAX as f64) {
            return Err(GraphError::MeanFollowers { got: mean, users });
        }
        let edges = match options.shape {
            GraphShape::PowerLaw => Edges::PowerLaw(Popularity::new(users, mean)),
            GraphShape::Uniform | GraphShape::File(_) => Edges::Uniform,
        };
        Ok(Self { users, mean_followers: mean, celebrities: options.celebrities, seed: options.seed, edges })
    }

    fn from_file(path: &Path, options: &GraphOptions) -> Result<Self, GraphError> {
        let lines = tsv::read::<FollowLine>(path, usize::MAX)?;
        let mut ids: Vec<UserId> = lines.iter().flat_map(|line| [line.reader, line.owner]).collect();
        ids.sort_unstable();
        ids.dedup();
        let users = u32::try_from(ids.len()).unwrap_or(u32::MAX);
        if !(2..=USERS_MAX).contains(&users) {
            return Err(GraphError::Users { got: ids.len() as u64 });
        }
        let dense = |user: UserId| ids.partition_point(|id| *id < user) as u32 + 1;
        let mut pairs: Vec<(u32, u32)> = lines
            .iter()
            .filter(|line| line.reader != line.owner)
            .map(|line| (dense(line.reader), dense(line.owner)))
            .collect();
        pairs.sort_unstable();
        pairs.dedup();
        let mut starts = Vec::with_capacity(users as usize + 1);
        starts.push(0);
        let mut at = 0;
        for user in 1..=users {
            while pairs.get(at).is_some_and(|pair| pair.0 == user) {
                at += 1;
            }
            starts.push(at as u64);
        }
        let members: Vec<u32> = pairs.into_iter().map(|(_, owner)| owner).collect();
        let mean_followers = members.len() as f64 / f64::from(users);
        let edges = Edges::Listed(UserLists { starts, members });
        Ok(Self { users, mean_followers, celebrities: options.celebrities, seed: options.seed, edges })
    }

    /// Users, celebrities not counted.
    pub fn users(&self) -> u32 {
        self.users
    }

    /// Users and celebrities: everybody is `1..=everybody()`.
    pub fn everybody(&self) -> u32 {
        self.users + if self.celebrities { CELEBRITIES } else { 0 }
    }

    /// The first celebrity's id, if there are celebrities; the last is [`Self::everybody`].
    pub fn first_celebrity(&self) -> Option<u32> {
        self.celebrities.then_some(self.users + 1)
    }

    /// Followers of an owner on average, celebrities not counted: as asked for, or as the file has it.
    pub fn mean_followers(&self) -> f64 {
        self.mean_followers
    }

    /// What everything is drawn from.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Puts the owners that a reader follows into `owners`, ascending, without celebrities and without the reader.
    pub fn followees(&self, reader: u32, owners: &mut Vec<u32>) {
        owners.clear();
        let popularity = match &self.edges {
            Edges::Listed(lists) => {
                owners.extend_from_slice(lists.of(reader));
                return;
            }
            Edges::PowerLaw(popularity) => Some(popularity),
            Edges::Uniform => None,
        };
        let mut draws = Draws::new(self.seed, u64::from(reader));
        let wanted = self.wanted(&mut draws) as usize;
        let mut tries = 8 * wanted + 16;
        while owners.len() < wanted && tries > 0 {
            for _ in owners.len()..wanted {
                let owner = match popularity {
                    Some(popularity) => popularity.draw(draws.unit(), self.users),
                    None => draws.below(u64::from(self.users)) as u32 + 1,
                };
                if owner != reader {
                    owners.push(owner);
                }
                tries = tries.saturating_sub(1);
            }
            owners.sort_unstable();
            owners.dedup();
        }
    }

    /// How many owners a reader follows, celebrities not counted.
    pub fn degree(&self, reader: u32) -> u32 {
        match &self.edges {
            Edges::Listed(lists) => lists.of(reader).len() as u32,
            Edges::PowerLaw(_) | Edges::Uniform => self.wanted(&mut Draws::new(self.seed, u64::from(reader))),
        }
    }

    fn wanted(&self, draws: &mut Draws) -> u32 {
        self.mean_followers as u32 + u32::from(draws.unit() < self.mean_followers.fract())
    }

    /// The celebrities that a reader follows, ascending; none without celebrities or for odd readers.
    pub fn celebrities_of(&self, reader: u32) -> impl Iterator<Item = u32> + use<> {
        let follows = self.celebrities && reader.is_multiple_of(2) && reader <= self.users;
        let count = if follows { CELEBRITIES_FOLLOWED } else { 0 };
        let (first, start) = (self.users + 1, (reader / 2) % CELEBRITIES);
        let mut chosen: Vec<u32> = (0..count).map(|i| first + (start + i) % CELEBRITIES).collect();
        chosen.sort_unstable();
        chosen.into_iter()
    }

    /// The followers of each owner, celebrities' not included; each list ascending. Takes 4 bytes an edge and a while: it
    /// draws the graph twice.
    pub fn followers(&self) -> UserLists {
        let users = self.users as usize;
        let mut starts = vec![0u64; users + 2];
        let mut owners = Vec::new();
        for reader in 1..=self.users {
            self.followees(reader, &mut owners);
            owners.iter().for_each(|owner| starts[*owner as usize + 1] += 1);
        }
        for user in 1..starts.len() {
            starts[user] += starts[user - 1];
        }
        // `starts[owner]` is where the owner's list begins, and moves to its end while the list is filled.
        let mut members = vec![0u32; starts[users + 1] as usize];
        for reader in 1..=self.users {
            self.followees(reader, &mut owners);
            for owner in &owners {
                let slot = &mut starts[*owner as usize];
                members[*slot as usize] = reader;
                *slot += 1;
            }
        }
        starts.truncate(users + 1);
        UserLists { starts, members }
    }

    /// How many follow each owner, celebrities included; owner `o` at index `o - 1`.
    pub fn follower_counts(&self) -> Vec<u32> {
        let mut counts = vec![0u32; self.everybody() as usize];
        let mut owners = Vec::new();
        for reader in 1..=self.users {
            self.followees(reader, &mut owners);
            owners.extend(self.celebrities_of(reader));
            owners.iter().for_each(|owner| counts[*owner as usize - 1] += 1);
        }
        counts
    }

    /// How many partitions a post reaches on average: those of its owner's followers, and its owner's own.
    pub fn partitions_reached(&self, partitions: u16) -> f64 {
        let home = |user: u32| usize::from(PartitionId::of_user(UserId(u64::from(user)), partitions).0);
        let words = usize::from(partitions).div_ceil(64);
        let mut reached = vec![0u64; words * (self.users as usize + 1)];
        let mut owners = Vec::new();
        for reader in 1..=self.users {
            let partition = home(reader);
            self.followees(reader, &mut owners);
            for owner in owners.iter().chain([&reader]) {
                reached[words * *owner as usize + partition / 64] |= 1 << (partition % 64);
            }
        }
        let reached: u64 = reached.iter().map(|word| u64::from(word.count_ones())).sum();
        reached as f64 / f64::from(self.users)
    }

    /// The owner of the post with this number in a measured phase: every user equally often, celebrities never.
    pub fn owner_of_post(&self, number: u64) -> u32 {
        Draws::new(self.seed ^ 0x706f_7374, number).below(u64::from(self.users)) as u32 + 1
    }

    /// The reader of the read with this number: every user equally often. With celebrities, `follows_celebrities` says which half
    /// of the users is drawn from.
    pub fn reader_of_read(&self, number: u64, follows_celebrities: bool) -> u32 {
        let drawn = Draws::new(self.seed ^ 0x7265_6164, number).below(u64::from(self.users)) as u32;
        if !self.celebrities {
            return drawn + 1;
        }
        let even = (drawn | 1) + 1;
        let reader = if follows_celebrities { even } else { even - 1 };
        if reader > self.users { reader - 2 } else { reader }
    }

    /// Readers whose feeds are compared with the oracle: `count` drawn ones, ascending, without repeats.
    pub fn sampled_readers(&self, count: u32) -> Vec<u32> {
        let mut draws = Draws::new(self.seed ^ 0x7361_6d70, 0);
        let mut readers: Vec<u32> =
            (0..count).map(|_| draws.below(u64::from(self.users)) as u32 + 1).collect();
        readers.sort_unstable();
        readers.dedup();
        readers
    }
}

impl Popularity {
    /// One minus the law's exponent, as the fifth root that it is.
    const ROOT: i32 = 5;

    fn new(users: u32, mean_followers: f64) -> Self {
        let share = |offset: f64| {
            let span = root(f64::from(users) + offset) - root(offset);
            mean_followers * offset.powf(-0.8) / (f64::from(Self::ROOT) * span)
        };
        // The share of the most followed falls as the offset grows; more than the users makes no difference.
        let (mut low, mut high) = (1.0, f64::from(users));
        for _ in 0..64 {
            let middle = f64::midpoint(low, high);
            if share(middle) > MOST_FOLLOWED_SHARE { low = middle } else { high = middle }
        }
        let offset = high;
        let low = root(offset);
        let span = root(f64::from(users) + offset) - low;
        Self { offset, low, span, stride: stride(u64::from(users)) }
    }

    fn draw(&self, unit: f64, users: u32) -> u32 {
        let rank = (self.low + unit * self.span).powi(Self::ROOT) - self.offset;
        let rank = (rank.max(0.0) as u64).min(u64::from(users) - 1);
        (rank * self.stride % u64::from(users)) as u32 + 1
    }
}

fn root(x: f64) -> f64 {
    x.powf(1.0 / f64::from(Popularity::ROOT))
}

/// A number without a common factor with `users`, near the golden section of it: multiplying by it spreads ranks over ids.
fn stride(users: u64) -> u64 {
    let golden = (users as f64 * 0.618_033_988_749_894_9) as u64;
    (golden.max(1)..=users).find(|stride| gcd(*stride, users) == 1).unwrap_or(1)
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// A stream of drawn numbers (splitmix64; Steele, Lea and Flood, 2014).
#[derive(Debug, Clone)]
pub struct Draws(u64);

impl Draws {
    /// The stream with this number of this seed.
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut first = Self(seed ^ 0x5851_F42D_4C95_7F2D);
        let start = first.next() ^ stream.wrapping_mul(0xD134_2543_DE82_EF95);
        let mut second = Self(start);
        Self(second.next())
    }

    /// The next number.
    #[expect(clippy::should_implement_trait, reason = "an endless stream is no iterator")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// The next number below a bound, which must not be 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// The next number from 0 to below 1.
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(shape: GraphShape, users: u32, mean_followers: f64) -> GraphOptions {
        GraphOptions { shape, users, mean_followers, celebrities: false, seed: 7 }
    }

    fn followees(graph: &BenchGraph, reader: u32) -> Vec<u32> {
        let mut owners = Vec::new();
        graph.followees(reader, &mut owners);
        owners
    }

    #[test]
    fn followers_are_the_followees_turned_round() {
        for shape in [GraphShape::PowerLaw, GraphShape::Uniform] {
            let graph = BenchGraph::new(&options(shape, 500, 20.0)).unwrap();
            let followers = graph.followers();
            let counts = graph.follower_counts();
            let mut edges = 0;
            for reader in 1..=500 {
                let owners = followees(&graph, reader);
                assert!(owners.is_sorted_by(|a, b| a < b) && !owners.contains(&reader));
                for owner in owners {
                    assert!(followers.of(owner).contains(&reader));
                    edges += 1;
                }
            }
            assert_eq!(followers.len(), edges);
            for owner in 1..=500 {
                assert_eq!(followers.of(owner).len(), counts[owner as usize - 1] as usize);
                assert!(followers.of(owner).is_sorted());
            }
            assert!(followers.of(0).is_empty() && followers.of(501).is_empty());
        }
    }

    #[test]
    fn the_mean_is_as_asked_for_even_below_one() {
        for mean in [0.5, 3.25, 50.0] {
            let graph = BenchGraph::new(&options(GraphShape::Uniform, 4_000, mean)).unwrap();
            let edges: usize = (1..=4_000).map(|reader| followees(&graph, reader).len()).sum();
            let got = edges as f64 / 4_000.0;
            assert!((got - mean).abs() < 0.05, "{got} instead of {mean}");
        }
    }

    #[test]
    fn a_power_law_has_popular_owners_and_a_uniform_graph_has_none() {
        let most = |shape| {
            let graph = BenchGraph::new(&options(shape, 20_000, 50.0)).unwrap();
            graph.follower_counts().into_iter().max().unwrap()
        };
        assert!(most(GraphShape::PowerLaw) > 1_000);
        assert!(most(GraphShape::Uniform) < 120);
    }

    #[test]
    fn even_readers_follow_ten_celebrities_and_odd_ones_none() {
        let with = GraphOptions { celebrities: true, ..options(GraphShape::Uniform, 101, 5.0) };
        let graph = BenchGraph::new(&with).unwrap();
        assert_eq!(graph.celebrities_of(7).count(), 0);
        let chosen: Vec<u32> = graph.celebrities_of(38).collect();
        assert_eq!(chosen.len(), CELEBRITIES_FOLLOWED as usize);
        assert!(chosen.iter().all(|celebrity| (102..=121).contains(celebrity)));
        for number in 0..1_000 {
            let (even, odd) = (graph.reader_of_read(number, true), graph.reader_of_read(number, false));
            assert!((1..=101).contains(&even) && even % 2 == 0, "{even}");
            assert!((1..=101).contains(&odd) && odd % 2 == 1, "{odd}");
        }
    }

    #[test]
    fn a_file_gives_dense_users_without_self_follows() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("follows.tsv");
        std::fs::write(&path, "100\t7\n7\t100\n100\t55\n7\t7\n100\t7\n").unwrap();
        let graph = BenchGraph::new(&options(GraphShape::File(path), 0, 0.0)).unwrap();
        assert_eq!(graph.users(), 3);
        assert_eq!(followees(&graph, 3), [1, 2]);
        assert_eq!(followees(&graph, 1), [3]);
        assert_eq!(graph.followers().of(1), [3]);
    }

    #[test]
    fn what_cannot_be_drawn_is_refused() {
        let refused = |users, mean| BenchGraph::new(&options(GraphShape::Uniform, users, mean)).is_err();
        assert!(refused(1, 0.5) && refused(100, 0.0) && refused(100, 51.0) && refused(100, f64::NAN));
        assert!(!refused(100, 50.0));
    }
}
