//! Owns the status of a node: gathered from its parts at one call.

use fanfold_storage::ids::PartitionId;
use fanfold_storage::log::GroupUsage;
use fanfold_storage::partition::Partition;

use super::Node;
use crate::error::NodeError;
use crate::map::partition_of;
use crate::partition::{PartitionHandle, Progress};
use crate::raft::{ApplyTimes, Machine};
use crate::status::{LogPin, NodeStatus, PartitionStatus, SnapshotStatus, StreamStatus};

impl Node {
    /// The figures of the node.
    pub fn status(&self) -> NodeStatus {
        let now_ms = self.stamps.now();
        let held = self.log.usage();
        let log = self.log.status();
        NodeStatus {
            node_id: self.identity.node_id,
            cluster_id: self.identity.cluster_id,
            uptime_ms: self.uptime_ms(),
            clock_held_ms: self.stamps.held(),
            epoch: self.catalog.state().epoch,
            partitions: self.partitions.all().map(|partition| status_of(&partition, now_ms, &held)).collect(),
            kept_by_damaged: self.kept_by(&self.damaged_here()),
            damaged: self.partitions.damaged().collect(),
            memory: self.partitions.pressure().status(),
            kept_entry_bytes: self.partitions.kept().bytes(),
            log_kept_by_job: self.jobs.running().filter(|_| log.held_bytes > 0),
            log,
            log_pinned_by: self.log_pin(&held),
        }
    }

    /// Who keeps the oldest segment of the log.
    fn log_pin(&self, held: &[GroupUsage]) -> Option<LogPin> {
        let positions = held.iter().filter(|usage| usage.position.is_some());
        let group = positions.min_by_key(|usage| usage.position)?.group;
        let members = self.host.members();
        let here = members.iter().find(|member| member.id() == group);
        let for_node = here.and_then(|member| member.log_kept_for());
        Some(LogPin { partition: partition_of(group), for_node })
    }

    /// How long it has been running, in milliseconds.
    pub(super) fn uptime_ms(&self) -> u64 {
        self.clock.monotonic_ms().saturating_sub(self.started_ms)
    }

    /// What is answered for a partition that is damaged on this node: the error names what is damaged of it.
    pub fn damaged(&self, partition: PartitionId) -> NodeError {
        NodeError::Damaged { partition, damage: self.partitions.damage(partition) }
    }

    /// What applying has taken so far, in each partition here.
    pub fn apply_times(&self) -> Vec<(PartitionId, ApplyTimes)> {
        self.partitions.all().map(|partition| (partition.id(), partition.group().apply_times())).collect()
    }
}

fn status_of(partition: &PartitionHandle, now_ms: u64, held: &[GroupUsage]) -> PartitionStatus {
    let held = held.iter().find(|usage| usage.group == partition.group().id());
    let snapshot = partition.group().newest_snapshot().map(|newest| SnapshotStatus {
        index: newest.manifest.index,
        bytes: newest.manifest.buckets.iter().map(|bucket| bucket.length).sum(),
    });
    let metrics = partition.group().metrics();
    let progress = partition.progress().borrow().clone();
    let leads = metrics.is_leader && progress.is_leading;
    partition.group().read(|machine| {
        let (state, files) = (machine.state_as_is(), machine.files_in_use());
        // A replica that does not lead has heard no answers: everything in its journal would pass for undelivered.
        let destinations = if leads { state.destinations() } else { Vec::new() };
        let streams: Vec<_> =
            destinations.iter().map(|id| stream_of(state, &progress, *id, now_ms)).collect();
        PartitionStatus {
            partition: partition.id(),
            is_leader: metrics.is_leader,
            is_damaged: machine.state().is_none(),
            term: metrics.term,
            applied: state.applied(),
            log_last: metrics.last_log_index,
            stamp: state.stamp(),
            log_bytes: held.map_or(0, |usage| usage.bytes),
            snapshot,
            segments: files.len() as u64,
            segment_bytes: files.iter().map(|(_, bytes)| bytes).sum(),
            usage: state.usage(),
            undelivered_events: streams.iter().map(|stream| stream.pending_events).sum(),
            journal_len: state.journal_len() as u64,
            journal_next: state.journal_next(),
            streams,
        }
    })
}

fn stream_of(state: &Partition, progress: &Progress, id: PartitionId, now_ms: u64) -> StreamStatus {
    let known = progress.streams.get(&id).copied().unwrap_or_default();
    let pending = state.pending(id, known.acknowledged.unwrap_or_default());
    StreamStatus {
        destination: id,
        is_active: state.stream_active(id),
        is_failing: known.is_failing,
        pending_events: pending.events,
        oldest_age_ms: pending.oldest.map_or(0, |oldest| now_ms.saturating_sub(oldest.0)),
        acknowledged: known.acknowledged,
    }
}
