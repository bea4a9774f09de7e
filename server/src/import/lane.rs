//! Owns the sending of an import's writes to one partition: one at a time, in order, each under its number.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fanfold_client::{Client, Error, Field, ImportLane, ImportOp, PartitionId, Status};
use fanfold_protocol::message::{AppendOutcome, WriteResult};
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
    pub(super) result: Result<WriteResult, Error>,
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

    /// Sends a write. Entries that no frame holds are left out and answered as refused.
    async fn send(&mut self, sequence: u64, mut op: ImportOp) -> Result<WriteResult, Error> {
        let mut refused = Refused::default();
        loop {
            let lowest = self.answered.load(Ordering::Relaxed).min(sequence);
            match self.lane.write(sequence, lowest, op.clone()).await {
                Err(error) if self.may_repeat && matches!(error.status(), Some(Status::UnknownSession)) => {
                    self.lane = self.client.import_lane(self.partition, None).await?;
                }
                Err(Error::RequestTooLarge { limit, .. }) if refused.take_from(&mut op, limit) => {
                    if matches!(&op, ImportOp::Entries(entries) if entries.is_empty()) {
                        return Ok(refused.put_into(WriteResult::Appended(Vec::new())));
                    }
                }
                result => return Ok(refused.put_into(result?.result)),
            }
        }
    }
}

/// What of a frame is not the payload of the one entry in it, at most.
const FRAME_REST_BYTES: u64 = 512;

/// Entries that were taken out of a write, since a frame does not hold them.
#[derive(Default)]
struct Refused {
    /// Their places in the write, ascending.
    places: Vec<usize>,
    limit: u64,
}

impl Refused {
    /// Takes them out of a write; whether there were any.
    fn take_from(&mut self, op: &mut ImportOp, frame_bytes_max: u64) -> bool {
        let ImportOp::Entries(entries) = op else { return false };
        self.limit = frame_bytes_max.saturating_sub(FRAME_REST_BYTES);
        let mut place = 0;
        let before = self.places.len();
        entries.retain(|entry| {
            let fits = entry.payload.len() as u64 <= self.limit;
            self.places.extend((!fits).then_some(place));
            place += 1;
            fits
        });
        self.places.len() > before
    }

    /// Puts them back into the result of what was left of the write.
    fn put_into(self, result: WriteResult) -> WriteResult {
        let WriteResult::Appended(mut outcomes) = result else { return result };
        for place in self.places {
            let status = Status::TooLarge { field: Field::Payload, limit: self.limit };
            outcomes.insert(place.min(outcomes.len()), AppendOutcome::Refused(status));
        }
        WriteResult::Appended(outcomes)
    }
}

#[cfg(test)]
mod tests {
    use fanfold_client::{Audience, EntryId, Stamp, UserId};
    use fanfold_protocol::SpaceId;
    use fanfold_protocol::message::{ImportEntry, ImportExpiry, ImportPlace};

    use super::*;

    fn entry(bytes: usize) -> ImportEntry {
        ImportEntry {
            space: SpaceId(1),
            owner: UserId(1),
            place: ImportPlace::Time(Stamp(1)),
            author: None,
            audience: Audience::Public,
            expiry: ImportExpiry::Never,
            version: 1,
            key: None,
            reference: None,
            payload: vec![0; bytes].into(),
        }
    }

    #[test]
    fn what_no_frame_holds_is_refused_in_its_place() {
        let mut op = ImportOp::Entries([9_000, 10, 9_000, 20, 9_000].map(entry).to_vec());
        let mut refused = Refused::default();
        assert!(refused.take_from(&mut op, 8_192) && !refused.take_from(&mut op, 8_192));
        assert!(matches!(&op, ImportOp::Entries(left) if left.len() == 2));
        let made = |id| AppendOutcome::Ok { id: EntryId(id), duplicate: false };
        let WriteResult::Appended(outcomes) = refused.put_into(WriteResult::Appended(vec![made(1), made(2)]))
        else {
            panic!("what was appended")
        };
        let is_refused: Vec<_> = outcomes.iter().map(|o| matches!(o, AppendOutcome::Refused(_))).collect();
        assert_eq!(is_refused, [true, false, true, false, true]);
        assert_eq!((outcomes[1].clone(), outcomes[3].clone()), (made(1), made(2)));
    }
}
