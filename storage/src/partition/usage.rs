//! Owns the figures of a partition: what it holds and the memory that takes.

use super::Partition;
use super::feed::Feeds;
use super::posting::WALK_MEMBERS;
use crate::ids::{RowPosition, Stamp};

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
    /// Entries of the timelines homed here that are not deleted; of the expired, those that were not swept yet and those whose
    /// segment is still there.
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
    /// Bytes by part, with what the allocator adds.
    pub memory: Vec<(MemoryPart, u64)>,
}

impl Partition {
    /// What it holds, from counts that are kept as it changes: cheap enough to ask every second.
    pub fn usage(&self) -> Usage {
        let feeds = |count: fn(&Feeds) -> u64| self.feeds.values().map(count).sum();
        // The standard tree takes about twice its keys.
        let expiries = 2 * self.row_expiries.len() * size_of::<(Stamp, RowPosition)>();
        let memory = [
            (MemoryPart::Timelines, self.timelines.memory()),
            (MemoryPart::Following, self.users.memory()),
            (MemoryPart::FollowersHere, self.owners.memory()),
            (MemoryPart::Reach, self.reach.memory()),
            (MemoryPart::Delivered, self.delivered.memory() + self.special.memory() + expiries),
            (MemoryPart::Feeds, self.feeds.values().map(Feeds::memory).sum()),
            (MemoryPart::Journal, self.journal.memory()),
            (MemoryPart::Sessions, self.sessions.memory() + self.keys.memory()),
        ];
        Usage {
            entries: self.timelines.len(),
            feeds: feeds(Feeds::count),
            references: feeds(Feeds::references),
            users: self.users.len() as u64,
            edges: self.users.edges(),
            owners: self.owners.followed(),
            rows: self.delivered.len(),
            deliveries_stored: feeds(Feeds::stored),
            slices: self.slices.len() as u64,
            sessions: self.sessions.open.len() as u64,
            memory: memory.map(|(part, bytes)| (part, bytes as u64)).to_vec(),
        }
    }

    /// Counts the edges by walking what each local user follows: what [`Usage::edges`] says, if all is sound.
    pub fn walk_following(&self) -> u64 {
        let mut owners = Vec::new();
        let graphs: std::collections::BTreeSet<_> = self.spaces.values().map(|space| space.graph).collect();
        let mut edges = 0;
        for (_, user) in self.users.iter() {
            for graph in &graphs {
                user.owners_into(*graph, &mut owners);
                edges += owners.len() as u64;
            }
        }
        edges
    }

    /// Counts the edges by walking the local followers of each owner: the same number, if all is sound.
    pub fn walk_followers(&self) -> u64 {
        let (mut block, mut edges) = ([0; WALK_MEMBERS], 0);
        for (_, owner) in self.owners.iter() {
            let mut walk = owner.followers.iter();
            loop {
                match walk.fill(&mut block) {
                    0 => break,
                    count => edges += count as u64,
                }
            }
        }
        edges
    }

    /// How many large fan-outs are not done; while there are any, ticks serve them.
    pub fn slices_pending(&self) -> usize {
        self.slices.len()
    }
}
