//! Owns the opening of a node: finding or making everything, in an order that a stop at any point leaves whole.
//!
//! - The identity is durable before the log is made, and says that the groups are formed only when they are.
//! - The catalog's log decides what the cluster is; the identity must agree with it, or is rebuilt from it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use fanfold_storage::command::{Command, encode_batch};
use fanfold_storage::ids::{PartitionId, Stamp};
use fanfold_storage::log::{GroupId, Log, LogError, LogOptions, Recovered};
use fanfold_storage::partition::Partition;
use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Node;
use crate::backup::Restored;
use crate::catalog::{CatalogCommand, CatalogHandle, CatalogMachine, CatalogState, Distributor, Founding};
use crate::clock::Stamps;
use crate::dispatcher::{Dispatcher, DispatcherSettings, InProcessStreams, StreamTransport};
use crate::error::{NodeError, OpenError};
use crate::identity::{DataDir, Identity, StoredIdentity};
use crate::jobs::Jobs;
use crate::lock::DirLock;
use crate::memory::{self, Keeper, Pressure};
use crate::options::{NodeOptions, PARTITIONS_DEFAULT, PARTITIONS_MAX};
use crate::pacer::Pacer;
use crate::partition::{PartitionHandle, PartitionMachine, background, run_activity, run_ticker};
use crate::proposer::Proposer;
use crate::raft::{
    self, Formation, Group, GroupDirectory, GroupSpec, InProcessTransport, LogStoreError, Machine,
    ReplicaAddress, ReplicaId, group_dir,
};
use crate::reserve::Reserve;
use crate::upkeep::{Upkeep, UpkeepMeans};

/// The group of the catalog; partition `n` has the group after it.
const CATALOG_GROUP: GroupId = GroupId(0);

/// The partition of a group; none is the catalog's.
pub(super) fn partition_of(group: GroupId) -> Option<PartitionId> {
    group.0.checked_sub(1).map(|n| PartitionId(n as u16))
}

/// The only node there is so far.
const FIRST_NODE: u64 = 1;

/// What this program can do; a cluster is raised to it when all nodes can.
const FEATURE_LEVEL: u32 = 1;

/// The longest address of the map, in bytes.
const ADDRESS_BYTES_MAX: usize = 256;

/// Changes the transport of the streams between partitions, for tests that delay, drop, repeat or reorder messages.
pub type WrapStreams = Box<dyn FnOnce(Arc<dyn StreamTransport>) -> Arc<dyn StreamTransport> + Send>;

impl Node {
    /// Opens the node of a data directory, or makes one; returns when it serves.
    pub async fn open(options: NodeOptions) -> Result<Arc<Self>, OpenError> {
        Self::open_with(options, Box::new(|streams| streams)).await
    }

    /// Like [`Node::open`], with another transport for the streams between partitions.
    pub async fn open_with(options: NodeOptions, wrap_streams: WrapStreams) -> Result<Arc<Self>, OpenError> {
        check(&options)?;
        let dir = DataDir::prepare(&options.data_dir)?;
        let lock = DirLock::take(dir.path())?;
        let restored = Restored::load(dir.path())?;
        if restored.as_ref().is_some_and(|restored| !restored.is_finished) {
            return Err(OpenError::RestoreUnfinished { data_dir: dir.path().to_owned() });
        }
        let stored = dir.load()?;
        let stored = begin(&dir, stored, &options)?;
        let log = open_log(&dir, &options, stored.as_ref()).await?;
        let pacer = Arc::new(Pacer::new(options.disk.background_bytes_per_second));
        let opened = Opening { options, log, pacer };
        let founded = stored.as_ref().is_some_and(|stored| stored.founded);
        let group = opened.catalog(founded).await?;
        let stored = reconcile(&dir, stored, &group.read(|m| m.state().clone()), &opened.options)?;
        let groups = opened.partitions(stored.partitions, founded).await?;
        let last_stamp = groups.iter().flatten().map(|group| group.read(|m| m.state_as_is().stamp().0)).max();
        let stamps = Arc::new(Stamps::new(opened.options.clock.clone(), last_stamp.unwrap_or(0)));
        let encode = |stamp_ms: u64, commands: &[Bytes]| encode_batch(Stamp(stamp_ms), commands);
        let proposer = Proposer::spawn(group.clone(), encode, stamps.clone(), Box::new(|_, _| None));
        let catalog = Arc::new(CatalogHandle::new(group, proposer));
        let handles = groups.into_iter().enumerate().map(|(n, group)| {
            let group = group?;
            let proposer = Proposer::spawn(group.clone(), encode, stamps.clone(), Box::new(background));
            Some(Arc::new(PartitionHandle::new(PartitionId(n as u16), group, proposer)))
        });
        let partitions: Arc<[_]> = handles.collect();
        let Opening { options, log, pacer } = opened;
        let node = Self {
            identity: stored.identity,
            partition_count: stored.partitions,
            distributor: Distributor::new(catalog.clone(), partitions.clone()),
            catalog,
            partitions,
            stamps,
            started_ms: options.clock.monotonic_ms(),
            clock: options.clock.clone(),
            log,
            pacer,
            data_dir: options.data_dir.clone(),
            fs: options.fs.clone(),
            jobs: Jobs::default(),
            requests: TaskTracker::new(),
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
            _lock: lock,
        };
        node.found(&stored, &options).await?;
        dir.store(&StoredIdentity { founded: true, ..stored })?;
        if let Some(restored) = restored {
            node.reincarnate(&restored).await?;
            Restored::remove(dir.path())?;
        }
        node.distributor.distribute().await?;
        node.start_tasks(&options, wrap_streams);
        tracing::info!(
            cluster = format_args!("{:032x}", stored.identity.cluster_id),
            node = stored.identity.node_id,
            partitions = stored.partitions,
            "the node serves"
        );
        Ok(Arc::new(node))
    }

    /// Founds the cluster if there is none, and brings the catalog up to the options.
    async fn found(&self, stored: &StoredIdentity, options: &NodeOptions) -> Result<(), OpenError> {
        if self.catalog.read(|state| state.cluster_id.is_none()) {
            let founding = Founding {
                cluster_id: stored.identity.cluster_id,
                partitions: stored.partitions,
                node: stored.identity.node_id,
                address: options.advertise.clone(),
                limits: options.limits.clone(),
                feature_level: FEATURE_LEVEL,
            };
            self.catalog.propose(&CatalogCommand::Found(founding)).await?;
        }
        self.catalog.set_address(stored.identity.node_id, &options.advertise).await?;
        self.catalog.set_limits(&options.limits).await?;
        Ok(())
    }

    /// Changes the incarnations of what was restored, before anybody hears of it (R11).
    async fn reincarnate(&self, restored: &Restored) -> Result<(), OpenError> {
        let highest = |partition: &PartitionHandle| partition.read(Partition::highest_incarnation);
        let known = self.partitions.iter().flatten().map(|partition| highest(partition));
        let known = known.collect::<Result<Vec<_>, _>>()?.into_iter().max().unwrap_or_default();
        let incarnation = restored.incarnation.max(known + 1);
        for partition in
            self.partitions.iter().flatten().filter(|partition| restored.concerns(partition.id()))
        {
            partition.propose(&Command::Reincarnate { incarnation }).await?;
            partition.note_incarnation(incarnation);
            tracing::warn!(
                partition = partition.id().0,
                incarnation,
                "the partition was restored; its streams begin anew"
            );
        }
        Ok(())
    }

    fn start_tasks(&self, options: &NodeOptions, wrap_streams: WrapStreams) {
        let in_process = InProcessStreams::default();
        in_process.connect(self.partitions.clone());
        let streams = wrap_streams(Arc::new(in_process));
        let disk = Arc::new(memory::within(options.disk.clone(), options.memory_bytes, self.partition_count));
        let reserve = Arc::new(Reserve::new(options.fs.clone(), &options.data_dir, disk.reserve_bytes));
        let pressure = Arc::new(Pressure::default());
        if options.memory_bytes > 0 {
            let keeper = Keeper::new(self.partitions.clone(), options.memory_bytes, pressure.clone());
            self.tasks.spawn(keeper.run(self.stopping.clone()));
        }
        let means = UpkeepMeans { log: self.log.clone(), options: disk, reserve, pressure };
        let settings = DispatcherSettings { journal_events_max: options.journal_events_max };
        for partition in self.partitions.iter().flatten() {
            let (stamps, clock) = (self.stamps.clone(), self.clock.clone());
            self.tasks.spawn(run_ticker(
                partition.clone(),
                stamps.clone(),
                clock.clone(),
                self.stopping.clone(),
            ));
            let (away_days, stop) = (options.away_days, self.stopping.clone());
            self.tasks.spawn(run_activity(partition.clone(), stamps, clock, away_days, stop));
            let dispatcher = Dispatcher::new(partition.clone(), streams.clone(), settings);
            self.tasks.spawn(dispatcher.run(self.stopping.clone()));
            let upkeep = Upkeep::new(partition.group().clone(), means.clone());
            self.tasks.spawn(upkeep.run(self.stopping.clone()));
        }
        let upkeep = Upkeep::new(self.catalog.group().clone(), means);
        self.tasks.spawn(upkeep.run(self.stopping.clone()));
        self.tasks.spawn(self.distributor.clone().run(self.stopping.clone()));
    }
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

/// Draws and stores the identity of a new directory; checks that of an old one. None: it is to be rebuilt from the log.
fn begin(
    dir: &DataDir,
    stored: Option<StoredIdentity>,
    options: &NodeOptions,
) -> Result<Option<StoredIdentity>, OpenError> {
    match stored {
        Some(stored) => {
            same_partitions(dir.path(), stored.partitions, options)?;
            if stored.founded && !dir.has_log(options.fs.as_ref()) {
                let (data_dir, cluster_id) = (dir.path().to_owned(), stored.identity.cluster_id);
                return Err(OpenError::LogMissing { data_dir, cluster_id });
            }
            Ok(Some(stored))
        }
        None if dir.has_log(options.fs.as_ref()) => Ok(None),
        None => Ok(Some(draw(dir, options)?)),
    }
}

/// Draws and stores a new identity.
fn draw(dir: &DataDir, options: &NodeOptions) -> Result<StoredIdentity, OpenError> {
    let identity = Identity { cluster_id: rand::random(), node_id: FIRST_NODE };
    let partitions = options.partitions.unwrap_or(PARTITIONS_DEFAULT);
    let stored = StoredIdentity { identity, partitions, founded: false };
    dir.store(&stored)?;
    Ok(stored)
}

/// Makes identity and catalog agree: the catalog's log decides.
fn reconcile(
    dir: &DataDir,
    stored: Option<StoredIdentity>,
    catalog: &CatalogState,
    options: &NodeOptions,
) -> Result<StoredIdentity, OpenError> {
    let Some(cluster_id) = catalog.cluster_id else {
        return match stored {
            Some(stored) if stored.founded => {
                let (data_dir, cluster_id) = (dir.path().to_owned(), stored.identity.cluster_id);
                Err(OpenError::LogMissing { data_dir, cluster_id })
            }
            Some(stored) => Ok(stored),
            // The first start was stopped before the cluster was founded, so nothing was ever answered.
            None => draw(dir, options),
        };
    };
    let rebuilt = StoredIdentity {
        identity: Identity { cluster_id, node_id: FIRST_NODE },
        partitions: catalog.partitions,
        founded: true,
    };
    match stored {
        Some(stored) if stored.identity != rebuilt.identity || stored.partitions != rebuilt.partitions => {
            let (data_dir, identity) = (dir.path().to_owned(), stored.identity.cluster_id);
            Err(OpenError::IdentityDiffers { data_dir, identity, log: cluster_id })
        }
        Some(stored) => Ok(stored),
        None => {
            same_partitions(dir.path(), rebuilt.partitions, options)?;
            Ok(rebuilt)
        }
    }
}

fn same_partitions(data_dir: &Path, found: u16, options: &NodeOptions) -> Result<(), OpenError> {
    match options.partitions {
        Some(asked) if asked != found => {
            Err(OpenError::PartitionsDiffer { data_dir: data_dir.to_owned(), found, asked })
        }
        _ => Ok(()),
    }
}

async fn open_log(
    dir: &DataDir,
    options: &NodeOptions,
    stored: Option<&StoredIdentity>,
) -> Result<Log, OpenError> {
    // Counts only for a new log, whose identity was just drawn; an existing log keeps its own.
    let salt = stored.map_or_else(rand::random, |stored| stored.identity.cluster_id as u64);
    let log_options = LogOptions { salt, ..options.log.clone() };
    let (fs, path) = (options.fs.clone(), dir.log());
    // Opening reads the whole log.
    let opened = tokio::task::spawn_blocking(move || Log::open(fs, &path, log_options)).await;
    let (log, recovered) = opened.map_err(|_| NodeError::ShuttingDown)??;
    report(&recovered);
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
        let (path, offset, groups) = (&damage.path, damage.offset, &damage.groups);
        tracing::error!(
            ?path,
            offset,
            ?groups,
            "the log is damaged; the groups named refuse service on this node"
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

/// What the groups of a node are opened with.
struct Opening {
    options: NodeOptions,
    log: Log,
    pacer: Arc<Pacer>,
}

impl Opening {
    async fn catalog(&self, founded: bool) -> Result<Group<CatalogMachine>, OpenError> {
        let opened = self.group(CATALOG_GROUP, founded, CatalogMachine::default()).await;
        opened.map_err(OpenError::Catalog)
    }

    /// Opens all partitions at once; none in place of one that is quarantined.
    async fn partitions(
        &self,
        count: u16,
        founded: bool,
    ) -> Result<Vec<Option<Group<PartitionMachine>>>, OpenError> {
        let groups = (0..count).map(|n| async move {
            let partition = PartitionId(n);
            let machine = PartitionMachine::new(partition, count);
            match self.group(GroupId(u32::from(n) + 1), founded, machine).await {
                Ok(group) => Ok(Some(group)),
                Err(raft::OpenError::Log(LogStoreError::Log(error @ LogError::Quarantined { .. }))) => {
                    tracing::error!(partition = n, %error, "the partition refuses service on this node");
                    Ok(None)
                }
                Err(source) => Err(OpenError::Partition { partition, source }),
            }
        });
        join_all(groups).await.into_iter().collect()
    }

    async fn group<M: Machine>(
        &self,
        group: GroupId,
        founded: bool,
        machine: M,
    ) -> Result<Group<M>, raft::OpenError> {
        // A replica of the first incarnation has the number of its node.
        let replica = ReplicaId(FIRST_NODE);
        let members = BTreeMap::from([(replica, ReplicaAddress(self.options.advertise.clone()))]);
        let formation = if founded { Formation::Existing } else { Formation::New };
        let spec = GroupSpec { group, replica, members, formation };
        // With one node there is nobody to send to.
        let transport = Arc::new(InProcessTransport::default());
        let pacer = self.pacer.clone();
        let directory = GroupDirectory {
            fs: self.options.fs.clone(),
            dir: group_dir(&self.options.data_dir, group),
            pace: Arc::new(move |bytes| pacer.take(bytes)),
        };
        Group::open(self.log.clone(), spec, directory, machine, &self.options.raft, transport).await
    }
}
