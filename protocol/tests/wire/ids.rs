//! Holds the arithmetic of ids to fixed vectors: they decide where data lies and must never change.

use fanfold_protocol::{EntryId, PartitionId, SlotIndex, Stamp, UserId};
use proptest::prelude::*;

#[test]
fn slots_of_users_never_change() {
    // Computed independently from the finalizer in PROTOCOL.md.
    for (user, slot) in SLOT_VECTORS {
        assert_eq!(SlotIndex::of(UserId(user)), SlotIndex(slot), "user {user}");
    }
}

const SLOT_VECTORS: [(u64, u16); 6] =
    [(0, 0), (1, 1385), (2, 3517), (1001, 1811), (1_000_000_000_000, 325), (u64::MAX, 2893)];

#[test]
fn partitions_are_equal_ranges_of_slots() {
    assert_eq!(PartitionId::of_slot(SlotIndex(0), 16), PartitionId(0));
    assert_eq!(PartitionId::of_slot(SlotIndex(255), 16), PartitionId(0));
    assert_eq!(PartitionId::of_slot(SlotIndex(256), 16), PartitionId(1));
    assert_eq!(PartitionId::of_slot(SlotIndex(4095), 16), PartitionId(15));
    assert_eq!(PartitionId::of_slot(SlotIndex(4095), 4096), PartitionId(4095));
    assert_eq!(PartitionId::of_slot(SlotIndex(4095), 1), PartitionId(0));
}

#[test]
fn stamps_count_from_the_year_2000() {
    assert_eq!(Stamp::from_unix_ms(946_684_800_000), Some(Stamp(0)));
    assert_eq!(Stamp::from_unix_ms(946_684_799_999), None);
    assert_eq!(Stamp(1).to_unix_ms(), 946_684_800_001);
    assert_eq!(Stamp(u64::MAX).to_unix_ms(), u64::MAX);
}

#[test]
fn parts_that_do_not_fit_make_no_entry_id() {
    let (time, slot) = (Stamp((1 << 42) - 1), SlotIndex(4095));
    assert_eq!(EntryId::from_parts(time, 1023, slot), Some(EntryId::MAX));
    assert_eq!(EntryId::from_parts(Stamp(1 << 42), 0, SlotIndex(0)), None);
    assert_eq!(EntryId::from_parts(Stamp(0), 1024, SlotIndex(0)), None);
    assert_eq!(EntryId::from_parts(Stamp(0), 0, SlotIndex(4096)), None);
}

proptest! {
    #[test]
    fn entry_ids_are_their_parts_and_sort_by_time(id: u64, other: u64) {
        let (id, other) = (EntryId(id), EntryId(other));
        prop_assert_eq!(EntryId::from_parts(id.time(), id.sequence(), id.slot()), Some(id));
        prop_assert!(id.time() <= other.time() || id > other);
    }
}
