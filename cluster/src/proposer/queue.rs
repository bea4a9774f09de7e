//! Owns the queue of a proposer: commands that wait for their batch, bounded in number and bytes.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::answer::AnswerTo;
use super::{
    BATCH_COMMANDS_MAX, BUSY_DELAY_MS, COMMAND_BYTES_MAX, GATHER_BYTES_MAX, QUEUE_BYTES_MAX,
    QUEUE_COMMANDS_MAX,
};
use crate::phases::Phases;
use crate::raft::ProposeError;

/// What handles and the task share.
#[derive(Debug)]
pub(super) struct Queue<O> {
    waiting: Mutex<WaitingCommands<O>>,
    pub(super) arrived: Notify,
    pub(super) kick: Notify,
    /// Where is noted how long things take, if anywhere.
    pub(super) phases: OnceLock<Arc<Phases>>,
}

impl<O> Queue<O> {
    pub(super) fn new() -> Self {
        let waiting =
            WaitingCommands { commands: VecDeque::new(), bytes: 0, is_closed: false, has_ended: false };
        Self {
            waiting: Mutex::new(waiting),
            arrived: Notify::new(),
            kick: Notify::new(),
            phases: OnceLock::new(),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, WaitingCommands<O>> {
        // Nothing under this lock can leave it half changed.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Commands that wait for their batch.
#[derive(Debug)]
pub(super) struct WaitingCommands<O> {
    /// Each with when it came.
    pub(super) commands: VecDeque<(Bytes, AnswerTo<O>, Instant)>,
    pub(super) bytes: usize,
    /// No handle is left.
    pub(super) is_closed: bool,
    /// The task is gone.
    pub(super) has_ended: bool,
}

impl<O> WaitingCommands<O> {
    fn admit(&self, command: &Bytes) -> Result<(), ProposeError> {
        if command.len() > COMMAND_BYTES_MAX {
            let (bytes, limit_bytes) = (command.len() as u64, COMMAND_BYTES_MAX as u64);
            return Err(ProposeError::TooLarge { bytes, limit_bytes });
        }
        if self.has_ended {
            return Err(ProposeError::Stopped { proposed: false });
        }
        let is_full = self.commands.len() >= QUEUE_COMMANDS_MAX
            || self.bytes != 0 && self.bytes + command.len() > QUEUE_BYTES_MAX;
        if is_full { Err(ProposeError::Busy { delay_ms: BUSY_DELAY_MS }) } else { Ok(()) }
    }

    pub(super) fn push(
        &mut self,
        command: Bytes,
        answer: AnswerTo<O>,
        came: Instant,
    ) -> Result<(), (AnswerTo<O>, ProposeError)> {
        if let Err(error) = self.admit(&command) {
            return Err((answer, error));
        }
        self.bytes += command.len();
        self.commands.push_back((command, answer, came));
        Ok(())
    }

    /// Takes the commands of the next batch, and says when the first of them came.
    pub(super) fn take(&mut self) -> (Vec<Bytes>, Vec<AnswerTo<O>>, Option<Instant>) {
        let first_came = self.commands.front().map(|(_, _, came)| *came);
        let most = self.commands.len().min(BATCH_COMMANDS_MAX);
        // Background work may ride along.
        let (mut commands, mut answers) = (Vec::with_capacity(most + 1), Vec::with_capacity(most));
        let mut batch_bytes = 0;
        while commands.len() < most {
            let Some((next, ..)) = self.commands.front() else { break };
            if batch_bytes != 0 && batch_bytes + next.len() > GATHER_BYTES_MAX {
                break;
            }
            batch_bytes += next.len();
            let Some((command, answer, _)) = self.commands.pop_front() else { break };
            commands.push(command);
            answers.push(answer);
        }
        self.bytes -= batch_bytes;
        (commands, answers, first_came)
    }
}
