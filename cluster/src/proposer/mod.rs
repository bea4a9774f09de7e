//! Owns the proposer of a group: it gathers waiting commands into Raft entries and hands their outcomes back.
//!
//! - A batch has at most [`BATCH_COMMANDS_MAX`] commands, and no further one once it has [`GATHER_BYTES_MAX`] bytes;
//!   it has one stamp, and stamps are in the order of the batches.
//! - At most [`IN_FLIGHT_MAX`] batches wait to be applied, and a batch does not join another in flight unless it is worth
//!   an fsync of its own ([`JOIN_COMMANDS_MIN`]); meanwhile commands gather.
//! - What waits is bounded in number and bytes; above that the answer is [`ProposeError::Busy`].
//! - While the clock is not to be believed (R2) nothing is proposed; who waits is told [`ProposeError::Busy`].
//! - At most one batch with background work is in flight, so that the machine has seen the last one when it is asked
//!   for more.

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

/// Asks the machine, with the stamp of the next batch, whether background work is due, and returns its command.
/// Nobody waits for its outcome. Runs under the machine's read lock before a batch is made.
pub type Background<M> = Box<dyn FnMut(&M, u64) -> Option<Bytes> + Send>;

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
        background: Background<M>,
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
    background: Background<M>,
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
    /// Whether the last command of the batch is background work.
    background: bool,
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
            let refused = Senders { answers, background: false, waited: Duration::ZERO };
            return refused.answer(Err(ProposeError::Busy { delay_ms: CLOCK_DELAY_MS }));
        }
        let stamp_ms = self.stamps.next_stamp();
        let background = self.background(stamp_ms);
        let (mut commands, answers, first_came) = self.queue.lock().take();
        if commands.is_empty() && background.is_none() {
            return;
        }
        let waited = first_came.map(|came| came.elapsed()).unwrap_or_default();
        let batch = Senders { answers, background: background.is_some(), waited };
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
                self.background_in_flight |= batch.background;
                self.in_flight.push(Box::pin(async move {
                    Finished { result: in_flight.wait().await, batch, proposed_at }
                }));
            }
            Err(error) => batch.answer(Err(error)),
        }
    }

    /// Asks for background work, unless some is in flight.
    fn background(&mut self, stamp_ms: u64) -> Option<Bytes> {
        if self.background_in_flight || !self.group.is_leader() {
            self.kicked = false;
            return None;
        }
        let is_waiting = self.is_waiting();
        let ask = |machine: &M| (self.background)(machine, stamp_ms);
        if !is_waiting {
            self.kicked = false;
            return self.group.read(ask);
        }
        // Commands must not wait for an apply to end; a kick stays pending until the machine could be asked.
        let asked = self.group.try_read(ask);
        self.kicked &= asked.is_none();
        asked.flatten()
    }

    fn finish(&mut self, finished: Finished<O>) {
        if finished.batch.background {
            self.background_in_flight = false;
            // There may be more of it, now that the machine has seen this.
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
                let commands = self.answers.len() + usize::from(self.background);
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
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use fanfold_storage::fs::{FaultFs, PowerLoss, RealFs};
    use fanfold_storage::log::Log;
    use futures_util::future::join_all;

    use super::*;
    use crate::raft::Formation;
    use crate::raft::testing::{
        Notebook, directory, encode_batch, memory_directory, open_log, open_memory_log, open_single, texts,
    };

    /// Counts up, so that stamps tell the order in which they were given.
    #[derive(Clone, Default)]
    struct Counter(Arc<AtomicU64>);

    impl StampSource for Counter {
        fn next_stamp(&self) -> u64 {
            self.0.fetch_add(1, Ordering::Relaxed) + 1
        }
    }

    fn no_background() -> Background<Notebook> {
        Box::new(|_, _| None)
    }

    async fn open(
        disk: &FaultFs,
        background: Background<Notebook>,
    ) -> (Log, Group<Notebook>, Proposer<usize>) {
        let log = open_memory_log(disk);
        let group = open_single(memory_directory(disk), &log, Formation::New).await.unwrap();
        let proposer = Proposer::spawn(group.clone(), encode_batch, Counter::default(), background);
        (log, group, proposer)
    }

    fn command(number: usize) -> Bytes {
        Bytes::from(number.to_string())
    }

    #[tokio::test]
    async fn every_command_gets_its_own_outcome() {
        let (_log, group, proposer) = open(&FaultFs::new(), no_background()).await;
        let answers: Vec<_> = (0..5_000).map(|number| proposer.submit(command(number)).unwrap()).collect();
        for (number, answer) in answers.into_iter().enumerate() {
            assert_eq!(answer.wait().await.unwrap().outcome, number + 1);
        }
        let expected: Vec<String> = (0..5_000).map(|number| number.to_string()).collect();
        assert_eq!(texts(&group), expected, "in the order of submission");
    }

    #[tokio::test]
    async fn waiting_commands_share_a_batch_and_its_stamp() {
        let disk = FaultFs::new();
        let (_log, group, proposer) = open(&disk, no_background()).await;
        disk.hold_syncs(true);
        let answers: Vec<_> = (0..3_000).map(|number| proposer.submit(command(number)).unwrap()).collect();
        disk.hold_syncs(false);
        join_all(answers.into_iter().map(Answer::wait)).await.into_iter().for_each(|answer| {
            answer.unwrap();
        });
        group.read(|notebook| {
            assert_eq!(notebook.batches, [1024, 1024, 952]);
            assert!(notebook.lines.is_sorted_by_key(|(stamp_ms, _)| *stamp_ms));
            let stamp_of = |number: usize| notebook.lines[number].0;
            assert_eq!(stamp_of(0), stamp_of(1023));
            assert!(stamp_of(1023) < stamp_of(1024));
        });
    }

    #[tokio::test]
    async fn a_batch_is_cut_at_its_bytes() {
        let (_log, group, proposer) = open(&FaultFs::new(), no_background()).await;
        let large = Bytes::from(vec![b'x'; GATHER_BYTES_MAX / 2]);
        let oversized = Bytes::from(vec![b'y'; GATHER_BYTES_MAX + 1]);
        let commands = [&large, &large, &large, &oversized, &large];
        let answers: Vec<_> =
            commands.iter().map(|command| proposer.submit((*command).clone()).unwrap()).collect();
        for answer in answers {
            answer.wait().await.unwrap();
        }
        group.read(|notebook| assert_eq!(notebook.batches, [2, 1, 1, 1]));
    }

    #[tokio::test]
    async fn a_full_queue_is_busy_and_recovers() {
        let (_log, group, proposer) = open(&FaultFs::new(), no_background()).await;
        // Nothing yields in between, so that the proposer's task does not run.
        let mut answers = Vec::new();
        let refused = loop {
            match proposer.submit(command(answers.len())) {
                Ok(answer) => answers.push(answer),
                Err(error) => break error,
            }
        };
        assert_eq!(refused, ProposeError::Busy { delay_ms: BUSY_DELAY_MS });
        assert_eq!(answers.len(), QUEUE_COMMANDS_MAX);
        for answer in answers {
            answer.wait().await.unwrap();
        }
        proposer.propose(command(0)).await.unwrap();
        assert_eq!(texts(&group).len(), QUEUE_COMMANDS_MAX + 1);
    }

    #[tokio::test]
    async fn a_queue_is_bounded_in_bytes_too() {
        let (_log, _group, proposer) = open(&FaultFs::new(), no_background()).await;
        let large = Bytes::from(vec![b'x'; 1 << 20]);
        let answers: Vec<_> = (0..16).map(|_| proposer.submit(large.clone()).unwrap()).collect();
        let refused = proposer.submit(command(0)).unwrap_err();
        assert_eq!(refused, ProposeError::Busy { delay_ms: BUSY_DELAY_MS });
        for answer in answers {
            answer.wait().await.unwrap();
        }
        assert_eq!(proposer.handle.queue.lock().bytes, 0);
        proposer.propose(command(0)).await.unwrap();
    }

    #[tokio::test]
    async fn a_command_above_the_limit_is_refused() {
        let (_log, _group, proposer) = open(&FaultFs::new(), no_background()).await;
        let refused = proposer.propose(Bytes::from(vec![0; COMMAND_BYTES_MAX + 1])).await.unwrap_err();
        assert!(
            matches!(refused, ProposeError::TooLarge { limit_bytes, .. } if limit_bytes == COMMAND_BYTES_MAX as u64)
        );
    }

    #[tokio::test]
    async fn a_kick_proposes_background_work_until_none_is_due() {
        let background: Background<Notebook> =
            Box::new(|notebook, _| (notebook.lines.len() < 3).then(|| Bytes::from_static(b"tick")));
        let (_log, group, proposer) = open(&FaultFs::new(), background).await;
        let mut applied = group.watch_applied();
        proposer.kick();
        applied.wait_for(|_| texts(&group).len() == 3).await.unwrap();
        // Nothing more is due, so the next command is alone.
        assert_eq!(proposer.propose(command(1)).await.unwrap().outcome, 4);
        assert_eq!(group.read(|notebook| notebook.batches.clone()), [1, 1, 1, 1]);
    }

    #[tokio::test]
    async fn background_work_rides_along_and_is_asked_for_one_at_a_time() {
        let asked_at = Arc::new(Mutex::new(Vec::new()));
        let seen = asked_at.clone();
        let background: Background<Notebook> = Box::new(move |notebook, _| {
            let ticks = notebook.lines.iter().filter(|(_, line)| &line[..] == b"tick").count();
            seen.lock().unwrap().push(ticks);
            (ticks < 4).then(|| Bytes::from_static(b"tick"))
        });
        let (_log, group, proposer) = open(&FaultFs::new(), background).await;
        let answers: Vec<_> = (0..10_000).map(|number| proposer.submit(command(number)).unwrap()).collect();
        for answer in answers {
            answer.wait().await.unwrap();
        }
        let mut applied = group.watch_applied();
        applied.wait_for(|_| texts(&group).len() == 10_004).await.unwrap();
        let asked_at = asked_at.lock().unwrap();
        for ticks in 0..4 {
            let asked = asked_at.iter().filter(|asked| **asked == ticks).count();
            assert_eq!(asked, 1, "asked again before the last answer was applied: {asked_at:?}");
        }
    }

    #[tokio::test]
    async fn a_failing_log_leaves_outcomes_unknown() {
        let disk = FaultFs::new();
        let (log, group, proposer) = open(&disk, no_background()).await;
        proposer.propose(command(0)).await.unwrap();
        // The sync that fails is to be that of the commands below, not of what Raft notes by itself after the above.
        let mut quiet = 0;
        while quiet < 1_000 {
            tokio::task::yield_now().await;
            quiet = if log.status().queued_bytes == 0 { quiet + 1 } else { 0 };
        }
        disk.fail_sync_after(0, PowerLoss::LoseAll);
        let answers: Vec<_> = (0..3).map(|number| proposer.submit(command(number)).unwrap()).collect();
        for answer in answers {
            assert!(answer.wait().await.unwrap_err().may_have_applied());
        }
        group.stopped().await;
        let late = proposer.propose(command(9)).await.unwrap_err();
        assert!(!late.may_have_applied(), "{late}");
    }

    #[tokio::test]
    async fn the_group_stops_after_its_proposer_is_dropped() {
        let (_log, group, proposer) = open(&FaultFs::new(), no_background()).await;
        let answer = proposer.submit(command(1)).unwrap();
        let mut leadership = group.watch_leadership();
        drop((group, proposer));
        assert_eq!(answer.wait().await.unwrap().outcome, 1, "what was queued is still proposed");
        while leadership.changed().await {}
    }

    /// Not a benchmark: it only shows that concurrent callers on a real disk share fsyncs.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn concurrent_callers_share_syncs_on_a_real_disk() {
        let dir = tempfile::tempdir().unwrap();
        let log = open_log(Arc::new(RealFs), &dir.path().join("log"), 1 << 20);
        let files = directory(Arc::new(RealFs), &dir.path().join("group"));
        let group = open_single(files, &log, Formation::New).await.unwrap();
        let proposer = Proposer::spawn(group, encode_batch, Counter::default(), no_background());
        let syncs_before = log.status().syncs;
        let callers = (0..64).map(|caller| {
            let proposer = proposer.clone();
            tokio::spawn(async move {
                for number in 0..50 {
                    proposer.propose(command(caller * 50 + number)).await.unwrap();
                }
            })
        });
        for caller in callers.collect::<Vec<_>>() {
            tokio::time::timeout(Duration::from_secs(60), caller).await.unwrap().unwrap();
        }
        let syncs = log.status().syncs - syncs_before;
        assert!(syncs < 64 * 50 / 4, "{syncs} syncs for 3,200 commands of 64 callers");
    }
}
