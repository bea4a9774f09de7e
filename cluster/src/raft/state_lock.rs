//! Owns the lock of a group's state: whoever comes first gets it first, and sleeps until then.
//!
//! - Nobody yields for it. A thread that yields gives up a whole slice of the processor each time, so whoever did that for a lock
//!   that is free again in a third of a millisecond would wait for twenty, and everybody behind it.
//! - Whoever gives it back hands it to those who wait, so applying lets readers in between any two pieces.
//! - A guard stays on its thread, so that it cannot be held across an await.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// A state that many may read, or one may change.
#[derive(Debug)]
pub(super) struct StateLock<T>(RwLock<T>);

/// Keeps a guard on its thread.
type Here = PhantomData<*const ()>;

/// Held by a reader.
pub(super) struct Reading<'a, T>(RwLockReadGuard<'a, T>, Here);

/// Held by whoever changes the state.
pub(super) struct Writing<'a, T>(RwLockWriteGuard<'a, T>, Here);

impl<T> StateLock<T> {
    pub fn new(state: T) -> Self {
        Self(RwLock::new(state))
    }

    /// Waits until nobody changes it, and nobody who came before wants to.
    pub fn read(&self) -> Reading<'_, T> {
        let guard = self.0.try_read().unwrap_or_else(|_| asleep(self.0.read()));
        Reading(guard, PhantomData)
    }

    /// Like [`Self::read`], if there is nothing to wait for.
    pub fn try_read(&self) -> Option<Reading<'_, T>> {
        Some(Reading(self.0.try_read().ok()?, PhantomData))
    }

    /// Waits until all who came before are done.
    pub fn write(&self) -> Writing<'_, T> {
        let guard = self.0.try_write().unwrap_or_else(|_| asleep(self.0.write()));
        Writing(guard, PhantomData)
    }
}

impl<T> Deref for Reading<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> Deref for Writing<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for Writing<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

/// Wakes a thread that waits for its turn.
struct Sleeper(Thread);

impl Wake for Sleeper {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

thread_local! {
    static WAKER: Waker = Waker::from(Arc::new(Sleeper(thread::current())));
}

/// Sleeps until a turn comes. It does not count against the budget of the task that this thread may be running, whose end nobody
/// else could see.
fn asleep<T>(turn: impl Future<Output = T>) -> T {
    let mut turn = pin!(tokio::task::unconstrained(turn));
    WAKER.with(|waker| {
        let mut context = Context::from_waker(waker);
        loop {
            match turn.as_mut().poll(&mut context) {
                Poll::Ready(turn) => return turn,
                // Who sleeps may be woken for nothing.
                Poll::Pending => thread::park(),
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::{Duration, Instant};

    use super::*;

    const SOON: Duration = Duration::from_secs(30);

    /// Processor time of this thread.
    fn worked() -> Duration {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    }

    /// Waits until somebody waits to write, which keeps out who reads later. The lock is held for reading.
    fn wait_for_a_writer(lock: &StateLock<u32>) {
        let until = Instant::now() + SOON;
        while lock.try_read().is_some() {
            assert!(Instant::now() < until);
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn who_waits_sleeps_and_gets_it_before_who_gave_it_back() {
        let lock = StateLock::new(1);
        let reading = lock.read();
        thread::scope(|scope| {
            let waits = scope.spawn(|| {
                let before = worked();
                let mut state = lock.write();
                let worked = worked().saturating_sub(before);
                *state *= 10;
                worked
            });
            wait_for_a_writer(&lock);
            let waited = Duration::from_millis(200);
            thread::sleep(waited);
            drop(reading);
            // The other one has its turn although it may not run yet.
            *lock.write() += 1;
            let worked = waits.join().unwrap();
            assert!(worked < waited / 4, "{worked:?}");
        });
        assert_eq!(*lock.read(), 11);
    }

    #[test]
    fn readers_share_it_and_come_after_who_waits_to_write() {
        let lock = StateLock::new(1);
        let first = lock.read();
        assert_eq!(lock.try_read().as_deref(), Some(&1));
        thread::scope(|scope| {
            scope.spawn(|| *lock.write() += 1);
            wait_for_a_writer(&lock);
            let reader = scope.spawn(|| *lock.read());
            drop(first);
            assert_eq!(reader.join().unwrap(), 2);
        });
    }

    #[tokio::test]
    async fn a_task_that_has_used_up_its_budget_still_gets_it() {
        let lock = Arc::new(StateLock::new(1));
        let held = lock.write();
        let (begun, has_begun) = channel();
        let waits = tokio::task::spawn_blocking({
            let lock = lock.clone();
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                runtime.block_on(async {
                    while tokio::task::coop::has_budget_remaining() {
                        tokio::task::coop::consume_budget().await;
                    }
                    begun.send(()).unwrap();
                    *lock.read()
                })
            }
        });
        has_begun.recv_timeout(SOON).unwrap();
        drop(held);
        assert_eq!(tokio::time::timeout(SOON, waits).await.unwrap().unwrap(), 1);
    }
}
