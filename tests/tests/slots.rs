//! Protocol and storage have their own id types; this holds their layouts to each other.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use fanfold_protocol as wire;
use fanfold_storage::ids as stored;
use proptest::prelude::*;

#[test]
fn both_sides_have_as_many_slots() {
    assert_eq!(u32::from(wire::ids::SLOTS), stored::SLOTS);
}

/// Fixed pairs, so that both sides cannot change together: data lies where these say.
#[test]
fn slots_of_users_never_change() {
    for (user, slot) in SLOTS_OF_USERS {
        assert_eq!(wire::SlotIndex::of(wire::UserId(user)), wire::SlotIndex(slot), "user {user}");
        assert_eq!(stored::SlotIndex::of(stored::UserId(user)), stored::SlotIndex(slot), "user {user}");
    }
}

/// Computed from the definition in `PROTOCOL.md`.
const SLOTS_OF_USERS: [(u64, u16); 6] =
    [(0, 0), (1, 1385), (2, 3517), (7, 298), (1 << 32, 3458), (u64::MAX, 2893)];

/// The smallest and the largest value of each part, and one between.
#[test]
fn parts_of_an_entry_id_lie_in_the_same_bits() {
    for time_ms in [0, 1, 848_000_000_123, (1 << 42) - 1] {
        for sequence in [0, 1, 1_023] {
            for slot in [0, 1, 4_095] {
                let here =
                    wire::EntryId::from_parts(wire::Stamp(time_ms), sequence, wire::SlotIndex(slot)).unwrap();
                let tick = stored::EntryId::first_tick_at(stored::Stamp(time_ms)) + u64::from(sequence);
                let there = stored::EntryId::from_tick(tick, stored::SlotIndex(slot));
                assert_eq!(here.0, there.0);
                assert_eq!(here.0, time_ms << 22 | u64::from(sequence) << 12 | u64::from(slot));
            }
        }
    }
}

proptest! {
    #[test]
    fn users_have_one_home(user: u64, power in 0u32..=12) {
        let partitions = 1u16 << power;
        let here = wire::SlotIndex::of(wire::UserId(user));
        let there = stored::SlotIndex::of(stored::UserId(user));
        prop_assert_eq!(here.0, there.0);
        prop_assert!(here.0 < wire::ids::SLOTS);
        prop_assert_eq!(
            wire::PartitionId::of_slot(here, partitions).0,
            stored::PartitionId::of_slot(there, partitions).0
        );
        let home = wire::PartitionId::of_user(wire::UserId(user), partitions);
        prop_assert_eq!(home.0, stored::PartitionId::of_user(stored::UserId(user), partitions).0);
        prop_assert!(home.0 < partitions);
    }

    #[test]
    fn any_id_is_taken_apart_alike(id: u64) {
        let (here, there) = (wire::EntryId(id), stored::EntryId(id));
        prop_assert_eq!(here.time().0, there.time().0);
        prop_assert_eq!(here.slot().0, there.slot().0);
        prop_assert_eq!(here.time().0 << 10 | u64::from(here.sequence()), there.tick());
        prop_assert_eq!(wire::EntryId::from_parts(here.time(), here.sequence(), here.slot()), Some(here));
        prop_assert_eq!(stored::EntryId::from_tick(there.tick(), there.slot()), there);
    }
}
