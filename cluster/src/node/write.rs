//! Owns the writes of applications: sessions, and commands that carry a tag.

use fanfold_storage::command::{Command, Outcome, Refusal, Write, WriteTag};
use fanfold_storage::ids::{JournalPosition, PartitionId, SessionId, UserId};

use super::Node;
use crate::error::NodeError;
use crate::partition::PartitionHandle;
use crate::position::{Position, Receipt};

impl Node {
    /// Opens a session with a partition.
    pub async fn open_session(&self, partition: PartitionId) -> Result<SessionId, NodeError> {
        let _pass = self.enter()?;
        match self.partition(partition)?.propose(&Command::OpenSession).await?.1 {
            Outcome::Session { session } => Ok(session),
            outcome => Err(self.unexpected(partition, &outcome)),
        }
    }

    /// Closes a session; an unknown one is fine.
    pub async fn close_session(&self, partition: PartitionId, session: SessionId) -> Result<(), NodeError> {
        let _pass = self.enter()?;
        self.partition(partition)?.propose(&Command::CloseSession { session }).await.map(|_| ())
    }

    /// Writes. Answered when it is durable and applied; a block or unblock when both users' partitions have applied it
    /// (R14).
    pub async fn write(
        &self,
        partition: PartitionId,
        tag: WriteTag,
        write: Write,
    ) -> Result<Receipt, NodeError> {
        let _pass = self.enter()?;
        let home = self.partition(partition)?;
        let concerned = self.blocked_homes(partition, &write);
        let (index, outcome) = home.propose(&Command::Write { tag, write }).await?;
        let (result, journal) = match outcome {
            Outcome::Written { result, journal } => (result, journal),
            outcome => return Err(self.unexpected(partition, &outcome)),
        };
        self.wait_for_block(home, &concerned, index, journal).await?;
        let incarnation = home.incarnation();
        Ok(Receipt { result, position: Position { partition, incarnation, index, journal } })
    }

    /// The other partitions that a block or unblock concerns.
    fn blocked_homes(&self, own: PartitionId, write: &Write) -> Vec<PartitionId> {
        let (Write::Block { targets, .. } | Write::Unblock { targets, .. }) = write else {
            return Vec::new();
        };
        let home = |target: &UserId| self.partition_of(*target);
        let mut homes: Vec<_> = targets.iter().map(home).filter(|home| *home != own).collect();
        homes.sort_unstable();
        homes.dedup();
        homes
    }

    async fn wait_for_block(
        &self,
        home: &PartitionHandle,
        concerned: &[PartitionId],
        index: u64,
        journal: Option<JournalPosition>,
    ) -> Result<(), NodeError> {
        if concerned.is_empty() {
            return Ok(());
        }
        // Without an event of its own it may repeat one that is still on its way, or the stream was dropped and its
        // reset will carry it; in that case the stream is not settled until it did.
        let last = home.read(|state| JournalPosition(state.journal_next().0 - 1))?;
        let position = journal.unwrap_or(last);
        let reached = home.wait_progress(|progress| {
            progress.looked_at >= index && concerned.iter().all(|id| progress.has_reached(*id, position))
        });
        tokio::select! {
            reached = reached => reached,
            () = self.stopping.cancelled() => {
                Err(NodeError::Unavailable { partition: home.id(), may_have_applied: true })
            }
        }
    }

    fn unexpected(&self, partition: PartitionId, outcome: &Outcome) -> NodeError {
        match outcome {
            Outcome::Refused { refusal: Refusal::UnknownSpace } => {
                NodeError::UnknownSpace { known: self.catalog.known_spaces() }
            }
            Outcome::Refused { refusal: Refusal::UnknownGraph } => {
                NodeError::UnknownGraph { known: self.catalog.known_graphs() }
            }
            Outcome::Refused { refusal } => NodeError::Refused { refusal: *refusal },
            _ => NodeError::Unavailable { partition, may_have_applied: true },
        }
    }
}
