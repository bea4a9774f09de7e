//! Owns how mutexes are taken.
//!
//! Invariant: no critical section of this crate panics half-way through a change, so a poisoned lock guards sound data.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Takes a lock; never held across an await.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
