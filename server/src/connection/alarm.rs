//! Owns the alarm of a connection: it rings at the first of its deadlines, or earlier.
//!
//! - A deadline that has become later does not move it: that would cost every answer a visit to the timers.

use std::pin::Pin;

use tokio::time::{Instant, Sleep, sleep_until};

#[derive(Default)]
pub(super) struct Alarm {
    sleep: Option<Pin<Box<Sleep>>>,
    rings_at: Option<Instant>,
}

impl Alarm {
    /// Makes it ring at `moment`, or before.
    pub(super) fn set(&mut self, moment: Option<Instant>) {
        let Some(moment) = moment else { return };
        if self.rings_at.is_some_and(|at| at <= moment) {
            return;
        }
        self.rings_at = Some(moment);
        match &mut self.sleep {
            Some(sleep) => sleep.as_mut().reset(moment),
            None => self.sleep = Some(Box::pin(sleep_until(moment))),
        }
    }

    /// Waits until it rings, which may be for ever; it has to be set anew then.
    pub(super) async fn ring(&mut self) {
        match &mut self.sleep {
            Some(sleep) if self.rings_at.is_some() => sleep.await,
            _ => std::future::pending().await,
        }
        self.rings_at = None;
    }
}
