//! Owns the run of an import: blocks are read ahead, sent, and done in their order.
//!
//! - A block is done when all its writes are answered and all blocks before it are done; then its rejects and ids are written.
//! - Blocks are of another size than before only from where nothing was sent as it was cut then, and the state file says so first.
//! - The state file follows in steps: what it says is done is never sent again, everything behind is sent under the same
//!   session and numbers, and so has one effect. Sessions change only where nothing is uncertain (`lanes.rs`).

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant, UNIX_EPOCH};

use fanfold_client::{Client, Field, ImportOp, PartitionId, SessionId, Stamp, Status};
use fanfold_protocol::message::{AppendOutcome, WriteResult};
use tokio::sync::mpsc;

use super::ImportError;
use super::block::{Block, Cut, PartWrite, cut};
use super::lane::{Answer, Job, forgotten};
use super::lanes::{Lanes, open_sessions};
use super::outputs::Output;
use super::pace::Pace;
use super::state::{Counts, State};

/// Blocks that are read ahead of those being sent.
const BLOCKS_AHEAD: usize = 2;

/// Blocks being sent.
const BLOCKS_IN_FLIGHT: usize = 4;

/// Blocks after which the state file is written, at the latest: the partitions keep the answers to their writes until then.
const CHECKPOINT_BLOCKS: u64 = 64;

/// Blocks behind what a state file says is done that may have been sent, at most.
pub(super) const BLOCKS_UNCERTAIN: u64 = CHECKPOINT_BLOCKS + BLOCKS_IN_FLIGHT as u64;

/// The state file is written so often.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(1);

/// What a run is told.
pub(crate) struct Options {
    pub(crate) state_path: Option<PathBuf>,
    pub(crate) rejects: Output,
    pub(crate) ids: Output,
    pub(crate) rate: Option<u64>,
    pub(crate) repeat_uncertain: bool,
    /// Counts the bytes of the inputs that were read.
    pub(crate) bytes: Arc<AtomicU64>,
}

/// A block that is being sent.
struct Open {
    block: Block,
    /// Of its writes.
    answers: Vec<Option<WriteResult>>,
    keys: Vec<Vec<Option<bytes::Bytes>>>,
}

/// A run.
pub(crate) struct Run<'p> {
    pub(crate) cut: Arc<Cut>,
    options: Options,
    pub(crate) state: State,
    lanes: Lanes,
    /// The writes of open blocks that are not sent yet.
    pace: Pace<(PartitionId, Job)>,
    /// The block that is opened next.
    read: Option<Block>,
    open: VecDeque<Open>,
    /// The number of the first of the open blocks.
    first: u64,
    checkpoint: (Instant, u64),
    progress: &'p mut dyn FnMut(&Counts),
}

impl<'p> Run<'p> {
    /// Imports everything from where `state` stands; answers the state at the end.
    pub(crate) async fn run(
        client: &Client,
        cut: Cut,
        state: State,
        options: Options,
        progress: &'p mut dyn FnMut(&Counts),
    ) -> Result<State, ImportError> {
        let pace = Pace::new(options.rate);
        let mut run = Self {
            cut: Arc::new(cut),
            options,
            state,
            lanes: Lanes::default(),
            pace,
            read: None,
            open: VecDeque::new(),
            first: 0,
            checkpoint: (Instant::now(), 0),
            progress,
        };
        let went = run.go(client).await;
        let went = went.and_then(|()| {
            run.state.done = true;
            run.save()
        });
        went.map_err(|error| run.stopped(error))?;
        run.close(client).await;
        Ok(run.state)
    }

    /// What stopped it, and how it goes on.
    fn stopped(&self, error: ImportError) -> ImportError {
        if !matches!(error, ImportError::Call(_) | ImportError::Read { .. } | ImportError::Write { .. }) {
            return error;
        }
        let at = self.state.position;
        let input = || Some((self.cut.inputs.get(at.input)?.clone(), at.line));
        let rest = if self.options.state_path.is_none() { input() } else { None };
        ImportError::Stopped { source: Box::new(error), rest }
    }

    async fn go(&mut self, client: &Client) -> Result<(), ImportError> {
        let (answer, mut answers) = mpsc::unbounded_channel();
        // An edge is there once, however often it is imported.
        let may_repeat =
            self.options.repeat_uncertain || matches!(self.cut.kind, super::parse::Kind::Follows);
        let lanes = Lanes::start(client, &self.state.lanes, may_repeat, &answer).await;
        self.lanes = lanes.map_err(ImportError::Call)?;
        let mut blocks = self.read_ahead();
        let started = tokio::time::Instant::now();
        let mut ended = false;
        while !(ended && self.open.is_empty() && self.read.is_none()) {
            let has_room =
                !ended && self.pace.is_empty() && self.read.is_none() && self.open.len() < BLOCKS_IN_FLIGHT;
            tokio::select! {
                answer = answers.recv() => {
                    if let Some(answer) = answer {
                        self.take(answer)?;
                    }
                }
                () = tokio::time::sleep_until(started + self.pace.due()), if !self.pace.is_empty() => {
                    while let Some((partition, job)) = self.pace.next(started.elapsed()) {
                        self.lanes.send(partition, job);
                    }
                }
                block = blocks.recv(), if has_room => match block {
                    Some(block) => self.read = Some(block?),
                    None => ended = true,
                },
            }
            self.finish_blocks()?;
            self.open_block()?;
            self.renew_sessions(client).await?;
        }
        Ok(())
    }

    /// Opens the block that was read, if it is of the size of those that are open; otherwise when they are done.
    fn open_block(&mut self) -> Result<(), ImportError> {
        let Some(block) = self.read.take() else { return Ok(()) };
        let mut is_noted = block.items_max == self.state.block_items;
        if !is_noted && !self.open.is_empty() {
            self.read = Some(block);
            return Ok(());
        }
        self.state.block_items = block.items_max;
        let number = self.first + self.open.len() as u64;
        for PartWrite { partition, .. } in &block.writes {
            self.lanes.open(*partition, number);
            is_noted &= self.state.lanes[usize::from(partition.0)].is_open;
        }
        if !is_noted {
            self.save()?;
        }
        self.send(block);
        // One without writes is done.
        self.finish_blocks()
    }

    /// Takes new sessions for the lanes that have forgotten theirs, once everything before is noted. The state file first says that
    /// nothing of them is open, in case it ends before it has the sessions.
    async fn renew_sessions(&mut self, client: &Client) -> Result<(), ImportError> {
        let due = self.lanes.due(self.first);
        if due.is_empty() {
            return Ok(());
        }
        self.save()?;
        let opened = open_sessions(client, &due).await.map_err(ImportError::Call)?;
        for (partition, lane) in &opened {
            self.state.lanes[usize::from(partition.0)].session = lane.session().0;
        }
        self.lanes.reopen(&due);
        self.save()?;
        self.lanes.renew(opened);
        Ok(())
    }

    /// Reads blocks on a thread of its own.
    fn read_ahead(&self) -> mpsc::Receiver<Result<Block, ImportError>> {
        let (block, blocks) = mpsc::channel(BLOCKS_AHEAD);
        let (plan, at, bytes) = (self.cut.clone(), self.state.position, self.options.bytes.clone());
        tokio::task::spawn_blocking(move || {
            let taken = cut(&plan, at, &bytes, |next| block.blocking_send(Ok(next)).is_ok());
            if let Err(error) = taken {
                // Whoever does not listen any more has failed before.
                let _ = block.blocking_send(Err(error));
            }
        });
        blocks
    }

    /// Hands its writes to the pace.
    fn send(&mut self, mut block: Block) {
        let number = self.first + self.open.len() as u64;
        let mut keys = Vec::new();
        for (n, write) in block.writes.iter_mut().enumerate() {
            let op = std::mem::replace(&mut write.op, ImportOp::Entries(Vec::new()));
            keys.push(match &op {
                ImportOp::Entries(entries) if self.options.ids.is_wanted() => {
                    entries.iter().map(|entry| entry.key.clone()).collect()
                }
                _ => Vec::new(),
            });
            let sequence = self.lanes.number(write.partition);
            self.pace.push(write.lines.len(), (write.partition, Job { place: (number, n), sequence, op }));
        }
        let answers = block.writes.iter().map(|_| None).collect();
        self.open.push_back(Open { block, answers, keys });
    }

    fn take(&mut self, answer: Answer) -> Result<(), ImportError> {
        let Answer { place: (block, write), partition, sequence, result } = answer;
        let (incarnation, written) = match result {
            Ok(answered) => answered,
            Err(error) => {
                let Some(is_certain) = forgotten(&error) else { return Err(failure(error)) };
                if self.lanes.forgotten(partition, block, sequence, is_certain) {
                    return Ok(());
                }
                return Err(ImportError::SessionForgotten { line: self.state.position.line });
            }
        };
        if let Some(incarnation) = incarnation {
            let known = &mut self.state.lanes[usize::from(partition.0)].incarnation;
            if *known.get_or_insert(incarnation) != incarnation {
                return Err(ImportError::Restored { partition });
            }
        }
        if let Some(open) = self.open.get_mut((block - self.first) as usize) {
            open.answers[write] = Some(written);
        }
        Ok(())
    }

    /// Takes the results of the first blocks that are answered.
    fn finish_blocks(&mut self) -> Result<(), ImportError> {
        while self.open.front().is_some_and(|open| open.answers.iter().all(Option::is_some)) {
            let Some(open) = self.open.pop_front() else { break };
            self.first += 1;
            self.finish(open)?;
            (self.progress)(&self.state.counts);
            self.checkpoint.1 += 1;
            if self.checkpoint.1 >= CHECKPOINT_BLOCKS || self.checkpoint.0.elapsed() >= CHECKPOINT_EVERY {
                self.save()?;
            }
        }
        Ok(())
    }

    fn finish(&mut self, open: Open) -> Result<(), ImportError> {
        let Open { block, answers, keys } = open;
        let mut rejects = block.rejects;
        let mut made = Vec::new();
        for ((write, answer), keys) in block.writes.iter().zip(answers).zip(keys) {
            let Some(result) = answer else { continue };
            self.state.lanes[usize::from(write.partition.0)].next += 1;
            self.count(result, &write.lines, &keys, &mut rejects, &mut made);
        }
        rejects.sort_unstable_by_key(|(line, _)| *line);
        made.sort_unstable_by_key(|(line, ..)| *line);
        let path = self.cut.inputs[block.input].display();
        for (line, reason) in &rejects {
            self.options.rejects.line(format_args!("{path}\t{line}\t{reason}"))?;
        }
        for (line, key, id) in &made {
            self.options.ids.line(format_args!("{path}\t{line}\t{key}\t{id}"))?;
        }
        self.state.counts.rejected += rejects.len() as u64;
        self.state.position = block.end;
        Ok(())
    }

    fn count(
        &mut self,
        result: WriteResult,
        lines: &[u64],
        keys: &[Option<bytes::Bytes>],
        rejects: &mut Vec<(u64, String)>,
        made: &mut Vec<(u64, String, u64)>,
    ) {
        let counts = &mut self.state.counts;
        match result {
            WriteResult::FollowsImported { changed, refused } => {
                counts.imported += u64::from(changed);
                counts.known += (lines.len() - refused.len()) as u64 - u64::from(changed);
                rejects.extend(
                    refused
                        .into_iter()
                        .filter_map(|(place, status)| Some((*lines.get(place as usize)?, reason(&status)))),
                );
            }
            WriteResult::Appended(outcomes) => {
                for (n, (line, outcome)) in lines.iter().zip(outcomes).enumerate() {
                    match outcome {
                        AppendOutcome::Ok { id, duplicate } => {
                            counts.imported += u64::from(!duplicate);
                            counts.known += u64::from(duplicate);
                            if let Some(key) = keys.get(n) {
                                let key = key.as_deref().unwrap_or_default().escape_ascii().to_string();
                                made.push((*line, key, id.0));
                            }
                        }
                        AppendOutcome::Refused(status) => rejects.push((*line, reason(&status))),
                    }
                }
            }
            _ => {}
        }
    }

    /// Makes what is done durable, and lets the partitions forget their answers to it.
    fn save(&mut self) -> Result<(), ImportError> {
        self.options.rejects.sync()?;
        self.options.ids.sync()?;
        let outputs = [&self.options.rejects, &self.options.ids];
        self.state.written = outputs.map(|output| output.length);
        self.state.moved = outputs.map(|output| output.is_moved);
        for (n, lane) in self.state.lanes.iter_mut().enumerate() {
            lane.is_open = self.lanes.is_open(PartitionId(n as u16), self.first, lane.next);
        }
        if let Some(path) = &self.options.state_path {
            self.state.save(path)?;
        }
        self.lanes.noted(&self.state.lanes);
        self.checkpoint = (Instant::now(), 0);
        Ok(())
    }

    async fn close(&self, client: &Client) {
        for (n, lane) in self.state.lanes.iter().enumerate() {
            // A session that is not closed expires on its own.
            if let Ok(lane) = client.import_lane(PartitionId(n as u16), Some(SessionId(lane.session))).await {
                let _ = lane.close().await;
            }
        }
    }
}

/// What a write that failed says of the import.
fn failure(error: fanfold_client::Error) -> ImportError {
    match error.status() {
        Some(Status::SequenceConflict | Status::SequenceTooOld) => ImportError::StateOld,
        _ => ImportError::Call(error),
    }
}

/// Why a line was refused, for those who know times and not stamps.
fn reason(status: &Status) -> String {
    match status {
        Status::OutOfRange { field: Field::Time, max, .. } => {
            let now = UNIX_EPOCH + Duration::from_millis(Stamp(*max).to_unix_ms());
            format!("the time is later than the cluster's, {}", humantime::format_rfc3339_millis(now))
        }
        Status::OutOfRange { field: Field::Expiry, min, got, .. }
            if u64::try_from(*got).is_ok_and(|got| got < *min) =>
        {
            "it has expired".to_owned()
        }
        status => status.to_string(),
    }
}
