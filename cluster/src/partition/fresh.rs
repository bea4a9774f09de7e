//! Owns how old the state of a replica may be: which index the leader confirmed last, and when it was asked for that.
//!
//! - What is applied here up to a confirmed index includes everything that was answered before the question was sent. The age
//!   counts from there, by this node's own monotonic clock: no message becomes younger by waiting on its way, be it in the
//!   socket of a process that was stopped.
//! - One question is on its way at a time; whoever comes meanwhile shares the next.
//! - Before what was confirmed is too old, one of those who ask for it renews it, so that the others need not wait.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::gate::ReadGate;
use crate::error::NodeError;

/// What is known of the age of a replica's state.
#[derive(Debug, Default)]
pub(crate) struct Freshness {
    /// When the leader was asked, and the index that it confirmed.
    confirmed: Mutex<Option<(Instant, u64)>>,
    gate: ReadGate<NodeError>,
    is_renewing: AtomicBool,
}

/// Held by the one who renews.
pub(crate) struct Renewal<'a>(&'a AtomicBool);

impl Drop for Renewal<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Freshness {
    /// When the leader was last asked, and the index that it confirmed; none if it never was.
    pub fn confirmed(&self) -> Option<(Instant, u64)> {
        *self.confirmed.lock()
    }

    /// Asks for the leader's index, or shares a question that is sent after this call.
    pub async fn confirm(&self, ask: impl AsyncFnOnce() -> Result<u64, NodeError>) -> Result<(), NodeError> {
        self.gate
            .pass(async || {
                let asked = Instant::now();
                let index = ask().await?;
                *self.confirmed.lock() = Some((asked, index));
                Ok(())
            })
            .await
    }

    /// Whether an age calls for renewal by the caller: it is past half of what is allowed, and nobody else renews.
    pub fn renewal(&self, age: Duration, max: Duration) -> Option<Renewal<'_>> {
        let is_due = age > max / 2 && !self.is_renewing.swap(true, Ordering::AcqRel);
        is_due.then(|| Renewal(&self.is_renewing))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn age_counts_from_the_question_not_from_its_answer() {
        let fresh = Freshness::default();
        assert!(fresh.confirmed().is_none());
        let ask = async || {
            tokio::time::sleep(Duration::from_secs(3)).await;
            Ok(7)
        };
        fresh.confirm(ask).await.unwrap();
        let (asked, index) = fresh.confirmed().unwrap();
        assert_eq!((asked.elapsed(), index), (Duration::from_secs(3), 7));
        fresh.confirm(async || Err(NodeError::ShuttingDown)).await.unwrap_err();
        assert_eq!(fresh.confirmed(), Some((asked, index)), "no answer makes nothing younger");
    }

    #[test]
    fn one_renews_and_only_when_it_is_due() {
        let (fresh, max) = (Freshness::default(), Duration::from_secs(10));
        assert!(fresh.renewal(Duration::from_secs(5), max).is_none());
        let renewal = fresh.renewal(Duration::from_secs(6), max);
        assert!(renewal.is_some());
        assert!(fresh.renewal(Duration::from_secs(6), max).is_none());
        drop(renewal);
        assert!(fresh.renewal(Duration::from_secs(6), max).is_some());
    }
}
