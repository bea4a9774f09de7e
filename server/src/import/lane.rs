//! Owns the sending of an import's writes to one partition: one at a time, in order, each under its number.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fanfold_client::{Client, Error, ImportLane, ImportOp, PartitionId, Status};
use fanfold_protocol::message::Written;
use tokio::sync::mpsc;

/// A write to be sent.
pub(super) struct Job {
    /// Of which block, and which of its writes.
    pub(super) place: (u64, usize),
    pub(super) sequence: u64,
    pub(super) op: ImportOp,
}

/// What came of a write.
pub(super) struct Answer {
    pub(super) place: (u64, usize),
    pub(super) partition: PartitionId,
    pub(super) result: Result<Written, Error>,
    /// The session it was sent under.
    pub(super) session: u64,
}

/// Sends a partition's writes.
pub(super) struct Sender {
    pub(super) client: Client,
    pub(super) partition: PartitionId,
    pub(super) lane: ImportLane,
    /// Below it everything is answered, and the state file says so.
    pub(super) answered: Arc<AtomicU64>,
    /// Whether a write may be sent anew when the session is forgotten: it may have had its effect before.
    pub(super) may_repeat: bool,
}

impl Sender {
    /// Sends writes until there are no more, or one fails.
    pub(super) async fn run(
        mut self,
        mut jobs: mpsc::UnboundedReceiver<Job>,
        answers: mpsc::UnboundedSender<Answer>,
    ) {
        while let Some(Job { place, sequence, op }) = jobs.recv().await {
            let result = self.send(sequence, op).await;
            let failed = result.is_err();
            let (partition, session) = (self.partition, self.lane.session().0);
            if answers.send(Answer { place, partition, result, session }).is_err() || failed {
                return;
            }
        }
    }

    async fn send(&mut self, sequence: u64, op: ImportOp) -> Result<Written, Error> {
        loop {
            let lowest = self.answered.load(Ordering::Relaxed).min(sequence);
            match self.lane.write(sequence, lowest, op.clone()).await {
                Err(error) if self.may_repeat && matches!(error.status(), Some(Status::UnknownSession)) => {
                    self.lane = self.client.import_lane(self.partition, None).await?;
                }
                result => return result,
            }
        }
    }
}
