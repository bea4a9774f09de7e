//! Owns the activity of a partition's readers on its way into the log, and what gives way through the log when memory is short:
//! the feeds of those away, and the oldest rows.
//!
//! - A reader is noted by its first read of a day: later ones find the day in the state, or that it was proposed.
//! - What is noted is bounded. Who is not noted, or whose proposal fails, is noted by the next read.
//! - The leader notes; a replica that does not lead tells it who has read here, and that memory is short here.
//! - Feeds are freed only when memory is short, and in one pass a day: on one day nobody new is away. Beyond the budget a
//!   part of the rows leaves the window, too, the oldest first, and what they said is asked of the timelines.
//! - While the node refuses what makes memory grow, nobody's feeds are brought back: who reads is proposed by a later read.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::time::Duration;

use fanfold_storage::command::Command;
use fanfold_storage::ids::{DAY_MS, Day, Stamp, UserId};
use fanfold_storage::partition::Partition;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::handle::PartitionHandle;
use super::slots::Partitions;
use super::ticker::wait;
use crate::clock::{Clock, Stamps};
use crate::read::{Asker, Question, Reply};

/// Readers that wait to be proposed, at most.
const NOTED_MAX: usize = 64 << 10;

/// Readers of one command.
pub(crate) const READERS_MAX: usize = 256;

/// Local users that one command looks at to free their feeds.
const FREED_MAX: u32 = 1_024;

/// Rows that stay in the window however short memory is: the newest pages are made of them.
const ROWS_KEPT: u32 = 4_096;

/// Rows that one command lets leave the window.
const ROWS_LEFT_MAX: u32 = 4_096;

/// How often a leader is asked that has not done it yet.
const ASKED_MAX: u32 = 5;

/// A replica that is far behind does not wait for what gives way.
const APPLIED_WITHIN: Duration = Duration::from_secs(2);

/// The part of the rows that leaves before memory is looked at again.
const ROWS_PART: u32 = 4;

/// Who read today, as far as the log does not know.
#[derive(Debug, Default)]
pub(crate) struct Activity {
    /// Reads of nobody whose day is this or a later one are noted.
    today: AtomicU16,
    noted: Mutex<Noted>,
    /// What is to give way.
    wanted: watch::Sender<Wanted>,
    /// It is this node that is short of memory, not only another one that follows.
    is_short_here: AtomicBool,
    /// There is something to propose.
    arrived: Notify,
}

/// What is to give way through the log, each with what comes before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Wanted {
    #[default]
    Nothing,
    /// The feeds of readers who are away.
    Feeds,
    /// The oldest rows as well.
    Rows,
}

#[derive(Debug, Default)]
struct Noted {
    waiting: BTreeSet<UserId>,
    proposed: Vec<UserId>,
}

impl Activity {
    /// Notes a read by somebody whose last day of activity is `active`. Called while the partition is locked, so that what was
    /// proposed is not applied between the look and the note.
    #[inline]
    pub fn note(&self, reader: UserId, active: Option<Day>) {
        if active.is_some_and(|active| active.0 < self.today.load(Ordering::Relaxed)) {
            self.note_first(reader);
        }
    }

    #[cold]
    fn note_first(&self, reader: UserId) {
        let mut noted = self.noted.lock();
        if noted.proposed.binary_search(&reader).is_err() {
            if noted.waiting.len() < NOTED_MAX {
                noted.waiting.insert(reader);
            }
            self.arrived.notify_one();
        }
    }

    /// Asks for what gives way through the log, because this node is short of memory; for rows only beyond the budget, because pages
    /// are dearer without them.
    pub fn give_way(&self, rows: bool) {
        self.is_short_here.store(true, Ordering::Relaxed);
        self.want(if rows { Wanted::Rows } else { Wanted::Feeds });
    }

    /// The same because a node that follows is short of it, and waits until that was done or has failed.
    pub async fn give_way_for_another(&self, rows: bool) {
        self.want(if rows { Wanted::Rows } else { Wanted::Feeds });
        // The sender is this.
        let _ = self.wanted.subscribe().wait_for(|wanted| *wanted == Wanted::Nothing).await;
    }

    /// Whether this node asked, and it is not done.
    pub fn gives_way(&self) -> bool {
        self.is_short_here.load(Ordering::Relaxed)
    }

    fn want(&self, wanted: Wanted) {
        let is_more = self.wanted.send_if_modified(|now| {
            let is_more = wanted > *now;
            *now = wanted.max(*now);
            is_more
        });
        if is_more {
            self.arrived.notify_one();
        }
    }

    /// So much was done, or has failed. More, if that was asked meanwhile, is done next.
    fn gave_way(&self, done: Wanted) {
        self.wanted.send_if_modified(|now| {
            let is_all = *now <= done;
            *now = if is_all { Wanted::Nothing } else { *now };
            self.is_short_here.fetch_and(!is_all, Ordering::Relaxed);
            is_all
        });
    }

    /// The next to propose; until [`Activity::end`] they are not noted again.
    fn take(&self) -> Vec<UserId> {
        let mut noted = self.noted.lock();
        let taken: Vec<UserId> = noted.waiting.iter().take(READERS_MAX).copied().collect();
        taken.iter().for_each(|reader| _ = noted.waiting.remove(reader));
        noted.proposed.clone_from(&taken);
        taken
    }

    /// What was taken is applied, or failed.
    fn end(&self) {
        self.noted.lock().proposed.clear();
    }
}

/// Proposes what is noted until it is stopped. Readers count as away after `away_days`; 0: never.
pub(crate) async fn run(
    partition: Arc<PartitionHandle>,
    partitions: Arc<Partitions>,
    stamps: Arc<Stamps>,
    clock: Arc<dyn Clock>,
    away_days: u16,
    stop: CancellationToken,
) {
    let activity = partition.activity();
    let mut turned = clock.turned();
    let mut freed_on = None;
    loop {
        if let Some(turned) = &mut turned {
            turned.borrow_and_update();
        }
        let now = Stamp(stamps.now());
        let today = now.day();
        activity.today.store(today.0, Ordering::Relaxed);
        let work = async {
            if !partitions.refuses_growth(partition.id()) {
                propose_noted(&partition, &partitions).await;
            }
            let wanted = *activity.wanted.borrow();
            let is_day_new = away_days > 0 && freed_on != Some(today);
            if wanted != Wanted::Nothing && partition.group().is_leader() {
                let feeds = || partition.read(|state| state.usage().feeds).unwrap_or_default();
                let before = feeds();
                if is_day_new {
                    freed_on = Some(today);
                    free(&partition, Day(today.0.saturating_sub(away_days))).await;
                }
                // What was freed may be enough: rows are asked for again.
                if wanted == Wanted::Rows && feeds() == before {
                    leave_window(&partition).await;
                }
            } else if wanted != Wanted::Nothing {
                let has_rows = || partition.read(Partition::rows).is_ok_and(|rows| rows > ROWS_KEPT);
                let rows = wanted == Wanted::Rows && has_rows();
                if (rows || is_day_new) && ask_leader(&partition, &partitions, rows).await {
                    freed_on = Some(today);
                }
            }
            if wanted != Wanted::Nothing {
                activity.gave_way(wanted);
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = work => {}
        }
        let tomorrow = Stamp((now.0 / DAY_MS + 1) * DAY_MS);
        tokio::select! {
            () = stop.cancelled() => return,
            () = activity.arrived.notified() => {}
            () = wait(turned.as_mut(), now, Some(tomorrow)) => {}
        }
    }
}

async fn propose_noted(partition: &PartitionHandle, partitions: &Arc<Partitions>) {
    loop {
        let readers = partition.activity().take();
        if readers.is_empty() {
            return;
        }
        let proposed = if partition.group().is_leader() {
            partition.propose(&Command::Active { readers }).await.map(|_| ())
        } else {
            let active = Question::Active { readers };
            Asker::new(partitions).ask_one(partition.id(), active).await.map(|_| ())
        };
        partition.activity().end();
        if let Err(error) = proposed {
            tracing::debug!(partition = partition.id().0, %error, "readers were not noted as active");
        }
    }
}

/// Asks whoever leads the partition to let something give way, and waits until that is applied here as well; whether it came to that.
async fn ask_leader(partition: &PartitionHandle, partitions: &Arc<Partitions>, rows: bool) -> bool {
    let ask = || Asker::new(partitions).ask_for_long(partition.id(), Question::GiveWay { rows });
    let mut answer = ask().await;
    for _ in 1..ASKED_MAX {
        if !matches!(answer, Ok(Reply::NotYet)) {
            break;
        }
        answer = ask().await;
    }
    match answer {
        Ok(Reply::Index { index }) => timeout(APPLIED_WITHIN, partition.wait_applied(index)).await.is_ok(),
        Ok(_) => false,
        Err(error) => {
            tracing::debug!(partition = partition.id().0, %error, "the leader let nothing give way");
            false
        }
    }
}

/// Frees the feeds of those who were not active since `before`, piece by piece.
async fn free(partition: &PartitionHandle, before: Day) {
    let Ok(users) = partition.read(Partition::user_indexes) else { return };
    for from in (0..users).step_by(FREED_MAX as usize) {
        let command = Command::FreeFeeds { before, from, most: FREED_MAX };
        if let Err(error) = partition.propose(&command).await {
            tracing::debug!(partition = partition.id().0, %error, "the feeds of readers who are away were not freed");
            return;
        }
    }
}

/// Lets a part of the rows leave the window, piece by piece.
async fn leave_window(partition: &PartitionHandle) {
    let Ok(rows) = partition.read(Partition::rows) else { return };
    let leaving = rows.saturating_sub(ROWS_KEPT);
    let keep = rows - leaving.min((leaving / ROWS_PART).max(ROWS_LEFT_MAX));
    for _ in 0..(rows - keep).div_ceil(ROWS_LEFT_MAX) {
        let command = Command::LeaveWindow { keep, most: ROWS_LEFT_MAX };
        if let Err(error) = partition.propose(&command).await {
            tracing::debug!(partition = partition.id().0, %error, "no rows left the window");
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_is_noted_once_until_the_log_has_it() {
        let activity = Activity::default();
        activity.note(UserId(1), Some(Day(0)));
        assert_eq!(activity.take(), Vec::new(), "the day is not known yet");
        activity.today.store(9, Ordering::Relaxed);
        for (reader, active) in [(1, Some(8)), (1, Some(8)), (2, Some(9)), (3, None), (4, Some(0))] {
            activity.note(UserId(reader), active.map(Day));
        }
        assert_eq!(activity.take(), [UserId(1), UserId(4)]);
        activity.note(UserId(4), Some(Day(0)));
        assert_eq!(activity.noted.lock().waiting.len(), 0, "it is on its way");
        activity.end();
        activity.note(UserId(4), Some(Day(0)));
        assert_eq!(activity.take(), [UserId(4)], "it failed");
    }

    #[tokio::test]
    async fn what_is_asked_for_meanwhile_is_done_next() {
        let activity = Activity::default();
        let wanted = || *activity.wanted.borrow();
        activity.give_way(false);
        assert_eq!((wanted(), activity.gives_way()), (Wanted::Feeds, true));
        activity.give_way(true);
        activity.give_way(false);
        activity.gave_way(Wanted::Feeds);
        assert_eq!((wanted(), activity.gives_way()), (Wanted::Rows, true), "rows are still to leave");
        activity.gave_way(Wanted::Rows);
        assert_eq!((wanted(), activity.gives_way()), (Wanted::Nothing, false));
        let mut other = Box::pin(activity.give_way_for_another(true));
        assert!(futures_util::poll!(&mut other).is_pending());
        assert_eq!(
            (wanted(), activity.gives_way()),
            (Wanted::Rows, false),
            "it is not this node that is short"
        );
        activity.gave_way(Wanted::Rows);
        other.await;
    }

    #[test]
    fn what_is_noted_is_bounded() {
        let activity = Activity::default();
        activity.today.store(9, Ordering::Relaxed);
        (0..NOTED_MAX as u64 + 5).for_each(|reader| activity.note(UserId(reader), Some(Day(1))));
        assert_eq!(activity.noted.lock().waiting.len(), NOTED_MAX);
        assert_eq!(activity.take().len(), READERS_MAX);
    }
}
