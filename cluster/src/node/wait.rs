//! Owns the waits: for an index, for a delivery, and for the fan-out to drain.

use fanfold_storage::command::Command;
use fanfold_storage::ids::{JournalPosition, PartitionId};

use super::Node;
use crate::error::NodeError;
use crate::partition::PartitionHandle;
use crate::position::Position;

impl Node {
    /// Waits until the partition of a position has applied its index here. A position of another incarnation names a
    /// history that is gone, and nothing waits for it.
    pub async fn wait_applied(&self, position: &Position) -> Result<(), NodeError> {
        let _pass = self.enter()?;
        self.or_stop(self.applied(position)).await
    }

    /// Waits until what a write caused has been applied by every partition that it concerns.
    pub async fn wait_delivered(&self, position: &Position) -> Result<(), NodeError> {
        let _pass = self.enter()?;
        let partition = self.partition(position.partition)?;
        let Some(journal) = position.journal else { return Ok(()) };
        if partition.incarnation() != position.incarnation {
            return Ok(());
        }
        self.or_stop(partition.wait_progress(|progress| progress.delivered >= journal)).await
    }

    /// Waits until nothing is on its way: a full pass that finds no undelivered event and no pending slice in any
    /// partition, and no new event since the pass before.
    pub async fn wait_drained(&self) -> Result<(), NodeError> {
        let _pass = self.enter()?;
        self.or_stop(async {
            let mut before = Vec::new();
            loop {
                let mut now = Vec::new();
                for partition in self.partitions.iter().flatten() {
                    now.push(drained(partition).await?);
                }
                if now == before {
                    return Ok(());
                }
                before = now;
            }
        })
        .await
    }

    /// Lets every partition apply a tick at the clock's time: what expires by then is hidden everywhere.
    pub async fn pass_time(&self) -> Result<(), NodeError> {
        let _pass = self.enter()?;
        let ticks = self.partitions.iter().flatten().map(|partition| partition.propose(&Command::Tick));
        for tick in futures_util::future::join_all(ticks).await {
            tick?;
        }
        Ok(())
    }

    /// Waits until a read at `reader` sees what `position` names (R17).
    pub(super) async fn wait_for(&self, position: &Position, reader: PartitionId) -> Result<(), NodeError> {
        if position.partition == reader {
            return self.or_stop(self.applied(position)).await;
        }
        let source = self.partition(position.partition)?;
        let Some(journal) = position.journal else { return Ok(()) };
        if source.incarnation() != position.incarnation {
            return Ok(());
        }
        self.or_stop(source.wait_progress(|progress| progress.has_reached(reader, journal))).await
    }

    async fn applied(&self, position: &Position) -> Result<(), NodeError> {
        let partition = self.partition(position.partition)?;
        if partition.incarnation() == position.incarnation {
            partition.wait_applied(position.index).await?;
        }
        Ok(())
    }

    async fn or_stop(&self, wait: impl Future<Output = Result<(), NodeError>>) -> Result<(), NodeError> {
        tokio::select! {
            waited = wait => waited,
            () = self.stopping.cancelled() => Err(NodeError::ShuttingDown),
        }
    }
}

/// Waits until a partition has neither undelivered events nor pending slices, and says where its journal stands.
async fn drained(partition: &PartitionHandle) -> Result<JournalPosition, NodeError> {
    let mut progress = partition.progress().subscribe();
    let mut applied = partition.group().watch_applied();
    let stopped = |_| NodeError::Unavailable { partition: partition.id(), may_have_applied: false };
    loop {
        applied.borrow_and_update();
        let delivered = progress.borrow_and_update().delivered;
        let (next, slices) = partition.read(|state| (state.journal_next(), state.slices_pending()))?;
        if !slices && delivered.0 + 1 >= next.0 {
            return Ok(next);
        }
        tokio::select! {
            changed = progress.changed() => changed.map_err(stopped)?,
            changed = applied.changed() => changed.map_err(stopped)?,
        }
    }
}
