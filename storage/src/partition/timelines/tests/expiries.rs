//! Entries that expire at many different times: what the disk keeps of them, and in how many files.

use super::bounds::{PAYLOAD_BYTES, Run, next, policy};
use super::*;

const DAY_MS: u64 = 24 * HOUR_MS;

/// What an entry takes in a segment of many, about.
const ENTRY_BYTES: u64 = PAYLOAD_BYTES + 32;

/// Nine of ten live for an hour, the tenth for a day to a year.
fn mixed(n: u64, random: &mut u64) -> u64 {
    if n.is_multiple_of(10) { (1 + next(random) % 365) * DAY_MS + next(random) % DAY_MS } else { HOUR_MS }
}

/// Bytes of segments per byte that lives in them, and how many those are.
fn kept(run: &Run) -> (f64, u64) {
    let live = all(&run.store.timelines, run.store.stamp).len() as u64 * ENTRY_BYTES;
    (run.store.timelines.sizes().segment_bytes as f64 / live as f64, live)
}

/// Flushes what is there and keeps nothing of it in memory.
fn settle(run: &mut Run) {
    run.store.flush();
    drop(run.store.timelines.drop_cached(0));
    run.maintain();
}

/// A year passes after which nothing is left; the segments are never much larger than what lives in them.
fn live_out(mut run: Run) {
    settle(&mut run);
    run.store.stamp.0 += HOUR_MS + 60_000;
    loop {
        run.maintain();
        let ((kept, live), segments) = (kept(&run), run.store.timelines.sizes().segments);
        if live == 0 {
            break;
        }
        // Of a few entries the file has more beside them.
        if live > 64 << 10 {
            assert!(kept <= 1.3, "{kept:.2} kept in {segments} segments at {:?}", run.store.stamp);
        }
        assert!(segments <= 80, "{segments} segments");
        run.store.stamp.0 += DAY_MS;
    }
    eprintln!("{:.2} written per byte", run.amplification());
    assert!(run.amplification() <= policy().write_bound, "{:.2} written per byte", run.amplification());
    assert_eq!(run.store.timelines.sizes().segments, 0);
}

#[test]
fn what_expires_at_many_times_leaves_the_disk_within_a_minute() {
    // However time and the windows lie to each other, in one flush or in many.
    for (days, flushes) in [(0, 1), (100, 1), (57, 4), (200, 12)] {
        let mut run = Run::new(u64::MAX);
        run.store.stamp.0 += days * DAY_MS + days * 1_234_567;
        let mut random = 11;
        for n in 0..24_000 {
            run.store.stamp.0 += 10;
            let ttl_ms = mixed(n, &mut random);
            run.append(Some(ttl_ms));
            if n > 0 && n % (24_000 / flushes) == 0 {
                settle(&mut run);
            }
        }
        live_out(run);
    }
}

#[test]
fn what_had_not_been_measured_before_a_restart_leaves_the_disk_too() {
    let mut run = Run::new(u64::MAX);
    // All of one flush expires at a few times only, most of it at once.
    for n in 0..20_000u64 {
        let ttl_ms = if n % 10 == 0 { 20 * DAY_MS + HOUR_MS + n * 5_000 } else { 20 * DAY_MS };
        run.append(Some(ttl_ms));
    }
    settle(&mut run);
    run.store.timelines = run.store.restored();
    assert!(run.store.timelines.segments.iter().all(|held| held.spread.is_none()));
    run.store.stamp.0 += 20 * DAY_MS;
    run.maintain();
    assert_eq!(all(&run.store.timelines, run.store.stamp).len(), 2_000);
    assert!(kept(&run).0 <= 1.3, "{:?} kept", kept(&run));
}

/// A cluster's space of the usual lifetime comes in by owner: every table has entries of all ages.
#[test]
fn an_import_of_what_expires_makes_few_files() {
    const TABLES: u64 = 64;
    let mut run = Run::new(u64::MAX);
    let mut random = 3;
    for _ in 0..TABLES {
        for _ in 0..1_600 {
            let ttl_ms = 1 + next(&mut random) % (30 * DAY_MS);
            run.append(Some(ttl_ms));
        }
        run.store.stamp.0 += 20_000;
        settle(&mut run);
    }
    let sizes = run.store.timelines.sizes();
    eprintln!("{} segments, {:.2} written per byte", sizes.segments, run.amplification());
    assert!(sizes.segments <= 3 * TABLES, "{} segments of {TABLES} tables", sizes.segments);
    assert!(run.amplification() <= policy().write_bound);
    assert!(kept(&run).0 <= 1.3, "{:?} kept", kept(&run));
}

/// What lives for one time only is never written again: its segments go whole.
#[test]
fn what_expires_steadily_is_not_split() {
    let mut run = Run::new(64 << 10);
    for minute in 0..4 * 24 * 60 {
        run.store.stamp.0 += 60_000;
        run.append(Some(24 * HOUR_MS));
        if minute % 10 == 0 {
            let stamp = run.store.stamp;
            let chosen = run.store.timelines.choose(&policy(), stamp);
            assert!(!matches!(chosen, Some((policy::Task::Split(_) | policy::Task::Measure, _))));
            run.maintain();
        }
    }
}

#[test]
fn nothing_deleted_returns_when_it_died_during_a_split() {
    let mut run = Run::new(u64::MAX);
    for n in 0..2_000u64 {
        run.append(Some(if n % 2 == 0 { 20 * DAY_MS } else { 20 * DAY_MS + HOUR_MS + n * 60_000 }));
    }
    settle(&mut run);
    run.store.stamp.0 += 20 * DAY_MS;
    let split = run.store.timelines.merge_work(&policy(), run.store.stamp).unwrap();
    let live: Vec<EntryId> = run.ids.iter().skip(1).step_by(2).copied().collect();
    for (n, id) in live.iter().enumerate() {
        match n % 3 {
            0 => drop(run.store.timelines.remove(*id).unwrap()),
            1 => drop(run.store.timelines.set_expiry(*id, None).unwrap().clone()),
            _ => {}
        }
    }
    let split = run.store.write_merge(split);
    assert_eq!(run.store.install_merge(split).len(), 1);
    assert!(run.store.timelines.segments.len() > 1, "it was split");
    let check = |run: &Run| {
        for (n, id) in live.iter().enumerate() {
            let found = run.store.live(*id);
            match n % 3 {
                0 => assert_eq!(found, None),
                1 => assert_eq!(found.unwrap().expiry, None),
                _ => assert!(found.unwrap().expiry.is_some()),
            }
        }
        assert_eq!(run.store.timelines.len(), live.len() as u64 - live.len().div_ceil(3) as u64);
        assert!(run.store.timelines.damage.get().is_none());
    };
    check(&run);
    run.store.timelines = run.store.restored();
    check(&run);
}
