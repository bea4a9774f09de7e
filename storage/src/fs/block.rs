//! Owns memory for reads and writes beside the page cache: whole blocks of the disk, from a small pool.
//!
//! - Data that is written once and read once, much later, gains nothing from the page cache, and copying it there and back was a seventh of
//!   a node's processor time. Linux lets such data pass by (`O_DIRECT`) if memory, offset and length are whole blocks.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use memmap2::MmapMut;

/// Memory, offsets and lengths are multiples of this, which is one of every disk's own block.
pub(super) const ALIGNED_BYTES: usize = 4 << 10;

/// Bytes of a block.
pub const BLOCK_BYTES: usize = 256 << 10;

/// What fits into a block with the pages around it, wherever it begins.
pub const ONCE_BYTES: usize = BLOCK_BYTES - 2 * ALIGNED_BYTES;

/// Blocks that are kept for the next who needs one: making one costs as much as copying its content.
const KEPT_MAX: usize = 8;

static KEPT: Mutex<Vec<MmapMut>> = Mutex::new(Vec::new());

/// Memory of [`BLOCK_BYTES`] that begins where a page does.
#[derive(Debug)]
pub struct Block(Option<MmapMut>);

impl Block {
    /// One of those that are kept, or a new one; what it holds is anything.
    ///
    /// Errors: the operating system gives no memory.
    pub fn new() -> std::io::Result<Self> {
        let kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner).pop();
        kept.map_or_else(|| MmapMut::map_anon(BLOCK_BYTES), Ok).map(|memory| Self(Some(memory)))
    }

    /// All of it.
    pub fn bytes(&self) -> &[u8] {
        self.0.as_deref().unwrap_or_default()
    }

    /// All of it, to be changed.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.0.as_deref_mut().unwrap_or_default()
    }

    /// What is in it, to be shared.
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

/// A block that is filled from front to back.
#[derive(Debug)]
pub struct Filling {
    block: Block,
    filled: usize,
}

impl Filling {
    /// An empty one.
    ///
    /// Errors: the operating system gives no memory.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self { block: Block::new()?, filled: 0 })
    }

    /// What is in it.
    pub fn bytes(&self) -> &[u8] {
        &self.block.bytes()[..self.filled]
    }

    /// Whether nothing more fits.
    pub fn is_full(&self) -> bool {
        self.filled == BLOCK_BYTES
    }

    /// Puts in as much of `bytes` as fits, and gives the rest back.
    pub fn fill<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let (now, rest) = bytes.split_at(bytes.len().min(BLOCK_BYTES - self.filled));
        self.block.bytes_mut()[self.filled..][..now.len()].copy_from_slice(now);
        self.filled += now.len();
        rest
    }

    /// Empties it.
    pub fn clear(&mut self) {
        self.filled = 0;
    }
}

impl AsRef<[u8]> for Block {
    fn as_ref(&self) -> &[u8] {
        self.bytes()
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < KEPT_MAX {
            kept.extend(self.0.take());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_begin_at_pages_and_are_used_again() {
        let blocks: Vec<_> = (0..2 * KEPT_MAX).map(|_| Block::new().unwrap()).collect();
        for block in &blocks {
            assert_eq!(
                (block.bytes().len(), block.bytes().as_ptr() as usize % ALIGNED_BYTES),
                (BLOCK_BYTES, 0)
            );
        }
        let shared = blocks.into_iter().map(Block::freeze).next().unwrap();
        drop(shared);
        assert!(KEPT.lock().unwrap().len() <= KEPT_MAX);
    }
}
