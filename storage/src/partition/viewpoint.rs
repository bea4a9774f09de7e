//! Owns the viewpoint of a reader: whose entries a feed is made of, and which of them its definition admits.

use super::Partition;
use super::delivered::{Row, RowState};
use super::feed::Feeds;
use super::owners::{Owner, OwnerIndex};
use super::users::{User, UserIndex};
use crate::entry::Delivery;
use crate::ids::{EntryId, GraphId, RowPosition, SpaceId, Stamp, UserId};

/// A space, with what the reads of all feeds in it have in common.
#[derive(Clone, Copy)]
pub(super) struct Scope<'a> {
    pub(super) space: SpaceId,
    pub(super) graph: GraphId,
    /// Entries with smaller ids are older than the space's horizon.
    horizon: EntryId,
    /// The floor of every owner that is not special is at most this.
    left_window: EntryId,
    has_special: bool,
    pub(super) feeds: Option<&'a Feeds>,
}

impl<'a> Scope<'a> {
    /// None of a space that is unknown.
    pub(super) fn new(partition: &'a Partition, space: SpaceId) -> Option<Self> {
        let graph = partition.spaces.get(&space)?.graph;
        let (horizon, left_window) = (partition.horizon(space), partition.special.left(space));
        let (has_special, feeds) = (!partition.special.is_empty(), partition.feeds.get(&space));
        Some(Self { space, graph, horizon, left_window, has_special, feeds })
    }
}

/// The scope that was asked for last: reads that are asked together are nearly always of one space.
pub(super) struct LastScope<'a> {
    partition: &'a Partition,
    last: Option<Scope<'a>>,
}

impl<'a> LastScope<'a> {
    pub(super) fn new(partition: &'a Partition) -> Self {
        Self { partition, last: None }
    }

    /// That of a space.
    #[inline]
    pub(super) fn of(&mut self, space: SpaceId) -> Option<Scope<'a>> {
        if self.last.is_none_or(|last| last.space != space) {
            self.last = Scope::new(self.partition, space);
        }
        self.last
    }
}

/// A reader in a space, with what filters its feed.
pub(super) struct Viewpoint<'a> {
    pub(super) partition: &'a Partition,
    pub(super) space: SpaceId,
    pub(super) graph: GraphId,
    pub(super) feeds: Option<&'a Feeds>,
    pub(super) reader: UserId,
    pub(super) index: Option<UserIndex>,
    pub(super) user: Option<&'a User>,
    horizon: EntryId,
    /// The floor of every owner that is not special is at most this.
    pub(super) left_window: EntryId,
    /// Whether any owner is special.
    pub(super) has_special: bool,
    /// Whether there is anybody whose entries are not shown.
    hides_somebody: bool,
    /// Those the reader follows, if the feed may hold references to rows of owners who are not followed any more.
    followed: Option<Vec<OwnerIndex>>,
}

impl<'a> Viewpoint<'a> {
    pub(super) fn new(
        partition: &'a Partition,
        scope: Scope<'a>,
        reader: UserId,
        index: Option<UserIndex>,
    ) -> Self {
        let Scope { space, graph, horizon, left_window, has_special, feeds } = scope;
        let user = index.map(|index| partition.users.get(index));
        Self {
            partition,
            space,
            graph,
            feeds,
            reader,
            index,
            user,
            horizon,
            left_window,
            has_special,
            hides_somebody: user.is_some_and(User::hides_somebody),
            followed: user.filter(|user| user.has_unfollowed()).map(|user| user.owners(graph).collect()),
        }
    }

    /// Replaces what `owners` holds by the owners the reader follows.
    pub(super) fn owners_into(&self, owners: &mut Vec<OwnerIndex>) {
        owners.clear();
        if let Some(user) = self.user {
            user.owners_into(self.graph, owners);
        }
    }

    pub(super) fn owner(&self, index: OwnerIndex) -> &'a Owner {
        self.partition.owners.get(index)
    }

    /// Whether the reader follows an owner now.
    pub(super) fn follows(&self, owner: OwnerIndex) -> bool {
        self.user.is_some_and(|user| user.follows(self.graph, owner))
    }

    /// Whether the definition of a feed admits it, edges aside.
    #[inline]
    pub(super) fn admits(&self, delivery: &Delivery) -> bool {
        self.is_in_time(delivery.id, delivery.expiry) && !self.hides(delivery)
    }

    /// Whether it has not expired and is not older than the horizon.
    #[inline]
    fn is_in_time(&self, id: EntryId, expiry: Option<Stamp>) -> bool {
        id >= self.horizon && expiry.is_none_or(|expiry| expiry > self.partition.stamp)
    }

    #[inline]
    fn hides(&self, delivery: &Delivery) -> bool {
        self.hides_somebody
            && self.user.is_some_and(|user| {
                user.hides(delivery.owner)
                    || user.hides(delivery.author)
                    || delivery.referenced_owner.is_some_and(|owner| user.hides(owner))
            })
    }

    /// Whether the reader sees a row: it lives, and the definition admits it, edges aside.
    #[inline]
    pub(super) fn shows(&self, position: RowPosition, row: &Row, owner: UserId) -> bool {
        let table = &self.partition.delivered;
        row.state() == RowState::Live
            && self.is_in_time(row.id, table.expiry(position, row))
            && !(self.hides_somebody && self.hides(&table.delivery(position, row, owner)))
    }

    /// Adds what the reader is shown of a row, unless it is the last one again: one of an owner's chain, or one that a stored
    /// reference names, whose owner may not be followed any more.
    #[inline]
    pub(super) fn show(
        &self,
        position: RowPosition,
        row: &Row,
        of_chain: Option<UserId>,
        rows: &mut Vec<Delivery>,
    ) {
        if rows.last().is_some_and(|last| last.id == row.id) {
            return;
        }
        // Nearly every row of nearly every reader.
        if row.is_plain() && !self.hides_somebody && self.followed.is_none() {
            if row.id >= self.horizon {
                let owner = of_chain.unwrap_or_else(|| self.partition.owners.id(row.owner));
                rows.push(Delivery {
                    id: row.id,
                    owner,
                    author: owner,
                    audience: row.audience(),
                    referenced_owner: None,
                    version: 1,
                    expiry: None,
                });
            }
        } else {
            self.show_checked(position, row, of_chain, rows);
        }
    }

    #[cold]
    fn show_checked(
        &self,
        position: RowPosition,
        row: &Row,
        of_chain: Option<UserId>,
        rows: &mut Vec<Delivery>,
    ) {
        let followed = self.followed.as_ref().filter(|_| of_chain.is_none());
        let is_followed = followed.is_none_or(|followed| followed.binary_search(&row.owner).is_ok());
        // A row that is not live may be the last to name an owner.
        if is_followed && row.state() == RowState::Live {
            let owner = of_chain.unwrap_or_else(|| self.partition.owners.id(row.owner));
            if self.shows(position, row, owner) {
                rows.push(self.partition.delivered.delivery(position, row, owner));
            }
        }
    }
}
