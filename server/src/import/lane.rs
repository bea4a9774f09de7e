//! Owns the sending of an import's writes to one partition: one at a time, in order, each under its number.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fanfold_client::{Error, Field, ImportLane, ImportOp, PartitionId, Status};
use fanfold_protocol::message::{AppendOutcome, WriteResult, Written};
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
    pub(super) sequence: u64,
    /// With the partition's incarnation, unless nothing of the write was sent.
    pub(super) result: Result<(Option<u64>, WriteResult), Error>,
}

/// Sends a partition's writes.
pub(super) struct Sender {
    pub(super) partition: PartitionId,
    pub(super) lane: ImportLane,
    /// Below it everything is answered, and the state file says so.
    pub(super) answered: Arc<AtomicU64>,
    /// The lanes with which it goes on when the session of the one before was forgotten.
    pub(super) renewals: mpsc::UnboundedReceiver<ImportLane>,
}

/// Whether a write was refused because its session is forgotten: true if this process had sent it no more than that once.
pub(super) fn forgotten(error: &Error) -> Option<bool> {
    match error {
        Error::Refused { status: Status::UnknownSession, .. } => Some(true),
        Error::SessionForgotten { .. } => Some(false),
        _ => None,
    }
}

impl Sender {
    /// Sends writes until there are no more, or one fails. One that finds its session forgotten is answered so, and waits for a
    /// lane under whose session it is sent again.
    pub(super) async fn run(
        mut self,
        mut jobs: mpsc::UnboundedReceiver<Job>,
        answers: mpsc::UnboundedSender<Answer>,
    ) {
        let partition = self.partition;
        while let Some(Job { place, sequence, mut op }) = jobs.recv().await {
            let mut refused = Refused::default();
            let mut is_sent = false;
            while !is_sent {
                let result = self.send(sequence, &mut op, &mut refused).await;
                is_sent = result.is_ok();
                let is_forgotten = result.as_ref().is_err_and(|error| forgotten(error).is_some());
                if answers.send(Answer { place, partition, sequence, result }).is_err() {
                    return;
                }
                if is_forgotten {
                    let Some(lane) = self.renewals.recv().await else { return };
                    self.lane = lane;
                } else if !is_sent {
                    return;
                }
            }
        }
    }

    /// Sends a write. Entries that no frame holds are left out and answered as refused.
    async fn send(
        &self,
        sequence: u64,
        op: &mut ImportOp,
        refused: &mut Refused,
    ) -> Result<(Option<u64>, WriteResult), Error> {
        loop {
            let lowest = self.answered.load(Ordering::Relaxed).min(sequence);
            match self.lane.write(sequence, lowest, op.clone()).await {
                Err(Error::RequestTooLarge { limit, .. }) if refused.take_from(op, limit) => {
                    if matches!(&op, ImportOp::Entries(entries) if entries.is_empty()) {
                        return Ok((None, refused.put_into(WriteResult::Appended(Vec::new()))));
                    }
                }
                result => {
                    let Written { token, result } = result?;
                    return Ok((Some(token.incarnation), refused.put_into(result)));
                }
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
    fn put_into(&mut self, result: WriteResult) -> WriteResult {
        let WriteResult::Appended(mut outcomes) = result else { return result };
        for place in self.places.drain(..) {
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
