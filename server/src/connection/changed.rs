//! Owns the call to a connection's task that something is to be done: many call, it alone waits.
//!
//! - A call is never lost: one that comes while nobody waits is heard by the next wait. Several are heard as one.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;

#[derive(Debug, Default)]
pub(super) struct Changed {
    has_changed: AtomicBool,
    waker: AtomicWaker,
}

impl Changed {
    /// Calls.
    pub(super) fn notify(&self) {
        // Who called before has woken the task, or is about to.
        if !self.has_changed.swap(true, Ordering::AcqRel) {
            self.waker.wake();
        }
    }

    /// Waits for a call since the last one that was heard; only one task may do so.
    pub(super) async fn heard(&self) {
        poll_fn(|context| self.poll_heard(context)).await;
    }

    fn poll_heard(&self, context: &Context<'_>) -> Poll<()> {
        if !self.has_changed.load(Ordering::Acquire) {
            self.waker.register(context.waker());
        }
        if self.has_changed.swap(false, Ordering::AcqRel) { Poll::Ready(()) } else { Poll::Pending }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_call_that_nobody_waits_for_is_heard_once_by_the_next_wait() {
        let changed = Changed::default();
        changed.notify();
        changed.notify();
        changed.heard().await;
        let mut again = std::pin::pin!(changed.heard());
        assert!(futures_util::poll!(again.as_mut()).is_pending());
        changed.notify();
        assert!(futures_util::poll!(again).is_ready());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_call_is_lost_whoever_calls_and_whenever() {
        const CALLERS: u64 = 4;
        const CALLS: u64 = 20_000;
        let shared = Arc::new((Changed::default(), AtomicU64::new(0)));
        let callers: Vec<_> = (0..CALLERS)
            .map(|_| {
                let shared = shared.clone();
                std::thread::spawn(move || {
                    for _ in 0..CALLS {
                        shared.1.fetch_add(1, Ordering::Relaxed);
                        shared.0.notify();
                        std::thread::yield_now();
                    }
                })
            })
            .collect();
        let heard = tokio::spawn(async move {
            while shared.1.load(Ordering::Relaxed) < CALLERS * CALLS {
                shared.0.heard().await;
            }
        });
        let in_time = tokio::time::timeout(Duration::from_secs(60), heard).await;
        in_time.expect("the last call is heard").unwrap();
        callers.into_iter().for_each(|caller| caller.join().unwrap());
    }
}
