//! Owns the tasks of a node in a cluster: it learns the catalog, hosts what is wanted of it, and asks what others lead.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use fanfold_storage::codec::{Encoded, Reader};
use fanfold_storage::log::GroupId;
use futures_util::future::join_all;
use tokio::time::{sleep, timeout};

use super::host::{Host, groups_of};
use super::newcomers::Newcomers;
use super::survey::{Control, GroupReport, NodeReport, body, whole};
use crate::catalog::{CatalogCommand, CatalogState, Edit, NodeState, Place, ReplicaRecord};
use crate::error::{NodeFailure, OpenError};
use crate::map::partition_of;
use crate::peer::{DialError, HelloRefusal, PeerAnswer, PeerCall, PeerError, PeerNetwork};
use crate::raft::{Damage, Machine, ReplicaId};

/// How long a fetch of the catalog waits at the other node for something newer.
const FETCH_WAIT: Duration = Duration::from_secs(5);

/// How much longer its answer may take.
const FETCH_MARGIN: Duration = Duration::from_secs(3);

/// How often a node that is fed by a replica of its own looks whether the others know more.
const FED_LOOK: Duration = Duration::from_secs(1);

/// How long after a failure something is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// How often the others are asked for the groups that they lead.
const SURVEY_EVERY: Duration = Duration::from_millis(500);

/// How long one of them may take to answer.
const SURVEY_WAIT: Duration = Duration::from_secs(2);

/// How often it is looked whether a replica may go.
const RETIRE_EVERY: Duration = Duration::from_millis(200);

/// How often it is looked whether the state of a replica is damaged.
const DAMAGE_EVERY: Duration = Duration::from_secs(1);

/// Keeps the view of the catalog new while no replica here does, until the node stops.
pub(super) async fn fetch(host: Arc<Host>, peers: PeerNetwork) {
    let mut turn = 0usize;
    // Who was asked because it has something newer, and did not answer.
    let mut mute = None;
    loop {
        let known = host.whereabouts.view.current();
        let is_fed = host.catalog.here().is_some_and(|here| {
            let members = here.group().members();
            members.voters.contains_key(&here.group().replica()) && here.group().leader_hint().is_some()
        });
        let asked = async {
            let (heard_epoch, teller) = *host.heard_epoch.lock();
            let is_left_behind = heard_epoch > known.epoch;
            // What its replica here follows may be a group that was given up while this node was away.
            if is_fed {
                sleep(FED_LOOK).await;
                if !is_left_behind || host.whereabouts.view.current().epoch >= heard_epoch {
                    return;
                }
            }
            // Who is known to have it, those who should have the catalog, and whoever else there is.
            let holders = known.wanted(0).iter().map(|record| record.node).chain(known.nodes.keys().copied());
            let nodes = is_left_behind.then_some(teller).into_iter().chain(holders);
            let nodes: Vec<u64> = nodes.filter(|n| *n != host.node).collect();
            let next = nodes.get(turn % nodes.len().max(1)).copied();
            let Some(node) = (if is_fed { Some(teller) } else { next }) else {
                return sleep(FETCH_MARGIN).await;
            };
            let fetched = tokio::select! {
                fetched = host.fetch_catalog(&peers, node, FETCH_WAIT) => fetched,
                () = others_know(&host, known.epoch, node, mute) => {
                    turn = 0;
                    return;
                }
            };
            match fetched {
                Ok(()) => {}
                Err(PeerError::Unreachable { reason: DialError::Refused(HelloRefusal::Removed), .. }) => {
                    host.note_removed();
                    sleep(FETCH_MARGIN).await;
                }
                Err(_) => {
                    if is_left_behind && node == teller {
                        mute = Some((heard_epoch, teller));
                    }
                    turn = turn.wrapping_add(1);
                    sleep(RETRY_AFTER).await;
                }
            }
        };
        tokio::select! {
            () = host.stopping.cancelled() => return,
            () = asked => {}
        }
    }
}

/// Waits until another node than the one that is asked is known to have a newer catalog than this epoch: that one may be without a
/// replica too, and wait for news itself. One that did not answer when it was asked for them is passed over.
async fn others_know(host: &Host, epoch: u64, asked: u64, mute: Option<(u64, u64)>) {
    loop {
        sleep(FED_LOOK).await;
        let (heard_epoch, teller) = *host.heard_epoch.lock();
        if heard_epoch > epoch && teller != asked && mute != Some((heard_epoch, teller)) {
            return;
        }
    }
}

impl Host {
    /// Asks a node for a newer catalog, which it may wait for so long.
    pub(super) async fn fetch_catalog(
        &self,
        peers: &PeerNetwork,
        node: u64,
        wait: Duration,
    ) -> Result<(), PeerError> {
        let than_epoch = self.whereabouts.view.current().epoch;
        let call = PeerCall::FetchCatalog { than_epoch, wait_ms: wait.as_millis() as u32 };
        if let PeerAnswer::Catalog { epoch, state: Some(bytes) } =
            peers.call(node, call, wait + FETCH_MARGIN).await?
        {
            match whole::<CatalogState>(&bytes) {
                Ok(state) => self.whereabouts.view.offer(epoch, || Arc::new(state)),
                Err(error) => tracing::warn!(node, %error, "a node's catalog does not decode"),
            }
        }
        Ok(())
    }
}

/// Writes the known state of the catalog down whenever it changes, so that a restart knows where the others are.
pub(super) async fn persist(host: Arc<Host>) {
    let mut view = host.whereabouts.view.subscribe();
    loop {
        let state = view.borrow_and_update().clone();
        // A node that is alone has it in its log.
        if state.cluster_id.is_some() && state.nodes.len() > 1 {
            let written = host.persist(state).await;
            if let Err(error) = written {
                tracing::warn!(%error, "the known state of the catalog was not written down");
            }
        }
        tokio::select! {
            () = host.stopping.cancelled() => return,
            changed = view.changed() => if changed.is_err() { return },
        }
    }
}

/// Tells when another process runs as this node and was there first: two of them could vote twice.
pub(super) async fn watch_twin(host: Arc<Host>, peers: PeerNetwork) {
    // A process that ended is taken for one that runs until its connections are cut.
    let patience = 2 * peers.silence();
    loop {
        tokio::select! {
            () = host.stopping.cancelled() => return,
            () = sleep(SURVEY_EVERY) => {}
        }
        if let Some(by) = peers.twin_at(patience) {
            tracing::error!(node = host.node, by, "another process runs as this node");
            host.note_failure(NodeFailure::Twice { node: host.node, by });
            return;
        }
    }
}

/// Asks the others for what they lead, until the node stops.
pub(super) async fn survey(host: Arc<Host>, peers: PeerNetwork) {
    let question = body(&Control::Reports);
    let mut alive = peers.watch_alive();
    loop {
        host.survey.note(host.node, host.report());
        let nodes = alive.borrow_and_update().clone();
        let asked = join_all(nodes.iter().map(async |node| {
            let answered = peers.call(*node, PeerCall::Control(question.clone()), SURVEY_WAIT).await;
            if let Ok(PeerAnswer::Control(bytes)) = answered
                && let Ok(report) = NodeReport::from_bytes(&bytes)
            {
                // Its pings say so too, and may not come through while its answers do.
                for led in &report.led {
                    host.whereabouts.leaders.note(GroupId(led.group), led.term, *node);
                }
                host.survey.note(*node, report);
            }
        }));
        tokio::select! {
            () = host.stopping.cancelled() => return,
            _ = asked => {}
        }
        tokio::select! {
            () = host.stopping.cancelled() => return,
            () = sleep(SURVEY_EVERY) => {}
        }
    }
}

/// Hosts the replicas that the catalog wants here, and closes those that it does not once their groups went on without
/// them, until the node stops (C2).
pub(super) async fn reconcile(host: Arc<Host>) {
    let mut view = host.whereabouts.view.subscribe();
    let (mut noted, mut newcomers) = (BTreeSet::new(), Newcomers::default());
    loop {
        let state = view.borrow_and_update().clone();
        report_damaged(&host, &mut noted);
        let is_waiting = tokio::select! {
            () = host.stopping.cancelled() => return,
            is_waiting = reconcile_once(&host, &state, &mut newcomers) => is_waiting,
        };
        let again = if is_waiting { RETIRE_EVERY } else { DAMAGE_EVERY };
        tokio::select! {
            () = host.stopping.cancelled() => return,
            changed = view.changed() => if changed.is_err() { return },
            () = sleep(again) => {}
        }
    }
}

/// Tells of each replica whose state is damaged, once: its reads and its upkeep only say so where they met it.
fn report_damaged(host: &Host, noted: &mut BTreeSet<(GroupId, ReplicaId)>) {
    for member in host.members().iter().filter(|member| member.is_damaged()) {
        if !noted.insert((member.id(), member.replica())) {
            continue;
        }
        host.partitions.count_damaged();
        let (group, replica) = (member.id().0, member.replica().0);
        let partition = partition_of(member.id()).and_then(|id| host.partitions.get(id).ok());
        let damage = partition.as_ref().and_then(|partition| partition.group().read(Machine::damage));
        let name = damage.as_ref().and_then(|damage| damage.path.as_ref()?.file_name()?.to_str());
        let next = match (&damage, &partition, name) {
            (Some(Damage { is_unread: true, .. }), _, _) => {
                "the disk did not give what it should hold: see the system's log, and restart the node when it does"
            }
            (_, Some(partition), Some(name)) if !partition.group().is_in_snapshot(name) => {
                "no snapshot names the file, so that the log has all that is in it: restart the node, and nothing is lost"
            }
            _ => {
                "it has to be restored (`fanfold backup restore --partition`), or to go on with what is left \
                 (`fanfold partition salvage`)"
            }
        };
        let damage = damage.map(|damage| damage.what).unwrap_or_default();
        tracing::error!(
            group,
            replica,
            damage,
            "the replica is damaged and answers nothing; with others it is filled anew by them; alone: {next}"
        );
    }
}

/// Whether something could not be done yet.
async fn reconcile_once(host: &Host, state: &Arc<CatalogState>, newcomers: &mut Newcomers) -> bool {
    if state.cluster_id.is_none() {
        return false;
    }
    let is_removed = state.nodes.get(&host.node).is_some_and(|record| record.state == NodeState::Removed);
    if is_removed {
        host.note_removed();
    }
    let mut is_waiting = false;
    newcomers.begin();
    for group in groups_of(state.partitions) {
        let wanted = state.wanted(group.0).iter().find(|record| record.node == host.node && !is_removed);
        let wanted = wanted.map(|record| record.replica);
        let here = host.replicas.lock().get(&group.0).copied();
        let recovers = wanted.is_some() && state.recovering.get(&group.0).copied() == wanted;
        let begins_empty = recovers && state.begins_empty.contains_key(&group.0);
        let done = match (here, wanted) {
            (here, Some(wanted)) if begins_empty && here.is_none_or(|here| here == wanted) => {
                is_waiting = true;
                begin_empty(host, state, group, wanted).await
            }
            (Some(here), Some(wanted)) if recovers && !begins_empty => {
                is_waiting = true;
                recover(host, state, group, (here, wanted)).await
            }
            (Some(here), Some(wanted)) if here == wanted => {
                is_waiting |= renew_damaged(host, state, group).await;
                Ok(())
            }
            (None, None) => Ok(()),
            (None, Some(_)) if newcomers.let_wait(host, group) => {
                is_waiting = true;
                Ok(())
            }
            (None, Some(wanted)) => host.take_in(group, wanted).await,
            // What is damaged takes part in nothing.
            (Some(here), _)
                if !host.is_open(group)
                    || state.is_given_up(group.0, here)
                    || may_go(host, state, group, here) =>
            {
                is_waiting = true;
                host.retire(group, here).await
            }
            (Some(_), _) => {
                is_waiting = true;
                Ok(())
            }
        };
        if let Err(error) = done {
            is_waiting = true;
            tracing::warn!(group = group.0, %error, "a replica was not opened or closed; trying again");
        }
    }
    is_waiting
}

/// Recovers a partition with what is here, however far that came before.
async fn recover(
    host: &Host,
    state: &Arc<CatalogState>,
    group: GroupId,
    (here, wanted): (u64, u64),
) -> Result<(), OpenError> {
    if here == wanted && host.is_damaged(group) {
        // It cannot be done here: an operator has to name another node.
        return Ok(());
    }
    if here != wanted || !host.is_open(group) {
        // The next start has to know that the new replica is made of what is here.
        host.persist(state.clone()).await?;
        host.recover(group, wanted).await?;
    }
    if host.is_open(group) { end_recovery(host, state, group).await } else { Ok(()) }
}

/// Begins a partition with nothing, however far that came before.
async fn begin_empty(
    host: &Host,
    state: &Arc<CatalogState>,
    group: GroupId,
    wanted: u64,
) -> Result<(), OpenError> {
    if !host.is_open(group) {
        // The next start has to know that there is nothing else.
        host.persist(state.clone()).await?;
        host.begin_empty(group, wanted).await?;
    }
    if host.is_open(group) { end_recovery(host, state, group).await } else { Ok(()) }
}

/// Tells the catalog that a partition was recovered, and has its new incarnation (R11).
async fn end_recovery(host: &Host, state: &CatalogState, group: GroupId) -> Result<(), OpenError> {
    let Some(partition) = partition_of(group).and_then(|id| host.partitions.get(id).ok()) else {
        return Ok(());
    };
    let replica = partition.group().replica().0;
    // One that was stopped while it recovered was opened as any other.
    if host.reincarnated.lock().get(&group) != Some(&replica) {
        host.reincarnate(&partition, state.begins_empty.contains_key(&group.0)).await?;
        host.reincarnated.lock().insert(group, replica);
    }
    let recovered = vec![group.0];
    let edit = Edit { epoch: state.epoch, recovered, ..Edit::default() };
    host.catalog.propose(&CatalogCommand::Edit(edit)).await?;
    Ok(())
}

/// Asks for a new replica in the place of one that is damaged here, if others can fill it; whether it has to be looked at
/// again.
async fn renew_damaged(host: &Host, state: &CatalogState, group: GroupId) -> bool {
    let wanted = state.wanted(group.0);
    // The last replica is not given up: it is an operator's to accept what that loses.
    if host.is_whole(group) || wanted.len() < 2 {
        return false;
    }
    let survey = host.survey.all();
    let is_whole = |record: &ReplicaRecord| {
        let held = survey.held(group, record.node).filter(|held| held.replica == record.replica);
        record.node != host.node && held.is_some_and(|held| held.is_open)
    };
    if host.whereabouts.leaders.of(group).is_none() || !wanted.iter().any(is_whole) {
        return true;
    }
    let place = |record: &ReplicaRecord| Place { node: record.node, is_new: record.node == host.node };
    let groups = vec![(group.0, wanted.iter().map(place).collect())];
    let edit = CatalogCommand::Edit(Edit { epoch: state.epoch, groups, ..Edit::default() });
    match host.catalog.propose(&edit).await {
        Ok(_) => {
            tracing::warn!(group = group.0, "the damaged replica is given up and filled anew by the others");
        }
        Err(error) => {
            tracing::debug!(group = group.0, %error, "a new replica was not asked for; trying again");
        }
    }
    true
}

/// Whether a group has committed that it goes on without a replica that is not wanted, and its leader knows that too.
fn may_go(host: &Host, state: &CatalogState, group: GroupId, replica: u64) -> bool {
    let is_gone = |report: GroupReport| report.settled_epoch >= state.epoch && !report.has(replica);
    host.survey.of(group).is_some_and(is_gone)
}

/// Waits until every partition that has a leader elsewhere knows a version of a space.
pub(super) async fn await_space(peers: &PeerNetwork, control: Control, wait: Duration) {
    let alive = peers.watch_alive().borrow().clone();
    let question = body(&control);
    let asked = alive.iter().map(|node| peers.call(*node, PeerCall::Control(question.clone()), wait));
    for answered in timeout(wait, join_all(asked)).await.unwrap_or_default() {
        if let Err(error) = answered {
            tracing::debug!(%error, "a node did not say that its partitions know the space");
        }
    }
}

/// Reads the state of the catalog that a node sent.
pub(super) fn catalog_of(bytes: &[u8]) -> Option<CatalogState> {
    let mut from = Reader::new(bytes);
    CatalogState::decode(&mut from).ok().filter(|_| from.end().is_ok())
}
