//! Owns the identifiers and stamps that travel on the wire, and the arithmetic that is part of their meaning.
//!
//! Invariants:
//! - An [`EntryId`] sorts by time; its slot names the home of its owner, whatever the number of partitions.
//! - [`SlotIndex::of`] and [`PartitionId::of_slot`] never change: they decide where data lies.
//!
//! Format: `PROTOCOL.md`, "Ids and time".

use std::fmt;

/// Number of slots a cluster is divided into, whatever its number of partitions.
pub const SLOTS: u16 = 4096;

/// Milliseconds from 1970-01-01T00:00:00Z to 2000-01-01T00:00:00Z, the zero of [`Stamp`].
pub const EPOCH_UNIX_MS: u64 = 946_684_800_000;

const ENTRY_TIME_BITS: u32 = 42;
const ENTRY_SEQUENCE_BITS: u32 = 10;
const ENTRY_SLOT_BITS: u32 = 12;
const _: () = assert!(ENTRY_TIME_BITS + ENTRY_SEQUENCE_BITS + ENTRY_SLOT_BITS == 64);
const _: () = assert!(1 << ENTRY_SLOT_BITS == SLOTS as u32);

/// A user, as the application numbers them: any 64-bit number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct UserId(pub u64);

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// An entry: 42 bits of milliseconds since 2000, 10 bits of sequence, 12 bits of its owner's slot.
///
/// Zero is below every entry; pages use it as "the true end".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct EntryId(pub u64);

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A space: one kind of timeline with its own policy, such as `posts` or `stories`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SpaceId(pub u16);

impl fmt::Display for SpaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A follower graph; every space belongs to one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct GraphId(pub u16);

impl fmt::Display for GraphId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A partition: one Raft group and the users homed in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PartitionId(pub u16);

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// One of the 4,096 slots into which users are hashed; see [`SlotIndex::of`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SlotIndex(pub u16);

impl fmt::Display for SlotIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A node of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct NodeId(pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A cluster, drawn at random when it is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ClusterId(pub u128);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A session of one client with one partition, numbered by that partition's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SessionId(pub u64);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The number of a write within its session; the first is 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Sequence(pub u64);

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The number of a request on its connection, chosen by the client; an answer repeats it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RequestId(pub u64);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A point in time: milliseconds since 2000-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Stamp(pub u64);

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl Stamp {
    /// The stamp of a time given in milliseconds since 1970 (UTC); `None` before 2000.
    pub fn from_unix_ms(unix_ms: u64) -> Option<Self> {
        unix_ms.checked_sub(EPOCH_UNIX_MS).map(Self)
    }

    /// This time in milliseconds since 1970 (UTC); saturates at the end of `u64`.
    pub fn to_unix_ms(self) -> u64 {
        self.0.saturating_add(EPOCH_UNIX_MS)
    }
}

impl EntryId {
    /// The largest id: above every entry.
    pub const MAX: Self = Self(u64::MAX);

    /// The id with these parts; `None` when one does not fit its bits (42, 10 and 12).
    pub fn from_parts(time: Stamp, sequence: u16, slot: SlotIndex) -> Option<Self> {
        let fits = time.0 < 1 << ENTRY_TIME_BITS && sequence < 1 << ENTRY_SEQUENCE_BITS && slot.0 < SLOTS;
        fits.then(|| {
            let low = u64::from(sequence) << ENTRY_SLOT_BITS | u64::from(slot.0);
            Self(time.0 << (ENTRY_SEQUENCE_BITS + ENTRY_SLOT_BITS) | low)
        })
    }

    /// When the entry was made.
    pub fn time(self) -> Stamp {
        Stamp(self.0 >> (ENTRY_SEQUENCE_BITS + ENTRY_SLOT_BITS))
    }

    /// What tells entries of one millisecond apart, 0 to 1,023.
    pub fn sequence(self) -> u16 {
        (self.0 >> ENTRY_SLOT_BITS) as u16 & ((1 << ENTRY_SEQUENCE_BITS) - 1)
    }

    /// The slot of the entry's owner, which names its home.
    pub fn slot(self) -> SlotIndex {
        SlotIndex(self.0 as u16 & (SLOTS - 1))
    }
}

impl SlotIndex {
    /// The slot of a user: the top 12 bits of the finalizer of splitmix64 (Steele, Lea and Flood, 2014).
    pub fn of(user: UserId) -> Self {
        let mut z = user.0;
        z ^= z >> 30;
        z = z.wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z ^= z >> 27;
        z = z.wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        Self((z >> (u64::BITS - ENTRY_SLOT_BITS)) as u16)
    }
}

impl PartitionId {
    /// The partition that holds a slot (below 4,096) in a cluster of `partitions`, a power of two up to 4,096.
    pub fn of_slot(slot: SlotIndex, partitions: u16) -> Self {
        Self((u32::from(slot.0) * u32::from(partitions) / u32::from(SLOTS)) as u16)
    }

    /// The home of a user in a cluster of `partitions`, a power of two up to 4,096.
    pub fn of_user(user: UserId, partitions: u16) -> Self {
        Self::of_slot(SlotIndex::of(user), partitions)
    }
}
