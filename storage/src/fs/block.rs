//! Owns memory for reads and writes beside the page cache: blocks of whole pages, from a small pool.
//!
//! - Data that is written once and read once, much later, gains nothing from the page cache, and copying it there and back takes time.
//!   Linux lets such data pass by (`O_DIRECT`) if memory, offset and length are whole pages.

use std::io;
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

static POOL: Pool = Pool(Mutex::new(Vec::new()));

/// Memory for blocks that nobody has.
#[derive(Debug)]
struct Pool(Mutex<Vec<MmapMut>>);

impl Pool {
    fn take(&self) -> io::Result<MmapMut> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        kept.map_or_else(|| MmapMut::map_anon(BLOCK_BYTES), Ok)
    }

    /// Takes memory back; if there is enough of it, the system gets it.
    fn put(&self, memory: Option<MmapMut>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < KEPT_MAX {
            kept.extend(memory);
        }
    }
}

/// Memory of [`BLOCK_BYTES`] that begins where a page does.
#[derive(Debug)]
pub struct Block(Option<MmapMut>);

impl Block {
    /// One of those that are kept, or a new one; what it holds is anything.
    ///
    /// Errors: the operating system gives no memory.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Some(POOL.take()?)))
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
    pub fn new() -> io::Result<Self> {
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
        POOL.put(self.0.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_begin_at_pages_and_some_are_kept() {
        let pool = Pool(Mutex::new(Vec::new()));
        let taken: Vec<_> = (0..2 * KEPT_MAX).map(|_| pool.take().unwrap()).collect();
        for memory in &taken {
            assert_eq!((memory.len(), memory.as_ptr() as usize % ALIGNED_BYTES), (BLOCK_BYTES, 0));
        }
        taken.into_iter().for_each(|memory| pool.put(Some(memory)));
        let kept: Vec<_> = pool.0.lock().unwrap().iter().map(|memory| memory.as_ptr()).collect();
        assert_eq!(kept.len(), KEPT_MAX);
        assert_eq!(kept.last(), Some(&pool.take().unwrap().as_ptr()), "one that is kept is used first");
    }

    #[test]
    fn a_block_is_filled_from_front_to_back() {
        let mut filling = Filling::new().unwrap();
        let bytes: Vec<u8> = (0..BLOCK_BYTES + 9).map(|at| at as u8).collect();
        assert_eq!(filling.fill(&bytes[..7]), []);
        assert!(filling.bytes() == &bytes[..7] && !filling.is_full());
        assert_eq!(filling.fill(&bytes[7..]), &bytes[BLOCK_BYTES..]);
        assert!(filling.bytes() == &bytes[..BLOCK_BYTES] && filling.is_full());
        filling.clear();
        assert_eq!(filling.bytes(), []);
    }
}
