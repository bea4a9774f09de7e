//! Owns the ticker of a partition: on its leader it wakes the proposer when something expires while nothing is being
//! written (R1).

use std::sync::Arc;
use std::time::Duration;

use fanfold_storage::ids::Stamp;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::handle::PartitionHandle;
use crate::clock::{Clock, StampSource, Stamps};

/// The longest sleep: the clocks may be set right meanwhile.
const SLEEP_MAX: Duration = Duration::from_secs(60);

/// How soon it is looked again while the clock is not believed, or something is due.
const LOOK_AGAIN_MS: u64 = 500;

/// The shortest sleep, so that a due time that cannot be served yet is not asked for in a circle.
const SLEEP_MIN: Duration = Duration::from_millis(1);

/// Runs until it is stopped: kicks the proposer when its background work is due.
pub(crate) async fn run(
    partition: Arc<PartitionHandle>,
    stamps: Arc<Stamps>,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
) {
    partition.tell_time(stamps.clone());
    let mut leadership = partition.group().watch_leadership();
    let mut applied = partition.group().watch_applied();
    let mut turned = clock.turned();
    loop {
        if leadership.led().is_none() {
            tokio::select! {
                () = stop.cancelled() => return,
                goes_on = leadership.changed() => if goes_on { continue } else { return },
            }
        }
        applied.borrow_and_update();
        if let Some(turned) = &mut turned {
            turned.borrow_and_update();
        }
        let (expires, slices) = partition.due().next();
        // A clock that is not believed may be set right, and then show less.
        let may_stamp = stamps.may_stamp();
        let now = Stamp(stamps.now());
        let is_due = expires.is_some_and(|due| due <= now);
        if is_due || slices {
            partition.proposer().kick();
        }
        // What was kicked for may not have come about, for want of room.
        let again = is_due || slices || !may_stamp && expires.is_some();
        let wake = if again { Some(Stamp(now.0 + LOOK_AGAIN_MS)) } else { expires };
        tokio::select! {
            () = stop.cancelled() => return,
            changed = applied.changed() => if changed.is_err() { return },
            goes_on = leadership.changed() => if !goes_on { return },
            () = wait(turned.as_mut(), now, wake) => {}
        }
    }
}

/// Waits until the clocks may have reached `due`; for ever, if there is none.
pub(super) async fn wait(turned: Option<&mut watch::Receiver<u64>>, now: Stamp, due: Option<Stamp>) {
    let Some(due) = due else { return std::future::pending().await };
    let Some(turned) = turned else {
        let left = Duration::from_millis(due.0.saturating_sub(now.0));
        return tokio::time::sleep(left.clamp(SLEEP_MIN, SLEEP_MAX)).await;
    };
    if turned.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}
