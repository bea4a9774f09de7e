//! Owns the proposing of batches to a group.
//!
//! - A proposal names the leadership it was made under, so that a leader that lost it in between is fenced.
//! - Raft answers a proposal only when its entry is applied or gone from the log, which may never be at a leader that was
//!   deposed or cut off. So the wait ends with the leadership, or when no quorum was heard, or had room, for
//!   [`QUIET_ELECTIONS`]; what came of the proposal is unknown then.
//! - What is proposed has its room in the log. While there is none here, or at a quorum, nothing is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fanfold_storage::log::Room;
use openraft::RaftMetrics;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::ClientWriteError;
use openraft::impls::ProgressResponder;
use openraft::raft::ClientWriteResult;
use openraft::type_config::alias::{InstantOf, WatchReceiverOf};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::error::ProposeError;
use super::group::{Group, Inner, Leadership, leader_hint};
use super::machine::Machine;
use super::types::{Batch, Types};

/// The most bytes of a batch. It must fit into a segment of the log.
pub const BATCH_BYTES_MAX: usize = 4 << 20;

/// For how many of the longest election times a leader may hear no quorum before what it proposed counts as lost: by then
/// the others have elected another, unless nobody can reach anybody.
const QUIET_ELECTIONS: u32 = 2;

/// How often in such a time the leader is looked at. What counts is how often nothing was heard, so that a process that
/// was held up hears its peers before it gives up.
const LOOKS_PER_ELECTION: u32 = 2;

/// A batch that was committed and applied here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposed<O> {
    /// The index of its Raft entry.
    pub index: u64,
    /// What the machine answered.
    pub outcome: O,
}

impl<M: Machine> Group<M> {
    /// Proposes a batch and waits until it is applied here.
    pub async fn propose(&self, batch: Batch) -> Result<Proposed<M::Outcome>, ProposeError> {
        self.submit(batch).await?.wait().await
    }

    /// Hands a batch to Raft. Batches stand in the log in the order in which this was called.
    pub async fn submit(&self, batch: Batch) -> Result<InFlight<M::Outcome>, ProposeError> {
        let batch_bytes = batch.0.len();
        if batch_bytes > BATCH_BYTES_MAX {
            let (bytes, limit_bytes) = (batch_bytes as u64, BATCH_BYTES_MAX as u64);
            return Err(ProposeError::TooLarge { bytes, limit_bytes });
        }
        // Before Raft sees it: inside Raft there is no way to refuse a single write.
        let room = self.inner.log.promise_room(batch_bytes as u64);
        let room =
            room.filter(|_| self.inner.has_room.load(Ordering::Relaxed)).ok_or(ProposeError::DiskFull)?;
        let _pass = self.inner.hand_over.pass().await;
        self.inner.stir().await;
        self.inner.confirmed().await;
        let leader = self.inner.raft.as_leader();
        let leader = leader.map_err(|forward| ProposeError::NotLeader { hint: leader_hint(forward) })?;
        let (responder, answer) = ProgressResponder::complete_only();
        let leader = leader.to_committed_leader_id();
        let reign = Reign {
            term: leader.term,
            leadership: self.watch_leadership(),
            metrics: self.inner.raft.metrics(),
            election: Duration::from_millis(self.inner.settings.election_max_ms),
            has_room: self.inner.has_room.clone(),
        };
        let write = self.inner.raft.write(batch).with_leader(leader);
        write.responder(responder).await.map_err(|_| ProposeError::Stopped { proposed: false })?;
        Ok(InFlight { answer, reign, _room: room, _outcome: std::marker::PhantomData })
    }
}

impl<M: Machine> Inner<M> {
    /// Waits until a quorum has answered a leader that has just been elected: Raft refuses what is proposed before.
    async fn confirmed(&self) {
        let mut metrics = self.raft.metrics();
        if !is_new_leader(&metrics) {
            return;
        }
        let confirmed = async { while is_new_leader(&metrics) && metrics.changed().await.is_ok() {} };
        // Without a quorum Raft refuses what is proposed, as it should.
        let _ = timeout(Duration::from_millis(self.settings.election_max_ms), confirmed).await;
    }
}

/// Whether a replica leads, with others, and no quorum of them has answered it yet.
fn is_new_leader(metrics: &WatchReceiverOf<Types, RaftMetrics<Types>>) -> bool {
    let leads = {
        let now = metrics.borrow_watched();
        now.state.is_leader() && now.last_quorum_acked.is_none()
    };
    leads && heard(metrics) != Heard::Alone
}

/// The leadership that a batch was proposed under.
pub(super) struct Reign {
    term: u64,
    leadership: Leadership,
    metrics: WatchReceiverOf<Types, RaftMetrics<Types>>,
    /// The longest time until an election.
    pub election: Duration,
    /// Whether a quorum has room.
    has_room: Arc<AtomicBool>,
}

impl Reign {
    /// Waits until it is over; for ever, if Raft stops before.
    async fn over(&mut self) {
        while !self.leadership.is_past(self.term) {
            if !self.leadership.changed().await {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits until no quorum has been heard for so long that others may lead, or none could write it down.
    async fn cut_off(
        metrics: &WatchReceiverOf<Types, RaftMetrics<Types>>,
        has_room: &AtomicBool,
        election: Duration,
    ) {
        let (mut last, mut quiet) = (heard(metrics), 0);
        while quiet < QUIET_ELECTIONS * LOOKS_PER_ELECTION {
            tokio::time::sleep(election / LOOKS_PER_ELECTION).await;
            let now = heard(metrics);
            let is_quiet = now == last && now != Heard::Alone || !has_room.load(Ordering::Relaxed);
            quiet = if is_quiet { quiet + 1 } else { 0 };
            last = now;
        }
    }

    /// Waits until nothing more can be expected of it.
    async fn ended(&mut self) {
        let (metrics, has_room, election) = (self.metrics.clone(), self.has_room.clone(), self.election);
        tokio::select! {
            () = self.over() => {}
            () = Self::cut_off(&metrics, &has_room, election) => {}
        }
    }
}

/// What a leader heard of its quorum.
#[derive(PartialEq)]
enum Heard {
    /// Nobody else votes.
    Alone,
    /// When the last message was sent that a quorum answered; none before the first.
    Quorum(Option<InstantOf<Types>>),
}

fn heard(metrics: &WatchReceiverOf<Types, RaftMetrics<Types>>) -> Heard {
    let now = metrics.borrow_watched();
    if now.membership_config.voter_ids().eq([now.id]) {
        return Heard::Alone;
    }
    Heard::Quorum(now.last_quorum_acked.map(openraft::metrics::SerdeInstant::into_inner))
}

/// A batch that was handed to Raft.
pub struct InFlight<O> {
    answer: oneshot::Receiver<ClientWriteResult<Types>>,
    pub(super) reign: Reign,
    _room: Room,
    _outcome: std::marker::PhantomData<fn() -> O>,
}

impl<O: 'static> InFlight<O> {
    /// Waits until the batch is applied here, or nobody can say any longer whether it will be. Dropping the future does
    /// not take the batch back.
    pub async fn wait(self) -> Result<Proposed<O>, ProposeError> {
        let Self { answer, mut reign, _room, .. } = self;
        let answer = tokio::select! {
            biased;
            answer = answer => answer.map_err(|_| ProposeError::Stopped { proposed: true })?,
            () = reign.ended() => return Err(ProposeError::Lost { hint: None }),
        };
        match answer {
            Ok(response) => {
                let outcome = response.data.into_outcome();
                let outcome =
                    outcome.expect("a batch is answered by its own machine, with its own outcome type");
                Ok(Proposed { index: response.log_id.index, outcome })
            }
            Err(ClientWriteError::ForwardToLeader(forward)) => {
                Err(ProposeError::NotLeader { hint: leader_hint(forward) })
            }
            Err(ClientWriteError::LogEntryDiscarded(forward)) => {
                Err(ProposeError::Lost { hint: leader_hint(forward) })
            }
            // Not for a batch; if it ever is, nothing is claimed about it.
            Err(ClientWriteError::ChangeMembershipError(_) | ClientWriteError::PreconditionFailed(_)) => {
                Err(ProposeError::Lost { hint: None })
            }
        }
    }
}
