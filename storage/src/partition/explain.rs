//! Owns the facts by which an entry is, or is not, in a feed.

use super::Partition;
use super::delivered::RowState;
use super::users::User;
use crate::command::Refusal;
use crate::entry::{Audience, Delivery, Entry};
use crate::event::Event;
use crate::ids::{EntryId, JournalPosition, PartitionId, SpaceId, Stamp, UserId};

/// What the reader's partition knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReaderFacts {
    /// The entry is in the reader's own timeline.
    pub own: bool,
    /// Since when the reader follows the owner.
    pub followed_since: Option<Stamp>,
    /// Whether the owner's rows are here; if not, its timeline is asked.
    pub filled: bool,
    /// Whether there is a row of the entry here.
    pub row: bool,
    /// Whether the reader's feed holds a reference to that row.
    pub stored: bool,
    /// Whether the owner is pulled here now.
    pub pulled: bool,
    /// Whether the row is still being stored in slices.
    pub slicing: bool,
    /// The feed's floor: at or below it, the stored references are not asked.
    pub feed_floor: EntryId,
    /// The owner's floor: at or below it, the owner's timeline is asked.
    pub owner_floor: EntryId,
    /// Up to this id the owner's rows are read from the chain, whether they are stored or not.
    pub walk_to: EntryId,
    /// Of owner, author and referenced owner, those the reader has muted.
    pub muted: Vec<UserId>,
    /// Blocks (blocker, blocked) between the reader and those.
    pub blocked: Vec<(UserId, UserId)>,
    /// Whether the entry has expired by this partition's stamp.
    pub expired: bool,
    /// Whether it is older than the space's horizon.
    pub below_horizon: bool,
    /// This partition's stamp.
    pub stamp: Stamp,
}

/// What the entry's home knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerFacts {
    /// The entry, if it is there; deleted, expired and never made look alike afterwards.
    pub entry: Option<Entry>,
    /// Whether the entry is withheld from feeds by its audience.
    pub withheld: bool,
    /// The journal position of the last event about it towards the reader's partition, if it is kept still.
    pub event: Option<JournalPosition>,
}

impl Partition {
    /// The facts at the reader's home.
    ///
    /// # Errors
    /// The space is unknown, or the reader is homed elsewhere.
    pub fn explain_reader(
        &self,
        space: SpaceId,
        reader: UserId,
        subject: &Delivery,
    ) -> Result<ReaderFacts, Refusal> {
        let view = self.viewpoint(space, reader)?;
        let graph = self.spaces[&space].graph;
        let index = self.owners.find(graph, subject.owner);
        let owner = index.map(|index| self.owners.get(index));
        let edge = index.and_then(|index| view.user.and_then(|user| user.edge(graph, index)));
        let chain = owner.and_then(|owner| owner.chain(space));
        let row = chain.and_then(|c| self.delivered.chain(c.head).find(|(_, row)| row.id == subject.id));
        let row = row.filter(|(_, row)| row.state() != RowState::Dead).map(|(position, _)| position);
        let feed = self.users.find(reader).and_then(|user| Some((self.feeds.get(&space)?, user.0)));
        let involved = [Some(subject.owner), Some(subject.author), subject.referenced_owner];
        let mut involved: Vec<UserId> = involved.into_iter().flatten().collect();
        involved.dedup();
        let relations = view.user.and_then(User::relations);
        let mutes = |other: &&UserId| relations.is_some_and(|user| user.mutes.contains(other));
        let muted = involved.iter().filter(mutes).copied().collect();
        let blocks = involved.iter().filter_map(|other| {
            let user = relations?;
            let by_reader = user.blocks.contains(other).then_some((reader, *other));
            by_reader.or(user.blocked_by.contains(other).then_some((*other, reader)))
        });
        Ok(ReaderFacts {
            own: subject.owner == reader,
            followed_since: edge.map(|edge| edge.since),
            filled: owner.is_some_and(|owner| owner.filled),
            row: row.is_some(),
            stored: row
                .is_some_and(|row| feed.is_some_and(|(feeds, user)| feeds.positions(user).contains(&row))),
            pulled: chain.is_some_and(|chain| chain.pulled),
            slicing: row.is_some_and(|row| self.slices.iter().any(|slice| slice.row == row)),
            feed_floor: feed.map_or(EntryId::ZERO, |(feeds, user)| feeds.floor(user)),
            owner_floor: chain.map_or(EntryId::ZERO, |chain| chain.floor),
            walk_to: chain.map_or(EntryId::ZERO, super::owners::Chain::walk_to),
            muted,
            blocked: blocks.collect(),
            expired: subject.expiry.is_some_and(|expiry| expiry <= self.stamp),
            below_horizon: subject.id < self.horizon(space),
            stamp: self.stamp,
        })
    }

    /// When the row of an entry expired here, if that is why it is not shown; looks at the whole window.
    pub fn expired_at(&self, space: SpaceId, id: EntryId) -> Option<Stamp> {
        let (position, row) =
            self.delivered.iter().rev().find(|(_, row)| row.id == id && row.space == space)?;
        let expiry = self.delivered.expiry(position, row);
        expiry.filter(|expiry| row.state() != RowState::Dead && *expiry <= self.stamp)
    }

    /// The facts at the entry's home, about its way to `destination`.
    pub fn explain_owner(&self, id: EntryId, destination: PartitionId) -> OwnerFacts {
        let entry = self.timelines.live(id, self.stamp).map(std::borrow::Cow::into_owned);
        let about = |event: &Event| match event {
            Event::Deliver { delivery, .. } | Event::Update { delivery, .. } => delivery.id == id,
            Event::Delete { id: deleted, .. } => *deleted == id,
            _ => false,
        };
        let events = self.journal.for_destination(destination, JournalPosition(0));
        let event = events.filter(|(_, e)| about(&e.event)).map(|(position, _)| position).last();
        let withheld = entry.as_ref().is_some_and(|entry| entry.audience == Audience::Private);
        OwnerFacts { entry, withheld, event }
    }
}
