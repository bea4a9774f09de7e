//! Owns the viewpoint of a reader: whose entries a feed is made of, and which of them its definition admits.

use super::Partition;
use super::delivered::{Row, RowState};
use super::owners::{Owner, OwnerIndex};
use super::users::{User, UserIndex};
use crate::entry::Delivery;
use crate::ids::{EntryId, GraphId, RowPosition, SpaceId, UserId};

/// A reader in a space, with what filters its feed.
pub(super) struct Viewpoint<'a> {
    pub(super) partition: &'a Partition,
    pub(super) space: SpaceId,
    pub(super) graph: GraphId,
    pub(super) reader: UserId,
    pub(super) index: Option<UserIndex>,
    pub(super) user: Option<&'a User>,
    /// Entries with smaller ids are older than the space's horizon.
    horizon: EntryId,
    /// Whether there is anybody whose entries are not shown.
    hides_somebody: bool,
    /// Those the reader follows, if the feed may hold references to rows of owners who are not followed any more.
    followed: Option<Vec<OwnerIndex>>,
}

impl<'a> Viewpoint<'a> {
    pub(super) fn new(partition: &'a Partition, space: SpaceId, graph: GraphId, reader: UserId) -> Self {
        let index = partition.users.find(reader);
        let user = index.map(|index| partition.users.get(index));
        Self {
            partition,
            space,
            graph,
            reader,
            index,
            user,
            horizon: partition.horizon(space),
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
    pub(super) fn admits(&self, delivery: &Delivery) -> bool {
        let expired = delivery.expiry.is_some_and(|expiry| expiry <= self.partition.stamp);
        !expired && delivery.id >= self.horizon && !self.hides(delivery)
    }

    fn hides(&self, delivery: &Delivery) -> bool {
        self.hides_somebody
            && self.user.is_some_and(|user| {
                user.hides(delivery.owner)
                    || user.hides(delivery.author)
                    || delivery.referenced_owner.is_some_and(|owner| user.hides(owner))
            })
    }

    /// The row as the reader sees it, if the definition admits it, edges aside.
    #[inline]
    pub(super) fn visible(&self, position: RowPosition, row: &Row, owner: UserId) -> Option<Delivery> {
        if row.state() != RowState::Live {
            return None;
        }
        let delivery = self.partition.delivered.delivery(position, row, owner);
        self.admits(&delivery).then_some(delivery)
    }

    /// The row that a stored reference names, as the reader sees it: the edge may be gone.
    #[inline]
    pub(super) fn visible_stored(&self, position: RowPosition) -> Option<Delivery> {
        let row = self.partition.delivered.get(position)?;
        if self.followed.as_ref().is_some_and(|followed| followed.binary_search(&row.owner).is_err()) {
            return None;
        }
        // A row that is not live may be the last to name an owner.
        let live = row.state() == RowState::Live;
        if live { self.visible(position, row, self.owner(row.owner).id) } else { None }
    }
}
