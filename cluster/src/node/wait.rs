//! Owns the waits: for an index, for a delivery, and for the fan-out to drain.

use fanfold_storage::ids::PartitionId;

use super::Node;
use crate::error::NodeError;
use crate::partition::PartitionHandle;
use crate::position::Position;
use crate::read::{Question, Reply};

impl Node {
    /// Waits until the partition of a position has applied its index, here if it is here. A position of an earlier
    /// incarnation names a history that is gone, and nothing waits for it.
    pub async fn wait_applied(&self, position: &Position) -> Result<(), NodeError> {
        let _pass = self.enter()?;
        self.or_stop(self.applied(position)).await
    }

    /// Waits until what a write caused has been applied by every partition that it concerns.
    pub async fn wait_delivered(&self, position: &Position) -> Result<(), NodeError> {
        let _pass = self.enter()?;
        self.or_stop(self.reached(position, None)).await
    }

    /// Waits until nothing is on its way: a full pass that finds no undelivered event and no pending slice in any
    /// partition, and no new event since the pass before.
    pub async fn wait_drained(&self) -> Result<(), NodeError> {
        let _pass = self.enter()?;
        self.or_stop(async {
            let mut before = Vec::new();
            loop {
                let now = self.asker().wait_everywhere(&Question::Drained).await?;
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
        self.asker().wait_everywhere(&Question::Tick).await.map(|_| ())
    }

    /// Waits until a read at `reader` sees what `position` names (R17).
    pub(super) async fn wait_for(&self, position: &Position, reader: PartitionId) -> Result<(), NodeError> {
        if position.partition == reader {
            return self.or_stop(self.applied(position)).await;
        }
        self.or_stop(self.reached(position, Some(reader))).await
    }

    /// Waits until a replica here, whoever leads, has what `position` names. Of another partition its own leader
    /// knows when that has arrived, and at which index.
    pub(super) async fn wait_at_replica(
        &self,
        position: &Position,
        here: &PartitionHandle,
    ) -> Result<(), NodeError> {
        let partition = here.id();
        if position.partition == partition {
            return here.wait_position(position.incarnation, position.index).await;
        }
        self.reached(position, Some(partition)).await?;
        match self.asker().wait(partition, Question::Index).await? {
            Reply::Index { index } => here.wait_applied(index).await,
            _ => Err(NodeError::Unavailable { partition, may_have_applied: false }),
        }
    }

    async fn applied(&self, position: &Position) -> Result<(), NodeError> {
        let Position { partition, incarnation, index, .. } = *position;
        if let Ok(here) = self.partition(partition) {
            return here.wait_position(incarnation, index).await;
        }
        self.asker().wait(partition, Question::Applied { incarnation, index }).await.map(|_| ())
    }

    async fn reached(&self, position: &Position, destination: Option<PartitionId>) -> Result<(), NodeError> {
        let Some(journal) = position.journal else { return Ok(()) };
        let Position { partition, incarnation, .. } = *position;
        let question = Question::Reached { incarnation, position: journal, destination };
        self.asker().wait(partition, question).await.map(|_| ())
    }

    async fn or_stop(&self, wait: impl Future<Output = Result<(), NodeError>>) -> Result<(), NodeError> {
        tokio::select! {
            waited = wait => waited,
            () = self.stopping.cancelled() => Err(NodeError::ShuttingDown),
        }
    }
}
