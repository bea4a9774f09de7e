//! Owns the comparing of the nodes' clocks: nobody leads whose clock is too far from the others' (R2).
//!
//! - Each node compares all, itself among them, with their median; of fewer than three none is believed more than another.
//! - Whose clock is known to be wrong stays so while there are too few to tell, unless it comes near one that was right.
//! - One that is off proposes nothing and hands over what it leads, and nobody hands a leadership to it.
//! - A node that starts among others proposes nothing before it has compared, unless they are silent.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::hand_over::hand_over;
use super::host::Host;
use crate::catalog::{NodeRecord, NodeState};
use crate::peer::PeerNetwork;

/// How far a clock may be from the median, in milliseconds.
const SKEW_MAX_MS: i64 = 1_000;

/// Of fewer clocks none is believed more than another.
const NODES_MIN: usize = 3;

/// How often the clocks are compared.
const COMPARE_EVERY: Duration = Duration::from_millis(500);

/// The nodes whose clocks are too far from the median of all, if there are enough to tell.
fn off(ahead_ms: &BTreeMap<u64, i64>) -> BTreeSet<u64> {
    let mut all: Vec<i64> = ahead_ms.values().copied().collect();
    if all.len() < NODES_MIN {
        return BTreeSet::new();
    }
    all.sort_unstable();
    // Of an even number both in the middle count: whoever is near one of them is not off.
    let (low, high) = (all[(all.len() - 1) / 2], all[all.len() / 2]);
    let is_off =
        |ahead: i64| ahead < low.saturating_sub(SKEW_MAX_MS) || ahead > high.saturating_add(SKEW_MAX_MS);
    ahead_ms.iter().filter(|(_, ahead)| is_off(**ahead)).map(|(node, _)| *node).collect()
}

/// Who is off now, of the nodes of the cluster, if those were so far.
fn still_off(known: &BTreeSet<u64>, before: &BTreeSet<u64>, ahead_ms: &BTreeMap<u64, i64>) -> BTreeSet<u64> {
    if ahead_ms.len() >= NODES_MIN {
        return off(ahead_ms);
    }
    if known.len() < 2 {
        return BTreeSet::new();
    }
    let right = || ahead_ms.iter().filter(|(node, _)| !before.contains(node)).map(|(_, ahead)| *ahead);
    let is_right = |ahead: i64| right().any(|right| right.abs_diff(ahead) <= SKEW_MAX_MS as u64);
    let is_off = |node: &&u64| known.contains(node) && !ahead_ms.get(node).is_some_and(|at| is_right(*at));
    before.iter().filter(is_off).copied().collect()
}

/// How often they are before there was anything to compare.
const FIRST_COMPARE_EVERY: Duration = Duration::from_millis(50);

/// How long a node that starts waits for the others' clocks.
const FIRST_COMPARE_WAIT: Duration = Duration::from_secs(2);

/// The nodes whose clocks could be compared, as far as is known.
fn known(host: &Host) -> BTreeSet<u64> {
    let state = host.whereabouts.view.current();
    let is_there = |node: &NodeRecord| node.state != NodeState::Removed && !node.peer_address.is_empty();
    state.nodes.iter().filter(|(_, node)| is_there(node)).map(|(node, _)| *node).collect()
}

/// Whether there are enough others to compare with, as far as is known.
pub(super) fn has_others(host: &Host) -> bool {
    known(host).len() >= NODES_MIN
}

/// Compares the clocks until the node stops.
pub(super) async fn compare(host: Arc<Host>, peers: PeerNetwork) {
    let (mut before, mut is_unsure) = (BTreeSet::new(), has_others(&host));
    let started = Instant::now();
    loop {
        let every = if is_unsure { FIRST_COMPARE_EVERY } else { COMPARE_EVERY };
        tokio::select! {
            () = host.stopping.cancelled() => return,
            () = sleep(every) => {}
        }
        let mut ahead_ms = peers.clock_offsets(host.clock.wall_unix_ms());
        ahead_ms.insert(host.node, 0);
        is_unsure &= ahead_ms.len() < NODES_MIN && started.elapsed() < FIRST_COMPARE_WAIT;
        let off = still_off(&known(&host), &before, &ahead_ms);
        let (was_off, is_off) = (before.contains(&host.node), off.contains(&host.node));
        if is_off && !was_off {
            tracing::error!(
                ?ahead_ms,
                "the clock of this node is too far from the others'; it proposes and leads nothing until it is set right"
            );
        }
        host.stamps.note_others(ahead_ms.values().copied());
        host.stamps.set_off(is_off || is_unsure, was_off || ahead_ms.len() >= NODES_MIN);
        if was_off && !is_off {
            tracing::warn!("the clock of this node is right again");
        }
        if !is_off && !is_unsure && (was_off || every == FIRST_COMPARE_EVERY) {
            // What came due meanwhile was not asked for.
            host.partitions.all().for_each(|partition| partition.proposer().kick());
        }
        before.clone_from(&off);
        *host.whereabouts.clocks_off.write() = off;
        if is_off {
            hand_over(&host).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_off_when_most_others_say_so() {
        let off_of = |ahead: &[i64]| off(&(1..).zip(ahead.iter().copied()).collect());
        assert_eq!(off_of(&[0, 3_600_000]), BTreeSet::new(), "one of two may be right");
        assert_eq!(off_of(&[0, 900, -900]), BTreeSet::new());
        assert_eq!(off_of(&[0, 100, 3_600_000]), [3].into());
        assert_eq!(off_of(&[0, -5_000, -5_100]), [1].into(), "it is this one");
        assert_eq!(off_of(&[0, 0, 5_000, 5_000]), BTreeSet::new());
        assert_eq!(off_of(&[i64::MIN, 0, i64::MAX]), [1, 3].into());
    }

    #[test]
    fn a_clock_that_was_off_is_not_believed_because_others_fall_silent() {
        let (known, before) = ([1, 2, 3].into(), [1].into());
        let still = |ahead: &[(u64, i64)]| still_off(&known, &before, &ahead.iter().copied().collect());
        assert_eq!(still(&[(1, 0), (2, -3_600_000), (3, -3_600_000)]), [1].into());
        assert_eq!(still(&[(1, 0), (2, -3_600_000)]), [1].into(), "the third is silent");
        assert_eq!(still(&[(2, 0)]), [1].into(), "so is the one that is off");
        assert_eq!(still(&[(1, 0)]), [1].into(), "there is nobody to say anything");
        assert_eq!(still(&[(1, 0), (2, 900)]), [].into(), "it was set right");
        assert_eq!(still(&[(1, 0), (2, 0), (3, 0)]), [].into());
        let other = [2].into();
        assert_eq!(still_off(&known, &other, &[(1, 0), (2, 5_000)].into()), other, "another one");
        assert_eq!(still_off(&known, &[].into(), &[(1, 0), (2, 5_000)].into()), [].into());
        assert_eq!(still_off(&[1, 3].into(), &other, &[(1, 0)].into()), [].into(), "it was removed");
        assert_eq!(still_off(&[1].into(), &before, &[(1, 0)].into()), [].into(), "it is alone");
    }
}
