//! Owns the trace of a run: every event in order, as a hash, and as text if somebody wants to read it.

use std::fmt::Arguments;
use std::sync::{Mutex, PoisonError};

use xxhash_rust::xxh3::Xxh3;

/// The events of a run so far.
pub struct Trace {
    inner: Mutex<Inner>,
    is_printed: bool,
}

struct Inner {
    hash: Xxh3,
    events: u64,
}

impl Trace {
    /// An empty trace, which is printed as it grows if `is_printed` says so.
    pub fn new(is_printed: bool) -> Self {
        Self { inner: Mutex::new(Inner { hash: Xxh3::new(), events: 0 }), is_printed }
    }

    /// Notes an event.
    pub fn note(&self, now_ms: u64, event: Arguments<'_>) {
        let line = format!("{now_ms} {event}");
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.hash.update(line.as_bytes());
        inner.events += 1;
        if self.is_printed {
            println!("{line}");
        }
    }

    /// The number of events and their hash.
    pub fn summary(&self) -> (u64, u64) {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        (inner.events, inner.hash.digest())
    }
}
