//! Owns every access to files: the traits [`FileSystem`] and [`File`], the real implementation and one that fails on demand.
//!
//! - Nothing else in this crate opens, writes or syncs a file, so that a test can stop, tear or fail each single operation.
//! - What was written counts as durable only after [`File::sync_data`]; a name only after [`FileSystem::sync_dir`].

mod block;
mod disk;
mod fault;
mod mapped;
mod real;

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use memmap2::MmapMut;

pub use block::{BLOCK_BYTES, Block, Filling, ONCE_BYTES};
pub use disk::PowerLoss;
pub use fault::FaultFs;
pub use mapped::Mapped;
pub use real::RealFs;

/// The operations on directories and names that storage needs.
///
/// All errors are those of the operating system.
pub trait FileSystem: fmt::Debug + Send + Sync {
    /// Makes a directory and its parents; an existing one is fine. Syncing the parent is part of it.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;

    /// The names of the plain files in a directory, and of links to such, sorted.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Makes a new, empty file for reading and writing; fails if the name exists.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>>;

    /// Opens an existing file for reading and writing.
    fn open_rw(&self, path: &Path) -> io::Result<Arc<dyn File>>;

    /// Opens an existing file for reading only.
    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn File>>;

    /// Renames a file within one directory, replacing what has the new name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Gives a file a second name on the same disk (a hard link); fails if that name exists.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Bytes that files in a directory may still grow by.
    fn free_bytes(&self, dir: &Path) -> io::Result<u64>;

    /// Removes a file's name.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names of a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// One open file. Reads and writes name their offset, so that a handle can be shared between threads.
#[expect(clippy::len_without_is_empty, reason = "the length is a question to the disk and may fail")]
pub trait File: fmt::Debug + Send + Sync {
    /// The length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Fills the whole buffer; a file that ends before is the error `UnexpectedEof`.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// Writes all of the data; on an error any part of it may have been written.
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Reads a part of the file that is needed once: of at most [`ONCE_BYTES`], beside the page cache where the system can do that.
    fn read_once(&self, part: Range<u64>) -> io::Result<Bytes> {
        let mut bytes = vec![0; (part.end - part.start) as usize];
        self.read_at(part.start, &mut bytes)?;
        Ok(bytes.into())
    }

    /// Writes what nobody reads soon, beside the page cache where the system can do that: of data that begins
    /// where a page of memory does, as a [`Block`], and at a page of the file, all whole pages.
    fn write_aside(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.write_at(offset, data)
    }

    /// Cuts or extends the file; what is added reads as zeros.
    fn set_len(&self, bytes: u64) -> io::Result<()>;

    /// The whole content as memory, for a file that nobody writes any more.
    fn map(&self) -> io::Result<Mapped>;

    /// Makes what was written durable, the length included (fdatasync).
    fn sync_data(&self) -> io::Result<()>;

    /// Forgets what the operating system caches of this file, so that the next read asks the disk.
    fn drop_cache(&self) -> io::Result<()>;
}

/// Writes zeros from one offset to another, for files that must not grow later; beside the page cache, which took more time for them
/// than for all else that is written to a log.
pub fn fill_with_zeros(file: &dyn File, from: u64, to: u64) -> io::Result<()> {
    /// Bytes written at a time.
    const CHUNK_BYTES: u64 = 1 << 20;
    // Pages of the system's own, which are zeros.
    let zeros = MmapMut::map_anon(CHUNK_BYTES.min(to.saturating_sub(from)) as usize)?;
    let mut offset = from;
    while offset < to {
        let bytes = CHUNK_BYTES.min(to - offset);
        file.write_aside(offset, &zeros[..bytes as usize])?;
        offset += bytes;
    }
    Ok(())
}
