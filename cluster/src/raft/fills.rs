//! Owns the turns in which the replicas of a node are filled by their peers, and the pace of it.
//!
//! - One at a time: each takes the processor and the disk of nodes that serve meanwhile, and all at once take no less time.
//! - What fills a replica by log is answered late enough that the peers send no more bytes a second than are wanted: else applying it
//!   takes whole processors of nodes that serve. One message of a group is held up at a time, the others behind it wait at their
//!   sender anyway, and for two seconds at most.
//! - A replica is held up only while it gains on its leader, and for two minutes in all: the leader keeps its log meanwhile.
//!   (A snapshot is not: behind it the log grows that is to be sent then.)
//! - A turn that nobody uses any more is lost: its sender is gone, or has no snapshot any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fanfold_storage::log::GroupId;
use parking_lot::Mutex;
use tokio::time::Instant;

/// How long a sender may say nothing before another one gets the turn; a message is waited for that long.
const LOST_AFTER: Duration = Duration::from_secs(10);

/// What may come at once after a pause.
const BURST: Duration = Duration::from_millis(50);

/// How long a message is held up, at most: what is not answered for long is sent again.
const HELD_MAX: Duration = Duration::from_secs(2);

/// How often it is looked whether a replica gains on its leader.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Of what it lacks a replica gains this part, or more, between two looks; else it is not held up …
const GAIN: u64 = 64;

/// … for so long.
const HURRIES_FOR: Duration = Duration::from_secs(10);

/// For how long a replica is held up, in all.
const PACED_MAX: Duration = Duration::from_secs(120);

/// The filling of the replicas of a node. Clones share everything.
#[derive(Debug, Clone)]
pub struct Fills(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Whose turn it is to be sent a snapshot, of all groups of a node, and when its sender was last heard.
    turn: Mutex<Option<(GroupId, Instant)>>,
    bytes_per_second: u64,
    /// When all that has come so far would have come, at the pace.
    free_at: Mutex<Option<Instant>>,
}

/// How a replica is filled by log.
#[derive(Debug, Default)]
pub(super) struct Filling {
    gain: Mutex<Option<Gain>>,
    /// Whether a message of it is held up.
    is_held: AtomicBool,
}

#[derive(Debug)]
struct Gain {
    begun: Instant,
    looked: Instant,
    missing: u64,
    hurries_until: Option<Instant>,
}

/// The holding up of a message.
struct Held<'a>(&'a AtomicBool);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

impl Filling {
    /// Takes note that so many entries are missing; whether the replica may be held up.
    fn may_wait(&self, missing: u64) -> bool {
        let (mut known, now) = (self.gain.lock(), Instant::now());
        let gain = known.get_or_insert(Gain { begun: now, looked: now, missing, hurries_until: None });
        if now - gain.looked >= LOOK_EVERY {
            let is_gaining = missing <= gain.missing - gain.missing.min(gain.missing / GAIN + 1);
            (gain.looked, gain.missing) = (now, missing);
            if !is_gaining {
                gain.hurries_until = Some(now + HURRIES_FOR);
            }
        }
        now - gain.begun < PACED_MAX && gain.hurries_until.is_none_or(|until| until <= now)
    }

    /// A message of so many bytes has come, and so many entries are missing: holds it up until its turn at the pace.
    pub async fn came(&self, fills: &Fills, bytes: u64, missing: u64) {
        if !self.may_wait(missing) {
            return;
        }
        let turn = fills.charge(bytes);
        if !self.is_held.swap(true, Ordering::Relaxed) {
            let _held = Held(&self.is_held);
            tokio::time::sleep_until(turn).await;
        }
    }
}

impl Default for Fills {
    fn default() -> Self {
        Self::new(u64::MAX)
    }
}

impl Fills {
    /// Replicas are filled by log with so many bytes a second together.
    pub fn new(bytes_per_second: u64) -> Self {
        let (turn, free_at) = (Mutex::default(), Mutex::default());
        Self(Arc::new(Shared { turn, bytes_per_second: bytes_per_second.max(1), free_at }))
    }

    /// When so many more bytes may have come.
    fn charge(&self, bytes: u64) -> Instant {
        let (mut free_at, now) = (self.0.free_at.lock(), Instant::now());
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        let begins = free_at.map_or(earliest, |at| at.max(earliest));
        let takes = Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / self.0.bytes_per_second);
        *free_at.insert((begins + takes).min(now + HELD_MAX))
    }

    /// Whether it is a group's turn from now on.
    pub fn begin(&self, group: GroupId) -> bool {
        let mut turn = self.0.turn.lock();
        let is_free = turn.is_none_or(|(of, heard)| of == group || heard.elapsed() > LOST_AFTER);
        if is_free {
            *turn = Some((group, Instant::now()));
        }
        is_free
    }

    /// The sender of a group was heard.
    pub(super) fn go_on(&self, group: GroupId) {
        if let Some((_, heard)) = self.0.turn.lock().as_mut().filter(|(of, _)| *of == group) {
            *heard = Instant::now();
        }
    }

    /// Whether a group is being sent a snapshot.
    pub fn is_sent(&self, group: GroupId) -> bool {
        self.0.turn.lock().is_some_and(|(of, heard)| of == group && heard.elapsed() <= LOST_AFTER)
    }

    /// A group needs its turn no more.
    pub fn end(&self, group: GroupId) {
        self.0.turn.lock().take_if(|(of, _)| *of == group);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_group_is_filled_at_a_time_and_one_that_is_not_any_more_holds_nobody_up() {
        let fills = Fills::default();
        let [a, b] = [GroupId(1), GroupId(2)];
        assert!(fills.begin(a) && fills.begin(a) && !fills.begin(b));
        tokio::time::advance(LOST_AFTER).await;
        fills.go_on(a);
        tokio::time::advance(LOST_AFTER).await;
        assert!(!fills.begin(b));
        fills.end(b);
        assert!(!fills.begin(b), "it was not its turn that ended");
        fills.end(a);
        assert!(fills.begin(b) && !fills.begin(a));
        tokio::time::advance(2 * LOST_AFTER).await;
        assert!(fills.begin(a), "its sender is gone");
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_comes_in_a_second_than_is_wanted() {
        let (fills, fillings) = (Fills::new(1_000), [Filling::default(), Filling::default()]);
        let begun = Instant::now();
        // Of each four messages are under way, and all are answered before the next come.
        for round in 0..4 {
            let came = fillings.iter().map(|filling| async {
                let four = (0..4).map(|_| filling.came(&fills, 100, 10_000 - 1_000 * round));
                futures_util::future::join_all(four).await;
            });
            futures_util::future::join_all(came).await;
        }
        let took = begun.elapsed();
        assert!(took >= Duration::from_millis(2_500) && took <= Duration::from_millis(3_200), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_held_up_for_long() {
        let (fills, filling) = (Fills::new(1), Filling::default());
        let begun = Instant::now();
        filling.came(&fills, 1 << 30, 1_000).await;
        assert_eq!(begun.elapsed(), HELD_MAX);
        // Whoever gave up does not count.
        drop(tokio::time::timeout(Duration::from_millis(1), filling.came(&fills, 1, 900)).await);
        assert!(!filling.is_held.load(Ordering::Relaxed));
        tokio::time::advance(PACED_MAX).await;
        assert!(!filling.may_wait(100));
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_gain_on_its_leader_is_not_held_up() {
        let filling = Filling::default();
        let after = async |missing| {
            tokio::time::advance(LOOK_EVERY).await;
            filling.may_wait(missing)
        };
        assert!(filling.may_wait(1_000) && after(900).await);
        assert!(!after(899).await && !after(800).await, "that is as good as nothing");
        tokio::time::advance(HURRIES_FOR).await;
        assert!(after(100).await);
    }
}
