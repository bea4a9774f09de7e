//! Owns a partition's state machine as its Raft group sees it.

use bytes::Bytes;
use fanfold_storage::command::{Command, Outcome, decode_batch};
use fanfold_storage::ids::{PartitionId, Stamp};
use fanfold_storage::partition::{Applying, Partition};

use crate::raft::{Machine, RestoreError};

/// What a committed command came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Applied {
    /// It was applied.
    Outcome(Outcome),
    /// The partition is damaged, and nothing is applied any more.
    Damaged,
}

/// A partition's state machine.
#[derive(Debug)]
pub(crate) struct PartitionMachine {
    state: Partition,
    partitions: u16,
    /// The first committed batch that does not decode.
    damaged_at: Option<u64>,
}

impl PartitionMachine {
    /// An empty one, of one of `partitions`.
    pub fn new(id: PartitionId, partitions: u16) -> Self {
        Self { state: Partition::new(id, partitions), partitions, damaged_at: None }
    }

    /// The state, unless it is damaged.
    pub fn state(&self) -> Option<&Partition> {
        self.damaged_at.is_none().then_some(&self.state)
    }

    /// The state, damaged or not: for figures, not for answers.
    pub fn state_as_is(&self) -> &Partition {
        &self.state
    }
}

/// A batch that is being applied.
pub(crate) enum Work<'b> {
    Applying(Applying<'b>),
    /// The partition is damaged; so many commands are answered so.
    Damaged(usize),
}

impl Machine for PartitionMachine {
    type Outcome = Vec<Applied>;
    type Work<'b> = Work<'b>;

    fn begin<'b>(&mut self, index: u64, batch: &'b [u8]) -> Work<'b> {
        if self.damaged_at.is_none() {
            match self.state.begin(index, batch) {
                Ok(applying) => return Work::Applying(applying),
                Err(error) => {
                    self.damaged_at = Some(index);
                    let partition = self.state.id().0;
                    tracing::error!(
                        partition,
                        index,
                        %error,
                        "a committed batch does not decode; the partition refuses service on this node: rebuild it"
                    );
                }
            }
        }
        Work::Damaged(decode_batch(batch).map_or(0, |(_, commands)| commands.len()))
    }

    fn go_on(&mut self, work: &mut Work<'_>) -> bool {
        match work {
            Work::Applying(applying) => self.state.go_on(applying),
            Work::Damaged(_) => false,
        }
    }

    fn finish(work: Work<'_>) -> Self::Outcome {
        match work {
            Work::Applying(applying) => applying.into_outcomes().into_iter().map(Applied::Outcome).collect(),
            Work::Damaged(commands) => vec![Applied::Damaged; commands],
        }
    }

    fn snapshot(&self) -> Bytes {
        self.state.snapshot().into()
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        let restored = Partition::restore(self.state.id(), self.partitions, bytes);
        let refused = |source| RestoreError { bytes: bytes.len() as u64, source: Box::new(source) };
        self.state = restored.map_err(refused)?;
        self.damaged_at = None;
        Ok(())
    }
}

/// The tick, if one is due at this stamp: something expires, or a large fan-out has slices left.
pub(crate) fn background(machine: &PartitionMachine, stamp_ms: u64) -> Option<Bytes> {
    let state = machine.state()?;
    let is_due = state.next_due().is_some_and(|due| due <= Stamp(stamp_ms));
    (is_due || state.slices_pending()).then(|| Command::Tick.to_bytes())
}

#[cfg(test)]
mod tests {
    use fanfold_storage::command::encode_batch;

    use super::*;

    #[test]
    fn a_committed_batch_that_does_not_decode_stops_service() {
        let mut machine = PartitionMachine::new(PartitionId(0), 1);
        let batch = encode_batch(Stamp(5), &[Command::OpenSession.to_bytes()]);
        assert!(matches!(machine.apply(1, &batch)[..], [Applied::Outcome(Outcome::Session { .. })]));
        assert_eq!(machine.apply(2, b"nonsense"), Vec::new());
        assert!(machine.state().is_none());
        assert_eq!(machine.apply(3, &batch), vec![Applied::Damaged]);
    }

    #[test]
    fn nothing_is_due_in_an_empty_partition() {
        let machine = PartitionMachine::new(PartitionId(0), 1);
        assert_eq!(background(&machine, u64::MAX), None);
    }
}
