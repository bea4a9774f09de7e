//! What the disk sees of long runs: bytes written, bytes kept.

use super::*;

pub(super) const PAYLOAD_BYTES: u64 = 300;

pub(super) fn policy() -> MergePolicy {
    MergePolicy { segment_bytes_max: 2 << 20, ..MergePolicy::default() }
}

/// Numbers that look like chance.
pub(super) fn next(random: &mut u64) -> u64 {
    *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *random >> 33
}

pub(super) struct Run {
    pub(super) store: Store,
    /// Of the memory of the active table.
    table_bytes: u64,
    random: u64,
    /// Bytes of payloads appended and amended.
    payload: u64,
    pub(super) ids: Vec<EntryId>,
}

impl Run {
    pub(super) fn new(table_bytes: u64) -> Self {
        Self { store: Store::new(), table_bytes, random: 7, payload: 0, ids: Vec::new() }
    }

    pub(super) fn append(&mut self, ttl_ms: Option<u64>) {
        let owner = next(&mut self.random) % 500;
        self.append_of(owner, ttl_ms);
    }

    fn append_of(&mut self, owner: u64, ttl_ms: Option<u64>) {
        let id = self.store.append(owner, ttl_ms, vec![0; PAYLOAD_BYTES as usize]);
        self.payload += PAYLOAD_BYTES;
        self.ids.push(id);
    }

    /// Does what is to be done.
    pub(super) fn maintain(&mut self) {
        let timelines = &mut self.store.timelines;
        drop(timelines.drop_expired(self.store.stamp));
        if timelines.sizes().active_bytes >= self.table_bytes {
            self.store.flush();
            drop(self.store.timelines.drop_cached(0));
        }
        for segment in self.store.merge(&policy()) {
            self.store.fs.remove(segment.path()).unwrap();
        }
    }

    /// Bytes written per byte of payload.
    pub(super) fn amplification(&self) -> f64 {
        let sizes = self.store.timelines.sizes();
        (sizes.flushed_bytes + sizes.merged_bytes) as f64 / self.payload as f64
    }
}

/// Segments that a read of the newest twenty entries of an owner finds something in, or may.
fn touched_of(run: &Run, owner: u64) -> usize {
    let timelines = &run.store.timelines;
    let mut walk = timelines.newest(SPACE, UserId(owner), EntryId::MAX, run.store.stamp);
    assert_eq!(walk.by_ref().take(20).count(), 20);
    let looked_into = &timelines.segments[walk.segments..];
    looked_into.iter().filter(|held| held.segment.may_hold(SPACE, UserId(owner))).count()
}

/// The same of each owner: the mean, and the most.
fn touched(run: &Run) -> (f64, usize) {
    let touched: Vec<usize> = (0..500).map(|owner| touched_of(run, owner)).collect();
    (
        touched.iter().sum::<usize>() as f64 / touched.len() as f64,
        touched.into_iter().max().unwrap_or_default(),
    )
}

#[test]
fn writes_are_a_small_multiple_of_the_payloads() {
    // Tables as large beside the largest segments as they usually are, and much smaller ones.
    for (table_bytes, segments_max, touched_max) in [(256 << 10, 16, 4.5), (32 << 10, 80, 13.0)] {
        let mut run = Run::new(table_bytes);
        for n in 0..40_000 {
            run.append(None);
            if n % 50 == 0 {
                run.maintain();
                assert!(n < 1_000 || run.amplification() <= policy().write_bound);
            }
        }
        let sizes = run.store.timelines.sizes();
        eprintln!("{:.2} written per byte, {} segments", run.amplification(), sizes.segments);
        assert!(sizes.segments <= segments_max, "{} segments", sizes.segments);
        // Nothing is cached, and twenty entries of an owner are spread over a quarter of all.
        let (mean, most) = touched(&run);
        eprintln!("a page touches {mean:.1} segments, at most {most}");
        assert!(mean <= touched_max, "{mean:.1} segments for a page");
        assert!(sizes.segment_bytes as f64 <= 1.3 * run.payload as f64);
    }
}

/// Who posts twenty entries in the time of a table or two is read from one or two segments. Who posts seldom is in as many as
/// there are of the time of twenty posts (above): segments are of windows of time.
#[test]
fn the_newest_of_who_posts_often_are_in_one_or_two_segments() {
    const OFTEN: u64 = 1_000;
    let mut run = Run::new(256 << 10);
    let mut counts = Vec::new();
    for n in 0..30_000 {
        if n % 40 == 0 {
            run.append_of(OFTEN, None);
        } else {
            run.append(None);
        }
        if n % 50 == 0 {
            run.maintain();
        }
        if n > 2_000 && n % 250 == 0 {
            counts.push(touched_of(&run, OFTEN));
        }
    }
    let (mean, most) = (counts.iter().sum::<usize>() as f64 / counts.len() as f64, counts.iter().max());
    eprintln!("{mean:.2} segments, at most {most:?}");
    assert!(mean <= 2.0 && most <= Some(&2), "{mean:.2} segments, at most {most:?}");
}

#[test]
fn space_follows_what_is_deleted_and_amended() {
    let mut run = Run::new(64 << 10);
    let mut live = 0;
    for n in 0..30_000u64 {
        run.append(None);
        live += 1;
        let at = next(&mut run.random) as usize % run.ids.len();
        if n % 3 == 0 {
            let id = run.ids.swap_remove(at);
            assert!(run.store.timelines.remove(id).is_some());
            live -= 1;
        } else if n % 20 == 1 {
            let payload = Bytes::from(vec![1; PAYLOAD_BYTES as usize]);
            assert!(run.store.timelines.amend(run.ids[at], payload).is_some());
            run.payload += PAYLOAD_BYTES;
        }
        if n % 50 == 0 {
            run.maintain();
        }
    }
    let sizes = run.store.timelines.sizes();
    let space = sizes.segment_bytes as f64 / (live * PAYLOAD_BYTES) as f64;
    eprintln!("{:.2} written and {space:.2} kept per byte, {} segments", run.amplification(), sizes.segments);
    assert_eq!(run.store.timelines.len(), live);
    assert!(space <= 1.5, "{space:.2} kept per byte that is live");
    assert!(run.amplification() <= 4.0);
    // Nine of ten go: the space does, too.
    let (gone, kept) = run.ids.split_at(run.ids.len() * 9 / 10);
    for id in gone {
        assert!(run.store.timelines.remove(*id).is_some());
    }
    run.store.flush();
    drop(run.store.timelines.drop_cached(0));
    drop(run.store.merge(&policy()));
    let space = run.store.timelines.sizes().segment_bytes as f64 / (kept.len() as u64 * PAYLOAD_BYTES) as f64;
    eprintln!("{space:.2} kept per byte after deleting most");
    assert!(space <= 1.3 * 1.2, "{space:.2} kept per byte that is live");
}

#[test]
fn stories_level_out_and_vanish_without_a_write() {
    let mut run = Run::new(64 << 10);
    let (mut highlights, mut most_segments, mut most_bytes) = (Vec::new(), 0, 0);
    for minute in 0..30 * 24 * 60 {
        run.store.stamp.0 += 60_000;
        run.append(Some(24 * HOUR_MS));
        // Some are kept just before they vanish.
        if minute % 1_000 == 0 && minute >= 1_400 {
            let id = run.ids[run.ids.len() - 1_400];
            assert!(run.store.timelines.set_expiry(id, None).is_some());
            highlights.push(id);
        }
        if minute % 10 == 0 {
            run.maintain();
        }
        if minute > 2 * 24 * 60 {
            let sizes = run.store.timelines.sizes();
            most_segments = sizes.segments.max(most_segments);
            most_bytes = sizes.segment_bytes.max(most_bytes);
        }
    }
    let live = 24 * 60 * PAYLOAD_BYTES;
    let kept = most_bytes as f64 / live as f64;
    eprintln!("{:.2} written, {kept:.2} kept per byte, {most_segments} segments", run.amplification());
    assert!(run.amplification() <= policy().write_bound);
    assert!(kept <= 1.5 && most_segments <= 60, "{kept:.2} kept in {most_segments} segments");
    for id in &highlights {
        assert_eq!(run.store.live(*id).unwrap().expiry, None);
    }
    // A day later only those are there, and nothing was written for it.
    run.store.flush();
    drop(run.store.timelines.drop_cached(0));
    let operations = run.store.fs.operations();
    run.store.stamp.0 += 24 * HOUR_MS;
    drop(run.store.timelines.drop_expired(run.store.stamp));
    assert_eq!(run.store.fs.operations(), operations);
    assert!(run.store.timelines.segments.iter().all(|held| held.segment.info().expiry.is_none()));
    assert_eq!(run.store.timelines.len(), highlights.len() as u64);
}
