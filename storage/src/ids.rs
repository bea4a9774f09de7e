//! Owns the identifiers of stored things: one type per kind, so that no function takes two bare integers.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $inner:ty) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id!(
    /// A user: anything with a timeline or a feed. Given by the application.
    UserId, u64
);
id!(
    /// A space, numbered by the catalog from 1.
    SpaceId, u16
);
id!(
    /// A named set of edges, numbered by the catalog from 1.
    GraphId, u16
);
id!(
    /// A partition, numbered from 0.
    PartitionId, u16
);
id!(
    /// One of the 4,096 fixed hash ranges of users.
    SlotIndex, u16
);
id!(
    /// Log time: milliseconds since 2000-01-01T00:00:00Z, as the leader stamped them.
    Stamp, u64
);
id!(
    /// A day of log time, from 2000-01-01.
    Day, u16
);
id!(
    /// A session with one partition, numbered by that partition's log from 1.
    SessionId, u64
);
id!(
    /// The number of a request within its session, from 1.
    Sequence, u64
);
id!(
    /// The position of an event in a partition's journal, from 1.
    JournalPosition, u64
);
id!(
    /// The position of a row in a partition's delivered table; never reused.
    RowPosition, u64
);
id!(
    /// The generation of a subscription: a new one each time a partition's first reader follows an owner (R9).
    Generation, u64
);
id!(
    /// An entry: 42 bits of milliseconds since 2000, 10 bits of sequence, 12 bits of the owner's slot.
    EntryId, u64
);

/// The number of slots; fixed, so that ids survive a later split of partitions.
pub const SLOTS: u32 = 4_096;

const SEQUENCE_BITS: u32 = 10;
const SLOT_BITS: u32 = 12;

/// Milliseconds of a day of log time.
pub const DAY_MS: u64 = 24 * 3_600 * 1_000;

impl Stamp {
    /// The day; the last one there is goes on for ever.
    pub fn day(self) -> Day {
        Day((self.0 / DAY_MS).min(u64::from(u16::MAX)) as u16)
    }
}

impl EntryId {
    /// Above every id that can be made.
    pub const MAX: Self = Self(u64::MAX);
    /// Below every id that can be made.
    pub const ZERO: Self = Self(0);

    /// The id of `tick` (time and sequence in one number, see [`EntryId::tick`]) in `slot`.
    pub fn from_tick(tick: u64, slot: SlotIndex) -> Self {
        Self(tick << SLOT_BITS | u64::from(slot.0))
    }

    /// Milliseconds and sequence as one number, strictly increasing within a partition.
    pub fn tick(self) -> u64 {
        self.0 >> SLOT_BITS
    }

    /// The smallest tick of the millisecond `stamp`.
    pub fn first_tick_at(stamp: Stamp) -> u64 {
        stamp.0 << SEQUENCE_BITS
    }

    /// The smallest id that an entry of the millisecond `stamp` can have.
    pub fn first_at(stamp: Stamp) -> Self {
        Self::from_tick(Self::first_tick_at(stamp), SlotIndex(0))
    }

    /// When the entry was made.
    pub fn time(self) -> Stamp {
        Stamp(self.0 >> (SEQUENCE_BITS + SLOT_BITS))
    }

    /// The slot of the owner.
    pub fn slot(self) -> SlotIndex {
        SlotIndex((self.0 & u64::from(SLOTS - 1)) as u16)
    }
}

impl SlotIndex {
    /// The slot of a user: the top 12 bits of the finalizer of SplitMix64 (Steele, Lea and Flood, 2014).
    pub fn of(user: UserId) -> Self {
        let mut z = user.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        Self((z >> 52) as u16)
    }
}

impl PartitionId {
    /// The partition that owns `slot` when there are `partitions` (a power of two up to 4,096).
    pub fn of_slot(slot: SlotIndex, partitions: u16) -> Self {
        Self((u32::from(slot.0) * u32::from(partitions) / SLOTS) as u16)
    }

    /// The home of a user.
    pub fn of_user(user: UserId, partitions: u16) -> Self {
        Self::of_slot(SlotIndex::of(user), partitions)
    }
}

/// Names one run of a stream between two partitions: a reset begins a larger one (R11).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamEpoch {
    /// The incarnation of the source; changed by every restore and forced recovery.
    pub incarnation: u64,
    /// Counts the resets of this stream within the incarnation, from 1.
    pub resets: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entry_id_keeps_time_sequence_and_slot() {
        let tick = EntryId::first_tick_at(Stamp(848_000_000_123)) + 5;
        let id = EntryId::from_tick(tick, SlotIndex(4_095));
        assert_eq!(id.time(), Stamp(848_000_000_123));
        assert_eq!(id.slot(), SlotIndex(4_095));
        assert_eq!(id.tick(), tick);
    }

    #[test]
    fn partitions_share_the_slots_evenly() {
        for partitions in [1u16, 2, 16, 4_096] {
            let mut slots = vec![0u32; usize::from(partitions)];
            for slot in 0..4_096 {
                slots[usize::from(PartitionId::of_slot(SlotIndex(slot), partitions).0)] += 1;
            }
            assert!(slots.iter().all(|n| *n == SLOTS / u32::from(partitions)));
        }
    }
}
