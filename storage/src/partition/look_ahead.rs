//! Owns the look ahead: asking for the memory that the next entries are about to touch, so that the waits for it overlap.
//!
//! - Every owner's place is somewhere else: index, slot, chain, row, followers, timeline.
//! - It looks at [`LOOK_AHEAD`] entries at a time: what is asked for much earlier is pushed out by the heads of the followers
//!   of those before.

use super::Partition;
use crate::command::{Append, Command, Write};
use crate::event::Event;
use crate::ids::{GraphId, JournalPosition, SpaceId, UserId};

/// Entries that are asked for at a time.
pub(super) const LOOK_AHEAD: usize = 16;

/// The owner of an entry that is about to come.
type Coming = (GraphId, SpaceId, UserId);

impl Partition {
    fn coming(&self, space: SpaceId, owner: UserId) -> Option<Coming> {
        Some((self.spaces.get(&space)?.graph, space, owner))
    }

    /// Looks ahead of the first of these commands.
    pub(super) fn look_ahead_of_commands(&self, commands: &[(Command, &[u8])]) {
        let appends = commands.iter().take(LOOK_AHEAD).filter_map(|(command, _)| match command {
            // Many items look ahead by themselves.
            Command::Write { write: Write::Append { items }, .. } if items.len() == 1 => items.first(),
            _ => None,
        });
        self.look_ahead_of(appends);
    }

    /// Looks ahead of the first of these appends.
    pub(super) fn look_ahead_of_appends(&self, items: &[Append]) {
        self.look_ahead_of(items.iter().take(LOOK_AHEAD));
    }

    fn look_ahead_of<'a>(&self, appends: impl Iterator<Item = &'a Append>) {
        let mut coming = Vec::with_capacity(LOOK_AHEAD);
        coming.extend(appends.filter_map(|item| self.coming(item.space, item.owner)));
        coming.iter().for_each(|(.., owner)| self.users.prefetch_index(*owner));
        self.timelines.look_ahead(coming.iter().map(|(_, space, owner)| (*space, *owner)));
        coming.iter().for_each(|(.., owner)| _ = self.users.prefetch_user(*owner));
        self.look_ahead_of_owners(&coming);
    }

    /// Looks ahead of the first of these events.
    pub(super) fn look_ahead_of_events(&self, events: &[(JournalPosition, Event)]) {
        let mut coming = Vec::with_capacity(LOOK_AHEAD);
        coming.extend(events.iter().take(LOOK_AHEAD).filter_map(|(_, event)| match event {
            Event::Deliver { space, delivery } => self.coming(*space, delivery.owner),
            _ => None,
        }));
        self.look_ahead_of_owners(&coming);
    }

    fn look_ahead_of_owners(&self, coming: &[Coming]) {
        let heads = self.owners.look_ahead(coming);
        heads.into_iter().for_each(|head| self.delivered.prefetch(head));
    }
}
