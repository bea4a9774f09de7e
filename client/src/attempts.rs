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
use crate::defaults;
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
    /// How many of them because the catalog has no majority.
    stuck: usize,
    /// Whether an attempt that has ended may have had its effect.
    uncertain: bool,
    /// Whether the attempt under way was sent.
    claim: Option<Claim>,
    /// Whom the attempt under way asks, and who gave the last status.
    asked: Option<String>,
    answered: Option<String>,
    last: Option<Error>,
}

impl Attempts {
    pub fn new(effect: Effect, deadline: Deadline) -> Self {
        Self {
            effect,
            deadline,
            backoff: Backoff::default(),
            count: 0,
            stuck: 0,
            uncertain: false,
            claim: None,
            asked: None,
            answered: None,
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

    /// Whether a partition has decided so about a write: that is the result which the session keeps, and so that of every
    /// attempt. Anything else may be said by a node before it asks the partition.
    fn is_result(&self, error: &Error) -> bool {
        let Error::Refused { status, may_have_applied: false } = error else { return false };
        let is_decided = matches!(
            status,
            Status::KeyConflict { .. }
                | Status::NotFound
                | Status::NotTheOwner
                | Status::VersionMismatch { .. }
                | Status::BlockedBy { .. }
                | Status::IdTaken
                | Status::ReadOnlySpace { .. }
        );
        is_decided && self.effect == Effect::Idempotent
    }

    /// The next attempt asks this address.
    pub fn asks(&mut self, address: &str) {
        self.asked = Some(address.to_owned());
    }

    /// What the call fails with if no later attempt succeeds. What a node says tells more than that others are not there,
    /// unless it is that node which has gone meanwhile.
    fn note(&mut self, error: Error) {
        if let Error::Connect { address, .. } = &error
            && self.answered.as_ref().is_some_and(|answered| answered != address)
        {
            return;
        }
        let is_status = matches!(error, Error::Refused { .. });
        self.answered = self.asked.take().filter(|_| is_status);
        self.last = Some(error);
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
        if self.is_result(&error) {
            return Err(error);
        }
        if matches!(error.status(), Some(Status::CatalogUnavailable { silent }) if !silent.is_empty()) {
            self.stuck += 1;
        }
        if !harmless || !passes(&error) || self.stuck >= defaults::CATALOG_ATTEMPTS {
            return Err(self.given_up(error));
        }
        self.count += 1;
        let wait = self.wait(&error);
        self.note(error);
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

    /// What ended the last attempt says nothing certain about the ones before.
    fn given_up(&self, error: Error) -> Error {
        if self.uncertain { error.after_uncertain() } else { error }
    }

    fn wait(&mut self, error: &Error) -> Duration {
        match error {
            // The link spaces its attempts to connect itself, for all calls together.
            Error::Connect { .. } => Duration::ZERO,
            Error::Refused {
                status:
                    Status::Busy { delay_ms } | Status::DiskFull { delay_ms } | Status::MemoryFull { delay_ms },
                ..
            } => Duration::from_millis(u64::from(*delay_ms)).max(self.backoff.next()),
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

#[cfg(test)]
mod tests {
    use super::*;
    use fanfold_protocol::Field;

    use crate::error::Loss;

    #[tokio::test(start_paused = true)]
    async fn a_catalog_without_a_majority_is_told_soon() {
        let said = |silent: &[u64]| {
            let silent = silent.iter().copied().map(fanfold_protocol::NodeId).collect();
            Error::Refused { status: Status::CatalogUnavailable { silent }, may_have_applied: false }
        };
        let mut attempts = Attempts::new(Effect::Once, Deadline::within(Duration::from_secs(600)));
        for _ in 1..defaults::CATALOG_ATTEMPTS {
            attempts.pause(said(&[2, 3])).await.unwrap();
            attempts.pause(said(&[])).await.unwrap();
        }
        let error = attempts.pause(said(&[2, 3])).await.unwrap_err();
        assert!(matches!(error, Error::Refused { may_have_applied: false, .. }), "{error:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_node_said_is_told_and_not_that_others_are_gone() {
        let connect = |address: &str| {
            let source = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
            Error::Connect { address: address.to_owned(), source: Arc::new(source) }
        };
        let said = || Error::Refused { status: Status::NotLeader { hint: None }, may_have_applied: false };
        let last_of = async |ends: Vec<(&str, Error)>| {
            let mut attempts = Attempts::new(Effect::None, Deadline::within(Duration::from_secs(60)));
            for (address, end) in ends {
                attempts.asks(address);
                attempts.pause(end).await.unwrap();
            }
            attempts.expired()
        };
        let dead = || {
            vec![("b:1", connect("b:1")), ("a:1", said()), ("b:1", connect("b:1")), ("c:1", connect("c:1"))]
        };
        assert_eq!(last_of(dead()).await.status(), Some(&Status::NotLeader { hint: None }));
        let mut gone = dead();
        gone.push(("a:1", connect("a:1")));
        let error = last_of(gone).await;
        let Error::DeadlineExceeded { last: Some(last), .. } = &error else { panic!("{error:?}") };
        assert!(matches!(&**last, Error::Connect { address, .. } if address == "a:1"), "{last:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_that_may_have_applied_makes_every_later_end_uncertain() {
        let lost = |may_have_applied| {
            let (address, source) = ("127.0.0.1:1".to_owned(), Loss::ClosedByServer);
            Error::ConnectionLost { address, may_have_applied, source }
        };
        let ends = [
            Error::Closed,
            Error::BadAnswer { address: String::new(), field: Field::Body, may_have_applied: false },
            Error::Refused { status: Status::Internal, may_have_applied: false },
            Error::RequestTooLarge { bytes: 2, limit: 1 },
        ];
        for end in ends {
            for is_uncertain in [true, false] {
                let deadline = Deadline::within(Duration::from_secs(60));
                let mut attempts = Attempts::new(Effect::Idempotent, deadline);
                attempts.pause(lost(is_uncertain)).await.unwrap();
                let error = attempts.pause(end.clone()).await.unwrap_err();
                assert_eq!(error.may_have_applied(), is_uncertain, "{error:?}");
                assert_eq!(error.status(), end.status());
            }
        }
    }
}
