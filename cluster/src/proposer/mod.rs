//! Owns the proposer of a group: it gathers waiting commands into Raft entries and hands their outcomes back.
//!
//! - A batch has at most [`BATCH_COMMANDS_MAX`] commands, and no further one once it has [`GATHER_BYTES_MAX`] bytes;
//!   it has one stamp, and stamps are in the order of the batches.
//! - At most [`IN_FLIGHT_MAX`] batches wait to be applied, and a batch does not join another in flight unless it is worth
//!   an fsync of its own ([`JOIN_COMMANDS_MIN`]); meanwhile commands gather.
//! - What waits is bounded in number and bytes; above that the answer is [`ProposeError::Busy`].
//! - While the clock is not to be believed (R2) nothing is proposed; who waits is told [`ProposeError::Busy`].
//! - At most one batch with background work is in flight: what is due is noted when the last one is applied.

mod answer;
mod queue;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::oneshot;
use tokio::time::Instant;

pub use answer::{AnswerSink, CommandResult};
use answer::{AnswerTo, Delivery};
use queue::Queue;

use crate::clock::StampSource;
use crate::phases::{Phases, RequestPhase};
use crate::raft::{Batch, Group, Machine, ProposeError, Proposed};

/// The most commands of one batch, background work not counted.
pub const BATCH_COMMANDS_MAX: usize = 1024;

/// A batch that has this many bytes of commands takes no further one.
pub const GATHER_BYTES_MAX: usize = 256 << 10;

/// The most bytes of one command.
pub const COMMAND_BYTES_MAX: usize = 2 << 20;

/// The most batches that wait to be applied: one is written, one is synced, one is applied, and one is on its way.
pub const IN_FLIGHT_MAX: usize = 4;

/// While a batch is in flight, so many commands ([or bytes](JOIN_BYTES_MIN)) make the next one, and twice as many for each
/// further one: below, each post would cost a round through the log of its own.
pub const JOIN_COMMANDS_MIN: usize = 128;

/// While a batch is in flight, so many bytes make the next one.
pub const JOIN_BYTES_MIN: usize = 64 << 10;

/// The most commands that wait to be gathered.
pub const QUEUE_COMMANDS_MAX: usize = 16 << 10;

/// The most bytes of commands that wait to be gathered; a single command is taken into an empty queue always.
pub const QUEUE_BYTES_MAX: usize = 16 << 20;

/// What a refused caller is told to wait: about the time in which a full queue drains by half.
pub const BUSY_DELAY_MS: u64 = 20;

/// What a caller is told to wait while the clock is off: somebody else may lead by then.
pub const CLOCK_DELAY_MS: u64 = 500;

/// Makes the bytes of a batch.
pub trait BatchEncoder: Send + Sync + 'static {
    /// Encodes the commands of a batch, in order, with its stamp in milliseconds of log time.
    fn encode(&self, stamp_ms: u64, commands: &[Bytes]) -> Bytes;
}

impl<F: Fn(u64, &[Bytes]) -> Bytes + Send + Sync + 'static> BatchEncoder for F {
    fn encode(&self, stamp_ms: u64, commands: &[Bytes]) -> Bytes {
        self(stamp_ms, commands)
    }
}

/// The commands of the background work that is due at the stamp of the next batch. Nobody waits for their outcomes. Runs before a
/// batch is made, and must not wait for anything.
pub type Background = Box<dyn FnMut(u64) -> Vec<Bytes> + Send>;

/// A handle to the proposer of one group. Clones share it; it ends when the last one is dropped.
#[derive(Debug)]
pub struct Proposer<O> {
    handle: Arc<Handle<O>>,
}

impl<O> Clone for Proposer<O> {
    fn clone(&self) -> Self {
        Self { handle: self.handle.clone() }
    }
}

/// Closes the queue when the last handle goes.
#[derive(Debug)]
struct Handle<O> {
    queue: Arc<Queue<O>>,
}

impl<O> Drop for Handle<O> {
    fn drop(&mut self) {
        self.queue.lock().is_closed = true;
        self.queue.arrived.notify_one();
    }
}

/// The outcome of a command, once it is applied. Dropping it does not take the command back.
#[derive(Debug)]
pub struct Answer<O>(oneshot::Receiver<CommandResult<O>>);

impl<O> Answer<O> {
    /// Waits until the command is applied.
    pub async fn wait(self) -> CommandResult<O> {
        self.0.await.unwrap_or(Err(ProposeError::Stopped { proposed: true }))
    }
}

impl<O: Send + Sync + 'static> Proposer<O> {
    /// Starts the proposer of a group.
    pub fn spawn<M: Machine<Outcome = Vec<O>>>(
        group: Group<M>,
        encoder: impl BatchEncoder,
        stamps: impl StampSource,
        background: Background,
    ) -> Self {
        let queue = Arc::new(Queue::new());
        let task = Task {
            group,
            encoder: Box::new(encoder),
            stamps: Box::new(stamps),
            background,
            queue: queue.clone(),
            in_flight: FuturesUnordered::new(),
            background_in_flight: false,
            kicked: false,
        };
        tokio::spawn(task.run());
        Self { handle: Arc::new(Handle { queue }) }
    }

    /// Queues an encoded command, without waiting.
    pub fn submit(&self, command: Bytes) -> Result<Answer<O>, ProposeError> {
        let (answer, receiver) = oneshot::channel();
        let queue = &self.handle.queue;
        queue.lock().push(command, AnswerTo::One(answer), Instant::now()).map_err(|(_, error)| error)?;
        queue.arrived.notify_one();
        Ok(Answer(receiver))
    }

    /// Queues encoded commands with their numbers, in order and under one lock, without waiting. The sink hears of
    /// every one of them, of those that are refused before this returns.
    pub fn submit_all(
        &self,
        commands: impl IntoIterator<Item = (u64, Bytes)>,
        sink: &Arc<dyn AnswerSink<O>>,
    ) {
        let queue = &self.handle.queue;
        let mut refused = Delivery::new();
        let mut failed = Vec::new();
        let came = Instant::now();
        {
            let mut waiting = queue.lock();
            for (number, command) in commands {
                let answer = AnswerTo::sink(sink.clone(), number);
                failed.extend(waiting.push(command, answer, came).err());
            }
        }
        queue.arrived.notify_one();
        for (answer, error) in failed {
            refused.put(answer, Err(error));
        }
    }

    /// Queues an encoded command and waits until it is applied.
    pub async fn propose(&self, command: Bytes) -> CommandResult<O> {
        self.submit(command)?.wait().await
    }

    /// Notes how long batches take from now on.
    pub fn measure(&self, phases: Arc<Phases>) {
        let _ = self.handle.queue.phases.set(phases);
    }

    /// Commands that wait for a batch.
    pub fn waiting(&self) -> usize {
        self.handle.queue.lock().commands.len()
    }

    /// Asks for background work now, even if no command waits. Kicks that come before it is asked for are one.
    pub fn kick(&self) {
        self.handle.queue.kick.notify_one();
    }
}

/// The one task of a proposer.
struct Task<M: Machine, O: Send + Sync + 'static> {
    group: Group<M>,
    encoder: Box<dyn BatchEncoder>,
    stamps: Box<dyn StampSource>,
    background: Background,
    queue: Arc<Queue<O>>,
    in_flight: FuturesUnordered<BoxFuture<'static, Finished<O>>>,
    background_in_flight: bool,
    kicked: bool,
}

/// A batch that was answered.
struct Finished<O> {
    batch: Senders<O>,
    proposed_at: Instant,
    result: Result<Proposed<Vec<O>>, ProposeError>,
}

/// Who waits for the outcomes of a batch.
struct Senders<O> {
    answers: Vec<AnswerTo<O>>,
    /// How many commands of background work are the last of the batch.
    background: usize,
    /// How long the first of them waited for the batch.
    waited: Duration,
}

impl<M, O> Task<M, O>
where
    M: Machine<Outcome = Vec<O>>,
    O: Send + Sync + 'static,
{
    async fn run(mut self) {
        loop {
            while self.is_batch_due() {
                self.propose_next().await;
            }
            let room = self.in_flight.len() < IN_FLIGHT_MAX;
            let may_kick = room && !self.background_in_flight;
            if room && self.queue.lock().is_closed {
                break;
            }
            tokio::select! {
                biased;
                Some(finished) = self.in_flight.next() => self.finish(finished),
                () = self.queue.arrived.notified(), if room => {}
                () = self.queue.kick.notified(), if may_kick => self.kicked = true,
            }
        }
        while let Some(finished) = self.in_flight.next().await {
            self.finish(finished);
        }
    }

    /// Whether the next batch is to be made now.
    fn is_batch_due(&self) -> bool {
        match self.in_flight.len() {
            0 => self.kicked || self.is_waiting(),
            IN_FLIGHT_MAX.. => false,
            in_flight => {
                let waiting = self.queue.lock();
                self.kicked && !self.background_in_flight
                    || waiting.commands.len() >= JOIN_COMMANDS_MIN << (in_flight - 1)
                    || waiting.bytes >= JOIN_BYTES_MIN << (in_flight - 1)
            }
        }
    }

    fn is_waiting(&self) -> bool {
        !self.queue.lock().commands.is_empty()
    }

    /// Proposes the next batch, if there is anything for one.
    async fn propose_next(&mut self) {
        if !self.stamps.may_stamp() {
            // Who sets the clock right kicks.
            self.kicked = false;
            let (_, answers, _) = self.queue.lock().take();
            let refused = Senders { answers, background: 0, waited: Duration::ZERO };
            return refused.answer(Err(ProposeError::Busy { delay_ms: CLOCK_DELAY_MS }));
        }
        let stamp_ms = self.stamps.next_stamp();
        let background = self.background(stamp_ms);
        let (mut commands, answers, first_came) = self.queue.lock().take();
        if commands.is_empty() && background.is_empty() {
            return;
        }
        let waited = first_came.map(|came| came.elapsed()).unwrap_or_default();
        let batch = Senders { answers, background: background.len(), waited };
        commands.extend(background);
        let encoded = Batch(self.encoder.encode(stamp_ms, &commands));
        let group = self.group.clone();
        let submitted = group.submit(encoded);
        tokio::pin!(submitted);
        // Raft may keep it waiting; what is in flight is answered meanwhile.
        let submitted = loop {
            tokio::select! {
                biased;
                submitted = &mut submitted => break submitted,
                Some(finished) = self.in_flight.next() => self.finish(finished),
            }
        };
        match submitted {
            Ok(in_flight) => {
                let proposed_at = Instant::now();
                self.background_in_flight |= batch.background > 0;
                self.in_flight.push(Box::pin(async move {
                    Finished { result: in_flight.wait().await, batch, proposed_at }
                }));
            }
            Err(error) => batch.answer(Err(error)),
        }
    }

    /// Asks for background work, unless some is in flight.
    fn background(&mut self, stamp_ms: u64) -> Vec<Bytes> {
        self.kicked = false;
        if self.background_in_flight || !self.group.is_leader() {
            Vec::new()
        } else {
            (self.background)(stamp_ms)
        }
    }

    fn finish(&mut self, finished: Finished<O>) {
        if finished.batch.background > 0 {
            self.background_in_flight = false;
            // There may be more of it.
            self.kicked |= finished.result.is_ok();
        }
        if let (Some(phases), Ok(Proposed { index, .. })) = (self.queue.phases.get(), &finished.result) {
            let (waited, took) = (finished.batch.waited, finished.proposed_at.elapsed());
            phases.note(RequestPhase::Queue, waited);
            phases.note(RequestPhase::Commit, took);
            if phases.is_slow(waited + took) {
                let (group, commands) = (self.group.id().0, finished.batch.answers.len());
                let (queue_ms, commit_ms) = (waited.as_millis() as u64, took.as_millis() as u64);
                // Requests name partition and index in their own lines.
                tracing::warn!(group, index, commands, queue_ms, commit_ms, "slow batch");
            }
        }
        finished.batch.answer(finished.result);
    }
}

impl<M: Machine, O: Send + Sync + 'static> Drop for Task<M, O> {
    fn drop(&mut self) {
        let mut waiting = self.queue.lock();
        waiting.has_ended = true;
        let left = std::mem::take(&mut waiting.commands);
        drop(waiting);
        let mut delivery = Delivery::new();
        for (_, answer, _) in left {
            delivery.put(answer, Err(ProposeError::Stopped { proposed: false }));
        }
    }
}

impl<O> Senders<O> {
    /// Hands the outcomes back.
    fn answer(self, result: Result<Proposed<Vec<O>>, ProposeError>) {
        let mut delivery = Delivery::new();
        match result {
            Ok(Proposed { index, outcome }) => {
                let commands = self.answers.len() + self.background;
                assert_eq!(outcome.len(), commands, "a machine answers each command of a batch");
                for (answer, outcome) in self.answers.into_iter().zip(outcome) {
                    delivery.put(answer, Ok(Proposed { index, outcome }));
                }
            }
            Err(error) => {
                for answer in self.answers {
                    delivery.put(answer, Err(error.clone()));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
