//! Owns what a node measures, for scrapers: gathered at one call, without walking anybody's users.

use std::sync::Arc;

use fanfold_storage::ids::{PartitionId, Stamp};
use fanfold_storage::partition::Deliveries;

use super::Node;
use crate::map::{group_of, partition_of};
use crate::partition::PartitionHandle;
use crate::phases::Phases;
use crate::raft::Machine;
use crate::status::NodeFigures;

impl Node {
    /// What the node measures.
    pub fn figures(&self) -> NodeFigures {
        let queued =
            |partition: Arc<PartitionHandle>| (partition.id(), partition.proposer().waiting() as u64);
        let diverged = self.host.survey.all().diverged();
        let log = self.log.status();
        let damaged = self.damaged_here();
        NodeFigures {
            phases: self.phases().times(),
            queued: self.partitions.all().map(queued).collect(),
            is_disk_stalled: self.host.whereabouts.is_slow(self.identity.node_id) && !log.full,
            kept_by_damaged: self.kept_by(&damaged),
            damaged,
            damaged_replicas: self.partitions.damaged_replicas(),
            verify_findings: self.jobs.wrong(),
            log,
            diverged: diverged.into_iter().filter_map(|(group, _)| partition_of(group)).collect(),
            disk_free_bytes: self.fs.free_bytes(&self.data_dir).ok(),
        }
    }

    /// The partitions that are damaged here, opened or not.
    pub(super) fn damaged_here(&self) -> Vec<PartitionId> {
        let is_damaged = |partition: &Arc<PartitionHandle>| {
            partition.group().try_read(Machine::is_damaged).unwrap_or(false)
        };
        let opened = self.partitions.all().filter(is_damaged).map(|partition| partition.id());
        self.partitions.damaged().chain(opened).collect()
    }

    /// What these partitions keep of the log, those that keep something.
    pub(super) fn kept_by(&self, partitions: &[PartitionId]) -> Vec<(PartitionId, u64)> {
        let kept = partitions.iter().map(|id| (*id, self.log.kept_bytes(group_of(Some(*id)))));
        kept.filter(|(_, bytes)| *bytes > 0).collect()
    }

    /// What was delivered lately in the partitions that this node leads.
    pub fn deliveries(&self) -> Vec<(PartitionId, Deliveries)> {
        let now = Stamp(self.stamps.now());
        let led = self.partitions.all().filter(|partition| partition.group().is_leader());
        let counted = led.filter_map(|partition| {
            // A damaged one tells nothing.
            let mut counted = partition.read(|state| state.deliveries(now)).ok()?;
            counted.over_ms = counted.over_ms.min(self.uptime_ms());
            Some((partition.id(), counted))
        });
        counted.collect()
    }

    /// Where is noted how long things take.
    pub fn phases(&self) -> &Arc<Phases> {
        self.partitions.phases()
    }
}
