//! Owns the crash tests: the machine stops at every operation on files of a second and third snapshot and of pruning.

use super::*;
use crate::snapshot::name::Kind;

/// States of which each changes, adds and drops buckets and segments.
fn states(fs: &FaultFs, store: &SnapshotStore, round: u64, before: &State) -> Option<State> {
    let mut state = State { index: round * 10, ..before.clone() };
    state.buckets.insert((1, round), vec![round as u8; 700]);
    state.buckets.insert((2, 0), vec![round as u8; 900]);
    state.buckets.remove(&(1, round.saturating_sub(2)));
    state.segments.push(make_segment(fs, store, &[round as u8; 600]).ok()?);
    if state.segments.len() > 2 {
        state.segments.remove(0);
    }
    Some(state)
}

/// A disk with one snapshot.
fn begun() -> (FaultFs, State) {
    let fs = FaultFs::new();
    let store = open_whole(&fs);
    let before = State { buckets: Buckets::from([((0, 0), vec![9; 2000])]), ..State::default() };
    let state = states(&fs, &store, 1, &before).unwrap();
    take(&store, None, &state).unwrap();
    (fs, state)
}

/// Takes the second and the third snapshot and prunes after each, until something fails. The states that were to
/// be written, and how many of them were completed.
fn run(fs: &FaultFs, first: &State) -> (Vec<State>, usize) {
    let mut states_taken = vec![first.clone()];
    let mut completed = 1;
    let Ok((store, _)) = SnapshotStore::open(Arc::new(fs.clone()), Path::new(DIR), GROUP) else {
        return (states_taken, completed);
    };
    for round in 2..5 {
        let before = &states_taken[completed - 1];
        let Some(state) = states(fs, &store, round, before) else { break };
        let base = store.newest().unwrap();
        let taken = take(&store, Some((&base, before)), &state);
        states_taken.push(state);
        if taken.is_err() {
            break;
        }
        completed += 1;
        if store.prune(NOTHING).is_err() {
            break;
        }
    }
    (states_taken, completed)
}

/// Opens and checks that the newest snapshot is the last completed or the one in flight, whole, and that the one
/// before is whole as well; then goes on.
fn check(fs: &FaultFs, states_taken: &[State], completed: usize, what: &str) {
    let store = open_whole(fs);
    let newest = store.newest().unwrap();
    let found = load(&store, &newest).unwrap();
    let at = states_taken.iter().position(|state| *state == found).expect(what);
    assert!(at + 1 == completed || at == completed, "{what}: {completed} were completed, {at} was found");
    verify(&store, &newest).unwrap();
    if at > 0 {
        let previous = store.previous().expect(what);
        assert_eq!(load(&store, &previous).unwrap(), states_taken[at - 1], "{what}");
        verify(&store, &previous).unwrap();
    }
    assert!(names(fs).iter().all(|name| !name.contains(".new")), "{what}");

    let next = State { index: 99, ..found.clone() };
    let taken = take(&store, Some((&newest, &found)), &next).unwrap();
    assert!(taken.number > newest.number);
    store.prune(NOTHING).unwrap();
    let needed = newest.names().chain(taken.names()).collect::<std::collections::BTreeSet<_>>();
    assert!(names(fs).iter().eq(&needed), "{what}: what nobody needs is gone");
    assert_eq!(load(&store, &taken).unwrap(), next, "{what}");
}

const ROUNDS: usize = 4;

#[test]
fn after_a_loss_of_power_at_every_operation_the_newest_snapshot_is_the_old_or_the_new_one() {
    let (begun, first) = begun();
    let whole = begun.duplicate();
    assert_eq!(run(&whole, &first).1, ROUNDS);
    let operations = whole.operations();
    assert!(operations > 40, "{operations}");
    let (mut old, mut new) = (0, 0);
    for stop in 0..operations + 2 {
        for loss in
            [PowerLoss::LoseAll, PowerLoss::KeepAll, PowerLoss::Random(stop), PowerLoss::Random(stop + 7777)]
        {
            let fs = begun.duplicate();
            fs.stop_after(stop);
            let (states_taken, completed) = run(&fs, &first);
            let after = fs.lose_power(loss);
            let newest = open_whole(&after.duplicate()).newest().unwrap().index;
            old += u32::from(newest == states_taken[completed - 1].index);
            new += u32::from(newest != states_taken[completed - 1].index);
            check(&after, &states_taken, completed, &format!("stop {stop}, {loss:?}"));
        }
    }
    assert!(old > 100 && new > 3, "both happen: {old}, {new}");
}

/// The manifests and the names that a disk has.
fn seen(fs: &FaultFs) -> (Vec<Manifest>, Vec<String>) {
    let names = names(fs);
    let read = |name: &String| {
        let (kind, number) = Kind::parse(name)?;
        (kind == Kind::Manifest).then(|| Manifest::decode(&fs.content(&path(name))?, GROUP, number).ok())?
    };
    (names.iter().filter_map(read).collect(), names)
}

#[test]
fn in_whatever_order_names_reach_the_disk_no_manifest_lacks_a_file() {
    let (begun, first) = begun();
    let mut differ = 0;
    for stop in 0..60 {
        let fs = begun.duplicate();
        fs.stop_after(stop);
        run(&fs, &first);
        // A manifest that may be there needs files that are there, whatever becomes of what was not synced.
        let killed = fs.kill();
        let (cached, cached_names) = seen(&killed);
        let (durable, durable_names) = seen(&killed.lose_power(PowerLoss::LoseAll));
        differ += u32::from(cached != durable);
        for (name, _) in cached.iter().chain(&durable).flat_map(Manifest::named_files) {
            assert!(cached_names.contains(&name) && durable_names.contains(&name), "stop {stop}: {name}");
        }
    }
    assert!(differ > 2, "{differ}");
}

#[test]
fn what_open_reported_survives_the_next_loss_of_power() {
    let (begun, first) = begun();
    for stop in 0..80 {
        let fs = begun.duplicate();
        fs.stop_after(stop);
        let (states_taken, completed) = run(&fs, &first);
        // The cache holds more than the disk: what is reported has to be on the disk.
        let killed = fs.kill();
        let reported = open_whole(&killed).newest().unwrap();
        let lost = killed.lose_power(PowerLoss::LoseAll);
        assert_eq!(open_whole(&lost).newest().unwrap(), reported, "stop {stop}");
        check(&lost, &states_taken, completed, &format!("stop {stop}"));
    }
}

#[test]
fn opening_may_be_stopped_at_every_operation() {
    let (begun, first) = begun();
    for stop in 0..80 {
        let fs = begun.duplicate();
        fs.stop_after(stop);
        let (states_taken, completed) = run(&fs, &first);
        let mut fs = fs.lose_power(PowerLoss::Random(stop));
        for again in 0..4 {
            fs.stop_after(again);
            let opened = SnapshotStore::open(Arc::new(fs.clone()), Path::new(DIR), GROUP);
            drop(opened.map(|(store, _)| store.prune(NOTHING)));
            fs = fs.lose_power(PowerLoss::Random(stop * 31 + again));
        }
        check(&fs, &states_taken, completed, &format!("stop {stop}"));
    }
}

#[test]
fn a_sync_that_fails_leaves_the_snapshots_before_it() {
    let (begun, first) = begun();
    let mut failed = 0;
    for sync in 0..12 {
        for kept in [PowerLoss::LoseAll, PowerLoss::Random(sync), PowerLoss::KeepAll] {
            let fs = begun.duplicate();
            fs.fail_sync_after(sync, kept);
            let (states_taken, completed) = run(&fs, &first);
            failed += u32::from(completed < ROUNDS);
            check(&fs.lose_power(PowerLoss::KeepAll), &states_taken, completed, &format!("sync {sync}"));
        }
    }
    assert!(failed > 20, "{failed}");
}

#[test]
fn a_full_disk_is_told_and_the_store_goes_on_when_there_is_room() {
    let (begun, first) = begun();
    let used: usize = begun.paths().iter().map(|path| begun.content(path).unwrap().len()).sum();
    let mut full = 0;
    for room in (0..3000).step_by(50) {
        let fs = begun.duplicate();
        let store = open_whole(&fs);
        let base = store.newest().unwrap();
        let mut state = State { index: 20, ..first.clone() };
        state.buckets.insert((3, 3), vec![3; 2000]);
        let before = names(&fs);
        fs.set_room_bytes(Some((used + room) as u64));
        if let Err(error) = take(&store, Some((&base, &first)), &state) {
            full += 1;
            assert!(error.is_full() && !error.is_damage(), "{error}");
            assert_eq!(names(&fs), before, "what was unfinished is gone");
            assert_eq!(store.newest(), Some(Arc::clone(&base)));
            store.prune(NOTHING).unwrap();
            assert_eq!(load(&store, &base).unwrap(), first);
        }
        fs.set_room_bytes(None);
        let again = take(&store, Some((&base, &first)), &state).unwrap();
        assert_eq!(load(&open_whole(&fs), &again).unwrap(), state);
    }
    assert!((30..60).contains(&full), "{full}");
}
