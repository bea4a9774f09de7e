//! Owns the alarm of a connection: it rings at the first of its deadlines, or earlier.
//!
//! - A deadline that has become later does not move it: that would cost every answer a visit to the timers.
//! - The connection's task alone waits for it, so that the timers are told only once whom to wake.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use tokio::task::unconstrained;
use tokio::time::{Instant, Sleep, sleep_until};

#[derive(Default)]
pub(super) struct Alarm {
    sleep: Option<Pin<Box<Sleep>>>,
    rings_at: Option<Instant>,
    /// Whether the timers know whom to wake.
    is_waited_for: bool,
}

impl Alarm {
    /// Makes it ring at `moment`, or before.
    pub(super) fn set(&mut self, moment: Option<Instant>) {
        let Some(moment) = moment else { return };
        if self.rings_at.is_some_and(|at| at <= moment) {
            return;
        }
        (self.rings_at, self.is_waited_for) = (Some(moment), false);
        match &mut self.sleep {
            Some(sleep) => sleep.as_mut().reset(moment),
            None => self.sleep = Some(Box::pin(sleep_until(moment))),
        }
    }

    /// Waits until it rings, which may be for ever; it has to be set anew then.
    pub(super) async fn ring(&mut self) {
        poll_fn(|context| self.poll_ring(context)).await;
    }

    fn poll_ring(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(sleep) = self.sleep.as_mut().filter(|_| self.rings_at.is_some()) else {
            return Poll::Pending;
        };
        if self.is_waited_for && !sleep.is_elapsed() {
            return Poll::Pending;
        }
        self.is_waited_for = true;
        // Whatever this turn of the task has used up, or the timers would not be told.
        ready!(pin!(unconstrained(sleep.as_mut())).poll(context));
        self.rings_at = None;
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::task::coop;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn it_rings_also_if_the_turn_was_used_up_when_it_was_set_or_set_anew() {
        let mut alarm = Alarm::default();
        for _ in 0..2 {
            alarm.set(Some(Instant::now() + Duration::from_millis(10)));
            while coop::has_budget_remaining() {
                coop::consume_budget().await;
            }
            assert!(futures_util::poll!(pin!(alarm.ring())).is_pending());
            tokio::task::yield_now().await;
            timeout(Duration::from_secs(10), alarm.ring()).await.expect("it rings");
        }
        let never = timeout(Duration::from_millis(20), alarm.ring()).await;
        assert!(never.is_err(), "it has to be set anew");
        // An earlier moment takes the place of a later one.
        alarm.set(Some(Instant::now() + Duration::from_secs(3_600)));
        assert!(futures_util::poll!(pin!(alarm.ring())).is_pending());
        alarm.set(Some(Instant::now() + Duration::from_millis(10)));
        timeout(Duration::from_secs(10), alarm.ring()).await.expect("it rings");
    }
}
