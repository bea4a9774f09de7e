//! Owns the way of outcomes back to those who wait for them.
//!
//! - Every command is answered exactly once: a sink that is owed an answer hears at the latest that it is unknown.
//! - Outcomes in a row for the same sink are handed over together.

use std::fmt;
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::raft::{ProposeError, Proposed};

/// The outcome of one command.
pub type CommandResult<O> = Result<Proposed<O>, ProposeError>;

/// Takes the outcomes of commands that were proposed together, many at a time.
///
/// It runs on the proposer's task: it must be short and must not wait.
pub trait AnswerSink<O>: Send + Sync {
    /// Takes outcomes by the numbers that their commands were submitted with, and leaves the list empty. Each command
    /// is answered exactly once.
    fn answer(&self, answers: &mut Vec<(u64, CommandResult<O>)>);
}

/// Where the outcome of one command goes.
pub(super) enum AnswerTo<O> {
    One(oneshot::Sender<CommandResult<O>>),
    Sink(SinkAnswer<O>),
}

impl<O> fmt::Debug for AnswerTo<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if matches!(self, Self::One(_)) { "one" } else { "sink" })
    }
}

impl<O> AnswerTo<O> {
    /// The sink is owed the answer of this number.
    pub(super) fn sink(sink: Arc<dyn AnswerSink<O>>, number: u64) -> Self {
        Self::Sink(SinkAnswer { sink: Some(sink), number })
    }
}

/// An answer that a sink is owed; if it is dropped, the outcome is unknown.
pub(super) struct SinkAnswer<O> {
    sink: Option<Arc<dyn AnswerSink<O>>>,
    number: u64,
}

impl<O> Drop for SinkAnswer<O> {
    fn drop(&mut self) {
        if let Some(sink) = self.sink.take() {
            sink.answer(&mut vec![(self.number, Err(ProposeError::Stopped { proposed: true }))]);
        }
    }
}

/// Hands outcomes to sinks, those in a row for the same one together.
pub(super) struct Delivery<O> {
    sink: Option<Arc<dyn AnswerSink<O>>>,
    answers: Vec<(u64, CommandResult<O>)>,
}

impl<O> Delivery<O> {
    pub(super) fn new() -> Self {
        Self { sink: None, answers: Vec::new() }
    }

    pub(super) fn put(&mut self, answer: AnswerTo<O>, result: CommandResult<O>) {
        let mut answer = match answer {
            // Whoever no longer waits is skipped.
            AnswerTo::One(sender) => return drop(sender.send(result)),
            AnswerTo::Sink(answer) => answer,
        };
        let Some(sink) = answer.sink.take() else { return };
        if !self.sink.as_ref().is_some_and(|last| Arc::ptr_eq(last, &sink)) {
            self.flush();
            self.sink = Some(sink);
        }
        self.answers.push((answer.number, result));
    }

    fn flush(&mut self) {
        if let Some(sink) = self.sink.take() {
            sink.answer(&mut self.answers);
            self.answers.clear();
        }
    }
}

impl<O> Drop for Delivery<O> {
    fn drop(&mut self) {
        self.flush();
    }
}
