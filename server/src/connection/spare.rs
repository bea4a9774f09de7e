//! Owns the memory for pages that all connections of a thread take in turn.
//!
//! - A connection that kept its own would find it in no cache when its turn comes again, and many idle ones would keep much.

use std::cell::{Cell, RefCell};

use fanfold_cluster::read::ReadyFeeds;

/// Buffers that a thread keeps, at most: one is in use at a time, unless clients do not take their answers.
const BUFFERS_KEPT: usize = 4;

/// A buffer that grew beyond this for a large answer is not kept.
const BUFFER_BYTES_MAX: usize = 1 << 20;

/// A new buffer has room for so many bytes at most; it grows if that is not enough.
const NEW_BYTES_MAX: usize = 64 << 10;

/// A buffer up to this is left to its connection.
pub(super) const SMALL_BYTES: usize = 4 << 10;

thread_local! {
    static BUFFERS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
    static READY: Cell<Option<Box<ReadyFeeds>>> = const { Cell::new(None) };
}

/// The buffer that was left last, which is most likely in the cache; if there is none, one for about so many bytes.
pub(super) fn take(bytes: usize) -> Vec<u8> {
    let spare = BUFFERS.with_borrow_mut(Vec::pop);
    spare.unwrap_or_else(|| Vec::with_capacity(bytes.min(NEW_BYTES_MAX)))
}

/// Leaves the memory of a buffer that is written to whoever is next, unless it is small.
pub(super) fn give_back(buffer: &mut Vec<u8>) {
    buffer.clear();
    if buffer.capacity() <= SMALL_BYTES {
        return;
    }
    let buffer = std::mem::take(buffer);
    BUFFERS.with_borrow_mut(|kept| {
        if kept.len() < BUFFERS_KEPT && buffer.capacity() <= BUFFER_BYTES_MAX {
            kept.push(buffer);
        }
    });
}

/// Lets `run` use what the thread keeps for pages that are found together.
pub(super) fn with_ready<T>(run: impl FnOnce(&mut ReadyFeeds) -> T) -> T {
    let mut ready = READY.take().unwrap_or_default();
    let result = run(&mut ready);
    READY.set(Some(ready));
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_taken_again_but_for_what_is_small_too_large_or_too_much() {
        let mut small = Vec::with_capacity(SMALL_BYTES);
        small.push(1);
        give_back(&mut small);
        assert_eq!((small.len(), small.capacity()), (0, SMALL_BYTES));
        assert_eq!(take(100).capacity(), 100);
        assert_eq!(take(10 * NEW_BYTES_MAX).capacity(), NEW_BYTES_MAX);

        let mut large: Vec<u8> = Vec::with_capacity(SMALL_BYTES + 1);
        large.push(1);
        let memory = large.as_ptr();
        give_back(&mut large);
        assert_eq!(large.capacity(), 0);
        let again = take(100);
        assert_eq!((again.len(), again.as_ptr()), (0, memory));

        give_back(&mut Vec::with_capacity(BUFFER_BYTES_MAX + 1));
        assert_eq!(take(100).capacity(), 100);
        (0..10).for_each(|_| give_back(&mut Vec::with_capacity(2 * SMALL_BYTES)));
        let kept = (0..10).take_while(|_| take(0).capacity() > 0);
        assert_eq!(kept.count(), BUFFERS_KEPT);
    }
}
