//! Owns the unsent call: what every method that talks to a server returns, until it is awaited.

use std::future::{Future, IntoFuture};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::core::Core;
use crate::deadline::Deadline;
use crate::error::Error;

type Run<T> = Box<dyn FnOnce(Arc<Core>, Deadline) -> BoxFuture<'static, Result<T, Error>> + Send>;

/// A call that is sent when it is awaited.
///
/// Dropping its future gives up on the answer; a write may still take effect then.
#[must_use = "a call is only sent when it is awaited"]
pub struct Call<T> {
    core: Arc<Core>,
    deadline: Option<Duration>,
    run: Run<T>,
}

impl<T> Call<T> {
    pub(crate) fn new<F, Fut>(core: Arc<Core>, run: F) -> Self
    where
        F: FnOnce(Arc<Core>, Deadline) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, Error>> + Send + 'static,
    {
        Self { core, deadline: None, run: Box::new(move |core, deadline| Box::pin(run(core, deadline))) }
    }

    /// How long this call may take, connecting and retrying included. Default: the client's, 10 s if it has none.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }
}

impl<T: 'static> IntoFuture for Call<T> {
    type Output = Result<T, Error>;
    type IntoFuture = BoxFuture<'static, Result<T, Error>>;

    fn into_future(self) -> Self::IntoFuture {
        let deadline = self.core.deadline(self.deadline);
        (self.run)(self.core, deadline)
    }
}

impl<T> std::fmt::Debug for Call<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Call").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}
