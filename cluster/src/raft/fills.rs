//! Owns the turns in which the replicas of a node are filled by their peers, and the pace of it.
//!
//! - One at a time: each takes the processor and the disk of nodes that serve meanwhile, and all at once take no less time.
//! - What fills a replica, snapshot or log, is answered late enough that the peers send no more bytes a second than are wanted:
//!   else it takes whole processors of nodes that serve. A replica of a group that is written to faster than that is not held up,
//!   or it would never be filled.
//! - A turn that nobody uses any more is lost: its sender is gone, or has no snapshot any more.

use std::sync::Arc;
use std::time::Duration;

use fanfold_storage::log::GroupId;
use parking_lot::Mutex;
use tokio::time::Instant;

/// How long a sender may say nothing before another one gets the turn; a message is waited for that long.
const LOST_AFTER: Duration = Duration::from_secs(10);

/// What may come at once after a pause.
const BURST: Duration = Duration::from_millis(50);

/// How often it is looked whether a replica gains on its leader.
const LOOK_EVERY: Duration = Duration::from_secs(1);

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

/// Whether a replica that is filled by log gains on its leader.
#[derive(Debug, Default)]
pub(super) struct Gains(Mutex<Option<Gain>>);

#[derive(Debug)]
struct Gain {
    since: Instant,
    missing: u64,
    is_gaining: bool,
}

impl Gains {
    /// Takes note that so many entries are missing; whether the replica was gaining when it was looked last.
    pub fn note(&self, missing: u64) -> bool {
        let (mut known, now) = (self.0.lock(), Instant::now());
        let gain = known.get_or_insert(Gain { since: now, missing, is_gaining: true });
        if now - gain.since >= LOOK_EVERY {
            *gain = Gain { since: now, missing, is_gaining: missing < gain.missing };
        }
        gain.is_gaining
    }
}

impl Default for Fills {
    fn default() -> Self {
        Self::new(u64::MAX)
    }
}

impl Fills {
    /// Replicas are filled with so many bytes a second together.
    pub fn new(bytes_per_second: u64) -> Self {
        let (turn, free_at) = (Mutex::default(), Mutex::default());
        Self(Arc::new(Shared { turn, bytes_per_second: bytes_per_second.max(1), free_at }))
    }

    /// Waits until so many more bytes may have come.
    pub(super) async fn take(&self, bytes: u64) {
        let turn = {
            let (mut free_at, now) = (self.0.free_at.lock(), Instant::now());
            let earliest = now.checked_sub(BURST).unwrap_or(now);
            let begins = free_at.map_or(earliest, |at| at.max(earliest));
            let takes = bytes.saturating_mul(1_000_000_000) / self.0.bytes_per_second;
            let ends = begins + Duration::from_nanos(takes);
            *free_at = Some(ends);
            ends
        };
        tokio::time::sleep_until(turn).await;
    }

    /// Whether it is a group's turn from now on.
    pub(super) fn begin(&self, group: GroupId) -> bool {
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

    /// A group needs its turn no more.
    pub(super) fn end(&self, group: GroupId) {
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
        let fills = Fills::new(1_000);
        let begun = Instant::now();
        futures_util::future::join_all((0..4).map(|_| fills.take(500))).await;
        let took = begun.elapsed();
        assert!(took >= Duration::from_millis(1_900) && took <= Duration::from_secs(2), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_gain_on_its_leader_is_not_held_up() {
        let gains = Gains::default();
        assert!(gains.note(1_000));
        tokio::time::advance(LOOK_EVERY).await;
        assert!(gains.note(900));
        tokio::time::advance(LOOK_EVERY).await;
        assert!(!gains.note(900) && !gains.note(800), "until it is looked again");
        tokio::time::advance(LOOK_EVERY).await;
        assert!(gains.note(700));
    }
}
