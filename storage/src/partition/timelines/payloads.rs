//! Owns the memory of a table's payloads: chunks that many share, so that dropping a table frees whole chunks.
//!
//! - A payload never moves; its chunk is freed when the last payload in it is.
//! - Large payloads keep an allocation of their own.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};

use crate::partition::heap::HeapBytes;

/// Bytes of a chunk; the first ones are smaller, so that a small partition stays small.
const CHUNK_BYTES: usize = 256 << 10;

const FIRST_CHUNK_BYTES: usize = 1 << 10;

/// A payload with more bytes shares no chunk.
const SHARED_BYTES_MAX: usize = CHUNK_BYTES / 16;

#[derive(Debug)]
struct Chunk {
    bytes: usize,
    /// Of payloads that are still kept.
    used: usize,
}

/// Payloads of entries.
#[derive(Debug, Default)]
pub(super) struct Payloads {
    /// What is left of the newest chunk.
    open: BytesMut,
    /// Where the newest chunk begins.
    open_at: usize,
    /// By the address of their first byte.
    chunks: BTreeMap<usize, Chunk>,
    heap: HeapBytes,
}

fn address(bytes: &[u8]) -> usize {
    bytes.as_ptr() as usize
}

impl Payloads {
    /// Takes a payload that owns its memory; answers where it is kept.
    pub(super) fn keep(&mut self, payload: Bytes) -> Bytes {
        let len = payload.len();
        if len > SHARED_BYTES_MAX {
            self.heap.resize(0, len);
            return payload;
        }
        if len == 0 {
            return Bytes::new();
        }
        if self.open.capacity() < len {
            self.open_chunk(len);
        }
        self.open.extend_from_slice(&payload);
        if let Some(chunk) = self.chunks.get_mut(&self.open_at) {
            chunk.used += len;
        }
        self.open.split().freeze()
    }

    fn open_chunk(&mut self, at_least: usize) {
        let held = self.heap.get();
        let bytes = held.next_power_of_two().clamp(FIRST_CHUNK_BYTES, CHUNK_BYTES).max(at_least);
        let full = self.open_at;
        self.open = BytesMut::with_capacity(bytes);
        self.open_at = self.open.as_ptr() as usize;
        self.chunks.insert(self.open_at, Chunk { bytes, used: 0 });
        self.heap.resize(0, bytes);
        self.drop_unused(full);
    }

    /// Notes that a payload is kept no more.
    pub(super) fn release(&mut self, payload: &Bytes) {
        let len = payload.len();
        if len > SHARED_BYTES_MAX {
            self.heap.resize(len, 0);
        } else if len > 0
            && let Some((at, chunk)) = self.chunks.range_mut(..=address(payload)).next_back()
        {
            let at = *at;
            chunk.used -= len;
            self.drop_unused(at);
        }
    }

    fn drop_unused(&mut self, at: usize) {
        if at != self.open_at
            && self.chunks.get(&at).is_some_and(|chunk| chunk.used == 0)
            && let Some(chunk) = self.chunks.remove(&at)
        {
            self.heap.resize(chunk.bytes, 0);
        }
    }

    /// Bytes of memory they hold.
    pub(super) fn memory(&self) -> usize {
        self.heap.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_released_is_counted_no_more() {
        let mut payloads = Payloads::default();
        let kept: Vec<Bytes> = (0..20_000usize)
            .map(|n| payloads.keep(Bytes::from(vec![n as u8; [0, 1, 300, 900, 40_000][n % 5]])))
            .collect();
        assert!(kept.iter().enumerate().all(|(n, payload)| payload.iter().all(|byte| *byte == n as u8)));
        let bytes: usize = kept.iter().map(Bytes::len).sum();
        assert!(payloads.memory() >= bytes && payloads.memory() < bytes + bytes / 50);
        kept.iter().for_each(|payload| payloads.release(payload));
        assert!(payloads.memory() <= crate::partition::heap::allocated(CHUNK_BYTES));
    }
}
