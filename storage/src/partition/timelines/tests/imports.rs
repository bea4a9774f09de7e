//! Which ids imported entries get, and what is looked at for that.

use super::*;

/// Numbers that are the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

impl Store {
    fn import(&mut self, owner: u64, made: Stamp, expiry: Option<Stamp>) -> EntryId {
        let owner = UserId(owner);
        let id = self.timelines.import_id(made, SPACE, owner, self.stamp);
        let entry = Entry {
            id,
            space: SPACE,
            owner,
            author: owner,
            audience: Audience::Public,
            version: 1,
            expiry,
            reference: None,
            payload: Bytes::from_static(b"imported"),
        };
        self.timelines.import(entry, self.stamp);
        id
    }

    /// The id by its definition, from all entries there are.
    fn expected(&self, owner: u64, made: Stamp) -> EntryId {
        let live = all(&self.timelines, self.stamp);
        let slot = SlotIndex::of(UserId(owner));
        let (last_made, last_tick) = self.timelines.last_import;
        let mut tick = EntryId::first_tick_at(made).max(1);
        if made >= last_made {
            tick = tick.max(last_tick + 1);
        }
        let mine = live.iter().filter(|entry| entry.owner == UserId(owner) && entry.id.time() <= made);
        tick = mine.map(|entry| entry.id.tick() + 1).max().unwrap_or_default().max(tick);
        let taken = |tick| live.iter().any(|entry| entry.id == EntryId::from_tick(tick, slot));
        if !taken(tick) {
            return EntryId::from_tick(tick, slot);
        }
        let (mut low, mut step) = (tick, 1);
        while taken(low + step) {
            (low, step) = (low + step, step * 2);
        }
        let free = (low + 1..=low + step).find(|tick| !taken(*tick) && taken(tick - 1)).unwrap();
        EntryId::from_tick(free, slot)
    }
}

#[test]
fn an_imported_entry_gets_the_id_that_all_entries_say() {
    for seed in 1..=20 {
        let (mut store, mut dice) = (Store::new(), Dice(seed));
        let mut ids = Vec::new();
        for step in 0..150 {
            store.stamp.0 += dice.below(3);
            let owner = dice.below(4);
            match dice.below(12) {
                0 if store.timelines.unflushed().next().is_some() => store.flush(),
                1 => drop(store.merge(&ANYTHING)),
                2 => drop(store.timelines.drop_cached(0)),
                3 if !ids.is_empty() => {
                    let id = ids[dice.below(ids.len() as u64) as usize];
                    store.timelines.remove(id);
                }
                4 => ids.push(store.append(owner, Some(5), Vec::new())),
                5 => store.timelines.sweep(store.stamp, 1),
                _ => {
                    // Few milliseconds, so that many share one.
                    let made = Stamp(START.0 - dice.below(6));
                    let expiry = (dice.below(3) == 0).then(|| Stamp(store.stamp.0 + 1 + dice.below(5)));
                    let expected = store.expected(owner, made);
                    let id = store.import(owner, made, expiry);
                    assert_eq!(id, expected, "seed {seed}, step {step}");
                    assert_eq!(store.live(id).map(|entry| entry.owner), Some(UserId(owner)));
                    ids.push(id);
                }
            }
            let mut found: Vec<EntryId> =
                (0..4).flat_map(|owner| store.timeline(owner)).map(|e| e.id).collect();
            let mut there: Vec<EntryId> = all(&store.timelines, store.stamp).iter().map(|e| e.id).collect();
            found.sort_unstable();
            there.sort_unstable();
            assert_eq!(found, there, "seed {seed}, step {step}");
        }
    }
}

/// Segments that all cover the same hour and hold the same owners, none of whose records can be read.
fn unreadable() -> Store {
    let (mut store, mut dice) = (Store::new(), Dice(7));
    for _ in 0..6 {
        for n in 0..60 {
            store.import(n % 5, Stamp(START.0 - 2 * dice.below(HOUR_MS / 2) - 2), None);
        }
        store.flush();
    }
    drop(store.timelines.drop_cached(0));
    let infos: Vec<SegmentInfo> = store.timelines.segments.iter().map(|held| *held.segment.info()).collect();
    assert_eq!(infos.len(), 6);
    for info in &infos {
        let path = Store::dir().join(info.number.file_name());
        let mut content = store.fs.content(&path).unwrap();
        for at in 0..content.len() - 8 {
            if &content[at..at + 8] == b"imported" {
                content[at] ^= 1;
            }
        }
        assert!(store.fs.damage(&path, &content));
    }
    store.timelines.segments = store.open(&infos).into_iter().map(held::Held::new).collect();
    store.timelines.sort_segments();
    store
}

#[test]
fn an_import_into_any_time_reads_no_record_of_other_milliseconds() {
    let (mut store, mut dice) = (unreadable(), Dice(9));
    for n in 0..2_000 {
        // Those that are there were made in even milliseconds.
        store.import(n % 7, Stamp(START.0 - 2 * dice.below(HOUR_MS / 2) - 1), None);
    }
    assert!(store.timelines.damage.get().is_none());
    // One that was made in the same millisecond is read: it may have expired.
    let other = store.timelines.segments[3].segment.info().lowest;
    let owner = (0..5).find(|owner| SlotIndex::of(UserId(*owner)) == other.slot()).unwrap();
    store.import(owner, other.time(), None);
    assert!(store.timelines.damage.get().is_some(), "whether anything was read shows");
}

#[test]
fn a_walk_reads_only_what_it_gives_out() {
    let store = unreadable();
    let mut walk = store.timelines.newest(SPACE, UserId(1), EntryId::MAX, store.stamp);
    let first = walk.next_above(None).unwrap();
    assert_eq!(walk.next_above(Some(first)), None);
    assert!(store.timelines.damage.get().is_none());
    assert!(walk.entry(first).is_none() && store.timelines.damage.get().is_some());
}
