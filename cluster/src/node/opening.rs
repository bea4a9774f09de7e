//! Owns the opening of groups: what they are opened with, and their snapshots, which are read while the log is being opened.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;

use fanfold_storage::log::{GroupId, Log, LogError};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::backup::Alone;
use crate::catalog::{CATALOG_GROUP, CatalogMachine};
use crate::error::{NodeError, OpenError};
use crate::identity::StoredIdentity;
use crate::map::{Whereabouts, address_of, partition_of};
use crate::options::NodeOptions;
use crate::pacer::Pacer;
use crate::partition::PartitionMachine;
use crate::raft::{
    self, Fills, Formation, Group, GroupDirectory, GroupSpec, Loading, LogStoreError, Machine, PeerTransport,
    ReplicaId, group_dir,
};

/// What groups are opened with.
pub(super) struct Opening {
    pub node: u64,
    pub options: NodeOptions,
    pub log: Log,
    pub pacer: Arc<Pacer>,
    /// Whose turn it is to be filled by a peer.
    pub fills: Fills,
    pub whereabouts: Arc<Whereabouts>,
    pub transport: Arc<dyn PeerTransport>,
    pub loads: Arc<Loads>,
}

/// The partitions whose snapshots are read while the log is being opened.
#[derive(Default)]
pub(super) struct Loads(Mutex<BTreeMap<GroupId, Loading<PartitionMachine>>>);

impl Loads {
    /// Begins to read those of the replicas that were here before.
    pub fn begin(
        options: &NodeOptions,
        means: (&Arc<Pacer>, &Fills),
        stored: Option<&StoredIdentity>,
        replicas: &BTreeMap<u32, u64>,
    ) -> Self {
        let Some(stored) = stored.filter(|stored| stored.founded) else { return Self::default() };
        let turns = Arc::new(Semaphore::new(thread::available_parallelism().map_or(1, usize::from)));
        let partitions = replicas.keys().filter_map(|group| {
            let (group, count) = (GroupId(*group), stored.partitions);
            let machine = PartitionMachine::new(partition_of(group)?, count);
            Some((group, directory_of(options, means, group).load_in_turn(group, machine, turns.clone())))
        });
        Self(Mutex::new(partitions.collect()))
    }

    /// What was begun for a group.
    pub fn take(&self, group: GroupId) -> Option<Loading<PartitionMachine>> {
        self.0.lock().remove(&group)
    }

    /// Waits until nobody reads for those that were not taken.
    pub async fn abandoned(&self) {
        let left = std::mem::take(&mut *self.0.lock());
        for loading in left.into_values() {
            loading.abandoned().await;
        }
    }
}

fn directory_of(
    options: &NodeOptions,
    (pacer, fills): (&Arc<Pacer>, &Fills),
    group: GroupId,
) -> GroupDirectory {
    let pacer = pacer.clone();
    GroupDirectory {
        fs: options.fs.clone(),
        dir: group_dir(&options.data_dir, group),
        pace: Arc::new(move |bytes| pacer.take(bytes)),
        fills: fills.clone(),
    }
}

impl Opening {
    /// Opens a replica of the catalog.
    pub async fn catalog(
        &self,
        replica: u64,
        formation: Formation,
    ) -> Result<Group<CatalogMachine>, raft::OpenError> {
        let machine = CatalogMachine::new(self.whereabouts.clone());
        // It is small, and waits for no partition to be filled.
        let directory = GroupDirectory { fills: Fills::default(), ..self.directory(CATALOG_GROUP) };
        let loading = directory.load(CATALOG_GROUP, machine);
        self.group(CATALOG_GROUP, replica, formation, loading).await
    }

    /// Where a group's files are.
    pub fn directory(&self, group: GroupId) -> GroupDirectory {
        directory_of(&self.options, (&self.pacer, &self.fills), group)
    }

    /// Opens a replica of a group.
    pub async fn group<M: Machine>(
        &self,
        group: GroupId,
        replica: u64,
        formation: Formation,
        loading: Loading<M>,
    ) -> Result<Group<M>, raft::OpenError> {
        let replica = ReplicaId(replica);
        let members = match formation {
            Formation::Joining => BTreeMap::new(),
            _ => BTreeMap::from([(replica, address_of(self.node))]),
        };
        let spec = GroupSpec { group, replica, members, formation };
        let transport = self.transport.clone();
        Group::open(self.log.clone(), spec, loading, &self.options.raft, transport).await
    }
}

/// The formation of a replica that was here before.
pub(super) fn formation_of(replica: u64, founded: bool) -> Formation {
    match replica {
        // Of the founding node, and of a time when a node was alone: it forms the group, or has lost it.
        super::FIRST_REPLICA if founded => Formation::Existing,
        super::FIRST_REPLICA => Formation::New,
        _ => Formation::Joining,
    }
}

/// The replica of the catalog, if one is here, and the one that a stop kept from being retired. One that is damaged is none, if
/// others have the catalog: what they say of it does, and they fill a new one. `founded` is none of a node that is not known.
pub(super) async fn open_catalog(
    opening: &Opening,
    replicas: &BTreeMap<u32, u64>,
    alone: Option<&Alone>,
    founded: Option<bool>,
) -> Result<(Option<Group<CatalogMachine>>, Option<u64>), OpenError> {
    let Some(replica) = replicas.get(&CATALOG_GROUP.0).copied() else { return Ok((None, None)) };
    let known = opening.whereabouts.view.current();
    let formation = match alone {
        Some(alone) if alone.is_catalog_anew => {
            let cleared = opening.clear(CATALOG_GROUP, replica).await;
            cleared.map_err(|_| OpenError::Setup(NodeError::ShuttingDown))?;
            opening.anew(CATALOG_GROUP)
        }
        Some(_) => Formation::Recover,
        None if known.is_given_up(CATALOG_GROUP.0, replica) => return Ok((None, None)),
        None => formation_of(replica, founded.unwrap_or_default()),
    };
    match opening.catalog(replica, formation).await {
        Err(raft::OpenError::Retired { .. }) => Ok((None, Some(replica))),
        Err(source @ raft::OpenError::Log(LogStoreError::Log(LogError::Quarantined { .. }))) => {
            let has_others = known.wanted(CATALOG_GROUP.0).iter().any(|record| record.node != opening.node);
            if alone.is_some() || founded.is_none() || !has_others {
                return Err(OpenError::CatalogDamaged { node: opening.node, source });
            }
            tracing::error!(
                error = %source,
                "the catalog is damaged on this node; the others fill a new replica, and all else goes on"
            );
            Ok((None, None))
        }
        opened => opened.map(|group| (Some(group), None)).map_err(OpenError::Catalog),
    }
}
