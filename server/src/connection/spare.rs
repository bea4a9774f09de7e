//! Owns the memory for requests and pages that all connections of a thread take in turn.
//!
//! - A connection that kept its own would find it in no cache when its turn comes again, and many idle ones would keep much.

use std::cell::{Cell, RefCell};

use bytes::BytesMut;
use fanfold_cluster::read::ReadyFeeds;

/// Bytes that one read takes from the socket.
const READ_BYTES: usize = 64 << 10;

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
    static INCOMING: Cell<BytesMut> = Cell::new(BytesMut::new());
    static READY: Cell<Option<Box<ReadyFeeds>>> = const { Cell::new(None) };
}

/// Makes room in a buffer for one read of the socket; an empty one takes the memory that was left last.
pub(super) fn make_room_to_read(buffer: &mut BytesMut) {
    if buffer.is_empty() {
        leave_read(buffer);
        *buffer = INCOMING.take();
    }
    // If nothing of it is shared any more, it begins anew at its front.
    buffer.reserve(READ_BYTES);
}

/// Leaves the memory of an empty buffer to whoever reads next, unless there is some.
pub(super) fn leave_read(buffer: &mut BytesMut) {
    if !buffer.is_empty() || buffer.capacity() == 0 {
        return;
    }
    let left = std::mem::take(buffer);
    let kept = INCOMING.take();
    // What a large frame took is not kept, or not beyond the next read, which sees how much it is.
    let is_kept = kept.capacity() > 0 || left.capacity() > 2 * READ_BYTES;
    INCOMING.set(if is_kept { kept } else { left });
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
    fn a_buffer_that_is_read_into_is_the_one_that_was_left_and_what_is_shared_of_it_stays() {
        let mut buffer = BytesMut::from(&b"of the handshake"[..]);
        leave_read(&mut buffer);
        assert_eq!(&buffer[..], b"of the handshake", "what is not taken yet stays");
        make_room_to_read(&mut buffer);
        assert!(buffer.capacity() >= buffer.len() + READ_BYTES);

        let mut buffer = BytesMut::new();
        make_room_to_read(&mut buffer);
        let front = buffer.as_ptr();
        buffer.extend_from_slice(&[1; 1_000]);
        let request = buffer.split_to(1_000).freeze();
        leave_read(&mut buffer);
        assert_eq!(buffer.capacity(), 0);
        // Somebody still has the request: the next does not write over it.
        let mut other = BytesMut::new();
        make_room_to_read(&mut other);
        other.extend_from_slice(&[2; 1_000]);
        assert_eq!(request[..], [1; 1_000]);
        assert_ne!(other.as_ptr(), front);
        let front = other.as_ptr();
        drop(other.split_to(1_000));
        leave_read(&mut other);
        make_room_to_read(&mut buffer);
        assert_eq!((buffer.as_ptr(), buffer.is_empty()), (front, true), "from its front on");

        // A second one is not kept, nor is a large one.
        let mut second = BytesMut::new();
        make_room_to_read(&mut second);
        let (first, second_front) = (buffer.as_ptr(), second.as_ptr());
        leave_read(&mut buffer);
        leave_read(&mut second);
        make_room_to_read(&mut buffer);
        assert!(buffer.as_ptr() == first && first != second_front);
        buffer.reserve(2 * READ_BYTES + 1);
        leave_read(&mut buffer);
        make_room_to_read(&mut buffer);
        assert!(buffer.capacity() <= 2 * READ_BYTES);
    }

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
