//! Owns the opening of a node: finding or making everything, in an order that a stop at any point leaves whole.
//!
//! - The identity is durable before the log is made, and says that the groups are formed only when they are.
//! - The catalog's log decides what the cluster is; the identity must agree with it, or is rebuilt from it.
//! - With other nodes it waits for none of them, but for one that lets it join the first time: it serves what is ready.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use fanfold_storage::log::{GroupId, Log, LogOptions, Recovered};
use futures_util::future::{BoxFuture, join_all};
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::host::{Host, groups_of};
use super::join::Peering;
use super::opening::{Loads, Opening, formation_of, open_catalog};
use super::rest::Sleepers;
use super::settle::{begin, join, reconcile, replicas_of};
use super::{Node, addresses, held, tasks};
use crate::backup::{Alone, RESTORE_FILE, Restored};
use crate::blocking;
use crate::catalog::{
    CATALOG_GROUP, Catalog, CatalogCommand, CatalogState, ClusterSettings, Distributor, Edit, Founding,
    NodeFacts, TakeOver,
};
use crate::change::ClusterRefusal;
use crate::clock::Stamps;
use crate::dispatcher::{ClusterStreams, StreamTransport};
use crate::error::{NodeError, OpenError};
use crate::identity::{DataDir, Identity, StoredIdentity};
use crate::inspect::concerned;
use crate::jobs::Jobs;
use crate::lock::DirLock;
use crate::map::{Whereabouts, partition_of};
use crate::memory::{self, Keeper, Pressure};
use crate::options::{NodeOptions, PARTITIONS_DEFAULT, PARTITIONS_MAX, Start};
use crate::pacer::Pacer;
use crate::partition::Partitions;
use crate::raft::{Fills, Formation, InProcessTransport, PeerTransport};
use crate::reserve::Reserve;
use crate::timed::TimedFs;
use crate::upkeep::UpkeepMeans;

/// The node that founds a cluster.
pub(super) const FIRST_NODE: u64 = 1;

/// The longest address of the map, in bytes.
const ADDRESS_BYTES_MAX: usize = 256;

/// Changes the transport of the streams between partitions, for tests that delay, drop, repeat or reorder messages.
pub type WrapStreams = Box<dyn FnOnce(Arc<dyn StreamTransport>) -> Arc<dyn StreamTransport> + Send>;

impl Node {
    /// Opens the node of a data directory, or makes one; returns when it serves.
    pub async fn open(options: NodeOptions) -> Result<Arc<Self>, OpenError> {
        // Much is opened: whoever waits for it is not to be as large.
        let opened: BoxFuture<'_, _> = Box::pin(Self::open_with(options, Box::new(|streams| streams)));
        opened.await
    }

    /// Like [`Node::open`], with another transport for the streams between partitions.
    pub async fn open_with(options: NodeOptions, wrap_streams: WrapStreams) -> Result<Arc<Self>, OpenError> {
        check(&options)?;
        let dir = Arc::new(DataDir::prepare(&options.data_dir)?);
        let lock = DirLock::take(dir.path())?;
        let mut restored = Restored::load(&*options.fs, dir.path())?;
        if restored.as_ref().is_some_and(|restored| !restored.is_finished) {
            return Err(OpenError::RestoreUnfinished { data_dir: dir.path().to_owned() });
        }
        let stopping = CancellationToken::new();
        // Whatever fails below, nothing is left that runs.
        let unfinished = stopping.clone().drop_guard();
        let whereabouts = Arc::new(Whereabouts::default());
        if let Some(state) = dir.load_catalog() {
            whereabouts.view.offer(state.epoch, || Arc::new(state));
        }
        // On a full disk the log alone says who the node is.
        let is_full = !dir.has_room() && dir.has_log(options.fs.as_ref());
        let found = if is_full { None } else { dir.load()? };
        let stored = begin(&dir, found, &options)?;
        let peering = Peering::begin(&options, &whereabouts, &stopping).await?;
        let stored = join(&dir, stored, &options, peering.as_ref(), &whereabouts).await?;
        let alone = restored.as_ref().and_then(|restored| restored.alone.as_ref());
        let order = alone.filter(|alone| !alone.founds);
        if let (Some(stored), Some(peering)) = (&stored, &peering)
            && (restored.is_none() || order.is_some())
        {
            peering.learn(stored, &whereabouts, &options, order).await?;
        }
        if let Some(restored) = &mut restored {
            begin_order(restored, &options, &dir)?;
        }
        // Before anything is applied: what this program does not know, it would leave out.
        check_level(&whereabouts.view.current(), &options)?;
        let replicas = replicas_of(&dir, stored.as_ref());
        let replicas = replicas_alone(replicas, stored.as_ref(), restored.as_ref());
        let pacer = Arc::new(Pacer::new(options.disk.background_bytes_per_second));
        // Snapshots and the log take long to read, and neither needs the other before both are there.
        let fills = Fills::new(options.disk.fill_bytes_per_second);
        let loads = Loads::begin(&options, (&pacer, &fills), stored.as_ref(), &replicas);
        let loads = Arc::new(loads);
        let (left, stopping) = (loads.clone(), stopping.clone());
        let begun = Begun {
            options,
            dir,
            lock,
            restored,
            found,
            stored,
            replicas,
            peering,
            whereabouts,
            stopping,
            pacer,
            fills,
            loads,
        };
        let opening: BoxFuture<'_, _> = Box::pin(begun.open(wrap_streams));
        let opened = opening.await;
        left.abandoned().await;
        let node = opened?;
        let _ = unfinished.disarm();
        let Identity { cluster_id, node_id } = node.identity;
        tracing::info!(
            cluster = format_args!("{cluster_id:032x}"),
            node = node_id,
            partitions = node.partition_count,
            "the node serves"
        );
        Ok(Arc::new(node))
    }

    /// Founds the cluster if there is none, and brings the catalog up to the options while this node is alone.
    async fn found(&self, stored: &StoredIdentity, facts: &NodeFacts) -> Result<(), OpenError> {
        let options = &self.host.opening.options;
        if self.catalog.state().cluster_id.is_none() {
            let founding = Founding {
                cluster_id: stored.identity.cluster_id,
                partitions: stored.partitions,
                node: stored.identity.node_id,
                address: options.advertise.clone(),
                limits: options.limits.clone(),
                feature_level: options.feature_level,
            };
            self.catalog.propose(&CatalogCommand::Found(founding)).await?;
            if let Start::Found { replicas } = options.start
                && replicas != ClusterSettings::default().replicas
            {
                let settings = Some(ClusterSettings { replicas, ..ClusterSettings::default() });
                let edit = Edit { epoch: self.catalog.state().epoch, settings, ..Edit::default() };
                self.catalog.propose(&CatalogCommand::Edit(edit)).await?;
            }
        }
        if self.is_alone() {
            self.catalog.update_node(stored.identity.node_id, facts).await?;
            self.catalog.set_limits(&options.limits).await?;
        }
        Ok(())
    }

    /// Whether there is no other node, so that everything is ready here at once.
    fn is_alone(&self) -> bool {
        self.catalog.state().nodes.len() <= 1
    }

    fn start_tasks(&self, facts: NodeFacts, peering: Option<Peering>) {
        let options = &self.host.opening.options;
        if options.memory_bytes > 0 {
            let keeper = Keeper::new(self.partitions.clone(), options, self.host.means.options.files);
            self.tasks.spawn(keeper.run(self.stopping.clone()));
        }
        // The task that compares the clocks ends this.
        self.host.stamps.set_off(peering.is_some() && super::clocks::has_others(&self.host), false);
        self.host.start_all();
        self.tasks.spawn(tasks::reconcile(self.host.clone()));
        self.tasks.spawn(super::slow::watch(self.host.clone()));
        let Some(peering) = peering else { return };
        let Peering { network, handler, serving, .. } = peering;
        self.tasks.spawn({
            let (network, stop) = (network.clone(), self.stopping.clone());
            async move {
                network.run(handler, stop).await;
                // The address is free when it ends.
                let _ = serving.await;
            }
        });
        self.tasks.spawn(addresses::tell(self.host.clone(), network.clone(), facts.clone()));
        self.tasks.spawn(addresses::announce(self.host.clone(), network.clone(), facts));
        self.tasks.spawn(tasks::fetch(self.host.clone(), network.clone()));
        self.tasks.spawn(tasks::persist(self.host.clone()));
        self.tasks.spawn(super::clocks::compare(self.host.clone(), network.clone()));
        self.tasks.spawn(tasks::watch_twin(self.host.clone(), network.clone()));
        self.tasks.spawn(super::upgrade::watch_level(self.host.clone()));
        self.tasks.spawn(tasks::survey(self.host.clone(), network.clone()));
        self.tasks.spawn(super::succeed::run(self.host.clone(), network.clone()));
        self.tasks.spawn(super::rest::run(self.host.clone()));
        self.tasks.spawn(super::keeper::run(self.host.clone(), network));
    }
}

/// What is there before the log is opened.
struct Begun {
    options: NodeOptions,
    dir: Arc<DataDir>,
    lock: DirLock,
    restored: Option<Restored>,
    /// What the identity database said.
    found: Option<StoredIdentity>,
    stored: Option<StoredIdentity>,
    replicas: BTreeMap<u32, u64>,
    peering: Option<Peering>,
    whereabouts: Arc<Whereabouts>,
    stopping: CancellationToken,
    pacer: Arc<Pacer>,
    fills: Fills,
    loads: Arc<Loads>,
}

impl Begun {
    /// Opens the log and the groups, and starts everything.
    async fn open(self, wrap_streams: WrapStreams) -> Result<Node, OpenError> {
        let Self {
            options,
            dir,
            lock,
            restored,
            found,
            stored,
            replicas,
            peering,
            whereabouts,
            stopping,
            pacer,
            fills,
            loads,
        } = self;
        let log = open_log(&dir, &options, stored.as_ref()).await?;
        let transport: Arc<dyn PeerTransport> = match &peering {
            Some(peering) => peering.network.raft_transport(),
            // There is nobody to send to.
            None => Arc::new(InProcessTransport::default()),
        };
        let founded = stored.as_ref().is_some_and(|stored| stored.founded);
        let opening = Opening {
            node: stored.as_ref().map_or(FIRST_NODE, |stored| stored.identity.node_id),
            pacer,
            fills,
            options,
            log,
            whereabouts: whereabouts.clone(),
            transport,
            loads,
        };
        let alone = restored.as_ref().and_then(|restored| restored.alone.as_ref());
        let (catalog, retired_catalog) =
            open_catalog(&opening, &replicas, alone, stored.as_ref().map(|_| founded)).await?;
        let known = catalog.as_ref().map(|group| group.read(|machine| machine.state().clone()));
        let was_unknown = stored.is_none();
        known.as_ref().map_or(Ok(()), |known| check_level(known, &opening.options))?;
        let stored = match (alone, stored) {
            // The catalog is told below.
            (Some(_), Some(stored)) => stored,
            (Some(_), None) => return Err(OpenError::RestoreUnreadable { path: dir.identity() }),
            (None, stored) => reconcile(&dir, stored, known.as_ref(), &opening.options)?,
        };
        // Whose directory it is was just found out; who goes on alone has another catalog than was written down.
        let replicas = if was_unknown { replicas_of(&dir, Some(&stored)) } else { replicas };
        let host = host(opening, dir, &stored, replicas, peering.as_ref(), stopping.clone(), wrap_streams);
        if let Some(catalog) = catalog {
            host.adopt_catalog(catalog);
        }
        if let Some(alone) = alone {
            take_over(&host, &stored, alone).await?;
        }
        if let Some(replica) = retired_catalog {
            // A stop came between the note of it and its end.
            host.retire(CATALOG_GROUP, replica).await?;
        }
        let empty = restored.as_ref().map_or(&[][..], |restored| &restored.empty);
        open_partitions(&host, founded, alone, empty).await?;
        let node = Node {
            identity: stored.identity,
            partition_count: stored.partitions,
            distributor: host.distributor.clone(),
            catalog: host.catalog.clone(),
            partitions: host.partitions.clone(),
            whereabouts,
            stamps: host.stamps.clone(),
            started_ms: host.clock.monotonic_ms(),
            clock: host.clock.clone(),
            log: host.opening.log.clone(),
            pacer: host.opening.pacer.clone(),
            data_dir: host.opening.options.data_dir.clone(),
            fs: host.opening.options.fs.clone(),
            peers: peering.as_ref().map(|peering| peering.network.clone()),
            peer_address: peering.as_ref().map(|peering| peering.listening),
            host,
            opened_at: Instant::now(),
            jobs: Jobs::default(),
            requests: TaskTracker::new(),
            tasks: TaskTracker::new(),
            stopping,
            _lock: lock,
        };
        if let Some(peering) = &peering {
            peering.introduce(stored.identity);
            peering.handler.open(node.host.clone());
        }
        let facts = facts_of(&node.host, &stored, peering.as_ref());
        node.found(&stored, &facts).await?;
        note_founded(&node.host, found, StoredIdentity { founded: true, ..stored }).await?;
        held::note_owner(&node.host, stored.identity).await;
        if let Some(restored) = &restored {
            node.reincarnate(restored).await?;
            Restored::remove(&*node.fs, &node.data_dir)?;
        }
        node.distributor.distribute().await?;
        node.start_tasks(facts, peering);
        Ok(node)
    }
}

/// What this node says of itself. One without other nodes says only where clients find it.
fn facts_of(host: &Host, stored: &StoredIdentity, peering: Option<&Peering>) -> NodeFacts {
    let options = &host.opening.options;
    let alone = || NodeFacts {
        directory_id: stored.directory_id,
        address: options.advertise.clone(),
        peer_address: String::new(),
        zone: options.zone.clone(),
    };
    peering.map_or_else(alone, |peering| peering.facts(options, stored.directory_id))
}

/// What the replicas of a node live on.
fn host(
    opening: Opening,
    dir: Arc<DataDir>,
    stored: &StoredIdentity,
    replicas: BTreeMap<u32, u64>,
    peering: Option<&Peering>,
    stopping: CancellationToken,
    wrap_streams: WrapStreams,
) -> Arc<Host> {
    let (options, whereabouts) = (&opening.options, opening.whereabouts.clone());
    let pressure = Arc::new(Pressure::of(options.memory_bytes));
    let partitions = Partitions::new(stored.partitions, whereabouts.clone()).measured(options.phases.clone());
    let partitions = Arc::new(partitions.under(pressure.clone(), options.memory_bytes));
    let peers = peering.map(|peering| peering.network.clone());
    if let Some(network) = &peers {
        partitions.connect(network.clone());
    }
    let streams = Arc::new(ClusterStreams::new(partitions.clone()));
    let disk = Arc::new(memory::within(&options.disk, options.memory_bytes, stored.partitions));
    let reserve = Arc::new(Reserve::new(options.fs.clone(), &options.data_dir, disk.reserve_bytes));
    let means = UpkeepMeans {
        log: opening.log.clone(),
        options: disk,
        reserve,
        pressure,
        ended: Arc::default(),
        partitions: stored.partitions,
        merges: UpkeepMeans::merges(),
    };
    let clock = options.clock.clone();
    Arc::new(Host {
        node: stored.identity.node_id,
        dir,
        stamps: Arc::new(Stamps::new(clock.clone(), 0)),
        clock,
        catalog: Arc::new(Catalog::new(whereabouts.clone(), peers)),
        distributor: Distributor::new(whereabouts.clone(), partitions.clone()),
        whereabouts,
        partitions,
        survey: Arc::default(),
        sleepers: Sleepers::default(),
        streams: wrap_streams(streams),
        means,
        stopping,
        failure: watch::Sender::default(),
        hosted: RwLock::default(),
        replicas: Mutex::new(replicas),
        heard_epoch: Mutex::default(),
        persisted: tokio::sync::Mutex::default(),
        reincarnated: Mutex::default(),
        peer_address: peering.map_or_else(String::new, |peering| peering.address.clone()),
        is_leaving: AtomicBool::new(false),
        opening,
    })
}

/// Stores what is founded now, unless that stands there. A full disk is no failure: the log says the same.
async fn note_founded(
    host: &Host,
    found: Option<StoredIdentity>,
    stored: StoredIdentity,
) -> Result<(), OpenError> {
    if found == Some(stored) {
        return Ok(());
    }
    if !host.dir.has_room() {
        tracing::warn!("the disk is full, and the identity is not stored; the next start looks again");
        return Ok(());
    }
    host.write_identity(&stored).await
}

/// Opens the partitions that are here, all at once.
async fn open_partitions(
    host: &Host,
    founded: bool,
    alone: Option<&Alone>,
    empty: &[u16],
) -> Result<(), OpenError> {
    let state = host.whereabouts.view.current();
    let replicas = host.replicas.lock().clone();
    let partitions = replicas.iter().filter_map(|(group, replica)| {
        let id = partition_of(GroupId(*group))?;
        // One that was given up is retired as soon as the tasks run.
        if state.is_given_up(*group, *replica) {
            return None;
        }
        let formation = match alone.filter(|alone| alone.founds) {
            Some(alone) if alone.empty.contains(&id.0) => Formation::New,
            Some(_) => Formation::Recover,
            None if state.begins_empty.get(group) == Some(replica) => host.opening.anew(GroupId(*group)),
            None if empty.contains(&id.0) => Formation::New,
            None if state.recovering.get(group) == Some(replica) => Formation::Recover,
            None => formation_of(*replica, founded),
        };
        Some(host.open_or_note(id, *replica, formation))
    });
    join_all(partitions).await.into_iter().collect()
}

/// The replicas of a node that goes on alone.
fn replicas_alone(
    mut replicas: BTreeMap<u32, u64>,
    stored: Option<&StoredIdentity>,
    restored: Option<&Restored>,
) -> BTreeMap<u32, u64> {
    let Some(alone) = restored.and_then(|restored| restored.alone.as_ref()) else { return replicas };
    replicas.insert(CATALOG_GROUP.0, alone.replica);
    if let Some(stored) = stored.filter(|_| alone.founds) {
        replicas.extend(groups_of(stored.partitions).map(|group| (group.0, alone.replica)));
    }
    replicas
}

/// From now on an order to go on alone cannot be withdrawn.
fn begin_order(restored: &mut Restored, options: &NodeOptions, dir: &DataDir) -> Result<(), OpenError> {
    let Some(order) = restored.alone.as_mut().filter(|alone| !alone.founds && !alone.is_begun) else {
        return Ok(());
    };
    order.is_begun = true;
    let stored = restored.store(&*options.fs, dir.path());
    let path = dir.path().join(RESTORE_FILE);
    stored.map_err(|error| OpenError::Io { path, source: std::io::Error::other(error) })
}

/// Tells the catalog that this node goes on alone, before anybody acts on what the catalog said until then.
async fn take_over(host: &Host, stored: &StoredIdentity, alone: &Alone) -> Result<(), OpenError> {
    // Another node may have told of changes that this replica never got.
    let view = host.whereabouts.view.current();
    let applied = host.catalog.here().map_or(0, |here| here.group().read(|machine| machine.state().epoch));
    let known = (!alone.founds && view.epoch > applied).then(|| Box::new(CatalogState::clone(&view)));
    let taken = TakeOver {
        known,
        node: host.node,
        replica: alone.replica,
        gone: alone.gone.clone(),
        founds: alone.founds.then_some(stored.identity.cluster_id),
        address: host.opening.options.advertise.clone(),
    };
    host.catalog.propose(&CatalogCommand::TakeOver(taken)).await?;
    // Without the note that is removed later, the next start has to know its replicas.
    host.write_identity(stored).await?;
    tracing::warn!(
        node = host.node,
        replica = alone.replica,
        gone = ?alone.gone,
        empty = ?alone.empty,
        "this node goes on alone; what only others had is lost"
    );
    Ok(())
}

fn check(options: &NodeOptions) -> Result<(), OpenError> {
    let bytes = options.advertise.len();
    if bytes == 0 || bytes > ADDRESS_BYTES_MAX {
        return Err(OpenError::AdvertiseLength { bytes });
    }
    match options.partitions {
        Some(got) if !got.is_power_of_two() || got > PARTITIONS_MAX => Err(OpenError::PartitionCount { got }),
        _ => Ok(()),
    }
}

/// Checks that this program knows all that the cluster may use (R3).
fn check_level(state: &CatalogState, options: &NodeOptions) -> Result<(), OpenError> {
    let (needed, supported) = (state.feature_level, options.feature_level);
    if needed > supported {
        return Err(OpenError::Refused(ClusterRefusal::FeatureLevel { needed, supported }));
    }
    Ok(())
}

async fn open_log(
    dir: &DataDir,
    options: &NodeOptions,
    stored: Option<&StoredIdentity>,
) -> Result<Log, OpenError> {
    // Counts only for a new log, whose identity was just drawn; an existing log keeps its own.
    let salt = stored.map_or_else(rand::random, |stored| stored.identity.cluster_id as u64);
    let partitions =
        stored.map(|stored| stored.partitions).or(options.partitions).unwrap_or(PARTITIONS_DEFAULT);
    let log_options = memory::log_within(options.log.clone(), options.memory_bytes, partitions);
    // Group 0 is the catalog's.
    let founded = stored.filter(|stored| stored.founded && stored.partitions > 0);
    let groups = founded.map(|stored| u32::from(stored.partitions) + 1);
    let log_options = LogOptions { salt, groups, ..log_options };
    let fs = Arc::new(TimedFs::new(options.fs.clone(), options.phases.clone()));
    let path = dir.log();
    let opened = blocking::open_log(fs, path, log_options).await;
    let (log, recovered) = opened.map_err(|_| NodeError::ShuttingDown)??;
    report(&recovered);
    if stored.is_none() {
        held::check_lone_log(dir, &recovered)?;
    }
    Ok(log)
}

fn report(recovered: &Recovered) {
    if let Some(torn) = &recovered.torn {
        let (path, offset, bytes) = (&torn.path, torn.offset, torn.bytes);
        tracing::warn!(
            ?path,
            offset,
            bytes,
            "dropped the torn end of the log, which nobody was answered for"
        );
    }
    for damage in &recovered.damaged {
        let (path, offset, concerned) = (&damage.path, damage.offset, concerned(damage, &recovered.groups));
        tracing::error!(
            ?path,
            offset,
            concerned,
            "the log is damaged; what may miss records by it refuses service on this node"
        );
    }
    tracing::info!(
        segments = recovered.segments,
        batches = recovered.batches,
        records = recovered.records,
        groups = recovered.groups.len(),
        "the log is open"
    );
}
