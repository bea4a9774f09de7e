//! Owns a connection's wait for the node's stop.
//!
//! - All connections of the node wait for the one token, whose lock each look at it takes: so it is told once whom to wake, and what is
//!   looked at after that nobody writes.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use tokio_util::sync::WaitForCancellationFuture;

use crate::listener::Shared;

pub(super) struct Stop<'s> {
    shared: &'s Shared,
    called: Pin<Box<WaitForCancellationFuture<'s>>>,
    /// Whether the token knows whom to wake.
    is_waited_for: bool,
}

impl<'s> Stop<'s> {
    pub(super) fn new(shared: &'s Shared) -> Self {
        Self { shared, called: Box::pin(shared.stopping.cancelled()), is_waited_for: false }
    }

    /// Waits until the node stops; always on the same task.
    pub(super) async fn called(&mut self) {
        poll_fn(|context| self.poll_called(context)).await;
    }

    fn poll_called(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.shared.is_stopping.load(Ordering::Relaxed) {
            return Poll::Ready(());
        }
        if self.is_waited_for {
            return Poll::Pending;
        }
        self.is_waited_for = true;
        self.called.as_mut().poll(context)
    }
}
