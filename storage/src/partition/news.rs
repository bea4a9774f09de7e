//! Owns "what is new": the entries of a feed that arrived after a mark (R16).
//!
//! - New goes by arrival, so that an entry that came late is not missed.
//! - What a backfill brought is new only if it was made after the mark: that the rows came is this partition's affair.

use super::Partition;
use super::read::{FeedSlice, RemoteSource};
use super::users::User;
use crate::command::Refusal;
use crate::entry::Delivery;
use crate::ids::{EntryId, RowPosition, SpaceId, UserId};

impl Partition {
    /// A mark for a later [`Partition::feed_news`]: the place of the next row, and the smallest id of what is made
    /// later.
    pub fn feed_mark(&self) -> (RowPosition, EntryId) {
        let tick = EntryId::first_tick_at(self.stamp).max(self.timelines.last_tick + 1);
        (self.delivered.next(), EntryId::from_tick(tick, crate::ids::SlotIndex(0)))
    }

    /// All rows of a feed that are new since a mark, newest first, and the owners whose timelines are to be asked for
    /// entries from `id_bound` on.
    ///
    /// # Errors
    /// The space is unknown, or the reader is homed elsewhere.
    pub fn feed_news(
        &self,
        space: SpaceId,
        reader: UserId,
        mark: RowPosition,
        id_bound: EntryId,
    ) -> Result<FeedSlice, Refusal> {
        let view = self.viewpoint(space, reader)?;
        // A position that was never given out is not of this table, and says nothing of what had arrived. Otherwise a row
        // that was here already is not new, though its id may be: other partitions' clocks run ahead of this one's stamp.
        let by_id = mark > self.delivered.next();
        let mut rows: Vec<Delivery> = Vec::new();
        let mut remote = Vec::new();
        let mut owners = Vec::new();
        view.owners_into(&mut owners);
        for index in owners {
            let owner = view.owner(index);
            let floor = owner.floor(space);
            if floor >= id_bound {
                remote.push(RemoteSource { owner: owner.id, below: EntryId(floor.0.saturating_add(1)) });
            }
            let Some(chain) = owner.chain(space).filter(|_| owner.filled) else { continue };
            // One owner's entries arrive in the order of their ids, so the new ones lead the chain. What the timeline is
            // asked for is left to it.
            let chain =
                self.delivered.chain(chain.head).filter(|(_, row)| row.id > floor || row.id < id_bound);
            let new = chain.take_while(|(position, row)| {
                let is_made_since = row.id >= id_bound;
                if by_id { is_made_since } else { *position >= mark && (is_made_since || !row.is_backfill()) }
            });
            let shown = new.filter(|(position, row)| view.shows(*position, row, owner.id));
            rows.extend(shown.map(|(position, row)| self.delivered.delivery(position, row, owner.id)));
        }
        let mut own = self.timelines.newest(space, reader, EntryId::MAX, self.stamp);
        let older = id_bound.0.checked_sub(1).map(EntryId);
        while let Some(id) = own.next_above(older) {
            let delivery = own.entry(id).map(|entry| entry.delivery());
            rows.extend(delivery.filter(|delivery| view.admits(delivery)));
        }
        rows.sort_unstable_by_key(|row| std::cmp::Reverse(row.id));
        Ok(FeedSlice { rows, remote, more: false, active: view.user.map(User::active) })
    }
}
