use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::owners::OwnerIndex;
use super::super::row::Row;
use super::*;
use crate::entry::Audience;
use crate::ids::SpaceId;

const USER: u32 = 5_000;

/// A table whose row at position p has the id p.
fn table(base: u64, rows: u64) -> Delivered {
    let mut table = Delivered::starting_at(base);
    for n in base..base + rows {
        table.append(Row::new(EntryId(n), OwnerIndex(0), SpaceId(1), Audience::Public));
    }
    table
}

fn push(feeds: &mut Feeds, number: u64, cap: u32) -> bool {
    let before = feeds.stored();
    feeds.push_later(Store { cap, position: RowPosition(number), id: EntryId(number) }, &[USER]);
    feeds.drain();
    feeds.stored() > before
}

fn numbers(feeds: &Feeds) -> Vec<u64> {
    feeds.positions(USER).iter().map(|position| position.0).collect()
}

#[test]
fn positions_survive_the_wrap_of_the_low_half() {
    let (base, mut feeds) = ((1u64 << 32) - 20, Feeds::default());
    assert!((base..base + 40).all(|n| push(&mut feeds, n, 100)));
    assert!(numbers(&feeds).into_iter().eq(base..base + 40));
}

#[test]
fn an_old_reference_never_names_a_new_row() {
    let mut feeds = Feeds::default();
    push(&mut feeds, 5, 100);
    push(&mut feeds, 5 + (1u64 << 32), 100);
    assert_eq!(numbers(&feeds), [5, 5 + (1u64 << 32)]);
}

#[test]
fn eviction_raises_the_floor_and_later_low_ids_are_refused() {
    let mut feeds = Feeds::default();
    for n in 2..8 {
        push(&mut feeds, 10 * n, 2);
    }
    assert_eq!((numbers(&feeds), feeds.floor(USER)), (vec![60, 70], EntryId(50)));
    push(&mut feeds, 80, 2);
    assert!(!push(&mut feeds, 50, 2));
    assert!(push(&mut feeds, 55, 2), "an id above the floor may come late");
}

#[test]
fn between_the_cap_and_a_cell_more_are_kept() {
    let mut feeds = Feeds::default();
    for n in 1..=20_000 {
        push(&mut feeds, n * 5_000, 800);
        let kept = feeds.references();
        assert!(kept == n || (800..=800 + 110).contains(&kept), "{kept} after {n}");
        assert_eq!(feeds.positions(USER).len() as u64, kept);
    }
    assert!(feeds.cells.memory() <= 22 * 128 + 256, "evicted cells are used again");
}

#[test]
fn filling_keeps_the_newest_ids_whatever_arrived_first() {
    let (table, mut feeds) = (table(0, 20), Feeds::default());
    for n in 10..14 {
        push(&mut feeds, n, 5);
    }
    let older: Vec<_> = (0..10).map(|n| (RowPosition(n), EntryId(n))).collect();
    feeds.fill(USER, &older, EntryId::ZERO, 5, &table);
    assert_eq!((numbers(&feeds), feeds.floor(USER)), ((9..14).collect(), EntryId(8)));
    assert_eq!((feeds.stored(), feeds.references(), feeds.count()), (4, 5, 1));
    feeds.clear(USER);
    assert_eq!((numbers(&feeds), feeds.floor(USER)), (vec![], EntryId::ZERO));
    assert_eq!((feeds.references(), feeds.count()), (0, 0));
}

#[test]
fn a_floor_stands_without_references() {
    let mut feeds = Feeds::default();
    feeds.fill(USER, &[], EntryId(9), 800, &table(0, 1));
    assert!(!push(&mut feeds, 9, 800));
    assert!(push(&mut feeds, 10, 800));
    assert_eq!((numbers(&feeds), feeds.floor(USER)), (vec![10], EntryId(9)));
}

/// What a feed is to hold, by walking everything that ever came.
#[derive(Default)]
struct Model {
    came: Vec<(RowPosition, EntryId)>,
}

fn pushes() -> impl Strategy<Value = Vec<(u64, u64)>> {
    let near = (1u64 << 32) - 9_000..(1u64 << 32) + 9_000;
    // Ids about half a second apart, so that they and the floors lie on both sides of the steps of their high halves.
    let ids = (1..2_000u64).prop_map(|n| n << 31);
    prop::collection::vec((prop_oneof![9 => near, 1 => 0..1u64 << 40], ids), 1..900)
}

/// The floor of the user 7 is in the range that its head tells.
fn check_floor_range(feeds: &Feeds) -> Result<(), TestCaseError> {
    let (least, most) = feeds.floor_range(7);
    prop_assert!((least..=most).contains(&feeds.floor(7)), "{:?} of {least:?} to {most:?}", feeds.floor(7));
    Ok(())
}

proptest! {
    #[test]
    fn a_walk_gives_the_newest_arrivals_and_true_bounds(pushes in pushes(), cap in prop_oneof![1..40u32, Just(800u32)]) {
        let (mut feeds, mut model, mut ids) = (Feeds::default(), Model::default(), BTreeMap::new());
        for (position, id) in pushes {
            // A row has one id.
            let (position, id) = (RowPosition(position), *ids.entry(position).or_insert(EntryId(id)));
            let (before, floor) = (feeds.stored(), feeds.floor(7));
            feeds.push_later(Store { cap, position, id }, &[7]);
            feeds.drain();
            prop_assert_eq!(feeds.stored() > before, id > floor);
            let head = feeds.heads.get(7).expect("it was made by the first push");
            prop_assert!(!head.is_surely_above_floor(feeds.floor(7)));
            prop_assert!(head.is_surely_above_floor(EntryId(feeds.floor(7).0 + (1 << 32))));
            check_floor_range(&feeds)?;
            if id > floor {
                model.came.push((position, id));
            }
        }
        let (mut walk, mut run, mut older) = (feeds.walk(7), Vec::new(), model.came.clone());
        while let Some(bound) = walk.next_run(&mut run) {
            for position in run.drain(..) {
                prop_assert_eq!(older.pop().map(|(p, _)| p), Some(position));
            }
            prop_assert!(older.iter().all(|(_, id)| *id <= bound));
        }
        prop_assert!(model.came.len() - older.len() >= model.came.len().min(cap as usize));
        prop_assert!(older.iter().all(|(_, id)| *id <= feeds.floor(7)));
    }

    #[test]
    fn feeds_above_a_floor_take_what_is_above_it(pushes in pushes(), cap in 1..40u32, floor in 0..1_000u64) {
        let floor = EntryId(floor << 31);
        let (mut feeds, mut plain) = (Feeds::above(floor, 3), Feeds::default());
        let mut ids = BTreeMap::new();
        for (position, id) in pushes {
            let (position, id) = (RowPosition(position), *ids.entry(position).or_insert(EntryId(id)));
            let (before, own) = (feeds.stored(), feeds.floor(7));
            prop_assert!(own >= floor && feeds.floor(8) == floor);
            feeds.push_later(Store { cap, position, id }, &[7]);
            feeds.drain();
            prop_assert_eq!(feeds.stored() > before, id > own);
            check_floor_range(&feeds)?;
            if id > floor {
                plain.push_later(Store { cap, position, id }, &[7]);
                plain.drain();
            }
        }
        prop_assert_eq!(feeds.positions(7), plain.positions(7));
        prop_assert_eq!((feeds.floor(7), feeds.stored()), (plain.floor(7).max(floor), plain.stored() + 3));
        feeds.clear(7);
        prop_assert_eq!(feeds.floor(7), floor);
        feeds.fill(7, &[(RowPosition(1), floor)], EntryId::ZERO, cap, &Delivered::default());
        prop_assert_eq!(feeds.positions(7), vec![]);
    }
}

#[test]
fn feeds_move_into_the_room_of_freed_ones() {
    const USERS: u32 = 6_000;
    // Far apart, so that few references fill a cell.
    let numbers_of = || (1..700).map(|n| n << 20);
    let mut feeds = Feeds::default();
    let everybody: Vec<u32> = (0..USERS).collect();
    for number in numbers_of() {
        let store = Store { cap: 2_500, position: RowPosition(number), id: EntryId(number) };
        feeds.push_later(store, &everybody);
    }
    feeds.drain();
    let before = feeds.memory();
    let kept = |user: &u32| user.is_multiple_of(10);
    everybody.iter().filter(|user| !kept(user)).for_each(|user| feeds.free(*user));
    assert!(feeds.has_gaps());
    for user in everybody.iter().copied().filter(kept) {
        feeds.close_gaps(user);
        assert!(feeds.positions(user).into_iter().map(|position| position.0).eq(numbers_of()));
        assert_eq!(feeds.floor(user), EntryId::ZERO);
    }
    assert!(!feeds.has_gaps() && feeds.memory() < before / 2, "{} of {before}", feeds.memory());
    let next = 700 << 20;
    assert!(push(&mut feeds, next, 100) && numbers(&feeds).ends_with(&[next]));
    feeds.push_later(Store { cap: 2_500, position: RowPosition(next), id: EntryId(next) }, &[11]);
    feeds.drain();
    assert_eq!((feeds.positions(11), feeds.floor(11)), (Vec::new(), EntryId(next)));
}
