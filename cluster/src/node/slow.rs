//! Owns the watch over this node's disk: while the log does not get on, or is full, the node leads nothing.
//!
//! - Slow is a log that has had something to sync for [`STALLED_AFTER`] and has synced nothing. That it was is said with
//!   every ping, and for [`WELL_AFTER`] after the last time, so that no leadership comes back too soon.
//! - A full log takes no entries, so its replicas do not campaign, unless they are alone. While too many of a group's
//!   voters are on nodes with full logs, its leader refuses writes: nothing could be committed. It stays the leader, and
//!   answers reads: another one could not even begin.
//! - A group that nobody else can lead stays: what it answers waits for the disk, or is refused, as ever.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::hand_over::{HAND_OVER_WITHIN, hand_over};
use super::host::Host;

/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// For how long the log may not get on. A sync takes some ten milliseconds, and a few hundred when a disk is busy.
const STALLED_AFTER: Duration = Duration::from_secs(1);

/// For how long after that the node still counts as slow.
const WELL_AFTER: Duration = Duration::from_secs(10);

/// How long a full log is told before what this node leads is handed over: replicas of a group fill their logs at the same
/// time, and with two of them full whoever is elected cannot even begin.
const FULL_FOR: Duration = Duration::from_secs(2);

/// Watches until the node stops.
pub(super) async fn watch(host: Arc<Host>) {
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut durable, mut moved) = (0, Instant::now());
    let (mut stalled, mut handed, mut was_full) = (None::<Instant>, None::<Instant>, false);
    let (mut was_any_full, mut full_since) = (false, None::<Instant>);
    loop {
        tokio::select! {
            () = host.stopping.cancelled() => return,
            _ = looks.tick() => {}
        }
        let (status, now) = (host.opening.log.status(), Instant::now());
        if status.queued_bytes == 0 || status.durable_position != durable {
            (durable, moved) = (status.durable_position, now);
        } else if now - moved >= STALLED_AFTER {
            if stalled.is_none() {
                tracing::error!(
                    queued_bytes = status.queued_bytes,
                    "the disk of this node does not get on; it leads only what no other node can until it does"
                );
            }
            stalled = Some(now);
        }
        if status.full != was_full {
            was_full = status.full;
            host.members().iter().for_each(|member| {
                member.let_campaign(!was_full || member.members().voters.len() == 1);
            });
        }
        if was_full {
            stalled = Some(now);
        }
        full_since = full_since.or(Some(now)).filter(|_| was_full);
        let is_told = full_since.is_none_or(|since| now - since >= FULL_FOR);
        host.whereabouts.note_full(host.node, !host.opening.log.accepts_appends());
        let is_any_full = host.whereabouts.is_any_full();
        if is_any_full || was_any_full {
            was_any_full = is_any_full;
            host.members()
                .iter()
                .for_each(|member| member.let_propose(host.whereabouts.has_room(&member.members().voters)));
        }
        if stalled.is_some_and(|last| now - last >= WELL_AFTER) {
            tracing::warn!("the disk of this node gets on again");
            stalled = None;
        }
        host.whereabouts.note_slow(host.node, stalled.is_some());
        if stalled.is_some() && is_told && handed.is_none_or(|last| now - last >= HAND_OVER_WITHIN) {
            handed = Some(now);
            tokio::select! {
                () = host.stopping.cancelled() => return,
                () = hand_over(&host) => {}
            }
        }
    }
}
