//! Owns what partitions tell each other: journal events and the messages of the streams that carry them.
//!
//! - A message names its predecessor; it is applied only right behind it (R8).
//! - Both ends of a stream carry an incarnation; a reset begins a larger epoch (R11).

use crate::codec::{encoded_enum, encoded_struct};
use crate::entry::Delivery;
use crate::ids::{EntryId, Generation, GraphId, JournalPosition, PartitionId, SpaceId, StreamEpoch, UserId};

/// One event of a partition's journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A new entry.
    Deliver {
        /// The space.
        space: SpaceId,
        /// The row.
        delivery: Delivery,
    },
    /// An amended entry, or one whose expiry changed; carries the whole row, so that one already swept returns.
    Update {
        /// The space.
        space: SpaceId,
        /// The row.
        delivery: Delivery,
    },
    /// A deleted entry.
    Delete {
        /// The space.
        space: SpaceId,
        /// Whose.
        owner: UserId,
        /// Which.
        id: EntryId,
    },
    /// The sender has a first follower of `owner`.
    Subscribe {
        /// The graph.
        graph: GraphId,
        /// The owner, homed at the receiver.
        owner: UserId,
        /// The sender's generation.
        generation: Generation,
    },
    /// The sender's last follower of `owner` left.
    Unsubscribe {
        /// The graph.
        graph: GraphId,
        /// The owner.
        owner: UserId,
        /// The generation that ends.
        generation: Generation,
    },
    /// The newest entries of an owner, in answer to a subscription (R9).
    Backfill {
        /// The graph.
        graph: GraphId,
        /// The owner, homed at the sender.
        owner: UserId,
        /// The generation that asked.
        generation: Generation,
        /// One for each space of the graph that has entries.
        spaces: Vec<SpaceBackfill>,
    },
    /// `blocker`, homed at the sender, blocks `blocked`, homed at the receiver.
    Block {
        /// Who.
        blocker: UserId,
        /// Whom.
        blocked: UserId,
    },
    /// The block ended.
    Unblock {
        /// Who.
        blocker: UserId,
        /// Whom.
        blocked: UserId,
    },
    /// The first event of a new epoch: events were lost, so the receiver renews its subscriptions here.
    Reset {
        /// All blocks (blocker, blocked) that concern the receiver; they replace those it knows.
        blocks: Vec<(UserId, UserId)>,
    },
    /// All subscriptions of the sender are void; those that hold follow.
    ForgetSubscriptions,
    /// An import made the first followers of many owners; answered by [`Event::Filled`], without their entries.
    SubscribeMany {
        /// The graph.
        graph: GraphId,
        /// The owners, homed at the receiver, each with the sender's generation.
        owners: Vec<(UserId, Generation)>,
    },
    /// Subscriptions that begin with nothing but floors: what there was before is asked of the timelines.
    Filled {
        /// The graph.
        graph: GraphId,
        /// The owners, homed at the sender.
        owners: Vec<FilledOwner>,
    },
    /// Entries were imported: what the receiver knows of these owners is complete only above these ids.
    Raise {
        /// Space, owner (homed at the sender) and the largest id imported.
        floors: Vec<(SpaceId, (UserId, EntryId))>,
    },
}

/// The answer to a subscription without entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilledOwner {
    /// The owner.
    pub owner: UserId,
    /// The generation that asked.
    pub generation: Generation,
    /// The largest id in each space of the graph that has entries.
    pub floors: Vec<(SpaceId, EntryId)>,
}

/// The newest entries of an owner in one space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpaceBackfill {
    /// The space.
    pub space: SpaceId,
    /// What is at or below it need not be included; 0 if all are.
    pub floor: EntryId,
    /// Oldest first.
    pub deliveries: Vec<Delivery>,
}

/// Events from one partition to another, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamMessage {
    /// Who sends.
    pub source: PartitionId,
    /// The run of the stream.
    pub epoch: StreamEpoch,
    /// The incarnation of the receiver that the sender knows.
    pub destination_incarnation: u64,
    /// The position of the last event before these, in this epoch; 0 for none.
    pub previous: JournalPosition,
    /// Each with its position in the sender's journal. None: a question where the stream stands.
    pub events: Vec<(JournalPosition, Event)>,
}

/// Where a stream stands at its destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamAnswer {
    /// The epoch the destination is in.
    pub epoch: StreamEpoch,
    /// The last event it applied.
    pub watermark: JournalPosition,
    /// The incarnation of the destination.
    pub incarnation: u64,
    /// Whether the message named a space the destination does not know yet; it wants it again.
    pub unknown_space: bool,
}

encoded_enum!(Event, "event" {
    1 => Deliver { space, delivery },
    2 => Update { space, delivery },
    3 => Delete { space, owner, id },
    4 => Subscribe { graph, owner, generation },
    5 => Unsubscribe { graph, owner, generation },
    6 => Backfill { graph, owner, generation, spaces },
    7 => Block { blocker, blocked },
    8 => Unblock { blocker, blocked },
    9 => Reset { blocks },
    10 => ForgetSubscriptions,
    11 => SubscribeMany { graph, owners },
    12 => Filled { graph, owners },
    13 => Raise { floors },
});
encoded_struct!(FilledOwner { owner, generation, floors });
encoded_struct!(SpaceBackfill { space, floor, deliveries });
encoded_struct!(StreamMessage { source, epoch, destination_incarnation, previous, events });
encoded_struct!(StreamAnswer { epoch, watermark, incarnation, unknown_space });

impl Event {
    /// The spaces it names.
    pub fn spaces(&self) -> impl Iterator<Item = SpaceId> {
        let one = match self {
            Self::Deliver { space, .. } | Self::Update { space, .. } | Self::Delete { space, .. } => {
                Some(*space)
            }
            _ => None,
        };
        let filled = if let Self::Filled { owners, .. } = self { &owners[..] } else { &[] };
        let raised = if let Self::Raise { floors } = self { &floors[..] } else { &[] };
        let backfilled = if let Self::Backfill { spaces, .. } = self { &spaces[..] } else { &[] };
        let filled = filled.iter().flat_map(|owner| owner.floors.iter().map(|(space, _)| *space));
        let many = filled.chain(raised.iter().map(|(space, _)| *space));
        one.into_iter().chain(backfilled.iter().map(|s| s.space)).chain(many)
    }
}

impl Event {
    /// About how many bytes its encoding takes.
    pub fn size_hint(&self) -> usize {
        match self {
            Self::Backfill { spaces, .. } => {
                32 + spaces.iter().map(|s| 16 + 16 * s.deliveries.len()).sum::<usize>()
            }
            Self::Reset { blocks } => 16 + 16 * blocks.len(),
            Self::SubscribeMany { owners, .. } => 16 + 16 * owners.len(),
            Self::Filled { owners, .. } => {
                16 + owners.iter().map(|o| 16 + 12 * o.floors.len()).sum::<usize>()
            }
            Self::Raise { floors } => 16 + 20 * floors.len(),
            _ => 24,
        }
    }
}
