//! Owns what happens when an entry reaches this partition: its row, its chain, and the references in the feeds.
//!
//! - One row per space and entry; a second delivery or a backfill finds the first (R5).
//! - Push or pull decides only whether references are stored; the chain holds every row (R7).
//! - A large fan-out is served in slices; until they are done, readers take the row from the chain (R12).

use super::Partition;
use super::away::feeds_in;
use super::delivered::{Row, RowState};
use super::feed::Store;
use super::owners::{Chain, OwnerIndex};
use super::posting::WALK_MEMBERS;
use super::relate::leave_to_chain;
use super::users::UserIndex;
use crate::codec::encoded_struct;
use crate::entry::Delivery;
use crate::event::{Event, SpaceBackfill};
use crate::ids::{EntryId, Generation, GraphId, RowPosition, SpaceId, UserId};
use crate::space::FanOut;

/// So many rows before one leaves its owner is asked for.
const LEAVING_AHEAD: u64 = 16;

/// Whose feed in which space.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) space: SpaceId,
    pub(super) user: UserIndex,
}

/// A row whose references are not stored in all feeds yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slice {
    pub(super) row: RowPosition,
    pub(super) owner: OwnerIndex,
    pub(super) space: SpaceId,
    /// The local index of the follower to go on with: a member value, so that follows and unfollows may go on.
    pub(super) next: u32,
}

encoded_struct!(Slice { row, owner, space, next });

impl Partition {
    /// Takes an event about an owner whose rows are here; ignored while nobody follows or the rows are not there.
    pub(super) fn take_owner_event(&mut self, event: &Event) {
        let (space, owner) = match event {
            Event::Deliver { space, delivery } | Event::Update { space, delivery } => {
                (*space, delivery.owner)
            }
            Event::Delete { space, owner, .. } => (*space, *owner),
            _ => return,
        };
        let Some(graph) = self.spaces.get(&space).map(|space| space.graph) else { return };
        let Some(index) = self.owners.find(graph, owner) else { return };
        let known = self.owners.get(index);
        if known.followers.len() == 0 || !known.filled {
            return;
        }
        match event {
            Event::Deliver { delivery, .. } | Event::Update { delivery, .. } => {
                if let Some(position) = self.place_row(index, space, delivery, false) {
                    if !self.is_replaying {
                        let followers = self.owners.get(index).followers.len();
                        self.deliveries.note(self.stamp, owner, followers);
                    }
                    self.push_row(index, space, position, delivery.id);
                }
            }
            Event::Delete { id, .. } => self.kill_row(index, space, *id),
            _ => {}
        }
    }

    /// Puts a row into its chain; none if the entry has one already, or if the chain no longer reaches so far back.
    fn place_row(
        &mut self,
        index: OwnerIndex,
        space: SpaceId,
        delivery: &Delivery,
        backfill: bool,
    ) -> Option<RowPosition> {
        let chain = *self.owners.chain_mut(index, space);
        let (mut newer, mut older) = (None, None);
        for (position, row) in self.delivered.chain(chain.head) {
            if row.id == delivery.id {
                self.update_row(position, delivery);
                return None;
            }
            if row.id < delivery.id {
                older = Some(position);
                break;
            }
            newer = Some(position);
        }
        if delivery.id <= chain.floor {
            return None;
        }
        let position = self.delivered.push((index, space), delivery, older, backfill);
        match newer.and_then(|newer| Some((newer, self.delivered.get_mut(newer)?))) {
            Some((newer, row)) => row.set_previous(newer, Some(position)),
            None => self.owners.chain_mut(index, space).head = Some(position),
        }
        self.owners.get_mut(index).rows += 1;
        if let Some(expiry) = delivery.expiry {
            self.row_expiries.insert((expiry, position));
        }
        self.note_for_horizon(space, delivery.id);
        Some(position)
    }

    /// Brings a row up to its entry; a swept one returns, a deleted one does not.
    fn update_row(&mut self, position: RowPosition, delivery: &Delivery) {
        let Some(row) = self.delivered.get(position).filter(|row| row.state() != RowState::Dead) else {
            return;
        };
        if let Some(expiry) = self.delivered.expiry(position, row) {
            self.row_expiries.remove(&(expiry, position));
        }
        self.delivered.update(position, delivery);
        self.set_state(position, RowState::Live);
        if let Some(expiry) = delivery.expiry {
            self.row_expiries.insert((expiry, position));
        }
    }

    fn set_state(&mut self, position: RowPosition, state: RowState) {
        if let Some(row) = self.delivered.get_mut(position) {
            row.set_state(state);
        }
    }

    pub(super) fn expire_first_row(&mut self) {
        if let Some((_, position)) = self.row_expiries.pop_first()
            && let Some(row) = self.delivered.get_mut(position)
            && row.state() == RowState::Live
        {
            row.set_state(RowState::Expired);
        }
    }

    fn kill_row(&mut self, index: OwnerIndex, space: SpaceId, id: EntryId) {
        let Some(chain) = self.owners.get(index).chain(space) else { return };
        let found = self.delivered.chain(chain.head).take_while(|(_, row)| row.id >= id).last();
        if let Some((position, _)) = found.filter(|(_, row)| row.id == id) {
            self.end_row(position);
        }
    }

    /// Ends a row for ever; answers the next older one of its chain.
    fn end_row(&mut self, position: RowPosition) -> Option<RowPosition> {
        let row = self.delivered.get(position)?;
        if let Some(expiry) = self.delivered.expiry(position, row) {
            // A dead row expires no more: an image tells only the expiries of live ones.
            self.row_expiries.remove(&(expiry, position));
        }
        let row = self.delivered.get_mut(position)?;
        row.set_state(RowState::Dead);
        row.previous(position)
    }

    /// Ends all rows of an owner: its subscription ended or begins anew (R9).
    pub(super) fn kill_rows(&mut self, index: OwnerIndex) {
        self.owners.get_mut(index).filled = false;
        // Whoever subscribes anew marks it as not filled.
        self.special.note_filled(index, true);
        for chain in self.owners.take_chains(index) {
            self.special.note_chain(index, chain.space, None, false);
            let mut next = chain.head;
            while let Some(position) = next {
                next = self.end_row(position);
            }
        }
        self.slices.retain(|slice| slice.owner != index);
    }

    /// Decides between push and pull, with hysteresis so that an owner at the threshold does not swing.
    fn decide_pull(&mut self, index: OwnerIndex, space: SpaceId) -> &mut Chain {
        let policy = &self.spaces[&space].policy;
        let (fan_out, threshold) = (policy.fan_out, policy.pull_threshold);
        let followers = self.owners.get(index).followers.len();
        let chain = self.owners.chain_mut(index, space);
        chain.pulled = match fan_out {
            FanOut::Push => false,
            FanOut::Pull => true,
            FanOut::Auto if chain.pulled => followers > threshold / 2,
            FanOut::Auto => followers > threshold,
        };
        chain
    }

    /// Stores a new row's reference in the feeds of all local followers, at once or in slices, unless it is pulled.
    fn push_row(&mut self, index: OwnerIndex, space: SpaceId, row: RowPosition, id: EntryId) {
        let slice_followers = self.limits.slice_followers;
        let chain = self.decide_pull(index, space);
        let pulled = chain.pulled;
        if pulled {
            chain.unpushed = chain.unpushed.max(id);
        }
        let large = self.owners.get(index).followers.len() > slice_followers;
        let slice = Slice { row, owner: index, space, next: 0 };
        if !pulled && large {
            let chain = self.owners.chain_mut(index, space);
            chain.slicing += 1;
            chain.slicing_id = chain.slicing_id.max(id);
            self.slices.push_back(slice);
        }
        self.note_chain(index, space);
        if !pulled && !large {
            self.store_references(slice, u32::MAX);
        }
    }

    /// Stores the reference for at most `most` followers; answers where to go on, if there are more.
    fn store_references(&mut self, slice: Slice, most: u32) -> Option<u32> {
        let Self { owners, users, feeds, delivered, spaces, .. } = self;
        let row = delivered.get(slice.row).filter(|row| row.state() != RowState::Dead)?;
        if self.is_replaying {
            feeds_in(feeds, users, slice.space).refuse(row.id);
            // Where a slice ends is state that replicas share.
            let is_slice = most < u32::MAX;
            let mut rest = owners.get(slice.owner).followers.iter_from(slice.next);
            return is_slice.then(|| rest.nth(most as usize)).flatten();
        }
        let cap = spaces[&slice.space].policy.feed_cap;
        let store = Store { cap, position: slice.row, id: row.id };
        let feeds = feeds_in(feeds, users, slice.space);
        let mut walk = owners.get(slice.owner).followers.iter_from(slice.next);
        let (mut block, mut left) = ([0; WALK_MEMBERS], most as usize);
        loop {
            let count = walk.fill(&mut block);
            feeds.push_later(store, &block[..count.min(left)]);
            if count > left {
                return Some(block[left]);
            }
            if count == 0 {
                return None;
            }
            left -= count;
        }
    }

    /// Serves one slice of the oldest fan-out that is not done.
    pub(super) fn serve_slice(&mut self) {
        let Some(slice) = self.slices.pop_front() else { return };
        let next = self.store_references(slice, self.limits.slice_followers.max(1));
        if let Some(next) = next {
            self.slices.push_back(Slice { next, ..slice });
        } else {
            self.end_slices(slice.owner, slice.space);
        }
    }

    fn end_slices(&mut self, owner: OwnerIndex, space: SpaceId) {
        let chain = self.owners.chain_mut(owner, space);
        chain.slicing = chain.slicing.saturating_sub(1);
        if chain.slicing == 0 {
            chain.slicing_id = EntryId::ZERO;
        }
        self.note_chain(owner, space);
    }

    /// Takes the newest entries of an owner, in answer to the subscription of this generation (R9).
    pub(super) fn take_backfill(
        &mut self,
        graph: GraphId,
        owner: UserId,
        generation: Generation,
        spaces: &[SpaceBackfill],
    ) {
        let Some(index) = self.owners.find(graph, owner) else { return };
        let known = self.owners.get(index);
        if known.generation != generation || known.followers.len() == 0 {
            return;
        }
        self.set_filled(index, true);
        for backfill in spaces {
            self.take_backfill_of(index, backfill);
            self.note_chain(index, backfill.space);
        }
    }

    fn take_backfill_of(&mut self, index: OwnerIndex, backfill: &SpaceBackfill) {
        let space = backfill.space;
        let chain = self.owners.chain_mut(index, space);
        chain.floor = chain.floor.max(backfill.floor);
        let placed = backfill.deliveries.iter();
        let placed = placed.filter_map(|d| self.place_row(index, space, d, true).map(|p| (p, d.id)));
        let rows: Vec<_> = placed.collect();
        let pulled = self.decide_pull(index, space).pulled;
        if pulled || self.owners.get(index).followers.len() > self.limits.backfill_followers {
            leave_to_chain(self.owners.chain_mut(index, space), &self.delivered);
            return;
        }
        let followers: Vec<u32> = self.owners.get(index).followers.iter().collect();
        for follower in followers {
            self.fill_feed(Place { space, user: UserIndex(follower) }, &rows, EntryId::ZERO);
        }
    }

    /// Adds rows that are no news to a feed; `refused` is the largest id that was left out of them.
    pub(super) fn fill_feed(&mut self, place: Place, rows: &[(RowPosition, EntryId)], refused: EntryId) {
        if rows.is_empty() {
            return;
        }
        let cap = self.spaces[&place.space].policy.feed_cap;
        let feeds = feeds_in(&mut self.feeds, &self.users, place.space);
        if self.is_replaying {
            feeds.refuse(rows.iter().map(|(_, id)| *id).fold(refused, EntryId::max));
            return;
        }
        feeds.fill(place.user.0, rows, refused, cap, &self.delivered);
    }

    /// Lets rows leave the window that it has no room for.
    pub(super) fn shrink_window(&mut self) {
        self.leave_window(self.limits.window_rows, u32::MAX);
    }

    /// Lets at most `most` of the oldest rows leave the window, as long as it has more than `keep`; what they said is asked of the
    /// timelines from now on.
    pub(super) fn leave_window(&mut self, keep: u32, most: u32) {
        let leaving = self.delivered.len().saturating_sub(u64::from(keep)).min(u64::from(most));
        self.rebuilt += leaving;
        for _ in 0..leaving {
            self.look_ahead_of_leaving();
            let Some((position, row, expiry)) = self.delivered.pop() else { return };
            if let Some(expiry) = expiry {
                self.row_expiries.remove(&(expiry, position));
            }
            self.drop_slice(position, &row);
            // A dead row is missed by nobody; it may even be of a subscription that ended.
            let live = row.state() != RowState::Dead;
            if live {
                self.special.note_left(row.space, row.id);
            }
            let owner = self.owners.get_mut(row.owner);
            owner.rows -= 1;
            if owner.chain(row.space).is_some() {
                let chain = self.owners.chain_mut(row.owner, row.space);
                if live {
                    chain.floor = chain.floor.max(row.id);
                }
                if chain.head == Some(position) {
                    chain.head = None;
                }
                self.note_chain(row.owner, row.space);
            }
            self.owners.release_if_idle(row.owner);
        }
    }

    /// A row that leaves is stored nowhere any more.
    fn drop_slice(&mut self, position: RowPosition, row: &Row) {
        let is_it = |slice: &Slice| slice.row == position;
        // Nearly none is, and the slices are many while somebody posts whom very many follow.
        let is_slicing = self.owners.get(row.owner).chain(row.space).is_some_and(|chain| chain.slicing > 0);
        debug_assert!(is_slicing || !self.slices.iter().any(is_it), "chains count their slices");
        if is_slicing && let Some(at) = self.slices.iter().position(is_it) {
            self.slices.remove(at);
            self.end_slices(row.owner, row.space);
        }
    }

    /// Asks for the owners of rows that leave soon: each is somewhere else in memory.
    fn look_ahead_of_leaving(&self) {
        let owner = |ahead: u64| {
            let row = self.delivered.get(RowPosition(self.delivered.base() + ahead))?;
            Some(row.owner)
        };
        owner(LEAVING_AHEAD).into_iter().for_each(|owner| self.owners.prefetch(owner));
        owner(LEAVING_AHEAD / 2).into_iter().for_each(|owner| self.owners.prefetch_chains(owner));
    }
}
