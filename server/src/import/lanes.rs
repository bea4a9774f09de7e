//! Owns what a run knows of each partition's writes: their numbers, their session, and whether any may have been sent without being
//! noted as answered.
//!
//! - A session that was forgotten is succeeded by another one only if no write behind the state file's position may have had its
//!   effect under it: what is sent under the new one cannot have been sent before. So the first write that is refused waits until all
//!   blocks before its own are noted, and the state file has the new session before that write is sent under it.
//! - What this run sent it knows. Of what an earlier one sent, only the lanes that the state file calls open have anything, and only
//!   in the first [`BLOCKS_UNCERTAIN`] blocks.
//! - Who repeats what is uncertain is spared the question, and nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fanfold_client::{Client, Error, ImportLane, PartitionId, SessionId};
use futures_util::future::try_join_all;
use tokio::sync::mpsc;

use super::lane::{Answer, Job, Sender};
use super::run::BLOCKS_UNCERTAIN;
use super::state::LaneState;

/// Blocks without a write to a lane after which the state file says that nothing of it is open. More than are in flight; many
/// more, because the state file is written before the next write then.
pub(super) const QUIET_BLOCKS: u64 = 1_024;

/// The lanes of a run, by partition.
#[derive(Default)]
pub(super) struct Lanes {
    all: Vec<Lane>,
    /// Whether a write may be sent anew that may have had its effect before.
    may_repeat: bool,
}

struct Lane {
    jobs: mpsc::UnboundedSender<Job>,
    renewed: mpsc::UnboundedSender<ImportLane>,
    /// Below it everything is answered, and the state file says so.
    answered: Arc<AtomicU64>,
    /// The number of the next write.
    next: u64,
    /// The last block with a write to it.
    last_block: Option<u64>,
    /// Of blocks before this one an earlier run may have sent the writes.
    uncertain_before: u64,
    forgotten: Option<Forgotten>,
}

/// A write that was refused because the session is forgotten, and has had no effect.
#[derive(Clone, Copy)]
struct Forgotten {
    block: u64,
    sequence: u64,
}

impl Lanes {
    /// Begins to send under the sessions of the state file.
    pub(super) async fn start(
        client: &Client,
        states: &[LaneState],
        may_repeat: bool,
        answers: &mpsc::UnboundedSender<Answer>,
    ) -> Result<Self, Error> {
        let mut all = Vec::new();
        for (n, state) in states.iter().enumerate() {
            let partition = PartitionId(n as u16);
            let lane = client.import_lane(partition, Some(SessionId(state.session))).await?;
            let answered = Arc::new(AtomicU64::new(state.next));
            let (renewed, renewals) = mpsc::unbounded_channel();
            let sender = Sender { partition, lane, answered: answered.clone(), renewals };
            let (jobs, received) = mpsc::unbounded_channel();
            tokio::spawn(sender.run(received, answers.clone()));
            all.push(Lane {
                jobs,
                renewed,
                answered,
                next: state.next,
                last_block: None,
                uncertain_before: if state.is_open { BLOCKS_UNCERTAIN } else { 0 },
                forgotten: None,
            });
        }
        Ok(Self { all, may_repeat })
    }

    /// A block is about to bring a write.
    pub(super) fn open(&mut self, partition: PartitionId, block: u64) {
        self.of(partition).last_block = Some(block);
    }

    /// The number of the next write.
    pub(super) fn number(&mut self, partition: PartitionId) -> u64 {
        let lane = self.of(partition);
        lane.next += 1;
        lane.next - 1
    }

    /// Hands over a write, to be sent behind those before.
    pub(super) fn send(&mut self, partition: PartitionId, job: Job) {
        // A lane that is gone has sent its failure before.
        let _ = self.of(partition).jobs.send(job);
    }

    /// Notes what the state file says, whose position is before the block `first`.
    pub(super) fn noted(&self, states: &[LaneState]) {
        for (lane, state) in self.all.iter().zip(states) {
            lane.answered.store(state.next, Ordering::Relaxed);
        }
    }

    /// Whether anything of a lane from the block `first` on, where its next write is number `next`, may have been sent, or is about
    /// to be.
    pub(super) fn is_open(&self, partition: PartitionId, first: u64, next: u64) -> bool {
        let lane = &self.all[usize::from(partition.0)];
        let is_open_here = match lane.forgotten {
            Some(refused) => next < refused.sequence,
            None => lane.last_block.is_some_and(|block| block + QUIET_BLOCKS >= first),
        };
        is_open_here || first < lane.uncertain_before
    }

    /// A write was refused because the session is forgotten; `is_certain` if this run has sent it once. Whether it may be sent
    /// under another session; it waits for that then.
    pub(super) fn forgotten(
        &mut self,
        partition: PartitionId,
        block: u64,
        sequence: u64,
        is_certain: bool,
    ) -> bool {
        let may_repeat = self.may_repeat;
        let lane = self.of(partition);
        let may_renew = may_repeat || (is_certain && block >= lane.uncertain_before);
        lane.forgotten = may_renew.then_some(Forgotten { block, sequence });
        may_renew
    }

    /// The partitions of the block `first`, before which everything is done, that wait for another session.
    pub(super) fn due(&self, first: u64) -> Vec<PartitionId> {
        let is_due = |lane: &Lane| lane.forgotten.is_some_and(|refused| refused.block == first);
        let places = self.all.iter().enumerate().filter(|(_, lane)| is_due(lane));
        places.map(|(n, _)| PartitionId(n as u16)).collect()
    }

    /// They go on under the sessions that were opened for them and that the state file has.
    pub(super) fn renew(&mut self, renewed: Vec<(PartitionId, ImportLane)>) {
        for (partition, lane) in renewed {
            // As in `send`.
            let _ = self.of(partition).renewed.send(lane);
        }
    }

    /// Their next writes count as sent from now on.
    pub(super) fn reopen(&mut self, partitions: &[PartitionId]) {
        for partition in partitions {
            self.of(*partition).forgotten = None;
        }
    }

    fn of(&mut self, partition: PartitionId) -> &mut Lane {
        &mut self.all[usize::from(partition.0)]
    }
}

/// Opens a session with each of these partitions.
pub(super) async fn open_sessions(
    client: &Client,
    partitions: &[PartitionId],
) -> Result<Vec<(PartitionId, ImportLane)>, Error> {
    let open = |partition: &PartitionId| {
        let partition = *partition;
        async move { Ok((partition, client.import_lane(partition, None).await?)) }
    };
    try_join_all(partitions.iter().map(open)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    const LANE: PartitionId = PartitionId(0);

    /// One lane, of which an earlier run may have sent something or not, and sent writes 5, 6 and 7 in blocks 100, 101 and 103.
    fn sent(is_resumed: bool, may_repeat: bool) -> Lanes {
        let uncertain_before = if is_resumed { BLOCKS_UNCERTAIN + 36 } else { 0 };
        let lane = Lane {
            jobs: mpsc::unbounded_channel().0,
            renewed: mpsc::unbounded_channel().0,
            answered: Arc::default(),
            next: 5,
            last_block: None,
            uncertain_before,
            forgotten: None,
        };
        let mut lanes = Lanes { all: vec![lane], may_repeat };
        for (block, sequence) in [(100, 5), (101, 6), (103, 7)] {
            lanes.open(LANE, block);
            assert_eq!(lanes.number(LANE), sequence);
        }
        lanes
    }

    #[test]
    fn a_refused_write_waits_until_all_before_it_is_noted() {
        let mut lanes = sent(false, false);
        // The two before were answered, and some other write of block 100 was not.
        assert!(lanes.forgotten(LANE, 103, 7, true));
        for (first, next) in [(100, 5), (101, 6)] {
            assert!(lanes.due(first).is_empty() && lanes.is_open(LANE, first, next), "block {first}");
        }
        assert!(lanes.due(102).is_empty());
        assert_eq!(lanes.due(103), [LANE]);
        assert!(!lanes.is_open(LANE, 103, 7), "nothing was sent that is not noted");
        lanes.reopen(&[LANE]);
        assert!(lanes.is_open(LANE, 103, 7) && lanes.due(103).is_empty());
    }

    #[test]
    fn only_what_was_certainly_never_sent_before_gets_another_session() {
        // (resumed, repeats, block, sent once by this run)
        let may = |(is_resumed, may_repeat, block, is_certain)| {
            sent(is_resumed, may_repeat).forgotten(LANE, block, 7, is_certain)
        };
        assert!(may((false, false, 103, true)) && !may((false, false, 103, false)));
        assert!(!may((true, false, 103, true)) && may((true, false, 104, true)));
        assert!(may((true, true, 103, true)) && may((false, true, 103, false)));
    }

    #[test]
    fn a_lane_is_open_until_it_was_quiet_for_long() {
        let lanes = sent(false, false);
        assert!(lanes.is_open(LANE, 100, 5) && lanes.is_open(LANE, 103 + QUIET_BLOCKS, 8));
        assert!(!lanes.is_open(LANE, 104 + QUIET_BLOCKS, 8));
        assert!(sent(true, false).is_open(LANE, 0, 5));
    }
}
