//! Owns values that are fetched once, shared by all who need them, and fetched again once found stale.
//!
//! Invariants:
//! - However many ask at once, one of them fetches and the others wait for it; if that one gives up, another goes on.
//! - A value found stale is dropped only if it is still the current one, so that a burst of refusals makes one fetch.

use std::future::Future;
use std::sync::{Arc, Mutex};

use tokio::sync::OnceCell;

use crate::lock::lock;

type Cell<T> = Arc<OnceCell<Arc<T>>>;

#[derive(Debug)]
pub(crate) struct Renewable<T> {
    current: Mutex<Cell<T>>,
}

impl<T> Renewable<T> {
    pub fn new() -> Self {
        Self { current: Mutex::new(Arc::new(OnceCell::new())) }
    }

    /// The current value, fetched if there is none.
    pub async fn get<E, F, Fut>(&self, fetch: F) -> Result<Arc<T>, E>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        let cell = lock(&self.current).clone();
        cell.get_or_try_init(|| async { fetch().await.map(Arc::new) }).await.cloned()
    }

    /// The current value, if there is one.
    pub fn peek(&self) -> Option<Arc<T>> {
        lock(&self.current).get().cloned()
    }

    /// Drops a value, unless it was replaced already.
    pub fn renew(&self, stale: &Arc<T>) {
        let mut current = lock(&self.current);
        if current.get().is_some_and(|value| Arc::ptr_eq(value, stale)) {
            *current = Arc::new(OnceCell::new());
        }
    }

    /// Puts another value in the place of a stale one, unless that was replaced already.
    pub fn replace(&self, stale: &Arc<T>, value: T) {
        let mut current = lock(&self.current);
        if current.get().is_some_and(|value| Arc::ptr_eq(value, stale)) {
            *current = Arc::new(OnceCell::new_with(Some(Arc::new(value))));
        }
    }

    /// Drops whatever value there is.
    pub fn clear(&self) {
        *lock(&self.current) = Arc::new(OnceCell::new());
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicU32, Ordering};

    use futures_util::future::join_all;

    use super::*;

    #[tokio::test]
    async fn many_who_ask_at_once_make_one_fetch() {
        let value = Renewable::new();
        let fetches = AtomicU32::new(0);
        let asks = (0..10).map(|_| {
            value.get(async || {
                tokio::task::yield_now().await;
                Ok::<_, Infallible>(fetches.fetch_add(1, Ordering::Relaxed))
            })
        });
        assert!(join_all(asks).await.into_iter().all(|got| got == Ok(Arc::new(0))));
        assert_eq!(fetches.into_inner(), 1);
    }

    #[tokio::test]
    async fn stale_value_is_renewed_once() {
        let value = Renewable::new();
        let old = value.get(async || Ok::<_, Infallible>(1)).await.expect("infallible");
        value.renew(&old);
        let new = value.get(async || Ok::<_, Infallible>(2)).await.expect("infallible");
        value.renew(&old);
        assert_eq!(value.peek(), Some(new.clone()), "the second report of the old value came late");
        value.replace(&old, 3);
        assert_eq!(value.peek(), Some(new.clone()), "so did what it was to be replaced by");
        value.replace(&new, 4);
        assert_eq!(value.peek(), Some(Arc::new(4)));
    }

    #[tokio::test]
    async fn failed_fetch_leaves_nothing_behind() {
        let value = Renewable::new();
        assert_eq!(value.get(async || Err::<u32, _>("down")).await, Err("down"));
        assert_eq!(value.get(async || Ok::<_, &str>(3)).await, Ok(Arc::new(3)));
    }
}
