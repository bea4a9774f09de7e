//! Owns the beginning of groups anew on this node: with nothing, and with the incarnation of what was recovered (R11).
//!
//! - What begins with nothing is in a later term, and in a later incarnation, than anybody can know of it.

use fanfold_storage::command::Command;
use fanfold_storage::log::GroupId;
use fanfold_storage::partition::Partition;

use super::Node;
use super::host::Host;
use super::opening::Opening;
use crate::backup::Restored;
use crate::error::{NodeError, OpenError};
use crate::map::partition_of;
use crate::partition::PartitionHandle;
use crate::raft::{Formation, RetireError, noted_replicas, retire_closed};

impl Host {
    /// Begins a group that nobody has anything of, with nothing. Can be done again, wherever it stopped.
    pub async fn begin_empty(&self, group: GroupId, replica: u64) -> Result<(), OpenError> {
        let Some(id) = partition_of(group) else { return Ok(()) };
        self.note_replica(group, Some(replica)).await?;
        self.open_or_note(id, replica, self.opening.anew(group)).await?;
        if self.is_open(group) {
            self.start(group);
            tracing::warn!(partition = id.0, replica, "the partition begins empty; all that it had is lost");
        }
        Ok(())
    }

    /// Changes the incarnation of a partition that was recovered and leads (R11). One that begins empty knows of none before.
    pub async fn reincarnate(&self, partition: &PartitionHandle, is_anew: bool) -> Result<(), NodeError> {
        let highest = partition.read(Partition::highest_incarnation)?;
        // Ids of replicas count up over all recoveries, also those that this replica never heard of; restores count by
        // the wall clock.
        let wall_ms = if is_anew { self.clock.wall_unix_ms().max(0).cast_unsigned() } else { 0 };
        let incarnation = (highest + 1).max(partition.group().replica().0).max(wall_ms);
        partition.propose(&Command::Reincarnate { incarnation }).await?;
        partition.note_incarnation(incarnation);
        tracing::warn!(
            partition = partition.id().0,
            incarnation,
            "the partition is recovered; its streams begin anew"
        );
        Ok(())
    }
}

impl Node {
    /// Changes the incarnations of what was restored, before anybody hears of it (R11).
    pub(super) async fn reincarnate(&self, restored: &Restored) -> Result<(), OpenError> {
        let highest = |partition: &PartitionHandle| partition.read(Partition::highest_incarnation);
        let known = self.partitions.all().map(|partition| highest(&partition));
        let known = known.collect::<Result<Vec<_>, _>>()?.into_iter().max().unwrap_or_default();
        let incarnation = restored.incarnation.max(known + 1);
        for partition in self.partitions.all().filter(|partition| restored.concerns(partition.id())) {
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
}

impl Opening {
    /// How a group begins with nothing: in a later term than it can have had. Terms count elections; milliseconds are more.
    pub fn anew(&self, group: GroupId) -> Formation {
        let wall_ms = self.options.clock.wall_unix_ms().max(0).cast_unsigned();
        Formation::Anew { term: wall_ms.max(self.whereabouts.leaders.term(group) + 1) }
    }

    /// Removes what is left of older replicas of a group that begins with nothing.
    pub async fn clear(&self, group: GroupId, replica: u64) -> Result<(), RetireError> {
        let (fs, data_dir) = (self.options.fs.clone(), self.options.data_dir.clone());
        let found =
            crate::blocking::blocking(move || noted_replicas(&*fs, &data_dir, std::iter::once(group)));
        let found = found.await.map_err(|_| RetireError::Stopped)?;
        match found.get(&group) {
            None => Ok(()),
            Some(Some(noted)) if noted.0 == replica => Ok(()),
            Some(noted) => {
                let older = noted.unwrap_or_default();
                retire_closed(self.log.clone(), group, older, self.directory(group)).await
            }
        }
    }
}
