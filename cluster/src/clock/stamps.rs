//! Owns the stamps that leaders put on batches.
//!
//! - A stamp advances at most by the elapsed monotonic time plus [`MARGIN_MS`], and never goes back (R2).
//! - A larger jump of the wall clock is held: stamps follow the monotonic clock until it is accepted.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::{Clock, LOG_EPOCH_UNIX_MS};

/// How far the wall clock may be from the last stamp plus the elapsed monotonic time before its jump is held.
pub const MARGIN_MS: u64 = 1_000;

/// Where a proposer gets the stamp of a batch from.
pub trait StampSource: Send + Sync + 'static {
    /// The stamp for the next batch, in milliseconds of log time; never below an earlier one.
    fn next_stamp(&self) -> u64;

    /// Whether stamps may be given now; if not, nothing is proposed.
    fn may_stamp(&self) -> bool {
        true
    }
}

/// Makes stamps from a node's clocks as R2 says.
///
/// One may serve a single group or all groups of a node; [`Stamps::raise`] tells it of stamps it must not fall behind.
#[derive(Debug)]
pub struct Stamps {
    clock: Arc<dyn Clock>,
    state: Mutex<StampState>,
    /// The wall clock is too far from those of the other nodes, or was not compared with them yet.
    is_off: AtomicBool,
}

#[derive(Debug)]
struct StampState {
    /// The last stamp given out, or seeded.
    last_ms: u64,
    /// The last one that a batch got, or that was applied.
    used_ms: u64,
    /// A stamp and the monotonic time it belongs to: what stamps are computed from without the wall clock.
    anchor_ms: u64,
    anchor_monotonic_ms: u64,
    pace: Pace,
    /// Stamps go on from the clock of another node, which was behind, and may be wrong.
    is_of_other: bool,
    /// How far the earliest and the latest of the wall clocks that are known are ahead of this one, which is one of them.
    others_ahead_ms: (i64, i64),
}

/// What stamps follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pace {
    /// The wall clock.
    Wall,
    /// The monotonic clock, since the wall clock jumped by more than the margin.
    Held,
    /// Half of the monotonic clock, until a wall clock that was accepted as being this far behind has caught up.
    /// Stamps never go back, and expiry must not stop, so they only slow down.
    Slowed { behind_ms: u64 },
}

impl Stamps {
    /// Stamps that start at or above `last_applied_ms`, the last stamp the machine has applied (0 for a new one).
    ///
    /// A wall clock ahead of it is accepted, since the node may have been down; one behind it by more than the margin
    /// is held.
    pub fn new(clock: Arc<dyn Clock>, last_applied_ms: u64) -> Self {
        let wall_ms = log_ms(clock.as_ref(), 0);
        let anchor_monotonic_ms = clock.monotonic_ms();
        let pace = if wall_ms + MARGIN_MS < last_applied_ms { Pace::Held } else { Pace::Wall };
        let last_ms = wall_ms.max(last_applied_ms);
        let (used_ms, anchor_ms) = (last_applied_ms, last_ms);
        let others_ahead_ms = (0, 0);
        let state = StampState {
            last_ms,
            used_ms,
            anchor_ms,
            anchor_monotonic_ms,
            pace,
            is_of_other: false,
            others_ahead_ms,
        };
        Self { clock, state: Mutex::new(state), is_off: AtomicBool::new(false) }
    }

    /// Stops the giving of stamps while the wall clock is not to be believed. When it is, because it was compared with others
    /// (`is_compared`), stamps go on from it, or from the last one that was used: what was read from the wrong clock
    /// and used by nobody is forgotten. Without a comparison a jump meanwhile is held like any other, and of clocks that differ
    /// the earliest counts that may be right: nothing expires early.
    pub fn set_off(&self, is_off: bool, is_compared: bool) {
        let mut state = self.lock();
        let was_off = self.is_off.swap(is_off, Ordering::SeqCst);
        if is_off {
            return;
        }
        if is_compared && (was_off || state.is_of_other) {
            let wall_ms = log_ms(self.clock.as_ref(), 0);
            let is_behind = wall_ms + MARGIN_MS < state.used_ms;
            state.pace = if is_behind { Pace::Held } else { Pace::Wall };
            state.last_ms = state.used_ms;
            state.anchor(wall_ms, self.clock.monotonic_ms());
            state.is_of_other = false;
        } else if was_off {
            self.go_on_from_earliest(&mut state);
            self.step(&mut state);
        }
    }

    /// Starts again from the earliest of the wall clocks that are known, if that is far behind what stamps were to start from, and
    /// not before a stamp that was used.
    fn go_on_from_earliest(&self, state: &mut StampState) {
        let (wall_ms, now_monotonic_ms) = (log_ms(self.clock.as_ref(), 0), self.clock.monotonic_ms());
        let start_ms = state.anchor_ms + now_monotonic_ms.saturating_sub(state.anchor_monotonic_ms);
        let known = [wall_ms, log_ms(self.clock.as_ref(), state.others_ahead_ms.0)];
        let may_be_right = known.into_iter().filter(|known_ms| *known_ms + MARGIN_MS >= state.used_ms);
        let Some(earliest_ms) = may_be_right.min().filter(|earliest_ms| earliest_ms + MARGIN_MS < start_ms)
        else {
            return;
        };
        state.last_ms = state.used_ms;
        state.anchor(earliest_ms, now_monotonic_ms);
        state.pace = Pace::Wall;
        state.is_of_other = earliest_ms < wall_ms;
    }

    /// Takes note of how far the other wall clocks that are known are ahead of this one, in milliseconds.
    pub fn note_others(&self, ahead_ms: impl IntoIterator<Item = i64>) {
        let range = |(low, high): (i64, i64), ahead: i64| (low.min(ahead), high.max(ahead));
        self.lock().others_ahead_ms = ahead_ms.into_iter().fold((0, 0), range);
    }

    /// What time it may be, in milliseconds of log time, as far as is known here: [`Self::now`], or what the clock that is
    /// ahead of all shows while this one is not to be believed.
    pub fn latest(&self) -> u64 {
        let now_ms = self.now();
        if self.may_stamp() {
            return now_ms;
        }
        let (_, latest_ahead_ms) = self.lock().others_ahead_ms;
        now_ms.max(log_ms(self.clock.as_ref(), latest_ahead_ms))
    }

    /// The stamp for a batch.
    fn give(&self) -> u64 {
        let mut state = self.lock();
        self.step(&mut state);
        state.used_ms = state.last_ms;
        state.last_ms
    }

    /// The stamp for now, in milliseconds of log time; never below an earlier one.
    pub fn now(&self) -> u64 {
        let mut state = self.lock();
        self.step(&mut state);
        state.last_ms
    }

    /// How far the wall clock is from the stamps, in milliseconds (positive: ahead), while a jump is held.
    pub fn held(&self) -> Option<i64> {
        let mut state = self.lock();
        let skew_ms = self.step(&mut state);
        (state.pace == Pace::Held).then_some(skew_ms)
    }

    /// Accepts a held jump, and says how large it was, in milliseconds.
    ///
    /// After a jump forward stamps continue from the wall clock. After a jump back they run at half speed until the
    /// wall clock has caught up.
    pub fn accept(&self) -> Option<i64> {
        let mut state = self.lock();
        let skew_ms = self.step(&mut state);
        if state.pace != Pace::Held {
            return None;
        }
        let now_monotonic_ms = self.clock.monotonic_ms();
        state.is_of_other = false;
        if skew_ms > 0 {
            let wall_ms = state.last_ms.saturating_add(skew_ms.unsigned_abs());
            state.anchor(wall_ms, now_monotonic_ms);
            state.pace = Pace::Wall;
        } else {
            let last_ms = state.last_ms;
            state.anchor(last_ms, now_monotonic_ms);
            state.pace = Pace::Slowed { behind_ms: skew_ms.unsigned_abs() };
        }
        Some(skew_ms)
    }

    /// Takes note of a stamp that was applied, in milliseconds of log time: no later stamp is below it.
    ///
    /// It may be old: who leads nothing gives no stamps for hours, and what others gave says nothing about now.
    pub fn raise(&self, applied_ms: u64) {
        let mut state = self.lock();
        state.used_ms = state.used_ms.max(applied_ms);
        let now_monotonic_ms = self.clock.monotonic_ms();
        let elapsed_ms = now_monotonic_ms.saturating_sub(state.anchor_monotonic_ms);
        if applied_ms > state.anchor_ms + elapsed_ms {
            state.anchor(applied_ms, now_monotonic_ms);
        } else {
            state.last_ms = state.last_ms.max(applied_ms);
        }
    }

    /// Moves the state to now and returns the skew of the wall clock against what the stamps allow.
    fn step(&self, state: &mut StampState) -> i64 {
        let wall_ms = log_ms(self.clock.as_ref(), 0);
        let now_monotonic_ms = self.clock.monotonic_ms();
        let elapsed_ms = now_monotonic_ms.saturating_sub(state.anchor_monotonic_ms);
        let highest_ms = state.anchor_ms + elapsed_ms;
        let lowest_ms = match state.pace {
            Pace::Wall | Pace::Held => highest_ms,
            Pace::Slowed { .. } => state.anchor_ms + elapsed_ms / 2,
        };
        if wall_ms + MARGIN_MS >= lowest_ms && wall_ms <= highest_ms + MARGIN_MS {
            state.anchor(wall_ms, now_monotonic_ms);
            state.pace = Pace::Wall;
            state.is_of_other = false;
            return 0;
        }
        let skew_ms = wall_ms as i64 - highest_ms as i64;
        if let Pace::Slowed { behind_ms } = state.pace
            && skew_ms < 0
            && skew_ms.unsigned_abs() <= behind_ms + MARGIN_MS
        {
            state.last_ms = state.last_ms.max(lowest_ms);
            return skew_ms;
        }
        if state.pace != Pace::Held {
            tracing::error!(
                skew_ms,
                "the wall clock jumped; stamps follow the monotonic clock: set it right, or accept the new time"
            );
            // From the last stamp, not from the anchor, so that the hold neither stops nor skips.
            state.anchor(lowest_ms, now_monotonic_ms);
            state.pace = Pace::Held;
        }
        state.last_ms = state.last_ms.max(lowest_ms);
        wall_ms as i64 - state.last_ms as i64
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, StampState> {
        // Every assignment leaves a state that gives valid stamps, whatever happened to the holder of the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StampState {
    fn anchor(&mut self, stamp_ms: u64, monotonic_ms: u64) {
        self.last_ms = self.last_ms.max(stamp_ms);
        self.anchor_ms = self.last_ms;
        self.anchor_monotonic_ms = monotonic_ms;
    }
}

impl StampSource for Stamps {
    fn next_stamp(&self) -> u64 {
        self.give()
    }

    fn may_stamp(&self) -> bool {
        !self.is_off.load(Ordering::SeqCst)
    }
}

impl StampSource for Arc<Stamps> {
    fn next_stamp(&self) -> u64 {
        self.as_ref().next_stamp()
    }

    fn may_stamp(&self) -> bool {
        self.as_ref().may_stamp()
    }
}

/// A clock that is so far ahead of this node's wall clock, as log time; one before the year 2000 shows its start.
fn log_ms(clock: &dyn Clock, ahead_ms: i64) -> u64 {
    u64::try_from(clock.wall_unix_ms().saturating_add(ahead_ms).saturating_sub(LOG_EPOCH_UNIX_MS))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::super::{ManualClock, SystemClock};
    use super::*;

    const HOUR_MS: i64 = 3_600_000;
    const START_UNIX_MS: i64 = LOG_EPOCH_UNIX_MS + 100_000_000;

    fn stamps(last_applied_ms: u64) -> (ManualClock, Stamps) {
        let clock = ManualClock::new(START_UNIX_MS);
        let stamps = Stamps::new(Arc::new(clock.clone()), last_applied_ms);
        (clock, stamps)
    }

    #[test]
    fn stamps_follow_the_wall_clock_within_the_margin() {
        let (clock, stamps) = stamps(0);
        assert_eq!(stamps.now(), 100_000_000);
        clock.advance(Duration::from_millis(1500));
        clock.jump(900);
        assert_eq!(stamps.now(), 100_002_400);
        clock.jump(-900);
        assert_eq!(stamps.now(), 100_002_400, "a stamp never goes back");
        assert_eq!(stamps.held(), None);
    }

    /// Row 15 of the promises, in a cluster: a clock that most others disagree with stamps nothing, and leaves no trace.
    #[test]
    fn a_clock_that_is_off_stamps_nothing_and_is_forgotten() {
        let clock = ManualClock::new(START_UNIX_MS + HOUR_MS);
        let stamps = Stamps::new(Arc::new(clock.clone()), 99_000_000);
        stamps.set_off(true, true);
        assert!(!stamps.may_stamp());
        assert_eq!(stamps.now(), 100_000_000 + HOUR_MS as u64, "whoever looks sees it");
        clock.jump(-HOUR_MS);
        stamps.set_off(false, true);
        assert!(stamps.may_stamp());
        assert_eq!((stamps.next_stamp(), stamps.held()), (100_000_000, None));
        // What was used counts.
        clock.jump(-HOUR_MS);
        stamps.set_off(true, true);
        stamps.set_off(false, true);
        assert_eq!((stamps.next_stamp(), stamps.held()), (100_000_000, Some(-HOUR_MS)));
    }

    /// A node comes back with a wrong clock: how long it was away only the others know.
    #[test]
    fn who_is_off_may_be_late() {
        let clock = ManualClock::new(START_UNIX_MS - HOUR_MS);
        let stamps = Stamps::new(Arc::new(clock.clone()), 99_990_000);
        clock.advance(Duration::from_secs(1));
        stamps.note_others([-7, HOUR_MS + 200]);
        assert_eq!((stamps.now(), stamps.latest()), (99_991_000, 99_991_000), "its clock is believed");
        stamps.set_off(true, true);
        assert_eq!((stamps.now(), stamps.latest()), (99_991_000, 100_001_200));
        stamps.note_others([-5]);
        assert_eq!(stamps.latest(), 99_991_000);
    }

    /// Row 15 of the promises: a jump is a jump while a node waits for the others' clocks, too.
    #[test]
    fn a_clock_that_jumps_before_it_was_compared_is_held() {
        let (clock, stamps) = stamps(0);
        stamps.set_off(true, false);
        clock.jump(HOUR_MS);
        clock.advance(Duration::from_secs(2));
        stamps.set_off(false, false);
        assert_eq!((stamps.next_stamp(), stamps.held()), (100_002_000, Some(HOUR_MS)));
    }

    /// A node starts with a clock that is an hour ahead, and it is set right before the others could be asked.
    #[test]
    fn a_start_that_is_taken_back_before_anybody_used_it_expires_nothing() {
        let clock = ManualClock::new(START_UNIX_MS + HOUR_MS);
        let stamps = Stamps::new(Arc::new(clock.clone()), 99_990_000);
        stamps.set_off(true, false);
        assert_eq!(stamps.now(), 100_000_000 + HOUR_MS as u64, "whoever looks sees it");
        clock.jump(-HOUR_MS);
        clock.advance(Duration::from_secs(2));
        stamps.set_off(false, false);
        assert_eq!((stamps.next_stamp(), stamps.held()), (100_002_000, None));
    }

    /// Of two nodes that differ nobody can tell who is right: expiring late is mended by accepting, expiring early is not.
    #[test]
    fn who_starts_beside_one_that_is_behind_holds_its_own_time() {
        let of = |other_ahead_ms: i64| {
            let (clock, stamps) = stamps(99_990_000);
            stamps.set_off(true, false);
            clock.advance(Duration::from_secs(2));
            stamps.note_others([other_ahead_ms]);
            stamps.set_off(false, false);
            (stamps.next_stamp(), stamps.held())
        };
        assert_eq!(of(0), (100_002_000, None));
        assert_eq!(of(HOUR_MS), (100_002_000, None));
        assert_eq!(of(-5_000), (99_997_000, Some(5_000)), "it may be right");
        assert_eq!(of(-HOUR_MS), (100_002_000, None), "the log is past that");
        // A third one settles it.
        let (clock, stamps) = stamps(99_990_000);
        stamps.set_off(true, false);
        clock.advance(Duration::from_secs(2));
        stamps.note_others([-5_000]);
        stamps.set_off(false, false);
        assert_eq!((stamps.next_stamp(), stamps.held()), (99_997_000, Some(5_000)));
        stamps.set_off(false, true);
        assert_eq!((stamps.next_stamp(), stamps.held()), (100_002_000, None));
    }

    /// The operator has settled it, so that no comparison does so again: all clocks may have jumped since.
    #[test]
    fn a_start_beside_one_that_is_behind_is_settled_once() {
        let (clock, stamps) = stamps(99_990_000);
        stamps.set_off(true, false);
        stamps.note_others([-5_000]);
        stamps.set_off(false, false);
        assert_eq!(stamps.accept(), Some(5_000));
        clock.jump(HOUR_MS);
        stamps.set_off(false, true);
        assert_eq!((stamps.next_stamp(), stamps.held()), (100_000_000, Some(HOUR_MS)));
    }

    /// Row 15 of the promises, forward: nothing may expire early, and the alarm is raised.
    #[test]
    fn an_hour_forward_is_held_until_accepted() {
        let (clock, stamps) = stamps(0);
        clock.jump(HOUR_MS);
        assert_eq!(stamps.now(), 100_000_000);
        assert_eq!(stamps.held(), Some(HOUR_MS));
        clock.advance(Duration::from_secs(10));
        assert_eq!(stamps.now(), 100_010_000, "expiry goes on by the monotonic clock");
        assert_eq!(stamps.accept(), Some(HOUR_MS));
        assert_eq!(stamps.held(), None);
        assert_eq!(stamps.now(), 100_010_000 + HOUR_MS as u64);
        assert_eq!(stamps.accept(), None);
    }

    /// Row 15 of the promises, backward: expiry must not freeze, and nothing may return.
    #[test]
    fn an_hour_back_neither_freezes_nor_returns() {
        let (clock, stamps) = stamps(0);
        clock.jump(-HOUR_MS);
        assert_eq!(stamps.held(), Some(-HOUR_MS));
        clock.advance(Duration::from_secs(10));
        assert_eq!(stamps.now(), 100_010_000);
        assert_eq!(stamps.accept(), Some(-HOUR_MS));
        assert_eq!(stamps.held(), None);
        assert_eq!(stamps.now(), 100_010_000);
        clock.advance(Duration::from_secs(10));
        assert_eq!(stamps.now(), 100_015_000, "half speed until the wall clock has caught up");
        clock.advance(Duration::from_millis(3 * HOUR_MS as u64));
        assert_eq!(stamps.held(), None, "the wall clock caught up unobserved");
        assert_eq!(stamps.now() as i64, clock.wall_unix_ms() - LOG_EPOCH_UNIX_MS);
    }

    #[test]
    fn a_second_jump_while_slowed_is_held() {
        let (clock, stamps) = stamps(0);
        clock.jump(-HOUR_MS);
        assert_eq!(stamps.accept(), Some(-HOUR_MS));
        clock.jump(-HOUR_MS);
        assert_eq!(stamps.held(), Some(-2 * HOUR_MS));
        assert_eq!(stamps.accept(), Some(-2 * HOUR_MS));
        clock.jump(4 * HOUR_MS);
        assert_eq!(stamps.held(), Some(2 * HOUR_MS));
    }

    #[test]
    fn slowed_stamps_meet_the_wall_clock() {
        let (clock, stamps) = stamps(0);
        clock.jump(-HOUR_MS);
        assert_eq!(stamps.accept(), Some(-HOUR_MS));
        for _ in 0..(2 * HOUR_MS / 500) {
            clock.advance(Duration::from_millis(500));
            stamps.now();
            assert_eq!(stamps.held(), None);
        }
        assert_eq!(stamps.now() as i64, clock.wall_unix_ms() - LOG_EPOCH_UNIX_MS);
    }

    #[test]
    fn a_clock_set_right_again_ends_the_hold() {
        let (clock, stamps) = stamps(0);
        clock.jump(HOUR_MS);
        assert_eq!(stamps.held(), Some(HOUR_MS));
        clock.jump(-HOUR_MS);
        clock.advance(Duration::from_secs(1));
        assert_eq!(stamps.held(), None);
        assert_eq!(stamps.now(), 100_001_000);
    }

    #[test]
    fn start_accepts_a_clock_ahead_and_holds_one_behind() {
        let (_, ahead) = stamps(5);
        assert_eq!((ahead.now(), ahead.held()), (100_000_000, None));
        let (clock, behind) = stamps(100_000_000 + HOUR_MS as u64);
        assert_eq!(behind.held(), Some(-HOUR_MS));
        clock.advance(Duration::from_secs(1));
        assert_eq!(behind.now(), 100_001_000 + HOUR_MS as u64);
        let (_, near) = stamps(100_000_900);
        assert_eq!((near.now(), near.held()), (100_000_900, None));
    }

    #[test]
    fn raised_stamps_stay_raised() {
        let (clock, stamps) = stamps(0);
        stamps.raise(100_000_500);
        assert_eq!(stamps.now(), 100_000_500);
        clock.advance(Duration::from_millis(600));
        assert_eq!(stamps.now(), 100_000_600);
        stamps.raise(7);
        assert_eq!(stamps.now(), 100_000_600);
    }

    /// Another node led meanwhile, and this one looked at its clock for none of that time.
    #[test]
    fn a_stamp_of_a_while_ago_is_no_jump_of_the_clock() {
        let (clock, stamps) = stamps(0);
        clock.advance(Duration::from_secs(3_600));
        stamps.raise(100_002_000);
        assert_eq!((stamps.now(), stamps.held()), (103_600_000, None));
        // Nor while a jump is held, which it neither ends nor moves.
        clock.jump(HOUR_MS);
        assert_eq!(stamps.held(), Some(HOUR_MS));
        clock.advance(Duration::from_secs(60));
        stamps.raise(103_650_000);
        assert_eq!((stamps.now(), stamps.held()), (103_660_000, Some(HOUR_MS)));
        // One from the future counts at once.
        stamps.raise(103_700_000);
        assert_eq!(stamps.now(), 103_700_000);
    }

    #[test]
    fn a_clock_before_2000_gives_the_start_of_log_time() {
        let clock = ManualClock::new(-5);
        assert_eq!(Stamps::new(Arc::new(clock), 0).now(), 0);
    }

    #[test]
    fn the_system_clock_moves_forward() {
        let clock = SystemClock::new();
        let before_ms = clock.monotonic_ms();
        assert!(clock.wall_unix_ms() > LOG_EPOCH_UNIX_MS);
        assert!(clock.monotonic_ms() >= before_ms);
    }

    proptest! {
        /// R2: whatever the wall clock does, a stamp advances at most by the elapsed monotonic time plus the margin,
        /// never goes back, and never stands still for longer than the margin while time passes.
        #[test]
        fn stamps_are_bounded_by_the_monotonic_clock(
            steps in prop::collection::vec((0u64..5_000, -2 * HOUR_MS..2 * HOUR_MS, prop::bool::weighted(0.3)), 1..200)
        ) {
            let (clock, stamps) = stamps(0);
            let mut last_ms = stamps.now();
            for (advance_ms, jump_ms, jumps) in steps {
                clock.advance(Duration::from_millis(advance_ms));
                if jumps {
                    clock.jump(jump_ms);
                }
                let stamp_ms = stamps.now();
                prop_assert!(stamp_ms >= last_ms);
                prop_assert!(stamp_ms <= last_ms + advance_ms + MARGIN_MS);
                prop_assert!(stamp_ms + MARGIN_MS >= last_ms + advance_ms);
                last_ms = stamp_ms;
            }
        }
    }
}
