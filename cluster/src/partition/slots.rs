//! Owns which partitions are on this node: each is hosted here, damaged here, or elsewhere.
//!
//! - Whoever has a handle may go on with it after the partition was retired; its group answers then that it has stopped.

use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::{ArcSwapOption, Guard};
use fanfold_storage::ids::PartitionId;

use super::handle::PartitionHandle;
use crate::error::NodeError;
use crate::map::{Whereabouts, group_of};
use crate::memory::Pressure;
use crate::peer::PeerNetwork;
use crate::phases::Phases;
use crate::raft::Damage;
use crate::read::KeptEntries;

/// The partitions of the cluster as this node has them, by number.
pub(crate) struct Partitions {
    slots: Box<[Slot]>,
    whereabouts: Arc<Whereabouts>,
    network: OnceLock<PeerNetwork>,
    phases: Arc<Phases>,
    pressure: Arc<Pressure>,
    kept: KeptEntries,
    damaged_replicas: AtomicU64,
}

#[derive(Default)]
struct Slot {
    hosted: ArcSwapOption<PartitionHandle>,
    /// Why what is here cannot be used.
    damage: ArcSwapOption<Damage>,
}

/// A partition that is here, borrowed for a short time.
pub(crate) struct Hosted(Guard<Option<Arc<PartitionHandle>>>);

impl Hosted {
    /// None if there is none.
    fn new(guard: Guard<Option<Arc<PartitionHandle>>>) -> Option<Self> {
        guard.is_some().then_some(Self(guard))
    }
}

impl Deref for Hosted {
    type Target = PartitionHandle;

    fn deref(&self) -> &PartitionHandle {
        self.0.as_deref().expect("it was looked at when this was made")
    }
}

impl Partitions {
    /// So many, none of which is here yet.
    pub fn new(count: u16, whereabouts: Arc<Whereabouts>) -> Self {
        Self {
            slots: (0..count).map(|_| Slot::default()).collect(),
            whereabouts,
            network: OnceLock::new(),
            phases: Arc::default(),
            pressure: Arc::default(),
            kept: KeptEntries::within(0),
            damaged_replicas: AtomicU64::new(0),
        }
    }

    /// Notes how long their reads take.
    pub fn measured(self, phases: Arc<Phases>) -> Self {
        Self { phases, ..self }
    }

    /// Where is noted how long things take.
    pub fn phases(&self) -> &Arc<Phases> {
        &self.phases
    }

    /// Keeps to how short memory is, and to its part of a budget (0: none).
    pub fn under(self, pressure: Arc<Pressure>, memory_bytes: u64) -> Self {
        Self { pressure, kept: KeptEntries::within(memory_bytes), ..self }
    }

    /// Entries of other nodes that are often read here.
    pub fn kept(&self) -> &KeptEntries {
        &self.kept
    }

    /// How short memory is.
    pub fn pressure(&self) -> &Pressure {
        &self.pressure
    }

    /// Whether a partition takes no writes that make memory grow, because this node leads it and has none for them.
    #[inline]
    pub fn refuses_growth(&self, id: PartitionId) -> bool {
        self.pressure.refuses() && self.hosted(id).is_some_and(|partition| partition.group().is_leader())
    }

    /// The number of partitions of the cluster.
    pub fn count(&self) -> u16 {
        self.slots.len() as u16
    }

    /// Where those are that are not here.
    pub fn whereabouts(&self) -> &Arc<Whereabouts> {
        &self.whereabouts
    }

    /// From now on those that are elsewhere are reached over this network.
    pub fn connect(&self, network: PeerNetwork) {
        let _ = self.network.set(network);
    }

    /// The network to where the others are; none while there are no others.
    pub fn network(&self) -> Option<&PeerNetwork> {
        self.network.get()
    }

    /// This node, once it belongs to a cluster.
    pub fn own_node(&self) -> Option<u64> {
        self.network.get()?.node()
    }

    /// The partition of this number, if it is here.
    pub fn get(&self, id: PartitionId) -> Result<Arc<PartitionHandle>, NodeError> {
        let slot = self.slot(id)?;
        slot.hosted.load_full().ok_or_else(|| self.missing(id, slot))
    }

    /// Like [`Partitions::get`], without touching its count of references; not to be kept for long.
    pub fn hosted(&self, id: PartitionId) -> Option<Hosted> {
        Hosted::new(self.slots.get(usize::from(id.0))?.hosted.load())
    }

    /// Those that are here.
    pub fn all(&self) -> impl Iterator<Item = Arc<PartitionHandle>> + '_ {
        self.slots.iter().filter_map(|slot| slot.hosted.load_full())
    }

    /// Those that this node should have and refuses to serve, because what it has of them is damaged.
    pub fn damaged(&self) -> impl Iterator<Item = PartitionId> + '_ {
        let slots = self.slots.iter().enumerate();
        let damaged = slots.filter(|(_, slot)| slot.damage.load().is_some());
        damaged.map(|(n, _)| PartitionId(n as u16))
    }

    /// Takes a partition in.
    pub fn host(&self, partition: Arc<PartitionHandle>) {
        if let Ok(slot) = self.slot(partition.id()) {
            slot.damage.store(None);
            slot.hosted.store(Some(partition));
        }
    }

    /// Takes a partition out.
    pub fn retire(&self, id: PartitionId) -> Option<Arc<PartitionHandle>> {
        self.slot(id).ok()?.hosted.swap(None)
    }

    /// What is damaged of a partition on this node, if something is.
    pub fn damage(&self, id: PartitionId) -> Option<Arc<Damage>> {
        let slot = self.slot(id).ok()?;
        let here = || slot.hosted.load().as_ref()?.damage();
        slot.damage.load_full().or_else(here)
    }

    /// Notes why this node's replica of a partition cannot be used.
    pub fn mark_damaged(&self, id: PartitionId, damage: Damage) {
        if let Ok(slot) = self.slot(id) {
            slot.damage.store(Some(Arc::new(damage)));
            self.count_damaged();
        }
    }

    /// Counts a replica that was found damaged.
    pub fn count_damaged(&self) {
        self.damaged_replicas.fetch_add(1, Ordering::Relaxed);
    }

    /// How many replicas were found damaged on this node.
    pub fn damaged_replicas(&self) -> u64 {
        self.damaged_replicas.load(Ordering::Relaxed)
    }

    fn slot(&self, id: PartitionId) -> Result<&Slot, NodeError> {
        self.slots.get(usize::from(id.0)).ok_or(NodeError::UnknownPartition { partition: id })
    }

    /// Why there is nothing in a slot. Damage only counts while nobody else leads the partition.
    fn missing(&self, id: PartitionId, slot: &Slot) -> NodeError {
        let group = group_of(Some(id));
        let leader = self.whereabouts.leader_of(group, None);
        match slot.damage.load_full().filter(|_| self.whereabouts.leaders.of(group).is_none()) {
            Some(damage) => NodeError::Damaged { partition: id, damage: Some(damage) },
            None => NodeError::NotLeader { leader },
        }
    }
}
