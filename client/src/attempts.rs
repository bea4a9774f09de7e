//! Owns the decision after a failed attempt of a call: give up with an error, or wait and repeat.
//!
//! Invariants:
//! - What may have had its effect is repeated only if the repetition is harmless.
//! - No wait goes beyond the deadline: the call fails at once instead.

use std::sync::Arc;
use std::time::Duration;

use fanfold_protocol::Status;

use crate::backoff::Backoff;
use crate::claim::Claim;
use crate::deadline::Deadline;
use crate::error::Error;

/// What a call does to the server's state, which decides whether it may be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Nothing.
    None,
    /// The same if done twice, because of what it is or because a session recognises it.
    Idempotent,
    /// Something else if done twice.
    Once,
}

/// The attempts of one call so far.
#[derive(Debug)]
pub(crate) struct Attempts {
    effect: Effect,
    deadline: Deadline,
    backoff: Backoff,
    count: usize,
    /// Whether an attempt that has ended may have had its effect.
    uncertain: bool,
    /// Whether the attempt under way was sent.
    claim: Option<Claim>,
    last: Option<Error>,
}

impl Attempts {
    pub fn new(effect: Effect, deadline: Deadline) -> Self {
        Self {
            effect,
            deadline,
            backoff: Backoff::default(),
            count: 0,
            uncertain: false,
            claim: None,
            last: None,
        }
    }

    /// How many attempts have failed.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Whether an attempt so far may have had its effect.
    pub fn uncertain(&self) -> bool {
        self.uncertain
    }

    /// Whether the call may be sent again while nobody knows what became of an attempt.
    pub fn may_repeat(&self) -> bool {
        self.effect != Effect::Once
    }

    /// The claim of the next attempt.
    pub fn start(&mut self) -> Claim {
        let claim = Claim::new();
        self.claim = Some(claim.clone());
        claim
    }

    /// The attempt under way has ended: whether it was sent, by a call that changes anything.
    pub fn end(&mut self) -> bool {
        let sent = self.claim.take().is_some_and(|claim| !claim.withdraw());
        sent && self.effect != Effect::None
    }

    /// After a failed attempt: waits as long as the failure asks for, or gives up with an error.
    pub async fn pause(&mut self, error: Error) -> Result<(), Error> {
        self.uncertain |= error.may_have_applied();
        let harmless = self.effect != Effect::Once || !error.may_have_applied();
        if !harmless || !passes(&error) {
            return Err(self.given_up(error));
        }
        self.count += 1;
        let wait = self.wait(&error);
        self.last = Some(error);
        if wait >= self.deadline.remaining() {
            return Err(self.expired());
        }
        tokio::time::sleep(wait).await;
        Ok(())
    }

    /// The error of a call whose deadline has passed, or would pass before the next attempt.
    pub fn expired(&mut self) -> Error {
        let in_flight = self.end();
        Error::DeadlineExceeded {
            deadline: self.deadline.given(),
            may_have_applied: self.uncertain || in_flight,
            last: self.last.take().map(Arc::new),
        }
    }

    /// A refusal of the last attempt says nothing certain about the ones before.
    fn given_up(&self, mut error: Error) -> Error {
        if let Error::Refused { may_have_applied, .. } = &mut error {
            *may_have_applied |= self.uncertain;
        }
        error
    }

    fn wait(&mut self, error: &Error) -> Duration {
        match error {
            // The link spaces its attempts to connect itself, for all calls together.
            Error::Connect { .. } => Duration::ZERO,
            Error::Refused { status: Status::Busy { delay_ms } | Status::DiskFull { delay_ms }, .. } => {
                Duration::from_millis(u64::from(*delay_ms)).max(self.backoff.next())
            }
            // With the hint or the new map the next attempt goes elsewhere, so the first one need not wait.
            Error::Refused {
                status:
                    Status::NotLeader { hint: Some(_) }
                    | Status::WrongEpoch { .. }
                    | Status::WrongPartition { .. },
                ..
            } if self.count == 1 => Duration::ZERO,
            _ => self.backoff.next(),
        }
    }
}

/// Whether the failure may be gone at the next attempt.
fn passes(error: &Error) -> bool {
    match error {
        Error::Connect { .. } | Error::ConnectionLost { .. } | Error::Refused { .. } => error.is_retryable(),
        _ => false,
    }
}
