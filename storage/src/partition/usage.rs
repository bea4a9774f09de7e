//! Owns the figures of a partition: what it holds and the memory that takes.

use super::Partition;
use super::feed::Feed;

/// A part of a partition's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryPart {
    /// Entries and payloads.
    Timelines,
    /// Local users with their edges, mutes and blocks.
    Following,
    /// Followed owners with their local followers.
    FollowersHere,
    /// Subscribed partitions of the owners homed here.
    Reach,
    /// Rows.
    Delivered,
    /// References.
    Feeds,
    /// Events for other partitions.
    Journal,
    /// Sessions and application keys.
    Sessions,
}

/// What a partition holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Entries of the timelines homed here.
    pub entries: u64,
    /// Feeds with at least one stored reference.
    pub feeds: u64,
    /// References stored now.
    pub references: u64,
    /// Local users of whom anything is known.
    pub users: u64,
    /// Edges of the local users.
    pub edges: u64,
    /// Owners with local followers.
    pub owners: u64,
    /// Rows of the delivered table.
    pub rows: u64,
    /// References ever stored in feeds: the deliveries made here.
    pub deliveries_stored: u64,
    /// Large fan-outs that are not done.
    pub slices: u64,
    /// Open sessions.
    pub sessions: u64,
    /// Bytes by part, estimated from capacities.
    pub memory: Vec<(MemoryPart, u64)>,
}

impl Partition {
    /// Counts what it holds; walks all users, so it is for status, not for every request.
    pub fn usage(&self) -> Usage {
        let feeds = || self.feeds.values().flatten();
        let edges =
            |user: &super::users::User| user.following.iter().map(|(_, e)| e.len() as u64).sum::<u64>();
        let feed_bytes = |feeds: &Vec<Feed>| {
            feeds.capacity() * size_of::<Feed>() + feeds.iter().map(Feed::memory).sum::<usize>()
        };
        let reach_bytes: usize = self.reach.values().map(|reach| reach.len() * 24 + 64).sum();
        let memory = [
            (MemoryPart::Timelines, self.timelines.memory()),
            (MemoryPart::Following, self.users.memory()),
            (MemoryPart::FollowersHere, self.owners.memory()),
            (MemoryPart::Reach, reach_bytes),
            (MemoryPart::Delivered, self.delivered.memory()),
            (MemoryPart::Feeds, self.feeds.values().map(feed_bytes).sum()),
            (MemoryPart::Journal, self.journal.memory()),
            (MemoryPart::Sessions, self.sessions.memory() + self.keys.memory()),
        ];
        Usage {
            entries: self.timelines.entries.len() as u64,
            feeds: feeds().filter(|feed| feed.len() > 0).count() as u64,
            references: feeds().map(|feed| feed.len() as u64).sum(),
            users: self.users.len() as u64,
            edges: self.users.iter().map(|(_, user)| edges(user)).sum(),
            owners: self.owners.iter().filter(|(_, owner)| owner.followers.len() > 0).count() as u64,
            rows: self.delivered.rows.len() as u64,
            deliveries_stored: self.deliveries_stored,
            slices: self.slices.len() as u64,
            sessions: self.sessions.open.len() as u64,
            memory: memory.map(|(part, bytes)| (part, bytes as u64)).to_vec(),
        }
    }

    /// Large fan-outs that are not done; while there are any, ticks serve them.
    pub fn slices_pending(&self) -> bool {
        !self.slices.is_empty()
    }
}
