//! Owns the gathering of read confirmations: one round of Raft for all reads that wait (rule 11 of the Raft layer).

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Mutex;

/// Lets many callers share rounds: a caller is answered by a round that began after it came, whatever came of it.
///
/// A failed round counts for all who waited: without a quorum each round takes its whole time, and one after the other would
/// be told so in a queue that never ends.
#[derive(Debug)]
pub(super) struct ReadGate<E> {
    /// Counts the callers.
    arrivals: AtomicU64,
    done: Mutex<Done<E>>,
}

/// The last round that is over.
#[derive(Debug)]
struct Done<E> {
    /// Callers numbered below it came before it began.
    answered: u64,
    failed: Option<E>,
}

impl<E> Default for ReadGate<E> {
    fn default() -> Self {
        Self { arrivals: AtomicU64::new(0), done: Mutex::new(Done { answered: 0, failed: None }) }
    }
}

impl<E: Clone> ReadGate<E> {
    /// Returns what came of a round that began after this call.
    pub async fn pass(&self, round: impl AsyncFnOnce() -> Result<(), E>) -> Result<(), E> {
        let number = self.arrivals.fetch_add(1, Ordering::AcqRel);
        let mut done = self.done.lock().await;
        if done.answered <= number {
            let covered = self.arrivals.load(Ordering::Acquire);
            let failed = round().await.err();
            *done = Done { answered: covered, failed };
        }
        done.failed.clone().map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::Semaphore;

    use super::*;

    /// The first caller is in its round when ten more come; what each is told, and how many rounds there were. The number of
    /// a round is its failure, if rounds fail.
    async fn told(fails: bool) -> (Vec<Result<(), u64>>, u64) {
        let gate = Arc::new(ReadGate::default());
        let (rounds, permits) = (Arc::new(AtomicU64::new(0)), Arc::new(Semaphore::new(0)));
        let call = || {
            let (gate, rounds, permits) = (gate.clone(), rounds.clone(), permits.clone());
            tokio::spawn(async move {
                gate.pass(async || {
                    let round = rounds.fetch_add(1, Ordering::SeqCst);
                    permits.acquire().await.map_err(|_| round)?.forget();
                    if fails { Err(round) } else { Ok(()) }
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
        permits.add_permits(2);
        let mut told = vec![first.await.unwrap()];
        for other in others {
            told.push(other.await.unwrap());
        }
        (told, rounds.load(Ordering::SeqCst))
    }

    #[tokio::test]
    async fn those_who_wait_share_the_next_round() {
        let (told, rounds) = told(false).await;
        assert_eq!(told, [Ok(()); 11]);
        assert_eq!(rounds, 2, "one for the first, one for all that came meanwhile");
    }

    #[tokio::test]
    async fn those_who_wait_share_its_failure_and_later_ones_do_not() {
        let (told, rounds) = told(true).await;
        assert_eq!((told[0], rounds), (Err(0), 2));
        assert_eq!(told[1..], [Err(1); 10], "none is answered by a round that began before it came");
        let gate = ReadGate::default();
        assert_eq!(gate.pass(async || Err(5)).await, Err(5));
        assert_eq!(gate.pass(async || Ok(())).await, Ok(()));
    }
}
