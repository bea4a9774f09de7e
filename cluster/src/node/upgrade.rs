//! Owns the raising of the cluster's feature level (R3): after all nodes run a newer version of the program, by command.
//!
//! - Every node that was not removed is asked what its program has; one that is silent may be started with an older one, and counts
//!   as that.
//! - It is raised for the catalog as it was when they were asked: whoever has joined since is asked too.
//! - A level never falls: what a newer program has written, an older one would leave out.
//! - A node that has answered may come back with an older program before the level is raised, or without having heard that it was: it
//!   ends as soon as it hears of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fanfold_storage::codec::Reader;
use futures_util::future::join_all;
use tokio::time::{sleep, timeout};

use super::Node;
use super::host::Host;
use super::survey::{Control, body};
use crate::catalog::{CatalogCommand, CatalogState, NodeState};
use crate::change::{ClusterChanged, ClusterRefusal};
use crate::error::{NodeError, NodeFailure};
use crate::peer::{PeerAnswer, PeerCall, PeerError, PeerRefusal};

/// How long a node may take to say what its program has.
const LEVEL_WAIT: Duration = Duration::from_secs(2);

/// How often the nodes are asked anew because the catalog changed meanwhile.
const ATTEMPTS_MAX: usize = 16;

/// How long the catalog has to show a level whose answer was lost.
const RAISED_WAIT: Duration = Duration::from_secs(5);

/// The level of programs that do not know the question.
const FIRST_LEVEL: u32 = 1;

impl Node {
    /// Raises the feature level, or says what would be raised.
    pub(super) async fn upgrade(
        &self,
        to: Option<u32>,
        is_dry_run: bool,
    ) -> Result<ClusterChanged, NodeError> {
        let mut busy = NodeError::CatalogUnavailable { may_have_applied: false };
        for _ in 0..ATTEMPTS_MAX {
            let state = self.whereabouts.view.current();
            let from = state.feature_level;
            let to = target(from, to, &self.levels(&state).await)?;
            let changed =
                ClusterChanged { epoch: state.epoch, level: Some((from, to)), ..Default::default() };
            if is_dry_run || from == to {
                return Ok(changed);
            }
            let command = CatalogCommand::RaiseLevel { epoch: state.epoch, level: to };
            let proposed = tokio::select! {
                proposed = self.catalog.propose(&command) => proposed,
                () = self.stopping.cancelled() => {
                    return Err(NodeError::CatalogUnavailable { may_have_applied: true });
                }
            };
            match proposed {
                Err(error @ NodeError::Busy { delay_ms }) => {
                    busy = error;
                    sleep(Duration::from_millis(delay_ms)).await;
                    continue;
                }
                Err(error) if error.may_have_applied() && self.is_raised_to(to).await => {}
                Err(error) => return Err(error),
                Ok(_) => {}
            }
            tracing::warn!(from, to, "the cluster's feature level is raised; older programs are refused now");
            return Ok(ClusterChanged { epoch: self.whereabouts.view.current().epoch, ..changed });
        }
        Err(busy)
    }

    /// What the program of each node has; none of those that do not say.
    async fn levels(&self, state: &CatalogState) -> BTreeMap<u64, Option<u32>> {
        let own = self.host.opening.options.feature_level;
        let question = body(&Control::Level);
        let nodes = state.nodes.iter().filter(|(_, record)| record.state != NodeState::Removed);
        let asked = nodes.map(async |(&node, _)| {
            if node == self.host.node {
                return (node, Some(own));
            }
            let Some(peers) = &self.peers else { return (node, None) };
            let answered = peers.call(node, PeerCall::Control(question.clone()), LEVEL_WAIT).await;
            let level = match answered {
                // A newer program may say more.
                Ok(PeerAnswer::Control(bytes)) => Reader::new(&bytes).u32().ok(),
                Err(PeerError::Refused(PeerRefusal::Malformed)) => Some(FIRST_LEVEL),
                _ => None,
            };
            (node, level)
        });
        join_all(asked).await.into_iter().collect()
    }

    async fn is_raised_to(&self, level: u32) -> bool {
        let mut view = self.whereabouts.view.subscribe();
        let raised = view.wait_for(|state| state.feature_level >= level);
        tokio::select! {
            raised = timeout(RAISED_WAIT, raised) => raised.is_ok_and(|raised| raised.is_ok()),
            () = self.stopping.cancelled() => false,
        }
    }
}

/// Tells when the cluster uses what this program does not have, until the node stops.
pub(super) async fn watch_level(host: Arc<Host>) {
    let supported = host.opening.options.feature_level;
    let mut view = host.whereabouts.view.subscribe();
    let needed = tokio::select! {
        () = host.stopping.cancelled() => return,
        raised = view.wait_for(|state| state.feature_level > supported) => match raised {
            Ok(state) => state.feature_level,
            Err(_) => return,
        },
    };
    tracing::error!(needed, supported, "the cluster uses what this program does not have");
    host.note_failure(NodeFailure::FeatureLevel { needed, supported });
}

/// The level to go to: what is asked for, or the highest that any program has; each node's program must have it.
fn target(from: u32, asked: Option<u32>, levels: &BTreeMap<u64, Option<u32>>) -> Result<u32, ClusterRefusal> {
    let to = asked.unwrap_or_else(|| levels.values().copied().flatten().fold(from, u32::max));
    if to < from {
        return Err(ClusterRefusal::LevelFalls { level: from, asked: to });
    }
    let below: Vec<_> =
        levels.iter().filter_map(|(node, level)| Some((*node, level.filter(|level| *level < to)?))).collect();
    if !below.is_empty() {
        return Err(ClusterRefusal::LevelAbove { level: to, below });
    }
    let silent: Vec<_> = levels.iter().filter(|(_, level)| level.is_none()).map(|(node, _)| *node).collect();
    // What is used already, a node had that was not removed.
    if !silent.is_empty() && to > from {
        return Err(ClusterRefusal::LevelUnknown { silent });
    }
    Ok(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_what_every_program_has_and_never_falls() {
        let of = |levels: [Option<u32>; 3]| {
            levels.into_iter().zip(1..).map(|(level, node)| (node, level)).collect()
        };
        assert_eq!(target(1, None, &of([Some(2); 3])), Ok(2));
        assert_eq!(target(2, None, &of([Some(2); 3])), Ok(2));
        let mixed = of([Some(2), Some(1), Some(2)]);
        assert_eq!(
            target(1, None, &mixed),
            Err(ClusterRefusal::LevelAbove { level: 2, below: vec![(2, 1)] })
        );
        assert_eq!(target(1, Some(1), &mixed), Ok(1));
        assert_eq!(
            target(2, Some(1), &of([Some(2); 3])),
            Err(ClusterRefusal::LevelFalls { level: 2, asked: 1 })
        );
        let silent = of([Some(2), Some(2), None]);
        assert_eq!(target(1, None, &silent), Err(ClusterRefusal::LevelUnknown { silent: vec![3] }));
        assert_eq!(target(2, None, &silent), Ok(2), "nothing is to be raised");
        let above = Err(ClusterRefusal::LevelAbove { level: 9, below: vec![(1, 2), (2, 2), (3, 2)] });
        assert_eq!(target(1, Some(9), &of([Some(2); 3])), above);
    }
}
