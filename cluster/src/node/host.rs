//! Owns the replicas on this node: opening them with all that keeps them going, and closing them for good (C2, C9).
//!
//! - Which replicas the node has is written down before one is opened, and after one is gone.
//! - What belongs to a replica ends before the replica does; what comes for it from then on is refused.
//! - A recovered replica has its new incarnation before anybody can reach it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use fanfold_storage::command::encode_batch;
use fanfold_storage::ids::{PartitionId, Stamp};
use fanfold_storage::log::GroupId;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::converge;
use super::member::Member;
use super::opening::Opening;
use super::rest::Sleepers;
use super::survey::{GroupReport, Held, Left, NodeReport, Settled, Survey};
use crate::catalog::{CATALOG_GROUP, Catalog, CatalogHandle, CatalogMachine, CatalogState, Distributor};
use crate::clock::{Clock, Stamps};
use crate::dispatcher::{Dispatcher, DispatcherSettings, StreamTransport};
use crate::error::{NodeFailure, OpenError};
use crate::identity::{DataDir, StoredIdentity};
use crate::map::{Whereabouts, partition_of};
use crate::partition::{
    Mark, PartitionHandle, PartitionMachine, Partitions, background, run_activity, run_ticker,
};
use crate::proposer::Proposer;
use crate::raft::{self, Formation, Group, PeerEndpoint, ReplicaId, StopReason, retire_closed};
use crate::upkeep::{Upkeep, UpkeepMeans};

/// A replica that runs here.
#[derive(Clone)]
pub(super) struct Hosted {
    pub member: Arc<dyn Member>,
    endpoint: Arc<dyn PeerEndpoint>,
    pub settled: Arc<Settled>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// What replicas live on, and those that are open.
pub(super) struct Host {
    pub node: u64,
    pub opening: Opening,
    pub dir: Arc<DataDir>,
    pub stamps: Arc<Stamps>,
    pub clock: Arc<dyn Clock>,
    pub whereabouts: Arc<Whereabouts>,
    pub catalog: Arc<Catalog>,
    pub partitions: Arc<Partitions>,
    pub distributor: Distributor,
    pub survey: Arc<Survey>,
    pub sleepers: Sleepers,
    pub streams: Arc<dyn StreamTransport>,
    pub means: UpkeepMeans,
    pub stopping: CancellationToken,
    pub failure: watch::Sender<Option<NodeFailure>>,
    pub hosted: RwLock<BTreeMap<GroupId, Hosted>>,
    /// The replicas that were written down.
    pub replicas: Mutex<BTreeMap<u32, u64>>,
    /// The newest epoch of the catalog that another node said to know, and which node.
    pub heard_epoch: Mutex<(u64, u64)>,
    /// The epoch of the catalog that was written down.
    pub persisted: tokio::sync::Mutex<u64>,
    /// The recovered replicas that took their new incarnation before anybody reached them.
    pub reincarnated: Mutex<BTreeMap<GroupId, u64>>,
    /// Where the others are told to find this node; empty if it stays alone.
    pub peer_address: String,
    /// Whether this node is about to stop, and is to be given no leadership.
    pub is_leaving: AtomicBool,
}

impl Host {
    /// Opens a replica and lets it take in messages; its tasks do not run yet.
    pub async fn open(&self, group: GroupId, replica: u64, formation: Formation) -> Result<(), OpenError> {
        let Some(id) = partition_of(group) else {
            let opened = self.opening.catalog(replica, formation).await;
            self.adopt_catalog(opened.map_err(OpenError::Catalog)?);
            return Ok(());
        };
        let loading = self.opening.loads.take(group).unwrap_or_else(|| {
            let machine = PartitionMachine::new(id, self.partitions.count());
            self.opening.directory(group).load(group, machine)
        });
        let loading = loading.flushing(self.means.options.files);
        let opened = self.opening.group(group, replica, formation, loading).await;
        let opened = opened.map_err(|source| OpenError::Partition { partition: id, source })?;
        self.stamps.raise(opened.read(|machine| machine.state_as_is().stamp().0));
        let proposer = Proposer::spawn(opened.clone(), encode, self.stamps.clone(), background(&opened));
        let phases = self.partitions.phases();
        proposer.measure(phases.clone());
        opened.change(|machine| machine.measure(phases.clone())).await;
        let handle = PartitionHandle::new(id, opened.clone(), proposer, self.whereabouts.clone());
        // With others in the group the recovery is over, whatever an old catalog says.
        let is_sole = opened.members().is_sole(opened.replica());
        let is_anew = matches!(formation, Formation::Anew { .. });
        if (formation == Formation::Recover || is_anew) && is_sole {
            let reincarnated = self.reincarnate(&handle, is_anew).await;
            if reincarnated.is_err() {
                opened.shutdown().await;
            }
            reincarnated?;
            self.reincarnated.lock().insert(group, replica);
        }
        self.partitions.host(Arc::new(handle));
        self.adopt(Arc::new(opened));
        Ok(())
    }

    /// Takes in the replica of the catalog.
    pub fn adopt_catalog(&self, group: Group<CatalogMachine>) {
        let proposer = Proposer::spawn(group.clone(), encode, self.stamps.clone(), Box::new(|_| Vec::new()));
        let handle = CatalogHandle::new(group.clone(), proposer, self.whereabouts.clone());
        self.catalog.set_here(Some(Arc::new(handle)));
        self.adopt(Arc::new(group));
    }

    fn adopt(&self, member: Arc<dyn Member>) {
        let group = member.id();
        let hosted = Hosted {
            endpoint: member.endpoint(),
            member,
            settled: Arc::default(),
            stop: self.stopping.child_token(),
            tasks: TaskTracker::new(),
        };
        self.hosted.write().insert(group, hosted);
    }

    /// Opens a replica of a partition, or notes that it is damaged on this node. One whose retirement was stopped is retired.
    pub async fn open_or_note(
        &self,
        id: PartitionId,
        replica: u64,
        formation: Formation,
    ) -> Result<(), OpenError> {
        let group = crate::map::group_of(Some(id));
        let opened = self.open(group, replica, formation).await;
        if let Err(OpenError::Partition { source, .. }) = &opened
            && let Some(damage) = source.damage()
        {
            tracing::error!(
                partition = id.0,
                error = %source,
                "the partition refuses service on this node, and the others go on; with other replicas it is filled anew by them, \
                 alone it has to be restored (`fanfold backup restore --partition {id}`), or go on with what is left \
                 (`fanfold partition salvage {id} --data-dir DIR --dry-run` says what that loses)"
            );
            self.partitions.mark_damaged(id, damage);
            return Ok(());
        }
        match opened {
            Err(OpenError::Partition { source: raft::OpenError::Retired { .. }, .. }) => {
                self.retire(group, replica).await
            }
            Err(OpenError::Setup(error))
                if matches!(formation, Formation::Recover | Formation::Anew { .. }) =>
            {
                tracing::warn!(partition = id.0, %error, "the partition is not recovered yet; trying again");
                Ok(())
            }
            opened => opened,
        }
    }

    /// Starts what keeps a replica going.
    pub fn start(&self, group: GroupId) {
        let Some(hosted) = self.hosted.read().get(&group).cloned() else { return };
        let Hosted { member, settled, stop, tasks, .. } = hosted;
        tasks.spawn(follow(member.clone(), self.whereabouts.clone(), self.node, stop.clone()));
        tasks.spawn(watch_failure(member.clone(), self.failure.clone(), stop.clone()));
        let (whereabouts, survey) = (self.whereabouts.clone(), self.survey.clone());
        tasks.spawn(converge::run(member, whereabouts, survey, settled, stop.clone()));
        let Some(id) = partition_of(group) else {
            if let Some(here) = self.catalog.here() {
                tasks.spawn(Upkeep::new(here.group().clone(), self.means.clone()).run(stop));
            }
            return;
        };
        let Ok(partition) = self.partitions.get(id) else { return };
        let (stamps, clock) = (self.stamps.clone(), self.clock.clone());
        tasks.spawn(raise_stamps(partition.clone(), stamps.clone(), stop.clone()));
        tasks.spawn(run_ticker(partition.clone(), stamps.clone(), clock.clone(), stop.clone()));
        let (all, away_days) = (self.partitions.clone(), self.opening.options.away_days);
        let activity = run_activity(partition.clone(), all, stamps, clock, away_days, stop.clone());
        tasks.spawn(activity);
        let settings = DispatcherSettings { journal_events_max: self.opening.options.journal_events_max };
        tasks.spawn(Dispatcher::new(partition.clone(), self.streams.clone(), settings).run(stop.clone()));
        tasks.spawn(Upkeep::new(partition.group().clone(), self.means.clone()).run(stop.clone()));
        tasks.spawn(self.distributor.clone().run(partition, stop));
    }

    /// Starts what keeps all replicas going.
    pub fn start_all(&self) {
        let groups: Vec<_> = self.hosted.read().keys().copied().collect();
        groups.into_iter().for_each(|group| self.start(group));
    }

    /// Takes in a replica that the catalog wants here: it is filled by its leader.
    pub async fn take_in(&self, group: GroupId, replica: u64) -> Result<(), OpenError> {
        self.note_replica(group, Some(replica)).await?;
        match partition_of(group) {
            None => match self.open(group, replica, Formation::Joining).await {
                Err(OpenError::Catalog(raft::OpenError::Retired { .. })) => {
                    self.retire(group, replica).await?;
                }
                opened => opened?,
            },
            Some(id) => self.open_or_note(id, replica, Formation::Joining).await?,
        }
        if self.is_open(group) {
            self.start(group);
            tracing::info!(group = group.0, replica, "a replica is here, to be filled");
        }
        Ok(())
    }

    /// Closes a replica that belongs to its group no more, or is damaged, with everything it has on disk. Another one of the
    /// group that runs here is left alone.
    pub async fn retire(&self, group: GroupId, replica: u64) -> Result<(), OpenError> {
        let hosted = {
            let mut all = self.hosted.write();
            if let Some(other) = all.get(&group).filter(|hosted| hosted.member.replica().0 != replica) {
                let runs = other.member.replica().0;
                tracing::error!(
                    group = group.0,
                    replica,
                    runs,
                    "a replica that is to go is not the one that runs"
                );
                return Ok(());
            }
            all.remove(&group)
        };
        let retired = if let Some(hosted) = hosted {
            hosted.end_tasks().await;
            match partition_of(group) {
                None => self.catalog.set_here(None),
                Some(id) => drop(self.partitions.retire(id)),
            }
            hosted.member.retire().await
        } else {
            let directory = self.opening.directory(group);
            retire_closed(self.opening.log.clone(), group, ReplicaId(replica), directory).await
        };
        self.whereabouts.leaders.forget(group, self.node);
        if let Err(error) = retired {
            // It is tried again: as long as it is written down, the replica is here.
            tracing::warn!(group = group.0, replica, %error, "what a replica had on disk was not all removed");
            return Ok(());
        }
        self.note_replica(group, None).await?;
        tracing::info!(group = group.0, replica, "a replica is gone from this node");
        Ok(())
    }

    /// Lets what is here of a group that lost its majority go on as a new replica, alone; not if that is damaged. Can be
    /// done again, wherever it stopped.
    pub async fn recover(&self, group: GroupId, replica: u64) -> Result<(), OpenError> {
        let Some(id) = partition_of(group) else { return Ok(()) };
        let hosted = self.hosted.write().remove(&group);
        if let Some(hosted) = hosted {
            hosted.end_tasks().await;
            drop(self.partitions.retire(id));
            hosted.member.shutdown().await;
        }
        self.note_replica(group, Some(replica)).await?;
        self.open_or_note(id, replica, Formation::Recover).await?;
        if !self.is_open(group) {
            return Ok(());
        }
        self.start(group);
        tracing::warn!(
            partition = id.0,
            replica,
            "the partition goes on with what is here; what only others had is lost"
        );
        Ok(())
    }

    /// Whether the replica of a group that is written down is open.
    pub fn is_open(&self, group: GroupId) -> bool {
        self.hosted.read().contains_key(&group)
    }

    /// Whether the replica of a group that is written down is open, and what is applied there to be trusted.
    pub fn is_whole(&self, group: GroupId) -> bool {
        self.hosted.read().get(&group).is_some_and(|hosted| !hosted.member.is_damaged())
    }

    /// Whether the log of what is here of a group is damaged.
    pub fn is_damaged(&self, group: GroupId) -> bool {
        self.partitions.damaged().any(|id| partition_of(group) == Some(id))
    }

    /// Writes a state of the catalog down, unless that or a newer one is.
    pub async fn persist(&self, state: Arc<CatalogState>) -> Result<(), OpenError> {
        let mut persisted = self.persisted.lock().await;
        if *persisted < state.epoch {
            let epoch = state.epoch;
            self.write(move |dir| dir.store_catalog(&state)).await?;
            *persisted = epoch;
        }
        Ok(())
    }

    /// Writes down that a replica is here, or gone.
    pub async fn note_replica(&self, group: GroupId, replica: Option<u64>) -> Result<(), OpenError> {
        let replicas = {
            let mut replicas = self.replicas.lock();
            match replica {
                Some(replica) => replicas.insert(group.0, replica),
                None => replicas.remove(&group.0),
            };
            replicas.clone()
        };
        self.write(move |dir| dir.store_replicas(&replicas)).await
    }

    /// Writes down who this node is, and that its groups are formed.
    pub async fn write_identity(&self, stored: &StoredIdentity) -> Result<(), OpenError> {
        let (stored, replicas) = (*stored, self.replicas.lock().clone());
        self.write(move |dir| {
            if dir.load_replicas().as_ref() != Some(&replicas) {
                dir.store_replicas(&replicas)?;
            }
            dir.store(&stored)
        })
        .await
    }

    /// Writes to the identity database.
    pub async fn write(
        &self,
        write: impl FnOnce(&DataDir) -> Result<(), OpenError> + Send + 'static,
    ) -> Result<(), OpenError> {
        let dir = self.dir.clone();
        let written = crate::blocking::blocking(move || write(&dir)).await;
        written.unwrap_or(Err(OpenError::Setup(crate::NodeError::ShuttingDown)))
    }

    /// Tells that this node belongs to the cluster no more.
    pub fn note_removed(&self) {
        self.note_failure(NodeFailure::Removed { node: self.node });
    }

    /// Tells why the process must end.
    pub fn note_failure(&self, why: NodeFailure) {
        self.failure.send_if_modified(|failure| {
            let is_first = failure.is_none();
            failure.get_or_insert(why);
            is_first
        });
    }

    /// What takes in the messages for a replica, if it is here and was not given up.
    pub fn endpoint(&self, group: GroupId, replica: ReplicaId) -> Option<Arc<dyn PeerEndpoint>> {
        if self.whereabouts.view.current().is_given_up(group.0, replica.0) {
            return None;
        }
        let hosted = self.hosted.read();
        let hosted = hosted.get(&group).filter(|hosted| hosted.member.replica() == replica)?;
        Some(hosted.endpoint.clone())
    }

    /// The replicas that are here.
    pub fn members(&self) -> Vec<Arc<dyn Member>> {
        self.hosted.read().values().map(|hosted| hosted.member.clone()).collect()
    }

    /// What this node says of itself.
    pub fn report(&self) -> NodeReport {
        let replicas = self.replicas.lock().clone();
        let hosted = self.hosted.read();
        let held = |(group, replica): (&u32, &u64)| {
            let here = hosted.get(&GroupId(*group));
            let is_open = here.is_some_and(|here| !here.member.is_damaged());
            let applied = here.map_or(0, |here| here.member.metrics().applied_index);
            let stranded = here.and_then(|here| Left::of(&*here.member, || self.applied(GroupId(*group))));
            let marks = self.marks(GroupId(*group));
            Held { group: *group, replica: *replica, is_open, applied, stranded, marks }
        };
        let led = |(group, one): (&GroupId, &Hosted)| {
            GroupReport::of(&*one.member, &one.settled, || self.applied(*group))
        };
        NodeReport {
            led: hosted.iter().filter_map(led).collect(),
            held: replicas.iter().map(held).collect(),
            is_over_memory: self.partitions.pressure().is_over(),
        }
    }

    /// By what a replica here is compared with the others; the catalog's is not.
    fn marks(&self, group: GroupId) -> Vec<Mark> {
        let partition = partition_of(group).and_then(|id| self.partitions.get(id).ok());
        // Whoever asks for them waits for nobody: all messages of this node would wait with it.
        partition.and_then(|here| here.group().try_read(PartitionMachine::marks)).unwrap_or_default()
    }

    /// The time up to which a replica here has applied entries; zero of the catalog, or of one that applies some just now.
    fn applied(&self, group: GroupId) -> Stamp {
        let partition = partition_of(group).and_then(|id| self.partitions.get(id).ok());
        // Whoever asks for it waits for nobody.
        let stamp = partition.and_then(|here| here.group().try_read(|machine| machine.state_as_is().stamp()));
        stamp.unwrap_or(Stamp(0))
    }

    /// Ends the tasks of all replicas.
    pub async fn end_tasks(&self) {
        let all: Vec<_> = self.hosted.read().values().cloned().collect();
        futures_util::future::join_all(all.iter().map(Hosted::end_tasks)).await;
    }
}

fn encode(stamp_ms: u64, commands: &[Bytes]) -> Bytes {
    encode_batch(Stamp(stamp_ms), commands)
}

impl Hosted {
    async fn end_tasks(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Takes note of who leads a group, as its replica here sees it.
async fn follow(member: Arc<dyn Member>, whereabouts: Arc<Whereabouts>, node: u64, stop: CancellationToken) {
    let group = member.id();
    let mut leadership = member.watch_leadership();
    loop {
        if let Some(term) = leadership.led() {
            whereabouts.leaders.note(group, term, node);
        } else {
            whereabouts.leaders.forget(group, node);
            let metrics = member.metrics();
            if let Some(leader) = member.leader().map(|(_, at)| at).filter(|leader| *leader != node) {
                whereabouts.leaders.note(group, metrics.term, leader);
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = leadership.changed() => if !changed { return },
        }
    }
}

/// Keeps the stamps of this node above those that a partition applied before this node led it, and takes note of its
/// incarnation, which a snapshot may have changed.
async fn raise_stamps(partition: Arc<PartitionHandle>, stamps: Arc<Stamps>, stop: CancellationToken) {
    let mut leadership = partition.group().watch_leadership();
    loop {
        let (stamp, incarnation) = partition.group().read(|machine| {
            let state = machine.state_as_is();
            (state.stamp(), state.incarnation())
        });
        stamps.raise(stamp.0);
        partition.note_incarnation(incarnation);
        tokio::select! {
            () = stop.cancelled() => return,
            changed = leadership.changed() => if !changed { return },
        }
    }
}

/// Tells when a replica failed so that the process must end.
async fn watch_failure(
    member: Arc<dyn Member>,
    failure: watch::Sender<Option<NodeFailure>>,
    stop: CancellationToken,
) {
    tokio::select! {
        () = stop.cancelled() => {}
        reason = member.stopped() => if reason != StopReason::Shutdown {
            failure.send_replace(Some(NodeFailure::Group { group: member.id().0, reason }));
        },
    }
}

/// The catalog's group stands before those of the partitions.
pub(super) fn groups_of(partitions: u16) -> impl Iterator<Item = GroupId> {
    std::iter::once(CATALOG_GROUP).chain((1..=u32::from(partitions)).map(GroupId))
}
