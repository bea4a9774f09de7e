//! Owns the gathering of read confirmations: one round of Raft for all reads that wait (rule 11 of the Raft layer).

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Mutex;

/// Lets many callers share rounds: a caller is answered by a round that began after it came.
#[derive(Debug, Default)]
pub(super) struct ReadGate {
    /// Counts the callers.
    arrivals: AtomicU64,
    /// Callers numbered below it are answered.
    answered: Mutex<u64>,
}

impl ReadGate {
    /// Returns when a round that began after this call has succeeded, or this caller's own round failed.
    pub async fn pass<E>(&self, round: impl AsyncFnOnce() -> Result<(), E>) -> Result<(), E> {
        let number = self.arrivals.fetch_add(1, Ordering::AcqRel);
        let mut answered = self.answered.lock().await;
        if *answered > number {
            return Ok(());
        }
        let covered = self.arrivals.load(Ordering::Acquire);
        round().await?;
        *answered = covered;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn those_who_wait_share_the_next_round() {
        let gate = Arc::new(ReadGate::default());
        let (rounds, permits) = (Arc::new(AtomicU64::new(0)), Arc::new(Semaphore::new(0)));
        let call = || {
            let (gate, rounds, permits) = (gate.clone(), rounds.clone(), permits.clone());
            tokio::spawn(async move {
                gate.pass(async || {
                    rounds.fetch_add(1, Ordering::SeqCst);
                    permits.acquire().await.map_err(|_| ())?.forget();
                    Ok::<(), ()>(())
                })
                .await
            })
        };
        let first = call();
        while rounds.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        let others: Vec<_> = (0..10).map(|_| call()).collect();
        while gate.arrivals.load(Ordering::SeqCst) < 11 {
            tokio::task::yield_now().await;
        }
        permits.add_permits(1);
        first.await.unwrap().unwrap();
        permits.add_permits(1);
        for other in others {
            other.await.unwrap().unwrap();
        }
        assert_eq!(rounds.load(Ordering::SeqCst), 2, "one for the first, one for all that came meanwhile");
    }

    #[tokio::test]
    async fn a_failed_round_answers_only_its_caller() {
        let gate = ReadGate::default();
        assert_eq!(gate.pass(async || Err(5)).await, Err(5));
        assert_eq!(gate.pass(async || Ok::<(), i32>(())).await, Ok(()));
    }
}
