//! Owns the head of a cut: all of the state that is not in buckets of records, and how far those reach.

use std::collections::BTreeMap;

use crate::codec::{Encoded, encoded_struct};
use crate::command::Limits;
use crate::ids::{EntryId, PartitionId, SpaceId, Stamp};
use crate::partition::Partition;
use crate::partition::fan_out::Slice;
use crate::partition::journal::Outgoing;
use crate::partition::slots::Extent;
use crate::partition::stream::Incoming;
use crate::space::SpaceDefinition;

/// The version of the encoding of heads and buckets.
pub(super) const VERSION: u8 = 1;

/// The same with what is paused before the head; written only if anything is.
pub(super) const VERSION_PAUSED: u8 = 2;

/// Which records of a section there are: from the first on, so many.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) first: u64,
    pub(super) len: u64,
}

encoded_struct!(Span { first, len });

/// What the head holds, behind the version.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) limits: Limits,
    pub(super) applied: u64,
    pub(super) stamp: Stamp,
    pub(super) incarnation: u64,
    pub(super) spaces: Vec<SpaceDefinition>,
    pub(super) last_generation: u64,
    /// Of each space, the largest id that left the window and may be live still.
    pub(super) left: BTreeMap<SpaceId, EntryId>,
    pub(super) users: Extent,
    pub(super) owners: Extent,
    pub(super) reach: Extent,
    pub(super) rows: Span,
    pub(super) events: Span,
    pub(super) streams: BTreeMap<PartitionId, Outgoing>,
    pub(super) inbox: BTreeMap<PartitionId, Incoming>,
    pub(super) last_session: u64,
    /// How many sessions are open.
    pub(super) sessions: u64,
    pub(super) keys: Span,
    pub(super) slices: Vec<Slice>,
}

encoded_struct!(Head {
    limits,
    applied,
    stamp,
    incarnation,
    spaces,
    last_generation,
    left,
    users,
    owners,
    reach,
    rows,
    events,
    streams,
    inbox,
    last_session,
    sessions,
    keys,
    slices,
});

impl Partition {
    /// Writes the head, as far as it is logical state.
    pub(super) fn encode_head(&self, out: &mut Vec<u8>) {
        let keys = self.keys.numbers();
        let head = Head {
            limits: self.limits.clone(),
            applied: self.applied,
            stamp: self.stamp,
            incarnation: self.incarnation,
            spaces: self.spaces.values().cloned().collect(),
            last_generation: self.last_generation,
            left: self.special.all_left(),
            users: self.users.extent(),
            owners: self.owners.extent(),
            reach: self.reach.extent(),
            rows: Span { first: self.delivered.base(), len: self.delivered.len() },
            events: Span { first: self.journal.first, len: self.journal.len() as u64 },
            streams: self.journal.streams.clone(),
            inbox: self.inbox.clone(),
            last_session: self.sessions.last,
            sessions: self.sessions.open.len() as u64,
            keys: Span { first: keys.start, len: keys.end - keys.start },
            slices: self.slices.iter().copied().collect(),
        };
        if self.paused.is_empty() {
            out.push(VERSION);
        } else {
            out.push(VERSION_PAUSED);
            self.paused.encode(out);
        }
        head.encode(out);
    }

    /// How many references were ever stored in each space's feeds: figures, which a restored replica counts differently.
    pub(super) fn stored_by_space(&self) -> BTreeMap<SpaceId, u64> {
        self.feeds.iter().map(|(space, feeds)| (*space, feeds.stored())).collect()
    }
}
